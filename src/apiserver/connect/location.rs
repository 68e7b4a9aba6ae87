//! Where a proxied request goes: `[scheme:]name[:port]` of a Pod, a Service or a Node.
//!
//! Owns: reading that form, and finding the address behind it, in upstream's words when there is none.
//! Called by: the proxy.
//! Never: connects.

use std::net::IpAddr;

use minik_api::{Status, object, resources};
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::dial::{Security, join};
use super::kubelet;
use crate::objects::Objects;

#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    pub scheme: &'a str,
    pub name: &'a str,
    pub port: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Location {
    pub security: Security,
    pub host: String,
    pub port: u16,
}

impl Location {
    pub fn authority(&self) -> String {
        join(&self.host, self.port)
    }
}

fn parse<'a>(kind: &str, text: &'a str) -> Result<Named<'a>, Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let named = match parts.as_slice() {
        [name] => Named { scheme: "", name, port: "" },
        [name, port] => Named { scheme: "", name, port },
        [scheme, name, port] => Named { scheme, name, port },
        _ => Named { scheme: "", name: "", port: "" },
    };
    if named.name.is_empty() || !matches!(named.scheme, "" | "http" | "https") {
        return Err(Status::bad_request(format!("invalid {kind} request {text:?}")));
    }
    Ok(named)
}

fn security(scheme: &str) -> Security {
    if scheme == "https" { Security::Unverified } else { Security::Plain }
}

/// Addresses that only mean something inside this server are nobody's to ask for.
fn proxyable(address: &str) -> Result<String, Status> {
    let refused = || Status::bad_request("address not allowed");
    let ip: IpAddr = address.parse().map_err(|_| refused())?;
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    };
    if ip.is_loopback() || ip.is_unspecified() || local { Err(refused()) } else { Ok(address.into()) }
}

fn port_number(text: &str, scheme: &str) -> Result<u16, Status> {
    if text.is_empty() {
        return Ok(if scheme == "https" { 443 } else { 80 });
    }
    text.parse().map_err(|_| unreachable_port(text))
}

fn unreachable_port(text: &str) -> Status {
    unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{text}: unknown port"))
}

pub fn unavailable(message: String) -> Status {
    Status::new(503, "ServiceUnavailable", message)
}

pub fn of(objects: &dyn Objects, resource: &str, namespace: &str, id: &str) -> Result<Location, Status> {
    match resource {
        "pods" => {
            let named = parse("pod", id)?;
            let pod = objects.get(resources::PODS, namespace, named.name);
            let pod = pod.ok_or_else(|| Status::not_found("pods", named.name))?;
            pod_location(&pod, &named)
        }
        "services" => service(objects, namespace, id),
        _ => node(objects, id),
    }
}

fn pod_location(pod: &Value, named: &Named<'_>) -> Result<Location, Status> {
    let declared = pod["spec"]["containers"].as_array().into_iter().flatten();
    let first = declared.filter_map(|c| c["ports"][0]["containerPort"].as_u64()).next();
    let port = match (named.port, first) {
        ("", Some(first)) => u16::try_from(first).map_err(|_| unreachable_port(&first.to_string()))?,
        (asked, _) => port_number(asked, named.scheme)?,
    };
    let host = proxyable(pod["status"]["podIP"].as_str().unwrap_or(""))?;
    Ok(Location { security: security(named.scheme), host, port })
}

fn service(objects: &dyn Objects, namespace: &str, id: &str) -> Result<Location, Status> {
    let named = parse("service", id)?;
    let nowhere = || unavailable(format!("no endpoints available for service {id:?}"));
    // Upstream looks for endpoints only; a Service that is not there has none.
    let service = objects.get(resources::SERVICES, namespace, named.name).ok_or_else(nowhere)?;
    let port_name = port_name(&service, &named)?;
    let slices = objects.list(resources::ENDPOINTSLICES, namespace);
    let ours = slices.iter().filter(|s| object::label(s, "kubernetes.io/service-name") == Some(named.name));
    let found: Vec<(String, u16)> = ours.flat_map(|s| ready(s, &port_name)).collect();
    let (host, port) = found.choose(&mut rand::rng()).ok_or_else(nowhere)?;
    Ok(Location { security: security(named.scheme), host: proxyable(host)?, port: *port })
}

/// A number means the port of the Service that has it; endpoints know ports by name.
fn port_name(service: &Value, named: &Named<'_>) -> Result<String, Status> {
    let Ok(number) = named.port.parse::<u64>() else { return Ok(named.port.into()) };
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.find(|p| p["port"].as_u64() == Some(number));
    let name = found.map(|p| p["name"].as_str().unwrap_or("").to_string());
    name.ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", named.name)))
}

/// Where the ready endpoints of a slice listen.
pub fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let mut ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.find(|p| p["name"].as_str().unwrap_or("") == port_name).and_then(|p| p["port"].as_u64());
    let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|e| e["conditions"]["ready"].as_bool().unwrap_or(true));
    ready.filter_map(|e| e["addresses"][0].as_str()).map(|a| (a.to_string(), port)).collect()
}

/// Without a port, or with the kubelet's own, the request goes to the kubelet, which must prove itself.
fn node(objects: &dyn Objects, id: &str) -> Result<Location, Status> {
    let named = parse("node", id)?;
    let kubelet = kubelet::of_node(objects, named.name)?;
    if named.port.is_empty() || named.port == kubelet.port.to_string() {
        return Ok(Location { security: Security::Kubelet, host: kubelet.host, port: kubelet.port });
    }
    let port = port_number(named.port, named.scheme)?;
    Ok(Location { security: security(named.scheme), host: proxyable(&kubelet.host)?, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_come_with_scheme_and_port() {
        assert_eq!(parse("pod", "web"), Ok(Named { scheme: "", name: "web", port: "" }));
        assert_eq!(parse("pod", "web:80"), Ok(Named { scheme: "", name: "web", port: "80" }));
        assert_eq!(parse("pod", "https:web:"), Ok(Named { scheme: "https", name: "web", port: "" }));
        assert_eq!(parse("pod", "ftp:web:1").expect_err("no such scheme").message, "invalid pod request \"ftp:web:1\"");
        assert!(parse("service", "a:b:c:d").is_err());
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port_unless_told_otherwise() {
        let pod = json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 8080}]}]}, "status": {"podIP": "10.244.0.5"}});
        let at = |id| pod_location(&pod, &parse("pod", id).expect("a name")).expect("a place");
        assert_eq!(at("p"), Location { security: Security::Plain, host: "10.244.0.5".into(), port: 8080 });
        assert_eq!(
            at("https:p:444"),
            Location { security: Security::Unverified, host: "10.244.0.5".into(), port: 444 }
        );
        let nowhere = json!({"spec": {}, "status": {"podIP": "127.0.0.1"}});
        let refused = pod_location(&nowhere, &Named { scheme: "", name: "p", port: "80" }).expect_err("loopback");
        assert_eq!(refused.message, "address not allowed");
    }

    #[test]
    fn a_service_is_reached_at_its_ready_endpoints() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        let name = |port| port_name(&service, &Named { scheme: "", name: "web", port });
        assert_eq!(name("81"), Ok("admin".into()));
        assert_eq!(name("http"), Ok("http".into()));
        assert_eq!(name("82").expect_err("no such port").message, "no service port 82 found for service \"web\"");
        let slice = json!({
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": false}},
            ],
        });
        assert_eq!(ready(&slice, "http"), [("10.244.0.5".to_string(), 8080)]);
        assert!(ready(&slice, "admin").is_empty());
    }
}
