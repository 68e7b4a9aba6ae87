//! The ruleset of small worlds, as text: only what differs from a node without Services is shown.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use serde_json::{Value as Json, json};

use super::{Node, Plan, plan};
use crate::endpoints::Endpoints;
use crate::service::Service;

fn node() -> Node {
    Node {
        name: "here".to_owned(),
        zone: String::new(),
        addresses: ["172.20.0.2".parse().unwrap()].into(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        answered_here: ["10.96.0.10".parse().unwrap()].into(),
    }
}

fn service(spec: Json) -> Service {
    let status = spec["status"].clone();
    Service::read(&json!({"metadata": {"namespace": "a", "name": "web"}, "spec": spec, "status": status})).unwrap()
}

/// Endpoints on `here` are 10.244.1.x, others elsewhere. Port 8080, of the name and protocol the Service has.
fn endpoints(addresses: &[&str], name: &str, protocol: &str) -> Endpoints {
    let all: Vec<Json> = addresses
        .iter()
        .map(|ip| json!({"addresses": [ip], "nodeName": if ip.starts_with("10.244.1.") { "here" } else { "there" }}))
        .collect();
    let ports = json!([{"name": name, "port": 8080, "protocol": protocol}]);
    Endpoints::read(&json!({"addressType": "IPv4", "endpoints": all, "ports": ports}))
}

fn planned(spec: Json, addresses: &[&str]) -> Plan {
    let service = service(spec);
    let protocol = service.ports[0].protocol.name().to_uppercase();
    let endpoints = endpoints(addresses, &service.ports[0].name.clone(), &protocol);
    plan(&node(), [(&service, &endpoints)])
}

fn check(spec: Json, addresses: &[&str], expected: Expect) {
    let text = planned(spec, addresses).table.text("t");
    let without = plan(&node(), []).table.text("t");
    let usual: BTreeSet<&str> = without.lines().collect();
    let keep = |line: &&str| !usual.contains(*line) || !line.starts_with("    ");
    let lines: Vec<&str> = text.lines().filter(keep).collect();
    // A set or chain of which nothing is left to show is not shown.
    let mut shown = String::new();
    for (position, line) in lines.iter().enumerate() {
        let empty_block = line.ends_with('{') && lines.get(position + 1).is_some_and(|next| next.trim() == "}");
        let end_of_empty = line.trim() == "}" && position > 0 && lines[position - 1].ends_with('{');
        if (line.starts_with("  ") && !empty_block && !end_of_empty) && line.trim() != "}" {
            shown += &line[2..];
            shown += "\n";
        }
    }
    expected.assert_eq(&shown);
}

fn cluster_ip() -> Json {
    json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]})
}

