//! What a pod's resolv.conf says.
//!
//! Owns: dnsPolicy and dnsConfig.
//! Called by: `sandbox_config`; the runtime writes the file.
//! Never: resolves a name.

use std::net::IpAddr;

use k8s_cri::v1::DnsConfig;

use crate::pod::Pod;

/// What the resolver library takes, and what upstream truncates to.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

#[derive(Clone, Debug)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvConf {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(String::from)),
                // The last search line counts, as in resolv.conf(5).
                Some("search") => conf.searches = words.map(|w| w.trim_end_matches('.').to_string()).collect(),
                Some("options") => conf.options = words.map(String::from).collect(),
                _ => {}
            }
        }
        conf.searches.retain(|s| !s.is_empty());
        conf
    }
}

pub fn dns_config(pod: &Pod, cluster: &ClusterDns, node: &ResolvConf) -> DnsConfig {
    let policy = pod.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut conf = match (policy, pod.host_network()) {
        ("None", _) => ResolvConf::default(),
        ("ClusterFirst", false) | ("ClusterFirstWithHostNet", _) => cluster_first(pod, cluster, node),
        ("ClusterFirst", true) => node.clone(),
        (_, host_network) => node_default(node, cluster, host_network),
    };
    if let Some(own) = &pod.spec.dns_config {
        append_new(&mut conf.servers, own.nameservers.iter().flatten());
        append_new(&mut conf.searches, own.searches.iter().flatten());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            conf.options.retain(|o| o.split(':').next() != Some(name));
            conf.options.push(match option.value.as_deref() {
                Some(value) => format!("{name}:{value}"),
                None => name.to_string(),
            });
        }
    }
    conf.servers.truncate(NAMESERVERS_MAX);
    conf.searches.truncate(SEARCHES_MAX);
    DnsConfig { servers: conf.servers, searches: conf.searches, options: conf.options }
}

fn cluster_first(pod: &Pod, cluster: &ClusterDns, node: &ResolvConf) -> ResolvConf {
    let domain = &cluster.domain;
    let mut searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.clone()];
    append_new(&mut searches, node.searches.iter());
    ResolvConf {
        servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

/// A resolver on the node's loopback (Docker's 127.0.0.11) cannot be reached from a pod's own network; the
/// cluster's DNS forwards to it.
fn node_default(node: &ResolvConf, cluster: &ClusterDns, host_network: bool) -> ResolvConf {
    let mut conf = node.clone();
    if !host_network {
        conf.servers.retain(|s| !s.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
        if conf.servers.is_empty() {
            conf.servers = cluster.servers.iter().map(IpAddr::to_string).collect();
        }
    }
    conf
}

fn append_new<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    fn check(spec: &str, expected: &str) {
        let cluster = ClusterDns { servers: vec![IpAddr::from([10, 96, 0, 10])], domain: "cluster.local".into() };
        let node = ResolvConf::parse("nameserver 127.0.0.11\nsearch lan.\noptions edns0 ndots:0\n");
        let got = dns_config(&pod(spec), &cluster, &node);
        let text = format!("{} | {} | {}", got.servers.join(" "), got.searches.join(" "), got.options.join(" "));
        assert_eq!(text, expected);
    }

    #[test]
    fn cluster_first_searches_the_namespace_first() {
        check("containers: []", "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local lan | ndots:5");
    }

    #[test]
    fn a_host_network_pod_resolves_as_its_node_unless_it_asks_for_the_cluster() {
        check("{containers: [], hostNetwork: true}", "127.0.0.11 | lan | edns0 ndots:0");
        check(
            "{containers: [], hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet}",
            "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local lan | ndots:5",
        );
    }

    #[test]
    fn the_nodes_loopback_resolver_is_reached_through_the_cluster() {
        check("{containers: [], dnsPolicy: Default}", "10.96.0.10 | lan | edns0 ndots:0");
    }

    #[test]
    fn own_configuration_adds_and_overrides() {
        check(
            "{containers: [], dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1], searches: [a, b], options: [{name: ndots, value: '2'}, {name: edns0}]}}",
            "1.1.1.1 | a b | ndots:2 edns0",
        );
        check(
            "{containers: [], dnsConfig: {searches: [x], options: [{name: ndots, value: '1'}]}}",
            "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local lan x | ndots:1",
        );
    }
}
