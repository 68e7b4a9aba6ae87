//! Rules of networking and discovery.
//!
//! Owns: Ingresses, IngressClasses, NetworkPolicies, EndpointSlices.
//! Called by: `validation`.
//! Never: looks whether a Service exists.

use serde_json::Value;

use super::check::{At, Errors};
use super::service;
use crate::names;

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    match kind {
        "Ingress" => ingress(&object.get("spec"), errors),
        "IngressClass" => ingress_class(&object.get("spec"), errors),
        "NetworkPolicy" => network_policy(&object.get("spec"), errors),
        "EndpointSlice" => endpoint_slice(object, errors),
        "ServiceCIDR" => {
            let spec = object.get("spec");
            let ranges = spec.get("cidrs");
            if ranges.len() == 0 {
                errors.required(&ranges, "at least one CIDR required");
            }
            ranges.items().for_each(|range| errors.faults(&range, names::cidr(range.text())));
        }
        "IPAddress" => {
            let spec = object.get("spec");
            parent_of_address(&spec.get("parentRef"), errors);
        }
        _ => {}
    }
}

/// Whose address it is.
fn parent_of_address(parent: &At<'_>, errors: &mut Errors) {
    if parent.is_null() {
        return errors.required(parent, "");
    }
    let group = parent.get("group");
    if !group.text().is_empty() {
        errors.subdomain(&group);
    }
    for field in ["resource", "name"] {
        errors.required_name(&parent.get(field), names::path_segment);
    }
    let namespace = parent.get("namespace");
    if !namespace.text().is_empty() {
        errors.faults(&namespace, names::path_segment(namespace.text()));
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    create(kind, object, errors);
    match kind {
        "EndpointSlice" => errors.immutable(&object.get("addressType"), &old["addressType"]),
        "IngressClass" => {
            let spec = object.get("spec");
            errors.immutable(&spec.get("controller"), &old["spec"]["controller"]);
        }
        "IPAddress" => {
            let spec = object.get("spec");
            errors.immutable_unshown(&spec.get("parentRef"), &old["spec"]["parentRef"]);
        }
        _ => {}
    }
}

fn ingress(spec: &At<'_>, errors: &mut Errors) {
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.len() == 0 && backend.is_null() {
        let rules = rules.value.clone();
        errors.invalid(&spec.showing(&rules), "either `defaultBackend` or `rules` must be specified");
    }
    if !backend.is_null() {
        ingress_backend(&backend, errors);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(&host, "must be a DNS name, not an IP address");
        }
        host_name(&host, errors);
        let http = rule.get("http");
        let paths = http.get("paths");
        if !http.is_null() && paths.len() == 0 {
            errors.required(&paths, "");
        }
        paths.items().for_each(|path| ingress_path(&path, errors));
    }
    for tls in spec.get("tls").items() {
        tls.get("hosts").items().for_each(|host| host_name(&host, errors));
        if !tls.get("secretName").text().is_empty() {
            errors.subdomain(&tls.get("secretName"));
        }
    }
    if !spec.get("ingressClassName").is_null() {
        errors.subdomain(&spec.get("ingressClassName"));
    }
}

fn host_name(host: &At<'_>, errors: &mut Errors) {
    if host.text().is_empty() {
        return;
    }
    let wildcard = host.text().contains('*');
    let faults =
        if wildcard { names::wildcard_dns1123_subdomain(host.text()) } else { names::dns1123_subdomain(host.text()) };
    errors.faults(host, faults);
}

