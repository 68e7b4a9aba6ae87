//! Services on a real kernel, with real connections: needs root, so these are ignored unless asked for
//! (`cargo test -p minik-proxy --test kernel -- --ignored`).
//!
//! Each test is a node of its own, in a fresh network namespace, with pods, and a client outside that knows only the
//! node's address. The API is fake; everything below it is real.

mod fake_api;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fake_api::FakeApi;
use minik_network::{Config as NetworkConfig, Ipv4Cidr, PodNetwork, netns};
use minik_proxy::{Config, run};
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::VethLink;
use nlink::netlink::namespace::{self, Netns};
use nlink::netlink::route::Ipv4Route;
use nlink::{Connection, Route};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(5);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

struct World {
    api: FakeApi,
    network: PodNetwork,
    run_dir: PathBuf,
    outside: Netns,
    pods: BTreeMap<String, (Netns, Ipv4Addr)>,
    proxy: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn on_a_node(test: impl AsyncFnOnce(&mut World) + Send + 'static) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = folder.path().join("node");
    runtime().block_on(netns::create(&node)).expect("a namespace for the node");
    let outcome = std::thread::scope(|scope| {
        let (path, run_dir) = (&node, folder.path());
        let inside = scope.spawn(move || {
            let _inside = namespace::enter_path(path).expect("entering the node's namespace");
            runtime().block_on(async {
                let mut world = World::new(run_dir).await;
                test(&mut world).await;
                world.stop_proxy().await;
            });
        });
        inside.join()
    });
    for entry in std::fs::read_dir(folder.path()).expect("the run directory").flatten() {
        if netns::exists(&entry.path()) {
            runtime().block_on(netns::delete(&entry.path())).expect("removing a namespace");
        }
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    async fn new(run_dir: &Path) -> World {
        let kernel = Connection::<Route>::new().expect("netlink");
        kernel.set_link_up("lo").await.expect("loopback");
        let outside_path = run_dir.join("outside");
        netns::create(&outside_path).await.expect("a namespace outside");
        let outside = Netns::from_path(&outside_path).expect("opening it");
        kernel.add_link(VethLink::new("eth0", "eth0").peer_netns_fd(&outside)).await.expect("a link");
        let far = Connection::<Route>::new_in(&outside).expect("netlink outside");
        for (end, address) in [(&kernel, NODE), (&far, OUTSIDE)] {
            end.add_address(Ipv4Address::new("eth0", address, 24)).await.expect("an address");
            end.set_link_up("eth0").await.expect("link up");
        }
        // As on a node of Docker's: there is a default route, by which unknown addresses leave.
        kernel.add_route(Ipv4Route::default_route().gateway(OUTSIDE)).await.expect("a default route");
        let network = PodNetwork::new(NetworkConfig { run_dir: run_dir.to_owned(), mtu: None }).expect("leases");
        network.set_cidr("10.244.1.0/24".parse::<Ipv4Cidr>().expect("a CIDR"));
        let api = FakeApi::default();
        let status = json!({"addresses": [{"type": "InternalIP", "address": NODE.to_string()}]});
        api.set("nodes", "", "here", json!({}), json!({"spec": {"podCIDR": "10.244.1.0/24"}, "status": status}));
        World { api, network, run_dir: run_dir.to_owned(), outside, pods: BTreeMap::new(), proxy: None }
    }

    fn start_proxy(&mut self) {
        let config = Config {
            client: self.api.client(),
            node_name: "here".to_owned(),
            node_ips: vec![NODE],
            cluster_cidr: "10.244.0.0/16".parse().expect("a CIDR"),
            answered_here: vec![DNS],
            healthz: Some((Ipv4Addr::LOCALHOST, 10256).into()),
        };
        let cancel = CancellationToken::new();
        let task = tokio::spawn({
            let cancel = cancel.clone();
            async move { run(config, cancel).await.expect("the proxy runs") }
        });
        self.proxy = Some((cancel, task));
    }

    async fn stop_proxy(&mut self) {
        if let Some((cancel, task)) = self.proxy.take() {
            cancel.cancel();
            task.await.expect("the proxy ends");
        }
    }

    /// A pod whose TCP and UDP port 8080 answer with its name and the client's address.
    async fn pod(&mut self, name: &str) -> Ipv4Addr {
        let path = self.run_dir.join(name);
        netns::create(&path).await.expect("a namespace for the pod");
        let ip = self.network.attach(&path, name, &[]).await.expect("attach").ip;
        let pod = Netns::from_path(&path).expect("opening the pod's namespace");
        let (tcp, udp) = pod
            .run(|| (TcpListener::bind(("0.0.0.0", 8080)), UdpSocket::bind(("0.0.0.0", 8080))))
            .expect("a thread in the pod");
        let (tcp, udp) = (tcp.expect("bind"), udp.expect("bind"));
        let own = name.to_owned();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let (mut stream, own) = (stream, own.clone());
                std::thread::spawn(move || serve(&mut stream, &own));
            }
        });
        let own = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(own.as_bytes(), peer);
            }
        });
        self.pods.insert(name.to_owned(), (pod, ip));
        ip
    }

    fn service(&self, extra: Value, endpoints: &[Ipv4Addr]) {
        let mut spec = json!({"clusterIP": VIP.to_string(), "ports": [
            {"name": "t", "port": 80, "nodePort": 30080}, {"name": "u", "port": 80, "protocol": "UDP"},
        ]});
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        self.endpoints(endpoints);
        self.api.set("services", "a", "web", json!({}), json!({"spec": spec}));
    }

    fn endpoints(&self, endpoints: &[Ipv4Addr]) {
        let all: Vec<Value> = endpoints.iter().map(|ip| json!({"addresses": [ip], "nodeName": "here"})).collect();
        let ports = json!([{"name": "t", "port": 8080}, {"name": "u", "port": 8080, "protocol": "UDP"}]);
        let slice = json!({"addressType": "IPv4", "endpoints": all, "ports": ports});
        self.api.set("endpointslices", "a", "web-x", json!({"kubernetes.io/service-name": "web"}), slice);
    }

    /// Asks from a pod, "node" or "outside" until the answer satisfies `wanted`; fails after a while with the last.
    async fn eventually(&self, from: &str, to: (Ipv4Addr, u16), wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(from, to);
            if wanted(&answer) {
                return;
            }
            assert!(Instant::now() < end, "from {from} to {to:?}: {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn within<T: Send>(&self, from: &str, work: impl FnOnce() -> T + Send) -> T {
        match from {
            "node" => work(),
            "outside" => self.outside.run(work).expect("a thread outside"),
            pod => self.pods[pod].0.run(work).expect("a thread in the pod"),
        }
    }

    /// What a server said, or what went wrong.
    fn ask(&self, from: &str, to: (Ipv4Addr, u16)) -> String {
        let connect = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_millis(500))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"?")?;
            let mut buffer = [0; 64];
            let length = stream.read(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        match self.within(from, connect) {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".to_owned(),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => "silence".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Who answers `count` connections.
    fn answerers(&self, from: &str, to: (Ipv4Addr, u16), count: usize) -> BTreeSet<String> {
        (0..count).map(|_| self.ask(from, to).split(' ').next().expect("split yields one").to_owned()).collect()
    }
}

/// Answers every byte with one line, until the client goes.
fn serve(stream: &mut TcpStream, own: &str) {
    let peer = stream.peer_addr().expect("a connected stream").ip();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if stream.write_all(format!("{own} {peer}").as_bytes()).is_err() {
            return;
        }
    }
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
#[ignore = "needs root"]
fn a_cluster_ip_spreads_over_its_endpoints_and_shows_them_the_client() {
    on_a_node(async |world| {
        let (a, b, c) = (world.pod("a").await, world.pod("b").await, world.pod("c").await);
        world.service(json!({}), &[b, c]);
        world.start_proxy();
        world.eventually("a", (VIP, 80), |answer| answer == format!("b {a}")).await;
        assert_eq!(world.answerers("a", (VIP, 80), 40), names(&["b", "c"]));
        assert_eq!(world.answerers("node", (VIP, 80), 40), names(&["b", "c"]));
        // A pod that reaches itself through the Service.
        assert_eq!(world.answerers("b", (VIP, 80), 40), names(&["b", "c"]));
        assert_eq!(world.ask("a", (VIP, 81)), "refused");
    });
}

#[test]
#[ignore = "needs root"]
fn a_node_port_answers_outside_and_policy_local_keeps_the_client() {
    on_a_node(async |world| {
        let (_, b) = (world.pod("a").await, world.pod("b").await);
        world.service(json!({"type": "NodePort"}), &[b]);
        world.start_proxy();
        world.eventually("outside", (NODE, 30080), |answer| answer == "b 10.244.1.1").await;
        assert_eq!(world.ask("a", (NODE, 30080)), "b 10.244.1.1");
        assert_eq!(world.ask("b", (NODE, 30080)), "b 10.244.1.1");
        assert!(world.ask("node", (NODE, 30080)).starts_with("b "));
        assert_eq!(world.ask("node", (Ipv4Addr::LOCALHOST, 30080)), "refused");
        world.service(json!({"type": "NodePort", "externalTrafficPolicy": "Local"}), &[b]);
        world.eventually("outside", (NODE, 30080), |answer| answer == format!("b {OUTSIDE}")).await;
    });
}

#[test]
#[ignore = "needs root"]
fn without_endpoints_everybody_is_refused_at_once() {
    on_a_node(async |world| {
        world.pod("a").await;
        world.service(json!({"type": "NodePort"}), &[]);
        world.start_proxy();
        world.eventually("a", (VIP, 80), |answer| answer == "refused").await;
        assert_eq!(world.ask("node", (VIP, 80)), "refused");
        assert_eq!(world.ask("outside", (NODE, 30080)), "refused");
        let udp = world.within("a", || UdpSocket::bind(("0.0.0.0", 0))).expect("a socket");
        udp.connect((VIP, 80)).expect("connect");
        udp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        udp.send(b"?").expect("send");
        assert_eq!(udp.recv(&mut [0; 8]).expect_err("nobody answers").kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
#[ignore = "needs root"]
fn a_service_the_node_answers_itself_is_left_to_it_until_it_has_endpoints() {
    on_a_node(async |world| {
        let (_, b) = (world.pod("a").await, world.pod("b").await);
        minik_network::node_address::claim(DNS).await.expect("the address");
        let own = TcpListener::bind((DNS, 80)).expect("bind");
        std::thread::spawn(move || {
            for mut stream in own.incoming().flatten() {
                serve(&mut stream, "node");
            }
        });
        world.service(json!({}), &[b]);
        world.api.set(
            "services",
            "a",
            "dns",
            json!({}),
            json!({"spec": {"clusterIP": DNS, "ports": [{"name": "t", "port": 80}]}}),
        );
        world.start_proxy();
        world.eventually("a", (VIP, 80), |answer| answer.starts_with("b ")).await;
        assert!(world.ask("a", (DNS, 80)).starts_with("node 10.244.1."));
        assert!(world.ask("node", (DNS, 80)).starts_with("node "));
        let slice =
            json!({"addressType": "IPv4", "endpoints": [{"addresses": [b]}], "ports": [{"name": "t", "port": 8080}]});
        world.api.set("endpointslices", "a", "dns-x", json!({"kubernetes.io/service-name": "dns"}), slice);
        world.eventually("a", (DNS, 80), |answer| answer.starts_with("b ")).await;
    });
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_leaves_the_cluster_shows_the_nodes_address() {
    on_a_node(async |world| {
        world.pod("a").await;
        let listener = world.within("outside", || TcpListener::bind((OUTSIDE, 7000))).expect("bind");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                serve(&mut stream, "outside");
            }
        });
        world.start_proxy();
        world.eventually("a", (OUTSIDE, 7000), |answer| answer == format!("outside {NODE}")).await;
    });
}

#[test]
#[ignore = "needs root"]
fn two_nodes_reach_each_others_pods_and_serve_one_service() {
    on_a_node(async |world| {
        let a = world.pod("a").await;
        let far_dir = tempfile::tempdir().expect("a temporary folder");
        let far = Ipv4Addr::new(10, 244, 2, 2);
        world.service(json!({"type": "NodePort"}), &[]);
        let endpoints = json!([{"addresses": [a], "nodeName": "here"}, {"addresses": [far], "nodeName": "there"}]);
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "t", "port": 8080}]});
        world.api.set("endpointslices", "a", "web-x", json!({"kubernetes.io/service-name": "web"}), slice);
        let status = json!({"addresses": [{"type": "InternalIP", "address": OUTSIDE.to_string()}]});
        world.api.set("nodes", "", "there", json!({}), json!({"spec": {"podCIDR": "10.244.2.0/24"}, "status": status}));
        world.start_proxy();
        let (api, path, dir) = (world.api.clone(), world.run_dir.join("outside"), far_dir.path().to_owned());
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let other = std::thread::spawn(move || second_node(&api, &path, dir, end));

        world.eventually("a", (far, 8080), |answer| answer == format!("far {a}")).await;
        world.eventually("outside", (a, 8080), |answer| answer == format!("a {OUTSIDE}")).await;
        assert_eq!(world.ask("node", (far, 8080)), format!("far {NODE}"));
        // Both proxies have written their rules; before, a Service's address went to the other node by default route.
        for (from, node) in [("node", NODE), ("outside", OUTSIDE)] {
            world.eventually(from, (node, 30080), |answer| answer.contains(' ')).await;
        }
        for from in ["a", "node", "outside"] {
            assert_eq!(world.answerers(from, (VIP, 80), 40), names(&["a", "far"]), "from {from}");
            for node in [NODE, OUTSIDE] {
                assert_eq!(world.answerers(from, (node, 30080), 40), names(&["a", "far"]), "from {from} by {node}");
            }
        }
        drop(ended);
        other.join().expect("the second node ends");
    });
}

