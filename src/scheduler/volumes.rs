//! Where a Pod's volumes are or could be.
//!
//! Owns: the filters VolumeRestrictions, NodeVolumeLimits, VolumeBinding and VolumeZone, and what is to be bound or
//! provisioned once a Node is chosen.
//! Called by: `choose`, with the picture of storage as it is; the loop, for the Node it chose.
//! Never: writes, or waits for a volume.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use minik_api::node_affinity::NodeTerm;
use minik_api::quantity::Quantity;
use minik_api::resources::{
    CSIDRIVERS, CSINODES, CSISTORAGECAPACITIES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES,
    VOLUMEATTACHMENTS,
};
use minik_api::selector::LabelSelector;
use minik_api::volume_binding::{self as binding, NO_PROVISIONER, SELECTED_NODE, Seeker, Use};
use minik_api::{ObjectKey, object};
use minik_client::{Object, View};
use serde_json::{Value, json};

use crate::node::Node;
use crate::pod::Pod;
use crate::verdict::{Filter, Rejection};

const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NOT_ENOUGH_SPACE: &str = "node(s) did not have enough free storage";
const VOLUME_MISSING: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const ZONE_CONFLICT: &str = "node(s) had no available volume zone";
const IN_USE: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use \
                      by another pod";
const TOO_MANY: &str = "node(s) exceed max volume count";

/// Claims, volumes and classes, with what was promised to Pods whose volumes are being bound.
#[derive(Default)]
pub(crate) struct Storage {
    pub view: View,
    /// Volumes as they will be when their binding is written.
    promised: HashMap<String, Arc<Object>>,
    /// Claims that are to be provisioned for a Node.
    selected: HashMap<ObjectKey, String>,
    /// How many placed Pods use a claim.
    users: HashMap<ObjectKey, usize>,
}

/// What a Node's choice means for the Pod's claims.
#[derive(Clone, Default)]
pub(crate) struct Bindings {
    /// Volumes that exist, each as it is to be written, with the claim it is for.
    pub volumes: Vec<(Arc<Object>, ObjectKey)>,
    /// Claims to be provisioned for.
    pub claims: Vec<Arc<Object>>,
}

impl Bindings {
    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.claims.is_empty()
    }
}

impl Storage {
    fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.view.get(PERSISTENTVOLUMECLAIMS, namespace, name)
    }
    fn class(&self, claim: &Value) -> Option<&Arc<Object>> {
        self.view.get(STORAGECLASSES, "", binding::class_of(claim))
    }
    fn volume(&self, name: &str) -> Option<&Arc<Object>> {
        self.promised.get(name).or_else(|| self.view.get(PERSISTENTVOLUMES, "", name))
    }
    fn selected_node<'a>(&'a self, claim: &'a Value) -> Option<&'a str> {
        let promised = self.selected.get(&ObjectKey::of(claim)).map(String::as_str);
        promised.or_else(|| object::annotation(claim, SELECTED_NODE))
    }

    pub(crate) fn promise(&mut self, bindings: &Bindings, node: &str) {
        for (volume, _) in &bindings.volumes {
            self.promised.insert(object::name(volume).into(), volume.clone());
        }
        for claim in &bindings.claims {
            self.selected.insert(claim.key(), node.into());
        }
    }
    /// What was promised is written, or will not be.
    pub(crate) fn settle(&mut self, bindings: &Bindings) {
        for (volume, _) in &bindings.volumes {
            self.promised.remove(object::name(volume));
        }
        for claim in &bindings.claims {
            self.selected.remove(&claim.key());
        }
    }

    /// A Pod was placed.
    pub(crate) fn used_by(&mut self, pod: &Pod) {
        for key in pod.claim_keys() {
            *self.users.entry(key).or_default() += 1;
        }
    }
    /// A placed Pod is counted no more.
    pub(crate) fn no_longer_used_by(&mut self, pod: &Pod) {
        for key in pod.claim_keys() {
            if let Some(count) = self.users.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(&key);
                }
            }
        }
    }
}

/// A Pod's volumes, looked up once, asked about each Node.
#[derive(Default)]
pub(crate) struct PodVolumes<'a> {
    /// Volumes of claims that are bound; None where the volume is gone.
    bound: Vec<Option<&'a Arc<Object>>>,
    /// Claims that wait for a Node, smallest request first.
    waiting: Vec<&'a Arc<Object>>,
    /// A claim that only one Pod may use has one.
    in_use: bool,
}

