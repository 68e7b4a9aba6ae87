//! What the server does to an object before it is admitted and validated: status and spec kept apart, generations
//! counted, fields derived that need no other object.
//!
//! Owns: those rules, from the registry's row, and for the few kinds that have more.
//! Called by: the API server for every create, update and status update.
//! Never: sets names, timestamps or resource versions, or allocates addresses and ports. A Job's selector is made of
//! its uid, so the uid must be set before `prepare_create`.

pub(crate) mod app_armor;
mod pod;

use serde_json::{Map, Value, json};

use crate::convert::TEMPLATE_GENERATION;
use crate::decode;
use crate::object::{self, text};
use crate::registry::{Resource, StatusWrites};
use crate::schema::Type;

pub use pod::qos_class;

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(field.into(), value),
        None => map.remove(field),
    };
}

fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    inside(object, "metadata")
}

fn inside<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object[field].is_object() {
        object[field] = Value::Object(Map::new());
    }
    object[field].as_object_mut().expect("an object was put there")
}

fn set_generation(object: &mut Value, generation: i64) {
    if generation == 0 {
        metadata(object).remove("generation");
    } else {
        metadata(object).insert("generation".into(), generation.into());
    }
}

/// The status of an object nobody reported about yet, as Go writes it: `{}` or with what it always has.
fn empty_status(resource: &Resource) -> Option<Value> {
    let of = Type::of_kind(&resource.group, &resource.version, &resource.kind)?;
    let field = of.field("status")?;
    let zero = decode::zero_field(field);
    (!zero.is_null() && !field.omits_zero()).then_some(zero)
}

/// Whether something besides metadata, status and type differs.
fn desired_state_differs(new: &Value, old: &Value) -> bool {
    let desired = |o: &Value| {
        let mut map = o.as_object().cloned().unwrap_or_default();
        for field in ["metadata", "status", "kind", "apiVersion"] {
            map.remove(field);
        }
        map
    };
    desired(new) != desired(old)
}

/// Before a create. Answers what the client must be told of what it sent, as nobody can see that afterwards.
pub fn prepare_create(resource: &Resource, object: &mut Value) -> Vec<String> {
    if resource.status == StatusWrites::Separate {
        set(object, "status", empty_status(resource));
    }
    set_generation(object, i64::from(resource.generation.starts_at_one));
    if resource.id().is_none() {
        return Vec::new();
    }
    match resource.kind.as_ref() {
        "Pod" => return pod::prepare_create(object),
        "Namespace" => {
            set(object, "status", Some(json!({"phase": "Active"})));
            let finalizers = inside(object, "spec").entry("finalizers").or_insert_with(|| json!([]));
            if let Value::Array(list) = finalizers
                && !list.iter().any(|f| f == "kubernetes")
            {
                list.push("kubernetes".into());
            }
        }
        "PersistentVolumeClaim" => {
            set(object, "status", Some(json!({"phase": "Pending"})));
            data_sources(object, None);
        }
        "PersistentVolume" => {
            let born = &object["metadata"]["creationTimestamp"];
            let status = match born.is_null() {
                true => json!({"phase": "Pending"}),
                false => json!({"phase": "Pending", "lastPhaseTransitionTime": born}),
            };
            set(object, "status", Some(status));
        }
        "DaemonSet" => set_template_generation(object, 1.max(template_generation(object))),
        "Job" => job_selector(object),
        "Service" => pair_cluster_ips(object, None),
        "Node" => drop_config_source(object),
        "CustomResourceDefinition" => {
            crate::defaulting::apply("apiextensions.k8s.io", "v1", "CustomResourceDefinition", object)
        }
        _ => {}
    }
    Vec::new()
}

/// Before an update of the object itself.
pub fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    if resource.status != StatusWrites::WithTheObject {
        set(new, "status", old.get("status").cloned());
    }
    if resource.id().is_some() {
        match resource.kind.as_ref() {
            "Pod" => pod::prepare_update(new, old),
            // Finalizers of a namespace have an endpoint of their own.
            "Namespace" => set(new, "spec", old.get("spec").cloned()),
            // What was asked for is what was approved.
            "CertificateSigningRequest" => set(new, "spec", old.get("spec").cloned()),
            "Secret" if new["type"].as_str().unwrap_or("").is_empty() => set(new, "type", old.get("type").cloned()),
            "DaemonSet" => {
                let changed = new["spec"]["template"] != old["spec"]["template"];
                set_template_generation(new, template_generation(old) + i64::from(changed));
            }
            "PersistentVolumeClaim" => data_sources(new, Some(old)),
            "Service" => service_update(new, old),
            "CustomResourceDefinition" => note_stored_version(new),
            "Node" if new["spec"].is_null() => set(new, "spec", Some(json!({}))),
            "Node" if old["spec"]["configSource"].is_null() => drop_config_source(new),
            _ => {}
        }
    }
    count_generation(resource, new, old);
}

