//! Rules of containers: ports, environment, mounts, probes, resources, security.
//!
//! Owns: what is inside one entry of `containers`, `initContainers` or `ephemeralContainers`.
//! Called by: `pod`.
//! Never: compares with an older Pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{At, Errors};
use crate::names;
use crate::quantity::Quantity;

/// What the Pod around a container says that its rules need.
pub struct Around<'a> {
    pub volumes: BTreeSet<&'a str>,
    pub claims: BTreeSet<&'a str>,
    pub restart_policy: &'a str,
    pub host_users: bool,
}

pub fn containers(list: &At<'_>, around: &Around<'_>, errors: &mut Errors) {
    if list.len() == 0 {
        errors.required(list, "");
        return;
    }
    let mut seen = BTreeSet::new();
    for container in list.items() {
        common(&container, around, errors);
        if !seen.insert(container.get("name").text().to_string()) {
            errors.duplicate(&container.get("name"));
        }
        lifecycle(&container.get("lifecycle"), errors);
        probes(&container, errors);
        restart_policy(&container, errors);
    }
    host_ports(list, errors);
}

fn restart_policy(container: &At<'_>, errors: &mut Errors) {
    let policy = container.get("restartPolicy");
    if !policy.is_null() && !matches!(policy.text(), "Always" | "OnFailure" | "Never") {
        errors.not_supported(&policy, &["Always", "OnFailure", "Never"]);
    }
}

