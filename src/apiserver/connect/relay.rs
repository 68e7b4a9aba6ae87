//! One request over one connection to somebody else, and the answer as it comes.
//!
//! Owns: the exchange, and joining both connections after a change of protocol.
//! Called by: the streams and the proxy.
//! Never: holds more of a body than what is on its way.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::dial::Connection;
use super::headers;
use crate::body::{self, Body};
use crate::server::Core;

/// Sends the request; the answer's body is read from the connection while the client takes it.
pub async fn send(
    core: &Arc<Core>,
    connection: Connection,
    request: Request<Body>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    let stopping = core.stopping.clone();
    core.tasks.spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            ended = driver.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a relayed connection ended badly");
            },
        }
    });
    sender.send_request(request).await
}

/// The answer without what concerned that connection alone.
pub fn pass_back(mut response: Response<Incoming>) -> Response<Body> {
    headers::drop_hop_by_hop(response.headers_mut());
    response.map(|b| b.map_err(|e| Box::new(e) as body::BoxError).boxed_unsync())
}

/// Hands the client the other side's agreement and copies bytes until both sides have ended.
pub fn switch(core: &Arc<Core>, client: OnUpgrade, mut response: Response<Incoming>) -> Response<Body> {
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let server = hyper::upgrade::on(&mut response);
    let stopping = core.stopping.clone();
    core.tasks.spawn(async move {
        let copying = async {
            let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                tracing::debug!(%error, "a relayed stream was cut off");
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = copying => {}
        }
    });
    response.map(|_| body::empty())
}
