//! DefaultIngressClass: an Ingress that names no class gets the default one.
//!
//! Owns: which class is the default.
//! Called by: the admission chain for new Ingresses.
//! Never: overrules a class that is named, in the field or the old annotation.

use minik_api::{Status, object, resources};

use super::default_storage_class::newest_marked;
use super::plugin::{Plugin, World};
use super::{Operation, Review};

pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("networking.k8s.io", "ingresses", "") {
            return Ok(());
        }
        let named = !review.object["spec"]["ingressClassName"].is_null()
            || object::annotation(&review.object, "kubernetes.io/ingress.class").is_some();
        if !named {
            let classes = world.objects.list(resources::INGRESSCLASSES, "");
            if let Some(class) = newest_marked(classes, &["ingressclass.kubernetes.io/is-default-class"]) {
                review.object["spec"]["ingressClassName"] = object::name(&class).into();
            }
        }
        Ok(())
    }
}
