//! What programs written with Python's Kubernetes client do; the programs are in `python_client.py`.
//!
//! Owns: running them against a cluster, and against an API server that is killed meanwhile.
//! Called by: the shared cluster's run, and on its own.
//! Never: knows what they ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::alone::ApiServer;
use crate::harness::{Cluster, text};
use crate::{OwnTest, Test};

pub const TESTS: &[(&str, Test)] =
    &[("python::watches_informers_patches_deletes_execs_and_uses_new_kinds", everything)];
pub const OWN_TESTS: &[(&str, OwnTest)] = &[("python::an_informer_survives_the_end_of_its_api_server", restart)];

fn program(part: &str, kubeconfig: &Path) -> Command {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.arg(tests.join("cluster/python_client.py")).arg(part);
    command.env("KUBECONFIG", kubeconfig).env("PYTHONDONTWRITEBYTECODE", "1");
    // Where `scripts/prepare tests` puts the client.
    command.env("PYTHONPATH", tests.join("../target/tools/python"));
    command
}

fn everything(c: &Cluster) -> Result<()> {
    let output = program("everything", &c.kubeconfig()).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(())
}

fn restart() -> Result<()> {
    let mut server = ApiServer::start()?;
    let mut command = program("restart", &server.kubeconfig());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped above")?).read_line(&mut line)?;
    if line == "kill\n" {
        server.kill()?;
        server.begin()?;
        child.stdin.take().context("piped above")?.write_all(b"back\n")?;
    }
    let mut said = String::new();
    child.stderr.take().context("piped above")?.read_to_string(&mut said)?;
    ensure!(child.wait()?.success(), "{said}");
    Ok(())
}