pub fn init_containers(list: &At<'_>, main: &At<'_>, around: &Around<'_>, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = main.items().map(|c| c.get("name").text().to_string()).collect();
    for container in list.items() {
        common(&container, around, errors);
        restart_policy(&container, errors);
        let name = container.get("name");
        if !name.text().is_empty() && !seen.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
        if container.get("restartPolicy").text() == "Always" {
            lifecycle(&container.get("lifecycle"), errors);
            probes(&container, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if !container.get(field).is_null() {
                errors.forbidden(
                    &container.get(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
}

const EPHEMERAL_FORBIDDEN: [&str; 6] =
    ["ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "resizePolicy"];

pub fn ephemeral_containers(list: &At<'_>, spec: &At<'_>, around: &Around<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for field in ["containers", "initContainers"] {
        seen.extend(spec.get(field).items().map(|c| c.get("name").text().to_string()));
    }
    let others = seen.clone();
    for container in list.items() {
        common(&container, around, errors);
        let name = container.get("name");
        if !seen.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
        let target = container.get("targetContainerName");
        if !target.text().is_empty() && !others.contains(target.text()) {
            errors.not_found(&target);
        }
        for field in EPHEMERAL_FORBIDDEN.iter().chain(&["resources"]) {
            let at = container.get(field);
            if !at.is_null() && (at.len() > 0 || !matches!(*field, "resources" | "ports")) {
                errors.forbidden(&at, "cannot be set for an Ephemeral Container");
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).text().is_empty() {
                    errors.forbidden(&mount.get(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn common(container: &At<'_>, around: &Around<'_>, errors: &mut Errors) {
    let name = container.get("name");
    errors.required_name(&name, names::dns1123_label);
    let image = container.get("image");
    if image.text().is_empty() {
        errors.required(&image, "");
    } else if image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.one_of(&container.get("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"]);
    ports(&container.get("ports"), errors);
    environment(&container.get("env"), errors);
    environment_from(&container.get("envFrom"), errors);
    mounts(container, around, errors);
    errors.one_of(&container.get("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]);
    resources(&container.get("resources"), &around.claims, errors);
    resize_policy(&container.get("resizePolicy"), around.restart_policy, errors);
    security_context(&container.get("securityContext"), around.host_users, errors);
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn ports(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            let faults = names::port_name(name.text());
            if faults.is_empty() && !seen.insert(name.text().to_string()) {
                errors.duplicate(&name);
            }
            errors.faults(&name, faults);
        }
        let number = port.get("containerPort");
        if number.number().unwrap_or(0) == 0 {
            errors.required(&number, "");
        } else {
            errors.port_number(&number);
        }
        let host = port.get("hostPort");
        if host.number().unwrap_or(0) != 0 {
            errors.port_number(&host);
        }
        errors.one_of(&port.get("protocol"), &PROTOCOLS);
    }
}

fn host_ports(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for container in list.items() {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            let Some(number) = host.number().filter(|n| *n != 0) else { continue };
            let id = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
            if !seen.insert(id.clone()) {
                errors.duplicate(&host.showing(&id.into()));
            }
        }
    }
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Every field path that version v1 knows, which is more than each place allows.
const KNOWN_FIELDS: [&str; 12] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn environment(list: &At<'_>, errors: &mut Errors) {
    for variable in list.items() {
        errors.required_name(&variable.get("name"), names::env_var_name);
        value_from(&variable, errors);
    }
}

fn value_from(variable: &At<'_>, errors: &mut Errors) {
    let from = variable.get("valueFrom");
    if from.is_null() {
        return;
    }
    let mut sources = 0;
    if !from.get("fieldRef").is_null() {
        sources += 1;
        field_selector(&from.get("fieldRef"), &ENV_FIELDS, errors);
    }
    if !from.get("resourceFieldRef").is_null() {
        sources += 1;
        resource_selector(&from.get("resourceFieldRef"), false, errors);
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        let reference = from.get(field);
        if reference.is_null() {
            continue;
        }
        sources += 1;
        errors.subdomain(&reference.get("name"));
        let key = reference.get("key");
        if key.text().is_empty() {
            errors.required(&key, "");
        } else {
            errors.faults(&key, names::config_map_key(key.text()));
        }
    }
    sources += usize::from(!from.get("fileKeyRef").is_null());
    let blank: Value = "".into();
    let at = from.showing(&blank);
    if sources == 0 {
        let names = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(&at, format!("must specify one of: {names}"));
    } else if !variable.get("value").text().is_empty() {
        errors.invalid(&at, "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(&at, "may not have more than one field specified at a time");
    }
}

pub fn field_selector(at: &At<'_>, allowed: &[&str], errors: &mut Errors) {
    if at.get("apiVersion").text().is_empty() {
        return errors.required(&at.get("apiVersion"), "");
    }
    let path = at.get("fieldPath");
    if path.text().is_empty() {
        return errors.required(&path, "");
    }
    let subscripted = path.text().strip_suffix("']").and_then(|p| p.split_once("['"));
    let plain = subscripted.map_or(path.text(), |(p, _)| p);
    if !KNOWN_FIELDS.contains(&plain) {
        let text = format!("error converting fieldPath: field label not supported: {}", path.text());
        return errors.invalid(&path, text);
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key: Value = key.to_lowercase().into();
            errors.qualified_name(&at.showing(&key));
        }
        Some(("metadata.labels", key)) => errors.qualified_name(&at.showing(&key.into())),
        Some((other, _)) => errors.invalid(&at.showing(&other.into()), "does not support subscript"),
        None if !allowed.contains(&path.text()) => errors.not_supported(&path, allowed),
        None => {}
    }
}

pub fn resource_selector(at: &At<'_>, needs_container: bool, errors: &mut Errors) {
    let resource = at.get("resource");
    if needs_container && at.get("containerName").text().is_empty() {
        errors.required(&at.get("containerName"), "");
    } else if resource.text().is_empty() {
        errors.required(&resource, "");
    } else if !RESOURCE_FIELDS.contains(&resource.text())
        && !resource.text().starts_with("limits.hugepages-")
        && !resource.text().starts_with("requests.hugepages-")
    {
        errors.not_supported(&resource, &RESOURCE_FIELDS);
    }
}

fn environment_from(list: &At<'_>, errors: &mut Errors) {
    let blank: Value = "".into();
    for source in list.items() {
        let prefix = source.get("prefix");
        if !prefix.text().is_empty() {
            errors.faults(&prefix, names::env_var_name(prefix.text()));
        }
        let mut sources = 0;
        for field in ["configMapRef", "secretRef"] {
            let reference = source.get(field);
            if !reference.is_null() {
                sources += 1;
                errors.subdomain(&reference.get("name"));
            }
        }
        match sources {
            0 => errors.invalid(&list.showing(&blank), "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&list.showing(&blank), "may not have more than one field specified at a time"),
        }
    }
}

/// All of a Pod's, in the order upstream visits them.
pub fn each(spec: &At<'_>, mut visit: impl FnMut(&At<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.get(list).items().for_each(|container| visit(&container));
    }
}

/// A relative path that stays below where it starts.
pub fn descending_path(at: &At<'_>, errors: &mut Errors) {
    if at.text().starts_with('/') {
        errors.invalid(at, "must be a relative path");
    }
    no_backsteps(at, errors);
}
pub fn no_backsteps(at: &At<'_>, errors: &mut Errors) {
    if at.text().split('/').any(|part| part == "..") {
        errors.invalid(at, "must not contain '..'");
    }
}

fn mounts(container: &At<'_>, around: &Around<'_>, errors: &mut Errors) {
    let list = container.get("volumeMounts");
    let devices = container.get("volumeDevices");
    let mut paths = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.text().is_empty() {
            errors.required(&name, "");
        }
        if !around.volumes.contains(name.text()) {
            errors.not_found(&name.showing(&name.text().into()));
        }
        if path.text().is_empty() {
            errors.required(&path, "");
        }
        if !paths.insert(path.text().to_string()) {
            errors.invalid(&path, "must be unique");
        }
        if devices.items().any(|d| d.get("name").text() == name.text()) {
            errors.invalid(&name, "must not already exist in volumeDevices");
        }
        if devices.items().any(|d| d.get("devicePath").text() == path.text()) {
            errors.invalid(&path, "must not already exist as a path in volumeDevices");
        }
        // These three stand at the list, not at the element: upstream's paths are so.
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        if !sub.text().is_empty() {
            descending_path(&list.get("subPath").showing(sub.value), errors);
        }
        if !expression.text().is_empty() {
            if !sub.text().is_empty() {
                errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
            }
            descending_path(&list.get("subPathExpr").showing(expression.value), errors);
        }
        let propagation = mount.get("mountPropagation");
        if !propagation.is_null() {
            let supported = ["Bidirectional", "HostToContainer", "None"];
            let at = list.get("mountPropagation");
            errors.one_of_if_set(&at.showing(propagation.value), &supported);
            let privileged = container.get("securityContext").get("privileged").is_true();
            if propagation.text() == "Bidirectional" && !privileged {
                errors.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
            }
        }
    }
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.text().is_empty() {
            errors.required(&name, "");
        } else if !around.volumes.contains(name.text()) {
            errors.not_found(&name);
        }
        if path.text().is_empty() {
            errors.required(&path, "");
        }
    }
}

fn probes(container: &At<'_>, errors: &mut Errors) {
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.get(field);
        if probe.is_null() {
            continue;
        }
        handler(&probe, errors);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            errors.non_negative(&probe.get(field));
        }
        let grace = probe.get("terminationGracePeriodSeconds");
        if field == "readinessProbe" {
            if !grace.is_null() {
                errors.invalid(&grace, "must not be set for readinessProbes");
            }
            continue;
        }
        if grace.number().is_some_and(|g| g <= 0) {
            errors.invalid(&grace, "must be greater than 0");
        }
        let successes = probe.get("successThreshold");
        if successes.number().is_some_and(|n| n != 1) {
            errors.invalid(&successes, "must be 1");
        }
    }
}

fn lifecycle(at: &At<'_>, errors: &mut Errors) {
    for field in ["postStart", "preStop"] {
        if !at.get(field).is_null() {
            handler(&at.get(field), errors);
        }
    }
}

fn handler(at: &At<'_>, errors: &mut Errors) {
    let mut handlers = 0;
    for field in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = at.get(field);
        if action.is_null() {
            continue;
        }
        handlers += 1;
        if handlers > 1 {
            errors.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        match field {
            "exec" if action.get("command").len() == 0 => errors.required(&action.get("command"), ""),
            "httpGet" => http_get(&action, errors),
            "tcpSocket" | "grpc" => errors.port(&action.get("port")),
            _ => {}
        }
    }
    if handlers == 0 {
        errors.required(at, "must specify a handler type");
    }
}

fn http_get(action: &At<'_>, errors: &mut Errors) {
    if action.get("path").text().is_empty() {
        errors.required(&action.get("path"), "");
    }
    errors.port(&action.get("port"));
    if !matches!(action.get("scheme").text(), "HTTP" | "HTTPS") {
        errors.not_supported(&action.get("scheme"), &["HTTP", "HTTPS"]);
    }
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name");
        errors.faults(&headers.showing(name.value), names::http_header_name(name.text()));
    }
}

fn is_huge_page(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}
/// Whether more may be promised than there is: not for huge pages and devices.
fn may_overcommit(resource: &str) -> bool {
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    native && !is_huge_page(resource)
}

/// Names without a domain that mean something somewhere, be it only in a quota.
pub fn is_standard(resource: &str) -> bool {
    const PLAIN: [&str; 11] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "storage",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
    ];
    match resource.split_once('.') {
        Some(("requests", of)) => matches!(of, "cpu" | "memory" | "ephemeral-storage" | "storage") || is_huge_page(of),
        Some(("limits", of)) => matches!(of, "cpu" | "memory" | "ephemeral-storage"),
        Some(("services", of)) => matches!(of, "nodeports" | "loadbalancers"),
        _ => PLAIN.contains(&resource) || is_huge_page(resource),
    }
}

fn resource_name(at: &At<'_>, resource: &str, errors: &mut Errors) {
    let faults = names::qualified_name(resource);
    let name: Value = resource.into();
    let at = at.showing(&name);
    if !faults.is_empty() {
        return errors.faults(&at, faults);
    }
    if !resource.contains('/') {
        if !is_standard(resource) {
            errors.invalid(&at, "must be a standard resource type or fully qualified");
        }
        if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(resource) {
            errors.invalid(&at, "must be a standard resource for containers");
        }
    } else if !resource.contains("kubernetes.io/") && resource.starts_with("requests.") {
        errors.invalid(&at, "doesn't follow extended resource name standard");
    }
}

fn resource_amount(at: &At<'_>, resource: &str, errors: &mut Errors) {
    errors.non_negative_quantity(at);
    if let Some(page) = resource.strip_prefix("hugepages-").and_then(|p| Quantity::parse(p).ok()) {
        let amount = Quantity::from_json(at.value).unwrap_or(Quantity::ZERO).value();
        if page.value() <= 0 || amount % page.value() != 0 {
            errors.invalid(at, format!("{} is not positive integer multiple of {resource}", at.text()));
        }
    }
    let counted = resource.contains('/') && !resource.contains("kubernetes.io/");
    if counted && Quantity::from_json(at.value).is_ok_and(|q| q.milli_value() % 1000 != 0) {
        errors.invalid(at, "must be an integer");
    }
}

pub fn resources(at: &At<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    for (resource, limit) in limits.entries() {
        resource_name(&limit, resource, errors);
        resource_amount(&limit, resource, errors);
    }
    for (resource, request) in requests.entries() {
        resource_name(&request, resource, errors);
        resource_amount(&request, resource, errors);
        let limit = limits.get(resource);
        if limit.is_null() {
            if !may_overcommit(resource) {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            continue;
        }
        let (Ok(wanted), Ok(most)) = (Quantity::from_json(request.value), Quantity::from_json(limit.value)) else {
            continue;
        };
        let shown = requests.showing(request.value);
        if wanted != most && !may_overcommit(resource) {
            errors.invalid(&shown, format!("must be equal to {resource} limit of {}", limit.text()));
        } else if wanted > most {
            errors.invalid(&shown, format!("must be less than or equal to {resource} limit of {}", limit.text()));
        }
    }
    let all = || limits.entries().chain(requests.entries()).map(|(name, _)| name);
    if all().any(is_huge_page) && !all().any(|r| r == "cpu" || r == "memory") {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
    for claim in at.get("claims").items() {
        let name = claim.get("name");
        if name.text().is_empty() {
            errors.required(&claim, "");
        } else if !claims.contains(name.text()) {
            errors.not_found(&claim.showing(name.value));
        }
    }
}

fn resize_policy(list: &At<'_>, restart_policy: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for policy in list.items() {
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        if !seen.insert(resource.text().to_string()) {
            errors.duplicate(&policy.showing(resource.value));
        }
        errors.one_of(&list.showing(resource.value), &["cpu", "memory"]);
        errors.one_of(&list.showing(restart.value), &["NotRequired", "RestartContainer"]);
        if restart_policy == "Never" && restart.text() != "NotRequired" {
            errors.invalid(&list.showing(restart.value), "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

fn security_context(at: &At<'_>, host_users: bool, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        let id = at.get(field);
        errors.faults_of_value(&id, id.number().map(names::user_id).unwrap_or_default());
    }
    let mount = at.get("procMount");
    if !mount.is_null() {
        errors.one_of_if_set(&mount, &["Default", "Unmasked"]);
        if host_users && mount.text() == "Unmasked" {
            errors.invalid(&mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&at.get("seccompProfile"), errors);
    if at.get("allowPrivilegeEscalation").value == &Value::Bool(false) {
        if at.get("privileged").is_true() {
            errors.invalid_shown(
                at,
                shown(at.value),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = at.get("capabilities");
        if added.get("add").items().any(|c| c.text() == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid_shown(at, shown(at.value), detail);
        }
    }
}

/// A security context as upstream's internal type prints it: every field, with Go's names.
fn shown(context: &Value) -> String {
    const FIELDS: [(&str, &str); 12] = [
        ("Capabilities", "capabilities"),
        ("Privileged", "privileged"),
        ("SELinuxOptions", "seLinuxOptions"),
        ("WindowsOptions", "windowsOptions"),
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
        ("SeccompProfile", "seccompProfile"),
        ("AppArmorProfile", "appArmorProfile"),
    ];
    let profile = |p: &Value| format!("{{\"Type\":{},\"LocalhostProfile\":{}}}", p["type"], p["localhostProfile"]);
    let one = |(name, field): &(&str, &str)| match &context[*field] {
        value @ Value::Object(_) if name.ends_with("Profile") => format!("{name:?}:{}", profile(value)),
        value @ Value::Object(_) if *name == "Capabilities" => {
            format!("{name:?}:{{\"Add\":{},\"Drop\":{}}}", value["add"], value["drop"])
        }
        value => format!("{name:?}:{value}"),
    };
    format!("{{{}}}", FIELDS.iter().map(one).collect::<Vec<_>>().join(","))
}

pub fn seccomp(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let (kind, local) = (at.get("type"), at.get("localhostProfile"));
    match kind.text() {
        "Localhost" if local.is_null() => errors.required(&local, "must be set when seccomp type is Localhost"),
        "Localhost" => descending_path(&local, errors),
        "RuntimeDefault" | "Unconfined" if !local.is_null() => {
            errors.invalid(&local, "can only be set when seccomp type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&kind, "type is required when seccompProfile is set"),
        _ => errors.not_supported(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
