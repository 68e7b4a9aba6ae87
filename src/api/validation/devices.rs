//! Rules of dynamic resource allocation: device classes, claims and their templates, slices, taint rules.
//!
//! Owns: those kinds.
//! Called by: `validation`.
//! Never: compiles a selector's expression, or knows which devices exist.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{At, Errors};
use super::scheduling;
use crate::schema::Type;
use crate::{go_json, names};

const REQUESTS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const DEVICES_MAX: usize = 128;
const DRIVER_NAME_MAX: usize = 63;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const MODES: [&str; 2] = ["All", "ExactCount"];

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "DeviceClass" => class(&spec, errors),
        "ResourceClaim" => claim(&spec.get("devices"), errors),
        "ResourceClaimTemplate" => {
            let inner = spec.get("spec");
            claim(&inner.get("devices"), errors);
        }
        "ResourceSlice" => slice(&spec, errors),
        "DeviceTaintRule" => taint_rule(&spec, errors),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        // What was allocated by it stays as it was asked for. Upstream shows nothing of a claim's.
        "ResourceClaim" => errors.immutable_unshown(&spec, &old["spec"]),
        "ResourceClaimTemplate" => {
            create(kind, object, errors);
            if spec.value != &old["spec"] {
                let shown = go_json::internal(resource("ResourceClaimTemplateSpec"), spec.value);
                errors.invalid_shown(&spec, shown, "field is immutable");
            }
        }
        "ResourceSlice" => {
            create(kind, object, errors);
            let (pool, before) = (spec.get("pool"), &old["spec"]);
            errors.immutable(&pool.get("name"), &before["pool"]["name"]);
            errors.immutable(&spec.get("driver"), &before["driver"]);
            errors.immutable(&spec.get("nodeName"), &before["nodeName"]);
        }
        _ => create(kind, object, errors),
    }
}

fn resource(kind: &str) -> Type {
    Type::api("resource.v1", kind)
}

fn at_most(list: &At<'_>, max: usize, errors: &mut Errors) {
    if list.len() > max {
        errors.too_many(list, max);
    }
}

fn selectors(all: &At<'_>, errors: &mut Errors) {
    at_most(all, SELECTORS_MAX, errors);
    for selector in all.items() {
        if selector.get("cel").is_null() {
            errors.required(&selector.get("cel"), "");
        }
    }
}

fn class(spec: &At<'_>, errors: &mut Errors) {
    selectors(&spec.get("selectors"), errors);
    spec.get("config").items().for_each(|config| opaque(&config, errors));
    let name = spec.get("extendedResourceName");
    if name.is_null() {
        return;
    }
    let text = name.text();
    if !text.contains('/') {
        errors.invalid(&name, "a name must be a domain-prefixed path, such as 'example.com/my-prop'");
    } else if text.starts_with("requests.") {
        errors.invalid(&name, "must not have \"requests.\" prefix");
    } else if text.split('/').next().is_some_and(|domain| domain.ends_with("kubernetes.io")) {
        errors.invalid(&name, "must not have \"kubernetes.io/\" domain");
    }
    errors.qualified_name(&name);
}

/// Parameters for a driver, which nobody else reads.
fn opaque(config: &At<'_>, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if opaque.is_null() {
        return errors.required(&opaque, "");
    }
    let (driver, parameters) = (opaque.get("driver"), opaque.get("parameters"));
    if !driver.text().is_empty() {
        errors.faults(&driver, names::caseless_dns1123_subdomain(driver.text()));
    }
    if parameters.is_null() {
        errors.required(&parameters, "");
    } else if !parameters.value.is_object() {
        errors.invalid(&parameters.showing(&json!("<value omitted>")), "must be a valid JSON object");
    }
    if driver.text().is_empty() {
        errors.required_by_declaration(&driver);
    }
}

