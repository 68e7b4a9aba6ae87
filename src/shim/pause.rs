//! PID 1 of a PID namespace that the containers of a pod share (`shareProcessNamespace`).
//!
//! Owns: making the namespace and reaping in it.
//! Called by: `cri`, for such pods only; others have no process of their own.
//! Never: is needed for network, IPC or UTS namespaces: bind mounts hold those.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{WaitOptions, wait};
use rustix::thread::UnshareFlags;

use crate::protocol::Ready;

/// `minik shim pause`: starts `pause-init` in a new PID namespace, tells its PID and ends.
pub(crate) fn start() -> i32 {
    let ready = match spawn() {
        Ok(pid) => Ready::Started { pid, started_at: 0 },
        Err(error) => Ready::Failed { message: error.to_string() },
    };
    println!("{}", serde_json::to_string(&ready).expect("a report has no map with foreign keys"));
    i32::from(matches!(ready, Ready::Failed { .. }))
}

#[expect(unsafe_code, reason = "unshare is unsafe for CLONE_FILES only")]
fn spawn() -> std::io::Result<i32> {
    let _ = rustix::process::setsid();
    // SAFETY: NEWPID changes which namespace children are born in; it touches neither memory nor descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
    // The name that users of other runtimes look for.
    let child = Command::new("/proc/self/exe")
        .arg0("/pause")
        .args(["shim", "pause-init"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(i32::try_from(child.id()).expect("a pid fits i32"))
}

/// `minik shim pause-init`: PID 1. Ends only by SIGKILL: PID 1 ignores signals it has no handler for.
pub(crate) fn init() -> i32 {
    let _ = rustix::thread::set_name(c"pause");
    let Ok(signals) = crate::kernel::child_signals() else { return 1 };
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let mut fds = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, None);
        let mut info = [0_u8; 128];
        let _ = rustix::io::read(&signals, &mut info);
    }
}
