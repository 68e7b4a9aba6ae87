//! What a Deployment does next, told as ReplicaSets before and actions after.

use expect_test::{Expect, expect};
use minik_api::ObjectKey;
use minik_api::resources::{DEPLOYMENTS, PODS, REPLICASETS};
use minik_client::{Reconciler, View};
use serde_json::{Value, json};

use super::Deployment;

const NOW: &str = "2026-01-01T01:00:00Z";

fn deployment(replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "d", "name": "web", "uid": "u", "resourceVersion": "9", "generation": 2,
                     "annotations": {"note": "x"}},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": template(image, None),
        },
    })
}
fn template(image: &str, hash: Option<&str>) -> Value {
    let mut labels = json!({"app": "web"});
    if let Some(hash) = hash {
        labels["pod-template-hash"] = hash.into();
    }
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
}
/// `available` of `size` Pods of `image`, made in the order of `revision`.
fn set(image: &str, revision: i64, size: i64, available: i64, desired: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "namespace": "d", "name": format!("web-{image}"), "uid": image, "resourceVersion": "5",
            "labels": {"app": "web"}, "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
            "annotations": {"note": "x", "deployment.kubernetes.io/revision": revision.to_string(),
                            "deployment.kubernetes.io/desired-replicas": desired.to_string(),
                            "deployment.kubernetes.io/max-replicas": (desired + (desired + 3) / 4).to_string()},
            "ownerReferences": [{"uid": "u", "controller": true, "kind": "Deployment", "name": "web"}],
        },
        "spec": {"replicas": size, "template": template(image, Some(image))},
        "status": {"replicas": size, "readyReplicas": available, "availableReplicas": available},
    })
}
/// The plan without the write of the status, which has tests of its own.
fn check(deployment: Value, sets: &[Value], expected: Expect) {
    let text = plan(deployment, sets, &[]);
    let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with("update deployments/status")).collect();
    expected.assert_eq(&kept.join("\n"));
}
fn plan(deployment: Value, sets: &[Value], pods: &[Value]) -> String {
    let sets = sets.iter().map(|s| (REPLICASETS, s.clone()));
    let pods = pods.iter().map(|p| (PODS, p.clone()));
    let view = View::of(sets.chain(pods).chain([(DEPLOYMENTS, deployment)]));
    Deployment.plan(&view, &ObjectKey::new("d", "web"), NOW.parse().unwrap()).to_string()
}

