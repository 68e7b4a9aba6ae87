//! Groups that another API server serves, as a client sees them through this one.
//!
//! Owns: an extension API server on loopback that tells what it was asked and by whom.
//! Called by: the test harness.
//! Never: needs a cluster: a Service of type ExternalName leads to loopback.

use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik_apiserver::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::Server;

struct Authority {
    pem: String,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, common_name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> KeyPair {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        KeyPair { certificate, key: key.serialize_pem() }
    }
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>>;

fn json_answer(body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string()));
    Response::builder().header("content-type", "application/json").body(body.boxed_unsync()).expect("an answer")
}

/// Knows things of example.com/v1; everything else is told back to whoever asks.
async fn answer(mut request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_string();
    let told: Vec<String> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-remote-") || *name == "authorization")
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).await.expect("four bytes");
            stream.write_all(&heard).await.expect("they are taken");
        });
        let switching = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        return Ok(switching.body(Full::default().boxed_unsync()).expect("an answer"));
    }
    let things = json!({"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]});
    Ok(match path.as_str() {
        "/apis" => {
            let mut refusal = json_answer(&json!({}));
            *refusal.status_mut() = http::StatusCode::NOT_ACCEPTABLE;
            refusal
        }
        "/apis/example.com/v1" => json_answer(&json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "example.com/v1", "resources": [things]})),
        "/openapi/v3" => json_answer(&json!({"paths": {
            "version": {"serverRelativeURL": "/openapi/v3/version?hash=A"},
            "apis/example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/example.com/v1?hash=B"}}})),
        "/openapi/v2" => json_answer(&json!({
            "paths": {"/apis/example.com/v1/things": {"get": {}}, "/version/": {"get": {"theirs": true}}},
            "definitions": {}})),
        "/apis/example.com/v1/watch" => {
            let frames = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"{\"type\":\"ADDED\"}\n")))]);
            let forever = frames.chain(futures::stream::pending());
            Response::new(StreamBody::new(forever).boxed_unsync())
        }
        _ => {
            let method = request.method().to_string();
            let query = request.uri().query().unwrap_or("").to_string();
            let body = request.into_body().collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            json_answer(&json!({"path": path, "query": query, "method": method, "who": told, "body": body}))
        }
    })
}

/// An API server with a front proxy's identity, and another behind it that believes only this identity.
struct Pair {
    server: Server,
    port: u16,
    bundle: String,
}

async fn pair() -> Pair {
    let (front_proxy, serving) = (Authority::new("front-proxy-ca"), Authority::new("serving-ca"));
    let identity = front_proxy.issue("front-proxy-client", &[], ExtendedKeyUsagePurpose::ClientAuth);
    let port = extension(&front_proxy, &serving).await;
    let server = Server::start_with(|config| {
        config.front_proxy_ca = Some(front_proxy.pem.clone());
        config.front_proxy = Some(identity);
        let jane = minik_apiserver::UserInfo::new("jane", &["system:masters"]);
        config.static_tokens = vec![("secret".into(), jane)];
    })
    .await;
    Pair { server, port, bundle: base64::engine::general_purpose::STANDARD.encode(&serving.pem) }
}

async fn extension(front_proxy: &Authority, serving: &Authority) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let certificates = |pem: &str| {
        let list: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_bytes()).collect();
        list.expect("certificates")
    };
    roots.add_parsable_certificates(certificates(&front_proxy.pem));
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let own = serving.issue("api", &["api.apps.svc"], ExtendedKeyUsagePurpose::ServerAuth);
    let key = rustls_pemfile::private_key(&mut own.key.as_bytes()).expect("a key").expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(certificates(&own.certificate), key)
        .expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .with_upgrades();
                let _ = connection.await;
            });
        }
    });
    port
}

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

impl Pair {
    fn api_service(&self) -> Value {
        json!({"metadata": {"name": "v1.example.com"}, "spec": {
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10,
            "caBundle": self.bundle, "service": {"namespace": "apps", "name": "api", "port": self.port}}})
    }

