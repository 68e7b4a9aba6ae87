//! Nobody grants rights that they do not have.
//!
//! Owns: the check of written roles and bindings against the writer's own rights, and the verbs `escalate` and `bind`
//! that lift it. Upstream does this in the storage of these resources; here it stands with the other judges.
//! Called by: the admission chain for roles and bindings.
//! Never: applies to system:masters, or to changes that only the garbage collector makes.

use std::sync::Arc;

use minik_api::{Status, object};
use serde_json::Value;

use super::plugin::{Plugin, World};
use super::{Operation, Review};
use crate::authn::groups;
use crate::authz::rbac::{RoleError, RoleRef};
use crate::authz::rule::{self, Rule};
use crate::authz::{Attributes, Authorizer, Authorizers, ResourceTarget, Target};

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RbacEscalation {
    authorizers: Arc<Authorizers>,
}

impl RbacEscalation {
    pub fn new(authorizers: Arc<Authorizers>) -> Self {
        Self { authorizers }
    }

    fn may(&self, review: &Review, verb: &str, resource: &str, name: &str) -> bool {
        let namespace = review.namespace.as_str();
        let target = ResourceTarget { group: GROUP, version: "*", resource, name, namespace, ..Default::default() };
        let question = Attributes { user: &review.user, verb, target: Target::Resource(target) };
        self.authorizers.authorize(&question).is_allowed()
    }

    fn check_role(&self, review: &Review) -> Result<(), Status> {
        let name = object::name(&review.object);
        if self.may(review, "escalate", &review.resource, &review.name) {
            return Ok(());
        }
        self.check_rules(review, name, &Rule::list(&review.object))?;
        let aggregates =
            |role: &Value| role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|s| !s.is_empty());
        if aggregates(&review.object) || aggregates(&review.old) {
            let all = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            let everything = [
                Rule { verbs: all(&["*"]), api_groups: all(&["*"]), resources: all(&["*"]), ..Rule::default() },
                Rule { verbs: all(&["*"]), non_resource_urls: all(&["*"]), ..Rule::default() },
            ];
            if self.check_rules(review, name, &everything).is_err() {
                let why = "must have cluster-admin privileges to use the aggregationRule";
                return Err(Status::forbidden(&review.qualified(), name, why));
            }
        }
        Ok(())
    }

    fn check_binding(&self, review: &Review) -> Result<(), Status> {
        let role = RoleRef::of(&review.object);
        let resource = match role.kind.as_str() {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            _ => "",
        };
        if !resource.is_empty() && self.may(review, "bind", resource, &role.name) {
            return Ok(());
        }
        let rules = self.authorizers.rbac().role_rules(&role, &review.namespace).map_err(|error| match error {
            // Upstream names the resource that is written, not the one that is missing.
            RoleError::NotFound { name, .. } => Status::not_found(&review.qualified(), &name),
            unknown => Status::internal(unknown.to_string()),
        })?;
        self.check_rules(review, object::name(&review.object), &rules)
    }

    fn check_rules(&self, review: &Review, name: &str, wanted: &[Rule]) -> Result<(), Status> {
        let user = &review.user;
        let (held, errors) = self.authorizers.rbac().rules_of(user, &review.namespace);
        let missing = rule::missing(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
        let mut why = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            missing.join("\n")
        );
        if !errors.is_empty() {
            let errors: Vec<String> = errors
                .iter()
                .map(|error| match error {
                    RoleError::NotFound { name, .. } => format!("{} {name:?} not found", review.qualified()),
                    unknown => unknown.to_string(),
                })
                .collect();
            why.push_str(&format!("; resolution errors: [{}]", errors.join(" ")));
        }
        Err(Status::forbidden(&review.qualified(), name, &why))
    }
}

impl Plugin for RbacEscalation {
    fn validate(&self, review: &Review, _: &World) -> Result<(), Status> {
        let write = matches!(review.operation, Operation::Create | Operation::Update);
        if !write || review.group != GROUP || !review.subresource.is_empty() || review.user.in_group(groups::MASTERS) {
            return Ok(());
        }
        if review.operation == Operation::Update && changes_only_bookkeeping(&review.object, &review.old) {
            return Ok(());
        }
        match review.resource.as_str() {
            "roles" | "clusterroles" => self.check_role(review),
            "rolebindings" | "clusterrolebindings" => self.check_binding(review),
            _ => Ok(()),
        }
    }
}

/// The garbage collector must be able to release an object whose rights it does not have.
fn changes_only_bookkeeping(new: &Value, old: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "selfLink"] {
                meta.remove(field);
            }
        }
        object
    };
    strip(new) == strip(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::super::fixture::{review, world};
    use super::*;
    use crate::authn::UserInfo;
    use crate::objects::Objects;
    use crate::objects::fixture::Fixture;

    async fn check(extra: Value, object: Value) -> Result<(), String> {
        let mut rules = vec![json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})];
        rules.extend(extra.as_array().into_iter().flatten().cloned());
        let objects: Arc<dyn Objects> = Arc::new(Fixture::of(vec![
            json!({"kind": "ClusterRole", "metadata": {"name": "own"}, "rules": rules}),
            json!({"kind": "ClusterRole", "metadata": {"name": "strong"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "own"},
                "subjects": [{"kind": "User", "name": "jane"}]}),
        ]));
        let authorizers = Authorizers::start(&objects, vec![], &TaskTracker::new(), &CancellationToken::new());
        let mut review = review(Operation::Create, object);
        review.user = Arc::new(UserInfo::new("jane", &["devs"]));
        RbacEscalation::new(authorizers).validate(&review, &world(vec![])).map_err(|s| s.message)
    }

    fn role(verbs: Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r", "namespace": "a"},
            "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]})
    }

    #[tokio::test]
    async fn a_role_may_grant_what_its_writer_holds_and_no_more() {
        assert_eq!(check(json!([]), role(json!(["get"]))).await, Ok(()));
        assert_eq!(
            check(json!([]), role(json!(["get", "delete"]))).await,
            Err("roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"devs\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}".into())
        );
        let escalate = json!([{"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["roles"]}]);
        assert_eq!(check(escalate, role(json!(["*"]))).await, Ok(()));
    }

    #[tokio::test]
    async fn a_binding_needs_the_roles_rights_or_the_right_to_bind_it() {
        let binding = |role: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"},
                "roleRef": {"kind": "ClusterRole", "name": role}})
        };
        assert_eq!(check(json!([]), binding("own")).await, Ok(()));
        assert!(check(json!([]), binding("strong")).await.expect_err("refused").contains("not currently held"));
        let bind = json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["strong"]}]);
        assert_eq!(check(bind, binding("strong")).await, Ok(()));
        assert_eq!(
            check(json!([]), binding("gone")).await,
            Err(r#"clusterrolebindings.rbac.authorization.k8s.io "gone" not found"#.into())
        );
    }
}
