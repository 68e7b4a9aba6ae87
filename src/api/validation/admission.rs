//! Rules of webhooks and of admission policies, but for their expressions.
//!
//! Owns: webhook configurations, policies up to what they match, bindings.
//! Called by: `validation`.
//! Never: compiles an expression or calls a webhook.

use serde_json::Value;

use super::check::{At, Errors};
use crate::names;
use crate::status::FieldError;

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// What a policy may change the object of.
const MUTABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
/// Names of what the server reads from files when it starts.
const STATIC_SUFFIX: &str = ".static.k8s.io";
const URL_FORM: &str = "; desired format: https://host[/path]";

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    contents(kind, object, errors);
    let metadata = object.get("metadata");
    if metadata.get("name").text().ends_with(STATIC_SUFFIX) {
        let detail = format!(
            "names ending with {STATIC_SUFFIX:?} are reserved for static manifest-based configurations and cannot be \
             managed via the API"
        );
        errors.invalid(&metadata.get("name"), detail);
    }
}

fn contents(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => webhooks(&object.get("webhooks"), errors),
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => policy(kind, &spec, errors),
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => binding(kind, &spec, errors),
        _ => {}
    }
}

/// These are checked as if they were new, but for the name, which stays.
pub fn update(kind: &str, object: &At<'_>, _: &Value, errors: &mut Errors) {
    contents(kind, object, errors);
}

fn webhooks(list: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for webhook in list.items() {
        let name = webhook.get("name");
        if name.text().is_empty() {
            errors.required(&name, "");
        } else if !names::dns1123_subdomain(name.text()).is_empty() {
            errors.faults(&name, vec![names::dns1123_subdomain(name.text()).join(",")]);
        } else if name.text().split('.').count() < 3 {
            errors.invalid(&name, "should be a domain with at least three segments separated by dots");
        }
        webhook.get("rules").items().for_each(|rule| rule_with_operations(&rule, errors));
        errors.one_of_if_set(&webhook.get("failurePolicy"), &["Fail", "Ignore"]);
        errors.one_of_if_set(&webhook.get("matchPolicy"), &["Equivalent", "Exact"]);
        let effects = webhook.get("sideEffects");
        if effects.is_null() {
            errors.required(&effects, "must specify one of None, NoneOnDryRun");
        } else {
            errors.one_of_if_set(&effects, &["None", "NoneOnDryRun"]);
        }
        let timeout = webhook.get("timeoutSeconds");
        if timeout.number().is_some_and(|t| !(1..=30).contains(&t)) {
            errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
        }
        for field in ["namespaceSelector", "objectSelector"] {
            errors.label_selector(&webhook.get(field));
        }
        errors.one_of_if_set(&webhook.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
        client(&webhook.get("clientConfig"), errors);
        let missing = format!("must specify one of {}", REVIEWS.join(", "));
        review_versions(&webhook.get("admissionReviewVersions"), &missing, errors);
        if !name.text().is_empty() && seen.iter().any(|s| s == name.text()) {
            errors.duplicate(&name);
        }
        seen.push(name.text().to_string());
    }
}

/// Where a webhook is, of admission or of conversion.
pub fn client(at: &At<'_>, errors: &mut Errors) {
    let (url_at, service_at) = (at.get("url"), at.get("service"));
    match (url_at.value.as_str(), service_at.value.is_object()) {
        (Some(text), false) => url(&url_at, text, errors),
        (None, true) => service(&service_at, errors),
        _ => errors.required(at, "exactly one of url or service is required"),
    }
}

fn url(at: &At<'_>, text: &str, errors: &mut Errors) {
    let mut part = |value: &str, detail: String| errors.invalid(&at.showing(&value.into()), detail);
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or(""));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        part(scheme, format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    if host.is_empty() {
        part(host, format!("host must be specified{URL_FORM}"));
    }
    if let Some(user) = user {
        part(user, "user information is not permitted in the URL".into());
    }
    if !fragment.is_empty() {
        part(fragment, "fragments are not permitted in the URL".into());
    }
    if !query.is_empty() {
        part(query, "query parameters are not permitted in the URL".into());
    }
}

fn service(at: &At<'_>, errors: &mut Errors) {
    // Upstream takes the two for each other.
    for (missing, told) in [("namespace", "name"), ("name", "namespace")] {
        if at.get(missing).text().is_empty() {
            errors.required(&at.get(told), "");
        }
    }
    let port = at.get("port");
    let number = port.number().unwrap_or(0);
    let faults = names::port_number(number);
    if !faults.is_empty() {
        errors.invalid(&port.showing(&number.into()), format!("port is not valid: {}", faults.join(", ")));
    }
    let path = at.get("path");
    let text = path.text();
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        return errors.invalid(&path, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        errors.invalid(&path, "must start with a '/'");
    }
    let steps: String = text.chars().skip(1).collect();
    for (index, step) in steps.strip_suffix('/').unwrap_or(&steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, format!("segment[{index}] may not be empty"));
            continue;
        }
        for fault in names::dns1123_subdomain(step) {
            errors.invalid(&path, format!("segment[{index}]: {fault}"));
        }
    }
}