/// Why a Pod fits nowhere, whatever the Node.
pub(crate) type Refusal = (Filter, String);

impl<'a> PodVolumes<'a> {
    pub(crate) fn build(pod: &Pod, storage: &'a Storage) -> Result<PodVolumes<'a>, Refusal> {
        if pod.claims.is_empty() {
            return Ok(PodVolumes::default());
        }
        let namespace = pod.namespace();
        let mut volumes = PodVolumes::default();
        for (name, _) in pod.claims.iter().filter(|(_, how)| *how == Use::Named) {
            let Some(claim) = storage.claim(namespace, name) else {
                return Err((Filter::VolumeRestrictions, format!("persistentvolumeclaim {name:?} not found")));
            };
            let exclusive =
                claim["spec"]["accessModes"].as_array().into_iter().flatten().any(|m| m == "ReadWriteOncePod");
            volumes.in_use |= exclusive && storage.users.contains_key(&claim.key());
        }
        let mut claims = Vec::new();
        for (name, how) in &pod.claims {
            let claim = usable_claim(pod, storage, name, *how).map_err(|why| (Filter::VolumeBinding, why))?;
            claims.push((claim, *how));
        }
        for (claim, _) in &claims {
            if binding::is_fully_bound(claim) {
                volumes.bound.push(storage.volume(binding::volume_name(claim)));
            } else if binding::volume_name(claim).is_empty()
                && storage.class(claim).is_some_and(|c| binding::waits_for_consumer(c))
            {
                volumes.waiting.push(claim);
            } else {
                return Err((Filter::VolumeBinding, "pod has unbound immediate PersistentVolumeClaims".into()));
            }
        }
        volumes.waiting.sort_by_key(|claim| binding::requested(claim));
        for (claim, how) in claims.iter().filter(|(claim, _)| binding::is_fully_bound(claim)) {
            let name = binding::volume_name(claim);
            if *how == Use::Named && storage.volume(name).is_none() {
                return Err((Filter::VolumeZone, format!("persistentvolume {name:?} not found")));
            }
        }
        Ok(volumes)
    }

    pub(crate) fn check(&self, pod: &Pod, node: &Node, storage: &Storage) -> Result<(), Rejection> {
        if pod.claims.is_empty() {
            return Ok(());
        }
        if self.in_use {
            return Err(Rejection::by_pods(Filter::VolumeRestrictions, IN_USE));
        }
        within_limits(pod, node, storage)?;
        self.bindings(node, storage)?;
        match self.bound.iter().flatten().all(|volume| in_zone(volume, node)) {
            true => Ok(()),
            false => Err(Rejection::final_(Filter::VolumeZone, ZONE_CONFLICT)),
        }
    }

    /// What would have to be bound and provisioned on this Node.
    pub(crate) fn bindings(&self, node: &Node, storage: &Storage) -> Result<Bindings, Rejection> {
        let mut reasons: Vec<&'static str> = Vec::new();
        for volume in &self.bound {
            let reason = match volume {
                Some(volume) if binding::is_reachable_from(volume, &node.name, &node.labels) => continue,
                Some(_) => NODE_CONFLICT,
                None => VOLUME_MISSING,
            };
            reasons.push(reason);
            break;
        }
        let found = self.find(node, storage);
        reasons.extend(found.as_ref().err());
        match found {
            Ok(bindings) if reasons.is_empty() => Ok(bindings),
            Ok(_) | Err(_) => Err(Rejection {
                filter: Filter::VolumeBinding,
                reasons: reasons.into_iter().map(Into::into).collect(),
                removing_pods_may_help: false,
            }),
        }
    }

    fn find(&self, node: &Node, storage: &Storage) -> Result<Bindings, &'static str> {
        let mut bindings = Bindings::default();
        let mut chosen: HashSet<&str> = HashSet::new();
        for claim in &self.waiting {
            match storage.selected_node(claim) {
                Some(selected) if selected != node.name => return Err(BIND_CONFLICT),
                Some(_) => {
                    bindings.claims.push((*claim).clone());
                    continue;
                }
                None => {}
            }
            let class = binding::class_of(claim);
            let known = storage.view.list(PERSISTENTVOLUMES, "").filter(|v| binding::class_of(v) == class);
            let current = known.filter_map(|v| storage.volume(object::name(v))).map(|v| v.value());
            let free = current.filter(|v| !chosen.contains(object::name(v)));
            let seeker = Seeker::Node { name: &node.name, labels: &node.labels };
            match binding::best_match(claim, free, seeker) {
                Some(volume) => {
                    chosen.insert(object::name(volume));
                    let bound = Arc::new(Object::new(binding::bound(volume, claim)));
                    bindings.volumes.push((bound, claim.key()));
                }
                None => bindings.claims.push((*claim).clone()),
            }
        }
        for claim in &bindings.claims {
            can_provision(claim, node, storage)?;
        }
        Ok(bindings)
    }
}