fn ingress_path(at: &At<'_>, errors: &mut Errors) {
    let (kind, path) = (at.get("pathType"), at.get("path"));
    let mut path_must_be_rooted = true;
    match kind.text() {
        "Exact" | "Prefix" => {
            let text = path.text();
            if !text.starts_with('/') {
                errors.invalid(&path.showing(&text.into()), "must be an absolute path");
                path_must_be_rooted = false;
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(bad) {
                    errors.invalid(&path, format!("must not contain '{bad}'"));
                }
            }
            for bad in ["/..", "/."] {
                if text.ends_with(bad) {
                    errors.invalid(&path, format!("cannot end with '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {}
        "" => return errors.required(&kind, "pathType must be specified"),
        _ => errors.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    if path_must_be_rooted && !path.text().is_empty() && !path.text().starts_with('/') {
        errors.invalid(&path, "must be an absolute path");
    }
    ingress_backend(&at.get("backend"), errors);
}

fn ingress_backend(backend: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    let empty: Value = "".into();
    let blank = backend.showing(&empty);
    match (service.is_null(), resource.is_null()) {
        (false, false) => errors.invalid(&blank, "cannot set both resource and service backends"),
        (true, true) => errors.invalid(&blank, "resource or service backend is required"),
        (true, false) => {
            for field in ["kind", "name"] {
                if resource.get(field).text().is_empty() {
                    errors.required(&resource.get(field), "");
                }
            }
        }
        (false, true) => {
            let (name, port) = (service.get("name"), service.get("port"));
            if name.text().is_empty() {
                errors.required(&name, "");
            } else {
                errors.label(&name);
            }
            let (port_name, number) = (port.get("name"), port.get("number"));
            let has_name = !port_name.text().is_empty();
            match (has_name, number.number().unwrap_or(0) != 0) {
                (true, true) => errors.invalid(&blank, "cannot set both port name & port number"),
                (true, false) => errors.faults(&port_name, names::port_name(port_name.text())),
                (false, true) => errors.port_number(&number),
                (false, false) => errors.required(backend, "port name or number is required"),
            }
        }
    }
}

fn ingress_class(spec: &At<'_>, errors: &mut Errors) {
    let controller = spec.get("controller");
    match controller.text() {
        "" => errors.required(&controller, ""),
        text if text.len() > 250 => errors.too_long(&controller, 250),
        text if !text.contains('/') => {
            errors.invalid(&controller, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
        _ => {}
    }
    let parameters = spec.get("parameters");
    if parameters.is_null() {
        return;
    }
    for field in ["kind", "name"] {
        if parameters.get(field).text().is_empty() {
            errors.required(&parameters.get(field), "");
        }
    }
    errors.one_of(&parameters.get("scope"), &["Cluster", "Namespace"]);
}

fn network_policy(spec: &At<'_>, errors: &mut Errors) {
    errors.label_selector(&spec.get("podSelector"));
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            rule.get("ports").items().for_each(|port| policy_port(&port, errors));
            rule.get(peers).items().for_each(|peer| policy_peer(&peer, errors));
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        errors.invalid(&types, "may not specify more than two policyTypes");
    }
    for kind in types.items() {
        errors.one_of_if_set(&kind, &["Ingress", "Egress"]);
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    errors.one_of_if_set(&at.get("protocol"), &["TCP", "UDP", "SCTP"]);
    let (port, end) = (at.get("port"), at.get("endPort"));
    if port.is_null() {
        if !end.is_null() {
            errors.invalid(&end, "may not be specified when `port` is not specified");
        }
        return;
    }
    match (port.number(), end.number()) {
        (Some(first), Some(last)) => {
            errors.port(&port);
            if last < first {
                errors.invalid(&end, "must be greater than or equal to `port`");
            }
            errors.port_number(&end);
        }
        (None, Some(_)) => {
            errors.invalid(&end, "may not be specified when `port` is non-numeric");
            errors.port(&port);
        }
        (_, None) => errors.port(&port),
    }
}

fn policy_peer(peer: &At<'_>, errors: &mut Errors) {
    let block = peer.get("ipBlock");
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if !peer.get(field).is_null() {
            selectors += 1;
            errors.label_selector(&peer.get(field));
        }
    }
    if !block.is_null() {
        let range = block.get("cidr");
        if range.text().is_empty() {
            errors.required(&range, "");
        }
        errors.faults(&range, names::cidr(range.text()));
        for except in block.get("except").items() {
            errors.faults(&except, names::cidr(except.text()));
        }
        if selectors > 0 {
            errors.forbidden(peer, "may not specify both ipBlock and another peer");
        }
    } else if selectors == 0 {
        errors.required(peer, "must specify a peer");
    }
}

fn endpoint_slice(object: &At<'_>, errors: &mut Errors) {
    let kind = object.get("addressType");
    errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
    let ports = object.get("ports");
    if ports.len() > PORTS_MAX {
        errors.too_many(&ports, PORTS_MAX);
    }
    let mut seen: Vec<String> = Vec::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            errors.label(&name);
        }
        if seen.iter().any(|s| s == name.text()) {
            errors.duplicate(&name);
        }
        seen.push(name.text().to_string());
        errors.one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"]);
        if !port.get("appProtocol").is_null() {
            errors.qualified_name(&port.get("appProtocol"));
        }
    }
    let endpoints = object.get("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.too_many(&endpoints, ENDPOINTS_MAX);
    }
    endpoints.items().for_each(|endpoint| one_endpoint(&endpoint, kind.text(), errors));
}

fn one_endpoint(endpoint: &At<'_>, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    match addresses.len() {
        0 => errors.required_by_declaration(&addresses),
        n if n > ADDRESSES_MAX => errors.too_many(&addresses, ADDRESSES_MAX),
        _ => {}
    }
    for address in addresses.items() {
        let faults = match kind {
            "IPv4" => names::ip(address.text()),
            "IPv6" => names::canonical_ip(address.text()),
            _ => continue,
        };
        if !faults.is_empty() {
            errors.faults(&address, faults);
            continue;
        }
        if address.text().contains(':') != (kind == "IPv6") {
            errors.invalid(&addresses.showing(address.value), format!("must be an {kind} address"));
        }
        service::special_ip(&address, errors);
    }
    if !endpoint.get("nodeName").is_null() {
        errors.subdomain(&endpoint.get("nodeName"));
    }
    if !endpoint.get("hostname").is_null() {
        errors.label(&endpoint.get("hostname"));
    }
}