fn node_port(extra: Json) -> Json {
    let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30080}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn without_services_there_are_hooks_and_empty_maps() {
    expect![[r#"
        table ip t {
          set cluster-ips {
            type ipv4_addr
          }
          map firewall {
            type ipv4_addr . inet_proto . inet_service : verdict
          }
          set hairpin {
            type ipv4_addr . ipv4_addr
          }
          map no-endpoint-node-ports {
            type inet_proto . inet_service : verdict
          }
          map no-endpoints {
            type ipv4_addr . inet_proto . inet_service : verdict
          }
          set node-addresses {
            type ipv4_addr
            172.20.0.2
          }
          map node-ports {
            type inet_proto . inet_service : verdict
          }
          map services {
            type ipv4_addr . inet_proto . inet_service : verdict
          }
          chain filter-forward {
            type filter hook forward priority 0; policy accept;
            ct state new jump untranslated
          }
          chain filter-input {
            type filter hook input priority 0; policy accept;
            ct state new jump untranslated
          }
          chain filter-output {
            type filter hook output priority 0; policy accept;
            ct state new jump untranslated
          }
          chain filter-prerouting {
            type filter hook prerouting priority -110; policy accept;
            ct state new ip daddr . meta l4proto . th dport vmap @firewall
          }
          chain nat-output {
            type nat hook output priority -100; policy accept;
            jump translate
          }
          chain nat-postrouting {
            type nat hook postrouting priority 100; policy accept;
            meta mark & 0x4000 != 0 oifname != "lo" meta mark set meta mark & 0xffffbfff masquerade fully-random
            ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
          }
          chain nat-prerouting {
            type nat hook prerouting priority -100; policy accept;
            jump translate
          }
          chain reject {
            meta l4proto tcp reject with tcp reset
            reject
          }
          chain translate {
            ip daddr . meta l4proto . th dport vmap @services
            ip daddr @node-addresses meta l4proto . th dport vmap @node-ports
          }
          chain untranslated {
            ip daddr . meta l4proto . th dport vmap @no-endpoints
            ip daddr @node-addresses meta l4proto . th dport vmap @no-endpoint-node-ports
            ip daddr @cluster-ips goto reject
          }
        }
    "#]]
    .assert_eq(&plan(&node(), []).table.text("t"));
}

#[test]
fn a_cluster_ip_leads_to_all_endpoints_and_masquerades_clients_outside() {
    check(
        cluster_ip(),
        &["10.244.1.5", "10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            set hairpin {
              10.244.1.5 . 10.244.1.5
            map services {
              10.96.0.7 . tcp . 80 : goto svc/a/web/tcp-80
            map svc/a/web/tcp-80 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.1.5 . 8080
              1 : 10.244.2.6 . 8080
            chain svc/a/web/tcp-80 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              dnat to numgen random mod 2 map @svc/a/web/tcp-80
        "#]],
    );
}

#[test]
fn without_endpoints_clients_are_refused() {
    check(
        node_port(json!({})),
        &[],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            map no-endpoint-node-ports {
              tcp . 30080 : goto reject
            map no-endpoints {
              10.96.0.7 . tcp . 80 : goto reject
        "#]],
    );
}

#[test]
fn a_node_port_masquerades_so_that_answers_find_back() {
    check(
        node_port(json!({})),
        &["10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            map node-ports {
              tcp . 30080 : goto svc/a/web/tcp-80/external
            map services {
              10.96.0.7 . tcp . 80 : goto svc/a/web/tcp-80
            map svc/a/web/tcp-80 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.2.6 . 8080
            chain svc/a/web/tcp-80 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              dnat to numgen random mod 1 map @svc/a/web/tcp-80
            chain svc/a/web/tcp-80/external {
              meta mark set meta mark | 0x4000
              goto svc/a/web/tcp-80
        "#]],
    );
}

#[test]
fn external_policy_local_keeps_the_clients_address_and_stays_on_the_node() {
    check(
        node_port(json!({"externalTrafficPolicy": "Local"})),
        &["10.244.1.5", "10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            set hairpin {
              10.244.1.5 . 10.244.1.5
            map node-ports {
              tcp . 30080 : goto svc/a/web/tcp-80/external
            map services {
              10.96.0.7 . tcp . 80 : goto svc/a/web/tcp-80
            map svc/a/web/tcp-80 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.1.5 . 8080
              1 : 10.244.2.6 . 8080
            map svc/a/web/tcp-80/local {
              type mark : ipv4_addr . inet_service
              0 : 10.244.1.5 . 8080
            chain svc/a/web/tcp-80 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              dnat to numgen random mod 2 map @svc/a/web/tcp-80
            chain svc/a/web/tcp-80/external {
              ip saddr 10.244.0.0/16 goto svc/a/web/tcp-80
              fib saddr type local meta mark set meta mark | 0x4000
              fib saddr type local goto svc/a/web/tcp-80
              goto svc/a/web/tcp-80/local
            chain svc/a/web/tcp-80/local {
              dnat to numgen random mod 1 map @svc/a/web/tcp-80/local
        "#]],
    );
}

#[test]
fn external_policy_local_without_local_endpoints_is_silent_outside_and_serves_inside() {
    check(
        node_port(json!({"externalTrafficPolicy": "Local"})),
        &["10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            map no-endpoint-node-ports {
              tcp . 30080 : drop
            map node-ports {
              tcp . 30080 : goto svc/a/web/tcp-80/external
            map services {
              10.96.0.7 . tcp . 80 : goto svc/a/web/tcp-80
            map svc/a/web/tcp-80 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.2.6 . 8080
            chain svc/a/web/tcp-80 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              dnat to numgen random mod 1 map @svc/a/web/tcp-80
            chain svc/a/web/tcp-80/external {
              ip saddr 10.244.0.0/16 goto svc/a/web/tcp-80
              fib saddr type local meta mark set meta mark | 0x4000
              fib saddr type local goto svc/a/web/tcp-80
        "#]],
    );
}

#[test]
fn internal_policy_local_uses_the_nodes_own_endpoints() {
    let mut spec = cluster_ip();
    spec["internalTrafficPolicy"] = json!("Local");
    check(
        spec.clone(),
        &["10.244.1.5", "10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            set hairpin {
              10.244.1.5 . 10.244.1.5
            map services {
              10.96.0.7 . tcp . 80 : goto svc/a/web/tcp-80/internal
            map svc/a/web/tcp-80/local {
              type mark : ipv4_addr . inet_service
              0 : 10.244.1.5 . 8080
            chain svc/a/web/tcp-80/internal {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              goto svc/a/web/tcp-80/local
            chain svc/a/web/tcp-80/local {
              dnat to numgen random mod 1 map @svc/a/web/tcp-80/local
        "#]],
    );
    check(
        spec,
        &["10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            map no-endpoints {
              10.96.0.7 . tcp . 80 : drop
        "#]],
    );
}

#[test]
fn session_affinity_remembers_the_endpoint_of_a_client() {
    let mut spec = cluster_ip();
    spec["sessionAffinity"] = json!("ClientIP");
    spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 60}});
    check(
        spec,
        &["10.244.1.5", "10.244.2.6"],
        expect![[r#"
            map affinity/a/web/tcp-80/60 {
              type ipv4_addr : ipv4_addr . inet_service
              flags dynamic,timeout
              timeout 60s
            set cluster-ips {
              10.96.0.7
            set hairpin {
              10.244.1.5 . 10.244.1.5
            map services {
              10.96.0.7 . tcp . 80 : goto svc/a/web/tcp-80
            map svc/a/web/tcp-80 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.1.5 . 8080
              1 : 10.244.2.6 . 8080
            chain svc/a/web/tcp-80 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              update @affinity/a/web/tcp-80/60 dnat to ip saddr map @affinity/a/web/tcp-80/60
              update @affinity/a/web/tcp-80/60 dnat to numgen random mod 2 map @svc/a/web/tcp-80
              dnat to numgen random mod 2 map @svc/a/web/tcp-80
        "#]],
    );
}

#[test]
fn a_load_balancer_answers_on_its_addresses_within_its_source_ranges() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.1"],
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"ip": "203.0.113.10", "ipMode": "Proxy"}]}},
    });
    check(
        spec,
        &["10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.7
            map firewall {
              203.0.113.9 . udp . 53 : goto fw/a/web/udp-53
            map services {
              10.96.0.7 . udp . 53 : goto svc/a/web/udp-53
              192.0.2.1 . udp . 53 : goto svc/a/web/udp-53/external
              203.0.113.9 . udp . 53 : goto svc/a/web/udp-53/external
            map svc/a/web/udp-53 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.2.6 . 8080
            chain fw/a/web/udp-53 {
              ip saddr 198.51.100.0/24 return
              drop
            chain svc/a/web/udp-53 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              dnat to numgen random mod 1 map @svc/a/web/udp-53
            chain svc/a/web/udp-53/external {
              meta mark set meta mark | 0x4000
              goto svc/a/web/udp-53
        "#]],
    );
}

#[test]
fn a_service_the_node_answers_itself_is_left_alone_until_it_has_endpoints() {
    let spec = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]});
    check(spec.clone(), &[], expect![[""]]);
    check(
        spec,
        &["10.244.2.6"],
        expect![[r#"
            set cluster-ips {
              10.96.0.10
            map services {
              10.96.0.10 . udp . 53 : goto svc/a/web/udp-53
            map svc/a/web/udp-53 {
              type mark : ipv4_addr . inet_service
              0 : 10.244.2.6 . 8080
            chain svc/a/web/udp-53 {
              ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
              dnat to numgen random mod 1 map @svc/a/web/udp-53
        "#]],
    );
}

#[test]
fn every_address_that_translates_udp_is_known_with_its_endpoints() {
    let mut spec = node_port(json!({}));
    spec["ports"][0]["protocol"] = json!("UDP");
    let plan = planned(spec, &["10.244.2.6"]);
    let text: Vec<String> = plan.udp.iter().map(|(front, targets)| format!("{front:?} {targets:?}")).collect();
    expect![[r#"
        (10.96.0.7, 80) {(10.244.2.6, 8080)}
        (172.20.0.2, 30080) {(10.244.2.6, 8080)}"#]]
    .assert_eq(&text.join("\n"));
}
