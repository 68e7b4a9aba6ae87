//! Rows of Services and what they lead to.
//!
//! Owns: their cells.
//! Called by: `render`.
//! Never: resolves anything.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NONE, Row, UNSET, items, join, labels, number, shortened, text, text_or};
use crate::selector::format_object;

pub(super) fn print(kind: &str, row: &mut Row<'_>) -> bool {
    match kind {
        "Service" => service(row),
        "Endpoints" => endpoints(row),
        "EndpointSlice" => endpoint_slice(row),
        "Ingress" => ingress(row),
        "IngressClass" => ingress_class(row),
        "NetworkPolicy" => {
            row.name();
            row.push(format_object(&row.object["spec"]["podSelector"]));
            row.age();
        }
        "ServiceCIDR" => {
            row.name();
            row.push(join(&row.object["spec"]["cidrs"]));
            row.age();
        }
        "IPAddress" => ip_address(row),
        _ => return false,
    }
    true
}

/// Addresses of a load balancer, sorted.
fn balancer(status: &Value) -> String {
    let address = |i: &Value| text_or(&i["ip"], text(&i["hostname"]));
    let all: BTreeSet<String> =
        items(&status["loadBalancer"]["ingress"]).iter().map(address).filter(|a| !a.is_empty()).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let listed = join(&spec["externalIPs"]);
    match text(&spec["type"]) {
        "ClusterIP" | "NodePort" if listed.is_empty() => NONE.into(),
        "ClusterIP" | "NodePort" => listed,
        "LoadBalancer" => match (balancer(&service["status"]), listed) {
            (lb, listed) if lb.is_empty() && listed.is_empty() => "<pending>".into(),
            (lb, listed) if lb.is_empty() => listed,
            (lb, listed) if listed.is_empty() => lb,
            (lb, listed) => format!("{lb},{listed}"),
        },
        "ExternalName" => text(&spec["externalName"]).into(),
        _ => super::UNKNOWN.into(),
    }
}

fn service(row: &mut Row<'_>) {
    let spec = &row.object["spec"];
    let port = |p: &Value| match number(&p["nodePort"]) {
        0 => format!("{}/{}", number(&p["port"]), text(&p["protocol"])),
        node => format!("{}:{node}/{}", number(&p["port"]), text(&p["protocol"])),
    };
    let ports: Vec<String> = items(&spec["ports"]).iter().map(port).collect();
    row.name();
    row.push(text(&spec["type"]));
    row.push(spec["clusterIPs"][0].as_str().unwrap_or(NONE));
    row.push(external_ip(row.object));
    row.push(if ports.is_empty() { NONE.into() } else { ports.join(",") });
    row.age();
    row.push(labels(&spec["selector"]));
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn endpoints(row: &mut Row<'_>) {
    let mut list = Vec::new();
    let subsets = items(&row.object["subsets"]);
    for subset in subsets {
        let addresses: Vec<&str> = items(&subset["addresses"]).iter().map(|a| text(&a["ip"])).collect();
        let ports = items(&subset["ports"]);
        if ports.is_empty() {
            list.extend(addresses.iter().map(|a| a.to_string()));
        }
        for port in ports {
            list.extend(addresses.iter().map(|a| host_port(a, number(&port["port"]))));
        }
    }
    row.name();
    row.push(if subsets.is_empty() { NONE.into() } else { shortened(&list, 3, "") });
    row.age();
}

fn endpoint_slice(row: &mut Row<'_>) {
    let port =
        |p: &Value| p["port"].as_i64().map_or_else(|| p["name"].as_str().unwrap_or("*").into(), |n| n.to_string());
    let ports: Vec<String> = items(&row.object["ports"]).iter().map(port).collect();
    let all = items(&row.object["endpoints"]).iter().flat_map(|e| items(&e["addresses"]));
    let addresses: Vec<String> = all.map(|a| text(a).to_string()).collect();
    row.name();
    row.push(text(&row.object["addressType"]));
    row.push(shortened(&ports, 3, UNSET));
    row.push(shortened(&addresses, 3, UNSET));
    row.age();
}

fn ingress(row: &mut Row<'_>) {
    let spec = &row.object["spec"];
    let rules = items(&spec["rules"]);
    let named = |r: &Value| r["host"].as_str().filter(|h| !h.is_empty()).map(str::to_string);
    let hosts: Vec<String> = rules.iter().filter_map(named).collect();
    // As upstream, the rest is counted in rules, and only once three hosts stand there.
    let hosts = match hosts.len() {
        0 => "*".to_string(),
        1..=3 if rules.len() == hosts.len() || hosts.len() < 3 => hosts.join(","),
        _ => format!("{} + {} more...", hosts[..3].join(","), rules.len() - 3),
    };
    row.name();
    row.push(text_or(&spec["ingressClassName"], NONE));
    row.push(hosts);
    row.push(balancer(&row.object["status"]));
    row.push(if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" });
    row.age();
}

fn ingress_class(row: &mut Row<'_>) {
    let class = row.object;
    let default = crate::object::annotation(class, "ingressclass.kubernetes.io/is-default-class") == Some("true");
    let parameters = &class["spec"]["parameters"];
    let group = parameters["apiGroup"].as_str().map_or(String::new(), |g| format!(".{g}"));
    let name = crate::object::name(class);
    row.push(if default { format!("{name} (default)") } else { name.into() });
    row.push(text(&class["spec"]["controller"]));
    row.push(if parameters.is_null() {
        NONE.to_string()
    } else {
        format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
    });
    row.age();
}

fn ip_address(row: &mut Row<'_>) {
    let parent = &row.object["spec"]["parentRef"];
    let name = if parent.is_null() {
        NONE.to_string()
    } else {
        let parts = [text(&parent["resource"]), text(&parent["group"])];
        let resource = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(".").to_lowercase();
        let place = [text(&parent["namespace"]), text(&parent["name"])];
        let place = place.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
        format!("{resource}/{place}")
    };
    row.name();
    row.push(name);
    row.age();
}
