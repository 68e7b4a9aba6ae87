//! The ways to be somebody, in the order they are tried.
//!
//! Owns: the order front proxy, certificate, bearer token, anonymous; and `system:authenticated` for all but the last.
//! Called by: the pipeline for each request; TokenReview for a token alone.
//! Never: lets a wrong credential pass as anonymous: who shows something false is refused.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;
use minik_api::Status;

use super::service_account::ServiceAccountTokens;
use super::x509::{Authority, Subject};
use super::{Authenticator, Peer, UserInfo, bootstrap_token, front_proxy, groups, same_secret, x509};
use crate::objects::Objects;

/// WebSockets cannot set headers in browsers, so the token comes as one of the protocols.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    Allowed,
    Refused,
}

pub struct Authenticators {
    pub clients: Option<Authority>,
    pub front_proxy: Option<FrontProxy>,
    pub service_accounts: Arc<ServiceAccountTokens>,
    /// Tokens that name their user for good (`--token-auth-file`).
    pub static_tokens: Vec<(String, UserInfo)>,
    pub anonymous: Anonymous,
    pub objects: Arc<dyn Objects>,
}

pub struct FrontProxy {
    pub authority: Authority,
    /// Common names that may speak for others; empty lets every certificate of the authority.
    pub names: Vec<String>,
}

/// Who a bearer token is, and for which audiences.
pub type TokenResult = Result<(UserInfo, Vec<String>), Vec<String>>;

impl Authenticators {
    /// Whose certificates are worth asking for.
    pub fn authorities(&self) -> Vec<&Authority> {
        self.clients.iter().chain(self.front_proxy.as_ref().map(|proxy| &proxy.authority)).collect()
    }

    /// The errors of all ways that recognised the token, the first being what TokenReview always says.
    pub fn token(&self, token: &str, audiences: &[String], now: Timestamp) -> TokenResult {
        let own = self.service_accounts.audiences();
        let shared: Vec<String> = match audiences {
            [] => own.to_vec(),
            wanted => own.iter().filter(|a| wanted.contains(a)).cloned().collect(),
        };
        // Other tokens than ours know no audience, so they are for this server alone.
        if !shared.is_empty() {
            if let Some((_, user)) = self.static_tokens.iter().find(|(known, _)| same_secret(known, token)) {
                return Ok((authenticated(user.clone()), shared));
            }
            if let Some(user) = bootstrap_token::user(token, self.objects.as_ref(), now) {
                return Ok((authenticated(user), shared));
            }
        }
        const INVALID: &str = "invalid bearer token";
        match self.service_accounts.check(token, audiences, now) {
            Some(Ok((user, audiences))) => Ok((authenticated(user), audiences)),
            Some(Err(error)) => Err(vec![INVALID.into(), error.to_string()]),
            None => Err(vec![INVALID.into()]),
        }
    }

    fn certificate(&self, peer: &Peer, now: i64) -> Option<Result<Arc<UserInfo>, ()>> {
        let clients = self.clients.as_ref()?;
        let leaf = peer.certificates.first()?;
        let subject = peer.subject()?;
        if !peer.is_vouched_for(clients, now) || !subject.valid.contains(&now) {
            return Some(Err(()));
        }
        // A certificate without a name is nobody in particular.
        let user = || Arc::new(authenticated(x509::user(leaf, subject)));
        (!subject.common_name.is_empty()).then(|| Ok(peer.user.get_or_init(user).clone()))
    }

    fn front_proxy(&self, headers: &http::HeaderMap, peer: &Peer, now: i64) -> Option<UserInfo> {
        let proxy = self.front_proxy.as_ref()?;
        let user = front_proxy::user(headers)?;
        let subject = peer.subject()?;
        let named = proxy.names.is_empty() || proxy.names.contains(&subject.common_name);
        (named && proxy.authority.vouches_for(&peer.certificates, now.unsigned_abs())).then_some(user)
    }
}

impl Peer {
    fn subject(&self) -> Option<&Subject> {
        self.subject.get_or_init(|| x509::subject(self.certificates.first()?)).as_ref()
    }
    /// A chain is checked once per connection; that it has not expired since is checked by its leaf each time.
    fn is_vouched_for(&self, authority: &Authority, now: i64) -> bool {
        *self.vouched.get_or_init(|| authority.vouches_for(&self.certificates, now.unsigned_abs()))
    }
}

