//! Addresses and node ports of Services.
//!
//! Owns: which are free, which a Service gets, and the entries that claim them. A claim is written in the same
//! transaction as the Service, so two Services can never hold one address, whatever fails in between.
//! Called by: writes of Services.
//! Never: keeps a table in memory; the store is the table.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use minik_api::strategy::needs_health_port;
use minik_api::{FieldError, Status, object};
use minik_store::{Encode, Store, Write};
use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::call::now;
use crate::server::Core;
use crate::stored;

/// Random draws before the range is searched from its start.
const DRAWS_MAX: usize = 64;
/// Upstream keeps the first addresses of a range for those who choose their own.
const STATIC_ADDRESSES_MAX: u32 = 256;
const STATIC_ADDRESSES_MIN: u32 = 16;
/// The same for node ports: a 32nd of the range within these bounds.
const STATIC_PORTS: std::ops::RangeInclusive<u16> = 16..=128;

/// An IPv4 network whose first and last addresses are nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: u32,
    size: u32,
}

impl Network {
    pub fn parse(cidr: &str) -> Option<Network> {
        let (address, bits) = cidr.split_once('/')?;
        let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        let size = 1u32.checked_shl(32 - bits.min(32)).filter(|s| *s >= 4)?;
        Some(Network { base: u32::from(address) & !(size - 1), size })
    }

    /// The `n`th address; the first one is that of the `kubernetes` Service.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + n)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        address > self.base && address < self.base + self.size - 1
    }
}

fn address_key(address: &str) -> String {
    format!("ipaddresses.networking.k8s.io/{address}")
}

fn port_key(port: i64) -> String {
    // Below a name that is no resource, so no request can reach it.
    format!("internal-nodeports/{port}")
}

fn text<'a>(service: &'a Value, field: &str) -> &'a str {
    service["spec"][field].as_str().unwrap_or("")
}

fn needs_address(service: &Value) -> bool {
    text(service, "type") != "ExternalName" && text(service, "clusterIP") != "None"
}

fn has_node_ports(service: &Value) -> bool {
    matches!(text(service, "type"), "NodePort" | "LoadBalancer")
}

/// Whether ports that the client does not name are to be found for it.
fn needs_node_ports(service: &Value) -> bool {
    match text(service, "type") {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

fn health_port(service: &Value) -> i64 {
    service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0)
}

fn held_address(service: &Value) -> Option<&str> {
    Some(text(service, "clusterIP")).filter(|a| !a.is_empty() && *a != "None")
}

fn held_ports(service: &Value) -> BTreeSet<i64> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().filter_map(|p| p["nodePort"].as_i64());
    ports.chain([health_port(service)]).filter(|p| *p != 0).collect()
}

/// Gives the Service what it needs and does not have.
pub fn allocate(core: &Core, new: &mut Value, old: Option<&Value>, dry_run: bool) -> Result<Vec<Write>, Status> {
    if let Some(old) = old {
        keep_what_it_has(new, old);
    }
    families(new);
    if old.is_none() {
        let faults = minik_api::validation::service_addressing(new);
        if !faults.is_empty() {
            return Err(Status::invalid("", "Service", object::name(new), &faults));
        }
    }
    let mut writes = Vec::new();
    let had = old.and_then(held_address).map(String::from);
    if needs_address(new) {
        // Another address than it has is refused when the Service is validated.
        if had.is_none() {
            let network = Network::parse(&core.config.service_cidr)
                .ok_or_else(|| Status::internal("the service network cannot be parsed"))?;
            let address =
                claim_address(&core.store, network, &core.config.service_cidr, new, dry_run, &mut rand::rng())?;
            writes.push(address_write(&address, new));
            set_address(new, &address);
        }
    } else if text(new, "type") == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec(new).remove(field);
        }
    }
    let kept: BTreeSet<i64> = old.map(held_ports).unwrap_or_default();
    if has_node_ports(new) {
        claim_ports(core, new, &kept, dry_run, &mut writes)?;
        if old.is_some() {
            unlike_each_other(new)?;
        }
    }
    if needs_health_port(new) && !old.is_some_and(needs_health_port) {
        claim_health_port(core, new, &kept, dry_run, &mut writes)?;
    }
    let now_held = held_ports(new);
    writes.extend(kept.difference(&now_held).map(|p| Write::Delete { key: port_key(*p), expected: None }));
    if let Some(had) = had.filter(|h| held_address(new) != Some(h)) {
        writes.push(Write::Delete { key: address_key(&had), expected: None });
    }
    Ok(writes)
}

