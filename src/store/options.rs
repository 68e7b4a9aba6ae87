//! How much of the past is kept.
//!
//! Owns: the limits of the history and their defaults.
//! Called by: whoever opens a store.
//! Never: limits what is current.

use std::time::Duration;

/// The history ends at whichever limit is reached first; watches and snapshots from before it get `Compacted`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub history_events_max: usize,
    /// Counts the values that only the history holds, approximately.
    pub history_bytes_max: usize,
    /// kube-apiserver compacts etcd every five minutes; clients resume and page within that time.
    pub history_age_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { history_events_max: 100_000, history_bytes_max: 48 << 20, history_age_max: Duration::from_secs(300) }
    }
}
