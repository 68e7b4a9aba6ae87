//! Tests on real Docker with the real kubectl.
//!
//! Owns: which cluster each test gets, and that nothing is left behind.
//! Called by: `scripts/test`; `cargo test` alone lists them as ignored, because they need Docker.
//! Never: uses a cluster it did not make.

mod alone;
mod app;
mod harness;
mod helm;
mod kill;
mod kubectl;
mod leader;
mod lifecycle;
mod network;
mod python;
mod storage;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use harness::Cluster;

type Test = fn(&Cluster) -> anyhow::Result<()>;
/// A test that makes clusters of its own.
type OwnTest = fn() -> anyhow::Result<()>;

fn main() {
    if let Some(code) = network::get_main() {
        std::process::exit(code);
    }
    let args = Arguments::from_args();
    let shared: Vec<(&str, Test)> =
        [app::TESTS, helm::TESTS, kubectl::TESTS, network::TESTS, python::TESTS, storage::TESTS].concat();
    let wanted = |name: &str| args.filter.as_deref().is_none_or(|f| name.contains(f));
    let runs = (args.ignored || args.include_ignored) && !args.list;
    let needs_shared = runs && shared.iter().any(|(name, _)| wanted(name));
    // One cluster of three nodes for everything that breaks nothing: each test has its own namespaces there.
    let cluster = needs_shared.then(|| match Cluster::start("shared", 3) {
        Ok(cluster) => Arc::new(cluster),
        Err(e) => {
            eprintln!("the shared cluster did not start: {e:#}");
            std::process::exit(1);
        }
    });
    let mut trials = Vec::new();
    for (name, test) in shared {
        let cluster = cluster.clone();
        let run = move || test(cluster.as_deref().expect("made above, because a test wants it")).map_err(failed);
        trials.push(Trial::test(name, run).with_ignored_flag(true));
    }
    for (name, test) in [lifecycle::TESTS, kill::TESTS, leader::TESTS, python::OWN_TESTS].concat() {
        trials.push(Trial::test(name, move || test().map_err(failed)).with_ignored_flag(true));
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if conclusion.num_failed > 0
        && let Some(cluster) = &cluster
    {
        cluster.print_state();
    }
    drop(cluster);
    conclusion.exit();
}

fn failed(error: anyhow::Error) -> libtest_mimic::Failed {
    format!("{error:#}").into()
}
