//! `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP to something inside the cluster.
//!
//! Owns: the path and headers of the request that goes on, and how what an answer refers to leads back here.
//! Called by: `connect`.
//! Never: reads a body; `pages` does.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use minik_api::Status;

use super::location::{self, Location};
use super::{Arrived, headers, pages, relay};
use crate::body::{self, Body};
use crate::server::Core;

const FORWARDED_URI: &str = "x-forwarded-uri";

pub async fn handle(core: &Arc<Core>, mut arrived: Arrived<'_>) -> Result<Response<Body>, Status> {
    let info = arrived.info;
    let location = location::of(core.objects.as_ref(), &info.resource, &info.namespace, &info.name)?;
    let client = arrived.upgrade.take().filter(|_| headers::is_upgrade(&arrived.headers));
    let reading = matches!(arrived.method, Method::GET | Method::HEAD);
    if info.rest.is_empty() && client.is_none() && reading {
        return redirect(&arrived.uri);
    }
    let unreachable = |why: String| match client.is_some() {
        true => Status::new(500, "", format!("error dialing backend: {why}")),
        false => location::unavailable(format!("error trying to reach service: {why}")),
    };
    let connection = core
        .dialer
        .open(location.security, &location.host, location.port)
        .await
        .map_err(|e| unreachable(e.to_string()))?;
    let base = arrived.uri.path().strip_suffix(info.rest.as_str()).unwrap_or_default().to_string();
    let request = outgoing(arrived, &location, client.is_some())?;
    let response = relay::send(core, connection, request).await.map_err(|e| unreachable(e.to_string()))?;
    let mut response = match client {
        Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            return Ok(relay::switch(core, client, response));
        }
        _ => relay::pass_back(response),
    };
    headers::drop_cors(response.headers_mut());
    let back = move |link: &str| rewritten(link, &location.authority(), &location.host, &base);
    if let Some(target) = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok())
        && let Ok(value) = HeaderValue::from_str(&back(target))
    {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(pages::lead_back(response, Box::new(back)))
}

/// Relative links of the proxied pages only work below a slash.
fn redirect(uri: &Uri) -> Result<Response<Body>, Status> {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::LOCATION, format!("{}/{query}", uri.path()))
        .body(body::empty())
        .map_err(|e| Status::internal(e.to_string()))
}

fn outgoing(arrived: Arrived<'_>, location: &Location, upgrading: bool) -> Result<Request<Body>, Status> {
    let path = if arrived.info.rest.is_empty() { "/" } else { arrived.info.rest.as_str() };
    let query = arrived.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut headers = arrived.headers;
    if !upgrading {
        headers::drop_hop_by_hop(&mut headers);
    }
    // The name the client used; in HTTP/2 it stands in the URI.
    let asked = arrived.uri.authority().map(|a| a.as_str().to_string());
    let host = asked.unwrap_or_else(|| location.authority());
    if !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&host)
    {
        headers.insert(header::HOST, host);
    }
    if let Ok(path) = HeaderValue::from_str(arrived.uri.path()) {
        headers.insert(FORWARDED_URI, path);
    }
    let mut request = Request::builder()
        .method(arrived.method)
        .uri(format!("{path}{query}"))
        .body(arrived.body)
        .map_err(|e| Status::bad_request(e.to_string()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// What refers to something within the proxied server refers to it below this path.
fn rewritten(target: &str, authority: &str, host: &str, base: &str) -> String {
    let without_scheme = target.strip_prefix("http:").or_else(|| target.strip_prefix("https:")).unwrap_or(target);
    let path = match without_scheme.strip_prefix("//") {
        Some(rest) => {
            let (there, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if there != authority && there != host {
                return target.into();
            }
            if path.is_empty() { "/" } else { path }
        }
        None => target,
    };
    if !path.starts_with('/') || path.starts_with(base) { path.into() } else { format!("{base}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, expected: &str) {
        let base = "/api/v1/namespaces/a/services/web/proxy";
        assert_eq!(rewritten(target, "10.244.0.5:80", "10.244.0.5", base), expected, "{target}");
    }

    #[test]
    fn redirections_stay_below_the_proxy() {
        check("/login?x=1", "/api/v1/namespaces/a/services/web/proxy/login?x=1");
        check("http://10.244.0.5/a/", "/api/v1/namespaces/a/services/web/proxy/a/");
        check("http://10.244.0.5:80", "/api/v1/namespaces/a/services/web/proxy/");
        check("https://example.com/a", "https://example.com/a");
        check("next", "next");
        check("/api/v1/namespaces/a/services/web/proxy/x", "/api/v1/namespaces/a/services/web/proxy/x");
    }
}
