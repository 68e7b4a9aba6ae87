//! Priority and fairness: its objects, and how requests are told of their class.

use serde_json::{Value, json};

use crate::server::{Events, Server};

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|item| item["metadata"]["name"].as_str().unwrap_or("").to_string()).collect()
}

/// Reads events until one satisfies.
async fn until(events: &mut Events, fits: impl Fn(&Value) -> bool) -> Value {
    loop {
        let event = events.next().await.expect("another event");
        if fits(&event["object"]) {
            return event["object"].clone();
        }
    }
}

#[tokio::test]
async fn the_defaults_are_there_and_are_kept() {
    let server = Server::start().await;
    let mut events = server.watch(&format!("{SCHEMAS}?watch=1")).await;
    // The condition comes after all objects.
    until(&mut events, |o| {
        o["metadata"]["name"] == "system-nodes" && o["status"]["conditions"][0]["reason"] == "Found"
    })
    .await;
    let levels = names(&server.get(LEVELS).await.ok());
    let wanted = [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ];
    assert_eq!(levels, wanted);
    let system = server.get(&format!("{LEVELS}/system")).await.ok();
    assert_eq!(system["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"], "true");
    assert_eq!(system["spec"]["limited"]["nominalConcurrencyShares"], 30);
    assert_eq!(names(&server.get(SCHEMAS).await.ok()).len(), 11);

    let mut events = server.watch(&format!("{LEVELS}?watch=1&resourceVersion=0")).await;
    let change = json!({"spec": {"limited": {"nominalConcurrencyShares": 1}}});
    server.patch("merge", &format!("{LEVELS}/catch-all"), &change).await.ok();
    until(&mut events, |o| o["spec"]["limited"]["nominalConcurrencyShares"] == 1).await;
    until(&mut events, |o| {
        o["metadata"]["name"] == "catch-all" && o["spec"]["limited"]["nominalConcurrencyShares"] == 5
    })
    .await;
}

#[tokio::test]
async fn an_answer_names_the_schema_and_the_level_of_its_request() {
    let server = Server::start().await;
    // Already the first one.
    let told = server.get("/api/v1/namespaces").await;
    let exempt = server.get(&format!("{SCHEMAS}/exempt")).await.ok();
    assert_eq!(told.headers["x-kubernetes-pf-flowschema-uid"], exempt["metadata"]["uid"].as_str().unwrap());
    let missing = server.get("/api/v1/namespaces/gone").await;
    assert_eq!((missing.code, missing.headers.contains_key("x-kubernetes-pf-prioritylevel-uid")), (404, true));
}
