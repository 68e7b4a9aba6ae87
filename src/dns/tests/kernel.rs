//! Cluster DNS over real sockets: needs root, so these are ignored unless asked for
//! (`cargo test -p minik-dns --test kernel -- --ignored`).
//!
//! The node is a fresh network namespace with one pod; the API is fake.

#[path = "../../proxy/tests/fake_api.rs"]
mod fake_api;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use fake_api::FakeApi;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use minik_dns::{Config, run};
use minik_network::{Config as NetworkConfig, PodNetwork, netns};
use nlink::netlink::namespace::{self, Netns};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(5);
const DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 53);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs `test` with the API, the pod and the folder of a node whose DNS server is running.
fn on_a_node(test: impl AsyncFnOnce(&FakeApi, &Netns, &Path) + Send + 'static) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (node, pod) = (folder.path().join("node"), folder.path().join("pod"));
    runtime().block_on(netns::create(&node)).expect("a namespace for the node");
    let outcome = std::thread::scope(|scope| {
        let (node, pod, run_dir) = (&node, &pod, folder.path());
        let inside = scope.spawn(move || {
            let _inside = namespace::enter_path(node).expect("entering the node's namespace");
            runtime().block_on(async {
                let network =
                    PodNetwork::new(NetworkConfig { run_dir: run_dir.to_owned(), mtu: None }).expect("leases");
                network.set_cidr("10.244.1.0/24".parse().expect("a CIDR"));
                netns::create(pod).await.expect("a namespace for the pod");
                network.attach(pod, "pod", &[]).await.expect("attach");
                let (api, cancel) = (FakeApi::default(), CancellationToken::new());
                let resolv_conf = run_dir.join("resolv.conf");
                std::fs::write(&resolv_conf, "nameserver 10.96.0.10\nnameserver 127.0.0.53\n").expect("resolv.conf");
                let domain = "cluster.local".to_owned();
                let config = Config { client: api.client(), listen: DNS, domain, resolv_conf };
                let server = tokio::spawn(run(config, cancel.clone()));
                test(&api, &Netns::from_path(pod).expect("opening the pod's namespace"), run_dir).await;
                cancel.cancel();
                server.await.expect("the server ends").expect("and did not fail");
            });
        });
        inside.join()
    });
    for path in [node, pod] {
        runtime().block_on(netns::delete(&path)).expect("removing a namespace");
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    message.to_vec().expect("a short message")
}

/// Asks from the pod on a thread, so that the server's own runtime goes on meanwhile.
async fn ask(pod: &Netns, name: &str, tcp: bool) -> Option<Message> {
    let (pod, question) = (pod.try_clone().expect("a second handle"), question(name));
    let asked =
        move || pod.run(move || if tcp { by_tcp(&question) } else { by_udp(&question) }).expect("a thread in the pod");
    let bytes = tokio::task::spawn_blocking(asked).await.expect("the question ends").ok()?;
    Some(Message::from_vec(&bytes).expect("an answer that can be read"))
}

fn by_udp(question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(DNS)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send(question)?;
    let mut buffer = vec![0; 4096];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn by_tcp(question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(DNS)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let length = u16::try_from(question.len()).expect("a short question");
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

async fn eventually(pod: &Netns, name: &str, wanted: impl Fn(&Message) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask(pod, name, false).await;
        if answer.as_ref().is_some_and(&wanted) {
            return;
        }
        assert!(Instant::now() < end, "{name}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
#[ignore = "needs root"]
fn a_pod_finds_services_as_they_come_and_go() {
    on_a_node(async |api, pod, _| {
        let name = "web.a.svc.cluster.local.";
        eventually(pod, name, |answer| answer.metadata.response_code == ResponseCode::NXDomain).await;
        api.set("services", "a", "web", json!({}), json!({"spec": {"clusterIP": "10.96.0.7"}}));
        eventually(pod, name, |answer| addresses(answer) == ["10.96.0.7"]).await;
        let answer = ask(pod, name, true).await.expect("an answer by TCP");
        assert_eq!(addresses(&answer), ["10.96.0.7"]);
        api.delete("services", "a", "web");
        eventually(pod, name, |answer| answer.metadata.response_code == ResponseCode::NXDomain).await;
    });
}

#[test]
#[ignore = "needs root"]
fn other_names_are_asked_of_the_nodes_resolver_once() {
    on_a_node(async |_, pod, _| {
        // The server, which brings loopback up, may not have begun yet.
        minik_network::node_address::claim(Ipv4Addr::new(10, 96, 0, 10)).await.expect("loopback");
        let upstream = UdpSocket::bind(("127.0.0.53", 53)).expect("an address of the node's loopback");
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = upstream.recv_from(&mut buffer) {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let asked = Message::from_vec(&buffer[..length]).expect("a question");
                let mut answer = asked.clone().into_response();
                let name = asked.queries[0].name().clone();
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 9)))));
                upstream.send_to(&answer.to_vec().expect("a short answer"), peer).expect("send");
            }
        });
        for _ in 0..3 {
            let answer = ask(pod, "example.org.", false).await.expect("an answer");
            assert_eq!(addresses(&answer), ["192.0.2.9"]);
        }
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn answers_take_microseconds() {
    on_a_node(async |api, pod, _| {
        api.set("services", "a", "web", json!({}), json!({"spec": {"clusterIP": "10.96.0.7"}}));
        eventually(pod, "web.a.svc.cluster.local.", |answer| addresses(answer) == ["10.96.0.7"]).await;
        let (pod, question) = (pod.try_clone().expect("a second handle"), question("web.a.svc.cluster.local."));
        let measured = tokio::task::spawn_blocking(move || {
            pod.run(move || {
                let mut times: Vec<Duration> = (0..500)
                    .map(|_| {
                        let start = Instant::now();
                        by_udp(&question).expect("an answer");
                        start.elapsed()
                    })
                    .collect();
                times.sort();
                (times[250], times[495])
            })
            .expect("a thread in the pod")
        });
        let (median, p99) = measured.await.expect("measured");
        println!("DNS answer over UDP: median {median:?}, p99 {p99:?}");
        assert!(median < Duration::from_millis(20), "{median:?}");
    });
}

/// By hand, in a container on a Docker network of its own whose name is in `MINIK_TEST_CONTAINER`.
#[test]
#[ignore = "needs a container on a user-defined Docker network"]
fn dockers_resolver_answers_through_ours() {
    let Ok(container) = std::env::var("MINIK_TEST_CONTAINER") else { return };
    runtime().block_on(async {
        let (api, cancel) = (FakeApi::default(), CancellationToken::new());
        let resolv_conf = "/etc/resolv.conf".into();
        let config = Config { client: api.client(), listen: DNS, domain: "cluster.local".to_owned(), resolv_conf };
        let server = tokio::spawn(run(config, cancel.clone()));
        let here = Netns::current().expect("the container's namespace");
        eventually(&here, &format!("{container}."), |answer| !answer.answers.is_empty()).await;
        let answer = ask(&here, &format!("{container}."), false).await.expect("an answer");
        println!("{container} is {:?}", addresses(&answer));
        cancel.cancel();
        server.await.expect("the server ends").expect("and did not fail");
    });
}
