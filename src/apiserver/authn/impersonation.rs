//! Acting as somebody else: the `Impersonate-*` headers and the right to use them.
//!
//! Owns: the modes of constrained impersonation (KEP-5284), the old one, and the user that results.
//! Called by: the pipeline, between authentication and authorization, with the question the request will ask.
//! Never: authorizes the request itself; that is done for the resulting user.

use std::collections::BTreeMap;

use http::HeaderMap;
use minik_api::{Status, names as rules};

use super::{UserInfo, front_proxy, groups, names, service_account};
use crate::authz::{Attributes, Authorizer, ResourceTarget, Target, forbidden};

/// How all of them begin.
const ALL: &str = "impersonate-";
const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
/// From this many groups or extra values on, one question for all of them is tried first.
const MANY: usize = 4;

/// `None`: nobody is impersonated. The headers are taken away.
pub fn impersonate(
    headers: &mut HeaderMap,
    request: &Attributes<'_>,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, Status> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    clear(headers);
    let mut refusal = None;
    for mode in [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy] {
        if !mode.applies(&wanted, request.user) {
            continue;
        }
        match mode.check(&wanted, request, authorizer) {
            Ok(user) => return Ok(Some(user)),
            Err(status) => refusal = refusal.or(Some(status)),
        }
    }
    Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    // Hardly anybody does.
    if !headers.keys().any(|name| name.as_str().starts_with(ALL)) {
        return Ok(None);
    }
    let first = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_string();
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_string).collect()
    };
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(front_proxy::unescape(key)).or_default().extend(texts(name.as_str()));
        }
    }
    let wanted = UserInfo { name: first(USER), uid: first(UID), groups: texts(GROUP), extra };
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == UserInfo::default() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&wanted))))
}

fn clear(headers: &mut HeaderMap) {
    let ours: Vec<_> = headers
        .keys()
        .filter(|n| matches!(n.as_str(), USER | UID | GROUP) || n.as_str().starts_with(EXTRA))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Go's `%#v` of the user, which clients see in this one message.
fn go_syntax(user: &UserInfo) -> String {
    let list = |list: &[String]| {
        let quoted: Vec<String> = list.iter().map(|g| format!("{g:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".into() } else { list(&user.groups) };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".into()
    } else {
        let pairs: Vec<String> = user.extra.iter().map(|(k, v)| format!("{k:?}:{}", list(v))).collect();
        format!("map[string][]string{{{}}}", pairs.join(", "))
    };
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn applies(self, wanted: &UserInfo, requestor: &UserInfo) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_name(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let own = requestor.extra.get("authentication.kubernetes.io/node-name");
                only_name
                    && requestor.service_account().is_some()
                    && node.is_some_and(|node| own.is_some_and(|own| own.as_slice() == [node.to_string()]))
            }
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && wanted.service_account().is_some(),
            Self::UserInfo => node.is_none() && wanted.service_account().is_none(),
            Self::Legacy => true,
        }
    }

    fn check(
        self,
        wanted: &UserInfo,
        request: &Attributes<'_>,
        authorizer: &dyn Authorizer,
    ) -> Result<UserInfo, Status> {
        let verb = match self {
            Self::Legacy => "impersonate".to_string(),
            _ => {
                let on = format!("impersonate-on:{}:{}", self.word(), request.verb);
                ask(authorizer, &Attributes { verb: &on, ..*request })?;
                format!("impersonate:{}", self.word())
            }
        };
        let check = Check { mode: self, verb, user: request.user, authorizer };
        let mut actual = wanted.clone();
        check.name(wanted, &mut actual)?;
        if !wanted.uid.is_empty() {
            check.one("authentication.k8s.io", "uids", "", "", &wanted.uid)?;
        }
        check.groups(&wanted.groups)?;
        check.extra(&wanted.extra)?;
        let implied = if actual.name == names::ANONYMOUS {
            groups::UNAUTHENTICATED
        } else if actual.in_group(groups::UNAUTHENTICATED) {
            return Ok(actual);
        } else {
            groups::AUTHENTICATED
        };
        if !actual.in_group(implied) {
            actual.groups.push(implied.into());
        }
        Ok(actual)
    }
}

fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(names::NODE).filter(|name| rules::dns1123_subdomain(name).is_empty())
}

fn ask(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let decision = authorizer.authorize(attributes);
    if decision.is_allowed() { Ok(()) } else { Err(forbidden(attributes, decision.reason())) }
}

struct Check<'a> {
    mode: Mode,
    verb: String,
    user: &'a UserInfo,
    authorizer: &'a dyn Authorizer,
}