/// Nodes cannot be configured by an object any more.
fn drop_config_source(node: &mut Value) {
    if let Some(spec) = node.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("configSource");
    }
}

/// A definition remembers every version that its objects were stored in.
fn note_stored_version(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array();
    let stored = versions.into_iter().flatten().find(|v| v["storage"] == true).map(|v| v["name"].clone());
    let Some(stored) = stored else { return };
    if !definition["status"]["storedVersions"].is_array() {
        definition["status"]["storedVersions"] = json!([]);
    }
    if let Some(known) = definition["status"]["storedVersions"].as_array_mut()
        && !known.contains(&stored)
    {
        known.push(stored);
    }
}

/// The generation is the server's: it counts changes of the desired state.
fn count_generation(resource: &Resource, new: &mut Value, old: &Value) {
    let generation = object::generation(old);
    let metadata_differs = |field: &str| new["metadata"][field] != old["metadata"][field];
    let in_metadata = match &*resource.kind {
        // A Deployment's annotations are handed on to its ReplicaSets.
        "Deployment" if resource.id().is_some() => metadata_differs("annotations"),
        // An EndpointSlice's labels say whose it is.
        "EndpointSlice" if resource.id().is_some() => metadata_differs("labels"),
        _ => false,
    };
    let counted = resource.generation.counts_changes && (in_metadata || desired_state_differs(new, old));
    set_generation(new, generation + i64::from(counted));
}

/// Before a write to `/status`: the desired state stays as it was, and so do the fields of metadata that the status'
/// author does not own.
pub fn prepare_status_update(resource: &Resource, new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let custom = resource.id().is_none();
    let mut kept = old.clone();
    set(&mut kept, "status", status);
    let sent = new["metadata"].as_object().cloned().unwrap_or_default();
    let mut fields = vec!["managedFields", "resourceVersion"];
    if !resource.status_keeps_metadata {
        fields.extend(["annotations", "finalizers", "ownerReferences"]);
        if custom || resource.kind != "Deployment" {
            fields.push("labels");
        }
    }
    for field in fields {
        set(&mut kept["metadata"], field, sent.get(field).cloned());
    }
    if !custom && resource.kind == "Pod" {
        pod::prepare_status_update(&mut kept, old);
    }
    *new = kept;
}

/// After `prepare_status_update`: a PersistentVolume tells since when it is in its phase.
pub fn note_phase(resource: &Resource, new: &mut Value, old: &Value, now: &str) {
    const SINCE: &str = "lastPhaseTransitionTime";
    let (status, before) = (&new["status"], &old["status"]);
    let moved = status["phase"] != before["phase"] && status[SINCE] == before[SINCE];
    if resource.id().is_some() && resource.kind == "PersistentVolume" && moved {
        new["status"][SINCE] = now.into();
    }
}

