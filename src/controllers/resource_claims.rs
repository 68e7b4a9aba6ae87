//! ResourceClaims of Pods: made from templates, reserved, and given back when nobody uses them any more.
//!
//! Owns: the claims generated for a Pod and where its status names them; who a claim is reserved for.
//! Called by: the driver; one reconciler has the Pods for its keys, the other the claims.
//! Never: allocates a device; that is the scheduler's business.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{PODS, RESOURCECLAIMS, RESOURCECLAIMTEMPLATES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Patch, Plan, Question, Reconciler, View};
use serde_json::{Value, json};

use crate::fields::{list, text};
use crate::pods::is_terminal;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// On a generated claim: which of the Pod's claims it is.
const CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
const MANAGER: &str = "ResourceClaimController";
/// Users of one claim; the API's limit.
const RESERVED_MAX: usize = 256;
/// Room for the five random characters and what joins them in a name of 63.
const NAME_BASE_MAX: usize = 57;

pub(crate) struct ClaimsOfPods;
pub(crate) struct ClaimsInUse;

fn uses_claims(pod: &Value) -> bool {
    !list(&pod["spec"]["resourceClaims"]).is_empty()
}

/// None of its containers runs, and none will.
fn is_done(pod: &Value) -> bool {
    is_terminal(pod) || (object::is_deleting(pod) && text(&pod["spec"]["nodeName"]).is_empty())
}

fn is_owned_by(claim: &Value, pod: &Value) -> bool {
    object::controller_of(claim).is_some_and(|o| o["uid"] == object::uid(pod))
}

/// What the Pod's status says of one of its claims.
enum Known<'a> {
    Unknown,
    NotNeeded,
    Named(&'a str),
}

fn known<'a>(pod: &'a Value, entry: &'a Value) -> Known<'a> {
    if let Some(name) = entry["resourceClaimName"].as_str() {
        return Known::Named(name);
    }
    let mut statuses = list(&pod["status"]["resourceClaimStatuses"]).iter();
    match statuses.find(|s| s["name"] == entry["name"]) {
        None => Known::Unknown,
        Some(status) => status["resourceClaimName"].as_str().map_or(Known::NotNeeded, Known::Named),
    }
}

impl Reconciler for ClaimsOfPods {
    fn name(&self) -> &'static str {
        "resource_claim"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[PODS, RESOURCECLAIMS, RESOURCECLAIMTEMPLATES]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == PODS {
            return change.new.iter().filter(|p| uses_claims(p)).map(|p| p.key()).collect();
        }
        let name = change.key.name.as_str();
        let concerns = |pod: &Value, entry: &Value| match change.resource {
            RESOURCECLAIMS => matches!(known(pod, entry), Known::Named(n) if n == name),
            _ => entry["resourceClaimTemplateName"] == name,
        };
        let owner = object::controller_of(change.object()).filter(|o| o["kind"] == "Pod").map(|o| text(&o["name"]));
        let wants = |pod: &&Arc<Object>| {
            let all = list(&pod["spec"]["resourceClaims"]);
            all.iter().any(|e| concerns(pod, e)) || owner == Some(object::name(pod))
        };
        view.list(PODS, &change.key.namespace).filter(|p| uses_claims(p)).filter(wants).map(|p| p.key()).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(pod) = view.get_key(PODS, key) else { return Plan::nothing() };
        if object::is_deleting(pod) || is_terminal(pod) {
            return Plan::nothing();
        }
        let mut plan = Plan::nothing();
        let mut found: Vec<(String, String)> = Vec::new();
        for entry in list(&pod["spec"]["resourceClaims"]) {
            match generated(view, pod, entry) {
                Generated::Settled => {}
                Generated::Found(name) => found.push((text(&entry["name"]).into(), name)),
                Generated::Missing(action) => plan.push(*action),
            }
        }
        if !found.is_empty() {
            plan.push(name_claims(pod, found));
        }
        if !text(&pod["spec"]["nodeName"]).is_empty() {
            plan.actions.extend(reserve(view, pod));
        }
        plan
    }
}

enum Generated {
    /// Not from a template, or there and named in the Pod's status.
    Settled,
    /// There, but the status does not name it.
    Found(String),
    Missing(Box<Action>),
}

