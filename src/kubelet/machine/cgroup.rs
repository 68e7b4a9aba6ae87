//! What this node's cgroup v2 offers for containers.
//!
//! Owns: the settings every container of a v2 node gets besides its limits.
//! Called by: the kubelet's start.
//! Never: writes to a cgroup.

use std::collections::BTreeMap;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";

/// A container that takes too much memory ends as a whole, and no container swaps: as upstream's kubelet has it unless
/// told otherwise. Empty on v1.
pub fn unified() -> BTreeMap<String, String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    settings(Path::new(ROOT), own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/"))
}

/// The root of all cgroups has no `memory.swap.max`, whatever the kernel can; the one this process is in has.
fn settings(root: &Path, own: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if root.join("cgroup.controllers").exists() {
        all.insert("memory.oom.group".into(), "1".into());
        if root.join(own.trim_start_matches('/')).join("memory.swap.max").exists() {
            all.insert("memory.swap.max".into(), "0".into());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_forbidden_where_the_kernel_counts_it() {
        let root = tempfile::tempdir().unwrap();
        let keys = || settings(root.path(), "/init").into_keys().collect::<Vec<_>>();
        assert!(keys().is_empty(), "a v1 host");
        std::fs::write(root.path().join("cgroup.controllers"), "memory").unwrap();
        assert_eq!(keys(), ["memory.oom.group"]);
        std::fs::create_dir(root.path().join("init")).unwrap();
        std::fs::write(root.path().join("init/memory.swap.max"), "max").unwrap();
        assert_eq!(keys(), ["memory.oom.group", "memory.swap.max"]);
    }
}