/// The writes that give everything back.
pub fn release(old: &Value) -> Vec<Write> {
    let ports = held_ports(old).into_iter().map(port_key);
    let keys = held_address(old).map(address_key).into_iter().chain(ports);
    keys.map(|key| Write::Delete { key, expected: None }).collect()
}

fn spec(service: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    service["spec"].as_object_mut().expect("made one above")
}

/// An update that leaves addresses and ports out means those there are.
fn keep_what_it_has(new: &mut Value, old: &Value) {
    if text(new, "type") != "ExternalName" && text(old, "type") != "ExternalName" && text(new, "clusterIP").is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                spec(new).insert(field.into(), value.clone());
            }
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if new["spec"].get(field).is_none()
            && let Some(value) = old["spec"].get(field)
        {
            spec(new).insert(field.into(), value.clone());
        }
    }
    if !has_node_ports(new) || !has_node_ports(old) {
        return;
    }
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_string();
    for port in spec(new).get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let mut before = old["spec"]["ports"].as_array().into_iter().flatten();
        let same = before.find(|p| p["port"] == port["port"] && protocol(p) == protocol(port));
        if let Some(number) = same.and_then(|p| p["nodePort"].as_i64()) {
            port["nodePort"] = number.into();
        }
    }
}

/// minik's service network is IPv4 alone.
fn families(service: &mut Value) {
    if text(service, "type") == "ExternalName" {
        return;
    }
    let headless = text(service, "clusterIP") == "None";
    let selects = service["spec"]["selector"].as_object().is_some_and(|s| !s.is_empty());
    let spec = spec(service);
    if headless {
        spec.insert("clusterIPs".into(), json!(["None"]));
    }
    // A headless Service without a selector may get endpoints of both families from whoever makes them.
    let (policy, families) = if headless && !selects {
        ("RequireDualStack", json!(["IPv4", "IPv6"]))
    } else {
        ("SingleStack", json!(["IPv4"]))
    };
    spec.entry("ipFamilyPolicy").or_insert(policy.into());
    if spec.get("ipFamilies").is_none_or(|f| f.as_array().is_none_or(Vec::is_empty)) {
        spec.insert("ipFamilies".into(), families);
    }
}

fn set_address(service: &mut Value, address: &str) {
    let spec = spec(service);
    spec.insert("clusterIP".into(), address.into());
    spec.insert("clusterIPs".into(), json!([address]));
}

fn invalid(service: &Value, fault: FieldError) -> Status {
    Status::invalid("", "Service", object::name(service), &[fault])
}

