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
const TOPOLOGY_LABELS_MAX: usize = 16;
/// Zones, and nodes, that an endpoint is meant for.
const HINTS_MAX: usize = 8;
const CONTROLLER_BYTES_MAX: usize = 250;

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    match kind {
        "Ingress" => ingress(&object.get("spec"), errors),
        "IngressClass" => ingress_class(&object.get("spec"), errors),
        "NetworkPolicy" => network_policy(&object.get("spec"), errors),
        "EndpointSlice" => endpoint_slice(object, errors),
        "ServiceCIDR" => service_ranges(&object.get("spec"), errors),
        "IPAddress" => {
            let spec = object.get("spec");
            parent_of_address(&spec.get("parentRef"), errors);
        }
        _ => {}
    }
}

fn service_ranges(spec: &At<'_>, errors: &mut Errors) {
    let ranges = spec.get("cidrs");
    match ranges.len() {
        0 => return errors.required(&ranges, "at least one CIDR required"),
        1 | 2 => {}
        _ => return errors.invalid(&ranges, "may only hold up to 2 values"),
    }
    let faults: Vec<Vec<String>> = ranges.items().map(|range| names::cidr(range.text())).collect();
    let are_ranges = faults.iter().all(Vec::is_empty);
    ranges.items().zip(faults).for_each(|(range, faults)| errors.faults(&range, faults));
    let sixes = ranges.items().filter(|range| range.text().contains(':')).count();
    if are_ranges && ranges.len() == 2 && sixes != 1 {
        let rule = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&ranges, rule);
    }
}

/// Nothing may change but that a second family is added.
fn service_ranges_after(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let ranges = spec.get("cidrs");
    let before = old["cidrs"].as_array().map_or(&[][..], Vec::as_slice);
    if ranges.len() != before.len() && (before.len(), ranges.len()) != (1, 2) {
        return errors.immutable(&ranges, &old["cidrs"]);
    }
    ranges.items().zip(before).for_each(|(range, before)| errors.immutable(&range, before));
    if ranges.len() != before.len() {
        service_ranges(spec, errors);
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
    let (spec, before) = (object.get("spec"), &old["spec"]);
    match kind {
        "ServiceCIDR" => return service_ranges_after(&spec, before, errors),
        "IngressClass" => {
            let controller = spec.get("controller");
            let shown = Value::from(controller.text());
            if controller.text() != before["controller"].as_str().unwrap_or_default() {
                errors.invalid(&controller.showing(&shown), "field is immutable");
            }
        }
        _ => {}
    }
    create(kind, object, errors);
    match kind {
        "EndpointSlice" => errors.immutable_unshown(&object.get("addressType"), &old["addressType"]),
        "IPAddress" => errors.immutable_unshown(&spec.get("parentRef"), &before["parentRef"]),
        _ => {}
    }
}

fn ingress(spec: &At<'_>, errors: &mut Errors) {
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.len() == 0 && backend.is_null() {
        let rules = if rules.is_null() { Value::Null } else { Value::Array(Vec::new()) };
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
    if controller.text().len() > CONTROLLER_BYTES_MAX {
        errors.too_long(&controller, CONTROLLER_BYTES_MAX);
    }
    domain_prefixed_path(&controller, errors);
    let parameters = spec.get("parameters");
    if !parameters.is_null() {
        class_parameters(&parameters, errors);
    }
}

/// `acme.io/foo`
fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    if at.text().is_empty() {
        return errors.required(at, "");
    }
    match at.text().split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty()) {
        None => errors.invalid(at, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Some((domain, path)) => {
            errors.subdomain(&at.showing(&domain.into()));
            errors.faults(&at.showing(&path.into()), names::http_path(path));
        }
    }
}

fn class_parameters(parameters: &At<'_>, errors: &mut Errors) {
    let (group, scope, namespace) = (parameters.get("apiGroup"), parameters.get("scope"), parameters.get("namespace"));
    if !group.is_null() {
        errors.subdomain(&group);
    }
    for field in ["kind", "name"] {
        errors.required_name(&parameters.get(field), names::path_segment);
    }
    match scope.text() {
        _ if scope.is_null() => errors.required(&scope, ""),
        "Namespace" if namespace.is_null() => {
            errors.required(&namespace, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => errors.label(&namespace),
        "Cluster" if namespace.is_null() => {}
        "Cluster" => errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        _ => errors.not_supported(&scope, &["Cluster", "Namespace"]),
    }
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
            "FQDN" => {
                full_domain(&address, errors);
                continue;
            }
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
    let topology = endpoint.get("deprecatedTopology");
    if topology.len() > TOPOLOGY_LABELS_MAX {
        errors.too_many(&topology, TOPOLOGY_LABELS_MAX);
    }
    errors.labels(&topology);
    if !endpoint.get("hostname").is_null() {
        errors.label(&endpoint.get("hostname"));
    }
    let hints = endpoint.get("hints");
    hint_names(&hints.get("forZones"), names::label_value, errors);
    hint_names(&hints.get("forNodes"), names::dns1123_subdomain, errors);
}

/// `example.com`, perhaps with the dot at its end.
fn full_domain(at: &At<'_>, errors: &mut Errors) {
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    if at.text().is_empty() {
        return errors.required(at, "");
    }
    let faults = names::dns1123_subdomain(name);
    if !faults.is_empty() {
        errors.invalid(&at.showing(&name.into()), faults.join(","));
    } else if !name.contains('.') {
        errors.invalid(&at.showing(&name.into()), "should be a domain with at least two segments separated by dots");
    } else if let Some((label, faults)) =
        name.split('.').map(|label| (label, names::dns1123_label(label))).find(|(_, faults)| !faults.is_empty())
    {
        errors.invalid(&at.showing(&label.into()), faults.join(","));
    }
}

/// The zones or nodes whose clients an endpoint is meant for.
fn hint_names(list: &At<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if list.len() > HINTS_MAX {
        return errors.too_many(list, HINTS_MAX);
    }
    let mut seen: Vec<String> = Vec::new();
    for hint in list.items() {
        let name = hint.get("name");
        if seen.iter().any(|s| s == name.text()) {
            errors.duplicate(&name);
        }
        seen.push(name.text().to_string());
        errors.faults(&name, rule(name.text()));
    }
}
