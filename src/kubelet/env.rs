//! The environment of a container.
//!
//! Owns: the order in which sources override each other, and the service variables.
//! Called by: the start of a container, with the objects the pod refers to already at hand.
//! Never: fetches anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use crate::downward::{self, Around};
use crate::expand::expand;
use crate::pod::Pod;

/// ConfigMaps and Secrets of the pod's namespace by name; `None` is known not to exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, Option<Arc<Value>>>,
    pub secrets: BTreeMap<String, Option<Arc<Value>>>,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EnvError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error(transparent)]
    Field(#[from] downward::FieldError),
    #[error("{0} is not supported as a source of environment variables")]
    Unsupported(&'static str),
}

/// Ordered, each name once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    pub variables: Vec<(String, String)>,
    /// Messages for `InvalidEnvironmentVariableNames` events.
    pub skipped: Vec<String>,
}

impl Environment {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    fn set(&mut self, name: &str, value: String) {
        match self.variables.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.into(), value)),
        }
    }
}

/// Names of the ConfigMaps and of the Secrets the container's environment refers to.
pub fn references(container: &core::Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// `services` are those of the pod's namespace and `default/kubernetes`.
pub fn environment(
    pod: &Pod,
    container: &core::Container,
    around: &Around,
    sources: &Sources,
    services: &BTreeMap<String, String>,
) -> Result<Environment, EnvError> {
    let mut result = Environment::default();
    for from in container.env_from.iter().flatten() {
        env_from(pod, from, sources, &mut result)?;
    }
    for variable in container.env.iter().flatten() {
        let Some(value) = value_of(pod, container, around, sources, services, variable, &result)? else { continue };
        result.set(&variable.name, value);
    }
    for (name, value) in services {
        if result.get(name).is_none() {
            result.set(name, value.clone());
        }
    }
    Ok(result)
}

fn env_from(
    pod: &Pod,
    from: &core::EnvFromSource,
    sources: &Sources,
    result: &mut Environment,
) -> Result<(), EnvError> {
    let prefix = from.prefix.as_deref().unwrap_or("");
    let (kind, name, data) = if let Some(r) = &from.config_map_ref {
        match sources.config_maps.get(&r.name).cloned().flatten() {
            Some(map) => ("configMap", &r.name, text_data(&map)),
            None if r.optional == Some(true) => return Ok(()),
            None => return Err(EnvError::NoConfigMap(r.name.clone())),
        }
    } else if let Some(r) = &from.secret_ref {
        match sources.secrets.get(&r.name).cloned().flatten() {
            Some(secret) => ("secret", &r.name, secret_text(&secret)),
            None if r.optional == Some(true) => return Ok(()),
            None => return Err(EnvError::NoSecret(r.name.clone())),
        }
    } else {
        return Ok(());
    };
    let mut invalid = Vec::new();
    for (key, value) in data {
        let full = format!("{prefix}{key}");
        if is_variable_name(&full) { result.set(&full, value) } else { invalid.push(full) }
    }
    if !invalid.is_empty() {
        result.skipped.push(format!(
            "Keys [{}] from the EnvFrom {kind} {}/{name} were skipped since they are considered invalid environment variable names.",
            invalid.join(", "),
            pod.namespace()
        ));
    }
    Ok(())
}

/// Any printable ASCII but `=` (KEP-4369).
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn value_of(
    pod: &Pod,
    container: &core::Container,
    around: &Around,
    sources: &Sources,
    services: &BTreeMap<String, String>,
    variable: &core::EnvVar,
    so_far: &Environment,
) -> Result<Option<String>, EnvError> {
    if let Some(text) = variable.value.as_deref().filter(|v| !v.is_empty()) {
        let lookup = |name: &str| so_far.get(name).or_else(|| services.get(name).map(String::as_str));
        return Ok(Some(expand(text, lookup)));
    }
    let Some(source) = &variable.value_from else { return Ok(Some(String::new())) };
    if let Some(field) = &source.field_ref {
        return Ok(Some(downward::field(pod, around, &field.field_path)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(downward::resource(pod, around, Some(container), selector)?));
    }
    let missing_key = |kind, name: &str, key: &str| EnvError::NoKey {
        key: key.into(),
        kind,
        namespace: pod.namespace().into(),
        name: name.into(),
    };
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        let value = match sources.config_maps.get(&r.name).cloned().flatten() {
            Some(map) => text_data(&map).remove(&r.key).ok_or_else(|| missing_key("ConfigMap", &r.name, &r.key)),
            None => Err(EnvError::NoConfigMap(r.name.clone())),
        };
        return if optional { Ok(value.ok()) } else { value.map(Some) };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        let value = match sources.secrets.get(&r.name).cloned().flatten() {
            Some(secret) => secret_text(&secret).remove(&r.key).ok_or_else(|| missing_key("Secret", &r.name, &r.key)),
            None => Err(EnvError::NoSecret(r.name.clone())),
        };
        return if optional { Ok(value.ok()) } else { value.map(Some) };
    }
    Err(EnvError::Unsupported("fileKeyRef"))
}

/// A ConfigMap's `data`.
fn text_data(map: &Value) -> BTreeMap<String, String> {
    let data = map["data"].as_object().into_iter().flatten();
    data.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect()
}

/// A Secret's decoded `data`; an environment holds text, so other bytes are replaced.
fn secret_text(secret: &Value) -> BTreeMap<String, String> {
    let data = secret["data"].as_object().into_iter().flatten();
    data.filter_map(|(k, v)| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(v.as_str()?).ok()?;
        Some((k.clone(), String::from_utf8_lossy(&bytes).into_owned()))
    })
    .collect()
}

