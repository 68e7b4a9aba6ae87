//! Which PersistentVolume is right for a PersistentVolumeClaim, and what binding the two looks like.
//!
//! Owns: the annotations of binding and provisioning, class, size and access-mode rules, the claims of a Pod.
//! Called by: the binder, the scheduler, provisioners.
//! Never: writes, or decides when to bind.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::node_affinity::NodeTerm;
use crate::object;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// On a claim: its binding is complete, whatever comes after is a loss.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either side: a controller made the reference, so a controller may take it back.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the Node its volume is to be provisioned for, set by the scheduler.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a volume: who provisioned it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is asked to provision for it.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The class of a claim or of a volume; empty if it has none.
pub fn class_of(claim_or_volume: &Value) -> &str {
    let old = object::annotation(claim_or_volume, BETA_CLASS);
    old.or(claim_or_volume["spec"]["storageClassName"].as_str()).unwrap_or("")
}

/// Whether a claim says something about its class, be it that it wants none.
pub fn names_class(claim: &Value) -> bool {
    object::annotation(claim, BETA_CLASS).is_some() || claim["spec"]["storageClassName"].is_string()
}

/// The default class: of several the one made last, of those the first by name.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a Value>) -> Option<&'a Value> {
    let is_default = |class: &&Value| DEFAULT_CLASS.iter().any(|mark| object::annotation(class, mark) == Some("true"));
    let made = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or("").to_string();
    let newer = |a: &&Value, b: &&Value| made(a).cmp(&made(b)).then_with(|| object::name(b).cmp(object::name(a)));
    classes.filter(is_default).max_by(newer)
}

/// Volumes of this class wait for the first Pod that needs them.
pub fn waits_for_consumer(class: &Value) -> bool {
    class["volumeBindingMode"] == "WaitForFirstConsumer"
}

/// The volume refers to this claim: by name, and by uid if it has one already.
pub fn is_bound_to(volume: &Value, claim: &Value) -> bool {
    let reference = &volume["spec"]["claimRef"];
    let uid = reference["uid"].as_str().unwrap_or("");
    reference.is_object()
        && reference["name"] == object::name(claim)
        && reference["namespace"].as_str().unwrap_or("") == object::namespace(claim)
        && (uid.is_empty() || uid == object::uid(claim))
}

/// Both sides of the claim's binding are written.
pub fn is_fully_bound(claim: &Value) -> bool {
    !volume_name(claim).is_empty() && object::annotation(claim, BIND_COMPLETED).is_some()
}

