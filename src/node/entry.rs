//! The verbs that are not the CLI's: what Docker, init and the runtime call the binary with.
//!
//! Owns: the list of entry points.
//! Called by: the binary's `main`, before the command line is parsed.
//! Never: returns for a verb of its own: the process ends with it.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::init;

/// Runs `name` if it is one of ours.
pub fn entry(name: &str, _args: Vec<OsString>) -> Option<ExitCode> {
    let result = match name {
        "node" => init::run(),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minik {name}: {error:#}");
            ExitCode::FAILURE
        }
    })
}
