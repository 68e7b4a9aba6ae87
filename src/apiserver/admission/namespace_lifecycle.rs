//! NamespaceLifecycle: nothing new in a namespace that is not there or is going away.
//!
//! Owns: that rule, and which namespaces live for ever.
//! Called by: the admission chain, first.
//! Never: deletes anything.

use minik_api::status::Cause;
use minik_api::{Status, resources};

use super::plugin::{Plugin, World};
use super::{Operation, Review};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        let on_namespace = review.kind.kind == "Namespace" && review.kind.group.is_empty();
        if on_namespace {
            let immortal = review.operation == Operation::Delete && IMMORTAL.contains(&review.name.as_str());
            return if immortal { Err(review.forbid("this namespace may not be deleted")) } else { Ok(()) };
        }
        // A review of somebody's rights must not tell whether the namespace exists.
        let told = review.group == "authorization.k8s.io" && review.resource == "localsubjectaccessreviews";
        if review.namespace.is_empty() || review.operation != Operation::Create || told {
            return Ok(());
        }
        let Some(namespace) = world.objects.get(resources::NAMESPACES, "", &review.namespace) else {
            return Err(Status::not_found("namespaces", &review.namespace));
        };
        if namespace["status"]["phase"] != "Terminating" {
            return Ok(());
        }
        let name = &review.namespace;
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = review.forbid(&why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            });
        }
        Err(status)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{review, world};
    use super::*;

    fn check(operation: Operation, kind: &str, namespace: &str, name: &str) -> Result<(), String> {
        let world = world(vec![
            json!({"kind": "Namespace", "metadata": {"name": "a"}, "status": {"phase": "Active"}}),
            json!({"kind": "Namespace", "metadata": {"name": "b"}, "status": {"phase": "Terminating"}}),
        ]);
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        NamespaceLifecycle.mutate(&mut review(operation, object), &world).map_err(|s| s.message)
    }

    #[test]
    fn a_namespace_must_be_there_and_stay() {
        assert_eq!(check(Operation::Create, "Pod", "a", "p"), Ok(()));
        assert_eq!(check(Operation::Create, "Pod", "c", "p"), Err(r#"namespaces "c" not found"#.into()));
        assert_eq!(
            check(Operation::Create, "Pod", "b", "p"),
            Err(r#"pods "p" is forbidden: unable to create new content in namespace b because it is being terminated"#
                .into())
        );
        assert_eq!(check(Operation::Update, "Pod", "b", "p"), Ok(()));
    }

    #[test]
    fn some_namespaces_live_for_ever() {
        assert_eq!(
            check(Operation::Delete, "Namespace", "", "kube-system"),
            Err(r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#.into())
        );
        assert_eq!(check(Operation::Delete, "Namespace", "", "a"), Ok(()));
    }
}
