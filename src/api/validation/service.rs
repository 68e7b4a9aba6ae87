//! Rules of Services.
//!
//! Owns: ports, addresses, traffic policies, and what may not change.
//! Called by: `validation`, after the server has given out addresses and ports.
//! Never: knows which addresses are free.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{At, Errors};
use crate::names;

const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

fn is_headless(spec: &At<'_>) -> bool {
    spec.value["clusterIPs"].as_array().is_some_and(|ips| ips.len() == 1 && ips[0] == "None")
        || (spec.value["clusterIPs"].is_null() && spec.value["clusterIP"] == "None")
}

pub fn create(service: &At<'_>, errors: &mut Errors) {
    let spec = service.get("spec");
    let kind = spec.get("type");
    let ports = spec.get("ports");
    if ports.len() == 0 && !is_headless(&spec) && kind.text() != "ExternalName" {
        errors.required(&ports, "");
    }
    addresses_by_type(&spec, errors);
    external_name(&spec, errors);
    let mut names = BTreeSet::new();
    for port in ports.items() {
        one_port(&port, ports.len() > 1, &mut names, errors);
    }
    errors.labels(&spec.get("selector"));
    errors.one_of(&spec.get("sessionAffinity"), &["ClientIP", "None"]);
    affinity(&spec, errors);
    cluster_ips(&spec, errors);
    for ip in spec.get("externalIPs").items() {
        let faults = names::ip(ip.text());
        if faults.is_empty() {
            special_ip(&ip, errors);
        }
        errors.faults(&ip, faults);
    }
    errors.one_of(&kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    unique_ports(&spec, errors);
    balancer_fields(&spec, errors);
    traffic(&spec, errors);
}

/// What has to be sound before the server can give out an address.
pub fn addressing(service: &At<'_>, errors: &mut Errors) {
    let spec = service.get("spec");
    addresses_by_type(&spec, errors);
    cluster_ips(&spec, errors);
}

fn addresses_by_type(spec: &At<'_>, errors: &mut Errors) {
    let addresses = spec.get("clusterIPs");
    match spec.get("type").text() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&addresses.index(0).showing(&"None".into()), detail);
        }
        "ExternalName" => {
            if addresses.len() > 0 {
                errors.forbidden(&addresses, "may not be set for ExternalName services");
            }
            for field in ["ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(field).is_null() {
                    errors.forbidden(&spec.get(field), "may not be set for ExternalName services");
                }
            }
        }
        _ => {}
    }
}

fn external_name(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("type").text() != "ExternalName" {
        return;
    }
    let name = spec.get("externalName");
    match name.text().strip_suffix('.').unwrap_or(name.text()) {
        "" => errors.required(&name, ""),
        bare => {
            let bare: Value = bare.into();
            errors.subdomain(&name.showing(&bare));
        }
    }
}

fn one_port(port: &At<'_>, need_name: bool, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    let name = port.get("name");
    if need_name && name.text().is_empty() {
        errors.required(&name, "");
    } else if !name.text().is_empty() {
        errors.label(&name);
        if !seen.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
    }
    errors.port_number(&port.get("port"));
    errors.one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"]);
    errors.port(&port.get("targetPort"));
    let protocol = port.get("appProtocol");
    if !protocol.is_null() {
        errors.qualified_name(&protocol);
    }
}

