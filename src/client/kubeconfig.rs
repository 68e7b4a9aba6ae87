//! What a kubeconfig says: where the API server is and who we are.
//!
//! Owns: reading clusters, users and contexts into one `Endpoint`.
//! Called by: `Client::from_kubeconfig` and the wiring of components.
//! Never: opens a connection or writes a kubeconfig.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::ConfigError;

/// Everything needed to connect.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://host:port`, possibly with a path prefix.
    pub server: String,
    /// PEM; empty trusts nobody.
    pub ca_pem: Vec<u8>,
    pub insecure_skip_tls_verify: bool,
    /// The name the server's certificate must have, if not the host of `server`.
    pub tls_server_name: Option<String>,
    pub credentials: Credentials,
}

#[derive(Clone, Default)]
pub enum Credentials {
    #[default]
    None,
    ClientCertificate {
        certificate_pem: Vec<u8>,
        key_pem: Vec<u8>,
    },
    Token(String),
    /// Read again when it is a minute old, since tokens rotate.
    TokenFile(PathBuf),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    current_context: String,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<Context>>,
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: T,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Kubeconfig, ConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown(), source })?;
        let mut config: Kubeconfig =
            serde_yaml::from_str(&text).map_err(|source| ConfigError::Yaml { path: shown(), source })?;
        config.folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(config)
    }

    /// `context` empty means the current one.
    pub fn endpoint(&self, context: &str) -> Result<Endpoint, ConfigError> {
        let context = if context.is_empty() { &self.current_context } else { context };
        let context = find(&self.contexts, "context", context)?;
        let cluster = find(&self.clusters, "cluster", &context.cluster)?;
        let ca_pem = self.data(
            "certificate-authority-data",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let credentials = if context.user.is_empty() {
            Credentials::None
        } else {
            self.credentials(find(&self.users, "user", &context.user)?)?
        };
        Ok(Endpoint {
            server: cluster.server.clone(),
            ca_pem: ca_pem.unwrap_or_default(),
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            tls_server_name: cluster.tls_server_name.clone(),
            credentials,
        })
    }

    fn credentials(&self, user: &User) -> Result<Credentials, ConfigError> {
        let certificate = self.data(
            "client-certificate-data",
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        let key = self.data("client-key-data", user.client_key_data.as_deref(), user.client_key.as_deref())?;
        if let (Some(certificate_pem), Some(key_pem)) = (certificate, key) {
            return Ok(Credentials::ClientCertificate { certificate_pem, key_pem });
        }
        if let Some(path) = &user.token_file {
            return Ok(Credentials::TokenFile(self.folder.join(path)));
        }
        Ok(user.token.clone().map_or(Credentials::None, Credentials::Token))
    }

    /// Inline data wins over a file; file names are relative to the kubeconfig.
    fn data(
        &self,
        field: &'static str,
        inline: Option<&str>,
        file: Option<&Path>,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        if let Some(text) = inline {
            return STANDARD.decode(text.trim()).map(Some).map_err(|source| ConfigError::Base64 { field, source });
        }
        let Some(file) = file else { return Ok(None) };
        let path = self.folder.join(file);
        std::fs::read(&path).map(Some).map_err(|source| ConfigError::Read { path: path.display().to_string(), source })
    }
}

fn find<'a, T>(list: &'a [Named<T>], kind: &'static str, name: &str) -> Result<&'a T, ConfigError> {
    let found = list.iter().find(|n| n.name == name);
    found.map(|n| &n.value).ok_or_else(|| ConfigError::Missing { kind, name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
apiVersion: v1
kind: Config
current-context: dev
clusters:
- name: c
  cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: Y2E=}
users:
- name: cert
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
- name: file
  user: {tokenFile: token}
contexts:
- name: dev
  context: {cluster: c, user: cert}
- name: other
  context: {cluster: c, user: file, namespace: x}
- name: broken
  context: {cluster: gone, user: cert}
";

    fn config() -> Kubeconfig {
        let mut config: Kubeconfig = serde_yaml::from_str(TEXT).unwrap();
        config.folder = "/etc/k".into();
        config
    }

    #[test]
    fn the_current_context_names_cluster_and_user() {
        let endpoint = config().endpoint("").unwrap();
        assert_eq!(endpoint.server, "https://127.0.0.1:6443");
        assert_eq!(endpoint.ca_pem, b"ca");
        assert!(matches!(endpoint.credentials,
            Credentials::ClientCertificate { certificate_pem, key_pem } if certificate_pem == b"cert" && key_pem == b"key"));
    }

    #[test]
    fn files_are_relative_to_the_kubeconfig() {
        let endpoint = config().endpoint("other").unwrap();
        assert!(matches!(endpoint.credentials, Credentials::TokenFile(path) if path == Path::new("/etc/k/token")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = config().endpoint("broken").err().unwrap();
        assert_eq!(error.to_string(), "kubeconfig has no cluster named \"gone\"");
    }
}
