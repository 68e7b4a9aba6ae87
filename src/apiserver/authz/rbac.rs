//! RBAC: roles and bindings in memory, asked by user and groups.
//!
//! Owns: the index from subjects to bindings to rules; the order of evaluation and the reason of an allowance.
//! Called by: the authorizer chain for every request; access reviews; the escalation check.
//! Never: scans all bindings for a request, or reads the store: a follower feeds changes in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minik_api::{ObjectKey, ResourceId, object, resources};
use parking_lot::RwLock;
use serde_json::Value;

use super::rule::Rule;
use super::{Attributes, Authorizer, Decision, Rules, Target};
use crate::authn::{UserInfo, names};
use crate::objects::Change;

/// The resources the index is made of.
pub const FOLLOWED: [ResourceId; 4] =
    [resources::CLUSTERROLES, resources::CLUSTERROLEBINDINGS, resources::ROLES, resources::ROLEBINDINGS];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Which role a binding refers to: in its own namespace, or a ClusterRole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

impl RoleRef {
    pub fn of(binding: &Value) -> Self {
        let text = |key: &str| binding["roleRef"][key].as_str().unwrap_or("").to_string();
        Self { kind: text("kind"), name: text("name") }
    }
}

/// A role that a binding refers to is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleError {
    NotFound { resource: &'static str, name: String },
    UnknownKind(String),
}

impl std::fmt::Display for RoleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound { resource, name } => write!(f, "{resource}.rbac.authorization.k8s.io {name:?} not found"),
            Self::UnknownKind(kind) => write!(f, "unsupported role reference kind: {kind:?}"),
        }
    }
}

#[derive(Debug)]
struct Binding {
    key: ObjectKey,
    role: RoleRef,
    /// Each subject with how the reason of an allowance describes it.
    subjects: Vec<(Subject, String)>,
}

#[derive(Default)]
struct Index {
    /// Namespace "" holds the ClusterRoles.
    roles: HashMap<ObjectKey, Arc<[Rule]>>,
    /// Namespace "" holds the ClusterRoleBindings.
    bindings: HashMap<ObjectKey, Arc<Binding>>,
    /// Namespace and subject to the bindings that name it, by name so that the order is the same each time.
    by_subject: HashMap<(String, Subject), BTreeMap<String, Arc<Binding>>>,
}

#[derive(Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

impl Rbac {
    /// A role or binding has changed.
    pub fn apply(&self, change: &Change) {
        let (object, gone) = match change {
            Change::Put(object) => (object, false),
            Change::Delete(object) => (object, true),
        };
        let key = ObjectKey::of(object);
        let mut index = self.index.write();
        match object["kind"].as_str().unwrap_or("") {
            "Role" | "ClusterRole" if gone => drop(index.roles.remove(&key)),
            "Role" | "ClusterRole" => drop(index.roles.insert(key, Rule::list(object).into())),
            "RoleBinding" | "ClusterRoleBinding" => {
                index.unbind(&key);
                if !gone {
                    index.bind(Binding::of(object));
                }
            }
            _ => {}
        }
    }

    /// Forgets everything, before the index is filled anew.
    pub fn clear(&self) {
        *self.index.write() = Index::default();
    }

    /// Rules of the role that a binding in `namespace` refers to.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, RoleError> {
        self.index.read().role_rules(role, namespace)
    }

    /// All rules that `user` has in `namespace`, and what could not be resolved.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<RoleError>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        let index = self.index.read();
        index.visit(user, namespace, |_, found| {
            match found {
                Ok(found) => rules.extend(found.iter().cloned()),
                Err(error) => errors.push(error),
            }
            false
        });
        (rules, errors)
    }
}

impl Index {
    fn bind(&mut self, binding: Binding) {
        let binding = Arc::new(binding);
        for (subject, _) in &binding.subjects {
            self.by_subject
                .entry((binding.key.namespace.clone(), subject.clone()))
                .or_default()
                .insert(binding.key.name.clone(), binding.clone());
        }
        self.bindings.insert(binding.key.clone(), binding);
    }