/// `<NAME>_SERVICE_HOST` and the Docker-link variables of each Service with an address.
pub fn service_variables<'a>(services: impl Iterator<Item = &'a Value>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let Some(ip) = service["spec"]["clusterIP"].as_str().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(first) = ports.first() else { continue };
        let name = variable_part(minik_api::object::name(service));
        out.insert(format!("{name}_SERVICE_HOST"), ip.to_string());
        out.insert(format!("{name}_SERVICE_PORT"), first["port"].to_string());
        for (index, port) in ports.iter().enumerate() {
            let number = port["port"].to_string();
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            if let Some(port_name) = port["name"].as_str().filter(|n| !n.is_empty()) {
                out.insert(format!("{name}_SERVICE_PORT_{}", variable_part(port_name)), number.clone());
            }
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
            let url = format!("{}://{host}:{number}", protocol.to_lowercase());
            if index == 0 {
                out.insert(format!("{name}_PORT"), url.clone());
            }
            let prefix = format!("{name}_PORT_{number}_{protocol}");
            out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
            out.insert(format!("{prefix}_PORT"), number);
            out.insert(format!("{prefix}_ADDR"), ip.to_string());
            out.insert(prefix, url);
        }
    }
    out
}

fn variable_part(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;
    use serde_json::json;

    fn sources() -> Sources {
        let map = json!({"data": {"a": "1", "bad=key": "x"}});
        let secret = json!({"data": {"pw": "czNjcmV0"}});
        Sources {
            config_maps: BTreeMap::from([("cm".into(), Some(Arc::new(map))), ("none".into(), None)]),
            secrets: BTreeMap::from([("s".into(), Some(Arc::new(secret)))]),
        }
    }

    fn run(env: &str) -> Result<Environment, EnvError> {
        let pod = pod(&format!("containers: [{{name: c, {env}}}]"));
        let services = BTreeMap::from([("WEB_SERVICE_HOST".to_string(), "10.96.1.1".to_string())]);
        environment(&pod, &pod.spec.containers[0], &Around::default(), &sources(), &services)
    }

    fn check(env: &str, expected: &str) {
        let text: Vec<String> = run(env).expect("resolves").variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn own_variables_override_env_from_and_services_and_may_refer_to_them() {
        check(
            "envFrom: [{prefix: P_, configMapRef: {name: cm}}], env: [{name: X, value: $(P_a)/$(WEB_SERVICE_HOST)/$(Y)}, {name: P_a, value: '2'}]",
            "P_a=2 X=1/10.96.1.1/$(Y) WEB_SERVICE_HOST=10.96.1.1",
        );
        check("env: [{name: WEB_SERVICE_HOST, value: mine}]", "WEB_SERVICE_HOST=mine");
    }

    #[test]
    fn secrets_are_decoded_and_fields_read() {
        check(
            "env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: pw}}}, {name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
            "P=s3cret N=p WEB_SERVICE_HOST=10.96.1.1",
        );
    }

    #[test]
    fn what_is_missing_and_not_optional_is_named() {
        let error = |env: &str| run(env).expect_err("missing").to_string();
        assert_eq!(error("envFrom: [{configMapRef: {name: none}}]"), "configmap \"none\" not found");
        assert_eq!(
            error("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: no}}}]"),
            "couldn't find key no in Secret ns/s"
        );
        check(
            "envFrom: [{secretRef: {name: none, optional: true}}], env: [{name: A, valueFrom: {configMapKeyRef: {name: cm, key: no, optional: true}}}]",
            "WEB_SERVICE_HOST=10.96.1.1",
        );
    }

    #[test]
    fn keys_that_are_no_variable_names_are_skipped_and_told() {
        let told = run("envFrom: [{configMapRef: {name: cm}}]").expect("resolves").skipped;
        assert_eq!(
            told,
            [
                "Keys [bad=key] from the EnvFrom configMap ns/cm were skipped since they are considered invalid environment variable names."
            ]
        );
    }

    #[test]
    fn a_service_gives_host_port_and_link_variables() {
        let service = json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}});
        let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        let text: Vec<String> =
            service_variables([&service, &headless].into_iter()).iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text.join("\n"),
            "MY_DB_PORT=tcp://10.96.0.9:5432\nMY_DB_PORT_5432_TCP=tcp://10.96.0.9:5432\nMY_DB_PORT_5432_TCP_ADDR=10.96.0.9\n\
             MY_DB_PORT_5432_TCP_PORT=5432\nMY_DB_PORT_5432_TCP_PROTO=tcp\nMY_DB_SERVICE_HOST=10.96.0.9\nMY_DB_SERVICE_PORT=5432\n\
             MY_DB_SERVICE_PORT_SQL=5432"
        );
    }
}
