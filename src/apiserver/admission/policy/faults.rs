//! What is wrong with the expressions of a new policy or webhook.
//!
//! Owns: the faults of their expressions and of the fields around them, in upstream's words.
//! Called by: creates and updates of policies and webhook configurations.
//! Never: judges what a policy means.

use minik_api::{FieldError, names};
use minik_cel::identifier::is_identifier;
use minik_cel::policy::{Programs, Types};
use serde_json::Value;

use super::super::expression::{Compiled, Params, condition};

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ANNOTATIONS_MAX: usize = 20;

/// A policy of either sort.
pub fn faults(kind: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if old.is_some_and(|old| old["spec"] == object["spec"]) {
        return Vec::new();
    }
    let mut found = Vec::new();
    if matches!(kind, "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") {
        policy(kind, object, &mut found);
    }
    found
}

/// The match conditions of webhooks.
pub fn webhook_faults(configuration: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (index, webhook) in list(configuration, "webhooks").iter().enumerate() {
        let known = old.into_iter().flat_map(|old| list(old, "webhooks"));
        if known.into_iter().any(|known| known["matchConditions"] == webhook["matchConditions"]) {
            continue;
        }
        conditions(webhook, &format!("webhooks[{index}].matchConditions"), Params::None, &mut found);
    }
    found
}

