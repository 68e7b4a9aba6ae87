//! Makes the process: stdio first, then libcontainer.
//!
//! Owns: the plumbing between a new process and the shim ([`Io`]), clamping what needs CAP_SYS_RESOURCE, and the
//! translation of libcontainer's errors into the texts users know.
//! Called by: `supervise`, once per shim.
//! Never: waits for the process.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cgroup::{self, CgroupVersion};
use crate::config::{ExecConfig, PROCESS_FILE, RunConfig};
use crate::executor::{MARK, Program};
use crate::{devices, kernel};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// Worded for the user already.
    #[error("{0}")]
    Refused(String),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> LaunchError {
    let what = what.into();
    move |source| LaunchError::Io { what, source }
}

/// The shim's ends of a process's standard streams.
pub(crate) struct Io {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// With a terminal `stdin` and `stdout` are copies of this master.
    pub(crate) terminal: Option<OwnedFd>,
}

/// What stdio a process wants.
struct Wanted {
    tty: bool,
    stdin: bool,
    uid: u32,
    gid: u32,
}

/// The process's ends, to be handed to libcontainer.
enum Ends {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Console { listener: UnixListener, path: PathBuf },
}

/// Creates and starts the container that `dir` describes. The process runs when this returns.
pub(crate) fn container(dir: &Path, config: &RunConfig) -> Result<(i32, Io), LaunchError> {
    let spec = clamped_spec(&dir.join("config.json"))?;
    let wanted = Wanted { tty: config.tty, stdin: config.stdin, uid: config.uid, gid: config.gid };
    let (ends, ours) = plumb(dir, &wanted)?;
    let before = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    kernel::default_sigpipe();
    let builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_executor(Program { seccomp: None })
        .with_root_path(&config.libcontainer_root)
        .map_err(|e| refused(&e))?;
    let (builder, console) = give(builder, ends);
    let built = builder.as_init(dir).with_systemd(false).build();
    // libcontainer gave the container's score to this process too; the shim should outlive its container.
    let _ = fs::write("/proc/self/oom_score_adj", before.trim());
    let mut container = built.map_err(|e| refused(&e))?;
    let ours = receive(console, ours)?;
    if CgroupVersion::detect() == CgroupVersion::V2 {
        let rules = spec.linux().as_ref().and_then(|l| l.resources().as_ref()?.devices().clone()).unwrap_or_default();
        let cgroup = cgroup::path_of(CgroupVersion::V2, "", &config.cgroup);
        devices::enforce(&cgroup, &rules).map_err(failed("could not limit the container's devices"))?;
    }
    container.start().map_err(|e| refused(&e))?;
    kernel::ignore_sigpipe();
    let pid = container.pid().map(|p| p.as_raw()).ok_or_else(|| LaunchError::Refused("no process".into()))?;
    Ok((pid, ours))
}

/// Starts one more process in a running container.
pub(crate) fn exec(dir: &Path, config: &ExecConfig) -> Result<(i32, Io), LaunchError> {
    let wanted = Wanted { tty: config.tty, stdin: config.stdin, uid: config.uid, gid: config.gid };
    let process_file = dir.join(PROCESS_FILE);
    clamp_process(&process_file)?;
    let seccomp = match &config.seccomp {
        Some(profile) => serde_json::from_value(profile.clone())
            .map_err(|e| failed("could not read the seccomp profile")(e.into()))
            .map(Some)?,
        None => None,
    };
    let (ends, ours) = plumb(dir, &wanted)?;
    kernel::default_sigpipe();
    let builder = ContainerBuilder::new(config.container_id.clone(), SyscallType::default())
        .with_executor(Program { seccomp })
        .with_root_path(&config.libcontainer_root)
        .map_err(|e| refused(&e))?;
    let (builder, console) = give(builder, ends);
    let pid =
        builder.as_tenant().with_detach(true).with_process(Some(process_file)).build().map_err(|e| refused(&e))?;
    kernel::ignore_sigpipe();
    Ok((pid.as_raw(), receive(console, ours)?))
}

/// Forgets a dead container: libcontainer's state and the cgroup.
pub(crate) fn delete(config: &RunConfig) -> Result<(), LaunchError> {
    let mut container = Container::load(config.libcontainer_root.join(&config.id)).map_err(|e| refused(&e))?;
    container.delete(true).map_err(|e| refused(&e))
}