fn generated(view: &View, pod: &Arc<Object>, entry: &Value) -> Generated {
    let namespace = object::namespace(pod);
    let Some(template) = entry["resourceClaimTemplateName"].as_str() else { return Generated::Settled };
    match known(pod, entry) {
        Known::NotNeeded => return Generated::Settled,
        Known::Named(name) => {
            // It may have been deleted by mistake; then there is to be another.
            if view.get(RESOURCECLAIMS, namespace, name).is_some_and(|c| is_owned_by(c, pod)) {
                return Generated::Settled;
            }
        }
        Known::Unknown => {}
    }
    let own = view.owned_by(RESOURCECLAIMS, object::uid(pod));
    let mut own = own.filter(|c| is_owned_by(c, pod) && object::annotation(c, CLAIM_NAME) == entry["name"].as_str());
    if let Some(claim) = own.next() {
        return Generated::Found(object::name(claim).into());
    }
    let Some(found) = view.get(RESOURCECLAIMTEMPLATES, namespace, template) else {
        let message = format!(
            "PodResourceClaim {}: resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io \
             {template:?} not found",
            text(&entry["name"])
        );
        let event = Action::event(pod, EventType::Warning, "FailedResourceClaimCreation", message);
        return Generated::Missing(event.into());
    };
    Generated::Missing(Action::create(RESOURCECLAIMS, claim(pod, entry, found)).into())
}

fn claim(pod: &Value, entry: &Value, template: &Value) -> Value {
    let name = text(&entry["name"]);
    let from = &template["spec"]["metadata"];
    let mut annotations = from["annotations"].clone();
    annotations[CLAIM_NAME] = name.into();
    let mut metadata = json!({
        "namespace": object::namespace(pod), "generateName": base(object::name(pod), name),
        "annotations": annotations,
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": object::name(pod), "uid": object::uid(pod),
                             "controller": true}],
    });
    if !from["labels"].is_null() {
        metadata["labels"] = from["labels"].clone();
    }
    let spec = &template["spec"]["spec"];
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": spec})
}

/// Both names are to be seen in that of the claim, so each is cut by its share.
fn base(pod: &str, name: &str) -> String {
    let whole = format!("{pod}-{name}-");
    if whole.len() <= NAME_BASE_MAX {
        return whole;
    }
    let share = |part: &str| part.len() * NAME_BASE_MAX / whole.len();
    format!("{}-{}", &pod[..share(pod)], &name[..share(name)])
}

fn name_claims(pod: &Object, found: Vec<(String, String)>) -> Action {
    let mut all: std::collections::BTreeMap<String, Value> = list(&pod["status"]["resourceClaimStatuses"])
        .iter()
        .map(|s| (text(&s["name"]).to_string(), s.clone()))
        .collect();
    for (entry, claim) in found {
        all.insert(entry.clone(), json!({"name": entry, "resourceClaimName": claim}));
    }
    let statuses: Vec<Value> = all.into_values().collect();
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": object::namespace(pod), "name": object::name(pod), "uid": object::uid(pod)},
        "status": {"resourceClaimStatuses": statuses},
    });
    let patch = Patch::Apply { manager: MANAGER.into(), force: true, body };
    Action::Patch { resource: PODS, key: pod.key(), sub: "status", patch }
}

/// A Pod that was put on a Node without the scheduler still needs its allocated claims.
fn reserve(view: &View, pod: &Object) -> Vec<Action> {
    let reserve = |entry: &Value| {
        let Known::Named(name) = known(pod, entry) else { return None };
        let claim = view.get(RESOURCECLAIMS, object::namespace(pod), name)?;
        let users = list(&claim["status"]["reservedFor"]);
        let reserved = users.iter().any(|u| u["uid"] == object::uid(pod));
        if claim["status"]["allocation"].is_null() || reserved || users.len() >= RESERVED_MAX {
            return None;
        }
        let mut status = claim["status"].clone();
        let mut users = users.to_vec();
        users.push(json!({"resource": "pods", "name": object::name(pod), "uid": object::uid(pod)}));
        status["reservedFor"] = users.into();
        Action::set_status(RESOURCECLAIMS, claim, &status)
    };
    list(&pod["spec"]["resourceClaims"]).iter().filter_map(reserve).collect()
}