#[async_trait]
impl Authenticator for Authenticators {
    async fn authenticate(&self, request: &mut http::request::Parts, peer: &Peer) -> Result<Arc<UserInfo>, Status> {
        let now = Timestamp::now();
        let proxied = self.front_proxy(&request.headers, peer, now.as_second());
        front_proxy::clear(&mut request.headers);
        if let Some(user) = proxied {
            take_bearer(&mut request.headers);
            return Ok(Arc::new(authenticated(user)));
        }
        let bearer = take_bearer(&mut request.headers);
        let mut refused = false;
        match self.certificate(peer, now.as_second()) {
            Some(Ok(user)) => return Ok(user),
            Some(Err(())) => refused = true,
            None => {}
        }
        if let Some(token) = bearer.or_else(|| take_websocket_bearer(&mut request.headers)) {
            match self.token(&token, &[], now) {
                Ok((user, _)) => return Ok(Arc::new(user)),
                Err(errors) => {
                    tracing::debug!(errors = ?errors, "bearer token refused");
                    refused = true;
                }
            }
        }
        if refused || self.anonymous == Anonymous::Refused {
            return Err(Status::unauthorized());
        }
        Ok(Arc::new(UserInfo::anonymous()))
    }
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(groups::AUTHENTICATED) && !user.in_group(groups::UNAUTHENTICATED) {
        user.groups.push(groups::AUTHENTICATED.into());
    }
    user
}

fn take_bearer(headers: &mut http::HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().to_string();
    let (scheme, rest) = value.split_once(' ')?;
    let token = rest.split(' ').next().filter(|token| !token.is_empty())?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    headers.remove(AUTHORIZATION);
    Some(token.to_string())
}

fn take_websocket_bearer(headers: &mut http::HeaderMap) -> Option<String> {
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_string())
        .collect();
    let encoded = offered.iter().find_map(|p| p.strip_prefix(WEBSOCKET_TOKEN))?;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let token = String::from_utf8(token).ok().filter(|t| !t.is_empty())?;
    let rest: Vec<&str> = offered.iter().map(String::as_str).filter(|p| !p.starts_with(WEBSOCKET_TOKEN)).collect();
    if rest.is_empty() {
        // Browsers need one protocol to be chosen, and it must not be the token.
        return None;
    }
    let value = HeaderValue::from_str(&rest.join(", ")).ok()?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::super::jwt::Keys;
    use super::*;
    use crate::objects::fixture::Fixture;

    fn authenticators(anonymous: Anonymous) -> Authenticators {
        let objects: Arc<dyn Objects> = Arc::new(Fixture::default());
        let keys = Keys::generate().expect("test");
        Authenticators {
            clients: None,
            front_proxy: None,
            service_accounts: Arc::new(ServiceAccountTokens::new(keys, "https://me".into(), vec![], objects.clone())),
            static_tokens: vec![("secret".into(), UserInfo::new("jane", &["devs"]))],
            anonymous,
            objects,
        }
    }

    async fn check(anonymous: Anonymous, headers: &[(&str, &str)]) -> Result<(UserInfo, http::HeaderMap), u16> {
        let mut request = http::Request::builder().uri("/api");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("test").into_parts();
        let user = authenticators(anonymous).authenticate(&mut parts, &Peer::default()).await;
        user.map(|user| ((*user).clone(), parts.headers)).map_err(|status| status.code)
    }

    #[tokio::test]
    async fn a_known_token_is_its_user_and_is_taken_out_of_the_request() {
        let (user, headers) = check(Anonymous::Allowed, &[("authorization", "Bearer secret")]).await.expect("known");
        assert_eq!(user, UserInfo::new("jane", &["devs", "system:authenticated"]));
        assert!(headers.is_empty());
    }

    #[tokio::test]
    async fn no_credential_is_anonymous_and_a_wrong_one_is_refused() {
        assert_eq!(check(Anonymous::Allowed, &[]).await.expect("anonymous").0, UserInfo::anonymous());
        assert_eq!(check(Anonymous::Allowed, &[("authorization", "Bearer wrong")]).await.expect_err("wrong"), 401);
        assert_eq!(check(Anonymous::Refused, &[]).await.expect_err("nobody"), 401);
    }

    #[tokio::test]
    async fn headers_of_a_front_proxy_mean_nothing_from_others() {
        let (user, headers) = check(Anonymous::Allowed, &[("x-remote-user", "root")]).await.expect("anonymous");
        assert_eq!(user, UserInfo::anonymous());
        assert!(headers.is_empty(), "and go no further");
    }

    #[tokio::test]
    async fn a_browser_sends_its_token_as_a_protocol() {
        let offer = format!("{WEBSOCKET_TOKEN}c2VjcmV0, v5.channel.k8s.io");
        let (user, headers) = check(Anonymous::Allowed, &[("sec-websocket-protocol", &offer)]).await.expect("known");
        assert_eq!(user.name, "jane");
        assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    }
}
