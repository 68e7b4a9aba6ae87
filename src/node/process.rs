//! What every component process shares: its runtime, its crypto provider, and how it is asked to end.
//!
//! Owns: the number of threads. Called by: the wiring of each process. Never: knows what the process does.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::memory;

/// Init waits a little longer before it kills.
pub const DRAIN_LIMIT: Duration = Duration::from_millis(1500);
/// A node is one of several on a laptop: two threads keep it responsive, more would only cost memory.
const THREADS: usize = 2;

pub fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    // An error means a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (started, looked) = (Instant::now(), AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .on_thread_park(move || memory::give_back(started, &looked))
        .enable_all()
        .build()
        .context("no resources for threads")?;
    let result = runtime.block_on(work);
    // Threads that still read a socket or a file need not be waited for.
    runtime.shutdown_background();
    result
}

/// Returns when SIGTERM or SIGINT arrives.
pub async fn asked_to_end() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
