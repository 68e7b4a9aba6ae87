//! `minik image`: brings images into a cluster without a registry.
//!
//! Owns: streaming `docker save` output or a tar file into a node, which unpacks it once for all nodes.
//! Called by: `main`.
//! Never: holds a whole image in memory.

use std::pin::Pin;

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

use crate::cluster::{self, State};
use crate::docker;
use crate::error::CliError;
use crate::output::{Format, Progress};

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Load images from the host's Docker (by name) or from tar files (`docker save` or OCI layout).
    Load {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// List the cluster's images.
    #[command(visible_alias = "list")]
    Ls,
    /// Remove images from the cluster.
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
}

pub async fn run(profile: &str, verb: &Verb, format: Format) -> Result<(), CliError> {
    let docker = docker::connect().await?;
    let cluster = cluster::require(&docker, profile).await?;
    let not_running = || CliError::NotRunning { profile: profile.into() };
    let node = cluster.nodes.iter().find(|n| n.state == State::Running).ok_or_else(not_running)?;
    let progress = Progress::new(format);
    match verb {
        Verb::Load { images } => {
            let mut loaded = Vec::new();
            for image in images {
                progress.step(&format!("Loading {image}"));
                let said =
                    execute(&docker, &node.name, vec!["/minik", "image-import"], Some(source(&docker, image).await?));
                loaded.extend(said.await?.lines().map(ToString::to_string));
            }
            progress.done(&format!("Loaded {}", loaded.join(", ")));
            if format == Format::Json {
                println!("{}", serde_json::json!({"loaded": loaded}));
            }
        }
        Verb::Ls => print!("{}", execute(&docker, &node.name, vec!["/minik", "image-list"], None).await?),
        Verb::Rm { images } => {
            let command = [vec!["/minik", "image-remove"], images.iter().map(String::as_str).collect()].concat();
            print!("{}", execute(&docker, &node.name, command, None).await?);
        }
    }
    Ok(())
}

type Bytestream = Pin<Box<dyn Stream<Item = Result<Bytes, CliError>> + Send>>;

/// A file of that name wins over an image of that name, as with `minikube image load`.
async fn source(docker: &Docker, image: &str) -> Result<Bytestream, CliError> {
    if std::path::Path::new(image).is_file() {
        let read = |what: String| move |source| CliError::Io { what: what.clone(), source };
        let file = tokio::fs::File::open(image).await.map_err(read(image.into()))?;
        return Ok(tokio_util::io::ReaderStream::new(file).map_err(read(image.into())).boxed());
    }
    match docker.inspect_image(image).await {
        Ok(_) => {}
        Err(e) if docker::code(&e) == Some(404) => {
            let what = format!("there is neither a file nor an image in the host's Docker named `{image}`");
            return Err(CliError::Invalid(what));
        }
        Err(e) => return Err(docker::failed(format!("look for image {image}"))(e)),
    }
    let docker = docker.clone();
    let image = image.to_string();
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        let mut chunks = std::pin::pin!(docker.export_image(&image));
        while let Some(chunk) = chunks.next().await {
            if sender.send(chunk.map_err(docker::failed("export the image"))).await.is_err() {
                break;
            }
        }
    });
    Ok(futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|c| (c, r)) }).boxed())
}

/// Runs a command in a node, with a stream for its input; its output when it succeeded.
async fn execute(
    docker: &Docker,
    node: &str,
    command: Vec<&str>,
    input: Option<Bytestream>,
) -> Result<String, CliError> {
    let options = CreateExecOptions {
        attach_stdin: Some(input.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.clone()),
        ..CreateExecOptions::default()
    };
    let failed = || docker::failed(format!("run `{}` in node {node}", command.join(" ")));
    let exec = docker.create_exec(node, options).await.map_err(failed())?;
    let StartExecResults::Attached { mut output, input: mut stdin } =
        docker.start_exec(&exec.id, None).await.map_err(failed())?
    else {
        return Err(CliError::Invalid("Docker ran a command detached that was to be attached".into()));
    };
    let feed = async {
        if let Some(mut chunks) = input {
            while let Some(chunk) = chunks.try_next().await? {
                // The command has ended; its output says why.
                if stdin.write_all(&chunk).await.is_err() {
                    break;
                }
            }
        }
        let _ = stdin.shutdown().await;
        Ok::<_, CliError>(())
    };
    let read = async {
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(part) = output.try_next().await.map_err(failed())? {
            match part {
                bollard::container::LogOutput::StdErr { .. } => err += &part.to_string(),
                _ => out += &part.to_string(),
            }
        }
        Ok((out, err))
    };
    let ((), (out, err)) = tokio::try_join!(feed, read)?;
    let ended = docker.inspect_exec(&exec.id).await.map_err(failed())?;
    if ended.exit_code == Some(0) { Ok(out) } else { Err(CliError::Invalid(err.trim().to_string())) }
}
