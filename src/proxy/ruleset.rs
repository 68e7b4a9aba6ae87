//! From Services and their endpoints to the table that serves them: a pure function.
//!
//! A packet to a Service looks its destination up in one map (`services`, `node-ports`) and goes to the chain of that
//! Service port, which draws an endpoint from a map of its own. So the way of a packet does not grow with the number
//! of Services, and a change of one Service touches one chain, one map and some elements.
//!
//! Owns: every name and rule of the table.
//! Called by: the sync loop, for every batch of changes.
//! Never: does IO, or remembers anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use minik_network::nft::{
    Datum, Field, FieldType, Hook, HookKind, HookPoint, Interface, Is, Item, Rule, Set, Side, Table, Value, Verdict,
};
use minik_network::{Ipv4Cidr, Protocol};

use crate::endpoints::{Chosen, Endpoints, Target};
use crate::service::{Service, ServicePort, TrafficPolicy};

/// What the rules of a node depend on besides Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// The node's label `topology.kubernetes.io/zone`, or empty.
    pub zone: String,
    /// Addresses NodePorts answer on. Never loopback, as with upstream's nftables mode.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Pods have their addresses here; what comes from elsewhere is masqueraded, so that answers find back.
    pub cluster_cidr: Ipv4Cidr,
    /// Service addresses this node answers itself (cluster DNS). Such a Service is left alone until it has endpoints.
    pub answered_here: BTreeSet<Ipv4Addr>,
}

/// All that follows from the Services and endpoints of a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub table: Table,
    /// Where UDP is translated, and to what. Connections to such a place that lead elsewhere are stale.
    pub udp: BTreeMap<Target, BTreeSet<Target>>,
    /// Maps that remember which client uses which endpoint, and the endpoints they may name.
    pub learned: BTreeMap<String, BTreeSet<Target>>,
    /// Health check ports: the Service (namespace, name) and its number of ready endpoints here.
    pub health: BTreeMap<u16, Health>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub namespace: String,
    pub service: String,
    pub local_endpoints: usize,
}

/// The mark's bit that asks for masquerading; the one kube-proxy uses.
const MASQUERADE: u32 = 0x4000;

const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
const NO_ENDPOINTS: &str = "no-endpoints";
const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-node-ports";
const CLUSTER_IPS: &str = "cluster-ips";
const NODE_ADDRESSES: &str = "node-addresses";
const HAIRPIN: &str = "hairpin";
const FIREWALL: &str = "firewall";
const REJECT: &str = "reject";

pub fn plan<'a>(node: &Node, services: impl IntoIterator<Item = (&'a Service, &'a Endpoints)>) -> Plan {
    let mut builder = Builder { node, plan: Plan { table: skeleton(node), ..Plan::default() } };
    for (service, endpoints) in services {
        builder.service(service, endpoints);
    }
    builder.plan
}

/// What is there without any Service: the hooks, and empty maps for them to look into.
fn skeleton(node: &Node) -> Table {
    use FieldType::{Address, Port, Protocol as Proto};
    let mut table = Table::default();
    for (name, key) in [(SERVICES, &[Address, Proto, Port][..]), (NODE_PORTS, &[Proto, Port])] {
        table.sets.insert(name.to_owned(), Set::verdict_map(key));
    }
    for (name, key) in [(NO_ENDPOINTS, &[Address, Proto, Port][..]), (NO_ENDPOINT_NODE_PORTS, &[Proto, Port])] {
        table.sets.insert(name.to_owned(), Set::verdict_map(key));
    }
    table.sets.insert(FIREWALL.to_owned(), Set::verdict_map(&[Address, Proto, Port]));
    table.sets.insert(CLUSTER_IPS.to_owned(), Set::of(&[Address]));
    table.sets.insert(HAIRPIN.to_owned(), Set::of(&[Address, Address]));
    let mut addresses = Set::of(&[Address]);
    addresses.elements = node.addresses.iter().map(|ip| (vec![Datum::Address(*ip)], Value::None)).collect();
    table.sets.insert(NODE_ADDRESSES.to_owned(), addresses);
    translation_hooks(&mut table);
    filter_hooks(&mut table);
    table
}

const BY_ADDRESS: [Field; 3] = [Field::Daddr, Field::Protocol, Field::Dport];
const BY_PORT: [Field; 2] = [Field::Protocol, Field::Dport];

fn to_node() -> Item {
    Item::InSet(vec![Field::Daddr], Is::In, NODE_ADDRESSES.to_owned())
}