fn claim_address(
    store: &Store,
    network: Network,
    cidr: &str,
    service: &Value,
    dry_run: bool,
    dice: &mut impl Rng,
) -> Result<String, Status> {
    let asked = held_address(service).or(service["spec"]["clusterIPs"][0].as_str().filter(|a| !a.is_empty()));
    if let Some(asked) = asked {
        let refuse = |why: String| invalid(service, FieldError::invalid("spec.clusterIPs", &json!([asked]), why));
        let parsed: Option<Ipv4Addr> = asked.parse().ok();
        if !parsed.is_some_and(|a| network.contains(a)) {
            return Err(refuse(format!(
                "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {cidr}"
            )));
        }
        // A rehearsal of upstream's asks no IPAddress whether it is there.
        if !dry_run && store.get(&address_key(asked)).is_some() {
            return Err(refuse(format!("failed to allocate IP {asked}: provided IP is already allocated")));
        }
        return Ok(asked.into());
    }
    if dry_run {
        // Nor does it look for an address: it shows that of the network.
        return Ok(network.nth(0).to_string());
    }
    let free = |n: u32| Some(network.nth(n).to_string()).filter(|a| store.get(&address_key(a)).is_none());
    let reserved = (network.size / 16).clamp(STATIC_ADDRESSES_MIN, STATIC_ADDRESSES_MAX).min(network.size / 2);
    let last = network.size - 1;
    let drawn = (0..DRAWS_MAX).find_map(|_| free(dice.random_range(reserved.max(1)..last)));
    drawn
        .or_else(|| (reserved.max(1)..last).chain(1..reserved).find_map(free))
        .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))
}

/// The IPAddress object that claims the address, as upstream's allocator makes it.
fn address_write(address: &str, service: &Value) -> Write {
    let tree = json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address, "uid": Uuid::new_v4().to_string(), "creationTimestamp": now(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "resource": "services", "namespace": object::namespace(service), "name": object::name(service),
        }},
    });
    Write::Create { key: address_key(address), value: stored::encode(&tree) }
}

fn claim_ports(
    core: &Core,
    service: &mut Value,
    kept: &BTreeSet<i64>,
    dry_run: bool,
    writes: &mut Vec<Write>,
) -> Result<(), Status> {
    let (first, last) = core.config.node_ports;
    let owner = format!("{}/{}", object::namespace(service), object::name(service));
    let name = object::name(service).to_string();
    let given = needs_node_ports(service);
    let mut mine: BTreeSet<i64> = kept.clone();
    let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    for index in 0..count {
        let path = format!("spec.ports[{index}].nodePort");
        let refuse = |port: i64, why: &str| {
            Status::invalid("", "Service", &name, &[FieldError::invalid(path.as_str(), &port.into(), why)])
        };
        let asked = service["spec"]["ports"][index]["nodePort"].as_i64().unwrap_or(0);
        // TCP and UDP of one Service may share a number.
        if mine.contains(&asked) || (asked == 0 && !given) {
            continue;
        }
        let port = if asked != 0 {
            if let Some(why) = port_fault(core, asked, &BTreeSet::new()) {
                return Err(refuse(asked, &why));
            }
            asked
        } else if dry_run {
            rehearsed_port(&mine, kept)
        } else {
            free_port(&core.store, first, last, &mine)?
        };
        mine.insert(port);
        service["spec"]["ports"][index]["nodePort"] = port.into();
        writes.push(Write::Create { key: port_key(port), value: Encode::plain(owner.as_bytes()) });
    }
    Ok(())
}

/// Why a Service cannot have the port that it, or a draw, names.
fn port_fault(core: &Core, port: i64, others: &BTreeSet<i64>) -> Option<String> {
    let (first, last) = core.config.node_ports;
    if !(i64::from(first)..=i64::from(last)).contains(&port) {
        return Some(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
    }
    let is_taken = others.contains(&port) || core.store.get(&port_key(port)).is_some();
    is_taken.then(|| "provided port is already allocated".to_string())
}

fn node_ports(service: &Value) -> impl Iterator<Item = (&str, i64)> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.map(|p| (p["protocol"].as_str().unwrap_or("TCP"), p["nodePort"].as_i64().unwrap_or(0)))
}

/// Upstream finds these while it allocates for an update, before validation would name their fields.
fn unlike_each_other(service: &Value) -> Result<(), Status> {
    let mut seen = BTreeSet::new();
    match node_ports(service).filter(|(_, port)| *port != 0).find(|port| !seen.insert(*port)) {
        None => Ok(()),
        Some((protocol, port)) => Err(Status::new(500, "", format!("duplicate nodePort: {{{protocol} {port}}}"))),
    }
}