fn plumb(dir: &Path, wanted: &Wanted) -> Result<(Ends, Io), LaunchError> {
    if wanted.tty {
        let path = dir.join("tty");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed("could not listen for the terminal"))?;
        return Ok((Ends::Console { listener, path }, Io { stdin: None, stdout: None, stderr: None, terminal: None }));
    }
    let pipe = || -> Result<(OwnedFd, OwnedFd), LaunchError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("could not make a pipe")(e.into()))?;
        for end in [&read, &write] {
            kernel::give_to(end, wanted.uid, wanted.gid).map_err(failed("could not give a pipe to its user"))?;
        }
        Ok((read, write))
    };
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let (stdin, in_write) = if wanted.stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        (null.map_err(|e| failed("could not open /dev/null")(e.into()))?, None)
    };
    for fd in [Some(&out_read), Some(&err_read), in_write.as_ref()].into_iter().flatten() {
        nonblocking(fd)?;
    }
    let ours = Io { stdin: in_write, stdout: Some(out_read), stderr: Some(err_read), terminal: None };
    Ok((Ends::Pipes { stdin, stdout: out_write, stderr: err_write }, ours))
}

fn nonblocking(fd: &OwnedFd) -> Result<(), LaunchError> {
    fcntl_getfl(fd)
        .and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .map_err(|e| failed("could not make a descriptor non-blocking")(e.into()))
}

fn give(builder: ContainerBuilder, ends: Ends) -> (ContainerBuilder, Option<UnixListener>) {
    match ends {
        Ends::Pipes { stdin, stdout, stderr } => {
            (builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr), None)
        }
        Ends::Console { listener, path } => (builder.with_console_socket(Some(path)), Some(listener)),
    }
}

/// libcontainer has connected and sent the terminal by now: it lies in the socket's backlog.
fn receive(console: Option<UnixListener>, mut ours: Io) -> Result<Io, LaunchError> {
    let Some(listener) = console else { return Ok(ours) };
    let (socket, _) = listener.accept().map_err(failed("no terminal came"))?;
    let master = kernel::receive_fd(&socket).map_err(failed("no terminal came"))?;
    nonblocking(&master)?;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(failed("could not copy the terminal"));
    ours.stdin = Some(copy(&master)?);
    ours.stdout = Some(copy(&master)?);
    ours.terminal = Some(master);
    Ok(ours)
}

/// Without CAP_SYS_RESOURCE (Docker does not always have it) a score may not be lowered, nor a limit raised.
fn is_clamped() -> bool {
    capabilities(None).is_ok_and(|sets| !sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

fn clamped_spec(path: &Path) -> Result<Spec, LaunchError> {
    let text = fs::read(path).map_err(failed("could not read the bundle"))?;
    let mut spec: Spec = serde_json::from_slice(&text).map_err(|e| failed("could not read the bundle")(e.into()))?;
    if is_clamped() && spec.process_mut().as_mut().is_some_and(clamp) {
        let text = serde_json::to_vec(&spec).map_err(|e| failed("could not write the bundle")(e.into()))?;
        fs::write(path, text).map_err(failed("could not write the bundle"))?;
    }
    Ok(spec)
}

fn clamp_process(path: &Path) -> Result<(), LaunchError> {
    if !is_clamped() {
        return Ok(());
    }
    let text = fs::read(path).map_err(failed("could not read the process"))?;
    let mut process: Process = serde_json::from_slice(&text).map_err(|e| failed("could not read it")(e.into()))?;
    if clamp(&mut process) {
        let text = serde_json::to_vec(&process).map_err(|e| failed("could not write it")(e.into()))?;
        fs::write(path, text).map_err(failed("could not write the process"))?;
    }
    Ok(())
}

/// True when something had to change.
fn clamp(process: &mut Process) -> bool {
    let own: i32 =
        fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match process.oom_score_adj() {
        Some(wanted) if wanted < own => {
            process.set_oom_score_adj(Some(own));
            true
        }
        _ => false,
    }
}

/// libcontainer wraps the reason many times; the innermost is the one that helps, and ours (see [`MARK`]) best.
fn refused(error: &dyn std::error::Error) -> LaunchError {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(inner) = source {
        texts.push(inner.to_string());
        source = inner.source();
    }
    if let Some(ours) = texts.iter().find_map(|text| text.find(MARK).map(|at| text[at..].to_owned())) {
        let ours = ours.trim_end_matches(['"', ')', '\0']).to_owned();
        return LaunchError::Refused(format!("unable to start container process: {ours}"));
    }
    texts.dedup();
    LaunchError::Refused(texts.join(": "))
}