pub fn volume_name(claim: &Value) -> &str {
    claim["spec"]["volumeName"].as_str().unwrap_or("")
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The volume can be used in every way the claim asks for.
pub fn has_access_modes(volume: &Value, claim: &Value) -> bool {
    let offered: HashSet<&str> = strings(&volume["spec"]["accessModes"]).collect();
    strings(&claim["spec"]["accessModes"]).all(|mode| offered.contains(mode))
}

/// Both are file systems, or both block devices.
pub fn same_volume_mode(volume: &Value, claim: &Value) -> bool {
    let mode = |o: &Value| o["spec"]["volumeMode"].as_str().unwrap_or("Filesystem").to_string();
    mode(volume) == mode(claim)
}

fn same_attributes_class(volume: &Value, claim: &Value) -> bool {
    let class = |o: &Value| o["spec"]["volumeAttributesClassName"].as_str().unwrap_or("").to_string();
    class(volume) == class(claim)
}

pub fn capacity(volume: &Value) -> Quantity {
    Quantity::from_json(&volume["spec"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO)
}

pub fn requested(claim: &Value) -> Quantity {
    Quantity::from_json(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO)
}

/// Whether a Node can use the volume, by the volume's `nodeAffinity`.
pub fn is_reachable_from(volume: &Value, node: &str, labels: &Value) -> bool {
    let terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"].as_array();
    terms.is_none_or(|terms| terms.iter().any(|term| NodeTerm::parse(term).matches(node, labels)))
}

/// Why a volume asked for by name cannot be the claim's; upstream's words.
pub fn mismatch(volume: &Value, claim: &Value) -> Option<String> {
    let name = object::name(volume);
    if object::is_deleting(volume) {
        return Some(format!("the volume is marked for deletion {name:?}"));
    }
    let reason = match () {
        () if capacity(volume) < requested(claim) => "requested PV is too small",
        () if class_of(volume) != class_of(claim) => "storageClassName does not match",
        () if !same_attributes_class(volume, claim) => "volumeAttributesClassName does not match",
        () if !same_volume_mode(volume, claim) => "incompatible volumeMode",
        () if !has_access_modes(volume, claim) => "incompatible accessMode",
        () => return None,
    };
    Some(reason.into())
}

/// Who looks for a volume.
#[derive(Clone, Copy)]
pub enum Seeker<'a> {
    /// The binder, for a claim that is to be bound at once.
    Binder,
    /// The binder, for a claim that waits for its consumer: only a volume reserved for it will do.
    BinderWaiting,
    /// The scheduler, for one Node.
    Node { name: &'a str, labels: &'a Value },
}

/// The volume reserved for the claim or else the one with the fewest access modes and of those the smallest that fits.
pub fn best_match<'a>(
    claim: &Value,
    volumes: impl Iterator<Item = &'a Value>,
    seeker: Seeker<'_>,
) -> Option<&'a Value> {
    let selector = &claim["spec"]["selector"];
    let selector = (!selector.is_null())
        .then(|| LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()));
    let class = class_of(claim);
    let wanted = requested(claim);
    let mut best: Option<(&Value, usize, Quantity)> = None;
    for volume in volumes {
        let reserved = is_bound_to(volume, claim);
        let size = capacity(volume);
        if (!reserved && !volume["spec"]["claimRef"].is_null())
            || size < wanted
            || !same_volume_mode(volume, claim)
            || !same_attributes_class(volume, claim)
            || object::is_deleting(volume)
            || !has_access_modes(volume, claim)
        {
            continue;
        }
        let reachable = match seeker {
            Seeker::Node { name, labels } => is_reachable_from(volume, name, labels),
            Seeker::Binder | Seeker::BinderWaiting => true,
        };
        if reserved {
            return reachable.then_some(volume);
        }
        let fits = !matches!(seeker, Seeker::BinderWaiting)
            && reachable
            && volume["status"]["phase"] == "Available"
            && selector.as_ref().is_none_or(|s| s.matches(&volume["metadata"]["labels"]))
            && class_of(volume) == class;
        let modes = match seeker {
            Seeker::Node { .. } => 0,
            Seeker::Binder | Seeker::BinderWaiting => strings(&volume["spec"]["accessModes"]).count(),
        };
        if fits && best.as_ref().is_none_or(|(_, m, s)| (modes, size) < (*m, *s)) {
            best = Some((volume, modes, size));
        }
    }
    best.map(|(volume, ..)| volume)
}

/// The volume with a reference to the claim.
pub fn bound(volume: &Value, claim: &Value) -> Value {
    let mut bound = volume.clone();
    let reserved = is_bound_to(volume, claim);
    if !reserved || volume["spec"]["claimRef"]["uid"] != object::uid(claim) {
        bound["spec"]["claimRef"] = json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "namespace": object::namespace(claim), "name": object::name(claim),
            "uid": object::uid(claim), "resourceVersion": object::resource_version(claim),
        });
    }
    if !reserved {
        bound["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
    }
    bound
}

/// How a Pod uses a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// By its name.
    Named,
    /// As the claim that is made for one of its volumes and owned by it.
    Ephemeral,
}

/// The claims a Pod uses, by name, in the order of its volumes.
pub fn claims_of(pod: &Value) -> impl Iterator<Item = (String, Use)> {
    pod["spec"]["volumes"].as_array().into_iter().flatten().filter_map(|volume| {
        if let Some(name) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            return Some((name.to_string(), Use::Named));
        }
        let ephemeral = volume["ephemeral"].is_object();
        ephemeral.then(|| (ephemeral_claim_name(pod, volume["name"].as_str().unwrap_or("")), Use::Ephemeral))
    })
}

