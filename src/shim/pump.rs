//! The shim's event loop: process output to log and clients, clients' input to the process, signals, the end.
//!
//! Owns: the connections, the buffers and their limits.
//! Called by: `supervise`.
//! Never: blocks on a client. A client that takes nothing holds back the process's output (as a terminal does)
//! only for [`STALL_MAX`]; then it is dropped.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, wait};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::cgroup;
use crate::config::Exit;
use crate::kernel;
use crate::launch::Io;
use crate::log::{Log, Stream};
use crate::protocol::{Frame, Request};

const CHUNK: usize = 32 * 1024;
/// Output waiting for one client; above it the process is not read.
const OUT_MAX: usize = 1 << 20;
/// Input waiting for the process; above it no client is read.
const IN_MAX: usize = 256 * 1024;
const STALL_MAX: Duration = Duration::from_secs(30);
/// After the end, output still in pipes is awaited this long: a process that left the container may hold them open.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long the last frames may take to be fetched, and how long an exec waits for its one client.
const GOODBYE_MAX: Duration = Duration::from_secs(10);
const CLIENTS_MAX: usize = 64;

/// How a container and an exec differ.
pub(crate) struct Rules {
    pub(crate) close_stdin_after_attach: bool,
    /// An exec's output is for its one client: it is kept until that comes, and the process dies with it.
    pub(crate) wait_for_client: bool,
    /// Where "signal all" finds the processes.
    pub(crate) signal_cgroup: Option<String>,
}

enum Mode {
    New,
    Attached { stdin: bool, stdout: bool, stderr: bool },
    Waiting,
}

struct Client {
    stream: UnixStream,
    mode: Mode,
    input: Vec<u8>,
    output: VecDeque<u8>,
    stalled: Option<Instant>,
    gone: bool,
}

pub(crate) struct Pump {
    listener: UnixListener,
    clients: Vec<Client>,
    children: OwnedFd,
    pid: i32,
    status: Option<i32>,
    stdin: Option<OwnedFd>,
    stdin_ends: bool,
    input: VecDeque<u8>,
    outputs: [Option<OwnedFd>; 2],
    terminal: Option<OwnedFd>,
    log: Option<Log>,
    rules: Rules,
    seen_client: bool,
}

/// What a poll slot stands for.
#[derive(Clone, Copy)]
enum Slot {
    Children,
    Listener,
    Output(usize),
    Stdin,
    Client(usize),
}

