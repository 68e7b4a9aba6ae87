//! What the audit log is told of which requests.
//!
//! Owns: the rules of `audit.k8s.io/v1` `Policy`; the first that matches decides.
//! Called by: the auditor, once per request.
//! Never: writes anything.

use serde_json::Value;

use crate::authn::UserInfo;
use crate::route::RequestInfo;

/// How much is told, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "None" => Self::None,
            "Metadata" => Self::Metadata,
            "Request" => Self::Request,
            "RequestResponse" => Self::RequestResponse,
            _ => return None,
        })
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// What the matching rule says of a request.
#[derive(Clone, Debug)]
pub struct Rule {
    pub level: Level,
    pub omit_managed_fields: bool,
    omit_stages: Vec<String>,
}

impl Rule {
    pub fn omits(&self, stage: &str) -> bool {
        self.omit_stages.iter().any(|omitted| omitted == stage)
    }
}

pub struct Policy {
    rules: Vec<(Value, Rule)>,
}

const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// An empty list means everything.
fn open(list: &Value, fits: impl Fn(&str) -> bool) -> bool {
    list.as_array().is_none_or(Vec::is_empty) || texts(list).any(fits)
}

impl Policy {
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let tree: Value = serde_yaml::from_str(yaml).map_err(|e| e.to_string())?;
        if tree["kind"] != "Policy" || tree["apiVersion"] != "audit.k8s.io/v1" {
            return Err("it is no Policy of audit.k8s.io/v1".into());
        }
        let rules = tree["rules"].as_array().filter(|rules| !rules.is_empty());
        let rules = rules.ok_or("loaded illegal policy with 0 rules")?;
        let stages = |list: &Value| -> Result<Vec<String>, String> {
            texts(list)
                .map(|stage| match STAGES.contains(&stage) {
                    true => Ok(stage.to_string()),
                    false => Err(format!("unknown stage {stage:?}")),
                })
                .collect()
        };
        let read = |rule: &Value| -> Result<(Value, Rule), String> {
            let level = rule["level"].as_str().unwrap_or("");
            let level = Level::parse(level).ok_or_else(|| format!("unknown level {level:?}"))?;
            let mut omit_stages = stages(&rule["omitStages"])?;
            omit_stages.extend(stages(&tree["omitStages"])?);
            let own = rule["omitManagedFields"].as_bool();
            let omit_managed_fields = own.unwrap_or(tree["omitManagedFields"] == true);
            Ok((rule.clone(), Rule { level, omit_managed_fields, omit_stages }))
        };
        Ok(Self { rules: rules.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// The rule for a request; `None` when nothing is to be told of it.
    pub fn rule(&self, user: &UserInfo, info: &RequestInfo) -> Option<Rule> {
        let (_, rule) = self.rules.iter().find(|(rule, _)| matches(rule, user, info))?;
        (rule.level > Level::None).then(|| rule.clone())
    }
}

fn matches(rule: &Value, user: &UserInfo, info: &RequestInfo) -> bool {
    open(&rule["users"], |name| name == user.name)
        && open(&rule["userGroups"], |group| user.in_group(group))
        && open(&rule["verbs"], |verb| verb == info.verb)
        && target(rule, info)
}

fn target(rule: &Value, info: &RequestInfo) -> bool {
    let has = |field: &str| rule[field].as_array().is_some_and(|list| !list.is_empty());
    if !info.is_resource {
        // A rule about resources is about nothing else.
        let about_paths = |path: &str| match path.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => path == info.path,
        };
        return !has("resources") && !has("namespaces") && open(&rule["nonResourceURLs"], about_paths);
    }
    !has("nonResourceURLs")
        && open(&rule["namespaces"], |namespace| namespace == info.namespace)
        && (!has("resources") || rule["resources"].as_array().into_iter().flatten().any(|group| resource(group, info)))
}

fn resource(group: &Value, info: &RequestInfo) -> bool {
    if group["group"].as_str().unwrap_or("") != info.group {
        return false;
    }
    let full = match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    };
    let names = |name: &str| name == info.name;
    open(&group["resources"], |wanted| {
        let any_resource = wanted.strip_prefix("*/").is_some_and(|sub| sub == info.subresource);
        let any_subresource =
            wanted.strip_suffix("/*").is_some_and(|r| r == info.resource && !info.subresource.is_empty());
        wanted == "*" || wanted == full || any_resource || any_subresource
    }) && open(&group["resourceNames"], names)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [system:kube-proxy], verbs: [watch]}
- {level: Metadata, resources: [{group: '', resources: [secrets, configmaps]}]}
- {level: None, nonResourceURLs: ['/healthz*', /version]}
- {level: Request, resources: [{group: '', resources: ['pods/*']}]}
- {level: RequestResponse, userGroups: [system:masters], omitManagedFields: true}
";

    fn check(user: &str, method: &str, path: &str) -> &'static str {
        let policy = Policy::parse(POLICY).expect("test");
        let method = Method::from_bytes(method.as_bytes()).expect("test");
        let info = RequestInfo::of(&method, path, &Query::parse(""));
        let user = UserInfo::new(user, if user == "admin" { &["system:masters"] } else { &[] });
        policy.rule(&user, &info).map_or("nothing", |rule| rule.level.as_str())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(check("jane", "GET", "/api/v1/namespaces/a/secrets/s"), "Metadata");
        assert_eq!(check("jane", "GET", "/api/v1/namespaces/a/pods/p"), "nothing");
        assert_eq!(check("jane", "PUT", "/api/v1/namespaces/a/pods/p/status"), "Request");
        assert_eq!(check("admin", "GET", "/healthz/ping"), "nothing");
        assert_eq!(check("admin", "GET", "/livez"), "RequestResponse");
        assert_eq!(check("admin", "POST", "/api/v1/namespaces/a/pods"), "RequestResponse");
    }

    #[test]
    fn a_policy_that_says_nothing_is_none() {
        assert!(Policy::parse("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []").is_err());
        assert!(Policy::parse("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Much}]").is_err());
        assert!(Policy::parse("kind: Pod").is_err());
    }
}
