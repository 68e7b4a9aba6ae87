//! A pod's sandbox in CRI's words.
//!
//! Owns: the PodSandboxConfig.
//! Called by: the executor, to start a sandbox and with every container made in it.
//! Never: calls the runtime.

use std::collections::HashMap;
use std::path::Path;

use k8s_cri::v1 as cri;

use crate::dns::{self, ClusterDns, ResolvConf};
use crate::hosts::Names;
use crate::names;
use crate::pod::Pod;
use crate::{resources, security};

/// What of the node goes into every sandbox.
pub struct Node<'a> {
    pub log_dir: &'a Path,
    pub dns: &'a ClusterDns,
    pub resolv_conf: &'a ResolvConf,
}

pub fn sandbox_config(pod: &Pod, attempt: u32, node: &Node, own: &Names) -> cri::PodSandboxConfig {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend([
        (names::POD_NAME.to_string(), pod.name().to_string()),
        (names::POD_NAMESPACE.to_string(), pod.namespace().to_string()),
        (names::POD_UID.to_string(), pod.uid.clone()),
    ]);
    let metadata = cri::PodSandboxMetadata {
        name: pod.name().into(),
        namespace: pod.namespace().into(),
        uid: pod.uid.clone(),
        attempt,
    };
    cri::PodSandboxConfig {
        metadata: Some(metadata),
        // In the node's UTS namespace the name is the node's.
        hostname: if pod.host_network() { String::new() } else { own.hostname.clone() },
        log_directory: node.log_dir.join(pod.log_dir_name()).display().to_string(),
        dns_config: Some(dns::dns_config(pod, node.dns, node.resolv_conf)),
        port_mappings: port_mappings(pod),
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: resources::cgroup_parent(pod),
            security_context: Some(security::sandbox_context(pod)),
            sysctls: sysctls(pod),
            overhead: None,
            resources: Some(resources::pod_resources(pod)),
        }),
        windows: None,
    }
}

fn sysctls(pod: &Pod) -> HashMap<String, String> {
    let listed = pod.spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    listed.map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if pod.host_network() {
        return vec![];
    }
    let all = pod.spec.init_containers.iter().flatten().chain(&pod.spec.containers);
    all.flat_map(|c| c.ports.iter().flatten())
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp as i32,
                Some("SCTP") => cri::Protocol::Sctp as i32,
                _ => cri::Protocol::Tcp as i32,
            },
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    #[test]
    fn a_sandbox_carries_the_labels_by_which_it_is_found_again() {
        let dns = ClusterDns { servers: vec![], domain: "d".into() };
        let node = Node { log_dir: Path::new("/logs"), dns: &dns, resolv_conf: &ResolvConf::default() };
        let pod = pod(
            "{containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080}]}], securityContext: {sysctls: [{name: net/core/somaxconn, value: '5'}]}}",
        );
        let own = crate::hosts::names(&pod, "d").expect("short");
        let config = sandbox_config(&pod, 2, &node, &own);
        assert_eq!(config.labels[names::POD_UID], "u");
        assert_eq!(config.log_directory, "/logs/ns_p_u");
        assert_eq!(config.port_mappings[0].host_port, 8080);
        let linux = config.linux.expect("linux");
        assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu");
        assert_eq!(linux.sysctls["net.core.somaxconn"], "5");
    }
}
