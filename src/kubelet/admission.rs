//! Pods this node must not run although they were bound to it.
//!
//! Owns: the checks the API server cannot make.
//! Called by: the pod worker, before anything of a pod exists.
//! Never: looks at a pod that already runs.

use crate::pod::Pod;

/// Why a pod is not let in, as its status and an event say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

impl Refusal {
    /// Its labels and taints change without a pod knowing; what pods hold is known here first.
    pub fn is_about_the_node(&self) -> bool {
        matches!(self.reason.as_str(), "NodeAffinity" | "TaintToleration")
    }
}

/// Namespaced and harmless to other pods; upstream's list for v1.37.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

pub fn refusal(pod: &Pod) -> Option<Refusal> {
    let asked = pod.spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    for sysctl in asked {
        let name = sysctl.name.replace('/', ".");
        let why = if !SAFE_SYSCTLS.contains(&name.as_str()) {
            "not allowlisted"
        } else if pod.host_network() && name.starts_with("net.") {
            "not allowed with host net enabled"
        } else if pod.spec.host_ipc == Some(true) && name.starts_with("kernel.") {
            "not allowed with host ipc enabled"
        } else {
            continue;
        };
        return Some(Refusal {
            reason: "SysctlForbidden".into(),
            message: format!("forbidden sysctl: {name:?} {why}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    #[test]
    fn only_namespaced_sysctls_are_let_in() {
        let refused = |name: &str| {
            refusal(&pod(&format!("{{containers: [], securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}}}")))
                .is_some()
        };
        assert!(!refused("kernel.shm_rmid_forced"));
        assert!(!refused("net/ipv4/tcp_syncookies"));
        assert!(refused("kernel.msgmax"));
    }
}
