//! The names of a cluster: what the DNS specification of Kubernetes (version 1.1.0) says of Services and endpoints.
//!
//! Owns: the Services and endpoints by name and by address, and which records a name has.
//! Called by: the server, for every question, and by the task that follows the API.
//! Never: does IO, or knows of messages and transports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use minik_api::{ObjectKey, object};
use serde_json::Value;

/// How long an answer may be kept. Short, since endpoints come and go; CoreDNS' kubernetes plugin has the same.
pub const TTL_SECONDS: u32 = 5;

/// The version of the specification that `dns-version` answers with.
const SPECIFICATION: &str = "1.1.0";

/// What a name of the zone leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    Records {
        answers: Vec<Record>,
        additional: Vec<Record>,
    },
    /// An ExternalName Service: the name is another one, which may be anywhere.
    Alias(Box<Record>, Name),
    /// The name exists, but has no record of the type.
    NoData,
    NoName,
}

/// Everything the zone knows. Updated object by object.
#[derive(Debug)]
pub struct Zone {
    origin: Vec<String>,
    /// Where this node answers; also the address of the zone's name server.
    address: Ipv4Addr,
    /// Counts up with every change.
    serial: u32,
    services: BTreeMap<ObjectKey, Service>,
    /// Service -> slice -> endpoints.
    slices: BTreeMap<ObjectKey, BTreeMap<String, Vec<Endpoint>>>,
    /// Namespace -> number of its Services, to tell an empty name from a missing one.
    namespaces: BTreeMap<String, usize>,
    service_by_ip: BTreeMap<Ipv4Addr, ObjectKey>,
    endpoints_by_ip: BTreeMap<Ipv4Addr, BTreeSet<ObjectKey>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    kind: Kind,
    ports: Vec<Port>,
    publish_not_ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    ClusterIps(Vec<Ipv4Addr>),
    Headless,
    ExternalName(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    ip: Ipv4Addr,
    hostname: Option<String>,
    ready: bool,
    ports: Vec<Port>,
}

impl Endpoint {
    /// Its label below a headless Service: the hostname, or the address with dashes.
    fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| dashed(self.ip))
    }
}

impl Zone {
    /// `domain` is the cluster domain, `cluster.local`.
    pub fn new(domain: &str, address: Ipv4Addr) -> Zone {
        Zone {
            origin: domain.trim_end_matches('.').split('.').map(str::to_lowercase).collect(),
            address,
            serial: 1,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            service_by_ip: BTreeMap::new(),
            endpoints_by_ip: BTreeMap::new(),
        }
    }

    /// Takes in a Service as it is now; `None` when it is gone.
    pub fn set_service(&mut self, key: &ObjectKey, object: Option<&Value>) {
        self.serial = self.serial.wrapping_add(1);
        if let Some(old) = self.services.remove(key) {
            if let Some(count) = self.namespaces.get_mut(&key.namespace) {
                *count -= 1;
            }
            self.namespaces.retain(|_, count| *count > 0);
            if let Kind::ClusterIps(ips) = old.kind {
                self.service_by_ip.retain(|ip, owner| owner != key || !ips.contains(ip));
            }
        }
        let Some(service) = object.and_then(read_service) else { return };
        *self.namespaces.entry(key.namespace.clone()).or_default() += 1;
        if let Kind::ClusterIps(ips) = &service.kind {
            self.service_by_ip.extend(ips.iter().map(|ip| (*ip, key.clone())));
        }
        self.services.insert(key.clone(), service);
    }

    /// Takes in one EndpointSlice of a Service; `None` when it is gone.
    pub fn set_slice(&mut self, service: &ObjectKey, slice: &str, object: Option<&Value>) {
        self.serial = self.serial.wrapping_add(1);
        let slices = self.slices.entry(service.clone()).or_default();
        let mut touched: BTreeSet<Ipv4Addr> = slices.remove(slice).into_iter().flatten().map(|e| e.ip).collect();
        if let Some(object) = object {
            let endpoints = read_endpoints(object);
            touched.extend(endpoints.iter().map(|endpoint| endpoint.ip));
            slices.insert(slice.to_owned(), endpoints);
        }
        let present: BTreeSet<Ipv4Addr> = slices.values().flatten().map(|endpoint| endpoint.ip).collect();
        if slices.is_empty() {
            self.slices.remove(service);
        }
        for ip in touched {
            let owners = self.endpoints_by_ip.entry(ip).or_default();
            if present.contains(&ip) {
                owners.insert(service.clone());
            } else {
                owners.remove(service);
            }
            if owners.is_empty() {
                self.endpoints_by_ip.remove(&ip);
            }
        }
    }