#[test]
fn a_new_deployment_makes_its_first_replicaset_at_full_size() {
    check(
        deployment(4, "a"),
        &[],
        expect![[r#"
            create replicasets d/web-699f47fc85
            event Normal ScalingReplicaSet: Scaled up replica set web-699f47fc85 from 0 to 4"#]],
    );
}

#[test]
fn a_new_template_starts_with_the_surge() {
    check(
        deployment(4, "b"),
        &[set("a", 1, 4, 4, 4)],
        expect![[r#"
            create replicasets d/web-75d5b5754d
            event Normal ScalingReplicaSet: Scaled up replica set web-75d5b5754d from 0 to 1"#]],
    );
}

#[test]
fn the_old_goes_down_as_far_as_availability_allows() {
    let sets = [set("a", 1, 4, 4, 4), set("b", 2, 1, 0, 4)];
    check(
        deployment(4, "b"),
        &sets,
        expect![[r#"
        update replicasets d/web-a {"spec":{"replicas":3}}
        event Normal ScalingReplicaSet: Scaled down replica set web-a from 4 to 3"#]],
    );
}

#[test]
fn the_new_goes_up_into_the_room_the_old_left() {
    let sets = [set("a", 1, 3, 3, 4), set("b", 2, 1, 0, 4)];
    check(
        deployment(4, "b"),
        &sets,
        expect![[r#"
        update replicasets d/web-b {"spec":{"replicas":2}}
        event Normal ScalingReplicaSet: Scaled up replica set web-b from 1 to 2"#]],
    );
}

#[test]
fn unhealthy_old_pods_go_first_and_cost_no_availability() {
    let sets = [set("a", 1, 4, 2, 4), set("b", 2, 1, 1, 4)];
    check(
        deployment(4, "b"),
        &sets,
        expect![[r#"
        update replicasets d/web-a {"spec":{"replicas":2}}
        event Normal ScalingReplicaSet: Scaled down replica set web-a from 4 to 2"#]],
    );
}

#[test]
fn a_change_back_to_an_old_template_revives_its_replicaset_under_a_new_revision() {
    let sets = [set("a", 1, 0, 0, 4), set("b", 2, 4, 4, 4)];
    check(
        deployment(4, "a"),
        &sets,
        expect![[
            r#"update replicasets d/web-a {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3","deployment.kubernetes.io/revision-history":"1"}}}"#
        ]],
    );
}

#[test]
fn a_change_of_size_in_the_middle_of_a_rollout_is_shared_out() {
    let sets = [set("a", 1, 8, 8, 10), set("b", 2, 4, 2, 10)];
    check(
        deployment(20, "b"),
        &sets,
        expect![[r#"
        update replicasets d/web-a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"25"}},"spec":{"replicas":17}}
        event Normal ScalingReplicaSet: Scaled up replica set web-a from 8 to 17
        update replicasets d/web-b {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"25"}},"spec":{"replicas":8}}
        event Normal ScalingReplicaSet: Scaled up replica set web-b from 4 to 8"#]],
    );
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled_out() {
    let mut paused = deployment(6, "b");
    paused["spec"]["paused"] = true.into();
    check(
        paused,
        &[set("a", 1, 4, 4, 4)],
        expect![[r#"
        update replicasets d/web-a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"6","deployment.kubernetes.io/max-replicas":"8"}},"spec":{"replicas":6}}
        event Normal ScalingReplicaSet: Scaled up replica set web-a from 4 to 6"#]],
    );
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut recreate = deployment(2, "b");
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    check(
        recreate.clone(),
        &[set("a", 1, 2, 2, 2)],
        expect![[r#"
        update replicasets d/web-a {"metadata":{"annotations":{"deployment.kubernetes.io/max-replicas":"2"}},"spec":{"replicas":0}}
        event Normal ScalingReplicaSet: Scaled down replica set web-a from 2 to 0"#]],
    );
    let pod =
        json!({"metadata": {"namespace": "d", "name": "p", "ownerReferences": [{"uid": "a", "controller": true}]}});
    let waiting = plan(recreate.clone(), &[set("a", 1, 0, 0, 2)], &[pod]);
    assert!(!waiting.contains("create"), "{waiting}");
    let done = plan(recreate, &[set("a", 1, 0, 0, 2)], &[]);
    assert!(done.contains("create replicasets"), "{done}");
}

#[test]
fn old_empty_replicasets_beyond_the_limit_are_removed_when_the_rollout_is_complete() {
    let sets = [set("a", 1, 0, 0, 2), set("b", 2, 0, 0, 2), set("c", 3, 2, 2, 2)];
    check(deployment(2, "c"), &sets, expect!["delete replicasets d/web-a"]);
}

#[test]
fn the_status_tells_of_progress_its_end_and_its_deadline() {
    let mut d = deployment(2, "a");
    d["spec"]["progressDeadlineSeconds"] = 600.into();
    let text = plan(d.clone(), &[set("a", 1, 2, 1, 2)], &[]);
    assert!(
        text.contains(r#""message":"ReplicaSet \"web-a\" is progressing.","reason":"ReplicaSetUpdated""#),
        "{text}"
    );
    assert!(text.ends_with("again at 2026-01-01T01:10:01Z\n"), "{text}");
    let text = plan(d.clone(), &[set("a", 1, 2, 2, 2)], &[]);
    assert!(text.contains(r#""reason":"NewReplicaSetAvailable","status":"True""#), "{text}");
    d["status"] = json!({"replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1, "conditions": [
        {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": "2026-01-01T00:49:00Z"}]});
    let text = plan(d, &[set("a", 1, 2, 1, 2)], &[]);
    assert!(text.contains(r#""reason":"ProgressDeadlineExceeded","status":"False""#), "{text}");
}
