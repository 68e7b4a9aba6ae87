//! The life of a container: created, running, exited, removed.
//!
//! Owns: the steps between these states, each safe to repeat, and following a container to its end.
//! Called by: the CRI RuntimeService and sandboxes.
//! Never: signals a process by number: the shim does, which knows that the number is still the container's.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1;
use minik_shim::protocol::{Frame, Request};
use minik_shim::{EXIT_FILE, Exit, SOCKET_FILE};

use crate::error::{Error, chain, io_error};
use crate::record::{self, ContainerRecord, Ended, State};
use crate::rootfs::unmount_all;
use crate::runtime::{Container, Runtime};
use crate::shim_process;

/// After SIGKILL the kernel needs as long as it needs to tear down memory; a process in uninterruptible sleep longer.
const KILLED_WITHIN: Duration = Duration::from_secs(60);
/// What containerd reports for a task it lost.
const LOST_CODE: i32 = 255;
/// A process that never ran: bash's and runc's number for "cannot be executed" is 126/127, Kubernetes' is 128.
const NOT_STARTED_CODE: i32 = 128;

pub(crate) async fn start(runtime: &Runtime, container: &Arc<Container>) -> Result<(), Error> {
    let _work = container.work.lock().await;
    let record = container.record.lock().clone();
    if record.state != State::Created {
        let state = record.state.cri().as_str_name();
        return Err(Error::Precondition(format!(
            "failed to set starting state: container is already in {state} state"
        )));
    }
    if !runtime.sandbox(&record.sandbox)?.record.lock().ready {
        return Err(Error::Precondition(format!("sandbox container {:?} is not running", record.sandbox)));
    }
    let dir = runtime.0.config.container(&record.id);
    let parent = record.cgroup.rsplit_once('/').map_or("", |(parent, _)| parent);
    minik_shim::prepare_parent_cgroup(parent).map_err(io_error(format!("could not make the cgroup {parent}")))?;
    match shim_process::start(&runtime.0.config.exe, "run", &dir).await {
        Ok(started) => {
            let state = State::Running { pid: started.pid, started_at: started.started_at };
            set_state(runtime, container, state)?;
            follow(runtime, container.clone());
            runtime.announce(&record.sandbox, &record.id, v1::ContainerEventType::ContainerStartedEvent);
            Ok(())
        }
        Err(error) => {
            let now = record::now();
            let message = chain(&error);
            let reason = "StartError".to_owned();
            end(runtime, container, Ended { started_at: 0, finished_at: now, code: NOT_STARTED_CODE, reason, message });
            Err(error)
        }
    }
}

fn set_state(runtime: &Runtime, container: &Container, state: State) -> Result<(), Error> {
    let mut record = container.record.lock();
    record.state = state;
    record::save(&runtime.0.config.container(&record.id), &*record)
}

fn end(runtime: &Runtime, container: &Container, ended: Ended) {
    let (id, sandbox) = {
        let record = container.record.lock();
        if matches!(record.state, State::Exited(_)) {
            return;
        }
        (record.id.clone(), record.sandbox.clone())
    };
    tracing::info!(container = id, code = ended.code, reason = ended.reason, "container ended");
    if let Err(error) = set_state(runtime, container, State::Exited(ended)) {
        // The exit file tells the same after a restart.
        tracing::warn!(container = id, error = chain(&error), "the end of a container was not written down");
    }
    container.ended.send_replace(true);
    runtime.announce(&sandbox, &id, v1::ContainerEventType::ContainerStoppedEvent);
}

/// Takes over a container that a former process of the runtime made.
pub(crate) fn adopt(runtime: &Runtime, container: Arc<Container>) {
    let record = container.record.lock().clone();
    let dir = runtime.0.config.container(&record.id);
    match record.state {
        State::Running { .. } => follow(runtime, container),
        // That process died between starting it and writing so down: what it started has no known start.
        State::Created if dir.join(SOCKET_FILE).exists() || dir.join(EXIT_FILE).exists() => {
            let runtime = runtime.clone();
            tokio::spawn(async move { lost(&runtime, &container, 0).await });
        }
        State::Created | State::Exited(_) => {}
    }
}

fn follow(runtime: &Runtime, container: Arc<Container>) {
    let runtime = runtime.clone();
    tokio::spawn(async move {
        let (id, started_at) = {
            let record = container.record.lock();
            let State::Running { started_at, .. } = record.state else { return };
            (record.id.clone(), started_at)
        };
        let dir = runtime.0.config.container(&id);
        match wait_for_exit(&dir).await {
            Some(exit) => end(&runtime, &container, Ended::by_exit(started_at, &exit)),
            None => lost(&runtime, &container, started_at).await,
        }
    });
}