impl Pump {
    pub(crate) fn new(listener: UnixListener, pid: i32, io: Io, log: Option<Log>, rules: Rules) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let children = kernel::child_signals()?;
        Ok(Pump {
            listener,
            clients: Vec::new(),
            children,
            pid,
            status: None,
            stdin: io.stdin,
            stdin_ends: false,
            input: VecDeque::new(),
            outputs: [io.stdout, io.stderr],
            terminal: io.terminal,
            log,
            rules,
            seen_client: false,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Serves until the process has ended; its exit code.
    pub(crate) fn until_exit(&mut self) -> i32 {
        loop {
            // Before the first poll too: the process may have ended before its signal was awaited.
            self.reap();
            if let Some(code) = self.status {
                return code;
            }
            self.turn(None);
            if self.rules.wait_for_client && self.seen_client && self.clients.is_empty() {
                // The caller of an exec went away: nobody will ever read its output.
                self.signal(libc::SIGKILL, false);
            }
        }
    }

    /// Takes what is left in the pipes.
    pub(crate) fn drain(&mut self) {
        self.stdin = None;
        let limit = if self.rules.wait_for_client && !self.seen_client { GOODBYE_MAX } else { DRAIN_MAX };
        let deadline = Instant::now() + limit;
        while self.outputs.iter().any(Option::is_some) {
            let now = Instant::now();
            // A slow client is not an open pipe: it may take its time as long as it takes something.
            if now >= deadline && !self.held_back() {
                break;
            }
            self.turn(Some(deadline.saturating_duration_since(now).max(Duration::from_millis(100))));
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    /// Tells every client the end and gives them time to fetch it.
    pub(crate) fn say_goodbye(&mut self, exit: &Exit) {
        let deadline = Instant::now() + GOODBYE_MAX;
        self.accept();
        for client in &mut self.clients {
            client.send(&Frame::Exit(exit.clone()));
        }
        while Instant::now() < deadline {
            self.clients.retain(|c| !c.gone && !c.output.is_empty());
            let waits = self.rules.wait_for_client && !self.seen_client;
            if self.clients.is_empty() && !waits {
                return;
            }
            self.turn(Some(deadline.saturating_duration_since(Instant::now())));
            for client in &mut self.clients {
                if matches!(client.mode, Mode::New) {
                    client.mode = Mode::Waiting;
                    client.send(&Frame::Exit(exit.clone()));
                    self.seen_client = true;
                }
            }
        }
    }

    /// One poll and what it brings.
    fn turn(&mut self, timeout: Option<Duration>) {
        let (slots, ready) = self.wait(timeout);
        for (slot, flags) in slots.into_iter().zip(ready) {
            if flags.is_empty() {
                continue;
            }
            match slot {
                Slot::Children => {
                    let mut info = [0_u8; 1024];
                    let _ = rustix::io::read(&self.children, &mut info);
                    self.reap();
                }
                Slot::Listener => self.accept(),
                Slot::Output(i) => self.read_output(i),
                Slot::Stdin => self.write_stdin(),
                Slot::Client(i) => self.serve(i, flags),
            }
        }
        self.drop_dead_clients();
    }

    fn wait(&self, timeout: Option<Duration>) -> (Vec<Slot>, Vec<PollFlags>) {
        let mut slots = vec![Slot::Children];
        let mut fds = vec![PollFd::new(&self.children, PollFlags::IN)];
        if self.clients.len() < CLIENTS_MAX {
            slots.push(Slot::Listener);
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let may_read = !self.held_back() && (self.seen_client || !self.rules.wait_for_client);
        for (i, output) in self.outputs.iter().enumerate() {
            if let Some(fd) = output.as_ref().filter(|_| may_read) {
                slots.push(Slot::Output(i));
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
        }
        if let Some(fd) = self.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            slots.push(Slot::Stdin);
            fds.push(PollFd::new(fd, PollFlags::OUT));
        }
        for (i, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.input.len() < IN_MAX {
                flags |= PollFlags::IN;
            }
            if !client.output.is_empty() {
                flags |= PollFlags::OUT;
            }
            slots.push(Slot::Client(i));
            fds.push(PollFd::new(&client.stream, flags));
        }
        let stalled = self.clients.iter().any(|c| c.stalled.is_some());
        let limit = if stalled { Some(timeout.unwrap_or(STALL_MAX).min(STALL_MAX)) } else { timeout };
        let limit = limit.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).expect("limits are short"),
            tv_nsec: i64::from(d.subsec_nanos()),
        });
        let _ = poll(&mut fds, limit.as_ref());
        let ready = fds.iter().map(PollFd::revents).collect();
        (slots, ready)
    }

    fn held_back(&self) -> bool {
        self.clients.iter().any(|c| c.output.len() > OUT_MAX)
    }

    fn reap(&mut self) {
        // `wait`, because `waitpid` without a number means this process group, and a container has a session of its own.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get() == self.pid {
                let signalled = status.terminating_signal().map(|signal| 128 + signal);
                self.status = Some(status.exit_status().or(signalled).unwrap_or(255));
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client {
                    stream,
                    mode: Mode::New,
                    input: Vec::new(),
                    output: VecDeque::new(),
                    stalled: None,
                    gone: false,
                });
            }
        }
    }

    fn read_output(&mut self, i: usize) {
        let Some(fd) = &self.outputs[i] else { return };
        let mut chunk = [0_u8; CHUNK];
        let n = match rustix::io::read(fd.as_fd(), &mut chunk) {
            Ok(n) => n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            // A terminal ends with EIO when its last process is gone.
            Err(_) => 0,
        };
        if n == 0 {
            self.outputs[i] = None;
            return;
        }
        let bytes = &chunk[..n];
        if let Some(log) = &mut self.log {
            log.write(if i == 0 { Stream::Stdout } else { Stream::Stderr }, bytes);
        }
        let frame = if i == 0 { Frame::Stdout(bytes.to_vec()) } else { Frame::Stderr(bytes.to_vec()) };
        for client in &mut self.clients {
            if let Mode::Attached { stdout, stderr, .. } = client.mode
                && (if i == 0 { stdout } else { stderr })
            {
                client.send(&frame);
            }
        }
    }

    fn write_stdin(&mut self) {
        let Some(fd) = &self.stdin else { return };
        let (front, _) = self.input.as_slices();
        match rustix::io::write(fd, front) {
            Ok(n) => drop(self.input.drain(..n)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => {
                self.input.clear();
                self.stdin = None;
            }
        }
        self.end_stdin_when_empty();
    }

    fn end_stdin_when_empty(&mut self) {
        if self.stdin_ends && self.input.is_empty() {
            self.stdin = None;
        }
    }

    fn serve(&mut self, i: usize, flags: PollFlags) {
        let client = &mut self.clients[i];
        if flags.intersects(PollFlags::OUT) {
            client.flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let mut chunk = [0_u8; CHUNK];
        match client.stream.read(&mut chunk) {
            Ok(0) => client.gone = true,
            Ok(n) => client.input.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => client.gone = true,
        }
        loop {
            match Frame::decode(&mut self.clients[i].input) {
                Ok(Some(frame)) => self.take(i, frame),
                Ok(None) => return,
                Err(_) => {
                    self.clients[i].gone = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, i: usize, frame: Frame) {
        match frame {
            Frame::Stdin(bytes) if self.stdin.is_some() => self.input.extend(bytes),
            Frame::CloseStdin => self.close_stdin(),
            Frame::Request(text) => match serde_json::from_str(&text) {
                Ok(request) => self.answer(i, &request),
                Err(e) => self.clients[i].send(&Frame::Done(format!("not a request: {e}"))),
            },
            _ => {}
        }
    }

    fn close_stdin(&mut self) {
        if self.rules.close_stdin_after_attach {
            self.stdin_ends = true;
            self.end_stdin_when_empty();
        }
    }

    fn answer(&mut self, i: usize, request: &Request) {
        match *request {
            Request::Attach { stdin, stdout, stderr } => {
                self.clients[i].mode = Mode::Attached { stdin, stdout, stderr };
                self.seen_client = true;
            }
            Request::Wait => self.clients[i].mode = Mode::Waiting,
            Request::ReopenLog => {
                let done = self.log.as_mut().map_or(Ok(()), Log::reopen);
                let text = done.err().map(|e| format!("could not open the log again: {e}")).unwrap_or_default();
                self.clients[i].send(&Frame::Done(text));
            }
            Request::Signal { signal, all } => {
                self.signal(signal, all);
                self.clients[i].send(&Frame::Done(String::new()));
            }
            Request::Resize { width, height } => {
                if let Some(terminal) = &self.terminal {
                    let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
                    let _ = tcsetwinsize(terminal, size);
                }
            }
        }
    }

    fn signal(&self, signal: i32, all: bool) {
        let mut pids = vec![self.pid];
        if let Some(cgroup) = self.rules.signal_cgroup.as_ref().filter(|_| all) {
            pids.extend(cgroup::member_pids(cgroup));
        }
        // The process is our child and not reaped before `status` is set, so the number is still its own.
        if self.status.is_none() {
            for pid in pids {
                kernel::kill(pid, signal);
            }
        }
    }

    fn drop_dead_clients(&mut self) {
        let now = Instant::now();
        let mut attached_stdin_ended = false;
        self.clients.retain(|c| {
            let dead = c.gone || c.stalled.is_some_and(|since| now.duration_since(since) >= STALL_MAX);
            attached_stdin_ended |= dead && matches!(c.mode, Mode::Attached { stdin: true, .. });
            !dead
        });
        if attached_stdin_ended {
            self.close_stdin();
        }
    }
}

impl Client {
    fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.output.extend(bytes);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match self.stream.write(front) {
                Ok(0) => self.gone = true,
                Ok(n) => {
                    drop(self.output.drain(..n));
                    self.stalled = None;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert_with(Instant::now);
                }
                Err(_) => self.gone = true,
            }
            return;
        }
        self.stalled = None;
    }
}