    fn unbind(&mut self, key: &ObjectKey) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for (subject, _) in &binding.subjects {
            let entry = (key.namespace.clone(), subject.clone());
            if let Some(bindings) = self.by_subject.get_mut(&entry) {
                bindings.remove(&key.name);
                if bindings.is_empty() {
                    self.by_subject.remove(&entry);
                }
            }
        }
    }

    fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, RoleError> {
        let (key, resource) = match role.kind.as_str() {
            "Role" => (ObjectKey::new(namespace, &role.name), "role"),
            "ClusterRole" => (ObjectKey::new("", &role.name), "clusterrole"),
            other => return Err(RoleError::UnknownKind(other.into())),
        };
        self.roles.get(&key).cloned().ok_or_else(|| RoleError::NotFound { resource, name: role.name.clone() })
    }

    /// Calls `visit` with each binding that applies, cluster-wide ones first, until it answers true.
    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visit: impl FnMut(&(Subject, String, Arc<Binding>), Result<Arc<[Rule]>, RoleError>) -> bool,
    ) {
        let scopes: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        let subjects =
            std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().cloned().map(Subject::Group));
        let subjects: Vec<Subject> = subjects.collect();
        for scope in scopes {
            for subject in &subjects {
                let Some(bindings) = self.by_subject.get(&((*scope).to_string(), subject.clone())) else { continue };
                for binding in bindings.values() {
                    let described = binding.subjects.iter().find(|(s, _)| s == subject).map(|(_, d)| d.clone());
                    let found = (subject.clone(), described.unwrap_or_default(), binding.clone());
                    if visit(&found, self.role_rules(&binding.role, scope)) {
                        return;
                    }
                }
            }
        }
    }
}

impl Binding {
    fn of(object: &Value) -> Self {
        let key = ObjectKey::of(object);
        let subjects = object["subjects"].as_array().into_iter().flatten();
        let subjects = subjects.filter_map(|subject| subject_of(subject, &key.namespace)).collect();
        Self { role: RoleRef::of(object), subjects, key }
    }

    fn describe(&self, subject: &str) -> String {
        let (kind, name) = if self.key.namespace.is_empty() {
            ("ClusterRoleBinding", self.key.name.clone())
        } else {
            ("RoleBinding", format!("{}/{}", self.key.name, self.key.namespace))
        };
        format!("RBAC: allowed by {kind} {name:?} of {} {:?} to {subject}", self.role.kind, self.role.name)
    }
}

