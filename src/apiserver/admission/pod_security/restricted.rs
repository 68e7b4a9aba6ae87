//! The restricted level: pods hardened as well as can be.
//!
//! Owns: its checks, in the order of their names, and which baseline checks they replace.
//! Called by: `evaluate`, after the baseline's.
//! Never: applies to Windows what Windows does not have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::{is_confined, proc_mount};
use super::check::{Pod, Verdict, named, quoted, refuse, setters};

/// Baseline checks that a stricter one stands in for.
pub fn overridden(pod: &Pod<'_>) -> Vec<&'static str> {
    let mut names = vec!["hostPathVolumes"];
    if pod.version >= 19 {
        names.push("seccompProfile_baseline");
    }
    if pod.version >= 22 {
        names.push("capabilities_baseline");
    }
    if pod.version >= 35 {
        names.push("procMount");
    }
    names
}

pub fn evaluate(pod: &Pod<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let since = |minor: u32| pod.version >= minor;
    let lenient_to_windows = since(25) && pod.is_windows();
    if since(8) && !lenient_to_windows {
        verdict.add(privilege_escalation(pod));
    }
    if since(22) && !lenient_to_windows {
        verdict.add(capabilities(pod));
    }
    if since(35) {
        verdict.add(proc_mount(pod));
    }
    verdict.add(volumes(pod));
    let lenient_to_users = since(35) && pod.has_own_users();
    if !lenient_to_users {
        verdict.add(run_as_non_root(pod));
        if since(23) {
            verdict.add(run_as_user(pod));
        }
    }
    if since(19) && !lenient_to_windows {
        verdict.add(seccomp(pod));
    }
    verdict
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<(String, String)> {
    let bad = pod.bad_containers(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named("container", &bad));
    refuse("allowPrivilegeEscalation != false", detail)
}

fn capabilities(pod: &Pod<'_>) -> Option<(String, String)> {
    let list = |c: &Value, field: &str| -> Vec<String> {
        let list = c["securityContext"]["capabilities"][field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_string).collect()
    };
    let keeping = pod.bad_containers(|c| !list(c, "drop").iter().any(|d| d == "ALL"));
    let mut added: BTreeSet<String> = BTreeSet::new();
    let adding = pod.bad_containers(|c| {
        let extra: Vec<String> = list(c, "add").into_iter().filter(|a| a != "NET_BIND_SERVICE").collect();
        added.extend(extra.iter().cloned());
        !extra.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, named("container", &keeping)));
    }
    if !adding.is_empty() {
        let who = named("container", &adding);
        details.push(format!("{who} must not include {} in securityContext.capabilities.add", quoted(added)));
    }
    if details.is_empty() { None } else { refuse("unrestricted capabilities", details.join("; ")) }
}

const VOLUMES_ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const VOLUMES_KNOWN: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

fn volumes(pod: &Pod<'_>) -> Option<(String, String)> {
    let (mut bad, mut kinds): (Vec<String>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
        if VOLUMES_ALLOWED.iter().any(|kind| volume[*kind].is_object()) {
            continue;
        }
        bad.push(volume["name"].as_str().unwrap_or("").to_string());
        kinds.insert(VOLUMES_KNOWN.iter().find(|kind| volume[**kind].is_object()).copied().unwrap_or("unknown"));
    }
    if bad.is_empty() {
        return None;
    }
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let word = if kinds.len() == 1 { "restricted volume type" } else { "restricted volume types" };
    refuse("restricted volume types", format!("{} {uses} {word} {}", named("volume", &bad), quoted(kinds)))
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<(String, String)> {
    let of_pod = pod.security()["runAsNonRoot"].as_bool();
    let of = |c: &Value| c["securityContext"]["runAsNonRoot"].as_bool();
    let explicit = pod.bad_containers(|c| of(c) == Some(false));
    let who = setters(of_pod == Some(false), &explicit);
    const REASON: &str = "runAsNonRoot != true";
    if !who.is_empty() {
        return refuse(REASON, format!("{} must not set securityContext.runAsNonRoot=false", who.join(" and ")));
    }
    let implicit = pod.bad_containers(|c| of(c).is_none() && of_pod != Some(true));
    if implicit.is_empty() {
        return None;
    }
    refuse(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named("container", &implicit)))
}

fn run_as_user(pod: &Pod<'_>) -> Option<(String, String)> {
    let bad = pod.bad_containers(|c| c["securityContext"]["runAsUser"] == 0);
    let who = setters(pod.security()["runAsUser"] == 0, &bad);
    if who.is_empty() { None } else { refuse("runAsUser=0", format!("{} must not set runAsUser=0", who.join(" and "))) }
}

fn seccomp(pod: &Pod<'_>) -> Option<(String, String)> {
    let (who, values) = super::check::bad_values(pod, |s| &s["seccompProfile"]["type"], |kind| !is_confined(kind));
    const REASON: &str = "seccompProfile";
    if !who.is_empty() {
        let detail =
            format!("{} must not set securityContext.seccompProfile.type to {}", who.join(" and "), quoted(values));
        return refuse(REASON, detail);
    }
    let of_pod = pod.security()["seccompProfile"].is_object();
    let implicit = pod.bad_containers(|c| !c["securityContext"]["seccompProfile"].is_object() && !of_pod);
    if implicit.is_empty() {
        return None;
    }
    let who = named("container", &implicit);
    let detail =
        format!(r#"pod or {who} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#);
    refuse(REASON, detail)
}
