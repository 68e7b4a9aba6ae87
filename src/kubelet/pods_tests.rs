//! Whole pods: dispatcher, workers, volumes and status against an API server and a runtime in memory.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use minik_api::resources::{PODS, SERVICES};
use minik_client::{Cache, EventRecorder, Tasks};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::dispatcher::{self, Pods};
use crate::dns::ClusterDns;
use crate::sources::Sources;
use crate::testing::{FakeApi, FakeRuntime};

struct Kubelet {
    api: Arc<FakeApi>,
    runtime: FakeRuntime,
    dir: Arc<tempfile::TempDir>,
    cancel: CancellationToken,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.cancel.cancel();
        let _ = crate::volumes::unmount_below(self.dir.path());
    }
}

fn start() -> Kubelet {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    start_on(FakeApi::new(), FakeRuntime::new(&["box:1"]), dir)
}

fn start_on(api: Arc<FakeApi>, runtime: FakeRuntime, dir: Arc<tempfile::TempDir>) -> Kubelet {
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());
    let client = api.client();
    let (up, network_ready) = watch::channel(true);
    tasks.spawn(async move { up.closed().await });
    let context = NodeContext {
        node_name: "n1".into(),
        node_ip: [192, 0, 2, 1].into(),
        client: client.clone(),
        cri: runtime.cri(),
        recorder: EventRecorder::new(client.clone(), "kubelet", "n1", &tasks),
        sources: Sources::new(client.clone()),
        services: Cache::builder(client.clone()).watch(SERVICES).start(&tasks),
        dns: ClusterDns { servers: vec![], domain: "cluster.local".into() },
        resolv_conf_path: "/etc/resolv.conf".into(),
        log_dir: dir.path().join("logs"),
        root_dir: dir.path().join("kubelet"),
        runtime_name: "fake".into(),
        allocatable: [("cpu", "64"), ("memory", "64Gi"), ("pods", "110")]
            .map(|(name, amount)| (name.to_string(), Quantity(amount.into())))
            .into(),
        room: Default::default(),
        node_object: Cache::builder(client.clone()).start(&tasks),
        kernel: crate::resources::Kernel { memory_bytes: 8 << 30, ..Default::default() },
        network_ready,
    };
    let mine = Cache::builder(client).watch_selected(PODS, "spec.nodeName=n1", "").start(&tasks);
    tasks.spawn(dispatcher::run(Arc::new(context), mine, Pods::default(), tasks.clone()));
    Kubelet { api, runtime, dir, cancel }
}

impl Kubelet {
    /// Creates pod `default/p` from the YAML of its spec.
    fn pod(&self, spec: &str) {
        let mut spec: Value = serde_yaml::from_str(spec).expect("YAML");
        spec["nodeName"] = "n1".into();
        let metadata = json!({"name": "p", "namespace": "default", "uid": "uid-p", "generation": 1});
        self.api.put("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}));
    }
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut pod = self.api.get("pods", "default", "p").expect("there");
        change(&mut pod);
        self.api.put("pods", pod);
    }
    async fn wait(&self, what: &str, condition: impl Fn(&Value) -> bool) {
        self.api.wait("pods", "default", "p", what, |pod| pod.is_some_and(|p| condition(&p["status"]))).await;
    }
    async fn wait_ready(&self) {
        self.wait("ready", |s| condition(s, "Ready") == "True").await;
    }
    async fn wait_gone(&self) {
        self.api.wait("pods", "default", "p", "gone", |pod| pod.is_none()).await;
    }
    /// Waits for what a file of the projected volume `v` says.
    async fn wait_file(&self, name: &str, says: impl Fn(&str) -> bool) -> String {
        let path = self.dir.path().join("kubelet/pods/uid-p/volumes/kubernetes.io~projected/v").join(name);
        let mut last = String::new();
        for _ in 0..1000 {
            last = std::fs::read_to_string(&path).unwrap_or_default();
            if says(&last) {
                return last;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{name} says {last:?}");
    }
    fn calls(&self) -> String {
        self.runtime.calls().join("\n")
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let list = status["conditions"].as_array().into_iter().flatten();
    list.clone().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or("")
}

#[tokio::test]
async fn a_pod_runs_is_deleted_and_leaves_nothing() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1'}, {name: b, image: 'box:1'}]}");
    kubelet.wait_ready().await;
    let pod = kubelet.api.get("pods", "default", "p").expect("there");
    assert_eq!(pod["status"]["podIP"], "10.0.0.1");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(kubelet.calls(), "run sandbox 0\nstart a 0\nstart b 0");
    kubelet.api.ask_to_delete("default", "p", 5);
    kubelet.wait_gone().await;
    for _ in 0..200 {
        if kubelet.runtime.is_empty() && !kubelet.dir.path().join("kubelet/pods/uid-p").exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("something of the pod stays: {}", kubelet.calls());
}

#[tokio::test]
async fn init_containers_run_one_after_the_other_and_again_after_power_loss() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, initContainers: [{name: i, image: 'box:1'}, {name: j, image: 'box:1'}], containers: [{name: a, image: 'box:1'}]}");
    let started = |name: &'static str, n: u64| {
        move |s: &Value| {
            let list = s["initContainerStatuses"].as_array().into_iter().flatten();
            list.clone().any(|c| c["name"] == name && c["state"]["running"].is_object() && c["restartCount"] == n)
        }
    };
    kubelet.wait("running i", started("i", 0)).await;
    kubelet.runtime.exit("i", 0);
    kubelet.wait("running j", started("j", 0)).await;
    kubelet.runtime.exit("j", 0);
    kubelet.wait_ready().await;
    kubelet.runtime.lose_power();
    kubelet.wait("running i again", started("i", 1)).await;
    kubelet.runtime.exit("i", 0);
    kubelet.wait("running j again", started("j", 1)).await;
    kubelet.runtime.exit("j", 0);
    kubelet
        .wait("restarted", |s| s["containerStatuses"][0]["restartCount"] == 1 && condition(s, "Ready") == "True")
        .await;
    assert_eq!(
        kubelet.calls(),
        "run sandbox 0\nstart i 0\nstart j 0\nstart a 0\nstop sandbox\nrun sandbox 1\nstart i 1\nstart j 1\nstart a 1"
    );
}

