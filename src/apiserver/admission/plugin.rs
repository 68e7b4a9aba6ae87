//! What a built-in admission plugin is.
//!
//! Owns: the two moments a plugin may speak at, and what it may look at.
//! Called by: the chain, for every plugin in its order.
//! Never: waits: plugins answer from stored objects. Those that must wait (quota, webhooks) are not of this kind.

use std::sync::Arc;

use minik_api::Status;

use super::Review;
use crate::authz::Authorizer;
use crate::objects::Objects;

/// What plugins look at.
#[derive(Clone)]
pub struct World {
    pub objects: Arc<dyn Objects>,
    pub authorizer: Arc<dyn Authorizer>,
}

pub trait Plugin: Send + Sync {
    fn mutate(&self, _: &mut Review, _: &World) -> Result<(), Status> {
        Ok(())
    }
    fn validate(&self, _: &Review, _: &World) -> Result<(), Status> {
        Ok(())
    }
}