/// The words are those of upstream's errors.
fn usable_claim<'a>(pod: &Pod, storage: &'a Storage, name: &str, how: Use) -> Result<&'a Arc<Object>, String> {
    let Some(claim) = storage.claim(pod.namespace(), name) else {
        return Err(match how {
            Use::Named => format!("persistentvolumeclaim {name:?} not found"),
            Use::Ephemeral => {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            }
        });
    };
    if claim["status"]["phase"] == "Lost" {
        let volume = binding::volume_name(claim);
        return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
    }
    if object::is_deleting(claim) {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    match how {
        Use::Named => Ok(claim),
        Use::Ephemeral => binding::check_made_for(&pod.object, claim).map(|()| claim),
    }
}

fn can_provision(claim: &Value, node: &Node, storage: &Storage) -> Result<(), &'static str> {
    let class = storage.class(claim).ok_or(BIND_CONFLICT)?;
    let provisioner = class["provisioner"].as_str().unwrap_or("");
    if provisioner.is_empty() || provisioner == NO_PROVISIONER || !in_topology(class, node) {
        return Err(BIND_CONFLICT);
    }
    if has_capacity(claim, class, provisioner, node, storage) { Ok(()) } else { Err(NOT_ENOUGH_SPACE) }
}

/// `allowedTopologies`: any term, all of its expressions.
fn in_topology(class: &Value, node: &Node) -> bool {
    let Some(terms) = class["allowedTopologies"].as_array().filter(|t| !t.is_empty()) else { return true };
    let matches = |term: &Value| {
        let expressions = term["matchLabelExpressions"].as_array().into_iter().flatten();
        let expressions: Vec<Value> =
            expressions.map(|e| json!({"key": e["key"], "operator": "In", "values": e["values"]})).collect();
        NodeTerm::parse(&json!({"matchExpressions": expressions})).matches(&node.name, &node.labels)
    };
    terms.iter().any(matches)
}

/// Drivers that publish their capacity are asked for it; with the others there is always room (KEP-1472).
fn has_capacity(claim: &Value, class: &Value, provisioner: &str, node: &Node, storage: &Storage) -> bool {
    let driver = storage.view.get(CSIDRIVERS, "", provisioner);
    if driver.is_none_or(|d| d["spec"]["storageCapacity"] != true) {
        return true;
    }
    let wanted = binding::requested(claim);
    let enough = |capacity: &Value| {
        // The largest single volume is the better answer where it is known.
        let limit = [&capacity["maximumVolumeSize"], &capacity["capacity"]].into_iter().find(|q| !q.is_null());
        limit.and_then(|q| Quantity::from_json(q).ok()).is_some_and(|limit| limit >= wanted)
    };
    let reaches = |capacity: &Value| {
        let topology = &capacity["nodeTopology"];
        topology.is_object() && LabelSelector::from_object(topology).is_ok_and(|s| s.matches(&node.labels))
    };
    let class = object::name(class);
    let mut capacities = storage.view.list(CSISTORAGECAPACITIES, "").filter(|c| c["storageClassName"] == class);
    capacities.any(|c| enough(c) && reaches(c))
}

const ZONE_LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// Labels of zone and region on a volume bind it to Nodes with the same; several are joined by two underscores.
fn in_zone(volume: &Value, node: &Node) -> bool {
    if !ZONE_LABELS.iter().any(|(label, _)| node.label(label).is_some()) {
        return true;
    }
    ZONE_LABELS.iter().all(|(label, today)| {
        let Some(allowed) = object::label(volume, label) else { return true };
        let here = node.label(label).or_else(|| node.label(today));
        here.is_some_and(|here| allowed.split("__").any(|one| one == here))
    })
}