/// Node `there`, in the namespace that is outside for the first: a pod `far` and a proxy of its own.
fn second_node(api: &FakeApi, node: &Path, run_dir: PathBuf, end: tokio::sync::oneshot::Receiver<()>) {
    let _inside = namespace::enter_path(node).expect("entering the second node");
    runtime().block_on(async {
        Connection::<Route>::new().expect("netlink").set_link_up("lo").await.expect("loopback");
        let kernel = Connection::<Route>::new().expect("netlink");
        kernel.add_route(Ipv4Route::default_route().gateway(NODE)).await.expect("a default route");
        let network = PodNetwork::new(NetworkConfig { run_dir: run_dir.clone(), mtu: None }).expect("leases");
        network.set_cidr("10.244.2.0/24".parse::<Ipv4Cidr>().expect("a CIDR"));
        let path = run_dir.join("far");
        netns::create(&path).await.expect("a namespace for the pod");
        network.attach(&path, "far", &[]).await.expect("attach");
        let pod = Netns::from_path(&path).expect("opening the pod's namespace");
        let listener = pod.run(|| TcpListener::bind(("0.0.0.0", 8080))).expect("a thread").expect("bind");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(&mut stream, "far"));
            }
        });
        let cancel = CancellationToken::new();
        let config = Config {
            client: api.client(),
            node_name: "there".to_owned(),
            node_ips: vec![OUTSIDE],
            cluster_cidr: "10.244.0.0/16".parse().expect("a CIDR"),
            answered_here: vec![],
            healthz: None,
        };
        let proxy = tokio::spawn(run(config, cancel.clone()));
        let _ = end.await;
        cancel.cancel();
        proxy.await.expect("the proxy ends").expect("and did not fail");
        netns::delete(&path).await.expect("removing the pod's namespace");
    });
}

