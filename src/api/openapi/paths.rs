//! The paths of resources: which verb answers where, and what it takes and gives.
//!
//! Owns: paths, operation names and query parameters, for built-in and custom resources alike.
//! Called by: `openapi`; the API server for custom resources.
//! Never: writes schemas; it names them.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::operations::{
    ENCODINGS, Operation, PRETTY, answer_types, collection_operations, connect_operation, create, list_operation,
    object_operations, options, patch, read, replace, request_types, share_parameters,
};
use super::schemas::push;
use super::{Dialect, Schemas, path_of, quoted};
use crate::registry::{GroupVersionKind, Resource, Scope, Subresource, Verb};
use crate::schema::Type;

/// The OpenAPI names of what a resource's verbs take and give.
pub struct Body {
    pub object: String,
    pub list: String,
    /// Custom resources know no strategic merge patch and no protobuf.
    pub is_custom: bool,
}

impl Body {
    pub fn of(resource: &Resource) -> Body {
        let name = |kind: &str| Type::of_kind(&resource.group, &resource.version, kind).map(Type::openapi_name);
        Body {
            object: name(&resource.kind).unwrap_or_default(),
            list: name(&resource.list_kind).unwrap_or_default(),
            is_custom: false,
        }
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Collects paths; [`Paths::finish`] gives the inside of `paths`.
pub struct Paths {
    dialect: Dialect,
    written: Vec<(String, String)>,
}

impl Paths {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, written: Vec::new() }
    }