impl Reconciler for ClaimsInUse {
    fn name(&self) -> &'static str {
        "resource_claim_use"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[RESOURCECLAIMS, PODS]
    }

    /// A Pod concerns its claims when it is done or gone.
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == RESOURCECLAIMS {
            return vec![change.key.clone()];
        }
        let pod = change.object();
        if !uses_claims(pod) || change.new.as_ref().is_some_and(|p| !is_done(p)) {
            return Vec::new();
        }
        let name = |entry: &Value| match known(pod, entry) {
            Known::Named(name) => Some(ObjectKey::new(&change.key.namespace, name)),
            Known::Unknown | Known::NotNeeded => None,
        };
        list(&pod["spec"]["resourceClaims"]).iter().filter_map(name).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(claim) = view.get_key(RESOURCECLAIMS, key) else { return Plan::nothing() };
        let users = list(&claim["status"]["reservedFor"]).to_vec();
        let fates: Vec<Fate> = users.iter().map(|user| fate(view, &key.namespace, user)).collect();
        let unsure = users.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Unsure);
        let path = |user: &Value| format!("/api/v1/namespaces/{}/pods/{}", key.namespace, text(&user["name"]));
        let questions: Vec<Question> = unsure.map(|(user, _)| Question::Get { path: path(user) }).collect();
        if questions.is_empty() {
            let left = users.into_iter().zip(fates).filter(|(_, fate)| *fate == Fate::Stays).map(|(user, _)| user);
            return Plan::of(give_back(view, claim, left.collect()));
        }
        // The cache may not know a Pod yet that the scheduler is just placing, so the API server is asked.
        let (claim, view) = (claim.clone(), view.clone());
        Plan::asking(questions, move |answers, _| {
            let mut answers = answers.into_iter();
            let mut left = Vec::new();
            for (user, fate) in users.into_iter().zip(fates) {
                let stays = match fate {
                    Fate::Stays => true,
                    Fate::Goes => false,
                    Fate::Unsure => match answers.next() {
                        Some(Ok(pod)) => object::uid(&pod) == text(&user["uid"]),
                        Some(Err(error)) => !error.is_not_found(),
                        None => true,
                    },
                };
                left.extend(stays.then_some(user));
            }
            Plan::of(give_back(&view, &claim, left))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
    Unsure,
}

fn fate(view: &View, namespace: &str, user: &Value) -> Fate {
    if user["resource"] != "pods" || !text(&user["apiGroup"]).is_empty() {
        // Whoever else uses it says so himself when he no longer does.
        return Fate::Stays;
    }
    match view.get(PODS, namespace, text(&user["name"])) {
        None => Fate::Unsure,
        Some(pod) if user["uid"] != object::uid(pod) || is_done(pod) => Fate::Goes,
        Some(_) => Fate::Stays,
    }
}

/// What nobody uses is no longer allocated, and needs no protection; and one made for a Pod that is done goes.
fn give_back(view: &View, claim: &Object, left: Vec<Value>) -> Vec<Action> {
    let mut actions = Vec::new();
    let held = object::finalizers(claim).any(|f| f == FINALIZER);
    let fewer = left.len() < list(&claim["status"]["reservedFor"]).len();
    let unused = left.is_empty();
    let let_go = held && unused && (fewer || object::is_deleting(claim));
    if fewer || let_go {
        let mut status = claim["status"].clone();
        if let Some(fields) = status.as_object_mut() {
            fields.insert("reservedFor".into(), left.into());
            fields.retain(|field, value| *value != json!([]) && !(let_go && field == "allocation"));
        }
        if !status.is_null() {
            actions.extend(Action::set_status(RESOURCECLAIMS, claim, &status));
        }
    }
    if let_go {
        let body = json!({"metadata": {"uid": object::uid(claim), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let patch = Patch::Strategic(body);
        actions.push(Action::Patch { resource: RESOURCECLAIMS, key: claim.key(), sub: "", patch });
    }
    if unused && !object::is_deleting(claim) && owner_is_done(view, claim) {
        actions.push(Action::delete(RESOURCECLAIMS, claim));
    }
    actions
}

/// An owner that is not known is the garbage collector's.
fn owner_is_done(view: &View, claim: &Value) -> bool {
    let Some(owner) = object::controller_of(claim).filter(|o| o["kind"] == "Pod") else { return false };
    let pod = view.get(PODS, object::namespace(claim), text(&owner["name"]));
    pod.is_some_and(|pod| owner["uid"] != object::uid(pod) || is_done(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use minik_api::Status;
    use minik_client::Error;

    fn pod(phase: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "p", "uid": "pu"},
            "spec": {"nodeName": "n", "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]},
            "status": {"phase": phase}})
    }
    fn template() -> (ResourceId, Value) {
        let spec = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {}}});
        (RESOURCECLAIMTEMPLATES, json!({"metadata": {"namespace": "d", "name": "t"}, "spec": spec}))
    }
    fn made() -> Value {
        json!({"metadata": {"namespace": "d", "name": "p-gpu-x", "uid": "cu", "annotations": {CLAIM_NAME: "gpu"},
            "finalizers": [FINALIZER],
            "ownerReferences": [{"kind": "Pod", "name": "p", "uid": "pu", "controller": true}]},
            "status": {"allocation": {"devices": {}}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "pu"}]}})
    }
    fn of_pod(objects: Vec<(ResourceId, Value)>, expected: Expect) {
        let view = View::of(objects);
        let plan = ClaimsOfPods.plan(&view, &ObjectKey::new("d", "p"), Timestamp::UNIX_EPOCH);
        expected.assert_eq(&plan.to_string());
    }
    fn in_use(objects: Vec<(ResourceId, Value)>) -> Plan {
        ClaimsInUse.plan(&View::of(objects), &ObjectKey::new("d", "p-gpu-x"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_claim_is_made_from_its_template_then_named_and_then_reserved() {
        of_pod(
            vec![(PODS, pod("Pending")), template()],
            expect![[r#"
            create resourceclaims d/p-gpu-*
        "#]],
        );
        let mut allocated = made();
        allocated["status"]["reservedFor"] = json!(null);
        of_pod(
            vec![(PODS, pod("Pending")), template(), (RESOURCECLAIMS, allocated.clone())],
            expect![[r#"
            patch pods/status d/p {"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"d"},"status":{"resourceClaimStatuses":[{"name":"gpu","resourceClaimName":"p-gpu-x"}]}}
        "#]],
        );
        let mut named = pod("Pending");
        named["status"]["resourceClaimStatuses"] = json!([{"name": "gpu", "resourceClaimName": "p-gpu-x"}]);
        of_pod(
            vec![(PODS, named), template(), (RESOURCECLAIMS, allocated)],
            expect![[r#"
            update resourceclaims/status d/p-gpu-x {"status":{"reservedFor":[{"name":"p","resource":"pods","uid":"pu"}]}}
        "#]],
        );
    }

    #[test]
    fn without_the_template_the_pod_is_told() {
        of_pod(
            vec![(PODS, pod("Pending"))],
            expect![[r#"
            event Warning FailedResourceClaimCreation: PodResourceClaim gpu: resource claim template "t": resourceclaimtemplate.resource.k8s.io "t" not found
        "#]],
        );
    }

    #[test]
    fn when_its_pod_is_done_a_claim_is_given_back_and_deleted() {
        expect![[r#"
            update resourceclaims/status d/p-gpu-x {"status":{"allocation":null,"reservedFor":null}}
            patch resourceclaims d/p-gpu-x {"metadata":{"$deleteFromPrimitiveList/finalizers":["resource.kubernetes.io/delete-protection"]}}
            delete resourceclaims d/p-gpu-x
        "#]]
        .assert_eq(&in_use(vec![(PODS, pod("Succeeded")), (RESOURCECLAIMS, made())]).to_string());
        assert!(in_use(vec![(PODS, pod("Running")), (RESOURCECLAIMS, made())]).is_empty());
    }

    #[test]
    fn a_pod_nobody_here_knows_is_asked_for() {
        let plan = in_use(vec![(RESOURCECLAIMS, made())]);
        assert_eq!(plan.to_string(), "ask /api/v1/namespaces/d/pods/p\n");
        assert!(plan.answered(vec![Ok(pod("Pending"))], Timestamp::UNIX_EPOCH).is_empty());
        let gone = Err(Error::from(Status::not_found("pods", "p")));
        let plan = in_use(vec![(RESOURCECLAIMS, made())]).answered(vec![gone], Timestamp::UNIX_EPOCH);
        assert!(plan.to_string().starts_with("update resourceclaims/status d/p-gpu-x"));
    }

    #[test]
    fn long_names_are_cut_by_their_share() {
        assert_eq!(base("web", "gpu"), "web-gpu-");
        let long = base(&"p".repeat(60), &"c".repeat(20));
        assert!(long.len() <= NAME_BASE_MAX && long.contains("-c"), "{long}");
    }
}
