//! No authentication at all.
//!
//! Owns: the user that stands for everybody when nobody is asked who they are.
//! Called by: servers with `AuthorizationMode::AlwaysAllow`, in tests and until real authentication is configured.
//! Never: serves a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use minik_api::Status;

use crate::authn::{Authenticator, Peer, UserInfo, groups};

pub struct EverybodyIsAdmin;

#[async_trait]
impl Authenticator for EverybodyIsAdmin {
    async fn authenticate(&self, _: &mut http::request::Parts, _: &Peer) -> Result<Arc<UserInfo>, Status> {
        Ok(Arc::new(UserInfo::new("kubernetes-admin", &[groups::MASTERS, groups::AUTHENTICATED])))
    }
}