/// Volumes of CSI drivers that can attach only so many to a Node.
fn within_limits(pod: &Pod, node: &Node, storage: &Storage) -> Result<(), Rejection> {
    let Some(csi_node) = storage.view.get(CSINODES, "", &node.name) else { return Ok(()) };
    let drivers = csi_node["spec"]["drivers"].as_array().into_iter().flatten();
    let limit = |d: &Value| Some((d["name"].as_str()?.to_string(), d["allocatable"]["count"].as_u64()?));
    let limits: HashMap<String, u64> = drivers.filter_map(limit).collect();
    if limits.is_empty() {
        return Ok(());
    }
    let mut new = attached_by(pod, storage);
    let mut there: HashSet<Attached> = node.pods.values().flat_map(|p| attached_by(p, storage)).collect();
    new.retain(|volume| !there.contains(volume));
    let attachments = storage.view.list(VOLUMEATTACHMENTS, "").filter(|a| a["spec"]["nodeName"] == node.name.as_str());
    let volumes = attachments.filter_map(|a| a["spec"]["source"]["persistentVolumeName"].as_str());
    there.extend(volumes.filter_map(|name| attached(storage.volume(name)?)));
    let of = |driver: &str, set: &HashSet<Attached>| set.iter().filter(|(d, _)| d == driver).count() as u64;
    let over = |(driver, limit): (&String, &u64)| {
        let wanted = of(driver, &new);
        wanted > 0 && of(driver, &there) + wanted > *limit
    };
    if limits.iter().any(over) { Err(Rejection::by_pods(Filter::NodeVolumeLimits, TOO_MANY)) } else { Ok(()) }
}

/// Driver and handle.
type Attached = (String, String);

fn attached(volume: &Value) -> Option<Attached> {
    let csi = &volume["spec"]["csi"];
    Some((csi["driver"].as_str()?.to_string(), csi["volumeHandle"].as_str()?.to_string()))
}

/// A claim without a volume counts as one of the driver that will provide it.
fn attached_by(pod: &Pod, storage: &Storage) -> HashSet<Attached> {
    let claims = pod.claims.iter().filter_map(|(name, _)| storage.claim(pod.namespace(), name));
    let volume = |claim: &Arc<Object>| match binding::volume_name(claim) {
        "" => {
            let provisioner = storage.class(claim)?["provisioner"].as_str()?.to_string();
            Some((provisioner, claim.key().to_string()))
        }
        name => attached(storage.volume(name)?),
    };
    claims.filter_map(volume).collect()
}

/// How far the binding of a Pod's volumes has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waiting,
    Bound,
    Failed(String),
}

/// `written` are the objects as the API server answered; what the view has may be older.
pub(crate) fn progress(bindings: &Bindings, node: &Node, view: &View) -> Progress {
    for (volume, claim) in &bindings.volumes {
        let name = object::name(volume);
        let (Some(known), Some(claim)) =
            (view.get(PERSISTENTVOLUMES, "", name), view.get_key(PERSISTENTVOLUMECLAIMS, claim))
        else {
            return Progress::Failed(format!("failed to check binding: {name:?} or its claim not found"));
        };
        if is_older(known, volume) {
            return Progress::Waiting;
        }
        if let Some(failed) = unreachable(known, node) {
            return failed;
        }
        if known["spec"]["claimRef"]["uid"].as_str().is_none_or(str::is_empty) {
            return Progress::Failed(format!("ClaimRef got reset for pv {name:?}"));
        }
        if !binding::is_fully_bound(claim) {
            return Progress::Waiting;
        }
    }
    for claim in &bindings.claims {
        let name = object::name(claim);
        let Some(known) = view.get_key(PERSISTENTVOLUMECLAIMS, &claim.key()) else {
            let message = format!("failed to check provisioning pvc: could not find v1.PersistentVolumeClaim {name:?}");
            return Progress::Failed(message);
        };
        if is_older(known, claim) {
            return Progress::Waiting;
        }
        // A provisioner that cannot provide for the Node takes the annotation away.
        if object::annotation(known, SELECTED_NODE) != Some(&node.name) {
            return Progress::Failed(format!("provisioning failed for PVC {name:?}"));
        }
        if let Some(volume) = view.get(PERSISTENTVOLUMES, "", binding::volume_name(known))
            && let Some(failed) = unreachable(volume, node)
        {
            return failed;
        }
        if !binding::is_fully_bound(known) {
            return Progress::Waiting;
        }
    }
    Progress::Bound
}

