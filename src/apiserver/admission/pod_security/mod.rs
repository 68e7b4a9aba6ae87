//! PodSecurity: what pods of a namespace may do to their node, by the namespace's labels.
//!
//! Owns: enforcing, warning, and telling who would be refused when a namespace's level is raised.
//! Called by: the admission chain for namespaces, pods and everything that makes pods.
//! Never: changes a pod.

mod baseline;
mod check;
mod level;
mod restricted;

use minik_api::{Status, object, resources};
use serde_json::Value;

use self::check::Verdict;
use self::level::{Level, LevelVersion, Policy};
use super::plugin::{Plugin, World};
use super::{Operation, Review};

/// How many pods are looked at when a namespace's level is raised.
const PODS_CHECKED_MAX: usize = 3000;

pub struct PodSecurity;

impl Plugin for PodSecurity {
    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if !matches!(review.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        match (review.group.as_str(), review.resource.as_str()) {
            ("", "namespaces") if review.subresource.is_empty() => namespace(review, world),
            ("", "pods") => pod(review, world),
            _ if review.subresource.is_empty() => controller(review, world),
            _ => Ok(()),
        }
    }
}

fn namespace(review: &Review, world: &World) -> Result<(), Status> {
    let (new, faults) = Policy::of(&review.object["metadata"]["labels"]);
    let invalid = || Status::invalid("", "Namespace", object::name(&review.object), &faults);
    if review.operation == Operation::Create {
        return if faults.is_empty() { Ok(()) } else { Err(invalid()) };
    }
    let (old, old_faults) = Policy::of(&review.old["metadata"]["labels"]);
    if !faults.is_empty() && faults != old_faults {
        return Err(invalid());
    }
    let relaxed = new.enforce.version == old.enforce.version && new.enforce.level <= old.enforce.level;
    if new.enforce == old.enforce || new.enforce.level == Level::Privileged || relaxed {
        return Ok(());
    }
    for warning in existing_violations(object::name(&review.object), &new.enforce, world) {
        review.warn(warning);
    }
    Ok(())
}

