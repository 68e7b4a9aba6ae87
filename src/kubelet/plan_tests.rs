//! What the plan says, as text.

use expect_test::{Expect, expect};
use jiff::Timestamp;

use super::*;
use crate::memory::{Failure, FailureKind, ProbeResults, Verdict};
use crate::observed::{Container, Sandbox};
use crate::pod::tests::pod_with;

const NOW: i64 = 1_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).expect("in range")
}

fn show(action: &Action) -> String {
    match action {
        Action::SetUpVolumes => "set up volumes".into(),
        Action::StartSandbox { attempt, replaces } => format!("start sandbox {attempt} replacing {replaces:?}"),
        Action::Start(s) => format!("start {:?} {} attempt {}", s.kind, s.container, s.attempt),
        Action::Kill(k) => format!("kill {} in {}s: {}", k.id, k.deadline.as_second() - NOW, k.message),
        Action::Resize { id, .. } => format!("resize {id}"),
        Action::ShowBackOff { container, until, what } => {
            format!("show {} of {container} for {}s", what.reason(), until.as_second() - NOW)
        }
        Action::Terminate(t) => format!("terminate {:?}", t.why),
        Action::StopSandboxes { ids } => format!("stop sandboxes {ids:?}"),
        Action::TearDownVolumes => "tear down volumes".into(),
        Action::Finish => "finish".into(),
        Action::DeleteFromApi => "delete from api".into(),
    }
}

/// `world`: lines `sandbox ready|dead`, `<name> <attempt> running|exited:<code>[@<ago>]|created [old]`.
struct World {
    pod: Pod,
    seen: Observed,
    memory: Memory,
}

fn world(spec: &str, lines: &str) -> World {
    let mut seen = Observed::default();
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "sandbox" {
            let ready = words[1] == "ready";
            let ips = if ready { vec!["10.0.0.1".into()] } else { vec![] };
            seen.sandboxes.push(Sandbox { id: "s0".into(), attempt: 0, ready, ips, created_at: at(-60) });
            continue;
        }
        let (state, ago) = words[2].split_once('@').unwrap_or((words[2], "0"));
        let (state, code) = state.split_once(':').unwrap_or((state, "0"));
        let state = match state {
            "running" => State::Running,
            "created" => State::Created,
            _ => State::Exited,
        };
        seen.containers.push(Container {
            id: format!("{}{}", words[0], words[1]),
            sandbox_id: if words.get(3) == Some(&"old") { "gone".into() } else { "s0".into() },
            name: words[0].into(),
            attempt: words[1].parse().expect("a number"),
            state,
            created_at: at(-60),
            started_at: Some(at(-60)),
            finished_at: Some(at(-ago.parse::<i64>().expect("seconds"))),
            exit_code: code.parse().expect("a code"),
            restart_count: words[1].parse().expect("a number"),
            reason: String::new(),
            message: String::new(),
            image: "i".into(),
            image_ref: "sha256:i".into(),
            hash: String::new(),
            log_path: String::new(),
            termination_message_file: String::new(),
            termination_message_policy: String::new(),
            user: None,
            resources_asked: String::new(),
        });
    }
    seen.containers.sort_by_key(|c| std::cmp::Reverse(c.attempt));
    World { pod: pod_with(spec, "{}"), seen, memory: Memory { volumes: Volumes::Ready, ..Memory::default() } }
}

impl World {
    fn check(&self, expected: Expect) {
        let plan = plan(&self.pod, &self.seen, &self.memory, at(0));
        let mut lines: Vec<String> = plan.actions.iter().map(show).collect();
        lines.extend(plan.wake_at.map(|t| format!("wake in {}s", t.as_second() - NOW)));
        expected.assert_eq(&lines.join("\n"));
    }
}

#[test]
fn volumes_come_before_the_sandbox_and_the_sandbox_before_containers() {
    let mut world = world("containers: [{name: a}]", "");
    world.memory.volumes = Volumes::Unset;
    world.check(expect!["set up volumes"]);
    world.memory.volumes = Volumes::Ready;
    world.check(expect!["start sandbox 0 replacing None"]);
}

#[test]
fn containers_start_one_after_the_other() {
    world("containers: [{name: a}, {name: b}]", "sandbox ready").check(expect!["start App a attempt 0"]);
    world("containers: [{name: a}, {name: b}]", "sandbox ready\na 0 running").check(expect!["start App b attempt 0"]);
}

#[test]
fn init_containers_run_to_their_end_before_the_next() {
    let spec = "{initContainers: [{name: i}, {name: j}], containers: [{name: a}]}";
    world(spec, "sandbox ready").check(expect!["start Init i attempt 0"]);
    world(spec, "sandbox ready\ni 0 running").check(expect![""]);
    world(spec, "sandbox ready\ni 0 exited:0").check(expect!["start Init j attempt 0"]);
    world(spec, "sandbox ready\ni 0 exited:0\nj 0 exited:0").check(expect!["start App a attempt 0"]);
}

#[test]
fn a_sidecar_lets_the_next_pass_once_it_has_started() {
    let spec = "{initContainers: [{name: s, restartPolicy: Always, startupProbe: {}}], containers: [{name: a}]}";
    let mut world = world(spec, "sandbox ready\ns 0 running");
    world.check(expect![""]);
    let started = ProbeResults { startup: Some(Verdict::Success), ..Default::default() };
    world.memory.probes.insert("s0".into(), started);
    world.check(expect!["start App a attempt 0"]);
}

#[test]
fn a_sidecar_that_ends_starts_again_while_the_pod_runs() {
    let spec = "{restartPolicy: Never, initContainers: [{name: s, restartPolicy: Always}], containers: [{name: a}]}";
    world(spec, "sandbox ready\ns 0 exited:0\na 0 running").check(expect!["start Sidecar s attempt 1"]);
}

