//! What stands behind a Service: endpoints from its EndpointSlices, and which of them may get traffic.
//!
//! Owns: reading slices, merging them, and the choice between ready and terminating, cluster-wide and local.
//! Called by: the sync loop (reading), `ruleset` (choosing).
//! Never: knows addresses of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use minik_network::Protocol;
use serde_json::Value;

/// Where a connection may end.
pub type Target = (Ipv4Addr, u16);

/// One endpoint of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub target: Target,
    pub readiness: Readiness,
    pub node: String,
    /// Zones this endpoint is meant for (`hints.forZones`); empty when nobody hinted.
    pub for_zones: BTreeSet<String>,
    /// Nodes this endpoint is meant for (`hints.forNodes`); empty when nobody hinted.
    pub for_nodes: BTreeSet<String>,
}

/// In order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    Ready,
    /// Terminating, but still serving: used when nothing is ready.
    Leaving,
    Unready,
}

/// The endpoints of one Service by port name and protocol: those of one slice, or of all slices merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub by_port: BTreeMap<(String, Protocol), BTreeMap<Target, Endpoint>>,
}

/// Which endpoints of a port get traffic on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// For traffic of policy Cluster.
    pub cluster: BTreeSet<Target>,
    /// For traffic of policy Local: those on this node only.
    pub local: BTreeSet<Target>,
}

/// Label that names a slice's Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Endpoints {
    /// Reads an EndpointSlice of IPv4 addresses; others hold nothing for us.
    pub fn read(slice: &Value) -> Endpoints {
        let mut read = Endpoints::default();
        if slice["addressType"] != "IPv4" {
            return read;
        }
        let endpoints = || slice["endpoints"].as_array().into_iter().flatten();
        for port in slice["ports"].as_array().into_iter().flatten() {
            let Some(protocol) = Protocol::from_kubernetes(port["protocol"].as_str()) else { continue };
            // A slice may leave the number out, "all ports"; a proxy has no use for that.
            let Some(number) = port["port"].as_u64().and_then(|n| u16::try_from(n).ok()) else { continue };
            let name = port["name"].as_str().unwrap_or("").to_owned();
            let all = read.by_port.entry((name, protocol)).or_default();
            for endpoint in endpoints().filter_map(|endpoint| read_endpoint(endpoint, number)) {
                all.insert(endpoint.target, endpoint);
            }
        }
        read
    }

    /// Adds the endpoints of another slice. While an endpoint moves from slice to slice it is in both for a moment: the
    /// better state counts.
    pub fn merge(&mut self, other: &Endpoints) {
        for (port, endpoints) in &other.by_port {
            let all = self.by_port.entry(port.clone()).or_default();
            for (target, endpoint) in endpoints {
                let better = all.get(target).is_none_or(|known| endpoint.readiness < known.readiness);
                if better {
                    all.insert(*target, endpoint.clone());
                }
            }
        }
    }

    /// Which endpoints of a port get traffic on `node`.
    pub fn choose(&self, port: &str, protocol: Protocol, node: &str, zone: &str) -> Chosen {
        let Some(all) = self.by_port.get(&(port.to_owned(), protocol)) else { return Chosen::default() };
        let best = |candidates: &mut dyn Iterator<Item = &Endpoint>| {
            let candidates: Vec<&Endpoint> = candidates.filter(|e| e.readiness != Readiness::Unready).collect();
            let best = candidates.iter().map(|e| e.readiness).min();
            candidates.into_iter().filter(|e| Some(e.readiness) == best).cloned().collect::<Vec<_>>()
        };
        let cluster = near(best(&mut all.values()), node, zone);
        let local = best(&mut all.values().filter(|endpoint| endpoint.node == node));
        let targets = |endpoints: Vec<Endpoint>| endpoints.into_iter().map(|e| e.target).collect();
        Chosen { cluster: targets(cluster), local: targets(local) }
    }

    /// How many ready endpoints of any port are on `node`, counted by address.
    pub fn ready_on(&self, node: &str) -> usize {
        let endpoints = self.by_port.values().flat_map(BTreeMap::values);
        let here = endpoints.filter(|e| e.node == node && e.readiness == Readiness::Ready);
        here.map(|endpoint| endpoint.target.0).collect::<BTreeSet<_>>().len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_port.values().all(BTreeMap::is_empty)
    }
}

/// Follows topology hints when every endpoint has one and some are for us (KEP-2433, KEP-3015); else all.
fn near(endpoints: Vec<Endpoint>, node: &str, zone: &str) -> Vec<Endpoint> {
    type Hints = fn(&Endpoint) -> &BTreeSet<String>;
    let hints: [(Hints, &str); 2] = [(|e| &e.for_nodes, node), (|e| &e.for_zones, zone)];
    for (hint, own) in hints {
        let all_hinted = !endpoints.is_empty() && endpoints.iter().all(|endpoint| !hint(endpoint).is_empty());
        if all_hinted && endpoints.iter().any(|endpoint| hint(endpoint).contains(own)) {
            return endpoints.into_iter().filter(|endpoint| hint(endpoint).contains(own)).collect();
        }
    }
    endpoints
}