pub fn ephemeral_claim_name(pod: &Value, volume: &str) -> String {
    format!("{}-{volume}", object::name(pod))
}

/// An ephemeral volume's claim must be the Pod's own; the error is upstream's.
pub fn check_made_for(pod: &Value, claim: &Value) -> Result<(), String> {
    if object::controller_of(claim).is_some_and(|owner| owner["uid"] == object::uid(pod)) {
        return Ok(());
    }
    let namespace = object::namespace(pod);
    let (claim, pod) = (object::name(claim), object::name(pod));
    Err(format!("PVC {namespace}/{claim} was not created for pod {namespace}/{pod} (pod is not owner)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(spec: Value) -> Value {
        let mut claim = json!({"metadata": {"namespace": "d", "name": "data", "uid": "u"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
        claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        claim
    }
    fn volume(name: &str, size: &str, modes: &[&str], more: Value) -> Value {
        let mut volume = json!({"metadata": {"name": name, "labels": {"disk": name}},
            "spec": {"capacity": {"storage": size}, "accessModes": modes}, "status": {"phase": "Available"}});
        volume["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        volume
    }
    fn found(claim: &Value, volumes: &[Value], seeker: Seeker<'_>) -> String {
        best_match(claim, volumes.iter(), seeker).map_or("-".into(), |v| object::name(v).into())
    }

    const RWO: &[&str] = &["ReadWriteOnce"];

    #[test]
    fn the_smallest_volume_that_fits_is_taken() {
        let volumes = [
            volume("small", "1Gi", RWO, json!({})),
            volume("big", "10Gi", RWO, json!({})),
            volume("right", "3Gi", RWO, json!({})),
            volume("many", "2Gi", &["ReadWriteOnce", "ReadWriteMany"], json!({})),
            volume("other", "2Gi", RWO, json!({"storageClassName": "fast"})),
            volume("block", "2Gi", RWO, json!({"volumeMode": "Block"})),
            volume("taken", "2Gi", RWO, json!({"claimRef": {"namespace": "d", "name": "x"}})),
        ];
        assert_eq!(found(&claim(json!({})), &volumes, Seeker::Binder), "right");
        assert_eq!(found(&claim(json!({"storageClassName": "fast"})), &volumes, Seeker::Binder), "other");
        assert_eq!(
            found(&claim(json!({"selector": {"matchLabels": {"disk": "big"}}})), &volumes, Seeker::Binder),
            "big"
        );
        assert_eq!(found(&claim(json!({"accessModes": ["ReadOnlyMany"]})), &volumes, Seeker::Binder), "-");
    }

    #[test]
    fn a_reserved_volume_goes_first_and_is_all_a_waiting_claim_gets() {
        let reserved = volume("reserved", "9Gi", RWO, json!({"claimRef": {"namespace": "d", "name": "data"}}));
        let volumes = [volume("right", "2Gi", RWO, json!({})), reserved];
        assert_eq!(found(&claim(json!({})), &volumes, Seeker::Binder), "reserved");
        assert_eq!(found(&claim(json!({})), &volumes, Seeker::BinderWaiting), "reserved");
        assert_eq!(found(&claim(json!({})), &volumes[..1], Seeker::BinderWaiting), "-");
    }

    #[test]
    fn the_scheduler_takes_only_what_its_node_reaches() {
        let affinity = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "host", "operator": "In", "values": ["a"]}]}]}}});
        let volumes = [volume("on-a", "2Gi", RWO, affinity)];
        let labels = json!({"host": "a"});
        assert_eq!(found(&claim(json!({})), &volumes, Seeker::Node { name: "a", labels: &labels }), "on-a");
        assert_eq!(found(&claim(json!({})), &volumes, Seeker::Node { name: "b", labels: &json!({}) }), "-");
    }
}
