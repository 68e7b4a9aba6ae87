//! The system calls the shim needs and no safe crate offers.
//!
//! Owns: every `unsafe` block of this crate.
//! Called by: the other modules of this crate.
//! Never: decides anything.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::devices::Instruction;

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

/// Lets `program` decide about every device that a process of the cgroup opens or makes, besides what the cgroups above
/// say. It stays as long as the cgroup.
#[expect(unsafe_code, reason = "bpf(2) has no wrapper")]
pub(crate) fn attach_device_program(cgroup: &Path, program: &[Instruction]) -> io::Result<()> {
    // Numbers and layouts: include/uapi/linux/bpf.h.
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        // Level, size and address of the verifier's log; the kernel's version; flags.
        rest: [u32; 6],
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let bpf = |command: libc::c_int, what: *const libc::c_void, size: usize| {
        // SAFETY: `what` points to `size` bytes that outlive the call, and the kernel only reads them.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, what, size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    };
    let license = c"Apache-2.0";
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 6],
    };
    let loaded = bpf(PROG_LOAD, std::ptr::from_ref(&load).cast(), size_of::<Load>())?;
    // SAFETY: the kernel has just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(i32::try_from(loaded).map_err(io::Error::other)?) };
    let folder = rustix::fs::open(cgroup, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let attach = Attach {
        target: folder.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, std::ptr::from_ref(&attach).cast(), size_of::<Attach>()).map(|_| ())
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