#[tokio::test]
async fn a_job_pod_succeeds_and_its_sandbox_is_stopped() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Never, containers: [{name: a, image: 'box:1'}]}");
    kubelet.wait_ready().await;
    kubelet.runtime.exit("a", 0);
    kubelet.wait("Succeeded", |s| s["phase"] == "Succeeded").await;
    let pod = kubelet.api.get("pods", "default", "p").expect("there");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod["status"], "Ready"), "False");
}

/// A controller that replaces failed pods must be able to see that one failed.
#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_else_wrote_stands_for_a_while() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1'}]}");
    kubelet.wait_ready().await;
    kubelet.edit(|pod| pod["status"]["phase"] = "Failed".into());
    let written = tokio::time::Instant::now();
    kubelet.wait("Running again", |s| s["phase"] == "Running").await;
    assert!(written.elapsed() >= std::time::Duration::from_secs(10), "after {:?}", written.elapsed());
}

#[tokio::test]
async fn a_crash_is_restarted_at_once_and_then_waits() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1'}]}");
    kubelet.wait_ready().await;
    kubelet.runtime.exit("a", 1);
    kubelet
        .wait("restarted", |s| s["containerStatuses"][0]["restartCount"] == 1 && condition(s, "Ready") == "True")
        .await;
    kubelet.runtime.exit("a", 1);
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    kubelet.wait("backing off", waiting).await;
    let pod = kubelet.api.get("pods", "default", "p").expect("there");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        status["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=a pod=p_default(uid-p)"
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
}

#[tokio::test]
async fn a_new_kubelet_adopts_what_runs_without_touching_it() {
    let first = start();
    first.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1', readinessProbe: {exec: {command: [x, '0']}, periodSeconds: 1}}]}");
    first.wait_ready().await;
    let before = first.api.get("pods", "default", "p").expect("there");
    let (api, runtime, dir) = (first.api.clone(), first.runtime.clone(), first.dir.clone());
    first.cancel.cancel();
    let second = start_on(api, runtime, dir);
    second.edit(|pod| pod["metadata"]["generation"] = 2.into());
    second.wait("seen by the new kubelet", |s| s["observedGeneration"] == 2).await;
    let after = second.api.get("pods", "default", "p").expect("there");
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    assert_eq!(condition(&after["status"], "Ready"), "True");
    let starts = second.runtime.calls().iter().filter(|c| c.starts_with("start") || c.starts_with("run")).count();
    assert_eq!(starts, 2);
}

