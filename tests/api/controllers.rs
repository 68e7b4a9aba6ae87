//! Controllers on a real API server, with the rights they have in a cluster; no nodes.
//!
//! Owns: what only shows when both meet: admission, subresources, roles, and answers that come by asking.
//! Called by: the test harness.
//! Never: repeats what the tests of a plan show.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use minik_apiserver::{ApiServer, Config, UserInfo};
use minik_client::{Client, Transport, TransportError};
use minik_controllers::{Authority, TokenSigner};
use minik_store::Store;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::server::{InProcess, Server};

const JANE: &str = "jane";
const NODE: &str = "node";

/// A server with everything `kube-controller-manager` runs.
pub async fn cluster() -> Server {
    cluster_over(|transport| transport).await
}

/// As `cluster`, with something between the controllers and the API server.
async fn cluster_over<T: Transport + 'static>(wrap: impl FnOnce(InProcess) -> T) -> Server {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("a certificate").pem();
    let token_key = KeyPair::generate().expect("a key").serialize_pem();
    let mut config = Config::new(Store::memory());
    config.service_account_key = Some(token_key.clone());
    config.static_tokens = vec![
        (JANE.into(), UserInfo::new("jane", &["devs"])),
        (NODE.into(), UserInfo::new("system:node:n1", &["system:nodes"])),
    ];
    let server = Server(ApiServer::build(config).await.expect("an API server on an empty store"));
    let user = UserInfo::new("system:kube-controller-manager", &["system:authenticated"]);
    let client = Client::new(Arc::new(wrap(server.transport(&user))));
    let mut controllers = minik_controllers::Config::new(client, ca.clone());
    controllers.authority = Some(Authority::load(&ca, &key.serialize_pem()).expect("an authority"));
    controllers.token_signer = Some(TokenSigner::load(&token_key).expect("a signer"));
    tokio::spawn(minik_controllers::run(controllers, CancellationToken::new()));
    server
}

/// The object, once it is as wanted.
async fn until(server: &Server, collection: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{collection}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut events = server.watch(&path).await;
    loop {
        let event = events.next().await.expect("the watch goes on");
        if event["type"] != "DELETED" && wanted(&event["object"]) {
            return event["object"].clone();
        }
    }
}

