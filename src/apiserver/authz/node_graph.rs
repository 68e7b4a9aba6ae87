//! Which objects a node needs because of the pods it runs.
//!
//! Owns: the graph secret, configmap, claim, volume, service account -> pod -> node, kept by changes.
//! Called by: the node authorizer.
//! Never: decides which verbs the relation allows.

use std::collections::HashMap;

use memchr::memmem;
use minik_api::{ObjectKey, ResourceId, object, resources};
use serde_json::Value;

use super::chain::Wanted;
use crate::objects::Change;

/// The resources the graph is made of. A Pod gives nothing to a node before it has one.
pub const FOLLOWED: [(ResourceId, Wanted); 5] = [
    (resources::PODS, |bytes| memmem::find(bytes, br#""nodeName":"#).is_some()),
    (resources::PERSISTENTVOLUMES, |_| true),
    (resources::VOLUMEATTACHMENTS, |_| true),
    (resources::RESOURCESLICES, |_| true),
    (resources::PODCERTIFICATEREQUESTS, |_| true),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ServiceAccount,
    ResourceClaim,
    VolumeAttachment,
    ResourceSlice,
    PodCertificateRequest,
}

pub type Vertex = (Kind, ObjectKey);

#[derive(Default)]
pub struct Graph {
    /// What each source object (a pod, an attachment, ...) gives its node.
    sources: HashMap<Vertex, (String, Vec<Vertex>)>,
    /// How many sources on a node give it the object.
    nodes: HashMap<Vertex, HashMap<String, u32>>,
    /// A volume and its secrets lead to nodes through the claim that is bound to it.
    volumes: HashMap<String, (ObjectKey, Vec<Vertex>)>,
    claims: HashMap<Vertex, Vec<ObjectKey>>,
}

impl Graph {
    pub fn apply(&mut self, change: &Change) {
        let (object, gone) = match change {
            Change::Put(object) => (object.as_ref(), false),
            Change::Delete(object) => (object.as_ref(), true),
        };
        let key = ObjectKey::of(object);
        let node = |path: &str| object["spec"][path].as_str().unwrap_or("").to_string();
        let (kind, node) = match object["kind"].as_str().unwrap_or("") {
            "Pod" => (Kind::Pod, node("nodeName")),
            "VolumeAttachment" => (Kind::VolumeAttachment, node("nodeName")),
            "ResourceSlice" => (Kind::ResourceSlice, node("nodeName")),
            "PodCertificateRequest" => (Kind::PodCertificateRequest, node("nodeName")),
            "PersistentVolume" => return self.apply_volume(&key.name, object, gone),
            _ => return,
        };
        let source = (kind, key);
        self.remove_source(&source);
        if !gone && !node.is_empty() {
            let mut given = if kind == Kind::Pod { needs(object) } else { vec![] };
            given.push(source.clone());
            for vertex in &given {
                *self.nodes.entry(vertex.clone()).or_default().entry(node.clone()).or_default() += 1;
            }
            self.sources.insert(source, (node, given));
        }
    }

    fn remove_source(&mut self, source: &Vertex) {
        let Some((node, given)) = self.sources.remove(source) else { return };
        for vertex in given {
            let Some(counts) = self.nodes.get_mut(&vertex) else { continue };
            if let Some(count) = counts.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&node);
                }
            }
            if counts.is_empty() {
                self.nodes.remove(&vertex);
            }
        }
    }

    fn apply_volume(&mut self, name: &str, volume: &Value, gone: bool) {
        if let Some((claim, vertices)) = self.volumes.remove(name) {
            for vertex in vertices {
                if let Some(claims) = self.claims.get_mut(&vertex) {
                    if let Some(at) = claims.iter().position(|c| *c == claim) {
                        claims.swap_remove(at);
                    }
                    if claims.is_empty() {
                        self.claims.remove(&vertex);
                    }
                }
            }
        }
        let reference = &volume["spec"]["claimRef"];
        let Some(claim) = reference["name"].as_str().filter(|_| !gone) else { return };
        let claim = ObjectKey::new(reference["namespace"].as_str().unwrap_or(""), claim);
        let mut vertices = volume_secrets(&volume["spec"], &claim.namespace);
        vertices.push((Kind::Volume, ObjectKey::new("", name)));
        for vertex in &vertices {
            self.claims.entry(vertex.clone()).or_default().push(claim.clone());
        }
        self.volumes.insert(name.into(), (claim, vertices));
    }

    pub fn leads_to(&self, vertex: &Vertex, node: &str) -> bool {
        let direct = |v: &Vertex| self.nodes.get(v).is_some_and(|nodes| nodes.contains_key(node));
        direct(vertex)
            || self.claims.get(vertex).is_some_and(|c| c.iter().any(|key| direct(&(Kind::Claim, key.clone()))))
    }
}

/// Everything a node must read to run this pod. A mirror pod gives nothing: its node made it up itself.
pub fn needs(pod: &Value) -> Vec<Vertex> {
    let namespace = object::namespace(pod);
    if object::annotation(pod, minik_api::pod_annotations::MIRROR).is_some() {
        return vec![];
    }
    let spec = &pod["spec"];
    let mut needs: Vec<Vertex> = Vec::new();
    let mut add = |kind: Kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            let vertex = (kind, ObjectKey::new(namespace, name));
            if !needs.contains(&vertex) {
                needs.push(vertex);
            }
        }
    };
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    for reference in items(&spec["imagePullSecrets"]) {
        add(Kind::Secret, &reference["name"]);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            for source in items(&container["envFrom"]) {
                add(Kind::ConfigMap, &source["configMapRef"]["name"]);
                add(Kind::Secret, &source["secretRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                add(Kind::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
                add(Kind::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        add(Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]);
        if volume["ephemeral"].is_object() {
            let claim = format!("{}-{}", object::name(pod), volume["name"].as_str().unwrap_or(""));
            add(Kind::Claim, &claim.into());
        }
        for source in items(&volume["projected"]["sources"]) {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
        for (kind, field) in VOLUME_SECRET_FIELDS {
            add(Kind::Secret, &volume[*kind][*field]["name"]);
        }
        add(Kind::Secret, &volume["azureFile"]["secretName"]);
    }
    for claim in items(&pod["status"]["resourceClaimStatuses"]) {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
    }
    for claim in items(&spec["resourceClaims"]) {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
    }
    add(Kind::ResourceClaim, &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]);
    needs
}

/// Volume types whose secret lies in the pod's own namespace.
const VOLUME_SECRET_FIELDS: &[(&str, &str)] = &[
    ("cephfs", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
];

fn volume_secrets(spec: &Value, claim_namespace: &str) -> Vec<Vertex> {
    let mut secrets = Vec::new();
    let mut add = |reference: &Value| {
        if let Some(name) = reference["name"].as_str() {
            let namespace = reference["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(claim_namespace);
            secrets.push((Kind::Secret, ObjectKey::new(namespace, name)));
        }
    };
    for source in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        add(&spec[source]["secretRef"]);
    }
    for field in ["controllerPublishSecretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        add(&spec["csi"][field]);
    }
    secrets
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
