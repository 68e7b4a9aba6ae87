//! The short-lived helper around one container: the only user of libcontainer.
//!
//! Owns: the process `minik shim ...`, its files and its socket. Each verb is one process around one thing:
//! `run DIR` (a container), `exec DIR` (one more process in it), `pause` (PID 1 of a shared PID namespace).
//! Called by: `cri`, which starts these processes and speaks [`protocol`] to them; `main`, which calls [`main`].
//! Never: has a second thread. libcontainer clones without exec and changes the working directory, the
//! dumpable flag and the OOM score of its caller, so nothing else may live in this process.

mod cgroup;
mod config;
mod devices;
mod executor;
mod kernel;
mod launch;
mod log;
mod pause;
pub mod protocol;
mod pump;
mod supervise;

pub use cgroup::{
    CgroupVersion, kill_all, member_pids, oom_kills, path_of, prepare_parent as prepare_parent_cgroup,
    remove as remove_cgroup,
};
pub use config::{
    CONFIG_FILE, EXIT_FILE, ExecConfig, Exit, LIBCONTAINER_DIR, PID_FILE, PROCESS_FILE, RunConfig, SOCKET_FILE,
};
pub use protocol::Ready;

/// Runs the verb of `minik shim VERB [DIR]` and ends the process.
///
/// The first line on standard output is a [`Ready`] in JSON: started, or why not.
pub fn main() -> ! {
    let mut args = std::env::args().skip(2);
    let verb = args.next().unwrap_or_default();
    let dir = args.next().unwrap_or_default();
    let code = match verb.as_str() {
        "run" => supervise::run_container(dir.as_ref()),
        "exec" => supervise::run_exec(dir.as_ref()),
        "pause" => pause::start(),
        "pause-init" => pause::init(),
        _ => {
            eprintln!("usage: minik shim run|exec DIR | pause");
            2
        }
    };
    std::process::exit(code)
}