/// The versions a webhook understands; `missing` is what is said where there is none.
pub fn review_versions(list: &At<'_>, missing: &str, errors: &mut Errors) {
    if list.len() == 0 {
        return errors.required(list, missing);
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in list.items() {
        if seen.contains(&version.text()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.text());
        errors.faults(&version, names::dns1035_label(version.text()));
    }
    if !seen.iter().any(|version| REVIEWS.contains(version)) {
        errors.invalid(list, format!("must include at least one of {}", REVIEWS.join(", ")));
    }
}

fn has_wildcard(list: &At<'_>) -> bool {
    list.items().any(|value| value.text() == "*")
}

fn rule_with_operations(rule: &At<'_>, errors: &mut Errors) {
    for (field, others) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")]
    {
        let at = rule.get(field);
        if at.len() == 0 {
            errors.required(&at, "");
        }
        if at.len() > 1 && has_wildcard(&at) {
            errors.invalid(&at, format!("if '*' is present, must not specify other {others}"));
        }
        for value in at.items() {
            match field {
                "operations" => errors.one_of_if_set(&value, &OPERATIONS),
                "apiVersions" if value.text().is_empty() => errors.required(&value, ""),
                _ => {}
            }
        }
    }
    resources(&rule.get("resources"), errors);
    errors.one_of_if_set(&rule.get("scope"), &["*", "Cluster", "Namespaced"]);
}

/// Resources and subresources: `pods`, `pods/status`, `*`, `pods/*`, `*/scale`, `*/*`.
fn resources(list: &At<'_>, errors: &mut Errors) {
    if list.len() == 0 {
        errors.required(list, "");
    }
    let (mut whole, mut everywhere): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut names_one = false;
    for at in list.items() {
        let text = at.text();
        if text.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            // As upstream has it, the last one decides.
            names_one = text != "*";
            continue;
        };
        if whole.contains(&resource) {
            errors.invalid(&at, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if everywhere.contains(&sub) {
            errors.invalid(&at, format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            everywhere.push(sub);
        }
    }
    if list.len() > 1 && list.items().any(|at| at.text() == "*/*") {
        errors.invalid(list, "if '*/*' is present, must not specify other resources");
    }
    if names_one && has_wildcard(list) {
        errors.invalid(list, "if '*' is present, must not specify other resources without subresources");
    }
}

fn policy(kind: &str, spec: &At<'_>, errors: &mut Errors) {
    let failure = spec.get("failurePolicy");
    if failure.is_null() {
        errors.required(&failure, "");
    }
    errors.one_of_if_set(&failure, &["Fail", "Ignore"]);
    if spec.value["paramKind"].is_object() {
        param_kind(&spec.get("paramKind"), errors);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_null() {
        return errors.required(&constraints, "");
    }
    match_resources(&constraints, errors);
    let rules = constraints.get("resourceRules");
    if rules.len() == 0 {
        errors.required(&rules, "");
    }
    if kind == "MutatingAdmissionPolicy" {
        only_mutable(&rules, errors);
    }
}

fn param_kind(at: &At<'_>, errors: &mut Errors) {
    let (version_at, kind) = (at.get("apiVersion"), at.get("kind"));
    let text = version_at.text();
    let mut told = |value: &str, detail: String| errors.invalid(&version_at.showing(&value.into()), detail);
    match text.split('/').collect::<Vec<_>>()[..] {
        _ if text.is_empty() => errors.required(&version_at, ""),
        [_, _, _, ..] => told(text, format!("unexpected GroupVersion string: {text}")),
        ref parts => {
            let (group, version) = if parts.len() == 2 { (parts[0], parts[1]) } else { ("", parts[0]) };
            let faults = names::dns1123_subdomain(group);
            if !group.is_empty() && !faults.is_empty() {
                told(group, faults.join(","));
            }
            let faults = names::dns1035_label(version);
            if version.is_empty() {
                told(text, "version must be specified".into());
            } else if !faults.is_empty() {
                told(version, faults.join(","));
            }
        }
    }
    let faults = names::dns1035_label(&kind.text().to_lowercase());
    if kind.text().is_empty() {
        errors.required(&kind, "");
    } else if !faults.is_empty() {
        errors.invalid(&kind, format!("may have mixed case, but should otherwise match: {}", faults.join(",")));
    }
}

/// `MatchResources` of a policy or a binding; defaults are there already.
fn match_resources(at: &At<'_>, errors: &mut Errors) {
    let policy = at.get("matchPolicy");
    if policy.is_null() {
        errors.required(&policy, "");
    }
    errors.one_of_if_set(&policy, &["Equivalent", "Exact"]);
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = at.get(field);
        if selector.is_null() {
            errors.required(&selector, "");
        } else {
            errors.label_selector(&selector);
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in at.get(field).items() {
            let list = rule.get("resourceNames");
            let mut seen: Vec<&str> = Vec::new();
            for name in list.items() {
                errors.faults(&name, names::path_segment(name.text()));
                if seen.contains(&name.text()) {
                    errors.duplicate(&name);
                }
                seen.push(name.text());
            }
            rule_with_operations(&rule, errors);
        }
    }
}

/// Only what is written can be changed before it is.
fn only_mutable(rules: &At<'_>, errors: &mut Errors) {
    for rule in rules.items() {
        for operation in rule.get("operations").items().filter(|o| !MUTABLE.contains(&o.text())) {
            let path = format!("{}.operations", rules.path());
            errors.push(FieldError::not_supported(path, operation.value, &MUTABLE));
        }
    }
}

fn binding(kind: &str, spec: &At<'_>, errors: &mut Errors) {
    let (policy, limits, actions) = (spec.get("policyName"), spec.get("matchResources"), spec.get("validationActions"));
    let validates = kind == "ValidatingAdmissionPolicyBinding";
    match (policy.text(), validates) {
        ("", true) => errors.required_by_declaration(&policy),
        ("", false) => errors.required(&policy, ""),
        _ => errors.subdomain(&policy),
    }
    if spec.value["paramRef"].is_object() {
        param_ref(&spec.get("paramRef"), errors);
    }
    if limits.value.is_object() {
        match_resources(&limits, errors);
    }
    if !validates {
        return only_mutable(&limits.get("resourceRules"), errors);
    }
    let mut seen: Vec<&str> = Vec::new();
    for action in actions.items() {
        errors.one_of_if_set(&action, &["Audit", "Deny", "Warn"]);
        if seen.contains(&action.text()) {
            errors.duplicate(&action);
        }
        seen.push(action.text());
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&actions, detail);
    }
    if seen.is_empty() {
        errors.required_by_declaration(&actions);
    }
}

fn param_ref(at: &At<'_>, errors: &mut Errors) {
    let (name, selector, action) = (at.get("name"), at.get("selector"), at.get("parameterNotFoundAction"));
    let both = !name.text().is_empty() && !selector.is_null();
    let detail = "name and selector are mutually exclusive";
    if !name.text().is_empty() {
        errors.faults(&name, names::path_segment(name.text()));
        if both {
            errors.forbidden(&name, detail);
        }
    }
    errors.label_selector(&selector);
    if both {
        errors.forbidden(&selector, detail);
    }
    if name.text().is_empty() && selector.is_null() {
        errors.required(at, "one of name or selector must be specified");
    }
    errors.one_of(&action, &["Deny", "Allow"]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(kind: &str, object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        create(kind, &At::root(&object), &mut errors);
        errors.into_texts()
    }

    #[test]
    fn a_webhook_says_where_it_is() {
        let told = |client: Value| {
            let mut errors = Errors::default();
            super::client(&At::root(&client), &mut errors);
            errors.into_texts()
        };
        assert!(told(json!({"url": "https://example.com:8443/path"})).is_empty());
        assert!(told(json!({"service": {"name": "s", "namespace": "n", "port": 443, "path": "/a/b/"}})).is_empty());
        assert_eq!(told(json!({})), [": Required value: exactly one of url or service is required"]);
        assert_eq!(
            told(json!({"url": "http://me@example.com?q=1#f"})),
            [
                "url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "url: Invalid value: \"me\": user information is not permitted in the URL",
                "url: Invalid value: \"f\": fragments are not permitted in the URL",
                "url: Invalid value: \"q=1\": query parameters are not permitted in the URL",
            ]
        );
        assert_eq!(
            told(json!({"service": {"name": "s", "port": -1, "path": "/a//b"}})),
            [
                "service.name: Required value",
                "service.port: Invalid value: -1: port is not valid: must be between 1 and 65535, inclusive",
                "service.path: Invalid value: \"/a//b\": segment[1] may not be empty",
            ]
        );
    }

    #[test]
    fn a_policy_names_what_it_matches_once() {
        let rule = json!({"apiGroups": [], "apiVersions": ["v1", ""], "operations": ["CREATE", "*"],
            "resources": ["*", "pods/*", "pods/status", "pods"], "resourceNames": ["x", "x"], "scope": "All"});
        let spec = json!({"failurePolicy": "Fail", "paramKind": {"apiVersion": "a/b/c", "kind": "K!"},
            "matchConstraints": {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "resourceRules": [rule]}});
        assert_eq!(
            found("ValidatingAdmissionPolicy", json!({"spec": spec}))[..2].iter().map(|t| &t[..40]).collect::<Vec<_>>(),
            ["spec.paramKind.apiVersion: Invalid value", "spec.paramKind.kind: Invalid value: \"K!\""]
        );
        assert_eq!(
            found("ValidatingAdmissionPolicy", json!({"spec": spec}))[2..],
            [
                "spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: \"x\"",
                "spec.matchConstraints.resourceRules[0].operations: Invalid value: [\"CREATE\",\"*\"]: if '*' is present, must not specify other operations",
                "spec.matchConstraints.resourceRules[0].apiGroups: Required value",
                "spec.matchConstraints.resourceRules[0].apiVersions[1]: Required value",
                "spec.matchConstraints.resourceRules[0].resources[2]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
                "spec.matchConstraints.resourceRules[0].resources: Invalid value: [\"*\",\"pods/*\",\"pods/status\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
                "spec.matchConstraints.resourceRules[0].scope: Unsupported value: \"All\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ]
        );
    }

    #[test]
    fn a_binding_needs_a_policy_and_something_to_do() {
        assert_eq!(
            found("ValidatingAdmissionPolicyBinding", json!({"spec": {"paramRef": {"name": "n", "selector": {}}}})),
            [
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Required value",
                "spec.policyName: Required value",
                "spec.validationActions: Required value",
            ]
        );
    }
}
