//! Runs one reconciler: change -> key -> plan -> actions.
//!
//! Owns: the loop, the number of plans in execution, and what happens after each.
//! Called by: components, one task a reconciler.
//! Never: polls; it wakes on a change, a finished plan, a deadline a plan asked for, or the reconciler's own call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use minik_api::ObjectKey;
use tokio::sync::mpsc;
use tracing::{Instrument, debug, error, info_span, warn};

use crate::execute::{Executed, Executor};
use crate::plan::{Plan, Reconciler};
use crate::queue::{Outcome, WorkQueue};

/// A plan that asks, and asks again on every answer, would never end.
const ROUNDS_MAX: usize = 8;

#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Plans in execution at once; each waits for the API server, so this is more than there are cores.
    pub workers: usize,
    pub backoff_first: Duration,
    pub backoff_cap: Duration,
    /// Begin after so long even if some resource could not be listed yet; for reconcilers that can live with that.
    pub sync_wait_max: Option<Duration>,
}

impl Default for DriverConfig {
    fn default() -> Self {
        // client-go starts at 5 ms too; its cap of 1,000 s leaves a learner waiting for a quota long since raised.
        Self {
            workers: 16,
            backoff_first: Duration::from_millis(5),
            backoff_cap: Duration::from_secs(60),
            sync_wait_max: None,
        }
    }
}

/// Runs until dropped. Begins once the cache is synced.
pub async fn drive(executor: Executor, reconciler: Arc<dyn Reconciler>, config: DriverConfig) {
    let mut changes = executor.cache.changes_of(reconciler.watches());
    match config.sync_wait_max {
        None => executor.cache.synced().await,
        Some(limit) => drop(tokio::time::timeout(limit, executor.cache.synced()).await),
    }
    let mut queue = WorkQueue::new(config.backoff_first, config.backoff_cap);
    let (finished, mut results) = mpsc::channel::<(ObjectKey, Outcome)>(config.workers);
    let mut running = 0_usize;
    let mut wakes = reconciler.wakes();
    loop {
        while running < config.workers
            && let Some(key) = queue.pop()
        {
            match begin(&executor, &reconciler, &key, &finished) {
                Begun::Running => running += 1,
                Begun::Finished(outcome) => queue.finish(&key, outcome, Instant::now()),
            }
        }
        let wake = queue.next_wake();
        tokio::select! {
            change = changes.recv() => {
                let view = executor.cache.view();
                let mut next = Some(change);
                while let Some(change) = next {
                    reconciler.keys(&view, &change).into_iter().for_each(|key| queue.add(key));
                    next = changes.try_recv();
                }
            }
            Some(()) = wakes.next() => {
                reconciler.keys_after_wake(&executor.cache.view()).into_iter().for_each(|key| queue.add(key));
            }
            Some((key, outcome)) = results.recv() => {
                running -= 1;
                queue.finish(&key, outcome, Instant::now());
            }
            () = sleep_until(wake) => queue.wake(Instant::now()),
        }
    }
}

enum Begun {
    Running,
    Finished(Outcome),
}

fn begin(
    executor: &Executor,
    reconciler: &Arc<dyn Reconciler>,
    key: &ObjectKey,
    finished: &mpsc::Sender<(ObjectKey, Outcome)>,
) -> Begun {
    let span = info_span!("reconcile", controller = reconciler.name(), %key);
    let view = executor.cache.view();
    // One object that makes a planner panic must not end the controller for all others.
    let planned = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| reconciler.plan(&view, key, Timestamp::now()))));
    let Ok(plan) = planned else {
        error!(controller = reconciler.name(), %key, "the planner panicked");
        return Begun::Finished(Outcome::Failed);
    };
    if plan.is_empty() {
        return Begun::Finished(Outcome::Done { again_at: plan.requeue_at.map(instant_of) });
    }
    let (executor, finished, key) = (executor.clone(), finished.clone(), key.clone());
    let work = async move {
        let outcome = AssertUnwindSafe(run_plan(&executor, plan)).catch_unwind().await.unwrap_or(Outcome::Failed);
        // Closed only when the driver is gone.
        let _ = finished.send((key, outcome)).await;
    };
    tokio::spawn(work.instrument(span));
    Begun::Running
}

async fn run_plan(executor: &Executor, mut plan: Plan) -> Outcome {
    for _ in 0..ROUNDS_MAX {
        let ask = plan.ask.take();
        let requeue_at = plan.requeue_at;
        let outcome = run_actions(executor, plan).await;
        let (Some(ask), Outcome::Done { .. }) = (ask, &outcome) else { return outcome };
        let answers = executor.ask(ask.questions).await;
        plan = (ask.then)(answers, Timestamp::now());
        if let Some(at) = requeue_at {
            plan.requeue_by(at);
        }
    }
    error!(rounds = ROUNDS_MAX, "a plan never came to an end of its questions");
    Outcome::Failed
}

async fn run_actions(executor: &Executor, plan: Plan) -> Outcome {
    match executor.execute(plan.actions).await {
        Executed::All => Outcome::Done { again_at: plan.requeue_at.map(instant_of) },
        Executed::Overtaken => Outcome::Failed,
        Executed::Failed(failure) => {
            warn!(action = failure.action, error = %failure.error.chain(), "failed; will plan again");
            if let Some(then) = &plan.if_failed
                && let Executed::Failed(second) = executor.execute(then(&failure, Timestamp::now())).await
            {
                debug!(action = second.action, error = %second.error.chain(), "could not report the failure");
            }
            Outcome::Failed
        }
    }
}

fn instant_of(at: Timestamp) -> Instant {
    let ahead = at.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(ahead).unwrap_or(Duration::ZERO)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
