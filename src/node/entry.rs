//! The verbs that are not the CLI's: what Docker, init and the runtime call the binary with.
//!
//! Owns: the list of entry points.
//! Called by: the binary's `main`, before the command line is parsed.
//! Never: returns for a verb of its own: the process ends with it.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use minik_cri::images::{ImageStore, Registries};

use crate::config::IMAGES;
use crate::{control_plane, init, kubelet};

/// Runs `name` if it is one of ours.
pub fn entry(name: &str, args: &[OsString]) -> Option<ExitCode> {
    let result = match name {
        "shim" => minik_shim::main(),
        "hello" => return Some(minik_cri::hello_main()),
        "node" => init::run(),
        "control-plane" => control_plane::run(),
        "kubelet" => kubelet::run(),
        "image-import" => import(),
        "image-list" => list(),
        "image-remove" => remove(args),
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

fn images() -> Result<ImageStore> {
    ImageStore::open(Path::new(IMAGES), Registries::default()).context("could not open the image store")
}

/// The archive comes on standard input; the names of what it brought go to standard output.
fn import() -> Result<()> {
    let names = images()?.import(std::io::stdin().lock())?;
    let mut out = std::io::stdout().lock();
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for image in images()?.list()? {
        let names = if image.tags.is_empty() { image.digests } else { image.tags };
        for name in names {
            writeln!(out, "{name}")?;
        }
    }
    Ok(())
}

fn remove(names: &[OsString]) -> Result<()> {
    let store = images()?;
    for name in names {
        store.remove(name.to_str().context("an image's name is UTF-8")?)?;
    }
    Ok(())
}