/// What a claim is filled from. Sources that nobody may name are dropped without a word, as they were when there was
/// only the older way to name one, unless the claim has a source already.
fn data_sources(claim: &mut Value, old: Option<&Value>) {
    let had = |field: &str| old.is_some_and(|old| old["spec"][field].is_object());
    let spec = inside(claim, "spec");
    // Other namespaces are an alpha feature of upstream's.
    let elsewhere = spec.get("dataSourceRef").is_some_and(|source| !text(source, "namespace").is_empty());
    if elsewhere && !had("dataSourceRef") {
        spec.remove("dataSourceRef");
    }
    let is_known = spec.get("dataSource").is_some_and(|source| {
        let named = (text(source, "apiGroup"), text(source, "kind"));
        matches!(named, ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    });
    let newer = spec.get("dataSourceRef").is_some_and(Value::is_object);
    if !is_known && !newer && !had("dataSource") && !had("dataSourceRef") {
        spec.remove("dataSource");
    }
    pair_data_sources(claim);
}

/// The older and the newer way to name what a claim is filled from say the same, except for other namespaces, which
/// the older one cannot say.
fn pair_data_sources(claim: &mut Value) {
    let spec = &claim["spec"];
    let (old, new) = (&spec["dataSource"], &spec["dataSourceRef"]);
    let copy = |from: &Value| json!({"apiGroup": from["apiGroup"], "kind": from["kind"], "name": from["name"]});
    if old.is_object() && new.is_null() {
        claim["spec"]["dataSourceRef"] = copy(old);
    } else if new.is_object() && old.is_null() && text(new, "namespace").is_empty() {
        claim["spec"]["dataSource"] = copy(new);
    }
}

/// A DaemonSet's template generation lives on as an annotation.
fn template_generation(object: &Value) -> i64 {
    object::annotation(object, TEMPLATE_GENERATION).and_then(|g| g.parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Value::Object(annotations) = metadata(object).entry("annotations").or_insert_with(|| json!({})) {
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    }
}

/// A Job without labels of its own shares those of its template, and with them what they get by `prepare_create`.
/// `job` is as the client sent it.
pub fn shares_labels(resource: &Resource, job: &Value) -> bool {
    let is_empty = |labels: &Value| labels.as_object().is_none_or(Map::is_empty);
    resource.id().is_some()
        && resource.kind == "Job"
        && is_empty(&job["metadata"]["labels"])
        && !is_empty(&job["spec"]["template"]["metadata"]["labels"])
}

/// After `prepare_create` of a Job that shares its labels.
pub fn share_labels(job: &mut Value) {
    job["metadata"]["labels"] = job["spec"]["template"]["metadata"]["labels"].clone();
}

/// A Job that does not bring its own selector gets one by its uid, which its Pods then bear as labels.
fn job_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (object::name(job).to_string(), object::uid(job).to_string());
    let spec = inside(job, "spec");
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let metadata = inside(template, "metadata");
    if let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| json!({})) {
        // The bare keys are what Jobs used before label prefixes; old clients still look for them.
        for (key, value) in [("controller-uid", &uid), ("job-name", &name)] {
            for key in [key.to_string(), format!("batch.kubernetes.io/{key}")] {
                // Another value, which the client gave it, is refused later.
                labels.entry(key).or_insert_with(|| value.as_str().into());
            }
        }
    }
    let selector = spec.entry("selector").or_insert_with(|| json!({}));
    let labels = inside(selector, "matchLabels");
    labels.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| uid.into());
}

