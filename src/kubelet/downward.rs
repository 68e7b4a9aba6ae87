//! A pod's own fields as text: for environment variables and for files.
//!
//! Owns: which field paths there are, how maps are printed, how resource amounts are divided.
//! Called by: `env`, the downwardAPI and projected volumes.
//! Never: asks the API server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::Pod;
use crate::resources::{self, ResourceList};

/// What the node knows and the pod object may not say yet.
#[derive(Clone, Debug, Default)]
pub struct Around {
    pub node_name: String,
    pub host_ip: Option<IpAddr>,
    /// As the sandbox has them.
    pub pod_ips: Vec<String>,
    /// What `limits.*` means for a container without a limit.
    pub node_allocatable: ResourceList,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
}

/// `fieldRef.fieldPath`, with maps printed whole (`metadata.labels`) or by key (`metadata.labels['a']`).
pub fn field(pod: &Pod, around: &Around, path: &str) -> Result<String, FieldError> {
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(FieldError::FieldPath(path.into())),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let ips = || {
        if pod.host_network() { around.host_ip.iter().map(IpAddr::to_string).collect() } else { around.pod_ips.clone() }
    };
    Ok(match path {
        "metadata.name" => pod.name().into(),
        "metadata.namespace" => pod.namespace().into(),
        "metadata.uid" => pod.uid.clone(),
        "metadata.labels" => print_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => print_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => around.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "status.podIP" => ips().into_iter().next().unwrap_or_default(),
        "status.podIPs" => ips().join(","),
        _ => return Err(FieldError::FieldPath(path.into())),
    })
}

/// `a['b']` is (`a`, `b`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="escaped value"` a line, sorted.
fn print_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quote(v))).collect();
    lines.join("\n")
}

/// Go's `strconv.Quote`.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_control() && c.is_ascii() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `resourceFieldRef`; `own` is the container it stands in, which a volume does not have.
pub fn resource(
    pod: &Pod,
    around: &Around,
    own: Option<&core::Container>,
    selector: &core::ResourceFieldSelector,
) -> Result<String, FieldError> {
    let container = match (&selector.container_name, own) {
        (Some(name), _) if !name.is_empty() => {
            pod.container(name).map(|(_, c)| c).ok_or_else(|| FieldError::Container(name.clone()))?
        }
        (_, Some(own)) => own,
        (_, None) => return Err(FieldError::Container(String::new())),
    };
    let unsupported = || FieldError::Resource(selector.resource.clone());
    let (side, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let level = pod.spec.resources.as_ref();
    let amount = match side {
        "limits" => resources::limits(container)
            .and_then(|l| l.get(name))
            .or_else(|| level.and_then(|l| l.limits.as_ref()).and_then(|l| l.get(name)))
            .or_else(|| around.node_allocatable.get(name)),
        "requests" => resources::requests(container).and_then(|l| l.get(name)),
        _ => return Err(unsupported()),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let one = Quantity("1".into());
    let divisor = selector.divisor.as_ref().filter(|q| resources::milli(q) > 0).unwrap_or(&one);
    let count = if name == "cpu" { resources::milli } else { resources::units };
    let (amount, divisor) = (amount.map_or(0, count), count(divisor).max(1));
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    fn around() -> Around {
        Around {
            node_name: "n1".into(),
            host_ip: Some(IpAddr::from([172, 18, 0, 2])),
            pod_ips: vec!["10.244.0.5".into()],
            node_allocatable: BTreeMap::from([("cpu".into(), Quantity("2".into()))]),
        }
    }

    #[test]
    fn fields_come_from_the_pod_and_its_node() {
        let mut pod = pod("{containers: [], serviceAccountName: sa}");
        pod.metadata.labels = Some(BTreeMap::from([("b".into(), "x\"y\n".into()), ("a".into(), "1".into())]));
        let read = |path: &str| field(&pod, &around(), path);
        assert_eq!(read("metadata.labels").as_deref(), Ok("a=\"1\"\nb=\"x\\\"y\\n\""));
        assert_eq!(read("metadata.labels['a']").as_deref(), Ok("1"));
        assert_eq!(read("metadata.annotations['none']").as_deref(), Ok(""));
        assert_eq!(read("status.podIPs").as_deref(), Ok("10.244.0.5"));
        assert_eq!(read("status.hostIP").as_deref(), Ok("172.18.0.2"));
        assert_eq!(read("spec.serviceAccountName").as_deref(), Ok("sa"));
        assert_eq!(read("spec.containers"), Err(FieldError::FieldPath("spec.containers".into())));
    }

    #[test]
    fn resources_are_divided_rounding_up_and_default_to_the_node() {
        let pod = pod("containers: [{name: a, resources: {requests: {cpu: 250m}, limits: {memory: 65Mi}}}]");
        let read = |resource: &str, divisor: &str| {
            let selector = core::ResourceFieldSelector {
                resource: resource.into(),
                divisor: Some(Quantity(divisor.into())),
                container_name: None,
            };
            super::resource(&pod, &around(), Some(&pod.spec.containers[0]), &selector).expect("supported")
        };
        assert_eq!(read("requests.cpu", "1"), "1");
        assert_eq!(read("requests.cpu", "1m"), "250");
        assert_eq!(read("limits.memory", "1Mi"), "65");
        assert_eq!(read("limits.memory", "10Mi"), "7");
        assert_eq!(read("limits.cpu", "0"), "2");
    }
}
