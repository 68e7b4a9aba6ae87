//! Which FlowSchema a request belongs to.
//!
//! Owns: schemas in the order they are tried, their rules, and the flow a request is part of.
//! Called by: `Fairness`, for each request.
//! Never: waits or counts.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::HeaderValue;
use serde_json::Value;

use crate::authn::{UserInfo, names};
use crate::route::RequestInfo;

/// All schemas and levels at one moment.
pub struct Table {
    /// In the order they are tried; the last one takes whatever is left.
    schemas: Vec<Arc<Schema>>,
    pub levels: Vec<Level>,
    uids: Vec<HeaderValue>,
}

pub struct Level {
    pub name: Arc<str>,
    pub limits: Limits,
}

/// What a level may have at once, and what happens beyond.
#[derive(Clone, Debug, PartialEq)]
pub enum Limits {
    Exempt,
    Limited { shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>, queuing: Option<Queuing> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: u32,
    pub hand: u32,
    pub length_max: u32,
}

pub struct Schema {
    pub uid: HeaderValue,
    name: String,
    precedence: i64,
    /// Place of its level in the table; `None` when there is no such level.
    level: Option<usize>,
    by: Distinguisher,
    rules: Vec<Rule>,
}

/// What makes two requests of a schema part of one flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(String),
    Group(String),
    /// Namespace and name; `*` is any name.
    ServiceAccount(String, String),
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn header(uid: &Value) -> HeaderValue {
    HeaderValue::from_str(uid.as_str().unwrap_or("")).unwrap_or(HeaderValue::from_static(""))
}

fn number(value: &Value, otherwise: u32) -> u32 {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(otherwise)
}

fn limits(spec: &Value) -> Limits {
    let limited = &spec["limited"];
    if spec["type"] == "Exempt" || !limited.is_object() {
        return Limits::Exempt;
    }
    let response = &limited["limitResponse"];
    let queuing = (response["type"] == "Queue").then(|| Queuing {
        queues: number(&response["queuing"]["queues"], 64).max(1),
        hand: number(&response["queuing"]["handSize"], 8).max(1),
        length_max: number(&response["queuing"]["queueLengthLimit"], 50),
    });
    Limits::Limited {
        shares: number(&limited["nominalConcurrencyShares"], 30),
        lendable_percent: number(&limited["lendablePercent"], 0).min(100),
        borrowing_percent: limited["borrowingLimitPercent"].as_u64().and_then(|n| u32::try_from(n).ok()),
        queuing,
    }
}

impl Table {
    pub fn of(schemas: impl IntoIterator<Item = Value>, levels: impl IntoIterator<Item = Value>) -> Self {
        // By name, so that the same objects always make the same table.
        let sorted: BTreeMap<String, Value> =
            levels.into_iter().map(|l| (l["metadata"]["name"].as_str().unwrap_or("").to_string(), l)).collect();
        let mut found = Vec::new();
        let mut uids = Vec::new();
        for (name, level) in &sorted {
            uids.push(header(&level["metadata"]["uid"]));
            found.push(Level { name: name.as_str().into(), limits: limits(&level["spec"]) });
        }
        let place = |name: &str| found.iter().position(|level: &Level| &*level.name == name);
        let mut schemas: Vec<Arc<Schema>> = schemas.into_iter().map(|s| Arc::new(Schema::of(&s, place))).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Self { schemas, levels: found, uids }
    }

    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> &Arc<Schema> {
        let fits = |schema: &&Arc<Schema>| schema.level.is_some() && schema.matches(user, info);
        let last = || self.schemas.iter().find(|s| s.name == "catch-all").or(self.schemas.last());
        self.schemas.iter().find(fits).or_else(last).expect("the mandatory schemas are always there")
    }

    pub fn level_of(&self, schema: &Schema) -> Option<usize> {
        schema.level
    }