#[tokio::test]
async fn a_config_map_that_comes_late_is_used_at_once_and_followed() {
    let kubelet = start();
    kubelet.pod(
        "{restartPolicy: Always, volumes: [{name: v, configMap: {name: m}}], containers: [{name: a, image: 'box:1', env: [{name: E, valueFrom: {configMapKeyRef: {name: m, key: k}}}], volumeMounts: [{name: v, mountPath: /v}]}]}",
    );
    kubelet.wait("started", |s| s["startTime"].is_string()).await;
    kubelet.api.put("configmaps", json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"k": "one"}}));
    kubelet.wait_ready().await;
    let config = kubelet.runtime.config("a");
    assert!(config.envs.iter().any(|e| e.key == "E" && e.value == "one"));
    let mount = config.mounts.iter().find(|m| m.container_path == "/v").expect("mounted");
    assert!(mount.readonly);
    let file = std::path::Path::new(&mount.host_path).join("k");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "one");
    kubelet.api.put("configmaps", json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"k": "two"}}));
    for _ in 0..500 {
        if std::fs::read_to_string(&file).is_ok_and(|t| t == "two") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the file still says {:?}", std::fs::read_to_string(&file));
}

/// It took the next probe or restart to write them: the change was noticed after the worker had decided what is due.
#[tokio::test]
async fn labels_that_change_reach_the_files_that_show_them_at_once() {
    let kubelet = start();
    kubelet.pod(
        "{restartPolicy: Always, volumes: [{name: v, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}], containers: [{name: a, image: 'box:1', volumeMounts: [{name: v, mountPath: /v}]}]}",
    );
    kubelet.wait_ready().await;
    let config = kubelet.runtime.config("a");
    let mount = config.mounts.iter().find(|m| m.container_path == "/v").expect("mounted");
    let file = std::path::Path::new(&mount.host_path).join("labels");
    kubelet.edit(|pod| pod["metadata"]["labels"] = json!({"app": "web"}));
    for _ in 0..500 {
        if std::fs::read_to_string(&file).is_ok_and(|t| t == "app=\"web\"") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the file still says {:?}", std::fs::read_to_string(&file));
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_told_and_backed_off() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: nope}]}");
    let waiting =
        |reason: &'static str| move |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
    kubelet.wait("failing", waiting("ErrImagePull")).await;
    kubelet.wait("backing off", waiting("ImagePullBackOff")).await;
    let pod = kubelet.api.get("pods", "default", "p").expect("there");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "Back-off pulling image \"nope\": ErrImagePull: nope:latest: not found"
    );
    assert_eq!(kubelet.calls(), "run sandbox 0\npull nope:latest");
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1', livenessProbe: {exec: {command: [x, '1']}, periodSeconds: 1, failureThreshold: 1}}]}");
    kubelet.wait("restarted", |s| s["containerStatuses"][0]["restartCount"] == 1).await;
    let calls = kubelet.calls();
    assert!(calls.starts_with("run sandbox 0\nstart a 0\nexec x 1\nstop a\nstart a 1"), "{calls}");
}

#[tokio::test]
async fn pre_stop_runs_before_the_signal() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1', lifecycle: {preStop: {exec: {command: [bye, '0']}}}}]}");
    kubelet.wait_ready().await;
    kubelet.api.ask_to_delete("default", "p", 5);
    kubelet.wait_gone().await;
    assert!(
        kubelet.calls().starts_with("run sandbox 0\nstart a 0\nexec bye 0\nstop a\nstop sandbox"),
        "{}",
        kubelet.calls()
    );
}

#[tokio::test]
async fn a_resize_is_applied_in_place_and_told() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1', resources: {limits: {memory: 64Mi}, requests: {memory: 64Mi}}}]}");
    kubelet.wait_ready().await;
    kubelet.edit(|pod| {
        pod["spec"]["containers"][0]["resources"] =
            json!({"limits": {"memory": "128Mi"}, "requests": {"memory": "64Mi"}});
        pod["metadata"]["generation"] = 2.into();
    });
    let resized = |s: &Value| s["containerStatuses"][0]["resources"]["limits"]["memory"] == "128Mi";
    kubelet.wait("resized", resized).await;
    kubelet.wait("settled", |s| condition(s, "PodResizeInProgress").is_empty()).await;
    assert_eq!(kubelet.calls(), format!("run sandbox 0\nstart a 0\nresize to {}", 128 << 20));
}

#[tokio::test]
async fn a_forbidden_sysctl_fails_the_pod_before_anything_runs() {
    let kubelet = start();
    kubelet.pod("{restartPolicy: Always, securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}, containers: [{name: a, image: 'box:1'}]}");
    kubelet.wait("refused", |s| s["phase"] == "Failed" && s["reason"] == "SysctlForbidden").await;
    assert_eq!(kubelet.calls(), "");
}