fn claim(devices: &At<'_>, errors: &mut Errors) {
    let requests = devices.get("requests");
    at_most(&requests, REQUESTS_MAX, errors);
    let mut known = BTreeSet::new();
    for (i, one) in requests.items().enumerate() {
        request(&one, errors);
        let name = one.get("name").text();
        if requests.items().take(i).any(|other| other.get("name").text() == name) && !name.is_empty() {
            errors.duplicate_shown(&one, go_json::versioned(resource("DeviceRequest"), one.value));
        }
        known.insert(name.to_string());
        let parts = one.get("firstAvailable");
        known.extend(parts.items().map(|part| format!("{name}/{}", part.get("name").text())));
    }
    for constraint in devices.get("constraints").items() {
        names_of_requests(&constraint.get("requests"), &known, errors);
        let attributes = ["matchAttribute", "distinctAttribute"].map(|field| constraint.get(field));
        let mut said = attributes.iter().filter(|attribute| !attribute.is_null());
        match (said.next(), said.next()) {
            (Some(one), None) => qualified(one, errors),
            _ => errors.required(
                &constraint,
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            ),
        }
    }
    for config in devices.get("config").items() {
        names_of_requests(&config.get("requests"), &known, errors);
        opaque(&config, errors);
    }
}

fn names_of_requests(list: &At<'_>, known: &BTreeSet<String>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for name in list.items() {
        for part in name.text().split('/') {
            errors.faults(&name, names::dns1123_label(part));
        }
        if !known.contains(name.text()) {
            let why = "must be the name of a request in the claim or the name of a request and a subrequest \
                       separated by '/'";
            errors.invalid(&name, why);
        }
        if !seen.insert(name.text()) {
            errors.duplicate(&name);
        }
    }
}

fn request(request: &At<'_>, errors: &mut Errors) {
    errors.label(&request.get("name"));
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_null(), first.len() == 0) {
        (true, true) => errors.required(request, "exactly one of `exactly` or `firstAvailable` is required"),
        (false, false) => errors.invalid(
            &request.showing(&Value::Null),
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (false, true) => wanted(&exactly, errors),
        (true, false) => {
            for (i, part) in first.items().enumerate() {
                errors.label(&part.get("name"));
                wanted(&part, errors);
                if first.items().take(i).any(|other| other.get("name").value == part.get("name").value) {
                    errors.duplicate_shown(&part, go_json::versioned(resource("DeviceSubRequest"), part.value));
                }
            }
        }
    }
}

/// What devices a request is content with.
fn wanted(wanted: &At<'_>, errors: &mut Errors) {
    errors.required_name(&wanted.get("deviceClassName"), names::dns1123_subdomain);
    selectors(&wanted.get("selectors"), errors);
    let (mode, count) = (wanted.get("allocationMode"), wanted.get("count"));
    match (mode.text(), count.number().unwrap_or(0)) {
        ("All", 0) => {}
        ("All", _) => errors.invalid(&count, "must not be specified when allocationMode is 'All'"),
        ("ExactCount", ..=0) => errors.invalid(&count, "must be greater than zero"),
        ("ExactCount", _) => {}
        _ => errors.not_supported(&mode, &MODES),
    }
    wanted.get("tolerations").items().for_each(|t| toleration(&t, errors));
}