fn subject_of(subject: &Value, namespace: &str) -> Option<(Subject, String)> {
    let name = subject["name"].as_str().unwrap_or("");
    match subject["kind"].as_str()? {
        "User" => Some((Subject::User(name.into()), format!("User {name:?}"))),
        "Group" => Some((Subject::Group(name.into()), format!("Group {name:?}"))),
        "ServiceAccount" => {
            // A subject without a namespace means the binding's own.
            let own = subject["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(namespace);
            let described = format!("ServiceAccount {:?}", format!("{name}/{own}"));
            (!own.is_empty()).then(|| (Subject::User(format!("{}{own}:{name}", names::SERVICE_ACCOUNT)), described))
        }
        _ => None,
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let namespace = match &attributes.target {
            Target::Resource(target) => target.namespace,
            Target::Path(_) => "",
        };
        let (mut allowed, mut errors) = (None, Vec::new());
        self.index.read().visit(attributes.user, namespace, |(_, subject, binding), rules| {
            match rules {
                Ok(rules) if rules.iter().any(|r| r.allows(attributes.verb, &attributes.target)) => {
                    allowed = Some(binding.describe(subject));
                }
                Ok(_) => {}
                Err(error) => errors.push(error.to_string()),
            }
            allowed.is_some()
        });
        match (allowed, errors.as_slice()) {
            (Some(reason), _) => Decision::Allow(reason),
            (None, []) => Decision::NoOpinion(String::new()),
            (None, [one]) => Decision::NoOpinion(format!("RBAC: {one}")),
            (None, many) => Decision::NoOpinion(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (rules, errors) = self.rules_of(user, namespace);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Rules {
            resource_rules: rules.iter().filter_map(Rule::as_resource_rule).collect(),
            non_resource_rules: rules.iter().filter_map(Rule::as_non_resource_rule).collect(),
            incomplete: errors.join(", "),
        }
    }
}

/// Name of the object, for the reason that a namespaced binding gives.
pub fn is_rbac(object: &Value) -> bool {
    matches!(object["kind"].as_str(), Some("Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding"))
        && !object::name(object).is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ResourceTarget;
    use super::*;

    fn world() -> Rbac {
        let rbac = Rbac::default();
        let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
        let objects = [
            json!({"kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": rules}),
            json!({"kind": "Role", "metadata": {"name": "local", "namespace": "a"}, "rules": rules}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "everywhere"},
                "roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "Group", "name": "ops"}]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "here", "namespace": "a"},
                "roleRef": {"kind": "Role", "name": "local"},
                "subjects": [{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "robot"}]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "dangling", "namespace": "b"},
                "roleRef": {"kind": "ClusterRole", "name": "gone"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        ];
        for object in objects {
            rbac.apply(&Change::Put(Arc::new(object)));
        }
        rbac
    }

    fn ask(rbac: &Rbac, user: &str, groups: &[&str], verb: &str, namespace: &str) -> Decision {
        let user = UserInfo::new(user, groups);
        let target = ResourceTarget { resource: "pods", namespace, ..Default::default() };
        rbac.authorize(&Attributes { user: &user, verb, target: Target::Resource(target) })
    }

    #[test]
    fn an_allowance_names_the_binding_the_role_and_the_subject() {
        let reason = |user, groups: &[&str], namespace| match ask(&world(), user, groups, "list", namespace) {
            Decision::Allow(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reason("bob", &["ops"], ""),
            r#"RBAC: allowed by ClusterRoleBinding "everywhere" of ClusterRole "reader" to Group "ops""#
        );
        assert_eq!(reason("jane", &[], "a"), r#"RBAC: allowed by RoleBinding "here/a" of Role "local" to User "jane""#);
        assert_eq!(
            reason("system:serviceaccount:a:robot", &[], "a"),
            r#"RBAC: allowed by RoleBinding "here/a" of Role "local" to ServiceAccount "robot/a""#
        );
    }

    #[test]
    fn a_binding_in_one_namespace_says_nothing_about_another_or_about_all() {
        for namespace in ["", "c"] {
            assert_eq!(ask(&world(), "jane", &[], "list", namespace), Decision::NoOpinion(String::new()));
        }
        assert_eq!(ask(&world(), "jane", &[], "delete", "a"), Decision::NoOpinion(String::new()));
    }

    #[test]
    fn a_binding_to_a_missing_role_is_named_in_the_refusal() {
        assert_eq!(
            ask(&world(), "jane", &[], "list", "b"),
            Decision::NoOpinion(r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#.into())
        );
    }

    #[test]
    fn a_changed_or_deleted_binding_stops_working() {
        let rbac = world();
        let mut changed = json!({"kind": "RoleBinding", "metadata": {"name": "here", "namespace": "a"},
            "roleRef": {"kind": "Role", "name": "local"}, "subjects": [{"kind": "User", "name": "joe"}]});
        rbac.apply(&Change::Put(Arc::new(changed.clone())));
        assert!(!ask(&rbac, "jane", &[], "list", "a").is_allowed());
        assert!(ask(&rbac, "joe", &[], "list", "a").is_allowed());
        changed["subjects"] = json!([]);
        rbac.apply(&Change::Delete(Arc::new(changed)));
        assert!(!ask(&rbac, "joe", &[], "list", "a").is_allowed());
    }
}
