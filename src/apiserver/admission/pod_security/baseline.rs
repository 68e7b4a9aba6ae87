//! The baseline level: no known way to the node.
//!
//! Owns: its checks, in the order of their names, which is the order of the message.
//! Called by: `evaluate` for both levels; restricted leaves some of them out.
//! Never: refuses a pod that says nothing.

use std::collections::BTreeSet;

use minik_api::pod_annotations::{APP_ARMOR, SECCOMP_OF_CONTAINER, SECCOMP_OF_POD};
use serde_json::Value;

use super::check::{Pod, Verdict, bad_values, named, quoted, refuse, setters};

type Check = (&'static str, fn(&Pod<'_>) -> Option<(String, String)>);

const CHECKS: [Check; 12] = [
    ("appArmorProfile", app_armor),
    ("capabilities_baseline", capabilities),
    ("hostNamespaces", host_namespaces),
    ("hostPathVolumes", host_path),
    ("hostPorts", host_ports),
    ("hostProbesAndHostLifecycle", host_probes),
    ("privileged", privileged),
    ("procMount", proc_mount),
    ("seLinuxOptions", selinux),
    ("seccompProfile_baseline", seccomp),
    ("sysctls", sysctls),
    ("windowsHostProcess", host_process),
];

pub fn evaluate(pod: &Pod<'_>, left_out: &[&str]) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, check) in CHECKS.iter().filter(|(name, _)| !left_out.contains(name)) {
        // An unconfined process mount is judged by restricted alone for pods with users of their own.
        if *name == "procMount" && pod.version >= 35 && pod.has_own_users() {
            continue;
        }
        verdict.add(check(pod));
    }
    verdict
}