fn translation_hooks(table: &mut Table) {
    let nat = |at, priority| Some(Hook { kind: HookKind::Nat, at, priority });
    table.chain(
        "translate",
        None,
        vec![
            Rule(vec![Item::Vmap(BY_ADDRESS.to_vec(), SERVICES.to_owned())]),
            Rule(vec![to_node(), Item::Vmap(BY_PORT.to_vec(), NODE_PORTS.to_owned())]),
        ],
    );
    let translate = || vec![Rule(vec![Item::Verdict(Verdict::Jump("translate".to_owned()))])];
    table.chain("nat-prerouting", nat(HookPoint::Prerouting, -100), translate());
    table.chain("nat-output", nat(HookPoint::Output, -100), translate());
    table.chain(
        "nat-postrouting",
        nat(HookPoint::Postrouting, 100),
        vec![
            // What stays on the node needs no other source address.
            Rule(vec![
                Item::MarkHas(MASQUERADE),
                Item::OutInterface(Is::NotIn, Interface::Name("lo".to_owned())),
                Item::MarkClear(MASQUERADE),
                Item::Masquerade,
            ]),
            // A pod that reaches itself through a Service would answer itself directly, untranslated.
            Rule(vec![
                Item::CtDnat,
                Item::InSet(vec![Field::Saddr, Field::Daddr], Is::In, HAIRPIN.to_owned()),
                Item::Masquerade,
            ]),
        ],
    );
}

fn filter_hooks(table: &mut Table) {
    let filter = |at, priority| Some(Hook { kind: HookKind::Filter, at, priority });
    table.chain(
        "untranslated",
        None,
        vec![
            Rule(vec![Item::Vmap(BY_ADDRESS.to_vec(), NO_ENDPOINTS.to_owned())]),
            Rule(vec![to_node(), Item::Vmap(BY_PORT.to_vec(), NO_ENDPOINT_NODE_PORTS.to_owned())]),
            // A port the Service does not have: refused at once, not sent out by the default route.
            Rule(vec![
                Item::InSet(vec![Field::Daddr], Is::In, CLUSTER_IPS.to_owned()),
                Item::Verdict(Verdict::Goto(REJECT.to_owned())),
            ]),
        ],
    );
    table.chain(
        REJECT,
        None,
        vec![Rule(vec![Item::Protocol(Protocol::Tcp), Item::RejectTcpReset]), Rule(vec![Item::RejectPortUnreachable])],
    );
    let check = || vec![Rule(vec![Item::CtNew, Item::Verdict(Verdict::Jump("untranslated".to_owned()))])];
    table.chain("filter-input", filter(HookPoint::Input, 0), check());
    table.chain("filter-forward", filter(HookPoint::Forward, 0), check());
    table.chain("filter-output", filter(HookPoint::Output, 0), check());
    // Before the translation: load balancer source ranges speak of the address the client called.
    table.chain(
        "filter-prerouting",
        filter(HookPoint::Prerouting, -110),
        vec![Rule(vec![Item::CtNew, Item::Vmap(BY_ADDRESS.to_vec(), FIREWALL.to_owned())])],
    );
}

struct Builder<'a> {
    node: &'a Node,
    plan: Plan,
}

/// The chains of one Service port that traffic can be sent to; `None` where no endpoint would take it.
struct Chains {
    internal: Option<String>,
    external: Option<String>,
}