fn unique_ports(spec: &At<'_>, errors: &mut Errors) {
    let ports = spec.get("ports");
    if spec.get("type").text() == "ClusterIP" {
        for port in ports.items().filter(|p| p.get("nodePort").number().unwrap_or(0) != 0) {
            errors.forbidden(&port.get("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let node = port.get("nodePort");
        let Some(number) = node.number().filter(|n| *n != 0) else { continue };
        if !seen.insert((port.get("protocol").text().to_string(), number)) {
            errors.duplicate(&node);
        }
    }
    seen.clear();
    for port in ports.items() {
        let at = port.get("protocol");
        let (protocol, number) = (at.text(), port.get("port").number().unwrap_or(0));
        if !seen.insert((protocol.to_string(), number)) {
            // The key of upstream's comparison: a port of which only these two fields are set.
            let key = format!(
                "{{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            errors.duplicate(&port);
            if let Some(last) = errors.0.last_mut() {
                last.value = Some(key);
            }
        }
    }
}

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("sessionAffinityConfig");
    match spec.get("sessionAffinity").text() {
        "ClientIP" => {
            let client = config.get("clientIP");
            let timeout = client.get("timeoutSeconds");
            match timeout.number() {
                None => errors.required(&config, "when session affinity type is ClientIP"),
                Some(s) if !(1..=86_400).contains(&s) => {
                    errors.invalid(&timeout, "must be greater than 0 and less than 86400")
                }
                Some(_) => {}
            }
        }
        "None" if !config.is_null() => errors.forbidden(&config, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(spec: &At<'_>, errors: &mut Errors) {
    let (single, list) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    if spec.get("type").text() == "ExternalName" {
        return;
    }
    if list.len() > 0 && single.text() != list.index(0).text() {
        errors.invalid(&list, "first value must match `clusterIP`");
    }
    if list.len() > 2 {
        errors.invalid(&list, "may only hold up to 2 values");
    }
    for ip in list.items() {
        match ip.text() {
            "None" if list.len() > 1 => errors.invalid(&ip, "'None' must be the first and only value"),
            "None" => {}
            text => errors.faults(&ip, names::ip(text)),
        }
    }
    for family in spec.get("ipFamilies").items() {
        errors.one_of_if_set(&family, &["IPv4", "IPv6"]);
    }
    errors.one_of_if_set(&spec.get("ipFamilyPolicy"), &["PreferDualStack", "RequireDualStack", "SingleStack"]);
}

/// Addresses that traffic cannot be sent to.
pub fn special_ip(at: &At<'_>, errors: &mut Errors) {
    let Ok(ip) = at.text().parse::<std::net::IpAddr>() else {
        return errors.invalid(at, "must be a valid IP address");
    };
    let link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let multicast = match ip {
        std::net::IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        std::net::IpAddr::V6(v6) => v6.segments()[0] == 0xff02,
    };
    if ip.is_unspecified() {
        errors.invalid(at, format!("may not be unspecified ({})", at.text()));
    }
    if ip.is_loopback() {
        errors.invalid(at, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(at, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(at, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn balancer_fields(spec: &At<'_>, errors: &mut Errors) {
    let balanced = spec.get("type").text() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.len() > 0 {
        // The capital is upstream's.
        let shown = spec.get("LoadBalancerSourceRanges");
        let at = shown.showing(ranges.value);
        if !balanced {
            errors.forbidden(&at, BALANCER_ONLY);
        }
        for range in at.items() {
            errors.faults(&range, names::cidr(range.text().trim()));
        }
    }
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if !allocate.is_null() && !balanced {
        errors.forbidden(&allocate, BALANCER_ONLY);
    }
    let class = spec.get("loadBalancerClass");
    if !class.is_null() {
        if balanced {
            errors.qualified_name(&class);
        } else {
            errors.forbidden(&class, BALANCER_ONLY);
        }
    }
}

fn traffic(spec: &At<'_>, errors: &mut Errors) {
    let kind = spec.get("type").text();
    let outside =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && spec.get("externalIPs").len() > 0);
    let external = spec.get("externalTrafficPolicy");
    if outside {
        errors.one_of(&external, &["Cluster", "Local"]);
    } else if !external.text().is_empty() {
        errors.invalid(&external, "may only be set for externally-accessible services");
    }
    let check = spec.get("healthCheckNodePort");
    let checked = kind == "LoadBalancer" && external.text() == "Local";
    match (checked, check.number().unwrap_or(0)) {
        (false, 0) => {}
        (false, _) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&check, detail);
        }
        (true, 0) => errors.required(&check, ""),
        (true, _) => errors.port_number(&check),
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.is_null() && matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") {
        errors.required(&internal, "");
    }
    errors.one_of_if_set(&internal, &["Cluster", "Local"]);
    errors.one_of_if_set(&spec.get("trafficDistribution"), &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

pub fn update(service: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, before) = (service.get("spec"), &old["spec"]);
    let needs = |kind: &str| matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer");
    let kept_type = needs(spec.get("type").text()) && needs(before["type"].as_str().unwrap_or(""));
    let list = spec.get("clusterIPs");
    let first = before["clusterIPs"][0].as_str().unwrap_or("");
    if kept_type && !first.is_empty() {
        if list.len() == 0 {
            errors.invalid(&list.index(0).showing(list.value), "primary clusterIP can not be unset");
        } else if list.index(0).text() != first {
            errors.invalid(&list.index(0).showing(list.value), "may not change once set");
        }
    }
    let family = before["ipFamilies"][0].as_str().unwrap_or("");
    let families = spec.get("ipFamilies");
    if kept_type && !family.is_empty() && families.len() > 0 && families.index(0).text() != family {
        errors.invalid(&families.index(0).showing(families.value), "may not change once set");
    }
    let checked = |kind: &str, policy: &str| kind == "LoadBalancer" && policy == "Local";
    let was = checked(before["type"].as_str().unwrap_or(""), before["externalTrafficPolicy"].as_str().unwrap_or(""));
    let port = spec.get("healthCheckNodePort");
    if was
        && checked(spec.get("type").text(), spec.get("externalTrafficPolicy").text())
        && port.number().unwrap_or(0) != before["healthCheckNodePort"].as_i64().unwrap_or(0)
    {
        errors.forbidden(&port, "field is immutable");
    }
    let class = spec.get("loadBalancerClass");
    let balanced = spec.get("type").text() == "LoadBalancer" && before["type"] == "LoadBalancer";
    if balanced && class.value != &before["loadBalancerClass"] {
        errors.invalid(&class, "may not change once set");
    }
    create(service, errors);
}
