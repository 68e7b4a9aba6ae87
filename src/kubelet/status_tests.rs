//! Status of pods in typical situations.

use expect_test::{Expect, expect};
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::memory::{Failure, FailureKind};
use crate::observed::{Container, Sandbox};
use crate::pod::tests::pod_with;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("in range")
}

fn container(name: &str, state: State, exit_code: i32) -> Container {
    Container {
        id: format!("id-{name}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt: 0,
        state,
        created_at: at(0),
        started_at: Some(at(0)),
        finished_at: Some(at(5)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "sha256:i".into(),
        hash: String::new(),
        restart_count: 0,
        log_path: String::new(),
        termination_message_file: String::new(),
        termination_message_policy: String::new(),
        user: None,
        resources_asked: String::new(),
    }
}

fn ready_sandbox() -> Sandbox {
    Sandbox { id: "s".into(), attempt: 0, ready: true, ips: vec!["10.244.0.2".into()], created_at: at(0) }
}

/// Phase, true conditions, and each container's state in a line.
fn check(spec: &str, api: &str, containers: Vec<Container>, memory: &Memory, expected: Expect) {
    let pod = pod_with(spec, api);
    let seen = Observed { sandboxes: vec![ready_sandbox()], containers };
    let inputs =
        Inputs { pod: &pod, seen: &seen, memory, host_ip: [1, 2, 3, 4].into(), runtime_name: "minik", now: at(9) };
    let status = pod_status(&inputs);
    let mut text = status.phase.as_deref().unwrap_or("?").to_string();
    for c in status.conditions.iter().flatten() {
        match (c.status.as_str(), &c.reason, &c.message) {
            ("True", None, _) => text += &format!(" {}", c.type_),
            (s, reason, message) => {
                text += &format!(
                    "\n{}={s} {} {}",
                    c.type_,
                    reason.as_deref().unwrap_or(""),
                    message.as_deref().unwrap_or("")
                )
            }
        }
    }
    for c in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        let value = serde_json::to_value(&c.state).expect("plain data");
        let (kind, detail) = value.as_object().and_then(|m| m.iter().next()).expect("one state");
        let what = detail["reason"].as_str().unwrap_or("");
        text += &format!("\n{} {kind} {what} ready={} started={:?}", c.name, c.ready, c.started);
    }
    expected.assert_eq(&text);
}

#[test]
fn a_running_pod_without_probes_is_ready() {
    let running = vec![container("a", State::Running, 0)];
    check(
        "containers: [{name: a}]",
        "{}",
        running,
        &Memory::default(),
        expect![[r#"
        Running PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        a running  ready=true started=Some(true)"#]],
    );
}

#[test]
fn a_readiness_probe_holds_back_the_pod() {
    let running = vec![container("a", State::Running, 0)];
    check(
        "containers: [{name: a, readinessProbe: {}}]",
        "{}",
        running,
        &Memory::default(),
        expect![[r#"
        Running PodReadyToStartContainers Initialized
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a] PodScheduled
        a running  ready=false started=Some(true)"#]],
    );
}

#[test]
fn a_readiness_gate_needs_its_condition() {
    let running = vec![container("a", State::Running, 0)];
    check(
        "{containers: [{name: a}], readinessGates: [{conditionType: x/y}]}",
        "{}",
        running,
        &Memory::default(),
        expect![[r#"
        Running PodReadyToStartContainers Initialized
        Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate "x/y" does not exist. ContainersReady PodScheduled
        a running  ready=true started=Some(true)"#]],
    );
}

#[test]
fn init_containers_keep_the_pod_pending() {
    let spec = "{initContainers: [{name: i}], containers: [{name: a}]}";
    check(
        spec,
        "{}",
        vec![container("i", State::Running, 0)],
        &Memory::default(),
        expect![[r#"
        Pending PodReadyToStartContainers
        Initialized=False ContainersNotInitialized containers with incomplete status: [i]
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a] PodScheduled
        i running  ready=false started=Some(true)
        a waiting PodInitializing ready=false started=Some(false)"#]],
    );
}

#[test]
fn an_image_that_does_not_come_is_told_by_its_reason() {
    let mut memory = Memory::default();
    memory.container("a").failure = Some(Failure {
        kind: FailureKind::Pull,
        reason: "ErrImagePull".into(),
        message: "no such image".into(),
        at: at(0),
    });
    check(
        "containers: [{name: a}]",
        "{}",
        vec![],
        &memory,
        expect![[r#"
        Pending PodReadyToStartContainers Initialized
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a] PodScheduled
        a waiting ErrImagePull ready=false started=Some(false)"#]],
    );
}

#[test]
fn a_finished_pod_is_published_as_such_only_when_nothing_of_it_runs() {
    let spec = "{restartPolicy: Never, containers: [{name: a}]}";
    let done = || vec![container("a", State::Exited, 0)];
    check(
        spec,
        "{phase: Running}",
        done(),
        &Memory::default(),
        expect![[r#"
        Running PodReadyToStartContainers Initialized
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a] PodScheduled
        a terminated Completed ready=false started=Some(false)"#]],
    );
    let why = crate::memory::Termination { why: Why::Completed, deadline: at(30) };
    let memory = Memory { stage: Stage::Terminated(why), ..Memory::default() };
    check(
        spec,
        "{phase: Running}",
        done(),
        &memory,
        expect![[r#"
        Succeeded PodReadyToStartContainers
        Initialized=True PodCompleted 
        Ready=False PodCompleted 
        ContainersReady=False PodCompleted  PodScheduled
        a terminated Completed ready=false started=Some(false)"#]],
    );
}

#[test]
fn the_patch_names_only_what_changed_and_clears_what_no_longer_holds() {
    let condition = |status: &str, reason: Option<&str>| core::PodCondition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.map(String::from),
        ..Default::default()
    };
    let old = core::PodStatus {
        phase: Some("Pending".into()),
        host_ip: Some("1.2.3.4".into()),
        pod_ips: Some(vec![core::PodIP { ip: "10.0.0.1".into() }]),
        conditions: Some(vec![condition("False", Some("ContainersNotReady"))]),
        ..Default::default()
    };
    let new = core::PodStatus {
        phase: Some("Running".into()),
        pod_ips: Some(vec![core::PodIP { ip: "10.0.0.2".into() }]),
        conditions: Some(vec![condition("True", None)]),
        ..old.clone()
    };
    assert_eq!(patch("u", &new, &new), None);
    assert_eq!(
        patch("u", &old, &new),
        Some(json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null}],
        }}))
    );
}