impl Builder<'_> {
    fn service(&mut self, service: &Service, endpoints: &Endpoints) {
        let left_alone =
            endpoints.is_empty() && service.cluster_ips.iter().any(|ip| self.node.answered_here.contains(ip));
        if left_alone {
            return;
        }
        for ip in &service.cluster_ips {
            self.element(CLUSTER_IPS, vec![Datum::Address(*ip)], Value::None);
        }
        for port in &service.ports {
            let chosen = endpoints.choose(&port.name, port.protocol, &self.node.name, &self.node.zone);
            self.port(service, port, &chosen);
        }
        self.hairpins(endpoints);
        if let Some(port) = service.health_check_port {
            let local_endpoints = endpoints.ready_on(&self.node.name);
            let (namespace, name) = (service.namespace.clone(), service.name.clone());
            self.plan.health.insert(port, Health { namespace, service: name, local_endpoints });
        }
    }

    fn port(&mut self, service: &Service, port: &ServicePort, chosen: &Chosen) {
        let chains = self.chains(service, port, chosen);
        let nobody = chosen.cluster.is_empty() && chosen.local.is_empty();
        // No endpoint at all is refused; endpoints elsewhere only, under policy Local, means silence, so that a load
        // balancer tries another node.
        let otherwise = if nobody { Verdict::Goto(REJECT.to_owned()) } else { Verdict::Drop };
        for ip in &service.cluster_ips {
            self.front(port, *ip, chains.internal.as_ref(), &otherwise);
        }
        for ip in service.external_ips.iter().chain(&service.load_balancer_ips) {
            self.front(port, *ip, chains.external.as_ref(), &otherwise);
        }
        if let Some(node_port) = port.node_port {
            let key = vec![Datum::Protocol(port.protocol), Datum::Port(node_port)];
            if let Some(chain) = &chains.external {
                self.element(NODE_PORTS, key.clone(), Value::Verdict(Verdict::Goto(chain.clone())));
            }
            if blocked(service.external_policy, chosen) {
                self.element(NO_ENDPOINT_NODE_PORTS, key, Value::Verdict(otherwise.clone()));
            }
        }
        // With policy Local a client outside finds silence although the chain exists: it serves clients in the cluster.
        if chains.external.is_some() && blocked(service.external_policy, chosen) {
            for ip in service.external_ips.iter().chain(&service.load_balancer_ips) {
                self.element(NO_ENDPOINTS, front_key(port, *ip), Value::Verdict(otherwise.clone()));
            }
        }
        self.firewall(service, port);
        if port.protocol == Protocol::Udp {
            self.udp(service, port, chosen);
        }
    }

    /// One address of a Service port: to its chain, or to what happens without.
    fn front(&mut self, port: &ServicePort, ip: Ipv4Addr, chain: Option<&String>, otherwise: &Verdict) {
        let (map, verdict) = match chain {
            Some(chain) => (SERVICES, Verdict::Goto(chain.clone())),
            None => (NO_ENDPOINTS, otherwise.clone()),
        };
        self.element(map, front_key(port, ip), Value::Verdict(verdict));
    }

    fn chains(&mut self, service: &Service, port: &ServicePort, chosen: &Chosen) -> Chains {
        let base = format!("svc/{}/{}/{}-{}", service.namespace, service.name, port.protocol, port.port);
        let external = service.is_external(port);
        let local_used = service.internal_policy == TrafficPolicy::Local
            || (external && service.external_policy == TrafficPolicy::Local);
        let outside = Rule(vec![Item::Saddr(Is::NotIn, self.node.cluster_cidr), Item::MarkSet(MASQUERADE)]);
        let cluster_used = service.internal_policy == TrafficPolicy::Cluster || external;
        let cluster = (cluster_used && !chosen.cluster.is_empty())
            .then(|| self.balanced(service, &base, &chosen.cluster, vec![outside.clone()]));
        let local = (local_used && !chosen.local.is_empty())
            .then(|| self.balanced(service, &format!("{base}/local"), &chosen.local, vec![]));
        let internal = match (service.internal_policy, &local) {
            (TrafficPolicy::Cluster, _) => cluster.clone(),
            (TrafficPolicy::Local, None) => None,
            (TrafficPolicy::Local, Some(local)) => {
                Some(self.chain(format!("{base}/internal"), vec![outside, goto(local)]))
            }
        };
        let external = if external { self.external_chain(service, &base, cluster, local) } else { None };
        Chains { internal, external }
    }

    fn external_chain(
        &mut self,
        service: &Service,
        base: &str,
        cluster: Option<String>,
        local: Option<String>,
    ) -> Option<String> {
        let mut rules = Vec::new();
        match (service.external_policy, cluster) {
            (TrafficPolicy::Cluster, None) => return None,
            (TrafficPolicy::Cluster, Some(cluster)) => {
                rules.extend([Rule(vec![Item::MarkSet(MASQUERADE)]), goto(&cluster)]);
            }
            (TrafficPolicy::Local, cluster) => {
                // Policy Local keeps the addresses of clients outside. Clients inside the cluster would only lose
                // endpoints by it, so they are served as by a cluster IP.
                if let Some(cluster) = cluster {
                    let inside = |item: Item| Rule(vec![item, Item::Verdict(Verdict::Goto(cluster.clone()))]);
                    rules.push(inside(Item::Saddr(Is::In, self.node.cluster_cidr)));
                    rules.push(Rule(vec![Item::Local(Side::Source), Item::MarkSet(MASQUERADE)]));
                    rules.push(inside(Item::Local(Side::Source)));
                }
                rules.extend(local.iter().map(|chain| goto(chain)));
                if rules.is_empty() {
                    return None;
                }
            }
        }
        Some(self.chain(format!("{base}/external"), rules))
    }

    /// A chain that ends in one of `targets`, and the map it draws from, which bears the same name.
    fn balanced(&mut self, service: &Service, name: &str, targets: &BTreeSet<Target>, mut rules: Vec<Rule>) -> String {
        use FieldType::{Address, Number, Port};
        let mut map = Set::map(&[Number], &[Address, Port]);
        let count = u32::try_from(targets.len()).expect("a Service has fewer than four billion endpoints");
        for (number, (ip, port)) in (0..).zip(targets) {
            map.elements
                .insert(vec![Datum::Number(number)], Value::Data(vec![Datum::Address(*ip), Datum::Port(*port)]));
        }
        self.plan.table.sets.insert(name.to_owned(), map);
        let map = name.to_owned();
        match service.affinity {
            None => rules.push(Rule(vec![Item::DnatRandom { map, count }])),
            Some(timeout) => {
                // The timeout is part of the name: a set's timeout cannot be changed while rules use it.
                let learned = format!("{}/{}", name.replacen("svc/", "affinity/", 1), timeout.as_secs());
                let memory = Set { learned: Some(timeout), ..Set::map(&[Address], &[Address, Port]) };
                self.plan.table.sets.insert(learned.clone(), memory);
                self.plan.learned.insert(learned.clone(), targets.clone());
                rules.push(Rule(vec![Item::DnatLearned { learned: learned.clone() }]));
                rules.push(Rule(vec![Item::DnatRandomLearn { map: map.clone(), count, learned }]));
                // When the memory is full, learning fails and with it the rule above: better served than remembered.
                rules.push(Rule(vec![Item::DnatRandom { map, count }]));
            }
        }
        self.chain(name.to_owned(), rules)
    }

    /// Drops clients outside the ranges a load balancer's Service names.
    fn firewall(&mut self, service: &Service, port: &ServicePort) {
        if service.source_ranges.is_empty() || service.load_balancer_ips.is_empty() {
            return;
        }
        let name = format!("fw/{}/{}/{}-{}", service.namespace, service.name, port.protocol, port.port);
        let allow = |range: &Ipv4Cidr| Rule(vec![Item::Saddr(Is::In, *range), Item::Verdict(Verdict::Return)]);
        let mut rules: Vec<Rule> = service.source_ranges.iter().map(allow).collect();
        rules.push(Rule(vec![Item::Verdict(Verdict::Drop)]));
        let chain = self.chain(name, rules);
        for ip in &service.load_balancer_ips {
            self.element(FIREWALL, front_key(port, *ip), Value::Verdict(Verdict::Goto(chain.clone())));
        }
    }

    /// Only endpoints of this node can meet themselves here.
    fn hairpins(&mut self, endpoints: &Endpoints) {
        let here = endpoints.by_port.values().flat_map(BTreeMap::values).filter(|e| e.node == self.node.name);
        let pods = here.filter(|e| !self.node.addresses.contains(&e.target.0));
        let all: BTreeSet<Ipv4Addr> = pods.map(|endpoint| endpoint.target.0).collect();
        for ip in all {
            self.element(HAIRPIN, vec![Datum::Address(ip); 2], Value::None);
        }
    }

    fn udp(&mut self, service: &Service, port: &ServicePort, chosen: &Chosen) {
        let fronts = service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
        let mut fronts: Vec<Target> = fronts.map(|ip| (*ip, port.port)).collect();
        fronts.extend(port.node_port.iter().flat_map(|p| self.node.addresses.iter().map(|ip| (*ip, *p))));
        let targets: BTreeSet<Target> = chosen.cluster.union(&chosen.local).copied().collect();
        for front in fronts {
            self.plan.udp.insert(front, targets.clone());
        }
    }

    fn chain(&mut self, name: String, rules: Vec<Rule>) -> String {
        self.plan.table.chain(&name, None, rules);
        name
    }

    fn element(&mut self, set: &str, key: Vec<Datum>, value: Value) {
        let set = self.plan.table.sets.get_mut(set).expect("the skeleton declares every shared set");
        // Two Services may claim one address and port (external IPs); the first by name keeps it.
        set.elements.entry(key).or_insert(value);
    }
}

fn goto(chain: &str) -> Rule {
    Rule(vec![Item::Verdict(Verdict::Goto(chain.to_owned()))])
}

fn front_key(port: &ServicePort, ip: Ipv4Addr) -> Vec<Datum> {
    vec![Datum::Address(ip), Datum::Protocol(port.protocol), Datum::Port(port.port)]
}

/// Whether a client outside the cluster finds no endpoint.
fn blocked(policy: TrafficPolicy, chosen: &Chosen) -> bool {
    match policy {
        TrafficPolicy::Cluster => chosen.cluster.is_empty(),
        TrafficPolicy::Local => chosen.local.is_empty(),
    }
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
