//! The last step before a container's own program: find it, explain why it cannot run, and become it.
//!
//! Owns: the error texts users of other runtimes know, and seccomp for exec'd processes.
//! Called by: libcontainer, inside the new process.
//! Never: allocates much or logs; it runs between clone and exec.

use std::ffi::CString;
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxSeccomp, Spec};
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use rustix::fs::{Access, FileType, access, stat};
use rustix::io::Errno;

/// What our texts start with; the launcher finds them by it inside libcontainer's.
pub(crate) const MARK: &str = "exec: ";
/// POSIX leaves the search path of a process without PATH to the system; this is Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone)]
pub(crate) struct Program {
    /// Set for exec'd processes only; for the first one libcontainer does it.
    pub(crate) seccomp: Option<LinuxSeccomp>,
}

/// Where `name` is, by the rules of `execvp`, or the reason as Go's `os/exec` words it.
fn find(name: &str, path: &str) -> Result<String, String> {
    if name.contains('/') {
        return runnable(name).map(|()| name.to_owned()).map_err(|reason| format!("{MARK}\"{name}\": {reason}"));
    }
    let mut denied = false;
    for folder in path.split(':') {
        let candidate = format!("{}/{name}", if folder.is_empty() { "." } else { folder });
        match runnable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(reason) => denied |= reason == "permission denied",
        }
    }
    let reason = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(format!("{MARK}\"{name}\": {reason}"))
}

fn runnable(path: &str) -> Result<(), String> {
    let found = stat(path).map_err(|errno| match errno {
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOTDIR => format!("stat {path}: not a directory"),
        _ => format!("stat {path}: no such file or directory"),
    })?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err("is a directory".to_owned());
    }
    access(Path::new(path), Access::EXEC_OK).map_err(|_| "permission denied".to_owned())
}

fn search_path(spec: &Spec) -> String {
    let env = spec.process().as_ref().and_then(|p| p.env().as_ref());
    let path = env.and_then(|env| env.iter().rev().find_map(|e| e.strip_prefix("PATH=")));
    path.unwrap_or(DEFAULT_PATH).to_owned()
}

fn args_of(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|p| p.args().as_deref()).unwrap_or_default()
}

impl Executor for Program {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let Some(name) = args_of(spec).first() else {
            return Err(ExecutorValidationError::ArgValidationError(format!("{MARK}no command specified")));
        };
        find(name, &search_path(spec)).map(drop).map_err(ExecutorValidationError::ArgValidationError)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = args_of(spec);
        let name = args.first().ok_or(ExecutorError::InvalidArg)?;
        let program = find(name, &search_path(spec)).map_err(ExecutorError::Other)?;
        let words: Result<Vec<CString>, _> = args.iter().map(|a| CString::new(a.as_bytes())).collect();
        let words = words.map_err(|_| ExecutorError::InvalidArg)?;
        let path = CString::new(program.as_bytes()).map_err(|_| ExecutorError::InvalidArg)?;
        if let Some(profile) = &self.seccomp {
            initialize_seccomp(profile).map_err(|e| ExecutorError::Other(format!("{MARK}seccomp: {e}")))?;
        }
        let error = become_program(&path, &words);
        Err(ExecutorError::Other(format!("{MARK}\"{name}\": {}", reason(&error))))
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

#[expect(unsafe_code, reason = "execv takes raw pointers")]
fn become_program(path: &CString, words: &[CString]) -> std::io::Error {
    let mut pointers: Vec<*const libc::c_char> = words.iter().map(|w| w.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: `pointers` ends with null and points into `words`, which outlives the call; execv returns on error only.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    std::io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_as_other_runtimes_name_it() {
        assert_eq!(find("nosuch", "/bin"), Err("exec: \"nosuch\": executable file not found in $PATH".into()));
        let absolute = "exec: \"/bin/nosuch\": stat /bin/nosuch: no such file or directory";
        assert_eq!(find("/bin/nosuch", ""), Err(absolute.into()));
        assert_eq!(find("/bin", ""), Err("exec: \"/bin\": is a directory".into()));
        assert_eq!(find("sh", "/nowhere:/bin"), Ok("/bin/sh".into()));
    }
}