    /// The labels of `name` left of the zone's own, in lower case; `None` for a name outside the zone.
    pub fn relative(&self, name: &Name) -> Option<Vec<String>> {
        let labels = labels_of(name);
        let own = labels.len().checked_sub(self.origin.len())?;
        (labels[own..] == self.origin[..]).then(|| labels[..own].to_vec())
    }

    /// What a name inside the zone has. `labels` as from `relative`; answers bear the name as it was asked for.
    pub fn find(&self, asked: &Name, labels: &[String], kind: RecordType) -> Found {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(asked, kind),
            ["dns-version"] => match kind {
                RecordType::TXT => records(vec![record(asked, RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()])))]),
                _ => Found::NoData,
            },
            ["dns"] | ["svc" | "pod"] => Found::NoData,
            ["ns", "dns"] => addresses(asked, kind, &[self.address]),
            [namespace, "svc" | "pod"] if self.namespaces.contains_key(*namespace) => Found::NoData,
            [address, _, "pod"] => match undashed(address) {
                Some(ip) => addresses(asked, kind, &[ip]),
                None => Found::NoName,
            },
            [name, namespace, "svc"] => self.service(asked, kind, &ObjectKey::new(*namespace, *name)),
            [label, name, namespace, "svc"] => self.endpoint(asked, kind, &ObjectKey::new(*namespace, *name), label),
            [port, protocol, name, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => {
                    self.port(asked, kind, &ObjectKey::new(*namespace, *name), port, protocol)
                }
                _ => Found::NoName,
            },
            _ => Found::NoName,
        }
    }

    /// Names of an address, for `d.c.b.a.in-addr.arpa`; `None` when the cluster knows none.
    pub fn reverse(&self, asked: &Name) -> Option<Vec<Record>> {
        let labels = labels_of(asked);
        let [d, c, b, a, "in-addr", "arpa"] = labels.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
            return None;
        };
        let ip: Ipv4Addr = format!("{a}.{b}.{c}.{d}").parse().ok()?;
        let names: Vec<Name> = match self.service_by_ip.get(&ip) {
            Some(service) => vec![self.name(&[&service.name, &service.namespace, "svc"])?],
            None => self.endpoint_names(ip),
        };
        let pointer = |name| record(asked, RData::PTR(PTR(name)));
        (!names.is_empty()).then(|| names.into_iter().map(pointer).collect())
    }

    /// The record that tells how long "there is no such name" holds.
    pub fn authority(&self) -> Record {
        let name = |labels: &[&str]| self.name(labels).expect("short labels below a domain that was read as one");
        let soa = SOA::new(name(&["ns", "dns"]), name(&["hostmaster"]), self.serial, 7200, 1800, 86400, TTL_SECONDS);
        record(&name(&[]), RData::SOA(soa))
    }

    fn endpoint_names(&self, ip: Ipv4Addr) -> Vec<Name> {
        let owners = self.endpoints_by_ip.get(&ip).into_iter().flatten();
        let headless = owners.filter(|key| self.services.get(key).is_some_and(|s| s.kind == Kind::Headless));
        let named = headless.filter_map(|key| {
            let endpoint = self.published(key).into_iter().find(|endpoint| endpoint.ip == ip)?;
            self.name(&[&endpoint.label(), &key.name, &key.namespace, "svc"])
        });
        named.collect()
    }

    fn apex(&self, asked: &Name, kind: RecordType) -> Found {
        match kind {
            RecordType::SOA => records(vec![self.authority()]),
            RecordType::NS => {
                let server = self.name(&["ns", "dns"]).expect("short labels below a domain that was read as one");
                let additional = vec![record(&server, RData::A(A(self.address)))];
                Found::Records { answers: vec![record(asked, RData::NS(NS(server)))], additional }
            }
            _ => Found::NoData,
        }
    }

    fn service(&self, asked: &Name, kind: RecordType, key: &ObjectKey) -> Found {
        let Some(service) = self.services.get(key) else { return Found::NoName };
        match &service.kind {
            Kind::ExternalName(target) => match Name::from_ascii(target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    Found::Alias(Box::new(record(asked, RData::CNAME(CNAME(target.clone())))), target)
                }
                Err(_) => Found::NoData,
            },
            Kind::ClusterIps(ips) if kind == RecordType::SRV => {
                let ports: Vec<u16> = service.ports.iter().map(|port| port.number).collect();
                self.service_srv(asked, key, ips, &ports)
            }
            Kind::ClusterIps(ips) => addresses(asked, kind, ips),
            Kind::Headless => {
                let endpoints = self.published(key);
                if endpoints.is_empty() {
                    return Found::NoName;
                }
                if kind == RecordType::SRV {
                    return self.endpoint_srv(asked, key, &endpoints, |_| true);
                }
                addresses(asked, kind, &distinct_ips(&endpoints))
            }
        }
    }

    /// A name below a Service: an endpoint of a headless one.
    fn endpoint(&self, asked: &Name, kind: RecordType, key: &ObjectKey, label: &str) -> Found {
        let headless = self.services.get(key).is_some_and(|service| service.kind == Kind::Headless);
        if !headless {
            return Found::NoName;
        }
        let mut endpoints = self.published(key);
        endpoints.retain(|endpoint| endpoint.label().eq_ignore_ascii_case(label));
        if endpoints.is_empty() {
            return Found::NoName;
        }
        if kind == RecordType::SRV {
            return self.endpoint_srv(asked, key, &endpoints, |_| true);
        }
        addresses(asked, kind, &distinct_ips(&endpoints))
    }

    /// `_port._protocol.service`: SRV records of the named port.
    fn port(&self, asked: &Name, kind: RecordType, key: &ObjectKey, port: &str, protocol: &str) -> Found {
        let Some(service) = self.services.get(key) else { return Found::NoName };
        let wanted = |p: &Port| p.name.eq_ignore_ascii_case(port) && p.protocol.eq_ignore_ascii_case(protocol);
        let found = match &service.kind {
            Kind::ExternalName(_) => return Found::NoName,
            Kind::ClusterIps(ips) => {
                let ports: Vec<u16> = service.ports.iter().filter(|p| wanted(p)).map(|p| p.number).collect();
                self.service_srv(asked, key, ips, &ports)
            }
            Kind::Headless => self.endpoint_srv(asked, key, &self.published(key), wanted),
        };
        match (found, kind) {
            (Found::Records { answers, .. }, _) if answers.is_empty() => Found::NoName,
            (found, RecordType::SRV) => found,
            _ => Found::NoData,
        }
    }

    fn service_srv(&self, asked: &Name, key: &ObjectKey, ips: &[Ipv4Addr], ports: &[u16]) -> Found {
        let Some(target) = self.name(&[&key.name, &key.namespace, "svc"]) else { return Found::NoName };
        let weight = weight_of(ports.len());
        let srv = |port: &u16| record(asked, RData::SRV(SRV::new(0, weight, *port, target.clone())));
        Found::Records {
            answers: ports.iter().map(srv).collect(),
            additional: ips.iter().map(|ip| record(&target, RData::A(A(*ip)))).collect(),
        }
    }

    fn endpoint_srv(
        &self,
        asked: &Name,
        key: &ObjectKey,
        endpoints: &[&Endpoint],
        wanted: impl Fn(&Port) -> bool,
    ) -> Found {
        let mut targets = Vec::new();
        for endpoint in endpoints {
            let Some(target) = self.name(&[&endpoint.label(), &key.name, &key.namespace, "svc"]) else { continue };
            let ports = endpoint.ports.iter().filter(|port| wanted(port));
            targets.extend(ports.map(|port| (target.clone(), port.number, endpoint.ip)));
        }
        let weight = weight_of(targets.len());
        let srv = |(target, port, _): &(Name, u16, Ipv4Addr)| {
            record(asked, RData::SRV(SRV::new(0, weight, *port, target.clone())))
        };
        let answers = targets.iter().map(srv).collect();
        let glue: BTreeSet<(Name, Ipv4Addr)> = targets.into_iter().map(|(target, _, ip)| (target, ip)).collect();
        let additional = glue.into_iter().map(|(target, ip)| record(&target, RData::A(A(ip)))).collect();
        Found::Records { answers, additional }
    }

    /// The endpoints a headless Service shows: ready ones, or all when it says so.
    fn published(&self, key: &ObjectKey) -> Vec<&Endpoint> {
        let all = self.services.get(key).is_some_and(|service| service.publish_not_ready);
        let endpoints = self.slices.get(key).into_iter().flat_map(BTreeMap::values).flatten();
        endpoints.filter(|endpoint| all || endpoint.ready).collect()
    }

    fn name(&self, labels: &[&str]) -> Option<Name> {
        let own = self.origin.iter().map(String::as_str);
        Name::from_labels(labels.iter().copied().chain(own).map(str::as_bytes)).ok()
    }
}

