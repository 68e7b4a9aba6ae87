//! Whether an extension API server can be reached, as the condition `Available` of its APIService says.
//!
//! Owns: the reasons and their words, and the condition among others in the status.
//! Called by: the attendant of each backend.
//! Never: connects: whether the server answered is told to it.

use minik_api::{object, resources};
use serde_json::{Value, json};

use super::backend::{Target, leads_to, port_name};
use crate::connect::location;
use crate::objects::Objects;

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This server serves it itself.
    Local,
    Passed,
    Failed {
        reason: &'static str,
        message: String,
    },
}

impl Verdict {
    fn failed(reason: &'static str, message: String) -> Self {
        Verdict::Failed { reason, message }
    }
    pub fn unanswered(message: String) -> Self {
        Self::failed("FailedDiscoveryCheck", message)
    }

    fn condition(&self, now: &str) -> Value {
        let (status, reason, message) = match self {
            Verdict::Local => ("True", "Local", "Local APIServices are always available"),
            Verdict::Passed => ("True", "Passed", "all checks passed"),
            Verdict::Failed { reason, message } => ("False", *reason, message.as_str()),
        };
        json!({"type": "Available", "status": status, "lastTransitionTime": now, "reason": reason, "message": message})
    }

    /// The APIService with this verdict in its status. The time changes with the status alone.
    pub fn written_into(&self, service: &Value, now: &str) -> Value {
        let mut new = service.clone();
        let mut condition = self.condition(now);
        if !new["status"]["conditions"].is_array() {
            new["status"]["conditions"] = json!([]);
        }
        let conditions = new["status"]["conditions"].as_array_mut().expect("made one above");
        match conditions.iter_mut().find(|c| c["type"] == "Available") {
            Some(known) => {
                if known["status"] == condition["status"] {
                    condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
                }
                *known = condition;
            }
            None => conditions.push(condition),
        }
        new
    }
}

pub fn is_available(service: &Value) -> bool {
    let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == "Available" && c["status"] == "True")
}

pub fn is_judged(service: &Value) -> bool {
    service["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Available")
}

/// Which APIServices cannot be used, for those who watch over a cluster.
pub fn metrics(objects: &dyn Objects) -> String {
    const NAME: &str = "aggregator_unavailable_apiservice";
    let mut out = format!(
        "# HELP {NAME} [ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.\n\
         # TYPE {NAME} gauge\n"
    );
    for service in objects.list(resources::APISERVICES, "") {
        let unavailable = u8::from(!is_available(&service));
        out.push_str(&format!("{NAME}{{name=\"{}\"}} {unavailable}\n", object::name(&service)));
    }
    out
}

/// What is wrong before anybody is called.
pub fn prospect(objects: &dyn Objects, target: &Target) -> Result<(), Verdict> {
    let (namespace, name, port) = (&target.namespace, &target.service, target.port);
    let subject = format!("service/{name} in {namespace:?}");
    let Some(service) = objects.get(resources::SERVICES, namespace, name) else {
        return Err(Verdict::failed("ServiceNotFound", format!("{subject} is not present")));
    };
    if !matches!(service["spec"]["type"].as_str(), None | Some("" | "ClusterIP")) {
        return Ok(());
    }
    let Some(port_name) = port_name(&service, port) else {
        return Err(Verdict::failed("ServicePortError", format!("{subject} is not listening on port {port}")));
    };
    let slices = objects.list(resources::ENDPOINTSLICES, namespace);
    let ours: Vec<_> = slices.iter().filter(|s| leads_to(s, name)).collect();
    if ours.is_empty() {
        return Err(Verdict::failed("EndpointsNotFound", format!("cannot find endpointslices for {subject}")));
    }
    if !ours.iter().any(|slice| !location::ready(slice, port_name).is_empty()) {
        let message = format!("endpointslices for {subject} have no addresses with port name {port_name:?}");
        return Err(Verdict::failed("MissingEndpoints", message));
    }
    Ok(())
}

/// A new APIService of this server's own groups says so from the beginning.
pub fn born(service: &mut Value, now: &str) {
    if is_local(service) {
        *service = Verdict::Local.written_into(service, now);
    }
}

fn is_local(service: &Value) -> bool {
    service["spec"].get("service").is_none_or(Value::is_null)
}

/// Whether an APIService that this server serves itself still has to be told so.
pub fn lacks_local(service: &Value) -> bool {
    is_local(service)
        && !object::is_deleting(service)
        && Verdict::Local.written_into(service, "")["status"] != service["status"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixture::Fixture;

    const TARGET: &str =
        r#"{"spec": {"group": "g", "version": "v1", "service": {"namespace": "a", "name": "s", "port": 443}}}"#;

    fn reason(objects: Vec<Value>) -> String {
        let service: Value = serde_json::from_str(TARGET).expect("an APIService");
        let backend = super::super::backend::Backend::of(&service, None, None).expect("it has a service");
        match prospect(&Fixture::of(objects), &backend.target) {
            Ok(()) => "to be asked".into(),
            Err(Verdict::Failed { reason, message }) => format!("{reason}: {message}"),
            Err(other) => format!("{other:?}"),
        }
    }

    fn service(port: u16) -> Value {
        json!({"kind": "Service", "metadata": {"namespace": "a", "name": "s"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"name": "https", "port": port}]}})
    }

    fn slice(ready: bool) -> Value {
        json!({"kind": "EndpointSlice",
            "metadata": {"namespace": "a", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "https", "port": 8443}],
            "endpoints": [{"addresses": ["10.244.0.5"], "conditions": {"ready": ready}}]})
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(reason(vec![]), r#"ServiceNotFound: service/s in "a" is not present"#);
        assert_eq!(reason(vec![service(80)]), r#"ServicePortError: service/s in "a" is not listening on port 443"#);
        assert_eq!(reason(vec![service(443)]), r#"EndpointsNotFound: cannot find endpointslices for service/s in "a""#);
        assert_eq!(
            reason(vec![service(443), slice(false)]),
            r#"MissingEndpoints: endpointslices for service/s in "a" have no addresses with port name "https""#
        );
        assert_eq!(reason(vec![service(443), slice(true)]), "to be asked");
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let first = Verdict::unanswered("no".into()).written_into(&json!({}), "then");
        let second = Verdict::unanswered("still no".into()).written_into(&first, "now");
        let condition = &second["status"]["conditions"][0];
        assert_eq!((&condition["lastTransitionTime"], &condition["message"]), (&json!("then"), &json!("still no")));
        assert!(!is_available(&second));
        let third = Verdict::Passed.written_into(&second, "now");
        assert_eq!(third["status"]["conditions"][0]["lastTransitionTime"], "now");
        assert!(is_available(&third));
    }
}