fn existing_violations(namespace: &str, enforce: &LevelVersion, world: &World) -> Vec<String> {
    let pods = world.objects.list(resources::PODS, namespace);
    let mut found: std::collections::BTreeMap<String, (String, usize)> = std::collections::BTreeMap::new();
    for pod in pods.iter().take(PODS_CHECKED_MAX) {
        let verdict = evaluate(enforce, &pod["metadata"], &pod["spec"]);
        if !verdict.is_allowed() {
            let name = object::name(pod).to_string();
            let entry = found.entry(verdict.reasons()).or_insert_with(|| (name.clone(), 0));
            entry.1 += 1;
            entry.0 = entry.0.clone().min(name);
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > PODS_CHECKED_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {:?}",
            enforce.to_string()
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (pod, count))| match count {
            1 => format!("{pod}: {reasons}"),
            2 => format!("{pod} (and 1 other pod): {reasons}"),
            n => format!("{pod} (and {} other pods): {reasons}", n - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

fn policy_of(review: &Review, world: &World) -> Option<Policy> {
    let namespace = world.objects.get(resources::NAMESPACES, "", &review.namespace)?;
    Some(Policy::of(&namespace["metadata"]["labels"]).0)
}

fn pod(review: &Review, world: &World) -> Result<(), Status> {
    match review.subresource.as_str() {
        "exec" | "attach" | "binding" | "eviction" | "log" | "portforward" | "proxy" | "status" => return Ok(()),
        _ => {}
    }
    let Some(policy) = policy_of(review, world).filter(|p| !p.is_privileged()) else { return Ok(()) };
    if review.operation == Operation::Update && !is_significant(&review.object, &review.old) {
        return Ok(());
    }
    let (metadata, spec) = (&review.object["metadata"], &review.object["spec"]);
    let verdict = evaluate(&policy.enforce, metadata, spec);
    if !verdict.is_allowed() {
        let why = format!("violates PodSecurity {:?}: {}", policy.enforce.to_string(), verdict.details());
        return Err(review.forbid(&why));
    }
    warn(review, &policy, metadata, spec);
    Ok(())
}

/// Who makes pods is never refused, only warned: the pods themselves will be judged.
fn controller(review: &Review, world: &World) -> Result<(), Status> {
    let template = match (review.group.as_str(), review.resource.as_str()) {
        ("", "podtemplates") => &review.object["template"],
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => &review.object["spec"]["template"],
        ("batch", "cronjobs") => &review.object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return Ok(()),
    };
    if !template.is_object() {
        return Ok(());
    }
    if let Some(policy) = policy_of(review, world).filter(|p| p.warn.level != Level::Privileged) {
        warn(review, &policy, &template["metadata"], &template["spec"]);
    }
    Ok(())
}

fn warn(review: &Review, policy: &Policy, metadata: &Value, spec: &Value) {
    let verdict = evaluate(&policy.warn, metadata, spec);
    if !verdict.is_allowed() {
        review.warn(format!("would violate PodSecurity {:?}: {}", policy.warn.to_string(), verdict.details()));
    }
}

/// Of what may change in a pod, only images and new ephemeral containers matter.
fn is_significant(new: &Value, old: &Value) -> bool {
    let list = |pod: &Value, field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    for field in ["containers", "initContainers"] {
        let (new, old) = (list(new, field), list(old, field));
        if new.len() != old.len() || new.iter().zip(&old).any(|(n, o)| n["image"] != o["image"]) {
            return true;
        }
    }
    let known = list(old, "ephemeralContainers");
    list(new, "ephemeralContainers")
        .iter()
        .any(|n| known.iter().find(|o| o["name"] == n["name"]).is_none_or(|o| o["image"] != n["image"]))
}

fn evaluate(of: &LevelVersion, metadata: &Value, spec: &Value) -> Verdict {
    let pod = check::Pod { metadata, spec, version: of.version.minor() };
    match of.level {
        Level::Privileged => Verdict::default(),
        Level::Baseline => baseline::evaluate(&pod, &[]),
        Level::Restricted => {
            let mut verdict = baseline::evaluate(&pod, &restricted::overridden(&pod));
            verdict.extend(restricted::evaluate(&pod));
            verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{review, world};
    use super::*;

    fn check(labels: Value, spec: Value) -> Result<Vec<String>, String> {
        let namespace = json!({"kind": "Namespace", "metadata": {"name": "a", "labels": labels}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        let review = review(Operation::Create, pod);
        PodSecurity.validate(&review, &world(vec![namespace])).map_err(|s| s.message)?;
        Ok(review.warnings.into_inner())
    }

    fn enforce(level: &str) -> Value {
        json!({"pod-security.kubernetes.io/enforce": level})
    }

    #[test]
    fn a_plain_pod_violates_restricted_in_four_ways() {
        let plain = json!({"containers": [{"name": "c", "image": "i"}]});
        assert_eq!(check(json!({}), plain.clone()), Ok(vec![]));
        assert_eq!(check(enforce("baseline"), plain.clone()), Ok(vec![]));
        let details = r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;
        assert_eq!(
            check(enforce("restricted"), plain.clone()),
            Err(format!(r#"pods "p" is forbidden: violates PodSecurity "restricted:latest": {details}"#))
        );
        assert_eq!(
            check(
                json!({"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/warn-version": "v1.30"}),
                plain
            ),
            Ok(vec![format!(r#"would violate PodSecurity "restricted:v1.30": {details}"#)])
        );
    }

    #[test]
    fn baseline_names_what_reaches_for_the_node() {
        let spec = json!({"hostNetwork": true, "hostPID": true, "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
            "containers": [
                {"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN"]}}, "ports": [{"hostPort": 80}]},
                {"name": "b", "securityContext": {"privileged": true, "seLinuxOptions": {"user": "u", "type": "t"}}}]});
        assert_eq!(
            check(enforce("baseline"), spec).expect_err("refused"),
            r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume "h"), hostPort (container "a" uses hostPort 80), privileged (containers "a", "b" must not set securityContext.privileged=true), seLinuxOptions (container "b" set forbidden securityContext.seLinuxOptions: type "t"; user may not be set)"#
        );
    }

    #[test]
    fn a_hardened_pod_passes_restricted() {
        let spec = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
        assert_eq!(check(enforce("restricted"), spec), Ok(vec![]));
    }

    #[test]
    fn a_wrong_label_is_refused_and_a_raised_level_tells_of_existing_pods() {
        let namespace = |level: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": enforce(level)}});
        let wrong = PodSecurity.validate(&review(Operation::Create, namespace("x")), &world(vec![]));
        assert_eq!(
            wrong.expect_err("refused").message,
            r#"Namespace "a" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "x": must be one of privileged, baseline, restricted"#
        );
        let pod = |name: &str| json!({"kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "spec": {"hostIPC": true}});
        let mut raised = review(Operation::Update, namespace("baseline"));
        raised.old = std::sync::Arc::new(namespace("privileged"));
        PodSecurity.validate(&raised, &world(vec![pod("y"), pod("x")])).expect("admitted");
        assert_eq!(
            raised.warnings.into_inner(),
            [
                r#"existing pods in namespace "a" violate the new PodSecurity enforce level "baseline:latest""#,
                "x (and 1 other pod): host namespaces"
            ]
        );
    }
}
