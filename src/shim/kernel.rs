//! The system calls the shim needs and no safe crate offers.
//!
//! Owns: every `unsafe` block of this crate.
//! Called by: the other modules of this crate.
//! Never: decides anything.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Rust ignores SIGPIPE and libcontainer does not undo it, but a container expects the default.
#[expect(unsafe_code, reason = "signal dispositions have no safe wrapper")]
pub(crate) fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no handler, and this process has one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[expect(unsafe_code, reason = "signal dispositions have no safe wrapper")]
pub(crate) fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no handler, and this process has one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A descriptor that is readable when a child has ended. Blocks SIGCHLD, so only after the container was started:
/// a blocked signal would be inherited.
#[expect(unsafe_code, reason = "signalfd has no safe wrapper")]
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; the process has one thread, so its mask is the
    // process's; signalfd's result is checked before it is owned.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

#[expect(unsafe_code, reason = "prctl(PR_SET_CHILD_SUBREAPER) by number works on every rustix version")]
pub(crate) fn become_subreaper() {
    // SAFETY: this prctl takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Everything written before goes to the reader; from now on standard streams lead nowhere.
#[expect(unsafe_code, reason = "dup2 onto a standard descriptor has no owner to give it to")]
pub(crate) fn detach_stdio() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for target in 0..=2 {
        // SAFETY: `null` is open; 0, 1 and 2 are never owned by a Rust value in this process.
        if unsafe { libc::dup2(null.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Also for real-time signals (systemd's SIGRTMIN+3), which safe wrappers leave out.
#[expect(unsafe_code, reason = "no safe wrapper takes a signal by number")]
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: kill touches no memory; `pid` is positive, so it means one process.
    if pid > 0 {
        unsafe { libc::kill(pid, signal) };
    }
}

pub(crate) fn give_to(fd: &OwnedFd, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    Ok(())
}

/// The pty master that libcontainer sends over the console socket.
pub(crate) fn receive_fd(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0_u8; 256];
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the console socket brought no terminal"))
}
