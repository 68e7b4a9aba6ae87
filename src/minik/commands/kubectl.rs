//! `minik kubectl -- ...`: the host's kubectl, pointed at this cluster.
//!
//! Owns: the verb. Called by: `main`. Never: brings a kubectl of its own: any 1.36 to 1.38 works.

use std::os::unix::process::CommandExt;

use crate::error::CliError;

pub fn run(profile: &str, args: &[String]) -> Result<(), CliError> {
    let source = std::process::Command::new("kubectl").arg("--context").arg(profile).args(args).exec();
    Err(CliError::Io { what: "`kubectl`; install it first".into(), source })
}