fn toleration(toleration: &At<'_>, errors: &mut Errors) {
    let (key, operator, effect) = (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
    if !key.text().is_empty() {
        errors.qualified_name(&key);
    }
    let value = toleration.get("value");
    match operator.text() {
        "Exists" if !value.text().is_empty() => errors.invalid(&value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => errors.faults(&value, names::label_value(value.text())),
        _ => errors.not_supported(&operator, &["Equal", "Exists"]),
    }
    if !effect.text().is_empty() && !EFFECTS.contains(&effect.text()) {
        errors.not_supported(&effect, &EFFECTS);
    }
}

/// `example.com/model`: an attribute with the domain that gives it meaning.
fn qualified(at: &At<'_>, errors: &mut Errors) {
    let Some((domain, name)) = at.text().split_once('/') else {
        return errors.invalid(at, "a fully qualified name must be a domain and a name separated by a slash");
    };
    let shown = json!(domain);
    let faults = names::dns1123_subdomain(domain).into_iter().map(|why| format!("prefix: {why}"));
    errors.faults(&at.showing(&shown), faults.collect());
    errors.faults(&at.showing(&json!(name)), names::c_identifier(name));
}

fn taint(taint: &At<'_>, errors: &mut Errors) {
    let (value, effect) = (taint.get("value"), taint.get("effect"));
    errors.qualified_name(&taint.get("key"));
    if !value.text().is_empty() {
        errors.faults(&value, names::label_value(value.text()));
    }
    errors.one_of(&effect, &EFFECTS);
}

fn driver(at: &At<'_>, errors: &mut Errors) {
    if at.text().is_empty() {
        return errors.required(at, "");
    }
    if at.text().len() > DRIVER_NAME_MAX {
        errors.too_long(at, DRIVER_NAME_MAX);
    }
    // Capitals are warned about, not refused.
    errors.faults(at, names::dns1123_subdomain(&at.text().to_lowercase()));
}

fn pool_name(at: &At<'_>, errors: &mut Errors) {
    if at.text().is_empty() {
        return errors.required(at, "");
    }
    for part in at.text().split('/') {
        errors.faults(&at.showing(&json!(part)), names::dns1123_subdomain(part));
    }
}

fn taint_rule(spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.get("deviceSelector");
    let said = |field: &'static str| Some(selector.get(field)).filter(|at| !at.is_null());
    if let Some(at) = said("driver") {
        driver(&at, errors);
    }
    if let Some(at) = said("pool") {
        pool_name(&at, errors);
    }
    if let Some(at) = said("device") {
        errors.label(&at);
    }
    taint(&spec.get("taint"), errors);
}

fn slice(spec: &At<'_>, errors: &mut Errors) {
    driver(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    pool_name(&pool.get("name"), errors);
    let (slices, generation) = (pool.get("resourceSliceCount"), pool.get("generation"));
    if slices.number().unwrap_or(0) <= 0 {
        errors.invalid(&slices.showing(&json!(slices.number().unwrap_or(0))), "must be greater than zero");
    }
    if generation.number().is_some_and(|n| n < 0) {
        errors.invalid(&generation, "must be greater than or equal to zero");
    }
    places(spec, errors);
    let devices = spec.get("devices");
    at_most(&devices, DEVICES_MAX, errors);
    let each = spec.get("perDeviceNodeSelection").is_true();
    for (i, one) in devices.items().enumerate() {
        device(&one, each, errors);
        let name = one.get("name");
        if devices.items().take(i).any(|other| other.get("name").value == name.value) {
            errors.duplicate(&one.showing(name.value));
        }
    }
}

/// Where the devices of a slice are: said in one way.
fn places(spec: &At<'_>, errors: &mut Errors) {
    const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let (name, selector) = (spec.get("nodeName"), spec.get("nodeSelector"));
    let mut ways = Vec::new();
    if !name.is_null() {
        ways.push("`nodeName`");
        errors.subdomain(&name);
    }
    if !selector.is_null() {
        ways.push("`nodeSelector`");
        scheduling::node_selector(&selector, errors);
        if selector.get("nodeSelectorTerms").len() != 1 {
            errors.invalid(&selector.get("nodeSelectorTerms"), "must have exactly one node selector term");
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        let way = spec.get(field);
        if way.is_true() {
            ways.push(shown);
        } else if !way.is_null() {
            errors.invalid(&way, "must be either unset or set to true");
        }
    }
    match ways.len() {
        0 => errors.push_declared(crate::FieldError::required(spec.path(), WAYS)),
        1 => {}
        _ => {
            let said = json!(format!("{{{}}}", ways.join(", ")));
            errors.invalid(&spec.showing(&said), format!("{WAYS}, but multiple fields are set"));
        }
    }
}

fn device(device: &At<'_>, says_place: bool, errors: &mut Errors) {
    errors.label(&device.get("name"));
    let places = ["nodeName", "nodeSelector", "allNodes"].map(|field| device.get(field));
    let said = places.iter().filter(|place| !place.is_null()).count();
    if says_place && said == 0 {
        let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                   `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        errors.required(device, why);
    } else if !says_place && said > 0 {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                   true in the ResourceSlice spec";
        errors.invalid(&device.showing(&Value::Null), why);
    }
    device.get("attributes").entries().for_each(|(_, attribute)| one_value(&attribute, errors));
    device.get("taints").items().for_each(|t| taint(&t, errors));
}

fn one_value(attribute: &At<'_>, errors: &mut Errors) {
    const KINDS: [&str; 8] = ["int", "bool", "string", "version", "ints", "bools", "strings", "versions"];
    const ALL: &str = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`";
    let said: Vec<&str> = KINDS.into_iter().filter(|kind| !attribute.get(kind).is_null()).collect();
    match said.len() {
        0 => errors.invalid(&attribute.showing(&json!("")), format!("must specify one of: {ALL}")),
        1 => {}
        _ => {
            let shown = json!(format!("{{{}}}", said.join(", ")));
            errors.invalid(&attribute.showing(&shown), format!("must specify exactly one of: {ALL}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(kind: &str, spec: Value) -> Vec<String> {
        let object = json!({"spec": spec});
        let mut errors = Errors::default();
        create(kind, &At::root(&object), &mut errors);
        errors.into_texts()
    }

    fn exactly(more: Value) -> Value {
        let mut exactly = json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
        for (field, value) in more.as_object().unwrap() {
            exactly[field] = value.clone();
        }
        json!({"name": "r", "exactly": exactly})
    }

    #[test]
    fn a_claim_asks_in_one_way_for_what_it_names_later() {
        let claim = |devices: Value| faults("ResourceClaim", json!({"devices": devices}));
        assert!(claim(json!({"requests": [exactly(json!({}))], "config": [{"requests": ["r"], "opaque": {"driver": "d", "parameters": {}}}]})).is_empty());
        assert_eq!(
            claim(json!({"requests": [{"name": "r"}]})),
            ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"]
        );
        assert_eq!(
            claim(json!({"requests": [exactly(json!({"allocationMode": "All"}))]})),
            [
                "spec.devices.requests[0].exactly.count: Invalid value: 1: must not be specified when allocationMode is 'All'"
            ]
        );
        assert_eq!(
            claim(
                json!({"requests": [exactly(json!({}))], "constraints": [{"requests": ["r", "r"], "matchAttribute": "noslash"}]})
            ),
            [
                "spec.devices.constraints[0].requests[1]: Duplicate value: \"r\"",
                "spec.devices.constraints[0].matchAttribute: Invalid value: \"noslash\": a fully qualified name must be a domain and a name separated by a slash",
            ]
        );
        assert_eq!(
            claim(json!({"config": [{"opaque": {"driver": "", "parameters": [1]}}]})),
            [
                "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                "spec.devices.config[0].opaque.driver: Required value",
            ]
        );
    }

    #[test]
    fn a_slice_says_in_one_way_where_its_devices_are() {
        let slice = |places: Value| {
            let mut spec = json!({"driver": "d", "pool": {"name": "p", "resourceSliceCount": 1}});
            for (field, value) in places.as_object().unwrap() {
                spec[field] = value.clone();
            }
            faults("ResourceSlice", spec)
        };
        assert!(slice(json!({"allNodes": true})).is_empty());
        assert_eq!(
            slice(json!({"allNodes": true, "nodeName": "n"})),
            [
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"
            ]
        );
        assert_eq!(
            slice(
                json!({"allNodes": true, "devices": [{"name": "a", "attributes": {"x": {"int": 1, "bool": true}}}, {"name": "a"}]})
            ),
            [
                "spec.devices[0].attributes[x]: Invalid value: \"{int, bool}\": must specify exactly one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`",
                "spec.devices[1]: Duplicate value: \"a\"",
            ]
        );
    }

    #[test]
    fn a_taint_has_a_key_and_an_effect() {
        let rule = |taint: Value| faults("DeviceTaintRule", json!({"taint": taint}));
        assert!(rule(json!({"key": "a", "effect": "None"})).is_empty());
        assert_eq!(rule(json!({"key": "a"})), ["spec.taint.effect: Required value"]);
        let class = |name: &str| faults("DeviceClass", json!({"extendedResourceName": name}));
        assert!(class("example.com/gpu").is_empty());
        assert_eq!(
            class("requests.a/b"),
            ["spec.extendedResourceName: Invalid value: \"requests.a/b\": must not have \"requests.\" prefix"]
        );
    }
}