fn unreachable(volume: &Value, node: &Node) -> Option<Progress> {
    let (volume_name, node_name) = (object::name(volume), &node.name);
    let reached = binding::is_reachable_from(volume, node_name, &node.labels);
    let message =
        || format!("pv {volume_name:?} node affinity doesn't match node {node_name:?}: no matching NodeSelectorTerms");
    (!reached).then(|| Progress::Failed(message()))
}

/// Resource versions are ordered numbers (KEP-5504).
fn is_older(known: &Value, written: &Value) -> bool {
    let number = |o: &Value| object::resource_version(o).parse::<u64>().unwrap_or(0);
    number(known) < number(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::{Choice, choose};
    use crate::cluster::Cluster;
    use minik_api::ResourceId;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn class(name: &str, mode: &str, provisioner: &str) -> (ResourceId, Value) {
        (STORAGECLASSES, json!({"metadata": {"name": name}, "volumeBindingMode": mode, "provisioner": provisioner}))
    }
    fn claim(name: &str, more: Value) -> (ResourceId, Value) {
        let mut claim = json!({"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": "5"}, "spec": {
            "storageClassName": "standard", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        for (key, value) in more.as_object().unwrap() {
            *claim.pointer_mut(key).unwrap() = value.clone();
        }
        (PERSISTENTVOLUMECLAIMS, claim)
    }
    fn bound(name: &str, volume: &str) -> (ResourceId, Value) {
        let (resource, mut claim) = claim(name, json!({}));
        claim["spec"]["volumeName"] = volume.into();
        claim["metadata"]["annotations"] = json!({binding::BIND_COMPLETED: "yes"});
        (resource, claim)
    }
    fn volume(name: &str, node: &str) -> (ResourceId, Value) {
        let affinity = json!({"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}});
        (
            PERSISTENTVOLUMES,
            json!({"metadata": {"name": name}, "status": {"phase": "Available"}, "spec": {
            "storageClassName": "standard", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "nodeAffinity": affinity}}),
        )
    }
    fn pod(claims: &[&str]) -> Value {
        let volumes: Vec<Value> =
            claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).collect();
        json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": [], "volumes": volumes}})
    }
    fn cluster(objects: Vec<(ResourceId, Value)>) -> Cluster {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": name});
            let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}});
            cluster.observe_node(&Arc::new(Object::new(node)));
        }
        cluster.storage.view = View::of(objects);
        cluster
    }
    /// Where the Pod goes and what is bound for it, or the sentence why nowhere.
    fn check(objects: Vec<(ResourceId, Value)>, pod: Value) -> String {
        let cluster = cluster(objects);
        let pod = Pod::new(Arc::new(Object::new(pod)));
        match choose(&pod, &cluster, &mut 0, &mut SmallRng::seed_from_u64(1)) {
            Choice::Node(name) => {
                let volumes = PodVolumes::build(&pod, &cluster.storage).unwrap();
                let found = volumes.bindings(cluster.node(&name).unwrap(), &cluster.storage).unwrap();
                let bind = found.volumes.iter().map(|(v, claim)| format!(" {}={claim}", object::name(v)));
                let provision = found.claims.iter().map(|c| format!(" +{}", c.key()));
                std::iter::once(name).chain(bind).chain(provision).collect()
            }
            Choice::Nowhere(misfit) => misfit.sentence(),
        }
    }
    const WAIT: &str = "WaitForFirstConsumer";

    #[test]
    fn a_bound_claim_takes_its_pod_to_the_volume() {
        let objects = vec![class("standard", WAIT, "p"), bound("data", "v"), volume("v", "b")];
        assert_eq!(check(objects, pod(&["data"])), "b");
        let objects = vec![class("standard", WAIT, "p"), bound("data", "v"), volume("v", "elsewhere")];
        assert_eq!(
            check(objects, pod(&["data"])),
            "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
        );
    }

    #[test]
    fn a_waiting_claim_gets_a_volume_that_exists_or_is_provisioned_where_the_pod_goes() {
        let by_hand = || class("standard", WAIT, NO_PROVISIONER);
        let objects = vec![by_hand(), claim("data", json!({})), volume("v", "b")];
        assert_eq!(check(objects, pod(&["data"])), "b v=d/data");
        let objects = vec![by_hand(), claim("data", json!({})), claim("more", json!({})), volume("v", "b")];
        assert_eq!(
            check(objects, pod(&["data", "more"])),
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
        );
        let objects = vec![class("standard", WAIT, "p"), claim("data", json!({}))];
        assert!(check(objects, pod(&["data"])).ends_with(" +d/data"));
    }

    #[test]
    fn a_pod_whose_claims_cannot_be_used_anywhere_is_told_why_once() {
        let unbound = vec![class("standard", "Immediate", "p"), claim("data", json!({}))];
        assert_eq!(
            check(unbound, pod(&["data"])),
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        );
        assert_eq!(
            check(vec![], pod(&["data"])),
            r#"0/2 nodes are available: persistentvolumeclaim "data" not found."#
        );
        let gone = vec![class("standard", WAIT, "p"), bound("data", "v")];
        assert_eq!(check(gone, pod(&["data"])), r#"0/2 nodes are available: persistentvolume "v" not found."#);
    }

    #[test]
    fn a_claim_for_one_pod_is_not_shared() {
        let (resource, mut exclusive) = bound("data", "v");
        exclusive["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        let mut cluster = cluster(vec![(resource, exclusive), volume("v", "a")]);
        let mut placed = pod(&["data"]);
        placed["metadata"]["uid"] = "other".into();
        placed["spec"]["nodeName"] = "a".into();
        cluster.observe_pod(&Arc::new(Object::new(placed)));
        let waiting = Pod::new(Arc::new(Object::new(pod(&["data"]))));
        let mut random = SmallRng::seed_from_u64(1);
        let Choice::Nowhere(misfit) = choose(&waiting, &cluster, &mut 0, &mut random) else { panic!("it fits") };
        assert_eq!(misfit.sentence(), format!("0/2 nodes are available: 2 {IN_USE}."));
        cluster.forget_pod("other");
        assert!(matches!(choose(&waiting, &cluster, &mut 0, &mut random), Choice::Node(n) if n == "a"));
    }

    #[test]
    fn zones_of_volumes_and_limits_of_drivers_count() {
        let (resource, mut zoned) = volume("v", "b");
        zoned["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "a__c"});
        let objects = vec![class("standard", WAIT, "p"), bound("data", "v"), (resource, zoned)];
        assert_eq!(
            check(objects, pod(&["data"])),
            "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) had no available volume zone."
        );
        let limited = |name: &str| {
            (
                CSINODES,
                json!({"metadata": {"name": name}, "spec": {"drivers": [{"name": "p", "allocatable": {"count": 1}}]}}),
            )
        };
        let two = vec![
            class("standard", WAIT, "p"),
            claim("x", json!({})),
            claim("y", json!({})),
            limited("a"),
            limited("b"),
        ];
        assert_eq!(check(two, pod(&["x", "y"])), "0/2 nodes are available: 2 node(s) exceed max volume count.");
    }

    #[test]
    fn the_pod_waits_until_its_claim_is_bound_and_hears_when_that_fails() {
        let cluster = cluster(vec![]);
        let node = cluster.node("a").unwrap();
        let (_, mut written) = claim("data", json!({}));
        written["metadata"]["annotations"] = json!({SELECTED_NODE: "a"});
        let bindings = Bindings { volumes: vec![], claims: vec![Arc::new(Object::new(written.clone()))] };
        let on = |claim: Value| progress(&bindings, node, &View::of([(PERSISTENTVOLUMECLAIMS, claim)]));
        let (_, mut old) = claim("data", json!({}));
        old["metadata"]["resourceVersion"] = "4".into();
        assert_eq!(on(old), Progress::Waiting);
        assert_eq!(on(written.clone()), Progress::Waiting);
        assert_eq!(on(claim("data", json!({})).1), Progress::Failed(r#"provisioning failed for PVC "data""#.into()));
        written["spec"]["volumeName"] = "v".into();
        written["metadata"]["annotations"][binding::BIND_COMPLETED] = "yes".into();
        assert_eq!(on(written), Progress::Bound);
    }
}
