//! What the proxy reads of a Service.
//!
//! Owns: which Services the proxy serves at all, on which addresses and ports.
//! Called by: the sync loop, once per changed Service.
//! Never: looks at endpoints.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use minik_network::{Ipv4Cidr, Protocol};
use serde_json::Value;

/// A Service with a virtual address. Headless and ExternalName Services are none, they exist in DNS only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub cluster_ips: BTreeSet<Ipv4Addr>,
    pub external_ips: BTreeSet<Ipv4Addr>,
    pub load_balancer_ips: BTreeSet<Ipv4Addr>,
    /// Who may use the load balancer's addresses; empty means everybody.
    pub source_ranges: Vec<Ipv4Cidr>,
    pub ports: Vec<ServicePort>,
    /// `ClientIP`, with its timeout.
    pub affinity: Option<Duration>,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    /// Where this node tells a load balancer how many endpoints it has.
    pub health_check_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficPolicy {
    Cluster,
    Local,
}

/// Kubernetes' default for `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_SECONDS: u64 = 10_800;

/// A Service with this label is somebody else's to serve.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

impl Service {
    /// Reads a Service object; `None` when there is nothing to proxy.
    pub fn read(object: &Value) -> Option<Service> {
        let spec = &object["spec"];
        if spec["type"] == "ExternalName" || !object["metadata"]["labels"][PROXY_NAME_LABEL].is_null() {
            return None;
        }
        let cluster_ips = cluster_ips(spec);
        if cluster_ips.is_empty() {
            return None;
        }
        let external_policy = policy(&spec["externalTrafficPolicy"]);
        let is_load_balancer = spec["type"] == "LoadBalancer";
        let affinity = (spec["sessionAffinity"] == "ClientIP").then(|| {
            let seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_u64();
            Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS))
        });
        Some(Service {
            namespace: minik_api::object::namespace(object).to_owned(),
            name: minik_api::object::name(object).to_owned(),
            cluster_ips,
            external_ips: addresses(&spec["externalIPs"]),
            load_balancer_ips: if is_load_balancer { ingress_ips(object) } else { BTreeSet::new() },
            source_ranges: strings(&spec["loadBalancerSourceRanges"]).filter_map(|r| r.trim().parse().ok()).collect(),
            ports: spec["ports"].as_array().into_iter().flatten().filter_map(port).collect(),
            affinity,
            internal_policy: policy(&spec["internalTrafficPolicy"]),
            external_policy,
            health_check_port: number(&spec["healthCheckNodePort"])
                .filter(|_| is_load_balancer && external_policy == TrafficPolicy::Local),
        })
    }

    /// Whether it can be reached by an address other than its cluster IPs.
    pub fn is_external(&self, port: &ServicePort) -> bool {
        port.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }
}

fn cluster_ips(spec: &Value) -> BTreeSet<Ipv4Addr> {
    let mut all = addresses(&spec["clusterIPs"]);
    all.extend(spec["clusterIP"].as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok()));
    all
}

/// An ingress of mode `Proxy` is a real load balancer that must be passed through.
fn ingress_ips(object: &Value) -> BTreeSet<Ipv4Addr> {
    let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
    let vips = ingress.into_iter().flatten().filter(|entry| entry["ipMode"] != "Proxy");
    vips.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
}

fn port(value: &Value) -> Option<ServicePort> {
    Some(ServicePort {
        name: value["name"].as_str().unwrap_or("").to_owned(),
        protocol: Protocol::from_kubernetes(value["protocol"].as_str())?,
        port: number(&value["port"])?,
        node_port: number(&value["nodePort"]),
    })
}

fn policy(value: &Value) -> TrafficPolicy {
    if value == "Local" { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

/// A port number; 0 stands for none.
fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// IPv6 addresses are left out: the cluster has one stack.
fn addresses(value: &Value) -> BTreeSet<Ipv4Addr> {
    strings(value).filter_map(|ip| ip.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_without_a_virtual_address_are_not_proxied() {
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.9"}),
            json!({}),
        ] {
            assert_eq!(Service::read(&json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec})), None);
        }
        let foreign = json!({"metadata": {"name": "a", "labels": {PROXY_NAME_LABEL: "other"}}, "spec": {"clusterIP": "10.96.0.9"}});
        assert_eq!(Service::read(&foreign), None);
    }

    #[test]
    fn a_health_check_port_counts_only_with_a_local_load_balancer() {
        let read = |kind: &str, policy: &str| {
            let spec = json!({"type": kind, "clusterIP": "10.96.0.9", "externalTrafficPolicy": policy, "healthCheckNodePort": 32000});
            Service::read(&json!({"metadata": {"name": "a"}, "spec": spec})).unwrap().health_check_port
        };
        assert_eq!(read("LoadBalancer", "Local"), Some(32000));
        assert_eq!(read("LoadBalancer", "Cluster"), None);
        assert_eq!(read("NodePort", "Local"), None);
    }
}
