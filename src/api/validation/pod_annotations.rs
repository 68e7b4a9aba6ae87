//! Rules of the annotations of Pods and templates that mean something.
//!
//! Owns: their form, which of them may change, and that old annotations and the fields that replace them agree.
//! Called by: `pod`, and `status` for what is written there.
//! Never: turns an annotation into a field (that is a strategy).

use serde_json::Value;

use super::check::{At, Errors};
use super::containers;
use crate::pod_annotations::{APP_ARMOR, DELETION_COST, MIRROR, SECCOMP_OF_CONTAINER, SECCOMP_OF_POD};

const UNCONFINED: &str = "unconfined";
const RUNTIME_DEFAULT: &str = "runtime/default";
/// What docker's was called before runtimes were.
const DOCKER_DEFAULT: &str = "docker/default";
const LOCALHOST: &str = "localhost/";

/// The form of each; `before` are those the Pod had.
pub(super) fn check(annotations: &At<'_>, before: &Value, spec: &At<'_>, errors: &mut Errors) {
    let mirror = annotations.key(MIRROR);
    if !mirror.is_null() && spec.get("nodeName").text().is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = annotations.key(DELETION_COST);
    if !is_cost(cost.value) && is_cost(&before[DELETION_COST]) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
    if !annotations.get(SECCOMP_OF_POD).is_null() {
        seccomp_form(&annotations.get(SECCOMP_OF_POD), errors);
    }
    for (key, _) in annotations.entries().filter(|(key, _)| key.starts_with(SECCOMP_OF_CONTAINER)) {
        seccomp_form(&annotations.get(key), errors);
    }
    for (key, at) in annotations.entries() {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut is_there = false;
        containers::each(spec, |c| is_there |= c.get("name").text() == container);
        if !is_there {
            errors.invalid_shown(&at, format!("{container:?}"), "container not found");
        }
        let profile = at.text();
        if !matches!(profile, "" | UNCONFINED | RUNTIME_DEFAULT) && !profile.starts_with(LOCALHOST) {
            errors.invalid(&at, format!("invalid AppArmor profile name: {profile:?}"));
        }
    }
}

/// What of them a Pod may not change once it is there, and the form of all.
pub(super) fn update(annotations: &At<'_>, before: &Value, spec: &At<'_>, errors: &mut Errors) {
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ => key.starts_with(APP_ARMOR).then_some("AppArmor annotations"),
    };
    for (key, _) in before.as_object().into_iter().flatten().filter(|(key, v)| annotations.key(key).value != *v) {
        if let Some(what) = fixed(key) {
            errors.forbidden(&annotations.key(key), format!("may not remove or update {what}"));
        }
    }
    for (key, at) in annotations.entries().filter(|(key, _)| before[*key].is_null()) {
        if let Some(what) = fixed(key) {
            errors.forbidden(&at, format!("may not add {what}"));
        }
    }
    check(annotations, before, spec, errors);
}

/// Old annotations and the fields of a new Pod or template must say the same.
pub(super) fn agree(annotations: &Value, spec: &At<'_>, errors: &mut Errors) {
    let of_pod = spec.get("securityContext");
    agrees(&annotations[SECCOMP_OF_POD], &of_pod.get("seccompProfile"), &SECCOMP, errors);
    containers::each(spec, |container| {
        let key = [SECCOMP_OF_CONTAINER, container.get("name").text()].concat();
        let context = container.get("securityContext");
        agrees(&annotations[&key], &context.get("seccompProfile"), &SECCOMP, errors);
    });
    if spec.value["os"]["name"] == "windows" {
        return;
    }
    let of_pod = &of_pod.value["appArmorProfile"];
    containers::each(spec, |container| {
        let key = [APP_ARMOR, container.get("name").text()].concat();
        let context = container.get("securityContext");
        let own = context.get("appArmorProfile");
        let profile = if own.is_null() { own.showing(of_pod) } else { own };
        agrees(&annotations[&key], &profile, &APP_ARMOR_WORDS, errors);
    });
}

/// How annotations name a profile, and what is said of one that differs.
struct Words {
    default: &'static [&'static str],
    differs: &'static str,
    differs_locally: &'static str,
}

const SECCOMP: Words = Words {
    default: &[RUNTIME_DEFAULT, DOCKER_DEFAULT],
    differs: "seccomp type in annotation and field must match",
    differs_locally: "seccomp profile in annotation and field must match",
};
const APP_ARMOR_WORDS: Words = Words {
    default: &[RUNTIME_DEFAULT],
    differs: "apparmor type in annotation and field must match",
    differs_locally: "apparmor profile in annotation and field must match",
};

fn agrees(annotation: &Value, profile: &At<'_>, words: &Words, errors: &mut Errors) {
    let Some(said) = annotation.as_str().filter(|_| !profile.is_null()) else { return };
    let is_same = match profile.get("type").text() {
        "Unconfined" => said == UNCONFINED,
        "RuntimeDefault" => words.default.contains(&said),
        "Localhost" => match said.strip_prefix(LOCALHOST) {
            Some(local) if profile.value["localhostProfile"] != local => {
                return errors.forbidden(&profile.get("localhostProfile"), words.differs_locally);
            }
            local => local.is_some(),
        },
        _ => true,
    };
    if !is_same {
        errors.forbidden(&profile.get("type"), words.differs);
    }
}

/// None, or an integer as Go reads it, without a plus sign or zeros before it.
fn is_cost(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return value.is_null() };
    let has_first_digit = text == "0" || text.starts_with('-') || text.starts_with(|c: char| ('1'..='9').contains(&c));
    has_first_digit && text.parse::<i32>().is_ok()
}

fn seccomp_form(at: &At<'_>, errors: &mut Errors) {
    match at.text() {
        UNCONFINED | RUNTIME_DEFAULT | DOCKER_DEFAULT => {}
        said => match said.strip_prefix(LOCALHOST) {
            Some(path) => containers::descending_path(&at.showing(&Value::from(path)), errors),
            None => errors.invalid(at, "must be a valid seccomp profile"),
        },
    }
}