fn needs_cluster_ip(service: &Value) -> bool {
    matches!(text(&service["spec"], "type"), "" | "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// `clusterIP` is the first of `clusterIPs`; a client that knows only one of them must not lose the other.
fn pair_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let single = text(&new["spec"], "clusterIP").to_string();
    let first = new["spec"]["clusterIPs"][0].as_str().unwrap_or("").to_string();
    let Some(old) = old else {
        if !single.is_empty() && first.is_empty() {
            new["spec"]["clusterIPs"] = json!([single]);
        }
        return;
    };
    let single_changed = single != text(&old["spec"], "clusterIP");
    let list_changed = new["spec"]["clusterIPs"] != old["spec"]["clusterIPs"];
    if single_changed && !list_changed {
        let list = (!single.is_empty()).then(|| json!([single]));
        set(&mut new["spec"], "clusterIPs", list);
    }
}

fn service_update(new: &mut Value, old: &Value) {
    // What the server gave out stays when a client leaves it empty and the type still needs it.
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        for field in ["clusterIP", "clusterIPs"] {
            let missing = new["spec"][field].is_null() || new["spec"][field] == "";
            if missing && !old["spec"][field].is_null() {
                new["spec"][field] = old["spec"][field].clone();
            }
        }
    }
    let unset = new["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0) == 0;
    if needs_health_port(new) && needs_health_port(old) && unset {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
    pair_cluster_ips(new, Some(old));
    drop_type_dependent(new, old);
}

/// Balancers that must find a node with endpoints ask a port of their own.
pub fn needs_health_port(service: &Value) -> bool {
    text(&service["spec"], "type") == "LoadBalancer" && text(&service["spec"], "externalTrafficPolicy") == "Local"
}

/// Fields that belong to the old type only go with it, unless the client changed them on purpose.
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let same = |field: &str, new: &Value| new["spec"][field] == old["spec"][field];
    if needs_cluster_ip(old) && !needs_cluster_ip(new) && same("clusterIPs", new) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            set(&mut new["spec"], field, None);
        }
    }
    let node_ports = |s: &Value| matches!(text(&s["spec"], "type"), "NodePort" | "LoadBalancer");
    let ports_of = |s: &Value| -> Vec<i64> {
        s["spec"]["ports"].as_array().into_iter().flatten().filter_map(|p| p["nodePort"].as_i64()).collect()
    };
    let had = ports_of(old);
    if node_ports(old) && !node_ports(new) && ports_of(new).iter().all(|port| had.contains(port)) {
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
            set(port, "nodePort", None);
        }
    }
    if needs_health_port(old) && !needs_health_port(new) && same("healthCheckNodePort", new) {
        set(&mut new["spec"], "healthCheckNodePort", None);
    }
    let balanced = |s: &Value| text(&s["spec"], "type") == "LoadBalancer";
    if balanced(old) && !balanced(new) {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(field, new) {
                set(&mut new["spec"], field, None);
            }
        }
    }
    let external = |s: &Value| node_ports(s) || (needs_cluster_ip(s) && s["spec"]["externalIPs"].is_array());
    if external(old) && !external(new) && same("externalTrafficPolicy", new) {
        set(&mut new["spec"], "externalTrafficPolicy", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, plural: &str) -> &'static Resource {
        crate::registry::lookup(group, "v1", plural).unwrap()
    }

    #[test]
    fn a_client_cannot_write_status_or_generation_with_the_object() {
        let deployments = resource("apps", "deployments");
        let mut new =
            json!({"metadata": {"name": "x", "generation": 7}, "spec": {"replicas": 1}, "status": {"replicas": 5}});
        prepare_create(deployments, &mut new);
        assert_eq!(new, json!({"metadata": {"name": "x", "generation": 1}, "spec": {"replicas": 1}, "status": {}}));
        let old = new.clone();
        new["spec"]["replicas"] = 2.into();
        new["status"]["replicas"] = 9.into();
        prepare_update(deployments, &mut new, &old);
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(new["status"], json!({}));
        let mut status = new.clone();
        status["spec"]["replicas"] = 7.into();
        status["status"]["replicas"] = 2.into();
        prepare_status_update(deployments, &mut status, &new);
        assert_eq!(status["spec"]["replicas"], 2);
        assert_eq!(status["status"]["replicas"], 2);
        assert_eq!(status["metadata"]["generation"], 2);
    }

    #[test]
    fn a_definition_remembers_the_versions_its_objects_were_stored_in() {
        let versions = |stored: &str| {
            let version = |name: &str| json!({"name": name, "storage": name == stored});
            json!([version("v1"), version("v2")])
        };
        let old = json!({"metadata": {}, "spec": {"versions": versions("v1")}, "status": {"storedVersions": ["v1"]}});
        let mut new = json!({"metadata": {}, "spec": {"versions": versions("v2")}});
        prepare_update(resource("apiextensions.k8s.io", "customresourcedefinitions"), &mut new, &old);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    }

    #[test]
    fn a_job_selects_its_pods_by_its_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        prepare_create(resource("batch", "jobs"), &mut job);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }

    #[test]
    fn a_job_has_the_labels_of_its_template_only_when_it_brings_none() {
        let jobs = resource("batch", "jobs");
        let template = json!({"metadata": {"labels": {"a": "b", "job-name": "other"}}, "spec": {}});
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": template}});
        assert!(shares_labels(jobs, &job));
        prepare_create(jobs, &mut job);
        share_labels(&mut job);
        let labels = json!({"a": "b", "job-name": "other", "batch.kubernetes.io/job-name": "j",
            "controller-uid": "u", "batch.kubernetes.io/controller-uid": "u"});
        assert_eq!(job["metadata"]["labels"], labels);
        job["metadata"]["labels"] = template["metadata"]["labels"].clone();
        assert!(!shares_labels(jobs, &job));
    }

    #[test]
    fn a_service_keeps_its_address_and_loses_node_ports_with_its_type() {
        let services = resource("", "services");
        let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]}, "status": {"loadBalancer": {}}});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        new["spec"]["clusterIP"] = "".into();
        new["spec"].as_object_mut().unwrap().remove("clusterIPs");
        prepare_update(services, &mut new, &old);
        let spec = json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]});
        assert_eq!(new["spec"], spec);
    }

    #[test]
    fn a_pod_begins_pending_with_its_class() {
        let mut pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}}]}});
        prepare_create(resource("", "pods"), &mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
        assert_eq!(qos_class(&json!({"spec": {"containers": [{"name": "a"}]}})), "BestEffort");
    }
}
