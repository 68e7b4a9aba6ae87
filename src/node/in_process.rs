//! The way from a component to the API server of the same process: no socket, no TLS, the same pipeline.
//!
//! Owns: the transport, and the identity each request carries.
//! Called by: the wiring of the control plane.
//! Never: gives a component more rights than its certificate would.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use minik_apiserver::ApiServer;
use minik_apiserver::authn::{UserInfo, groups};
use minik_client::{Body, Client, Transport, TransportError, body_from_bytes};

struct InProcess {
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
}

impl Transport for InProcess {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, TransportError>> {
        let mut request = request.map(body_from_bytes);
        request.extensions_mut().insert(self.user.clone());
        async move { Ok(self.server.handle(request).await) }.boxed()
    }
}

/// A client that is `user`, as if it had come with that user's certificate.
pub fn client(server: &Arc<ApiServer>, user: &str, more_groups: &[&str]) -> Client {
    let groups = [more_groups, &[groups::AUTHENTICATED]].concat();
    let user = Arc::new(UserInfo::new(user, &groups));
    Client::new(Arc::new(InProcess { server: server.clone(), user }))
}