/// A node container that Docker restarted has an empty /run: its containers are gone and so is every record of them.
#[tokio::test]
async fn containers_the_runtime_forgot_start_again_as_restarts() {
    let first = start();
    first.pod("{restartPolicy: Always, containers: [{name: a, image: 'box:1'}]}");
    first.wait_ready().await;
    let (api, dir) = (first.api.clone(), first.dir.clone());
    first.cancel.cancel();
    let second = start_on(api, FakeRuntime::new(&["box:1"]), dir);
    let restarted = |s: &Value| s["containerStatuses"][0]["restartCount"] == 1 && condition(s, "Ready") == "True";
    second.wait("restarted", restarted).await;
    let pod = second.api.get("pods", "default", "p").expect("there");
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)));
}

#[tokio::test]
async fn trust_bundles_of_a_signer_are_followed_while_the_pod_runs() {
    let kubelet = start();
    let bundle = |name: &str, labels: Value, text: &str| {
        let body = base64_of(text);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let metadata = json!({"name": name, "labels": labels});
        json!({"metadata": metadata, "spec": {"signerName": "x.io/s", "trustBundle": pem}})
    };
    kubelet.api.put("clustertrustbundles", bundle("x.io:s:one", json!({"live": "yes"}), "one"));
    kubelet.api.put("clustertrustbundles", bundle("x.io:s:off", json!({}), "off"));
    kubelet.pod(
        "{restartPolicy: Always, volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {signerName: x.io/s, labelSelector: {matchLabels: {live: 'yes'}}, path: ca.pem}}]}}], containers: [{name: a, image: 'box:1', volumeMounts: [{name: v, mountPath: /v}]}]}",
    );
    kubelet.wait_ready().await;
    let (one, off) = (base64_of("one"), base64_of("off"));
    kubelet.wait_file("ca.pem", |text| text.contains(&one) && !text.contains(&off)).await;
    kubelet.api.put("clustertrustbundles", bundle("x.io:s:two", json!({"live": "yes"}), "two"));
    kubelet.wait_file("ca.pem", |text| text.contains(&one) && text.contains(&base64_of("two"))).await;
}

#[tokio::test]
async fn a_pod_certificate_is_asked_for_waited_for_and_renewed() {
    let kubelet = start();
    kubelet.api.put("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default", "uid": "sa"}}));
    kubelet.api.put("nodes", json!({"metadata": {"name": "n1", "uid": "node"}}));
    kubelet.pod(
        "{restartPolicy: Always, volumes: [{name: v, projected: {sources: [{podCertificate: {signerName: x.io/s, keyType: ECDSAP256, credentialBundlePath: all.pem, certificateChainPath: chain.pem, userAnnotations: {x.io/a: b}}}]}}], containers: [{name: a, image: 'box:1', volumeMounts: [{name: v, mountPath: /v}]}]}",
    );
    let request = kubelet.api.wait_any("podcertificaterequests").await;
    let spec = &request["spec"];
    assert_eq!(
        (&spec["podUID"], &spec["serviceAccountUID"], &spec["nodeUID"]),
        (&json!("uid-p"), &json!("sa"), &json!("node"))
    );
    assert_eq!(spec["unverifiedUserAnnotations"], json!({"x.io/a": "b"}));
    assert_eq!(request["metadata"]["ownerReferences"][0]["uid"], "uid-p");
    let answer = |mut request: Value, leaf: &str, refresh_in: i64| {
        let at = |seconds: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
        let pem = format!("leaf\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64_of(leaf));
        request["status"] = json!({"certificateChain": pem, "beginRefreshAt": at(refresh_in), "notAfter": at(3600),
            "conditions": [{"type": "Issued", "status": "True"}]});
        kubelet.api.put("podcertificaterequests", request);
    };
    answer(request.clone(), "first", 1);
    kubelet.wait_ready().await;
    let first = kubelet.wait_file("all.pem", |text| text.contains(&base64_of("first"))).await;
    assert!(first.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{first}");
    kubelet.wait_file("chain.pem", |text| text.starts_with("-----BEGIN CERTIFICATE-----\n")).await;
    let old = request["metadata"]["name"].as_str().expect("a name").to_string();
    let renewal = kubelet.api.wait_other("podcertificaterequests", &old).await;
    assert_ne!(renewal["spec"]["stubPKCS10Request"], request["spec"]["stubPKCS10Request"]);
    answer(renewal, "second", 3000);
    let second = kubelet.wait_file("all.pem", |text| text.contains(&base64_of("second"))).await;
    assert_ne!(first.lines().nth(1), second.lines().nth(1));
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
