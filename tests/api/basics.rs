//! The verbs on the kinds every cluster has.

use serde_json::{Value, json};

use crate::server::{Server, all};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "minik/hello"}]},
    })
}

/// Pods need the service account that a controller would have made.
async fn with_account() -> Server {
    let server = Server::start().await;
    let account = json!({"metadata": {"name": "default"}});
    server.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    server
}

#[tokio::test]
async fn a_new_cluster_has_its_namespaces_and_the_kubernetes_service() {
    let server = Server::start().await;
    let list = server.get("/api/v1/namespaces").await.ok();
    let names: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|n| n["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let service = server.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let address = server.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1").await.ok();
    assert_eq!(address["spec"]["parentRef"]["name"], "kubernetes");
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = Server::start().await;
    let created = server.post(MAPS, &map("a")).await;
    assert_eq!(created.code, 201);
    assert!(created.headers.contains_key("audit-id"));
    let created = created.body;
    assert_eq!((&created["kind"], &created["data"]["a"]), (&json!("ConfigMap"), &json!("1")));
    let path = format!("{MAPS}/a");
    assert_eq!(server.get(&path).await.ok(), created);
    let mut changed = created.clone();
    changed["data"]["a"] = json!("2");
    let updated = server.put(&path, &changed).await.ok();
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let stale = server.put(&path, &changed).await.refusal();
    assert_eq!(
        stale,
        r#"409 Conflict: Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    let same = server.put(&path, &updated).await.ok();
    assert_eq!(
        same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"],
        "nothing changed, nothing written"
    );
    let deleted = server.delete(&path).await.ok();
    assert_eq!((&deleted["status"], &deleted["details"]["kind"]), (&json!("Success"), &json!("configmaps")));
    assert_eq!(server.get(&path).await.refusal(), r#"404 NotFound: configmaps "a" not found"#);
    assert_eq!(server.delete(&path).await.code, 404);
}

#[tokio::test]
async fn names_are_taken_once_and_generated_ones_until_they_are_free() {
    let server = Server::start().await;
    server.post(MAPS, &map("a")).await.ok();
    assert_eq!(server.post(MAPS, &map("a")).await.refusal(), r#"409 AlreadyExists: configmaps "a" already exists"#);
    let generated = json!({"metadata": {"generateName": "x-"}});
    let answers = all((0..50).map(|_| server.post(MAPS, &generated))).await;
    assert!(answers.iter().all(|a| a.code == 201 && a.body["metadata"]["name"].as_str().is_some_and(|n| n.len() == 7)));
    let nameless = server.post(MAPS, &json!({"metadata": {}})).await;
    assert_eq!(nameless.code, 422);
}

#[tokio::test]
async fn what_belongs_elsewhere_is_refused() {
    let server = Server::start().await;
    let mut other = map("a");
    other["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(
        server.post(MAPS, &other).await.refusal(),
        "400 BadRequest: the namespace of the provided object does not match the namespace sent on the request"
    );
    let missing = server.post("/api/v1/namespaces/nowhere/configmaps", &map("a")).await.refusal();
    assert_eq!(missing, r#"404 NotFound: namespaces "nowhere" not found"#);
    assert_eq!(server.get("/api/v1/nonsense").await.code, 404);
    assert_eq!(server.put("/api/v1/namespaces/default/configmaps", &map("a")).await.code, 405);
    assert_eq!(server.send("GET", MAPS, &[("accept", "text/html")], "").await.code, 406);
    assert_eq!(server.send("POST", MAPS, &[("content-type", "text/plain")], "x").await.code, 415);
    let strict = json!({"metadata": {"name": "s"}, "dat": {}});
    let refused = server.post(&format!("{MAPS}?fieldValidation=Strict"), &strict).await.refusal();
    assert!(refused.contains(r#"strict decoding error: unknown field "dat""#), "{refused}");
    let warned = server.post(MAPS, &strict).await;
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"dat\"""#);
}

#[tokio::test]
async fn pages_show_one_state_and_selectors_part_of_it() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(MAPS, &map(name)).await.ok();
    }
    let first = server.get(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!(
        (first["items"].as_array().map(Vec::len), &first["metadata"]["remainingItemCount"]),
        (Some(2), &json!(3))
    );
    server.delete(&format!("{MAPS}/d")).await.ok();
    let next = first["metadata"]["continue"].as_str().expect("a token");
    let second = server.get(&format!("{MAPS}?limit=5&continue={next}")).await.ok();
    let names: Vec<&str> =
        second["items"].as_array().expect("items").iter().filter_map(|n| n["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["c", "d", "e"], "as it was when the first page was read");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["items"][0].get("kind").is_none(), "items of a typed list have no type");
    let one = server.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.ok();
    assert_eq!(one["items"].as_array().map(Vec::len), Some(1));
    let refused = server.get(&format!("{MAPS}?fieldSelector=data.a%3Db")).await.refusal();
    assert_eq!(
        refused,
        r#"400 BadRequest: "data.a" is not a known field selector: only "metadata.name", "metadata.namespace""#
    );
}

#[tokio::test]
async fn a_watch_tells_what_a_selector_sees() {
    let server = with_account().await;
    server.post(PODS, &pod("a")).await.ok();
    let mut everything = server.watch(&format!("{PODS}?watch=1&timeoutSeconds=60")).await;
    assert_eq!(everything.line().await, "ADDED a");
    let mut labelled = server.watch(&format!("{PODS}?watch=1&labelSelector=app%3Db")).await;
    server.post(PODS, &pod("b")).await.ok();
    assert_eq!(labelled.line().await, "ADDED b");
    let relabel = json!({"metadata": {"labels": {"app": "c"}}});
    server.patch("merge", &format!("{PODS}/b"), &relabel).await.ok();
    assert_eq!(labelled.line().await, "DELETED b", "it left the view");
    server.delete(&format!("{PODS}/b")).await.ok();
    let mut lines = Vec::new();
    for _ in 0..4 {
        lines.push(everything.line().await);
    }
    // A Pod is marked before it goes, though it goes at once.
    assert_eq!(lines, ["ADDED b", "MODIFIED b", "MODIFIED b", "DELETED b"]);
    let mut streaming = server
        .watch(&format!(
            "{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ))
        .await;
    assert_eq!(streaming.line().await, "ADDED a");
    let bookmark = streaming.next().await.expect("a bookmark");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_pod_is_bound_evicted_and_goes_when_its_time_is_over() {
    let server = with_account().await;
    server.post(PODS, &pod("a")).await.ok();
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.post(&format!("{PODS}/a/binding"), &binding).await.ok()["status"], "Success");
    assert_eq!(server.post(&format!("{PODS}/a/binding"), &binding).await.code, 409);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    assert_eq!(server.post(&format!("{PODS}/a/eviction"), &eviction).await.code, 201);
    let going = server.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(
        (&going["metadata"]["deletionGracePeriodSeconds"], &going["spec"]["nodeName"]),
        (&json!(30), &json!("n1"))
    );
    // Regression: without it a Job counted an evicted Pod as a failure that its policy could not ignore.
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&why["status"], &why["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    server.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.ok();
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 404);
}

/// A kubelet's last word on a Pod must not be taken for one on the Pod that has its name now.
#[tokio::test]
async fn a_patch_that_means_another_object_by_that_name_changes_nothing() {
    let server = with_account().await;
    let made = server.post(PODS, &pod("p")).await.ok();
    for path in [format!("{PODS}/p"), format!("{PODS}/p/status")] {
        let body = json!({"metadata": {"uid": "gone", "labels": {"b": "c"}}, "status": {"phase": "Failed"}});
        let refused = server.patch("strategic-merge", &path, &body).await.refusal();
        assert_eq!(
            refused,
            r#"422 Invalid: Pod "p" is invalid: metadata.uid: Invalid value: "gone": field is immutable"#
        );
        assert_eq!(server.get(&format!("{PODS}/p")).await.ok(), made);
    }
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Server::start().await;
    let mut held = map("a");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &held).await.ok();
    let path = format!("{MAPS}/a");
    server.delete(&path).await.ok();
    let waiting = server.get(&path).await.ok();
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    let free = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    server.patch("json", &path, &free).await.ok();
    assert_eq!(server.get(&path).await.code, 404);
    let foreground = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    server.post(MAPS, &map("b")).await.ok();
    let marked = server.send("DELETE", &format!("{MAPS}/b"), &[], &foreground.to_string()).await.ok();
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn services_get_addresses_and_ports_that_nobody_else_has() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let names: Vec<Value> = (0..40).map(|i| service(&format!("s{i}"), "NodePort")).collect();
    let answers = all(names.iter().map(|s| server.post(path, s))).await;
    let mut seen = std::collections::BTreeSet::new();
    for answer in answers {
        let body = answer.ok();
        assert!(seen.insert(body["spec"]["clusterIP"].to_string()), "{body}");
        assert!(seen.insert(body["spec"]["ports"][0]["nodePort"].to_string()), "{body}");
    }
    let mut taken = service("t", "ClusterIP");
    taken["spec"]["clusterIP"] = json!("10.96.0.1");
    let refused = server.post(path, &taken).await.refusal();
    assert_eq!(
        refused,
        r#"422 Invalid: Service "t" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.1"]: failed to allocate IP 10.96.0.1: provided IP is already allocated"#
    );
    let before = server.get(&format!("{path}/s1")).await.ok();
    let address = before["spec"]["clusterIP"].as_str().expect("an address").to_string();
    server.delete(&format!("{path}/s1")).await.ok();
    taken["spec"]["clusterIP"] = json!(address);
    server.post(path, &taken).await.ok();
}

#[tokio::test]
async fn a_deployment_is_scaled_patched_and_applied() {
    let server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}},
    });
    let created = server.post(path, &web).await.ok();
    assert_eq!((&created["metadata"]["generation"], &created["spec"]["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    let one = format!("{path}/web");
    let scale = server.get(&format!("{one}/scale")).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(2), &json!("app=web"))
    );
    let scaled = server.patch("merge", &format!("{one}/scale"), &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}}});
    let patched = server.patch("strategic-merge", &one, &image).await.ok();
    assert_eq!((&patched["spec"]["replicas"], &patched["metadata"]["generation"]), (&json!(5), &json!(3)));
    assert_eq!(patched["spec"]["template"]["spec"]["containers"][0]["image"], "b");
    let mine =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 7}});
    let conflict = server.patch("apply", &format!("{one}?fieldManager=me"), &mine).await;
    assert_eq!(conflict.code, 409, "{}", conflict.body);
    let forced = server.patch("apply", &format!("{one}?fieldManager=me&force=true"), &mine).await.ok();
    assert_eq!(forced["spec"]["replicas"], 7);
    let status = json!({"status": {"replicas": 7}, "spec": {"replicas": 1}});
    let written = server.patch("merge", &format!("{one}/status"), &status).await.ok();
    assert_eq!((&written["status"]["replicas"], &written["spec"]["replicas"]), (&json!(7), &json!(7)));
}

