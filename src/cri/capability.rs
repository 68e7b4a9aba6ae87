//! Which capabilities a container gets.
//!
//! Owns: the default set, and adding and dropping by name.
//! Called by: the OCI spec.
//! Never: grants what the node itself lacks: a container that asks for it would not start.

use k8s_cri::v1::{Capability, LinuxContainerSecurityContext};

/// In the kernel's order: the index is the number (include/uapi/linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker and containerd give every container.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set(u64);

impl Set {
    fn of(names: &[&str]) -> Set {
        Set(NAMES.iter().enumerate().filter(|(_, n)| names.contains(n)).map(|(i, _)| 1 << i).sum())
    }

    fn all() -> Set {
        Set((1 << NAMES.len()) - 1)
    }

    /// What the process itself could pass on (`CapBnd` in `/proc/self/status`).
    pub(crate) fn bounding(status: &str) -> Set {
        let hex = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).map(str::trim);
        Set(hex.and_then(|h| u64::from_str_radix(h, 16).ok()).unwrap_or(0))
    }

    pub(crate) fn names(self) -> Vec<String> {
        let has = |i: usize| self.0 & (1 << i) != 0;
        NAMES.iter().enumerate().filter(|(i, _)| has(*i)).map(|(_, n)| format!("CAP_{n}")).collect()
    }
}

/// Kubernetes writes `NET_ADMIN`, some write `CAP_NET_ADMIN`, and `ALL` is all.
fn named(name: &str) -> Set {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" { Set::all() } else { Set::of(&[bare]) }
}

/// Permitted and ambient capabilities.
pub(crate) fn resolve(security: &LinuxContainerSecurityContext, bounding: Set) -> (Set, Set) {
    let none = Capability::default();
    let asked = security.capabilities.as_ref().unwrap_or(&none);
    let union = |names: &[String]| names.iter().fold(0, |set, name| set | named(name).0);
    if security.privileged {
        return (bounding, Set(union(&asked.add_ambient_capabilities) & bounding.0));
    }
    let is_all = |names: &[String]| names.iter().any(|n| named(n) == Set::all());
    let mut set = if is_all(&asked.add_capabilities) { Set::all().0 } else { Set::of(&DEFAULT).0 };
    // "Drop ALL, add X" means X: what is added by name wins over a drop of everything.
    if is_all(&asked.drop_capabilities) {
        set = 0;
    }
    let by_name =
        |names: &[String]| union(&names.iter().filter(|n| named(n) != Set::all()).cloned().collect::<Vec<_>>());
    set |= by_name(&asked.add_capabilities) | union(&asked.add_ambient_capabilities);
    set &= !by_name(&asked.drop_capabilities);
    let set = set & bounding.0;
    (Set(set), Set(union(&asked.add_ambient_capabilities) & set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expected: &[&str]) {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let asked = Capability {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            add_ambient_capabilities: Vec::new(),
        };
        let security = LinuxContainerSecurityContext { capabilities: Some(asked), ..Default::default() };
        let bounding = Set(Set::all().0 & !Set::of(&["SYS_RESOURCE"]).0);
        assert_eq!(resolve(&security, bounding).0, Set::of(expected));
    }

    #[test]
    fn names_are_added_to_and_dropped_from_the_default() {
        check(&[], &[], &DEFAULT);
        check(&["net_admin", "CAP_KILL"], &["ALL"], &["NET_ADMIN", "KILL"]);
        check(&[], &["ALL"], &[]);
        check(
            &["ALL"],
            &["KILL"],
            &NAMES.iter().filter(|n| !["KILL", "SYS_RESOURCE"].contains(n)).copied().collect::<Vec<_>>(),
        );
    }

    #[test]
    fn what_the_node_lacks_is_not_granted() {
        check(&["SYS_RESOURCE"], &["ALL"], &[]);
    }

    #[test]
    fn the_bounding_set_is_read_from_the_status_file() {
        assert_eq!(Set::bounding("Name:\tx\nCapBnd:\t0000000000000021\n").names(), ["CAP_CHOWN", "CAP_KILL"]);
    }
}