    async fn service(&self) {
        self.server.post("/api/v1/namespaces", &json!({"metadata": {"name": "apps"}})).await.ok();
        let service =
            json!({"metadata": {"name": "api"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
        self.server.post("/api/v1/namespaces/apps/services", &service).await.ok();
    }

    /// Waits until the condition of the APIService says so.
    async fn condition(&self, reason: &str) -> Value {
        let path = format!("{SERVICES}?watch=1&fieldSelector=metadata.name%3Dv1.example.com");
        let mut events = self.server.watch(&path).await;
        loop {
            let event = events.next().await.expect("the watch goes on");
            let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if let Some(condition) = conditions.into_iter().find(|c| c["type"] == "Available" && c["reason"] == reason)
            {
                return condition;
            }
        }
    }

    async fn ready() -> Self {
        let pair = pair().await;
        pair.service().await;
        pair.server.post(SERVICES, &pair.api_service()).await.ok();
        pair.condition("Passed").await;
        // The server learns of its own condition as everybody else does.
        while pair.server.get("/apis/example.com/v1/things").await.code == 503 {
            tokio::task::yield_now().await;
        }
        pair
    }
}

#[tokio::test]
async fn an_api_becomes_available_with_its_service_and_is_refused_before() {
    let pair = pair().await;
    pair.server.post(SERVICES, &pair.api_service()).await.ok();
    let condition = pair.condition("ServiceNotFound").await;
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&json!("False"), &json!(r#"service/api in "apps" is not present"#))
    );
    let refused = pair.server.get("/apis/example.com/v1/things").await;
    assert_eq!((refused.code, &refused.body), (503, &json!("service unavailable\n")));
    let metrics = pair.server.get("/metrics").await.ok();
    let gauge = |line: &str| metrics.as_str().is_some_and(|text| text.contains(line));
    assert!(gauge("aggregator_unavailable_apiservice{name=\"v1.example.com\"} 1"));
    assert!(gauge("aggregator_unavailable_apiservice{name=\"v1.apps\"} 0"));
    pair.service().await;
    let condition = pair.condition("Passed").await;
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!("all checks passed")));
}

#[tokio::test]
async fn a_condition_that_was_overwritten_comes_back() {
    let pair = pair().await;
    pair.server.post(SERVICES, &pair.api_service()).await.ok();
    pair.condition("ServiceNotFound").await;
    let other = json!({"status": {"conditions": [{"type": "X", "status": "True"}]}});
    pair.server.patch("merge", &format!("{SERVICES}/v1.example.com/status"), &other).await.ok();
    pair.condition("ServiceNotFound").await;
}

#[tokio::test]
async fn a_request_reaches_the_other_server_with_the_name_of_who_asks() {
    let pair = Pair::ready().await;
    let path = "/apis/example.com/v1/namespaces/a%20b/things?labelSelector=x%3Dy";
    let told = pair.server.send("POST", path, &[("content-type", "text/plain")], "hello").await.ok();
    assert_eq!(
        told,
        json!({
            "path": "/apis/example.com/v1/namespaces/a%20b/things", "query": "labelSelector=x%3Dy",
            "method": "POST", "body": "hello",
            "who": ["x-remote-user: admin", "x-remote-group: system:masters", "x-remote-group: system:authenticated"],
        })
    );
}

#[tokio::test]
async fn who_may_not_does_not_get_there() {
    let pair = Pair::ready().await;
    let mut request = Server::request("GET", "/apis/example.com/v1/things", &[], "");
    request.extensions_mut().insert(minik_apiserver::UserInfo::new("joe", &["system:authenticated"]));
    let response = pair.server.0.handle(request).await;
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn an_answer_is_passed_on_while_it_is_written() {
    let pair = Pair::ready().await;
    let mut events = pair.server.watch("/apis/example.com/v1/watch").await;
    assert_eq!(events.next().await, Some(json!({"type": "ADDED"})));
}

#[tokio::test]
async fn discovery_tells_of_the_other_server_too() {
    let pair = Pair::ready().await;
    let groups = pair.server.get("/apis").await.ok();
    let group = groups["groups"].as_array().expect("groups").iter().find(|g| g["name"] == "example.com").cloned();
    let version = json!({"groupVersion": "example.com/v1", "version": "v1"});
    assert_eq!(group, Some(json!({"name": "example.com", "versions": [version], "preferredVersion": version})));
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let list = pair.server.send("GET", "/apis", &accept, "").await.ok();
    let items = list["items"].as_array().expect("items");
    let found = items.iter().find(|g| g["metadata"]["name"] == "example.com").expect("the group");
    assert_eq!(found["versions"][0]["freshness"], "Current");
    assert_eq!(found["versions"][0]["resources"][0]["resource"], "things");
    assert_eq!(pair.server.get("/apis/example.com/v1").await.ok()["kind"], "APIResourceList");
}

#[tokio::test]
async fn openapi_documents_of_both_servers_are_one() {
    let pair = Pair::ready().await;
    let index = pair.server.get("/openapi/v3").await.ok();
    let url = |path: &str| index["paths"][path]["serverRelativeURL"].as_str().unwrap_or("").to_string();
    assert_eq!(url("apis/example.com/v1"), "/openapi/v3/apis/example.com/v1?hash=B");
    assert_ne!(url("version"), "/openapi/v3/version?hash=A");
    let document = pair.server.get(&url("apis/example.com/v1")).await.ok();
    assert_eq!((&document["path"], &document["query"]), (&json!("/openapi/v3/apis/example.com/v1"), &json!("hash=B")));
    let old = pair.server.get("/openapi/v2").await.ok();
    assert!(old["paths"]["/apis/example.com/v1/things"].is_object());
    assert!(old["paths"]["/version/"]["get"]["theirs"].is_null());
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_believed() {
    let pair = pair().await;
    pair.service().await;
    let mut service = pair.api_service();
    let stranger = Authority::new("stranger").pem;
    service["spec"]["caBundle"] = base64::engine::general_purpose::STANDARD.encode(stranger).into();
    pair.server.post(SERVICES, &service).await.ok();
    let condition = pair.condition("FailedDiscoveryCheck").await;
    assert_eq!(condition["status"], "False");
    let trusting = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    pair.server.patch("merge", &format!("{SERVICES}/v1.example.com"), &trusting).await.ok();
    pair.condition("Passed").await;
}

#[tokio::test]
async fn a_connection_can_change_its_protocol() {
    let pair = Pair::ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(pair.server.0.clone().serve(listener, Default::default()));
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .uri("/apis/example.com/v1/namespaces/a/things/x/exec")
        .header("host", "api")
        .header("authorization", "Bearer secret")
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Full::<Bytes>::default())
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers()["upgrade"].to_str().expect("text")), (101, "echo"));
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"));
    stream.write_all(b"ping").await.expect("it is taken");
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.expect("an echo");
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn the_groups_of_this_server_have_their_own_apiservices() {
    let server = Server::start().await;
    let apps = server.get(&format!("{SERVICES}/v1.apps")).await.ok();
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!((&apps["spec"]["groupPriorityMinimum"], &apps["spec"]["versionPriority"]), (&json!(17_800), &json!(15)));
    let condition = &apps["status"]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"], &condition["message"]),
        (&json!("True"), &json!("Local"), &json!("Local APIServices are always available"))
    );
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = server.send("GET", &format!("{SERVICES}/v1.apps"), &table, "").await.ok();
    assert_eq!(shown["rows"][0]["cells"][1], "Local");
}

