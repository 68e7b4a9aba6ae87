//! Questions and what a small cluster answers.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn cluster() -> Zone {
    let mut zone = Zone::new("cluster.local", Ipv4Addr::new(10, 96, 0, 10));
    let mut service = |name: &str, spec: Value| {
        zone.set_service(
            &ObjectKey::new("a", name),
            Some(&json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})),
        );
    };
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    service("web", json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": ports}));
    service("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}));
    service("early", json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
    service("nobody", json!({"clusterIP": "None"}));
    service("away", json!({"type": "ExternalName", "externalName": "example.org"}));
    let slice = |endpoints: Value| json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]});
    let db = slice(json!([
        {"addresses": ["10.244.1.5"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.244.2.6"], "conditions": {"ready": true}},
        {"addresses": ["10.244.2.7"], "hostname": "db-2", "conditions": {"ready": false}},
    ]));
    zone.set_slice(&ObjectKey::new("a", "db"), "db-x", Some(&db));
    let early = slice(json!([{"addresses": ["10.244.1.9"], "conditions": {"ready": false}}]));
    zone.set_slice(&ObjectKey::new("a", "early"), "early-x", Some(&early));
    zone
}

fn ask(zone: &Zone, question: &str) -> String {
    let (kind, name) = question.split_once(' ').unwrap();
    let name = Name::from_ascii(name).unwrap();
    let kind: RecordType = kind.parse().unwrap();
    let line = |record: &Record| format!("{} {} {}", record.name, record.record_type(), record.data);
    let found = match zone.relative(&name) {
        Some(labels) => zone.find(&name, &labels, kind),
        None => zone.reverse(&name).map_or(Found::NoName, records),
    };
    match found {
        Found::Records { answers, additional } => {
            let also = additional.iter().map(|r| format!("also {}", line(r)));
            answers.iter().map(line).chain(also).collect::<Vec<_>>().join("\n")
        }
        Found::Alias(record, _) => line(&record),
        Found::NoData => "no data".to_owned(),
        Found::NoName => "no name".to_owned(),
    }
}

fn check(questions: &[&str], expected: Expect) {
    let zone = cluster();
    let all: Vec<String> = questions.iter().map(|q| format!("? {q}\n{}", ask(&zone, q))).collect();
    expected.assert_eq(&all.join("\n"));
}

#[test]
fn a_service_has_its_cluster_ip_and_a_record_per_named_port() {
    check(
        &[
            "A web.a.svc.cluster.local.",
            "A WEB.a.svc.Cluster.Local.",
            "AAAA web.a.svc.cluster.local.",
            "SRV web.a.svc.cluster.local.",
            "SRV _http._tcp.web.a.svc.cluster.local.",
            "SRV _dns._udp.web.a.svc.cluster.local.",
            "SRV _http._udp.web.a.svc.cluster.local.",
            "A _http._tcp.web.a.svc.cluster.local.",
            "A db-0.web.a.svc.cluster.local.",
        ],
        expect![[r#"
            ? A web.a.svc.cluster.local.
            web.a.svc.cluster.local. A 10.96.0.7
            ? A WEB.a.svc.Cluster.Local.
            WEB.a.svc.Cluster.Local. A 10.96.0.7
            ? AAAA web.a.svc.cluster.local.
            no data
            ? SRV web.a.svc.cluster.local.
            web.a.svc.cluster.local. SRV 0 50 80 web.a.svc.cluster.local.
            web.a.svc.cluster.local. SRV 0 50 53 web.a.svc.cluster.local.
            also web.a.svc.cluster.local. A 10.96.0.7
            ? SRV _http._tcp.web.a.svc.cluster.local.
            _http._tcp.web.a.svc.cluster.local. SRV 0 100 80 web.a.svc.cluster.local.
            also web.a.svc.cluster.local. A 10.96.0.7
            ? SRV _dns._udp.web.a.svc.cluster.local.
            _dns._udp.web.a.svc.cluster.local. SRV 0 100 53 web.a.svc.cluster.local.
            also web.a.svc.cluster.local. A 10.96.0.7
            ? SRV _http._udp.web.a.svc.cluster.local.
            no name
            ? A _http._tcp.web.a.svc.cluster.local.
            no data
            ? A db-0.web.a.svc.cluster.local.
            no name"#]],
    );
}

#[test]
fn a_headless_service_has_its_ready_endpoints_and_their_names() {
    check(
        &[
            "A db.a.svc.cluster.local.",
            "A db-0.db.a.svc.cluster.local.",
            "A 10-244-2-6.db.a.svc.cluster.local.",
            "A db-2.db.a.svc.cluster.local.",
            "SRV _sql._tcp.db.a.svc.cluster.local.",
            "A early.a.svc.cluster.local.",
            "A nobody.a.svc.cluster.local.",
        ],
        expect![[r#"
            ? A db.a.svc.cluster.local.
            db.a.svc.cluster.local. A 10.244.1.5
            db.a.svc.cluster.local. A 10.244.2.6
            ? A db-0.db.a.svc.cluster.local.
            db-0.db.a.svc.cluster.local. A 10.244.1.5
            ? A 10-244-2-6.db.a.svc.cluster.local.
            10-244-2-6.db.a.svc.cluster.local. A 10.244.2.6
            ? A db-2.db.a.svc.cluster.local.
            no name
            ? SRV _sql._tcp.db.a.svc.cluster.local.
            _sql._tcp.db.a.svc.cluster.local. SRV 0 50 5432 db-0.db.a.svc.cluster.local.
            _sql._tcp.db.a.svc.cluster.local. SRV 0 50 5432 10-244-2-6.db.a.svc.cluster.local.
            also 10-244-2-6.db.a.svc.cluster.local. A 10.244.2.6
            also db-0.db.a.svc.cluster.local. A 10.244.1.5
            ? A early.a.svc.cluster.local.
            early.a.svc.cluster.local. A 10.244.1.9
            ? A nobody.a.svc.cluster.local.
            no name"#]],
    );
}

#[test]
fn an_external_name_is_an_alias() {
    check(
        &["A away.a.svc.cluster.local.", "AAAA away.a.svc.cluster.local."],
        expect![[r#"
        ? A away.a.svc.cluster.local.
        away.a.svc.cluster.local. CNAME example.org.
        ? AAAA away.a.svc.cluster.local.
        away.a.svc.cluster.local. CNAME example.org."#]],
    );
}

#[test]
fn pods_have_names_made_of_their_addresses() {
    check(
        &[
            "A 10-244-1-5.a.pod.cluster.local.",
            "AAAA 10-244-1-5.a.pod.cluster.local.",
            "A 10-244-1.a.pod.cluster.local.",
            "A pod.a.pod.cluster.local.",
        ],
        expect![[r#"
            ? A 10-244-1-5.a.pod.cluster.local.
            10-244-1-5.a.pod.cluster.local. A 10.244.1.5
            ? AAAA 10-244-1-5.a.pod.cluster.local.
            no data
            ? A 10-244-1.a.pod.cluster.local.
            no name
            ? A pod.a.pod.cluster.local.
            no name"#]],
    );
}

#[test]
fn addresses_have_names() {
    check(
        &[
            "PTR 7.0.96.10.in-addr.arpa.",
            "PTR 5.1.244.10.in-addr.arpa.",
            "PTR 6.2.244.10.in-addr.arpa.",
            "PTR 7.2.244.10.in-addr.arpa.",
            "PTR 1.1.1.1.in-addr.arpa.",
        ],
        expect![[r#"
            ? PTR 7.0.96.10.in-addr.arpa.
            7.0.96.10.in-addr.arpa. PTR web.a.svc.cluster.local.
            ? PTR 5.1.244.10.in-addr.arpa.
            5.1.244.10.in-addr.arpa. PTR db-0.db.a.svc.cluster.local.
            ? PTR 6.2.244.10.in-addr.arpa.
            6.2.244.10.in-addr.arpa. PTR 10-244-2-6.db.a.svc.cluster.local.
            ? PTR 7.2.244.10.in-addr.arpa.
            no name
            ? PTR 1.1.1.1.in-addr.arpa.
            no name"#]],
    );
}

#[test]
fn the_zone_itself_and_empty_names_between() {
    check(
        &[
            "SOA cluster.local.",
            "NS cluster.local.",
            "A cluster.local.",
            "A ns.dns.cluster.local.",
            "TXT dns-version.cluster.local.",
            "A svc.cluster.local.",
            "A a.svc.cluster.local.",
            "A b.svc.cluster.local.",
            "A web.b.svc.cluster.local.",
            "A example.com.a.svc.cluster.local.",
            "A example.com.cluster.local.",
        ],
        expect![[r#"
            ? SOA cluster.local.
            cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 8 7200 1800 86400 5
            ? NS cluster.local.
            cluster.local. NS ns.dns.cluster.local.
            also ns.dns.cluster.local. A 10.96.0.10
            ? A cluster.local.
            no data
            ? A ns.dns.cluster.local.
            ns.dns.cluster.local. A 10.96.0.10
            ? TXT dns-version.cluster.local.
            dns-version.cluster.local. TXT 1.1.0
            ? A svc.cluster.local.
            no data
            ? A a.svc.cluster.local.
            no data
            ? A b.svc.cluster.local.
            no name
            ? A web.b.svc.cluster.local.
            no name
            ? A example.com.a.svc.cluster.local.
            no name
            ? A example.com.cluster.local.
            no name"#]],
    );
}

#[test]
fn what_is_gone_has_no_name_any_more() {
    let mut zone = cluster();
    zone.set_service(&ObjectKey::new("a", "web"), None);
    zone.set_slice(&ObjectKey::new("a", "db"), "db-x", None);
    for question in [
        "A web.a.svc.cluster.local.",
        "PTR 7.0.96.10.in-addr.arpa.",
        "A db.a.svc.cluster.local.",
        "PTR 5.1.244.10.in-addr.arpa.",
    ] {
        assert_eq!(ask(&zone, question), "no name", "{question}");
    }
}
