//! Seccomp profiles: the runtime's default, and those a pod names.
//!
//! Owns: which system calls the default allows; the same as Docker's default profile for a container with no
//! additional capabilities, plus those that a granted capability brings.
//! Called by: container creation.
//! Never: lets an unknown profile mean "unconfined".

use std::fs;

use k8s_cri::v1::SecurityProfile;
use k8s_cri::v1::security_profile::ProfileType;
use serde_json::{Value, json};

use crate::error::{Error, io_error};

/// The OCI profile, or none for unconfined.
pub(crate) fn profile(asked: Option<&SecurityProfile>, capabilities: &[String]) -> Result<Option<Value>, Error> {
    let Some(asked) = asked else { return Ok(None) };
    match ProfileType::try_from(asked.profile_type) {
        Ok(ProfileType::Unconfined) => Ok(None),
        Ok(ProfileType::RuntimeDefault) => Ok(Some(default_profile(capabilities))),
        Ok(ProfileType::Localhost) => {
            let failed = || format!("failed to load seccomp profile {:?}", asked.localhost_ref);
            let text = fs::read(&asked.localhost_ref).map_err(io_error(failed()))?;
            serde_json::from_slice(&text).map(Some).map_err(|e| io_error(failed())(e.into()))
        }
        Err(_) => Err(Error::Invalid(format!("unknown seccomp profile type {}", asked.profile_type))),
    }
}

/// By the letter they start with, so that one is found.
const ALLOWED: &str = "
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr
_llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret
mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read
readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat
shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair
splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee
tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes
vfork vmsplice wait4 waitid waitpid write writev arch_prctl modify_ldt process_vm_readv process_vm_writev ptrace
";

/// Allowed with a capability that the container has.
const WITH: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET: a plain `clone` may set none of them.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

fn default_profile(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|c| c == name);
    let mut names: Vec<&str> = ALLOWED.split_whitespace().collect();
    for (capability, calls) in WITH {
        if has(capability) {
            names.extend(calls.split_whitespace());
        }
    }
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    // What `personality` may be set to: Linux, Linux32, UNAME26, both, and "tell me".
    for value in [0x0_u64, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        let equal = json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
        rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": equal}));
    }
    // Kernel crypto and VM sockets are attack surface no container needs; every other family is allowed.
    let below = json!([{"index": 0, "value": AF_ALG, "op": "SCMP_CMP_LT"}]);
    let between = json!([{"index": 0, "value": AF_ALG + 1, "op": "SCMP_CMP_EQ"}]);
    let above = json!([{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_GT"}]);
    for args in [below, between, above] {
        rules.push(json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args}));
    }
    if !has("CAP_SYS_ADMIN") {
        let no_namespace = json!([{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": no_namespace}));
        // clone3's flags are behind a pointer; ENOSYS makes libc fall back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let architectures = if cfg!(target_arch = "aarch64") {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    } else {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "architectures": architectures, "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(profile: &Value, call: &str) -> bool {
        let rules = profile["syscalls"].as_array().unwrap();
        rules
            .iter()
            .any(|r| r["action"] == "SCMP_ACT_ALLOW" && r["names"].as_array().unwrap().iter().any(|n| n == call))
    }

    #[test]
    fn mounting_needs_the_capability_and_reading_does_not() {
        let plain = default_profile(&[]);
        let admin = default_profile(&["CAP_SYS_ADMIN".into()]);
        assert!(allows(&plain, "read") && !allows(&plain, "mount") && allows(&admin, "mount"));
        assert!(allows(&plain, "clone") && !allows(&plain, "clone3") && allows(&admin, "clone3"));
    }

    #[test]
    fn a_missing_file_is_an_error_and_unconfined_is_none() {
        let asked = |kind: ProfileType| SecurityProfile { profile_type: kind as i32, localhost_ref: "/nosuch".into() };
        assert!(profile(Some(&asked(ProfileType::Localhost)), &[]).is_err());
        assert_eq!(profile(Some(&asked(ProfileType::Unconfined)), &[]).unwrap(), None);
    }
}