/// None when the shim has gone without writing down an exit.
async fn wait_for_exit(dir: &Path) -> Option<Exit> {
    if let Ok((mut reader, _writer)) = shim_process::connect(dir, &Request::Wait).await {
        while let Ok(Some(frame)) = reader.next().await {
            if let Frame::Exit(exit) = frame {
                return Some(exit);
            }
        }
    }
    let bytes = fs::read(dir.join(EXIT_FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Somebody killed the shim: nobody reads the container's output any more, so it is ended too.
async fn lost(runtime: &Runtime, container: &Arc<Container>, started_at: i64) {
    let record = container.record.lock().clone();
    tracing::warn!(container = record.id, "the container's shim is gone; ending the container");
    let cgroup = record.cgroup.clone();
    let clear = move || {
        minik_shim::kill_all(&cgroup);
        minik_shim::remove_cgroup(&cgroup);
    };
    let _ = tokio::task::spawn_blocking(clear).await;
    let ended = Ended {
        started_at,
        finished_at: record::now(),
        code: LOST_CODE,
        reason: "Unknown".into(),
        message: "the container's shim was lost".into(),
    };
    end(runtime, container, ended);
}

/// Asks it to end, and after `timeout` seconds ends it. A container that does not run is stopped already.
pub(crate) async fn stop(runtime: &Runtime, container: &Arc<Container>, timeout: i64) -> Result<(), Error> {
    let record = container.record.lock().clone();
    if !matches!(record.state, State::Running { .. }) {
        return Ok(());
    }
    let dir = runtime.0.config.container(&record.id);
    let mut ended = container.ended.subscribe();
    if let Ok(patience) = u64::try_from(timeout)
        && patience > 0
    {
        signal(&dir, record.stop_signal, false).await;
        let waiting = ended.wait_for(|ended| *ended);
        if tokio::time::timeout(Duration::from_secs(patience), waiting).await.is_ok() {
            return Ok(());
        }
    }
    signal(&dir, libc::SIGKILL, true).await;
    let waiting = tokio::time::timeout(KILLED_WITHIN, ended.wait_for(|ended| *ended)).await;
    match waiting {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::DeadlineExceeded(format!(
            "an error occurs during waiting for container {:?} to be killed: it still runs after {} s",
            record.id,
            KILLED_WITHIN.as_secs()
        ))),
    }
}

/// A shim that does not answer has a container that is ending: its follower will say so.
async fn signal(dir: &Path, signal: i32, all: bool) {
    if let Err(error) = shim_process::call(dir, &Request::Signal { signal, all }).await {
        tracing::debug!(dir = %dir.display(), error = chain(&error), "signal not delivered");
    }
}

pub(crate) async fn remove(runtime: &Runtime, container: &Arc<Container>) -> Result<(), Error> {
    stop(runtime, container, 0).await?;
    let _work = container.work.lock().await;
    let record = container.record.lock().clone();
    if runtime.container(&record.id).is_err() {
        return Ok(());
    }
    let (owner, dir) = (runtime.clone(), runtime.0.config.container(&record.id));
    tokio::task::spawn_blocking(move || clean_up(&owner, &dir)).await?;
    runtime.announce(&record.sandbox, &record.id, v1::ContainerEventType::ContainerDeletedEvent);
    runtime.forget_container(&record.id);
    Ok(())
}

/// Mounts, writable layer and folders of a container that does not run. Blocks.
pub(crate) fn clean_up(runtime: &Runtime, dir: &Path) {
    let id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    unmount_all(&dir.join("rootfs"));
    for entry in fs::read_dir(dir.join("images")).into_iter().flatten().flatten() {
        unmount_all(&entry.path());
    }
    if let Err(error) = runtime.0.images.release(&id) {
        tracing::warn!(container = id, error = chain(&error), "the container's image stays marked as used");
    }
    let config = &runtime.0.config;
    for gone in [config.libcontainer().join(&id), config.layer(&id), dir.to_owned()] {
        if let Err(error) = fs::remove_dir_all(&gone)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(container = id, %error, path = %gone.display(), "could not remove a container's folder");
        }
    }
}

/// After a rotation: the shim writes to a new file of the old name.
pub(crate) async fn reopen_log(runtime: &Runtime, container: &Container) -> Result<(), Error> {
    let ContainerRecord { id, state, .. } = container.record.lock().clone();
    if !matches!(state, State::Running { .. }) {
        return Err(Error::Precondition("container is not running".into()));
    }
    shim_process::call(&runtime.0.config.container(&id), &Request::ReopenLog).await
}

/// The container's main process, if it runs.
pub(crate) fn pid_of(container: &Container) -> Result<i32, Error> {
    let record = container.record.lock();
    match record.state {
        State::Running { pid, .. } => Ok(pid),
        _ => Err(Error::Precondition(format!("container {:?} is not running", record.id))),
    }
}

pub(crate) fn log_folder(log_path: &str) -> Result<(), Error> {
    match Path::new(log_path).parent() {
        Some(folder) if !log_path.is_empty() => {
            fs::create_dir_all(folder).map_err(io_error(format!("could not make {}", folder.display())))
        }
        _ => Ok(()),
    }
}
