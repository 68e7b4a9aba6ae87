//! How a refusal reads.
//!
//! Owns: the sentence `User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
//! Called by: the pipeline when an authorizer does not allow, and checks inside other parts that refuse alike.
//! Never: decides.

use minik_api::Status;

use super::{Attributes, Target};

/// The sentence without the resource in front; clients show it and tests compare it.
pub fn forbidden_message(attributes: &Attributes<'_>) -> String {
    let user = &attributes.user.name;
    let verb = attributes.verb;
    let target = match &attributes.target {
        Target::Path(path) => return format!("User {user:?} cannot {verb} path {path:?}"),
        Target::Resource(target) => target,
    };
    let resource = match target.subresource {
        "" => target.resource.to_string(),
        sub => format!("{}/{sub}", target.resource),
    };
    let group = target.group;
    match target.namespace {
        "" => format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} at the cluster scope"),
        ns => {
            format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} in the namespace {ns:?}")
        }
    }
}

/// The 403 of a request that `attributes` describe; `reason` is the authorizer's, often empty.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut why = forbidden_message(attributes);
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    match &attributes.target {
        Target::Path(_) => {
            let mut status = Status::forbidden("", "", &why);
            status.details = Some(minik_api::status::Details::default());
            status
        }
        Target::Resource(t) => {
            let qualified =
                if t.group.is_empty() { t.resource.to_string() } else { format!("{}.{}", t.resource, t.group) };
            Status::forbidden(&qualified, t.name, &why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ResourceTarget;
    use super::*;
    use crate::authn::UserInfo;

    fn check(verb: &str, target: Target<'_>, reason: &str, expected: &str) {
        let user = UserInfo::new("jane", &[]);
        let status = forbidden(&Attributes { user: &user, verb, target }, reason);
        assert_eq!(status.message, expected);
        assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    }

    #[test]
    fn a_refusal_names_user_verb_resource_group_and_scope() {
        let pods = ResourceTarget { version: "v1", resource: "pods", namespace: "default", ..Default::default() };
        check(
            "list",
            Target::Resource(pods),
            "",
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
        );
        let deployment = ResourceTarget {
            group: "apps",
            version: "v1",
            resource: "deployments",
            namespace: "a",
            name: "web",
            ..Default::default()
        };
        check(
            "get",
            Target::Resource(deployment),
            "",
            r#"deployments.apps "web" is forbidden: User "jane" cannot get resource "deployments" in API group "apps" in the namespace "a""#,
        );
        let log =
            ResourceTarget { version: "v1", resource: "nodes", subresource: "log", name: "n1", ..Default::default() };
        check(
            "get",
            Target::Resource(log),
            "no relationship",
            r#"nodes "n1" is forbidden: User "jane" cannot get resource "nodes/log" in API group "" at the cluster scope: no relationship"#,
        );
        check("get", Target::Path("/metrics"), "", r#"forbidden: User "jane" cannot get path "/metrics""#);
    }
}
