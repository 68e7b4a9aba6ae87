//! Components on their own, outside a node container: any of them can stand beside upstream's others.
//!
//! Owns: how an API server, a scheduler or a controller manager runs as a process by itself.
//! Called by: `minik apiserver`, `minik scheduler`, `minik controller-manager`.
//! Never: makes keys or reads flags; the command line has done that.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use minik_apiserver::ApiServer;
use minik_apiserver::authn::{UserInfo, groups};
use minik_client::{Client, Credentials, Kubeconfig, Remote, Transport};
use minik_store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::API_READY;
use crate::{control_plane, logging, process};

pub struct ApiServerAlone {
    pub listener: TcpListener,
    /// Holds `pki/`, as a control-plane node has it.
    pub folder: PathBuf,
    /// Where objects are kept; `None`: in memory alone.
    pub store: Option<PathBuf>,
    pub service_cidr: String,
    /// Lines of `token,user,uid,"group,group"`.
    pub token_file: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT; says on standard output when it answers.
pub fn api_server(alone: ApiServerAlone) -> Result<()> {
    logging::start_console();
    process::block_on(serve(alone))
}

async fn serve(alone: ApiServerAlone) -> Result<()> {
    let store = match &alone.store {
        Some(path) => Store::open(path).with_context(|| format!("could not open the store {}", path.display()))?,
        None => Store::memory(),
    };
    let address = alone.listener.local_addr().context("the listener has no address")?;
    let mut config = control_plane::config(store, &alone.folder, address.ip(), address.port())?;
    config.service_cidr = alone.service_cidr;
    if let Some(path) = &alone.token_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        config.static_tokens = static_tokens(&text).with_context(|| format!("in {}", path.display()))?;
    }
    let server = ApiServer::build(config).await?;
    alone.listener.set_nonblocking(true).context("the listener cannot wait for events")?;
    let listener = tokio::net::TcpListener::from_std(alone.listener).context("the listener cannot wait for events")?;
    let cancel = CancellationToken::new();
    let mut serving = tokio::spawn(server.clone().serve(listener, cancel.clone()));
    let mut out = std::io::stdout();
    writeln!(out, "{API_READY} at https://{address}")
        .and_then(|()| out.flush())
        .context("standard output is closed")?;
    tokio::select! {
        result = &mut serving => result??,
        () = process::asked_to_end() => {
            cancel.cancel();
            serving.await??;
        }
    }
    server.stop().await;
    Ok(())
}

/// As upstream's `--token-auth-file` has them.
fn static_tokens(text: &str) -> Result<Vec<(String, UserInfo)>> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let fields: Vec<&str> = line.splitn(4, ',').map(str::trim).collect();
        let [token, user, uid, more @ ..] = fields.as_slice() else {
            bail!("line {}: a token, a user and a uid are needed, separated by commas", number + 1);
        };
        let named = more.first().map_or("", |g| g.trim_matches('"'));
        let listed = named.split(',').map(str::trim).filter(|g| !g.is_empty());
        let mut info = UserInfo::new(user, &listed.chain([groups::AUTHENTICATED]).collect::<Vec<_>>());
        info.uid = (*uid).into();
        all.push(((*token).into(), info));
    }
    Ok(all)
}

/// The way to the API server without an identity: each controller brings the token of its service account.
fn anonymous(kubeconfig: &Path) -> Result<Arc<dyn Transport>> {
    let failed = || format!("could not use {}", kubeconfig.display());
    let mut endpoint = Kubeconfig::read(kubeconfig).and_then(|k| k.endpoint("")).with_context(failed)?;
    endpoint.credentials = Credentials::None;
    Ok(Arc::new(Remote::new(endpoint).with_context(failed)?))
}

fn client(kubeconfig: &Path) -> Result<Client> {
    Client::from_kubeconfig(kubeconfig).with_context(|| format!("could not use {}", kubeconfig.display()))
}

/// Any API server's Pods that name this scheduler, until SIGTERM or SIGINT.
pub fn scheduler(kubeconfig: &Path) -> Result<()> {
    logging::start_console();
    process::block_on(run_to_end(|cancel| {
        let config = minik_scheduler::Config::new(client(kubeconfig)?);
        Ok(minik_scheduler::run(config, cancel))
    }))
}

pub struct ControllerManagerAlone {
    pub kubeconfig: PathBuf,
    /// What Pods get to trust the API server by.
    pub root_ca: PathBuf,
    /// Certificate and key of the authority that signs certificate requests; without them none is signed.
    pub signing: Option<(PathBuf, PathBuf)>,
    /// Key of service-account tokens; without it Secrets for them stay empty.
    pub token_key: Option<PathBuf>,
}

pub fn controller_manager(alone: &ControllerManagerAlone) -> Result<()> {
    logging::start_console();
    let mut keys = control_plane::ControllerKeys::default();
    if let Some((certificate, key)) = &alone.signing {
        keys.authority = Some(control_plane::authority(certificate, key)?);
    }
    if let Some(path) = &alone.token_key {
        keys.token_signer = Some(control_plane::token_signer(path)?);
    }
    process::block_on(run_to_end(|cancel| {
        let client = client(&alone.kubeconfig)?;
        let mut config = control_plane::controllers(client, &alone.root_ca, keys)?;
        config.identities = minik_controllers::Identities::Each(anonymous(&alone.kubeconfig)?);
        Ok(minik_controllers::run(config, cancel))
    }))
}

async fn run_to_end<F: Future<Output = ()>>(start: impl FnOnce(CancellationToken) -> Result<F>) -> Result<()> {
    let cancel = CancellationToken::new();
    let running = start(cancel.clone())?;
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => return Ok(()),
        () = process::asked_to_end() => cancel.cancel(),
    }
    running.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_user_uid_and_groups() {
        let all = static_tokens("abc,admin,1,\"system:masters,dev\"\n\ndef,bob,2\n").unwrap();
        assert_eq!(all[0].0, "abc");
        assert_eq!(all[0].1.groups, ["system:masters", "dev", "system:authenticated"]);
        assert_eq!((all[1].1.name.as_str(), all[1].1.uid.as_str()), ("bob", "2"));
        assert!(static_tokens("abc,admin").unwrap_err().to_string().contains("line 1"));
    }
}
