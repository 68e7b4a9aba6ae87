//! The life of one shim: launch, report, pump until the end, write down how it ended.
//!
//! Owns: the order of these steps, which is what makes the exit file trustworthy: it appears after the last log
//! line is written and after the cgroup is gone.
//! Called by: [`crate::main`].
//! Never: restarts anything.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::cgroup;
use crate::config::{
    CONFIG_FILE, EXIT_FILE, ExecConfig, Exit, PID_FILE, RunConfig, SOCKET_FILE, read_json, write_atomically,
};
use crate::kernel;
use crate::launch;
use crate::log::Log;
use crate::protocol::Ready;
use crate::pump::{Pump, Rules};

/// `minik shim run DIR`.
pub(crate) fn run_container(dir: &Path) -> i32 {
    // Orphans of a container without its own PID namespace come to us, so that somebody reaps them.
    kernel::become_subreaper();
    let prepared = prepare(dir).and_then(|listener| {
        let config: RunConfig =
            read_json(&dir.join(CONFIG_FILE)).map_err(|e| format!("could not read shim.json: {e}"))?;
        let log = match &config.log_path {
            Some(path) => Some(Log::open(path).map_err(|e| format!("could not open log {}: {e}", path.display()))?),
            None => None,
        };
        let (pid, io) = launch::container(dir, &config).map_err(|e| explain(&e))?;
        let rules = Rules {
            close_stdin_after_attach: config.stdin_once && !config.tty,
            wait_for_client: false,
            signal_cgroup: Some(config.cgroup.clone()),
        };
        Ok((config, Pump::new(listener, pid, io, log, rules).map_err(|e| format!("could not watch the process: {e}"))?))
    });
    let (config, mut pump) = match prepared {
        Ok(prepared) => prepared,
        Err(message) => return report_failure(dir, message),
    };
    report(&Ready::Started { pid: pump.pid(), started_at: now() });
    let code = pump.until_exit();
    let oom_killed = code != 0 && cgroup::oom_kills(&config.cgroup) > 0;
    cgroup::kill_all(&config.cgroup);
    pump.drain();
    // A cgroup that will not go is found again by the runtime when it removes the pod's.
    let _ = launch::delete(&config);
    let exit = Exit { code, finished_at: now(), oom_killed };
    let text = serde_json::to_vec(&exit).expect("an exit has no map with foreign keys");
    let _ = write_atomically(&dir.join(EXIT_FILE), &text);
    pump.say_goodbye(&exit);
    let _ = fs::remove_file(dir.join(SOCKET_FILE));
    0
}

/// `minik shim exec DIR`.
pub(crate) fn run_exec(dir: &Path) -> i32 {
    let prepared = prepare(dir).and_then(|listener| {
        let config: ExecConfig =
            read_json(&dir.join(CONFIG_FILE)).map_err(|e| format!("could not read shim.json: {e}"))?;
        let (pid, io) = launch::exec(dir, &config).map_err(|e| explain(&e))?;
        let rules = Rules { close_stdin_after_attach: !config.tty, wait_for_client: true, signal_cgroup: None };
        Pump::new(listener, pid, io, None, rules).map_err(|e| format!("could not watch the process: {e}"))
    });
    let mut pump = match prepared {
        Ok(pump) => pump,
        Err(message) => return report_failure(dir, message),
    };
    report(&Ready::Started { pid: pump.pid(), started_at: now() });
    let code = pump.until_exit();
    pump.drain();
    pump.say_goodbye(&Exit { code, finished_at: now(), oom_killed: false });
    let _ = fs::remove_dir_all(dir);
    0
}

fn prepare(dir: &Path) -> Result<UnixListener, String> {
    // A session of its own: no terminal's signal and no component's group reaches the shim.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").map_err(|e| format!("could not leave the working directory: {e}"))?;
    let pid = std::process::id().to_string();
    write_atomically(&dir.join(PID_FILE), pid.as_bytes()).map_err(|e| format!("could not write the pid file: {e}"))?;
    let socket = dir.join(SOCKET_FILE);
    let _ = fs::remove_file(&socket);
    UnixListener::bind(&socket).map_err(|e| format!("could not listen on {}: {e}", socket.display()))
}

fn explain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn report(ready: &Ready) {
    let text = serde_json::to_string(ready).expect("a report has no map with foreign keys");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
    drop(out);
    let _ = kernel::detach_stdio();
}

fn report_failure(dir: &Path, message: String) -> i32 {
    let _ = fs::remove_file(dir.join(SOCKET_FILE));
    report(&Ready::Failed { message });
    1
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("the year is before 2262")
}