#[tokio::test]
async fn a_namespace_ends_when_its_finalizers_are_gone() {
    let server = Server::start().await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.ok();
    let path = "/api/v1/namespaces/n";
    let going = server.delete(path).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = server.post(&format!("{path}/configmaps"), &map("a")).await.refusal();
    assert!(refused.contains("because it is being terminated"), "{refused}");
    let mut done = server.get(path).await.ok();
    done["spec"]["finalizers"] = json!([]);
    server.put(&format!("{path}/finalize"), &done).await.ok();
    assert_eq!(server.get(path).await.code, 404);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let server = Server::start().await;
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("a")).await.code, 201);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    server.post(MAPS, &map("a")).await.ok();
    let changed = server.patch("merge", &format!("{MAPS}/a?dryRun=All"), &json!({"data": {"a": "2"}})).await.ok();
    assert_eq!(changed["data"]["a"], "2");
    server.delete(&format!("{MAPS}/a?dryRun=All")).await.ok();
    assert_eq!(server.get(&format!("{MAPS}/a")).await.ok()["data"]["a"], "1");
}

#[tokio::test]
async fn collections_go_by_selector() {
    let server = with_account().await;
    for name in ["a", "b", "c"] {
        server.post(PODS, &pod(name)).await.ok();
    }
    server.delete(&format!("{PODS}?labelSelector=app%20in%20(a,b)")).await.ok();
    let left = server.get(PODS).await.ok();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn discovery_openapi_and_health_answer() {
    let server = Server::start().await;
    let groups = server.get("/apis").await.ok();
    assert!(groups["groups"].as_array().is_some_and(|g| g.iter().any(|g| g["name"] == "apps")));
    let core = server.get("/api/v1").await.ok();
    assert!(core["resources"].as_array().is_some_and(|r| r.iter().any(|r| r["name"] == "pods/exec")));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = server.send("GET", "/apis", &[("accept", accept)], "").await;
    let tag = aggregated.headers["etag"].to_str().expect("a tag").to_string();
    assert_eq!(aggregated.body["kind"], "APIGroupDiscoveryList");
    let again = server.send("GET", "/apis", &[("accept", accept), ("if-none-match", &tag)], "").await;
    assert_eq!(again.code, 304);
    for (path, begins) in
        [("/api", "k8s\0\n\u{f}\n\0\u{12}\u{b}APIVersions"), ("/apis/apps", "k8s\0\n\u{e}\n\u{2}v1\u{12}\u{8}APIGroup")]
    {
        let answer = server.send("GET", path, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
        assert!(answer.body.as_str().is_some_and(|b| b.starts_with(begins)), "{path}: {}", answer.body);
    }
    assert!(server.get("/openapi/v3").await.ok()["paths"]["apis/apps/v1"].is_object());
    assert_eq!(server.get("/readyz").await.body, "ok");
    assert_eq!(server.get("/version").await.ok()["gitVersion"], "v1.37.2");
}

#[tokio::test]
async fn health_checks_are_listed_asked_for_one_by_one_and_left_out() {
    let server = Server::start().await;
    let text = async |path: &str| server.get(path).await.body.as_str().unwrap_or_default().to_string();
    let verbose = text("/livez?verbose").await;
    assert!(
        verbose.starts_with("[+]ping ok\n[+]log ok\n[+]loopback-serving-certificate ok\n[+]etcd ok\n"),
        "{verbose}"
    );
    assert!(verbose.ends_with("livez check passed\n"), "{verbose}");
    assert_eq!(text("/livez/poststarthook/crd-informer-synced").await, "ok");
    assert_eq!(server.get("/livez/shutdown").await.code, 404);
    let without = text("/readyz?verbose&exclude=etcd&exclude=b&exclude=a").await;
    assert!(without.contains("[+]etcd excluded: ok\n"), "{without}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n";
    assert!(without.ends_with(warning), "{without}");
    let slis = text("/metrics/slis").await;
    assert!(slis.contains("kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 1\n"), "{slis}");
}

#[tokio::test]
async fn kubectl_gets_its_tables() {
    let server = with_account().await;
    server.post(PODS, &pod("a")).await.ok();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = server.send("GET", PODS, &[("accept", accept)], "").await.ok();
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(table["metadata"]["resourceVersion"].is_string());
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = server.send("GET", PODS, &[("accept", metadata)], "").await.ok();
    assert_eq!((&list["kind"], list["items"][0].get("spec")), (&json!("PartialObjectMetadataList"), None));
}

/// Apply once looked up the schema of built-in kinds by the wrong name and took every list for one value.
#[tokio::test]
async fn appliers_share_a_list_by_its_keys() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/services/web";
    let ports = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": ports}});
    let one = ports(json!([{"name": "a", "port": 80}]));
    server.patch("apply", &format!("{path}?fieldManager=one"), &one).await.ok();
    let two = ports(json!([{"name": "b", "port": 81}]));
    let both = server.patch("apply", &format!("{path}?fieldManager=two"), &two).await.ok();
    assert_eq!(both["spec"]["ports"].as_array().map(Vec::len), Some(2));
    let unknown = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"odd": 1}});
    assert_eq!(
        server.patch("apply", &format!("{path}?fieldManager=two"), &unknown).await.refusal(),
        "500 : failed to create typed patch object (/web; /v1, Kind=Service): .spec.odd: field not declared in schema"
    );
}