    pub fn finish(mut self) -> String {
        self.written.sort();
        let mut out = String::new();
        for (index, (path, item)) in self.written.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}\"{path}\":{{{item}}}").expect("writing to a String cannot fail");
        }
        out
    }

    /// The paths of a resource and its subresources.
    pub fn resource(&mut self, resource: &Resource, body: &Body, schemas: &mut Schemas) {
        let path = Location::of(resource);
        let all: Vec<Operation> = collection_operations(resource, body, &path);
        self.item(&path.collection, resource, body, resource.kind(), &path.parameters[1..], all, schemas);
        if resource.scope == Scope::Namespaced && resource.verbs.has(Verb::List) {
            let list = vec![list_operation(resource, body, format!("{}ForAllNamespaces", path.id_plain))];
            let across = format!("/{}/{}", path_of(&resource.group, &resource.version), resource.plural);
            self.item(&across, resource, body, resource.kind(), &[], list, schemas);
        }
        let named = object_operations(resource, body, &path);
        self.item(&path.object, resource, body, resource.kind(), &path.parameters, named, schemas);
        if resource.verbs.has(Verb::Watch) && !body.is_custom {
            schemas.want("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent");
        }
        for sub in &resource.subresources {
            self.subresource(resource, sub, body, &path, schemas);
        }
    }

    fn subresource(&mut self, r: &Resource, sub: &Subresource, body: &Body, path: &Location, schemas: &mut Schemas) {
        let is_connect = matches!(sub.name.as_ref(), "attach" | "exec" | "portforward" | "proxy");
        if is_connect {
            return self.connect(r, sub, body, path, schemas);
        }
        let own = body.object.clone();
        let target = if sub.kind.kind == r.kind {
            own
        } else {
            Type::of_kind(&sub.kind.group, &sub.kind.version, &sub.kind.kind).map(Type::openapi_name).unwrap_or(own)
        };
        let (noun, id) = (sub.name.as_ref(), format!("{}{}", path.id, capitalised(&sub.name)));
        let of = |verb: &str| format!("{verb} {noun} of the specified {}", r.kind);
        let mut operations = Vec::new();
        for verb in sub.verbs.iter() {
            let id = id.clone();
            operations.push(match verb {
                Verb::Get if noun == "log" => {
                    Operation { parameters: options("PodLogOptions"), ..read(of("read"), id, "") }
                }
                Verb::Get => read(of("read"), id, &target),
                Verb::Update => replace(of("replace"), id, &target),
                Verb::Patch => patch(of("partially update"), id, &target),
                Verb::Create => create(format!("create {noun} of a {}", sub.kind.kind), id, &target),
                _ => continue,
            });
        }
        let object = format!("{}/{}", path.object, sub.name);
        // Upstream names the kind of a custom resource even where its scale is meant.
        let kind = if body.is_custom { r.kind() } else { sub.kind.clone() };
        self.item(&object, r, body, kind, &path.parameters, operations, schemas);
    }

    fn connect(&mut self, r: &Resource, sub: &Subresource, body: &Body, path: &Location, schemas: &mut Schemas) {
        let is_proxy = sub.name == "proxy";
        let methods: &[&str] =
            if is_proxy { &["delete", "get", "head", "options", "patch", "post", "put"] } else { &["get", "post"] };
        let suffix = capitalised(&sub.name);
        let kind = &sub.kind;
        let all = methods.iter().map(|m| connect_operation(r, m, &kind.kind, &sub.name, &suffix)).collect();
        let at = format!("{}/{}", path.object, sub.name);
        self.item(&at, r, body, kind.clone(), &path.parameters, all, schemas);
        if is_proxy {
            let below = methods.iter().map(|m| connect_operation(r, m, &kind.kind, "proxy", "ProxyWithPath"));
            let in_path: Vec<&str> = path.parameters.iter().copied().chain(["path"]).collect();
            self.item(&format!("{at}/{{path}}"), r, body, kind.clone(), &in_path, below.collect(), schemas);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a path item has that many parts, and one caller a kind of path")]
    fn item(
        &mut self,
        path: &str,
        resource: &Resource,
        body: &Body,
        kind: GroupVersionKind,
        in_path: &[&str],
        mut operations: Vec<Operation>,
        schemas: &mut Schemas,
    ) {
        let mut out = String::new();
        let tag = tag(&resource.group, &resource.version);
        if body.is_custom {
            let reads = operations.iter_mut().filter(|o| o.verb == "read");
            reads.for_each(|o| o.parameters.push(("resourceVersion", "string")));
        }
        let shared = share_parameters(&mut operations);
        for operation in &operations {
            for name in [operation.takes.unwrap_or(""), operation.gives].into_iter().filter(|n| !n.is_empty()) {
                if !body.is_custom || name.starts_with("io.k8s.") {
                    schemas.want(name);
                }
            }
            push(&mut out, &self.operation(operation, &tag, &kind, body));
        }
        if operations.is_empty() {
            return;
        }
        // What is passed on is not printed by the server.
        let pretty = Some(PRETTY).filter(|_| operations[0].action != "connect");
        let common = in_path.iter().map(|name| (*name, "string", "path")).chain(pretty.map(|p| (p.0, p.1, "query")));
        let mut common: Vec<(&str, &str, &str)> = common.chain(shared.iter().map(|p| (p.0, p.1, "query"))).collect();
        common.sort();
        let common: Vec<String> = common.iter().map(|p| self.parameter(p.0, p.1, p.2)).collect();
        push(&mut out, &format!("\"parameters\":[{}]", common.join(",")));
        self.written.push((path.into(), out));
    }

    fn operation(&self, o: &Operation, tag: &str, kind: &GroupVersionKind, body: &Body) -> String {
        let mut out = format!(
            r#""{}":{{"tags":["{tag}"],"description":{},"operationId":"{}{}""#,
            o.method,
            quoted(&o.description),
            o.verb,
            o.id
        );
        let mut parameters: Vec<String> = o.parameters.iter().map(|(n, t)| self.parameter(n, t, "query")).collect();
        let takes = o.takes.map(|name| self.reference(name));
        match (self.dialect, takes) {
            (Dialect::V3, Some(takes)) => {
                let required = if o.action.starts_with("delete") { "" } else { r#","required":true"# };
                let types = content(&request_types(o, body), &takes);
                out.push_str(&format!(r#","requestBody":{{"content":{types}{required}}}"#));
            }
            (Dialect::V2, Some(takes)) => {
                let required = if o.action.starts_with("delete") { "" } else { r#","required":true"# };
                parameters.insert(0, format!(r#"{{"name":"body","in":"body"{required},"schema":{takes}}}"#));
            }
            (_, None) => {}
        }
        if self.dialect == Dialect::V2 {
            out.push_str(&media(&request_types(o, body), &answer_types(o, body)));
        }
        if !parameters.is_empty() {
            out.push_str(&format!(r#","parameters":[{}]"#, parameters.join(",")));
        }
        out.push_str(&format!(r#","responses":{{{}}}"#, self.responses(o, body)));
        out.push_str(&format!(
            r#","x-kubernetes-action":"{}","x-kubernetes-group-version-kind":{{"group":"{}","version":"{}","kind":"{}"}}}}"#,
            o.action, kind.group, kind.version, kind.kind
        ));
        out
    }

    fn responses(&self, o: &Operation, body: &Body) -> String {
        // A custom resource is not created by a patch in upstream's documents, though apply does it.
        let codes = if body.is_custom && o.action == "patch" { &o.codes[..1] } else { o.codes };
        let mut answers: Vec<String> = Vec::new();
        let schema = if o.gives.is_empty() { r#"{"type":"string"}"#.to_string() } else { self.reference(o.gives) };
        for code in codes {
            let word = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            answers.push(match self.dialect {
                Dialect::V2 => format!(r#""{code}":{{"description":"{word}","schema":{schema}}}"#),
                Dialect::V3 => {
                    let content = content(&answer_types(o, body), &schema);
                    format!(r#""{code}":{{"description":"{word}","content":{content}}}"#)
                }
            });
        }
        answers.push(r#""401":{"description":"Unauthorized"}"#.into());
        answers.join(",")
    }

    fn reference(&self, name: &str) -> String {
        format!(r#"{{"$ref":"{}{name}"}}"#, self.dialect.reference())
    }

    fn parameter(&self, name: &str, kind: &str, place: &str) -> String {
        let required = if place == "path" { r#","required":true"# } else { "" };
        match self.dialect {
            Dialect::V2 => {
                format!(r#"{{"name":"{name}","in":"{place}"{required},"type":"{kind}","uniqueItems":true}}"#)
            }
            Dialect::V3 => format!(
                r#"{{"name":"{name}","in":"{place}"{required},"schema":{{"type":"{kind}","uniqueItems":true}}}}"#
            ),
        }
    }

    /// A path that answers with what the server has.
    pub fn discovery(&mut self, schemas: &mut Schemas, path: &str, group: &str, kind: &str) {
        let words: Vec<&str> = path.split('/').filter(|w| !w.is_empty()).skip(1).collect();
        let (verb, description, tag) = match kind {
            "APIResourceList" => ("APIResources", "get available resources", tag(group, words.last().unwrap_or(&""))),
            "APIGroup" => ("APIGroup", "get information of a group", camel(group)),
            _ => ("APIVersions", "get available API versions", group.into()),
        };
        let version = if kind == "APIResourceList" { words.last().copied().unwrap_or("") } else { "" };
        let group = if group == "apis" { String::new() } else { group_id(group) };
        let id = format!("get{group}{}{verb}", capitalised(version));
        let name = format!("{META}{kind}");
        schemas.want(&name);
        let document =
            Document { tag: &tag, description, id: &id, takes: &ENCODINGS, gives: &ENCODINGS, name: Some(&name) };
        self.document(path, &document);
    }

    /// `/version/`
    pub fn version(&mut self, schemas: &mut Schemas) {
        let name = "io.k8s.apimachinery.pkg.version.Info";
        schemas.want(name);
        self.document(
            "/version/",
            &Document {
                tag: "version",
                description: "get the version information for this server",
                id: "getCodeVersion",
                takes: &["application/json"],
                gives: &["application/json"],
                name: Some(name),
            },
        );
    }

    /// Where others learn who signs the tokens of service accounts.
    pub fn issuer(&mut self) {
        self.document(
            "/.well-known/openid-configuration/",
            &Document {
                tag: "WellKnown",
                description: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
                id: "getServiceAccountIssuerOpenIDConfiguration",
                takes: &[],
                gives: &["application/json"],
                name: None,
            },
        );
    }

    /// The keys of those tokens.
    pub fn issuer_keys(&mut self) {
        self.document("/openid/v1/jwks/", &Document {
            tag: "openid",
            description: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            id: "getServiceAccountIssuerOpenIDKeyset",
            takes: &[],
            gives: &["application/jwk-set+json"],
            name: None,
        });
    }

    fn document(&mut self, path: &str, document: &Document<'_>) {
        let Document { tag, description, id, takes, gives, name } = *document;
        let schema = name.map_or_else(|| r#"{"type":"string"}"#.into(), |name| self.reference(name));
        let (media, answer) = match self.dialect {
            Dialect::V2 => (media(takes, gives), format!(r#""schema":{schema}"#)),
            Dialect::V3 => (String::new(), format!(r#""content":{}"#, content(gives, &schema))),
        };
        let item = format!(
            r#""get":{{"tags":["{tag}"],"description":"{description}","operationId":"{id}"{media},"responses":{{"200":{{"description":"OK",{answer}}},"401":{{"description":"Unauthorized"}}}}}}"#
        );
        self.written.push((path.into(), item));
    }
}

/// A path that only answers: what it is called, in which media types, and the name of what it gives if that has one.
struct Document<'a> {
    tag: &'a str,
    description: &'a str,
    id: &'a str,
    takes: &'a [&'a str],
    gives: &'a [&'a str],
    name: Option<&'a str>,
}

/// Where a resource is, and how its operations are called.
pub(super) struct Location {
    pub(super) collection: String,
    pub(super) object: String,
    /// The names in braces of `object`.
    pub(super) parameters: Vec<&'static str>,
    /// `AppsV1NamespacedDeployment`
    pub(super) id: String,
    /// `AppsV1CollectionNamespacedDeployment`
    pub(super) id_collection: String,
    /// `AppsV1Deployment`
    pub(super) id_plain: String,
}

impl Location {
    fn of(r: &Resource) -> Location {
        let root = format!("/{}", path_of(&r.group, &r.version));
        let group = format!("{}{}", group_id(&r.group), capitalised(&r.version));
        let (place, word, parameters) = match r.scope {
            Scope::Namespaced => ("/namespaces/{namespace}", "Namespaced", vec!["name", "namespace"]),
            Scope::Cluster => ("", "", vec!["name"]),
        };
        let collection = format!("{root}{place}/{}", r.plural);
        Location {
            object: format!("{collection}/{{name}}"),
            collection,
            parameters,
            id: format!("{group}{word}{}", r.kind),
            id_collection: format!("{group}Collection{word}{}", r.kind),
            id_plain: format!("{group}{}", r.kind),
        }
    }
}

/// What an operation of v2 takes and gives.
fn media(takes: &[&str], gives: &[&str]) -> String {
    let takes = if takes.is_empty() { String::new() } else { format!(r#","consumes":[{}]"#, quoted_list(takes)) };
    format!(r#"{takes},"produces":[{}],"schemes":["https"]"#, quoted_list(gives))
}

fn content(types: &[&str], schema: &str) -> String {
    let types: BTreeSet<&&str> = types.iter().collect();
    let entries: Vec<String> = types.iter().map(|t| format!(r#""{t}":{{"schema":{schema}}}"#)).collect();
    format!("{{{}}}", entries.join(","))
}

fn quoted_list(words: &[&str]) -> String {
    words.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(",")
}

/// The group as operations are called by it: `Core`, `Apps`, `RbacAuthorization`.
pub(super) fn group_id(group: &str) -> String {
    stem(group).split('.').map(capitalised).collect()
}

/// The group without what Kubernetes' own groups end with.
fn stem(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", camel(group))
}

/// `rbacAuthorization`
fn camel(group: &str) -> String {
    let words = stem(group).split('.').enumerate();
    words.map(|(i, w)| if i == 0 { w.into() } else { capitalised(w) }).collect()
}

pub(super) fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

pub(super) fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}