#[test]
#[ignore = "needs root"]
fn session_affinity_holds_until_the_endpoint_goes() {
    on_a_node(async |world| {
        let (_, b, c) = (world.pod("a").await, world.pod("b").await, world.pod("c").await);
        world.service(json!({"sessionAffinity": "ClientIP"}), &[b, c]);
        world.start_proxy();
        world.eventually("a", (VIP, 80), |answer| answer.starts_with("b ") || answer.starts_with("c ")).await;
        let first = world.answerers("a", (VIP, 80), 30);
        assert_eq!(first.len(), 1, "{first:?}");
        let stays = if first.contains("b") { c } else { b };
        world.endpoints(&[stays]);
        let other = names(&[if first.contains("b") { "c" } else { "b" }]);
        world.eventually("a", (VIP, 80), |answer| other.contains(answer.split(' ').next().expect("one"))).await;
        assert_eq!(world.answerers("a", (VIP, 80), 20), other);
    });
}

#[test]
#[ignore = "needs root"]
fn a_udp_client_follows_the_endpoints_from_one_socket() {
    on_a_node(async |world| {
        let (_, b, c) = (world.pod("a").await, world.pod("b").await, world.pod("c").await);
        world.service(json!({}), &[b]);
        world.start_proxy();
        world.eventually("a", (VIP, 80), |answer| answer.starts_with("b ")).await;
        let socket = world.within("a", || UdpSocket::bind(("0.0.0.0", 0))).expect("a socket");
        socket.connect((VIP, 80)).expect("connect");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let ask = || {
            let mut buffer = [0; 8];
            socket.send(b"?").ok()?;
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        assert_eq!(ask().as_deref(), Some("b"));
        for (endpoint, name) in [(c, "c"), (b, "b")] {
            world.endpoints(&[endpoint]);
            let end = Instant::now() + PATIENCE;
            loop {
                let answer = ask();
                if answer.as_deref() == Some(name) {
                    break;
                }
                assert!(Instant::now() < end, "{answer:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_restarted_proxy_takes_over_without_a_refused_or_broken_connection() {
    on_a_node(async |world| {
        let (_, b) = (world.pod("a").await, world.pod("b").await);
        world.service(json!({}), &[b]);
        world.start_proxy();
        world.eventually("a", (VIP, 80), |answer| answer.starts_with("b ")).await;
        let mut held = world.within("a", || TcpStream::connect((VIP, 80))).expect("a connection");
        held.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        for _ in 0..5 {
            world.stop_proxy().await;
            assert!(world.ask("a", (VIP, 80)).starts_with("b "), "while no proxy runs");
            world.start_proxy();
            for _ in 0..40 {
                // Lets the proxy do a step; the connection between finds whatever state that left.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let answer = world.ask("a", (VIP, 80));
                assert!(answer.starts_with("b "), "while a new proxy takes over: {answer}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            held.write_all(b"?").expect("the connection lives");
            let mut buffer = [0; 64];
            assert!(held.read(&mut buffer).expect("an answer") > 0);
        }
        let tables = minik_network::nft_apply::tables().await.expect("tables");
        let ours = tables.keys().filter(|name| name.starts_with("minik-proxy")).count();
        assert_eq!(ours, 1, "{tables:?}");
    });
}

#[test]
#[ignore = "needs root"]
fn a_change_of_one_service_stays_small_among_thousands() {
    on_a_node(async |world| {
        let node = minik_proxy::Node {
            name: "here".to_owned(),
            zone: String::new(),
            addresses: [NODE].into(),
            cluster_cidr: "10.244.0.0/16".parse().expect("a CIDR"),
            answered_here: BTreeSet::new(),
        };
        for count in [1_u32, 100, 1000, 5000] {
            let all: Vec<_> = (0..count).map(|n| numbered_service(n, 3)).collect();
            let start = Instant::now();
            let plan = minik_proxy::plan(&node, all.iter().map(|(service, endpoints)| (service, endpoints)));
            let planned = start.elapsed();
            let start = Instant::now();
            let applied = minik_network::nft_apply::swap_in("scale", &plan.table, &[]).await.expect("apply");
            let whole = start.elapsed();
            let mut fewer = all.clone();
            fewer[0] = numbered_service(0, 2);
            let next = minik_proxy::plan(&node, fewer.iter().map(|(service, endpoints)| (service, endpoints)));
            let start = Instant::now();
            let changed = minik_network::nft_apply::update("scale", &plan.table, &next.table).await.expect("update");
            println!(
                "{count} Services: plan {planned:?}, write all {whole:?} in {} transactions, change one {:?} ({} changes)",
                applied.transactions,
                start.elapsed(),
                changed.changes
            );
            assert!(changed.changes < 10 && changed.transactions == 1, "{changed:?}");
        }
        let _ = world;
    });
}

fn numbered_service(number: u32, endpoints: u32) -> (minik_proxy::Service, minik_proxy::Endpoints) {
    let vip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 100, 0, 0).to_bits() + number);
    let metadata = json!({"namespace": "a", "name": format!("s{number}")});
    let spec = json!({"clusterIP": vip, "ports": [{"port": 80}]});
    let service = minik_proxy::Service::read(&json!({"metadata": metadata, "spec": spec})).expect("a Service");
    let address = |n| IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + number * 4 + n));
    let all: Vec<Value> = (0..endpoints).map(|n| json!({"addresses": [address(n)], "nodeName": "there"})).collect();
    let slice = json!({"addressType": "IPv4", "endpoints": all, "ports": [{"name": "", "port": 8080}]});
    (service, minik_proxy::Endpoints::read(&slice))
}
