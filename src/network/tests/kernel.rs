//! The network of pods on a real kernel: needs root, so these are ignored unless asked for
//! (`cargo test -p minik-network --test kernel -- --ignored`).
//!
//! Each test is a node of its own: it runs on a thread that moved into a fresh network namespace.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use minik_network::{Config, HostPort, Ipv4Cidr, PodNetwork, Protocol, netns};
use nlink::netlink::link::VethLink;
use nlink::netlink::namespace::{self, Netns};
use nlink::{Connection, Route};

const PATIENCE: Duration = Duration::from_secs(5);
/// Linux asks for an address that nobody answered for again after this.
const ASKS_AGAIN: Duration = Duration::from_secs(1);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs `test` in a fresh network namespace that stands for the node; `folder` is its run directory.
fn on_a_node(test: impl AsyncFnOnce(&Path) + Send + 'static) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = folder.path().join("node");
    runtime().block_on(netns::create(&node)).expect("a namespace for the node");
    let outcome = std::thread::scope(|scope| {
        let path = &node;
        let run_dir = folder.path();
        let inside = scope.spawn(move || {
            let _inside = namespace::enter_path(path).expect("entering the node's namespace");
            runtime().block_on(async {
                let kernel = Connection::<Route>::new().expect("netlink");
                kernel.set_link_up("lo").await.expect("loopback");
                test(run_dir).await;
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

async fn pod(network: &PodNetwork, run_dir: &Path, name: &str, host_ports: &[HostPort]) -> (Netns, Ipv4Addr) {
    let path = run_dir.join(name);
    netns::create(&path).await.expect("a namespace for the pod");
    let address = network.attach(&path, name, host_ports).await.expect("attach");
    (Netns::from_path(&path).expect("opening the pod's namespace"), address.ip)
}

/// Serves one connection in the pod and answers with the peer's address.
fn serve_once(pod: &Netns, port: u16) -> std::thread::JoinHandle<()> {
    let listener = pod.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("a thread").expect("bind");
    std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("accept");
        write!(stream, "{}", peer.ip()).expect("answer");
    })
}

fn ask(from: Option<&Netns>, to: (Ipv4Addr, u16)) -> std::io::Result<String> {
    let connect = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match from {
        Some(pod) => pod.run(connect).expect("a thread in the pod"),
        None => connect(),
    }
}

fn network(run_dir: &Path) -> PodNetwork {
    let network = PodNetwork::new(Config { run_dir: run_dir.to_owned(), mtu: None }).expect("leases");
    network.set_cidr("10.244.1.0/24".parse::<Ipv4Cidr>().expect("a CIDR"));
    minik_network::masquerade::enable_forwarding().expect("sysctls");
    network
}

#[test]
#[ignore = "needs root"]
fn pods_of_a_node_reach_each_other_with_their_own_addresses() {
    on_a_node(async |run_dir| {
        let network = network(run_dir);
        let (a, a_ip) = pod(&network, run_dir, "a", &[]).await;
        let (b, b_ip) = pod(&network, run_dir, "b", &[]).await;
        let server = serve_once(&b, 8080);
        assert_eq!(ask(Some(&a), (b_ip, 8080)).expect("pod to pod"), a_ip.to_string());
        server.join().expect("the server answered");
        let server = serve_once(&b, 8080);
        assert_eq!(ask(None, (b_ip, 8080)).expect("node to pod"), "10.244.1.1");
        server.join().expect("the server answered");
        network.detach("b").await.expect("detach");
        network.detach("b").await.expect("detach again");
        assert!(ask(Some(&a), (b_ip, 8080)).is_err());
    });
}

/// The other end of a cable to the node, in a namespace of its own; the node's end has the address 10.9.0.1.
async fn neighbour(run_dir: &Path) -> Netns {
    let path = run_dir.join("neighbour");
    netns::create(&path).await.expect("a namespace");
    let other = Netns::from_path(&path).expect("opening it");
    let here = Connection::<Route>::new().expect("netlink");
    here.add_link(VethLink::new("cable", "eth0").peer_netns_fd(&other)).await.expect("a cable");
    here.set_link_up("cable").await.expect("up");
    here.add_address_by_name("cable", Ipv4Addr::new(10, 9, 0, 1).into(), 24).await.expect("an address");
    Connection::<Route>::new_in(&other).expect("netlink").set_link_up("eth0").await.expect("up");
    other
}

#[test]
#[ignore = "needs root"]
fn who_asked_for_an_address_too_early_is_answered_by_its_announcement() {
    on_a_node(async |run_dir| {
        let other = neighbour(run_dir).await;
        let address = Ipv4Addr::new(10, 9, 0, 2);
        let early = tokio::spawn(tokio::net::TcpStream::connect((address, 80)));
        // Its first poll asks who has the address.
        tokio::task::yield_now().await;
        assert!(!early.is_finished(), "nobody has the address yet");
        let inside = Connection::<Route>::new_in(&other).expect("netlink");
        inside.add_address_by_name("eth0", address.into(), 24).await.expect("an address");
        let _listener = other.run(|| TcpListener::bind((address, 80))).expect("a thread").expect("bind");
        let announced = Instant::now();
        let announce = || runtime().block_on(minik_network::announce::announce(address));
        other.run(announce).expect("a thread").expect("an announcement");
        early.await.expect("a task").expect("a connection");
        let took = announced.elapsed();
        assert!(took < ASKS_AGAIN / 2, "connected {took:?} after the announcement");
    });
}

#[test]
#[ignore = "needs root"]
fn a_host_port_answers_on_the_node_and_stops_with_its_pod() {
    on_a_node(async |run_dir| {
        let network = network(run_dir);
        let anywhere = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8080, container_port: 80 };
        let (a, _) = pod(&network, run_dir, "a", std::slice::from_ref(&anywhere)).await;
        let (b, b_ip) = pod(&network, run_dir, "b", &[]).await;
        for (from, to, seen) in [
            (None, Ipv4Addr::new(10, 244, 1, 1), "10.244.1.1".to_owned()),
            (None, Ipv4Addr::LOCALHOST, "10.244.1.1".to_owned()),
            (Some(&b), Ipv4Addr::new(10, 244, 1, 1), b_ip.to_string()),
            (Some(&a), Ipv4Addr::new(10, 244, 1, 1), "10.244.1.1".to_owned()),
        ] {
            let server = serve_once(&a, 80);
            assert_eq!(ask(from, (to, 8080)).expect("host port"), seen, "to {to}");
            server.join().expect("the server answered");
        }
        network.detach("a").await.expect("detach");
        assert!(ask(None, (Ipv4Addr::LOCALHOST, 8080)).is_err());
    });
}

#[test]
#[ignore = "needs root"]
fn attaching_thirty_pods_takes_milliseconds_each() {
    on_a_node(async |run_dir| {
        let network = network(run_dir);
        let mut times = Vec::new();
        for number in 0..30 {
            let start = Instant::now();
            pod(&network, run_dir, &format!("p{number}"), &[]).await;
            times.push(start.elapsed());
        }
        times.sort();
        println!("namespace and attach: median {:?}, max {:?}", times[15], times[29]);
        assert!(times[15] < Duration::from_millis(100), "median {:?}", times[15]);
    });
}
