//! Watches over a WebSocket.
//!
//! Owns: a server that listens, and a client that tells each message.
//! Called by: the test harness.
//! Never: needs TLS: the handshake is the same without.

use futures::{SinkExt, StreamExt};
use minik_apiserver::UserInfo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Listening {
    server: Server,
    address: std::net::SocketAddr,
}

impl Listening {
    async fn start() -> Self {
        let admin = UserInfo::new("admin", &["system:masters", "system:authenticated"]);
        let server = Server::start_with(|config| config.static_tokens = vec![("secret".into(), admin)]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(server.0.clone().serve(listener, Default::default()));
        Self { server, address }
    }

    async fn open(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<WebSocketStream<TcpStream>, Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        let standing = [("authorization", "Bearer secret"), ("origin", "https://a.example")];
        for (name, value) in standing.iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        Ok(tokio_tungstenite::client_async(request, stream).await?.0)
    }

    async fn create(&self, name: &str) -> Value {
        self.server.post(MAPS, &json!({"metadata": {"name": name}})).await.ok()
    }
}

fn event(message: &Message) -> String {
    let event: Value = serde_json::from_str(message.to_text().expect("text")).expect("an event");
    format!("{} {}", event["type"].as_str().unwrap_or("?"), event["object"]["metadata"]["name"])
}

#[tokio::test]
async fn each_event_is_a_message_and_the_end_a_normal_closure() {
    let listening = Listening::start().await;
    // Two at the start, which a plain watch would send in one piece.
    listening.create("a").await;
    listening.create("b").await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=2");
    let mut socket = listening.open(&path, &[("sec-websocket-protocol", "any")]).await.expect("an upgrade");
    let mut next = async || socket.next().await.expect("a message").expect("a frame");
    // The cluster's own certificate authority may be among them.
    let mut told = Vec::new();
    while told.len() < 2 {
        let line = event(&next().await);
        if !line.contains("kube-root-ca") {
            told.push(line);
        }
    }
    assert_eq!(told, [r#"ADDED "a""#, r#"ADDED "b""#]);
    listening.create("c").await;
    let message = next().await;
    assert_eq!(event(&message), r#"ADDED "c""#);
    assert!(message.to_text().expect("text").ends_with("}\n"));
    let Message::Close(Some(closure)) = next().await else { panic!("no closure") };
    assert_eq!(closure.code, CloseCode::Normal);
}

#[tokio::test]
async fn protobuf_comes_in_binary_messages_without_a_length_before_them() {
    let listening = Listening::start().await;
    let accept = ("accept", "application/vnd.kubernetes.protobuf;stream=watch");
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da");
    let mut socket = listening.open(&path, &[accept]).await.expect("an upgrade");
    listening.create("a").await;
    let message = socket.next().await.expect("a message").expect("a frame");
    // Field 1 of a WatchEvent is its type.
    assert!(matches!(&message, Message::Binary(bytes) if bytes.starts_with(b"\n\x05ADDED\x12")), "{message:?}");
}

#[tokio::test]
async fn a_ping_is_answered_and_a_goodbye_too() {
    let listening = Listening::start().await;
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dnone");
    let mut socket = listening.open(&path, &[]).await.expect("an upgrade");
    socket.send(Message::Ping("hi".into())).await.expect("it is taken");
    assert_eq!(socket.next().await.expect("a message").expect("a frame"), Message::Pong("hi".into()));
    socket.close(None).await.expect("it is taken");
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn what_is_wrong_with_a_watch_is_told_instead_of_the_handshake() {
    let listening = Listening::start().await;
    let code = async |path: String, headers: &[(&'static str, &str)]| match listening.open(&path, headers).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(code(format!("{MAPS}?watch=1&labelSelector=a%3D%3D%3Db"), &[]).await, 400);
    assert_eq!(code(format!("{MAPS}?watch=1"), &[("sec-websocket-protocol", "a, b")]).await, 400);
    assert_eq!(code(format!("{MAPS}?watch=1"), &[("origin", "null")]).await, 403);
    // Without a watch it is a list like any other.
    assert_eq!(code(MAPS.into(), &[]).await, 200);
}