fn read_endpoint(value: &Value, port: u16) -> Option<Endpoint> {
    // All addresses of an endpoint mean the same; the first is used, as everywhere in Kubernetes.
    let address = value["addresses"].get(0)?.as_str()?.parse().ok()?;
    let conditions = &value["conditions"];
    let ready = conditions["ready"].as_bool().unwrap_or(true);
    let serving = conditions["serving"].as_bool().unwrap_or(ready);
    let terminating = conditions["terminating"].as_bool().unwrap_or(false);
    let hinted = |field: &str| {
        let all = value["hints"][field].as_array().into_iter().flatten();
        all.filter_map(|hint| hint["name"].as_str().map(str::to_owned)).collect()
    };
    Some(Endpoint {
        target: (address, port),
        readiness: match (ready, serving && terminating) {
            (true, _) => Readiness::Ready,
            (false, true) => Readiness::Leaving,
            (false, false) => Readiness::Unready,
        },
        node: value["nodeName"].as_str().unwrap_or("").to_owned(),
        for_zones: hinted("forZones"),
        for_nodes: hinted("forNodes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each line: address, node, conditions (r ready, s serving, t terminating), hint.
    fn slice(lines: &[(&str, &str, &str, &str)]) -> Endpoints {
        let endpoints: Vec<Value> = lines
            .iter()
            .map(|(ip, node, conditions, hint)| {
                let has = |c| conditions.contains(c);
                let mut endpoint = json!({
                    "addresses": [ip], "nodeName": node,
                    "conditions": {"ready": has('r'), "serving": has('s'), "terminating": has('t')},
                });
                if let Some((kind, name)) = hint.split_once('=') {
                    endpoint["hints"] = json!({kind: [{"name": name}]});
                }
                endpoint
            })
            .collect();
        let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
        Endpoints::read(&json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports}))
    }

    fn check(endpoints: &Endpoints, cluster: &[&str], local: &[&str]) {
        let chosen = endpoints.choose("http", Protocol::Tcp, "here", "z1");
        let text = |targets: &BTreeSet<Target>| targets.iter().map(|t| t.0.to_string()).collect::<Vec<_>>();
        assert_eq!((text(&chosen.cluster), text(&chosen.local)), (to_strings(cluster), to_strings(local)));
    }

    fn to_strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn ready_endpoints_get_traffic_and_unready_ones_none() {
        check(
            &slice(&[("10.0.0.1", "here", "rs", ""), ("10.0.0.2", "there", "rs", ""), ("10.0.0.3", "here", "", "")]),
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.1"],
        );
    }

    #[test]
    fn terminating_endpoints_that_serve_are_used_only_when_nothing_is_ready() {
        let leaving = [("10.0.0.1", "here", "st", ""), ("10.0.0.2", "there", "t", "")];
        check(&slice(&leaving), &["10.0.0.1"], &["10.0.0.1"]);
        check(&slice(&[leaving[0], leaving[1], ("10.0.0.3", "there", "rs", "")]), &["10.0.0.3"], &["10.0.0.1"]);
    }

    #[test]
    fn hints_are_followed_when_all_endpoints_have_them_and_one_is_for_us() {
        let ours = ("10.0.0.1", "there", "rs", "forZones=z1");
        let theirs = ("10.0.0.2", "there", "rs", "forZones=z2");
        check(&slice(&[ours, theirs]), &["10.0.0.1"], &[]);
        check(&slice(&[theirs]), &["10.0.0.2"], &[]);
        check(&slice(&[ours, ("10.0.0.2", "there", "rs", "")]), &["10.0.0.1", "10.0.0.2"], &[]);
        check(
            &slice(&[("10.0.0.1", "here", "rs", "forNodes=here"), ("10.0.0.2", "there", "rs", "forNodes=there")]),
            &["10.0.0.1"],
            &["10.0.0.1"],
        );
    }

    #[test]
    fn an_endpoint_in_two_slices_counts_once_in_its_better_state() {
        let mut merged = slice(&[("10.0.0.1", "here", "", "")]);
        merged.merge(&slice(&[("10.0.0.1", "here", "rs", "")]));
        merged.merge(&slice(&[("10.0.0.1", "here", "st", "")]));
        check(&merged, &["10.0.0.1"], &["10.0.0.1"]);
        assert_eq!(merged.ready_on("here"), 1);
    }

    #[test]
    fn missing_conditions_mean_ready() {
        let bare = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "http", "port": 80}]});
        check(&Endpoints::read(&bare), &["10.0.0.1"], &[]);
    }
}