#[test]
fn the_restart_policy_decides_what_an_exit_means() {
    let exited = |policy: &str, code: &str| {
        world(
            &format!("{{restartPolicy: {policy}, containers: [{{name: a}}, {{name: b}}]}}"),
            &format!("sandbox ready\nb 0 running\na 0 exited:{code}"),
        )
    };
    exited("Always", "0").check(expect!["start App a attempt 1"]);
    exited("OnFailure", "0").check(expect![""]);
    exited("OnFailure", "1").check(expect!["start App a attempt 1"]);
    exited("Never", "1").check(expect![""]);
}

#[test]
fn a_crash_is_shown_for_a_moment_and_then_waits() {
    let mut world = world("containers: [{name: a}]", "sandbox ready\na 1 exited:1@3");
    world.memory.container("a").crash.tried(at(-20), at(-20));
    world.check(expect![[r#"
        show CrashLoopBackOff of a for 7s
        wake in 7s"#]]);
    world.memory.container("a").failure = Some(Failure {
        kind: FailureKind::CrashLoop,
        reason: "CrashLoopBackOff".into(),
        message: String::new(),
        at: at(-2),
    });
    world.check(expect!["wake in 7s"]);
}

#[test]
fn a_dead_sandbox_is_replaced_and_init_containers_run_again() {
    let spec = "{initContainers: [{name: i}], containers: [{name: a}]}";
    world(spec, "sandbox dead\ni 0 exited:0\na 0 exited:137")
        .check(expect![[r#"start sandbox 1 replacing Some("s0")"#]]);
    world(spec, "sandbox ready\ni 0 exited:0 old\na 0 exited:137 old").check(expect!["start Init i attempt 1"]);
}

#[test]
fn what_runs_in_a_dead_sandbox_is_ended_first() {
    world("containers: [{name: a}]", "sandbox dead\na 0 running")
        .check(expect!["kill a0 in 30s: Pod sandbox changed, it will be killed and re-created."]);
}

#[test]
fn a_failed_liveness_probe_kills_with_the_probes_own_grace() {
    let spec = "containers: [{name: a, livenessProbe: {terminationGracePeriodSeconds: 5}}]";
    let mut world = world(spec, "sandbox ready\na 0 running");
    let dead = ProbeResults { liveness: Some(Verdict::Failure), ..Default::default() };
    world.memory.probes.insert("a0".into(), dead);
    world.check(expect!["kill a0 in 5s: Container a failed liveness probe, will be restarted"]);
}

#[test]
fn a_pod_whose_containers_are_all_done_is_completed() {
    world("{restartPolicy: Never, containers: [{name: a}]}", "sandbox ready\na 0 exited:0")
        .check(expect!["terminate Completed"]);
    world(
        "{restartPolicy: Never, initContainers: [{name: i}], containers: [{name: a}]}",
        "sandbox ready\ni 0 exited:1",
    )
    .check(expect!["terminate Completed"]);
}

#[test]
fn an_active_deadline_ends_the_pod() {
    let mut world = world("{activeDeadlineSeconds: 10, containers: [{name: a}]}", "sandbox ready\na 0 running");
    world.pod.api_status.start_time = Some(crate::container_status::second(at(-4)));
    world.check(expect!["wake in 6s"]);
    world.pod.api_status.start_time = Some(crate::container_status::second(at(-10)));
    world.check(expect![[
        r#"terminate Failed { reason: "DeadlineExceeded", message: "Pod was active on the node longer than the specified deadline" }"#
    ]]);
}

fn ending(mut world: World) -> World {
    world.memory.stage = Stage::Terminating(Termination { why: Why::Deleted, deadline: at(30) });
    world
}

#[test]
fn ending_goes_containers_sidecars_sandbox_volumes() {
    let spec = "{initContainers: [{name: s, restartPolicy: Always}, {name: t, restartPolicy: Always}], containers: [{name: a}]}";
    ending(world(spec, "sandbox ready\ns 0 running\nt 0 running\na 0 running")).check(expect![[r#"
        kill a0 in 30s: Stopping container a
        wake in 30s"#]]);
    ending(world(spec, "sandbox ready\ns 0 running\nt 0 running\na 0 exited:0")).check(expect![[r#"
        kill t0 in 30s: Stopping container t
        wake in 30s"#]]);
    ending(world(spec, "sandbox ready\ns 0 exited:0\na 0 exited:0")).check(expect![[r#"stop sandboxes ["s0"]"#]]);
    let mut stopped = ending(world(spec, "sandbox dead\na 0 exited:0"));
    stopped.check(expect!["tear down volumes"]);
    stopped.memory.volumes = Volumes::TornDown;
    stopped.check(expect!["finish"]);
}

#[test]
fn a_shorter_grace_stops_again_what_is_being_stopped() {
    let mut world = ending(world("containers: [{name: a}]", "sandbox ready\na 0 running"));
    world.memory.container("a").op = ContainerOp::Stopping { id: "a0".into(), deadline: at(30) };
    world.check(expect![""]);
    world.memory.stage = Stage::Terminating(Termination { why: Why::Deleted, deadline: at(1) });
    world.check(expect!["kill a0 in 1s: Stopping container a"]);
}

#[test]
fn an_ephemeral_container_starts_once() {
    let spec = "{containers: [{name: a}], ephemeralContainers: [{name: e}]}";
    world(spec, "sandbox ready\na 0 running").check(expect!["start Ephemeral e attempt 0"]);
    world(spec, "sandbox ready\na 0 running\ne 0 exited:1").check(expect![""]);
}