/// What a rehearsal shows, which looks for no free port: the next after those it claims, or the first that is no node
/// port.
fn rehearsed_port(mine: &BTreeSet<i64>, kept: &BTreeSet<i64>) -> i64 {
    const NODE_PORTS_END: i64 = 32768;
    1 + mine.difference(kept).max().copied().unwrap_or(NODE_PORTS_END)
}

fn claim_health_port(
    core: &Core,
    service: &mut Value,
    kept: &BTreeSet<i64>,
    dry_run: bool,
    writes: &mut Vec<Write>,
) -> Result<(), Status> {
    let (first, last) = core.config.node_ports;
    let asked = health_port(service);
    let mut others = service.clone();
    spec(&mut others).remove("healthCheckNodePort");
    let others = held_ports(&others);
    if asked == 0 && dry_run {
        spec(service).insert("healthCheckNodePort".into(), rehearsed_port(&others, kept).into());
        return Ok(());
    }
    let port = if asked == 0 { free_port(&core.store, first, last, &others)? } else { asked };
    if let Some(fault) = port_fault(core, port, &others) {
        return Err(Status::new(500, "", format!("failed to allocate requested HealthCheck NodePort {port}: {fault}")));
    }
    spec(service).insert("healthCheckNodePort".into(), port.into());
    let owner = format!("{}/{}", object::namespace(service), object::name(service));
    writes.push(Write::Create { key: port_key(port), value: Encode::plain(owner.as_bytes()) });
    Ok(())
}

fn free_port(store: &Store, first: u16, last: u16, mine: &BTreeSet<i64>) -> Result<i64, Status> {
    let free = |port: &i64| !mine.contains(port) && store.get(&port_key(*port)).is_none();
    let mut dice = rand::rng();
    let kept = first.saturating_add(((last - first) / 32).clamp(*STATIC_PORTS.start(), *STATIC_PORTS.end()));
    // A range that is all kept is drawn from whole.
    let lowest = if kept <= last { kept } else { first };
    let drawn = (0..DRAWS_MAX).map(|_| i64::from(dice.random_range(lowest..=last))).find(free);
    drawn
        .or_else(|| (i64::from(lowest)..=i64::from(last)).find(free))
        .or_else(|| (i64::from(first)..=i64::from(last)).find(free))
        .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gives_out_what_lies_between_its_first_and_last_address() {
        let network = Network::parse("10.96.0.0/16").expect("a network");
        assert_eq!(network.nth(1), Ipv4Addr::new(10, 96, 0, 1));
        assert!(network.contains(Ipv4Addr::new(10, 96, 255, 254)));
        assert!(!network.contains(Ipv4Addr::new(10, 96, 255, 255)) && !network.contains(Ipv4Addr::new(10, 97, 0, 1)));
        assert_eq!(Network::parse("10.96.0.0/31"), None);
    }

    #[test]
    fn the_address_asked_for_must_lie_in_the_range() {
        let (store, network) = (Store::memory(), Network::parse("10.96.0.0/24").expect("a network"));
        let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.0.0.1"}});
        let refused =
            claim_address(&store, network, "10.96.0.0/24", &service, false, &mut rand::rng()).expect_err("outside");
        assert!(refused.message.starts_with("Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: the provided IP"), "{}", refused.message);
    }

    #[test]
    fn a_rehearsed_service_shows_ports_that_nobody_gets() {
        let (kept, claimed) = (BTreeSet::from([31000]), BTreeSet::from([30005, 31000]));
        assert_eq!(rehearsed_port(&kept, &kept), 32769);
        assert_eq!(rehearsed_port(&claimed, &kept), 30006);
    }

    #[test]
    fn an_update_keeps_the_ports_it_does_not_mention() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81}]}});
        keep_what_it_has(&mut new, &old);
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
        assert_eq!(
            (new["spec"]["clusterIP"].as_str(), new["spec"]["ports"][1].get("nodePort")),
            (Some("10.96.0.9"), None)
        );
    }
}