fn list<'v>(of: &'v Value, field: &str) -> &'v [Value] {
    of[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(of: &'v Value, field: &str) -> &'v str {
    of[field].as_str().unwrap_or("")
}

fn policy(kind: &str, object: &Value, found: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let params = if spec["paramKind"].is_object() { Params::Known } else { Params::None };
    conditions(spec, "spec.matchConditions", params, found);
    let programs = Programs::compile(object, &Types::default());
    variables(spec, &programs, found);
    if kind == "ValidatingAdmissionPolicy" {
        validations(object, &programs, found);
    } else {
        mutations(spec, &programs, found);
    }
}

fn conditions(of: &Value, path: &str, params: Params, found: &mut Vec<FieldError>) {
    let mut known: Vec<&str> = Vec::new();
    for (index, stated) in list(of, "matchConditions").iter().enumerate() {
        let at = format!("{path}[{index}]");
        let expression = text(stated, "expression").trim();
        if expression.is_empty() {
            found.push(FieldError::required(format!("{at}.expression"), ""));
        } else if let Err(error) = condition(expression, params).as_ref() {
            found.push(FieldError::invalid(format!("{at}.expression"), &expression.into(), error.clone()));
        }
        let name = text(stated, "name");
        if name.is_empty() {
            found.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            for fault in names::qualified_name(name) {
                found.push(FieldError::invalid(format!("{at}.name"), &name.into(), fault));
            }
            if known.contains(&name) {
                found.push(FieldError::duplicate(format!("{at}.name"), &name.into()));
            }
            known.push(name);
        }
    }
}

fn told(compiled: &Compiled, path: String, expression: &str, found: &mut Vec<FieldError>) {
    if let Err(error) = compiled {
        found.push(FieldError::invalid(path, &expression.into(), error.clone()));
    }
}

fn variables(spec: &Value, programs: &Programs, found: &mut Vec<FieldError>) {
    for (index, variable) in list(spec, "variables").iter().enumerate() {
        let at = format!("spec.variables[{index}]");
        let (name, expression) = (text(variable, "name"), text(variable, "expression"));
        if name.trim().is_empty() {
            found.push(FieldError::required(format!("{at}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            found.push(FieldError::invalid(format!("{at}.name"), &name.into(), "must be a valid CEL identifier"));
        }
        if expression.trim().is_empty() {
            found.push(FieldError::required(format!("{at}.expression"), "expression is not specified"));
        } else if let Some((_, error)) = programs.broken.iter().find(|(broken, _)| broken == name) {
            found.push(FieldError::invalid(format!("{at}.expression"), &expression.into(), error.clone()));
        }
    }
}

fn validations(object: &Value, programs: &Programs, found: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let (rules, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if rules.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        found.push(FieldError::required("spec.validations", detail));
        found.push(FieldError::required("spec.auditAnnotations", detail));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("spec.validations[{index}]");
        let (expression, message) = (text(rule, "expression").trim(), text(rule, "message"));
        if expression.is_empty() {
            found.push(FieldError::required(format!("{at}.expression"), "expression is not specified"));
        } else {
            told(&programs.validations[index], format!("{at}.expression"), text(rule, "expression"), found);
        }
        if let Some(compiled) = &programs.messages[index] {
            told(compiled, format!("{at}.messageExpression"), text(rule, "messageExpression"), found);
        }
        if !message.is_empty() && message.trim().is_empty() {
            let detail = "must be non-empty if specified";
            found.push(FieldError::invalid(format!("{at}.message"), &rule["message"], detail));
        } else if message.trim().contains(['\n', '\r']) {
            let detail = "must not contain line breaks";
            found.push(FieldError::invalid(format!("{at}.message"), &rule["message"], detail));
        }
        if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
            found.push(FieldError::not_supported(format!("{at}.reason"), &reason.into(), &REASONS));
        }
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        found.push(FieldError::invalid("spec.auditAnnotations", &spec["auditAnnotations"], detail));
    }
    let mut known: Vec<&str> = Vec::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let at = format!("spec.auditAnnotations[{index}]");
        let (key, expression) = (text(annotation, "key"), text(annotation, "valueExpression"));
        let full = format!("{}/{key}", minik_api::object::name(object));
        for fault in names::qualified_name(&full) {
            found.push(FieldError::invalid(format!("{at}.key"), &full.as_str().into(), fault));
        }
        if expression.trim().is_empty() {
            found.push(FieldError::required(format!("{at}.valueExpression"), "valueExpression is not specified"));
        } else {
            told(&programs.annotations[index], format!("{at}.valueExpression"), expression, found);
        }
        if known.contains(&key) {
            found.push(FieldError::duplicate(format!("{at}.key"), &key.into()));
        }
        known.push(key);
    }
}

fn mutations(spec: &Value, programs: &Programs, found: &mut Vec<FieldError>) {
    let mutations = list(spec, "mutations");
    if mutations.is_empty() {
        found.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (index, mutation) in mutations.iter().enumerate() {
        let at = format!("spec.mutations[{index}]");
        let (mine, other, kind) = match text(mutation, "patchType") {
            "JSONPatch" => ("jsonPatch", "applyConfiguration", "JSONPatch"),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", "ApplyConfiguration"),
            "" => {
                found.push(FieldError::required(format!("{at}.patchType"), ""));
                continue;
            }
            _ => {
                let supported = ["ApplyConfiguration", "JSONPatch"];
                found.push(FieldError::not_supported(format!("{at}.patchType"), &mutation["patchType"], &supported));
                continue;
            }
        };
        if !mutation[mine].is_object() {
            let detail = format!("must be specified when patchType is {kind}");
            found.push(FieldError::required(format!("{at}.{mine}"), detail));
        } else if text(&mutation[mine], "expression").trim().is_empty() {
            found.push(FieldError::required(format!("{at}.{mine}.expression"), ""));
        } else {
            let expression = text(&mutation[mine], "expression").trim();
            told(&programs.mutations[index], format!("{at}.{mine}.expression"), expression, found);
        }
        if mutation[other].is_object() {
            let detail = format!("must not be specified when patchType is {kind}");
            let shown = format!("{{{other}}}");
            found.push(FieldError::invalid(format!("{at}.{other}"), &shown.into(), detail));
        }
    }
    match spec["reinvocationPolicy"].as_str() {
        None | Some("") => found.push(FieldError::required("spec.reinvocationPolicy", "")),
        Some("Never" | "IfNeeded") => {}
        Some(_) => {
            let (path, supported) = ("spec.reinvocationPolicy", ["IfNeeded", "Never"]);
            found.push(FieldError::not_supported(path, &spec["reinvocationPolicy"], &supported));
        }
    }
}