#[tokio::test]
async fn a_custom_resource_brings_its_apiservice_and_takes_it_away() {
    let server = Server::start().await;
    let mut events = server
        .watch(&format!("{SERVICES}?watch=1&labelSelector=kube-aggregator.kubernetes.io%2Fautomanaged%3Dtrue"))
        .await;
    let definition = json!({
        "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(path, &definition).await.ok();
    assert_eq!(events.line().await, "ADDED v1.example.com");
    // It is kept: who deletes it sees it come back.
    server.delete(&format!("{SERVICES}/v1.example.com")).await.ok();
    assert_eq!(events.line().await, "DELETED v1.example.com");
    assert_eq!(events.line().await, "ADDED v1.example.com");
    server.delete(&format!("{path}/foos.example.com")).await.ok();
    assert_eq!(events.line().await, "DELETED v1.example.com");
}

#[tokio::test]
async fn an_apiservice_is_checked() {
    let server = Server::start().await;
    let service = json!({"metadata": {"name": "v1.other"}, "spec": {
        "group": "example.com", "version": "v1", "groupPriorityMinimum": 0, "versionPriority": 1001,
        "insecureSkipTLSVerify": true}});
    let refusal = server.post(SERVICES, &service).await.refusal();
    assert_eq!(
        refusal,
        "422 Invalid: APIService.apiregistration.k8s.io \"v1.other\" is invalid: [metadata.name: Invalid value: \"v1.other\": \
         must be `spec.version+\".\"+spec.group`: \"v1.example.com\", spec.groupPriorityMinimum: Invalid value: 0: must be \
         positive and less than 20000, spec.versionPriority: Invalid value: 1001: must be positive and less than 1000, \
         spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify]"
    );
}