/// ingress-nginx and many others ask for this; it was refused for want of a port that only the server can draw.
#[tokio::test]
async fn a_balancer_that_keeps_traffic_local_gets_a_port_for_health_checks() {
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let server = Server::start().await;
    let service = |name: &str, policy: &str, health: i64| {
        let mut made = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]}});
        if health != 0 {
            made["spec"]["healthCheckNodePort"] = json!(health);
        }
        made
    };
    let made = server.post(SERVICES, &service("a", "Local", 0)).await.ok();
    let port = made["spec"]["healthCheckNodePort"].as_i64().expect("a port");
    assert!((30000..=32767).contains(&port) && made["spec"]["ports"][0]["nodePort"] != port, "{made}");
    let path = format!("{SERVICES}/a");
    let kept = server.put(&path, &service("a", "Local", 0)).await.ok();
    assert_eq!(kept["spec"]["healthCheckNodePort"], port);
    assert_eq!(
        server.put(&path, &service("a", "Local", 30777)).await.refusal(),
        r#"422 Invalid: Service "a" is invalid: spec.healthCheckNodePort: Forbidden: field is immutable"#
    );
    let taken =
        format!("500 : failed to allocate requested HealthCheck NodePort {port}: provided port is already allocated");
    assert_eq!(server.post(SERVICES, &service("b", "Local", port)).await.refusal(), taken);
    let without = server.patch("merge", &path, &json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await.ok();
    assert_eq!(without["spec"].get("healthCheckNodePort"), None, "{without}");
    server.post(SERVICES, &service("b", "Local", port)).await.ok();
}
