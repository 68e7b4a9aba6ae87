//! What of a request's headers goes on to the other side, and what of an answer's comes back.
//!
//! Owns: credentials that stay here, headers that belong to one connection alone, and how an upgrade is recognized.
//! Called by: the relays.
//! Never: reads a body.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// RFC 9110 and the older names that Go's proxy drops too.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A browser's way to bring a token: as one of the protocols it offers.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|v| v.as_bytes().to_ascii_lowercase().windows(7).any(|w| w == b"upgrade"))
}

pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The names in a comma-separated header, over all its lines.
pub fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|l| l.split(',')).map(|p| p.trim().to_string()).filter(|p| !p.is_empty()).collect()
}

/// The other side knows this server, not its clients.
pub fn drop_credentials(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    let protocols = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    if protocols.iter().any(|p| p.starts_with(TOKEN_PROTOCOL)) {
        let kept: Vec<String> = protocols.into_iter().filter(|p| !p.starts_with(TOKEN_PROTOCOL)).collect();
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
            && !kept.is_empty()
        {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

/// Removes what concerns one connection; those that `Connection` names as well.
pub fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in listed(headers, &header::CONNECTION) {
        if let Ok(name) = HeaderName::try_from(name) {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What a proxied server allows to other origins is not this server's promise.
pub fn drop_cors(headers: &mut HeaderMap) {
    for name in [
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn credentials_stay_here() {
        let mut headers = map(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "jane"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.dG9rZW4, v5.channel.k8s.io"),
        ]);
        drop_credentials(&mut headers);
        assert_eq!(headers, map(&[("sec-websocket-protocol", "v5.channel.k8s.io")]));
    }

    #[test]
    fn what_belongs_to_one_connection_is_not_passed_on() {
        let mut headers =
            map(&[("connection", "close, X-Secret"), ("x-secret", "1"), ("te", "trailers"), ("accept", "*/*")]);
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_is_what_connection_says() {
        assert!(is_upgrade(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")])));
        assert!(!is_upgrade(&map(&[("connection", "keep-alive"), ("upgrade", "websocket")])));
        assert!(is_websocket(&map(&[("connection", "Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_websocket(&map(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")])));
    }
}