    pub fn uid_of(&self, schema: &Schema) -> HeaderValue {
        schema.level.and_then(|level| self.uids.get(level)).cloned().unwrap_or(HeaderValue::from_static(""))
    }
}

impl Schema {
    fn of(object: &Value, place: impl Fn(&str) -> Option<usize>) -> Self {
        let spec = &object["spec"];
        Self {
            uid: header(&object["metadata"]["uid"]),
            name: object["metadata"]["name"].as_str().unwrap_or("").into(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            level: place(spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or("")),
            by: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec["rules"].as_array().into_iter().flatten().map(Rule::of).collect(),
        }
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// Requests with the same number share their queues.
    pub fn flow(&self, user: &UserInfo, info: &RequestInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.by {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => info.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let subject = |subject: &Value| match subject["kind"].as_str()? {
            "User" => Some(Subject::User(text(&subject["user"]["name"]))),
            "Group" => Some(Subject::Group(text(&subject["group"]["name"]))),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                Some(Subject::ServiceAccount(text(&account["namespace"]), text(&account["name"])))
            }
            _ => None,
        };
        let list = |field: &str| rule[field].as_array().into_iter().flatten();
        Self {
            subjects: list("subjects").filter_map(subject).collect(),
            resources: list("resourceRules")
                .map(|r| ResourceRule {
                    verbs: texts(&r["verbs"]),
                    groups: texts(&r["apiGroups"]),
                    resources: texts(&r["resources"]),
                    namespaces: texts(&r["namespaces"]),
                    cluster: r["clusterScope"] == true,
                })
                .collect(),
            paths: list("nonResourceRules")
                .map(|r| PathRule { verbs: texts(&r["verbs"]), paths: texts(&r["nonResourceURLs"]) })
                .collect(),
        }
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(user)) {
            return false;
        }
        if info.is_resource {
            self.resources.iter().any(|rule| rule.matches(info))
        } else {
            self.paths.iter().any(|rule| rule.matches(info))
        }
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.in_group(name),
            Self::ServiceAccount(namespace, name) => {
                let full = user.name.strip_prefix(names::SERVICE_ACCOUNT).and_then(|full| full.split_once(':'));
                full.is_some_and(|(of, account)| of == namespace && (name == "*" || account == name))
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = || {
            if info.subresource.is_empty() {
                return has(&self.resources, &info.resource);
            }
            has(&self.resources, &format!("{}/{}", info.resource, info.subresource))
        };
        let place = if info.namespace.is_empty() { self.cluster } else { has(&self.namespaces, &info.namespace) };
        place && has(&self.verbs, &info.verb) && has(&self.groups, &info.group) && resource()
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let is = |path: &String| match path.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => *path == info.path,
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::defaults;
    use super::*;
    use crate::query::Query;

    fn check(user: &str, groups: &[&str], method: &str, path: &str) -> String {
        let table = Table::of(defaults::schemas(), defaults::levels());
        let method = Method::from_bytes(method.as_bytes()).expect("test");
        let info = RequestInfo::of(&method, path, &Query::parse(""));
        let schema = table.classify(&UserInfo::new(user, groups), &info);
        let level = table.level_of(schema).map_or("-", |level| &table.levels[level].name);
        format!("{} -> {level}", schema.name)
    }

    #[test]
    fn requests_belong_where_upstreams_defaults_put_them() {
        let authenticated = "system:authenticated";
        let pods = "/api/v1/namespaces/a/pods";
        assert_eq!(check("admin", &["system:masters", authenticated], "GET", pods), "exempt -> exempt");
        assert_eq!(check("system:anonymous", &["system:unauthenticated"], "GET", "/livez"), "probes -> exempt");
        assert_eq!(check("jane", &[authenticated], "GET", pods), "global-default -> global-default");
        let node = ["system:nodes", authenticated];
        assert_eq!(check("system:node:n", &node, "PATCH", "/api/v1/nodes/n/status"), "system-node-high -> node-high");
        assert_eq!(check("system:node:n", &node, "GET", pods), "system-nodes -> system");
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
        let manager = "system:kube-controller-manager";
        assert_eq!(check(manager, &[authenticated], "PUT", lease), "system-leader-election -> leader-election");
        assert_eq!(check(manager, &[authenticated], "GET", pods), "kube-controller-manager -> workload-high");
        let account = ["system:serviceaccounts", authenticated];
        let kube_system = "system:serviceaccount:kube-system:x";
        assert_eq!(check(kube_system, &account, "GET", pods), "kube-system-service-accounts -> workload-high");
        assert_eq!(check("system:serviceaccount:a:x", &account, "GET", pods), "service-accounts -> workload-low");
    }
}
