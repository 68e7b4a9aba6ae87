//! Rules of Pods and pod templates.
//!
//! Owns: the spec beyond containers and volumes, and what of a Pod may still change.
//! Called by: `validation` for Pods, `workloads` and `batch` for templates.
//! Never: admits by policy (that is admission).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::check::{At, Errors};
use super::containers::{self, Around};
use super::{core_type, metadata, pod_annotations, scheduling, volumes};
use crate::{go_json, names, object};

pub fn template(at: &At<'_>, errors: &mut Errors) {
    let meta = at.get("metadata");
    // A template's metadata stands in for the template in upstream's paths.
    errors.labels(&at.get("labels").showing(meta.get("labels").value));
    let (annotations, spec) = (at.get("annotations"), at.get("spec"));
    let annotations = annotations.showing(&meta.value["annotations"]);
    metadata::annotations(&annotations, errors);
    pod_annotations::check(&annotations, &Value::Null, &spec, errors);
    pod_spec(&spec, errors);
    pod_annotations::agree(annotations.value, &spec, errors);
    if spec.get("ephemeralContainers").len() > 0 {
        errors.forbidden(&spec.get("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

pub fn create(pod: &At<'_>, errors: &mut Errors) {
    let spec = pod.get("spec");
    whole(pod, &Value::Null, errors);
    if spec.get("ephemeralContainers").len() > 0 {
        errors.forbidden(&spec.get("ephemeralContainers"), "cannot be set on create");
    }
    if !spec.get("nodeName").text().is_empty() && spec.get("schedulingGates").len() > 0 {
        errors.forbidden(&spec.get("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    pod_annotations::agree(&pod.value["metadata"]["annotations"], &spec, errors);
}

/// What holds for every Pod; `before` are the annotations it had.
fn whole(pod: &At<'_>, before: &Value, errors: &mut Errors) {
    let (metadata, spec) = (pod.get("metadata"), pod.get("spec"));
    pod_annotations::check(&metadata.get("annotations"), before, &spec, errors);
    pod_spec(&spec, errors);
    if spec.get("serviceAccountName").text().is_empty() {
        for volume in spec.get("volumes").items() {
            let projected = volume.get("projected");
            for source in projected.get("sources").items().filter(|s| !s.get("serviceAccountToken").is_null()) {
                let token = source.get("serviceAccountToken");
                errors.forbidden(&token, "must not be specified when serviceAccountName is not set");
            }
        }
    }
    errors.non_negative(&spec.get("terminationGracePeriodSeconds"));
}

pub fn pod_spec(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("terminationGracePeriodSeconds").is_null() {
        errors.required(&spec.get("terminationGracePeriodSeconds"), "");
    }
    let names = volumes::volumes(&spec.get("volumes"), errors);
    let claims: BTreeSet<&str> = resource_claims(&spec.get("resourceClaims"), errors);
    let around = Around {
        volumes: names.iter().copied().collect(),
        claims,
        restart_policy: spec.get("restartPolicy").text(),
        host_users: spec.get("hostUsers").value != &Value::Bool(false),
    };
    let main = spec.get("containers");
    containers::containers(&main, &around, errors);
    containers::init_containers(&spec.get("initContainers"), &main, &around, errors);
    containers::ephemeral_containers(&spec.get("ephemeralContainers"), spec, &around, errors);
    host_network(spec, errors);
    errors.one_of(&spec.get("restartPolicy"), &["Always", "OnFailure", "Never"]);
    errors.one_of(&spec.get("dnsPolicy"), &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    errors.labels(&spec.get("nodeSelector"));
    security_context(spec, errors);
    scheduling::affinity(&spec.get("affinity"), errors);
    dns_config(spec, errors);
    for gate in spec.get("readinessGates").items() {
        errors.qualified_name(&gate.get("conditionType"));
    }
    scheduling_gates(&spec.get("schedulingGates"), errors);
    scheduling::spread(&spec.get("topologySpreadConstraints"), errors);
    host_users(spec, errors);
    references(spec, errors);
    scheduling::tolerations(&spec.get("tolerations"), errors);
    for alias in spec.get("hostAliases").items() {
        errors.faults(&alias.get("ip"), names::ip(alias.get("ip").text()));
        alias.get("hostnames").items().for_each(|name| errors.subdomain(&name));
    }
    errors.one_of_if_set(&spec.get("preemptionPolicy"), &["PreemptLowerPriority", "Never"]);
    containers::resources(&spec.get("resources"), &BTreeSet::new(), errors);
}

/// Names of other objects, and of the Pod itself on the network.
fn references(spec: &At<'_>, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        if !spec.get(field).text().is_empty() {
            errors.subdomain(&spec.get(field));
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if let Some(seconds) = deadline.number() {
        errors.faults_of_value(&deadline, names::in_range(seconds, 1, i32::MAX.into()));
    }
    for field in ["hostname", "subdomain"] {
        if !spec.get(field).text().is_empty() {
            errors.label(&spec.get(field));
        }
    }
}

fn resource_claims<'s>(list: &At<'s>, errors: &mut Errors) -> BTreeSet<&'s str> {
    let mut seen = BTreeSet::new();
    for (i, claim) in list.value.as_array().into_iter().flatten().enumerate() {
        let at = list.index(i);
        let name = claim["name"].as_str().unwrap_or("");
        if name.is_empty() {
            errors.required(&at.get("name"), "");
        } else if !seen.insert(name) {
            errors.duplicate(&at.get("name"));
        } else {
            errors.label(&at.get("name"));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|s| !at.get(s).is_null()).count() {
            0 => errors.invalid(&at, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            1 => {}
            _ => errors
                .invalid(&at, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
        }
    }
    seen
}

fn host_network(spec: &At<'_>, errors: &mut Errors) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            if host.number().unwrap_or(0) != 0 && host.value != port.get("containerPort").value {
                errors.invalid(&host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn host_users(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("hostUsers").value != &Value::Bool(false) {
        return;
    }
    // The capitals of the last two are upstream's.
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            errors.forbidden(&spec.get(shown), "when `hostUsers` is false");
        }
    }
}

fn security_context(spec: &At<'_>, errors: &mut Errors) {
    let context = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        let id = context.get(field);
        errors.faults_of_value(&id, id.number().map(names::user_id).unwrap_or_default());
    }
    for group in context.get("supplementalGroups").items() {
        errors.faults_of_value(&group, group.number().map(names::user_id).unwrap_or_default());
    }
    errors.one_of_if_set(&context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    errors.one_of_if_set(&context.get("supplementalGroupsPolicy"), &["Merge", "Strict"]);
    containers::seccomp(&context.get("seccompProfile"), errors);
    sysctls(&context.get("sysctls"), errors);
    if spec.get("hostPID").is_true() && spec.get("shareProcessNamespace").is_true() {
        let share = spec.get("shareProcessNamespace");
        errors.invalid(&share, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
}

const SYSCTL: &str = "([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";

fn sysctls(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for sysctl in list.items() {
        let name = sysctl.get("name");
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let part = |p: &str| {
            let ends = [p.as_bytes().first(), p.as_bytes().last()];
            ends.iter().all(|b| b.is_some_and(plain)) && p.bytes().all(|b| plain(&b) || b"-_".contains(&b))
        };
        if name.text().is_empty() {
            errors.required(&name, "");
        } else if name.text().len() > 253 || !name.text().split(['.', '/']).all(part) {
            let detail = format!("must have at most 253 characters and match regex ^{SYSCTL}$");
            errors.invalid(&name, detail);
        } else if !seen.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
    }
}

/// All search domains of a Pod together, and what is between them.
const SEARCH_CHARACTERS_MAX: usize = 2048;

fn dns_config(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    if spec.get("dnsPolicy").text() == "None" {
        if config.is_null() {
            return errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if config.get("nameservers").len() == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&config.get("nameservers"), detail);
        }
    }
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if servers.len() > 3 {
        errors.invalid(&servers, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        errors.faults(&server, names::ip(server.text()));
    }
    if searches.len() > 32 {
        errors.invalid(&searches, "must not have more than 32 search paths");
    }
    let characters: usize = searches.items().map(|s| s.text().len() + 1).sum();
    if characters > SEARCH_CHARACTERS_MAX + 1 {
        let why = format!("must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces)");
        errors.invalid(&searches, why + " in the search list");
    }
    for search in searches.items().filter(|s| s.text() != ".") {
        let domain = search.text().strip_suffix('.').unwrap_or(search.text());
        errors.faults(&search.showing(&domain.into()), names::underscored_dns1123_subdomain(domain));
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            errors.required(&option, "must not be empty");
        }
    }
}

fn scheduling_gates(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for gate in list.items() {
        let name = gate.get("name");
        errors.faults(&gate.showing(name.value), names::qualified_name(name.text()));
        if !seen.insert(name.text().to_string()) {
            errors.duplicate(&gate.showing(name.value));
        }
    }
}

/// What may change in a running Pod, in upstream's words.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn update(pod: &At<'_>, old: &Value, errors: &mut Errors) {
    let (metadata, spec, before) = (pod.get("metadata"), pod.get("spec"), &old["spec"]);
    let annotations = &old["metadata"]["annotations"];
    whole(pod, annotations, errors);
    // Looks at their form once more, as upstream does: each time is a cause of its own.
    pod_annotations::update(&metadata.get("annotations"), annotations, &spec, errors);
    for list in ["containers", "initContainers"] {
        let now = spec.get(list);
        if now.len() != before[list].as_array().map_or(0, Vec::len) {
            return errors.forbidden(&now, "pod updates may not add or remove containers");
        }
    }
    if !deadline(&spec.get("activeDeadlineSeconds"), &before["activeDeadlineSeconds"], errors) {
        return;
    }
    let tolerations = spec.get("tolerations");
    only_added_tolerations(&tolerations, &before["tolerations"], errors);
    let gates = spec.get("schedulingGates");
    let known = before["schedulingGates"].as_array().map_or(&[][..], Vec::as_slice);
    for gate in gates.items().filter(|g| !known.contains(g.value)) {
        let name = gate.get("name").text();
        errors.forbidden(&gates, format!("only deletion is allowed, but found new scheduling gate '{name}'"));
    }
    let is_gated = object::is_gated(old);
    if is_gated {
        only_narrowed(&spec, before, errors);
    }
    let munged = munge(spec.value, before, is_gated);
    if &munged != before {
        let difference = go_json::difference(core_type("PodSpec"), before, &munged);
        errors.forbidden(&spec, format!("pod updates may not change fields other than {UPDATABLE}\n{difference}"));
    }
}

fn deadline(now: &At<'_>, before: &Value, errors: &mut Errors) -> bool {
    match (now.number(), before.as_i64()) {
        (Some(now_seconds), _) if !(0..=i64::from(i32::MAX)).contains(&now_seconds) => {
            errors.faults_of_value(now, names::in_range(now_seconds, 0, i32::MAX.into()));
            false
        }
        (Some(now_seconds), Some(then)) if then < now_seconds => {
            errors.invalid(now, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(now, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(now: &At<'_>, before: &Value, errors: &mut Errors) {
    let kept = |old: &Value| {
        now.items().any(|new| {
            // Only the time may change.
            let same = ["key", "operator", "value", "effect"].iter().all(|f| new.value[f] == old[f]);
            same && (new.value == old || new.value["effect"] == "NoExecute")
        })
    };
    if !before.as_array().into_iter().flatten().all(kept) {
        errors.forbidden(now, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// Where a Pod may run, as long as it waits: fewer nodes than before, never others.
fn only_narrowed(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let selector = spec.get("nodeSelector");
    let mut known = before["nodeSelector"].as_object().into_iter().flatten();
    if known.any(|(key, value)| selector.value.get(key) != Some(value)) {
        errors.invalid(&selector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let (affinity, old) = (spec.get("affinity"), &before["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]);
    let (affinity, old) = (affinity.get("nodeAffinity"), old.as_array().map_or(&[][..], Vec::as_slice));
    let required = affinity.get(REQUIRED);
    let terms = required.get("nodeSelectorTerms");
    let shown = |term: &Value| go_json::internal(core_type("NodeSelectorTerm"), term);
    // Terms are alternatives, so one more would allow more nodes; without any there was no limit.
    if !old.is_empty() && terms.len() != old.len() {
        let all: Vec<String> = terms.items().map(|term| shown(term.value)).collect();
        let all = if all.is_empty() { "null".into() } else { format!("[{}]", all.join(",")) };
        return errors.invalid_shown(
            &terms,
            all,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
    }
    for (term, _) in terms.items().zip(old).filter(|(term, old)| !is_narrowed(term.value, old)) {
        errors.invalid_shown(&term, shown(term.value), "only additions are allowed (no mutations or deletions)");
    }
}

/// Whether a term says all that it said, in the same order, and perhaps more. One that says nothing selects nothing.
fn is_narrowed(new: &Value, old: &Value) -> bool {
    fn list<'a>(term: &'a Value, field: &str) -> &'a [Value] {
        term[field].as_array().map_or(&[], Vec::as_slice)
    }
    let parts = ["matchExpressions", "matchFields"].map(|field| (list(new, field), list(old, field)));
    let was_empty = parts.iter().all(|(_, old)| old.is_empty());
    parts.iter().all(|(new, old)| if was_empty { new.is_empty() } else { new.starts_with(old) })
}

fn set_node_affinity_back(munged: &mut Value, old: &Value) {
    let before = &old["affinity"]["nodeAffinity"];
    if munged["affinity"]["nodeAffinity"] == *before {
        return;
    }
    let Some(spec) = munged.as_object_mut() else { return };
    let affinity = spec.entry("affinity").or_insert(Value::Null);
    if affinity.is_null() {
        *affinity = json!({});
    }
    match before {
        Value::Null => drop(affinity.as_object_mut().and_then(|affinity| affinity.remove("nodeAffinity"))),
        before => affinity["nodeAffinity"] = before.clone(),
    }
    if affinity.as_object().is_some_and(Map::is_empty) && old["affinity"].is_null() {
        spec.remove("affinity");
    }
}

/// The new spec with everything that may change set back.
fn munge(new: &Value, old: &Value, is_gated: bool) -> Value {
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        let containers = munged.get_mut(list).and_then(Value::as_array_mut);
        for (i, container) in containers.into_iter().flatten().enumerate() {
            container["image"] = old[list][i]["image"].clone();
        }
    }
    let mut back = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations"];
    if is_gated {
        back.push("nodeSelector");
        set_node_affinity_back(&mut munged, old);
    }
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|g| g < 0) && new["terminationGracePeriodSeconds"] == 1
    {
        back.push("terminationGracePeriodSeconds");
    }
    for field in back {
        let Some(map) = munged.as_object_mut() else { break };
        match old.get(field) {
            Some(value) => map.insert(field.into(), value.clone()),
            None => map.remove(field),
        };
    }
    munged
}