fn labels_of(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_lowercase()).collect()
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

fn records(answers: Vec<Record>) -> Found {
    Found::Records { answers, additional: Vec::new() }
}

/// The cluster has one stack: a name with addresses has no AAAA record.
fn addresses(asked: &Name, kind: RecordType, ips: &[Ipv4Addr]) -> Found {
    match kind {
        RecordType::A | RecordType::ANY => records(ips.iter().map(|ip| record(asked, RData::A(A(*ip)))).collect()),
        _ => Found::NoData,
    }
}

fn distinct_ips(endpoints: &[&Endpoint]) -> Vec<Ipv4Addr> {
    endpoints.iter().map(|endpoint| endpoint.ip).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Weights of one answer add up to about 100, as CoreDNS shares them out.
fn weight_of(count: usize) -> u16 {
    u16::try_from(100 / count.max(1)).unwrap_or(1).max(1)
}

fn dashed(ip: Ipv4Addr) -> String {
    ip.to_string().replace('.', "-")
}

fn undashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok().filter(|ip| dashed(*ip) == label)
}

fn read_service(object: &Value) -> Option<Service> {
    let spec = &object["spec"];
    let kind = if spec["type"] == "ExternalName" {
        Kind::ExternalName(spec["externalName"].as_str()?.to_owned())
    } else if spec["clusterIP"] == "None" {
        Kind::Headless
    } else {
        let listed = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let all: BTreeSet<&str> = listed.chain(spec["clusterIP"].as_str()).collect();
        let ips: Vec<Ipv4Addr> = all.into_iter().filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            return None;
        }
        Kind::ClusterIps(ips)
    };
    let publish_not_ready = spec["publishNotReadyAddresses"].as_bool().unwrap_or(false);
    Some(Service { kind, ports: read_ports(&spec["ports"]), publish_not_ready })
}

fn read_ports(ports: &Value) -> Vec<Port> {
    let read = |port: &Value| {
        Some(Port {
            name: port["name"].as_str().unwrap_or("").to_owned(),
            protocol: port["protocol"].as_str().unwrap_or("TCP").to_owned(),
            number: u16::try_from(port["port"].as_u64()?).ok()?,
        })
    };
    ports.as_array().into_iter().flatten().filter_map(read).collect()
}

fn read_endpoints(slice: &Value) -> Vec<Endpoint> {
    if slice["addressType"] != "IPv4" {
        return Vec::new();
    }
    let ports = read_ports(&slice["ports"]);
    let read = |endpoint: &Value| {
        Some(Endpoint {
            ip: endpoint["addresses"].get(0)?.as_str()?.parse().ok()?,
            hostname: endpoint["hostname"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
            ready: endpoint["conditions"]["ready"].as_bool().unwrap_or(true),
            ports: ports.clone(),
        })
    };
    slice["endpoints"].as_array().into_iter().flatten().filter_map(read).collect()
}

/// The Service an EndpointSlice belongs to.
pub fn owner_of(slice: &Value) -> Option<ObjectKey> {
    let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str()?;
    Some(ObjectKey::new(object::namespace(slice), service))
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