async fn until_gone(server: &Server, collection: &str, name: &str) {
    let path = format!("{collection}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut events = server.watch(&path).await;
    while server.get(&format!("{collection}/{name}")).await.code == 200 {
        events.next().await.expect("the watch goes on");
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request(name: &str, signer: &str, subject: &[(DnType, &str)], usages: &[&str]) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    subject.iter().for_each(|(kind, text)| params.distinguished_name.push(kind.clone(), *text));
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": BASE64.encode(pem), "signerName": signer, "usages": usages, "username": "boss"}})
}

async fn post_as(server: &Server, token: &str, path: &str, body: &Value) -> Value {
    let role = json!({"metadata": {"name": "asks"},
        "rules": [{"verbs": ["create"], "apiGroups": ["certificates.k8s.io"], "resources": ["*"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    server.send_as_nobody("POST", path, &headers, &body.to_string()).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelets_certificate_is_approved_and_signed_without_anybodys_help() {
    let server = cluster().await;
    let binding = json!({"metadata": {"name": "renewal"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"},
        "subjects": [{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.ok();
    let subject = [(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:n1")];
    let usages = ["digital signature", "client auth"];
    let body = request("n1", "kubernetes.io/kube-apiserver-client-kubelet", &subject, &usages);
    let made = post_as(&server, NODE, REQUESTS, &body).await;
    assert_eq!(made["spec"]["username"], "system:node:n1", "nobody asks in another's name");
    let signed = until(&server, REQUESTS, "n1", |r| r["status"]["certificate"].is_string()).await;
    let approved = condition(&signed, "Approved").expect("approved");
    assert_eq!(approved["reason"], "AutoApproved");
    assert!(approved["lastUpdateTime"].is_string() && approved["lastTransitionTime"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_approves_is_signed_or_refused_with_the_reason() {
    let server = cluster().await;
    let client = "kubernetes.io/kube-apiserver-client";
    let jane = [(DnType::CommonName, "jane")];
    for (name, usages) in [("good", ["client auth"]), ("bad", ["server auth"])] {
        server.post(REQUESTS, &request(name, client, &jane, &usages)).await.ok();
        let mut open = server.get(&format!("{REQUESTS}/{name}")).await.ok();
        open["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "ByMe"}]);
        server.put(&format!("{REQUESTS}/{name}/approval"), &open).await.ok();
    }
    let signed = until(&server, REQUESTS, "good", |r| r["status"]["certificate"].is_string()).await;
    let pem = BASE64.decode(signed["status"]["certificate"].as_str().expect("text")).expect("base64");
    assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let failed = until(&server, REQUESTS, "bad", |r| condition(r, "Failed").is_some()).await;
    let why = condition(&failed, "Failed").expect("it failed");
    assert_eq!(why["message"], "invalid usage for client certificate: server auth");
    let mut forged = request("forged", client, &jane, &["client auth"]);
    forged["spec"]["request"] = BASE64.encode("nothing").into();
    let refused = server.post(REQUESTS, &forged).await.refusal();
    assert!(
        refused.contains("spec.request: Invalid value") && refused.ends_with("must be CERTIFICATE REQUEST"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_a_service_account_holds_a_token_that_works_and_goes_with_it() {
    let server = cluster().await;
    let (accounts, secrets) = ("/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/secrets");
    server.post(accounts, &json!({"metadata": {"name": "robot"}})).await.ok();
    let secret = json!({"metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    server.post(secrets, &secret).await.ok();
    let filled = until(&server, secrets, "s", |s| s["data"]["token"].is_string()).await;
    let token = BASE64.decode(filled["data"]["token"].as_str().expect("text")).expect("base64");
    let token = String::from_utf8(token).expect("ASCII");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = server.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok();
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:robot", "{review}");
    server.delete(&format!("{accounts}/robot")).await.ok();
    until_gone(&server, secrets, "s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_keeps_its_bounds_and_says_that_there_are_no_metrics() {
    let server = cluster().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "web"},
        "spec": {"replicas": 9, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    server.post(deployments, &deployment).await.ok();
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let autoscaler = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    server.post(autoscalers, &autoscaler).await.ok();
    until(&server, deployments, "web", |d| d["spec"]["replicas"] == 3).await;
    let scaled = until(&server, autoscalers, "web", |a| a["status"]["desiredReplicas"] == 3).await;
    assert_eq!(condition(&scaled, "AbleToScale").expect("told")["reason"], "SucceededRescale");
    let mut wider = scaled.clone();
    wider["spec"]["maxReplicas"] = 4.into();
    server.put(&format!("{autoscalers}/web"), &wider).await.ok();
    let told = until(&server, autoscalers, "web", |a| condition(a, "ScalingActive").is_some()).await;
    let active = condition(&told, "ScalingActive").expect("told");
    assert_eq!(active["reason"], "FailedGetResourceMetric");
    assert_eq!(
        active["message"],
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for \
         resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested \
         resource (get pods.metrics.k8s.io)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_service_addresses_become_ready() {
    let server = cluster().await;
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let ready = |c: &Value| condition(c, "Ready").is_some_and(|c| c["status"] == "True");
    until(&server, ranges, "kubernetes", ready).await;
    server.post(ranges, &json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}})).await.ok();
    let more = until(&server, ranges, "more", ready).await;
    assert_eq!(more["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_policy_tells_what_does_not_fit_its_types() {
    let server = cluster().await;
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policy = |name: &str, validation: Value| {
        let rule =
            json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
        json!({"metadata": {"name": name},
            "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]}})
    };
    server.post(policies, &policy("sound", json!({"expression": "object.data['a'] == 'b'"}))).await.ok();
    let sound = until(&server, policies, "sound", |p| p["status"]["observedGeneration"] == 1).await;
    assert_eq!(sound["status"]["typeChecking"], json!({}));
    let odd = json!({"expression": "object.data > 1", "messageExpression": "'got ' + object.data"});
    server.post(policies, &policy("odd", odd)).await.ok();
    let odd = until(&server, policies, "odd", |p| p["status"]["observedGeneration"] == 1).await;
    let warnings = &odd["status"]["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    assert_eq!(
        warnings[0]["warning"],
        "v1, Kind=ConfigMap: ERROR: <input>:1:13: found no matching overload for '_>_' applied to \
         '(map(string, string), int)'\n | object.data > 1\n | ............^\n"
    );
    assert_eq!(warnings[1]["fieldRef"], "spec.validations[0].messageExpression");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_writes_everything_again_and_says_when_it_is_done() {
    let server = cluster().await;
    let migrations = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    let migration = json!({"metadata": {"name": "m"}, "spec": {"resource": {"group": "", "resource": "configmaps"}}});
    server.post(migrations, &migration).await.ok();
    let done = until(&server, migrations, "m", |m| condition(m, "Succeeded").is_some()).await;
    assert_eq!(condition(&done, "Succeeded").expect("done")["reason"], "StorageVersionMigrationSucceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_claim_is_made_from_its_template_and_named_in_its_status() {
    let server = cluster().await;
    until(&server, "/api/v1/namespaces/default/serviceaccounts", "default", |_| true).await;
    let group = "/apis/resource.k8s.io/v1/namespaces/default";
    let request = json!({"name": "r", "exactly": {"deviceClassName": "c"}});
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": {"devices": {"requests": [request]}}}});
    server.post(&format!("{group}/resourceclaimtemplates"), &template).await.ok();
    let container = json!({"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    server.post(pods, &pod).await.ok();
    let named = until(&server, pods, "p", |p| p["status"]["resourceClaimStatuses"].is_array()).await;
    let name = named["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().expect("a name").to_string();
    let claim = server.get(&format!("{group}/resourceclaims/{name}")).await.ok();
    assert_eq!(claim["metadata"]["ownerReferences"][0]["name"], "p");
    assert!(name.starts_with("p-gpu-"), "{name}");
}

/// Between the controllers and the API server: tells of each request once it is answered, and lets the events of one
/// watch through only while the gate is open.
struct Gated {
    to: InProcess,
    /// Of which resource, and whether only its metadata.
    watch: (&'static str, bool),
    open: watch::Receiver<bool>,
    told: mpsc::UnboundedSender<String>,
}

impl Transport for Gated {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<minik_client::Body>, TransportError>> {
        let (path, metadata) = self.watch;
        let uri = request.uri().to_string();
        let accepted = request.headers().get("accept").and_then(|a| a.to_str().ok()).unwrap_or("");
        let gated = uri.contains(path) && uri.contains("watch=true") && accepted.contains(METADATA) == metadata;
        let line = format!("{} {uri} {}", request.method(), String::from_utf8_lossy(request.body()));
        async move {
            let response = self.to.send(request).await?;
            // Nobody listens at the end of a test.
            let _ = self.told.send(line);
            if !gated {
                return Ok(response);
            }
            let open = self.open.clone();
            let frames = response.into_body().into_data_stream().then(move |data| {
                let mut open = open.clone();
                async move {
                    let _ = open.wait_for(|open| *open).await;
                    data.map(http_body::Frame::data)
                }
            });
            Ok(http::Response::new(StreamBody::new(frames).boxed_unsync()))
        }
        .boxed()
    }
}

const METADATA: &str = "PartialObjectMetadata";

struct Gate {
    server: Server,
    is_open: watch::Sender<bool>,
    told: mpsc::UnboundedReceiver<String>,
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REPLICASETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

impl Gate {
    /// Once the watch has begun.
    async fn at(path: &'static str, metadata: bool) -> Self {
        let (is_open, seen) = watch::channel(true);
        let (teller, told) = mpsc::unbounded_channel();
        let gated = |to| Gated { to, watch: (path, metadata), open: seen, told: teller };
        let mut gate = Self { server: cluster_over(gated).await, is_open, told };
        // As many as there are caches with that resource.
        for _ in 0..2 {
            gate.heard(|line| line.contains(path) && line.contains("watch=true")).await;
        }
        gate
    }

    fn close(&self) {
        self.is_open.send_replace(false);
    }

    fn open(&self) {
        self.is_open.send_replace(true);
    }

    async fn heard(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.told.recv().await.expect("the controllers run");
            if wanted(&line) {
                return line;
            }
        }
    }

    /// A Deployment without Pods; the name of its ReplicaSet.
    async fn deployed(&self) -> String {
        let template =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let body = json!({"metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": template}});
        self.server.post(DEPLOYMENTS, &body).await.ok();
        let mut events = self.server.watch(&format!("{REPLICASETS}?watch=true")).await;
        let made = events.next().await.expect("the watch goes on");
        made["object"]["metadata"]["name"].as_str().expect("a name").to_string()
    }

    async fn delete(&self, propagation: &str) {
        self.server.delete(&format!("{DEPLOYMENTS}/a?propagationPolicy={propagation}")).await.ok();
    }
}

/// Regression: a ReplicaSet that the garbage collector did not know yet kept its reference, and was collected.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_orphaned_is_all_there_is_even_where_a_watch_lags() {
    let gate = Gate::at("/replicasets", true).await;
    gate.close();
    let set = gate.deployed().await;
    gate.delete("Orphan").await;
    until_gone(&gate.server, DEPLOYMENTS, "a").await;
    let orphan = gate.server.get(&format!("{REPLICASETS}/{set}")).await.ok();
    assert_eq!(orphan["metadata"]["ownerReferences"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_waits_in_the_foreground_for_what_a_lagging_watch_has_not_shown() {
    let mut gate = Gate::at("/replicasets", true).await;
    gate.close();
    let set = gate.deployed().await;
    let mut events = gate.server.watch("/apis/apps/v1/replicasets?watch=true").await;
    let mut owners = gate.server.watch("/apis/apps/v1/deployments?watch=true").await;
    gate.delete("Foreground").await;
    let asked = |line: &str| line.starts_with("GET /apis/apps/v1/namespaces/default/replicasets?limit=");
    let freed = |line: &str| line.starts_with("PATCH") && line.contains("/deployments/a");
    gate.heard(|line| asked(line) || freed(line)).await;
    gate.open();
    let mut version = Vec::new();
    for events in [&mut events, &mut owners] {
        let ended = loop {
            let event = events.next().await.expect("the watch goes on");
            if event["type"] == "DELETED" {
                break event["object"]["metadata"].clone();
            }
        };
        version.push(ended["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()).expect("a version"));
    }
    assert!(version[0] < version[1], "{set} went after its owner: {version:?}");
}

/// Regression: freed by the end of its Deployment, a ReplicaSet was adopted again, because that end was not seen yet.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_deleted_adopts_nothing_even_where_a_watch_lags() {
    let mut gate = Gate::at("/deployments", false).await;
    let set = gate.deployed().await;
    gate.close();
    gate.delete("Orphan").await;
    until_gone(&gate.server, DEPLOYMENTS, "a").await;
    let confirmed = |line: &str| line.starts_with(&format!("GET {DEPLOYMENTS}/a "));
    let adopted = |line: &str| line.starts_with("PATCH") && line.contains("\"controller\":true");
    let heard = gate.heard(|line| confirmed(line) || adopted(line)).await;
    assert!(confirmed(&heard), "{heard}");
    gate.open();
    let orphan = gate.server.get(&format!("{REPLICASETS}/{set}")).await.ok();
    assert_eq!(orphan["metadata"]["ownerReferences"], Value::Null);
}