impl Check<'_> {
    /// Names and groups were core resources once; constrained modes ask in the authentication group.
    fn group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { "authentication.k8s.io" }
    }

    fn target<'t>(&self, group: &'t str, resource: &'t str, sub: &'t str, ns: &'t str, name: &'t str) -> Target<'t> {
        Target::Resource(ResourceTarget {
            group,
            version: "v1",
            resource,
            subresource: sub,
            namespace: ns,
            name,
            ..Default::default()
        })
    }

    fn one(&self, group: &str, resource: &str, sub: &str, namespace: &str, name: &str) -> Result<(), Status> {
        let target = self.target(group, resource, sub, namespace, name);
        ask(self.authorizer, &Attributes { user: self.user, verb: &self.verb, target })
    }

    fn refuse(&self, group: &str, resource: &str, name: &str, why: &str) -> Status {
        let target = self.target(group, resource, "", "", name);
        forbidden(&Attributes { user: self.user, verb: &self.verb, target }, why)
    }

    fn name(&self, wanted: &UserInfo, actual: &mut UserInfo) -> Result<(), Status> {
        if self.mode != Mode::Legacy
            && let Some(node) = node_name(&wanted.name)
        {
            actual.groups = vec![groups::NODES.into()];
            // The right to be one's own node must not depend on which node that is.
            let name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            return self.one(self.group(), "nodes", "", "", name);
        }
        if let Some((namespace, name)) = wanted.service_account() {
            if wanted.groups.is_empty() {
                actual.groups = service_account::groups_of(namespace);
            }
            return self.one(self.group(), "serviceaccounts", "", namespace, name);
        }
        self.one(self.group(), "users", "", "", &wanted.name)
    }

    fn groups(&self, wanted: &[String]) -> Result<(), Status> {
        if self.mode != Mode::Legacy {
            if wanted.iter().any(String::is_empty) {
                return Err(self.refuse(
                    self.group(),
                    "groups",
                    "",
                    "impersonating the empty string group is not allowed",
                ));
            }
            if wanted.iter().any(|g| g == groups::MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(self.refuse(self.group(), "groups", groups::MASTERS, why));
            }
            if wanted.len() >= MANY && self.one(self.group(), "groups", "", "", "*").is_ok() {
                return Ok(());
            }
        }
        wanted.iter().try_for_each(|group| self.one(self.group(), "groups", "", "", group))
    }

    fn extra(&self, wanted: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        const GROUP: &str = "authentication.k8s.io";
        if self.mode != Mode::Legacy {
            for (key, values) in wanted {
                if let Some(why) = extra_fault(key, values) {
                    return Err(self.refuse(GROUP, "userextras", "", &why));
                }
            }
            let count: usize = wanted.values().map(Vec::len).sum();
            if count >= MANY && self.one(GROUP, "userextras", "*", "", "*").is_ok() {
                return Ok(());
            }
        }
        for (key, values) in wanted {
            for value in values {
                self.one(GROUP, "userextras", key, "", value)?;
            }
        }
        Ok(())
    }
}

fn extra_fault(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    let (domain, path) = key.split_once('/').unwrap_or((key, ""));
    if path.is_empty() || !rules::dns1123_subdomain(domain).is_empty() {
        let what =
            format!("extra.key: Invalid value: {key:?}: must be a domain-prefixed path (such as \"acme.io/foo\")");
        return Some(format!("impersonating an invalid key in extra is not allowed: {what}"));
    }
    if values.is_empty() {
        return Some("impersonating empty values in extra is not allowed".into());
    }
    values.iter().any(String::is_empty).then(|| "impersonating the empty string value in extra is not allowed".into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::authz::rbac::Rbac;
    use crate::objects::Change;

    fn check(rules: serde_json::Value, headers: &[(&'static str, &str)]) -> Result<Option<UserInfo>, String> {
        let rbac = Rbac::default();
        let role = json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": rules});
        let binding = json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "alice"}]});
        for object in [role, binding] {
            rbac.apply(&Change::Put(std::sync::Arc::new(object)));
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("test"));
        }
        let alice = UserInfo::new("alice", &[]);
        let target = ResourceTarget { version: "v1", resource: "pods", ..Default::default() };
        let request = Attributes { user: &alice, verb: "list", target: Target::Resource(target) };
        let result = impersonate(&mut map, &request, &rbac).map_err(|status| status.message);
        assert!(result.is_err() || map.is_empty(), "the headers are taken away");
        result
    }

    #[test]
    fn the_old_right_impersonates_users_with_their_groups() {
        let rules = json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users", "groups"]}]);
        let user = check(rules, &[("impersonate-user", "bob"), ("impersonate-group", "g")]).expect("allowed");
        assert_eq!(user, Some(UserInfo::new("bob", &["g", "system:authenticated"])));
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let rules = json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]}]);
        let user =
            check(rules, &[("impersonate-user", "system:serviceaccount:a:b")]).expect("allowed").expect("somebody");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    }

    #[test]
    fn a_constrained_right_needs_both_halves_and_never_masters() {
        let on = json!({"verbs": ["impersonate-on:user-info:list"], "apiGroups": [""], "resources": ["pods"]});
        let who =
            json!({"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["*"]});
        assert!(check(json!([on, who]), &[("impersonate-user", "bob")]).expect("allowed").is_some());
        let refused = check(json!([on]), &[("impersonate-user", "bob")]);
        assert_eq!(
            refused,
            Err(r#"users.authentication.k8s.io "bob" is forbidden: User "alice" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope"#.into())
        );
        let masters = check(json!([on, who]), &[("impersonate-user", "bob"), ("impersonate-group", "system:masters")]);
        assert!(masters.expect_err("refused").ends_with("impersonating the system:masters group is not allowed"));
    }

    #[test]
    fn without_any_right_the_first_mode_speaks() {
        assert_eq!(
            check(json!([]), &[("impersonate-user", "bob")]),
            Err(r#"pods is forbidden: User "alice" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope"#.into())
        );
    }

    #[test]
    fn groups_without_a_user_are_a_bad_request() {
        assert_eq!(
            check(json!([]), &[("impersonate-group", "bob")]),
            Err(r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"bob"}, Extra:map[string][]string(nil)} without impersonating a user name"#.into())
        );
        assert_eq!(check(json!([]), &[]), Ok(None));
    }
}
