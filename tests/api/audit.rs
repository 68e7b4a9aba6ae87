//! The audit log, as its policy wants it.

use minik_apiserver::audit::{Audit, Rotation};
use minik_apiserver::{ApiServer, Config};
use minik_store::Store;
use serde_json::{Value, json};

use crate::server::Server;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ['system:apiserver']}
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: '', resources: [configmaps]}]}
- {level: None}
";

#[tokio::test]
async fn events_say_who_did_what_as_far_as_the_policy_wants() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    let mut config = Config::new(Store::memory());
    config.audit = Some(Audit { policy: POLICY.into(), log: path.clone(), rotation: Rotation::default() });
    let server = Server(ApiServer::build(config).await.expect("an API server"));
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    server.post("/api/v1/namespaces/default/secrets", &secret).await.ok();
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    server.post("/api/v1/namespaces/default/configmaps?fieldManager=me", &map).await.ok();
    server.get("/api/v1/namespaces/default/pods").await.ok();

    let text = std::fs::read_to_string(&path).expect("a log");
    assert!(!text.contains("hunter2"));
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert_eq!(events.len(), 2, "{text}");
    let secret = &events[0];
    assert_eq!((&secret["level"], &secret["stage"]), (&json!("Metadata"), &json!("ResponseComplete")));
    assert_eq!((&secret["verb"], &secret["user"]["username"]), (&json!("create"), &json!("admin")));
    assert_eq!(secret["objectRef"], json!({"resource": "secrets", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!(secret["responseStatus"]["code"], 201);
    assert_eq!(secret["annotations"]["authorization.k8s.io/decision"], "allow");
    let map = &events[1];
    assert_eq!(map["requestObject"]["data"], json!({"k": "v"}));
    assert_eq!(map["responseObject"]["metadata"]["name"], "m");
    assert!(map["responseObject"]["metadata"].get("managedFields").is_none());
}
