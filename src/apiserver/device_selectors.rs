//! Expressions that choose devices, in device classes, claims and their templates.
//!
//! Owns: what such an expression may name, what it may cost, and where these kinds have one.
//! Called by: `compiled`.
//! Never: sees a device; whoever allocates them evaluates.

use std::sync::LazyLock;

use minik_api::FieldError;
use minik_api::status::FieldErrorType;
use minik_cel::{Environment, Program, Type};
use serde_json::{Value, json};

const LENGTH_MAX: usize = 10 * 1024;
const COST_MAX: u64 = 1_000_000;
/// Attributes and capacities of one device, counted together.
const PARTS_MAX: u64 = 32;
const DOMAIN_LENGTH_MAX: u64 = 63;
const ID_LENGTH_MAX: u64 = 32;
/// Of an attribute that is a string or a version.
const VALUE_LENGTH_MAX: u64 = 64;

static NAMES: LazyLock<Environment> = LazyLock::new(|| {
    let by_domain = |value: Type| Type::map(Type::String, Type::map(Type::String, value));
    let quantity = Type::named("kubernetes.Quantity").expect("the library has quantities");
    let device = Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("allowMultipleAllocations", Type::Bool),
            ("attributes", by_domain(Type::Any)),
            ("capacity", by_domain(quantity)),
        ],
    );
    Environment::default().with_bindings().with("device", device)
});

/// How large the parts of a device may be.
fn size(path: &[String]) -> Option<u64> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["device"] => Some(0),
        ["device", "driver"] => Some(DOMAIN_LENGTH_MAX),
        ["device", "allowMultipleAllocations"] => Some(1),
        ["device", "attributes" | "capacity"] => Some(PARTS_MAX),
        ["device", "attributes" | "capacity", "@keys"] => Some(DOMAIN_LENGTH_MAX),
        ["device", "attributes" | "capacity", "@values"] => Some(PARTS_MAX),
        ["device", "attributes" | "capacity", "@values", "@keys"] => Some(ID_LENGTH_MAX),
        // Also by name: whatever it is, an attribute is no larger.
        ["device", "attributes", "@values", _] => Some(VALUE_LENGTH_MAX),
        ["device", "capacity", "@values", "@values"] => Some(0),
        _ => None,
    }
}

pub fn faults(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match kind {
        "DeviceClass" => {
            // What has not changed was judged when it was new.
            let known = old.is_some_and(|old| old["spec"]["selectors"] == new["spec"]["selectors"]);
            if known { Vec::new() } else { selectors("spec", &new["spec"]) }
        }
        "ResourceClaim" if old.is_none() => claim("spec.devices", &new["spec"]["devices"]),
        "ResourceClaimTemplate" if old.is_none() => claim("spec.spec.devices", &new["spec"]["spec"]["devices"]),
        _ => Vec::new(),
    }
}

fn items<'v>(path: &str, list: &'v Value) -> Vec<(String, &'v Value)> {
    let items = list.as_array().into_iter().flatten().enumerate();
    items.map(|(index, item)| (format!("{path}[{index}]"), item)).collect()
}

fn claim(path: &str, devices: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for (path, request) in items(&format!("{path}.requests"), &devices["requests"]) {
        faults.extend(selectors(&format!("{path}.exactly"), &request["exactly"]));
        for (path, part) in items(&format!("{path}.firstAvailable"), &request["firstAvailable"]) {
            faults.extend(selectors(&path, part));
        }
    }
    faults
}

fn selectors(path: &str, of: &Value) -> Vec<FieldError> {
    let said = items(&format!("{path}.selectors"), &of["selectors"]);
    said.into_iter()
        .filter(|(_, selector)| selector["cel"].is_object())
        .filter_map(|(path, s)| judge(&path, s))
        .collect()
}

fn judge(path: &str, selector: &Value) -> Option<FieldError> {
    let path = format!("{path}.cel.expression");
    let text = selector["cel"]["expression"].as_str().unwrap_or_default();
    if text.len() > LENGTH_MAX {
        let detail = format!("may not be more than {LENGTH_MAX} bytes");
        return Some(FieldError { kind: FieldErrorType::TooLong, path, value: None, detail });
    }
    let invalid = |why: String| Some(FieldError::invalid(&path, &json!(text), why));
    let program = match Program::compile(&NAMES, text) {
        Ok(program) => program,
        Err(faults) => return invalid(format!("compilation failed: {faults}")),
    };
    let result = program.result();
    if !result.is_dyn() && *result != Type::Bool {
        return invalid(format!("must evaluate to bool or the unknown type, not {result}"));
    }
    let cost = program.estimate(&size).max;
    (cost > COST_MAX).then(|| FieldError::forbidden(&path, "too complex, exceeds cost limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: &[&str]) {
        let class = json!({"spec": {"selectors": [{"cel": {"expression": expression}}]}});
        let found: Vec<String> = faults("DeviceClass", &class, None).iter().map(FieldError::body).collect();
        assert_eq!(found, expected, "{expression}");
        assert!(faults("DeviceClass", &class, Some(&class)).is_empty());
    }

    #[test]
    fn what_a_device_has_may_be_asked() {
        check("device.driver == 'd.example.com'", &[]);
        check("device.attributes['d.example.com'].model == 'a' && device.allowMultipleAllocations", &[]);
        check("device.attributes['d.example.com'].healthy", &[]);
        check("device.capacity['d.example.com'].memory.compareTo(quantity('10Gi')) >= 0", &[]);
        check("cel.bind(d, device.attributes['d.example.com'], d.a && d.b)", &[]);
        check("device.attributes['d'].version.isGreaterThan(semver('1.0.0'))", &[]);
    }

    #[test]
    fn anything_else_is_refused_in_upstreams_words() {
        check(
            "device.name == 'x'",
            &["Invalid value: \"device.name == 'x'\": compilation failed: ERROR: \
               <input>:1:7: undefined field 'name'\n | device.name == 'x'\n | ......^"],
        );
        check(
            "device.driver",
            &["Invalid value: \"device.driver\": must evaluate to bool or the \
               unknown type, not string"],
        );
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, true))))";
        check(nested, &["Forbidden: too complex, exceeds cost limit"]);
    }

    #[test]
    fn every_request_of_a_claim_is_looked_at() {
        let selectors = json!([{"cel": {"expression": "1"}}]);
        let devices = json!({"requests": [
            {"name": "a", "exactly": {"selectors": selectors}},
            {"name": "b", "firstAvailable": [{"name": "c", "selectors": selectors}]},
        ]});
        let template = json!({"spec": {"spec": {"devices": devices}}});
        let found = faults("ResourceClaimTemplate", &template, None);
        let paths: Vec<&str> = found.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "spec.spec.devices.requests[0].exactly.selectors[0].cel.expression",
                "spec.spec.devices.requests[1].firstAvailable[0].selectors[0].cel.expression",
            ]
        );
    }
}
