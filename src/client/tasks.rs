//! The group a component's tasks live in, so that they can be ended together.
//!
//! Owns: one cancellation token and the count of tasks still running.
//! Called by: whatever spawns: caches, drivers, components.
//! Never: aborts a task; each ends itself when told.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Tasks {
    /// Tasks end when `cancel` does.
    pub fn new(cancel: CancellationToken) -> Tasks {
        Tasks { tracker: TaskTracker::new(), cancel }
    }
    pub fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Runs until it is done or the group is cancelled, whichever is first.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move {
            cancel.run_until_cancelled_owned(task).await;
        });
    }

    /// Runs to its own end, also after cancellation: for what must finish what it began.
    pub fn spawn_to_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Waits for all tasks to end after the token was cancelled; false if `limit` passed first.
    pub async fn drained(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}