fn app_armor(pod: &Pod<'_>) -> Option<(String, String)> {
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let (mut who, values) = bad_values(pod, |s| &s["appArmorProfile"]["type"], |kind| !allowed(kind));
    let mut values: Vec<String> = values.into_iter().collect();
    let mut annotations: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let fine = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR) && !fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    match annotations.len() {
        0 => {}
        1 => who.push("annotation".into()),
        _ => who.push("annotations".into()),
    }
    values.extend(annotations);
    if who.is_empty() {
        return None;
    }
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    refuse(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(pod: &Pod<'_>) -> Option<(String, String)> {
    let mut extra: BTreeSet<String> = BTreeSet::new();
    let bad = pod.bad_containers(|container| {
        let added = container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten();
        let forbidden: Vec<&str> = added.filter_map(Value::as_str).filter(|c| !CAPABILITIES.contains(c)).collect();
        extra.extend(forbidden.iter().map(ToString::to_string));
        !forbidden.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", named("container", &bad), quoted(extra));
    refuse("non-default capabilities", detail)
}

fn host_namespaces(pod: &Pod<'_>) -> Option<(String, String)> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() { None } else { refuse("host namespaces", set.join(", ")) }
}

fn host_path(pod: &Pod<'_>) -> Option<(String, String)> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let bad: Vec<String> =
        volumes.filter(|v| v["hostPath"].is_object()).map(|v| v["name"].as_str().unwrap_or("").to_string()).collect();
    if bad.is_empty() { None } else { refuse("hostPath volumes", named("volume", &bad)) }
}

fn host_ports(pod: &Pod<'_>) -> Option<(String, String)> {
    let mut ports: BTreeSet<String> = BTreeSet::new();
    let bad = pod.bad_containers(|container| {
        let used = container["ports"].as_array().into_iter().flatten();
        let used: Vec<i64> = used.filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect();
        ports.extend(used.iter().map(ToString::to_string));
        !used.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let word = if ports.len() == 1 { "hostPort" } else { "hostPorts" };
    let list: Vec<String> = ports.into_iter().collect();
    refuse("hostPort", format!("{} {uses} {word} {}", named("container", &bad), list.join(", ")))
}

fn host_probes(pod: &Pod<'_>) -> Option<(String, String)> {
    if pod.version < 34 {
        return None;
    }
    let mut hosts: BTreeSet<String> = BTreeSet::new();
    let bad: BTreeSet<String> = pod
        .bad_containers(|c| {
            let handlers = [
                &c["livenessProbe"],
                &c["readinessProbe"],
                &c["startupProbe"],
                &c["lifecycle"]["postStart"],
                &c["lifecycle"]["preStop"],
            ];
            let named = handlers.iter().flat_map(|h| [&h["httpGet"]["host"], &h["tcpSocket"]["host"]]);
            let named: Vec<&str> = named.filter_map(Value::as_str).filter(|host| !host.is_empty()).collect();
            hosts.extend(named.iter().map(ToString::to_string));
            !named.is_empty()
        })
        .into_iter()
        .collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<String> = bad.into_iter().collect();
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let word = if hosts.len() == 1 { "probe or lifecycle host" } else { "probe or lifecycle hosts" };
    refuse("probe or lifecycle host", format!("{} {uses} {word} {}", named("container", &bad), quoted(hosts)))
}

fn privileged(pod: &Pod<'_>) -> Option<(String, String)> {
    let bad = pod.bad_containers(|c| c["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    refuse("privileged", format!("{} must not set securityContext.privileged=true", named("container", &bad)))
}

pub fn proc_mount(pod: &Pod<'_>) -> Option<(String, String)> {
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    let bad = pod.bad_containers(|c| {
        let kind = c["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind.map(str::to_string));
        kind.is_some()
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", named("container", &bad), quoted(kinds));
    refuse("procMount", detail)
}

fn selinux(pod: &Pod<'_>) -> Option<(String, String)> {
    let allowed: &[&str] = if pod.version >= 31 {
        &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"]
    } else {
        &["", "container_t", "container_init_t", "container_kvm_t"]
    };
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_bad = |options: &Value| {
        let text = |key: &str| options[key].as_str().unwrap_or("");
        let bad_type = !allowed.contains(&text("type"));
        if bad_type {
            kinds.insert(text("type").to_string());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        bad_type || !text("user").is_empty() || !text("role").is_empty()
    };
    let of_pod = is_bad(&pod.security()["seLinuxOptions"]);
    let bad = pod.bad_containers(|c| is_bad(&c["securityContext"]["seLinuxOptions"]));
    let who = setters(of_pod, &bad);
    if who.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(named("type", &kinds.into_iter().collect::<Vec<_>>()));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), what.join("; "));
    refuse("seLinuxOptions", detail)
}

pub fn is_confined(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

fn seccomp(pod: &Pod<'_>) -> Option<(String, String)> {
    if pod.version < 19 {
        return seccomp_annotations(pod);
    }
    let (who, values) = bad_values(pod, |s| &s["seccompProfile"]["type"], |kind| !is_confined(kind));
    if who.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.seccompProfile.type to {}", who.join(" and "), quoted(values));
    refuse("seccompProfile", detail)
}

/// Before v1.19 there was no field for it.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<(String, String)> {
    let names: Vec<String> = pod.bad_containers(|_| true);
    let bad: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let ours = *key == SECCOMP_OF_POD
                || key.strip_prefix(SECCOMP_OF_CONTAINER).is_some_and(|n| names.iter().any(|c| c == n));
            let fine = matches!(*value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            ours && !fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let word = if bad.len() == 1 { "annotation" } else { "annotations" };
    refuse("seccompProfile", format!("forbidden {word} {}", bad.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Which minor version first allowed which.
const SYSCTLS: [(u32, &str); 14] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
    (37, "net.ipv4.tcp_slow_start_after_idle"),
    (37, "net.ipv4.tcp_notsent_lowat"),
];

fn sysctls(pod: &Pod<'_>) -> Option<(String, String)> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(since, known)| *known == name && *since <= pod.version);
    let set = pod.security()["sysctls"].as_array().into_iter().flatten();
    let bad: Vec<&str> = set.filter_map(|s| s["name"].as_str()).filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { refuse("forbidden sysctls", bad.join(", ")) }
}

fn host_process(pod: &Pod<'_>) -> Option<(String, String)> {
    let on = |security: &Value| security["windowsOptions"]["hostProcess"] == true;
    let bad = pod.bad_containers(|c| on(&c["securityContext"]));
    let who = setters(on(pod.security()), &bad);
    if who.is_empty() {
        return None;
    }
    refuse("hostProcess", format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and ")))
}
