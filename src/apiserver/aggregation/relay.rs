//! A client's request to a group that another server serves.
//!
//! Owns: the request that goes on (who asks stands in headers, and no credential goes with it) and what the client sees
//! when nobody can answer.
//! Called by: the pipeline, after authorization.
//! Never: reads a body.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use minik_api::Status;

use super::backend::Backend;
use crate::authn::{UserInfo, front_proxy};
use crate::body::Body;
use crate::connect::{dial, headers, relay};
use crate::reply;
use crate::server::Core;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// A request on its way.
pub struct Passing {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Body,
    pub upgrade: Option<OnUpgrade>,
    /// Where it came from, for the backend's log.
    pub client: Option<std::net::IpAddr>,
}

impl Passing {
    pub fn of(parts: &mut http::request::Parts, body: Body, from: Option<std::net::SocketAddr>) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: std::mem::take(&mut parts.headers),
            body,
            upgrade: parts.extensions.remove::<OnUpgrade>(),
            client: from.map(|a| a.ip()),
        }
    }
}

/// As Go's `http.Error` says it.
fn refused(code: u16, message: impl std::fmt::Display) -> Response<Body> {
    let mut response = reply::text(code, format!("{message}\n"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub async fn handle(
    core: &Arc<Core>,
    backend: &Backend,
    mut passing: Passing,
    user: &UserInfo,
) -> Result<Response<Body>, Status> {
    if !backend.available {
        return Ok(refused(503, "service unavailable"));
    }
    let (host, port) = match backend.place(core.objects.as_ref()) {
        Ok(place) => place,
        Err(error) => {
            tracing::debug!(apiservice = %backend.name, %error, "an extension API server has no address");
            return Ok(refused(503, "service unavailable"));
        }
    };
    let unreachable = |why: String| refused(503, format!("error trying to reach service: {why}"));
    let connection = match backend.connect(&host, port).await {
        Ok(connection) => connection,
        Err(error) => return Ok(unreachable(error.to_string())),
    };
    let client = passing.upgrade.take().filter(|_| headers::is_upgrade(&passing.headers));
    let request = outgoing(passing, user, &dial::join(&host, port), client.is_some())?;
    match relay::send(core, connection, request).await {
        Err(error) => Ok(unreachable(error.to_string())),
        Ok(response) => Ok(match client {
            Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                relay::switch(core, client, response)
            }
            _ => relay::pass_back(response),
        }),
    }
}

fn outgoing(passing: Passing, user: &UserInfo, host: &str, upgrading: bool) -> Result<Request<Body>, Status> {
    let mut headers = passing.headers;
    headers::drop_credentials(&mut headers);
    if !upgrading {
        headers::drop_hop_by_hop(&mut headers);
    }
    front_proxy::write(&mut headers, user);
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(header::HOST, host);
    }
    if let Some(client) = passing.client {
        let before = headers.get(FORWARDED_FOR).and_then(|v| v.to_str().ok()).map(|v| format!("{v}, "));
        let chain = format!("{}{client}", before.unwrap_or_default());
        if let Ok(chain) = HeaderValue::from_str(&chain) {
            headers.insert(FORWARDED_FOR, chain);
        }
    }
    let path = passing.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::builder()
        .method(passing.method)
        .uri(path)
        .body(passing.body)
        .map_err(|e| Status::bad_request(e.to_string()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    #[test]
    fn who_asks_goes_on_and_what_proved_it_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("accept", "*/*"),
            ("connection", "keep-alive"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let passing = Passing {
            method: Method::GET,
            uri: Uri::from_static("https://api:6443/apis/g/v1/things?watch=1"),
            headers,
            body: body::empty(),
            upgrade: None,
            client: Some(std::net::IpAddr::from([10, 0, 0, 9])),
        };
        let user = UserInfo::new("jane", &["devs", "system:authenticated"]);
        let request = outgoing(passing, &user, "10.244.0.5:8443", false).expect("a request");
        assert_eq!(request.uri(), "/apis/g/v1/things?watch=1");
        let mut told: Vec<String> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("text"))).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "accept: */*",
                "host: 10.244.0.5:8443",
                "x-forwarded-for: 10.0.0.9",
                "x-remote-group: devs",
                "x-remote-group: system:authenticated",
                "x-remote-user: jane",
            ]
        );
    }
}
