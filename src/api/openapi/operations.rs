//! What a client can do at a path: one operation a verb, with what it takes, gives and may be told.
//!
//! Owns: the parameters, bodies and names of every verb.
//! Called by: `paths`, which puts operations under paths.
//! Never: knows where a resource is.

use super::paths::{Body, Location, article, capitalised, group_id};
use crate::registry::{Resource, Verb};
use crate::schema::{Form, Type};

/// Query parameters as (name, type).
pub(super) type Parameter = (&'static str, &'static str);
pub(super) const DRY_RUN: Parameter = ("dryRun", "string");
pub(super) const PRETTY: Parameter = ("pretty", "string");
pub(super) const WRITE: &[Parameter] = &[DRY_RUN, ("fieldManager", "string"), ("fieldValidation", "string")];
pub(super) const PATCH: &[Parameter] =
    &[DRY_RUN, ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
pub(super) const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
pub(super) const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
pub(super) const DELETE_COLLECTION: &[Parameter] = &[
    ("continue", "string"),
    DRY_RUN,
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
];

/// What every built-in kind is written in.
pub(super) const ENCODINGS: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// One operation of one path.
#[derive(Clone)]
pub(super) struct Operation<'a> {
    /// `get`, `put`, `post`, `patch`, `delete`
    pub(super) method: &'static str,
    /// `x-kubernetes-action`
    pub(super) action: &'static str,
    /// `read`, `list`, ...: how the operation's name starts.
    pub(super) verb: &'static str,
    pub(super) description: String,
    /// What follows the verb in the operation's name.
    pub(super) id: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) takes: Option<&'a str>,
    pub(super) gives: &'a str,
    pub(super) codes: &'static [&'static str],
}

/// What all operations of a path take is said once for the path.
pub(super) fn share_parameters(operations: &mut [Operation]) -> Vec<Parameter> {
    let Some((first, rest)) = operations.split_first() else { return Vec::new() };
    let everywhere = |p: &Parameter| rest.iter().all(|o| o.parameters.contains(p));
    let shared: Vec<Parameter> = first.parameters.iter().filter(|p| everywhere(p)).copied().collect();
    operations.iter_mut().for_each(|o| o.parameters.retain(|p| !shared.contains(p)));
    shared
}

/// The query parameters that a type of options stands for. Upstream leaves out what is a struct in Go.
pub(super) fn options(kind: &str) -> Vec<Parameter> {
    let fields = Type::of_kind("", "v1", kind).map(Type::fields).unwrap_or_default();
    let fields = fields.iter().filter(|f| !matches!(f.name(), "kind" | "apiVersion"));
    fields.filter_map(|f| Some((f.name(), parameter_type(f.form())?))).collect()
}

/// Of a list, that of its elements.
fn parameter_type(form: Form) -> Option<&'static str> {
    match form {
        Form::Bool => Some("boolean"),
        Form::Int32 | Form::Int64 => Some("integer"),
        Form::List(element) => parameter_type(element.form()),
        Form::String => Some("string"),
        _ => None,
    }
}

pub(super) fn collection_operations<'a>(r: &Resource, body: &'a Body, path: &Location) -> Vec<Operation<'a>> {
    let mut all = Vec::new();
    if r.verbs.has(Verb::List) {
        all.push(list_operation(r, body, path.id.clone()));
    }
    if r.verbs.has(Verb::Create) {
        all.push(create(format!("create {} {}", article(&r.kind), r.kind), path.id.clone(), &body.object));
    }
    if r.verbs.has(Verb::DeleteCollection) {
        all.push(Operation {
            method: "delete",
            action: "deletecollection",
            verb: "delete",
            description: format!("delete collection of {}", r.kind),
            id: path.id_collection.clone(),
            parameters: if body.is_custom { LIST.to_vec() } else { DELETE_COLLECTION.to_vec() },
            takes: Some("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions").filter(|_| !body.is_custom),
            gives: "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
            codes: &["200"],
        });
    }
    all
}

pub(super) fn object_operations<'a>(r: &Resource, body: &'a Body, path: &Location) -> Vec<Operation<'a>> {
    let mut all = Vec::new();
    let the = |verb: &str| format!("{verb} the specified {}", r.kind);
    if r.verbs.has(Verb::Get) {
        all.push(read(the("read"), path.id.clone(), &body.object));
    }
    if r.verbs.has(Verb::Update) {
        all.push(replace(the("replace"), path.id.clone(), &body.object));
    }
    if r.verbs.has(Verb::Delete) {
        all.push(Operation {
            method: "delete",
            action: "delete",
            verb: "delete",
            description: format!("delete {} {}", article(&r.kind), r.kind),
            id: path.id.clone(),
            parameters: DELETE.to_vec(),
            takes: Some("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            gives: if r.returns_deleted { &body.object } else { "io.k8s.apimachinery.pkg.apis.meta.v1.Status" },
            codes: &["200", "202"],
        });
    }
    if r.verbs.has(Verb::Patch) {
        all.push(patch(the("partially update"), path.id.clone(), &body.object));
    }
    all
}

pub(super) fn list_operation<'a>(r: &Resource, body: &'a Body, id: String) -> Operation<'a> {
    Operation {
        method: "get",
        action: "list",
        verb: "list",
        description: format!("list or watch objects of kind {}", r.kind),
        id,
        parameters: LIST.to_vec(),
        takes: None,
        gives: &body.list,
        codes: &["200"],
    }
}

pub(super) fn read(description: String, id: String, object: &str) -> Operation<'_> {
    let (parameters, takes) = (Vec::new(), None);
    Operation {
        method: "get",
        action: "get",
        verb: "read",
        description,
        id,
        parameters,
        takes,
        gives: object,
        codes: &["200"],
    }
}

pub(super) fn replace(description: String, id: String, object: &str) -> Operation<'_> {
    let codes = &["200", "201"];
    let takes = Some(object);
    Operation {
        method: "put",
        action: "put",
        verb: "replace",
        description,
        id,
        parameters: WRITE.to_vec(),
        takes,
        gives: object,
        codes,
    }
}

pub(super) fn create(description: String, id: String, object: &str) -> Operation<'_> {
    let codes = &["200", "201", "202"];
    let takes = Some(object);
    Operation {
        method: "post",
        action: "post",
        verb: "create",
        description,
        id,
        parameters: WRITE.to_vec(),
        takes,
        gives: object,
        codes,
    }
}

pub(super) fn patch(description: String, id: String, object: &str) -> Operation<'_> {
    let takes = Some("io.k8s.apimachinery.pkg.apis.meta.v1.Patch");
    let codes = &["200", "201"];
    Operation {
        method: "patch",
        action: "patch",
        verb: "patch",
        description,
        id,
        parameters: PATCH.to_vec(),
        takes,
        gives: object,
        codes,
    }
}

/// `method` is that of HTTP: a proxy passes on what RBAC has no verb of its own for.
pub(super) fn connect_operation(
    r: &Resource,
    method: &'static str,
    kind: &str,
    noun: &str,
    suffix: &str,
) -> Operation<'static> {
    let word = capitalised(method);
    let place = if r.is_namespaced() { "Namespaced" } else { "" };
    let id = format!("{}{}{word}{place}{}{suffix}", group_id(&r.group), capitalised(&r.version), r.kind);
    let description = format!("connect {} requests to {noun} ({kind})", method.to_uppercase());
    Operation {
        method,
        action: "connect",
        verb: "connect",
        description,
        id,
        parameters: options(kind),
        takes: None,
        gives: "",
        codes: &["200"],
    }
}

/// In upstream's order.
pub(super) fn request_types(o: &Operation, body: &Body) -> Vec<&'static str> {
    match (o.action, body.is_custom) {
        ("patch", false) => vec![
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ],
        ("patch", true) => {
            vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"]
        }
        (_, false) => vec!["*/*"],
        (_, true) => vec!["application/json", "application/yaml"],
    }
}

/// In upstream's order.
pub(super) fn answer_types(o: &Operation, body: &Body) -> Vec<&'static str> {
    match (o.action, body.is_custom) {
        ("connect", _) => vec!["*/*"],
        ("get", false) if o.gives.is_empty() => [&["text/plain"], ENCODINGS.as_slice()].concat(),
        ("list", false) => {
            let streams = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
            [ENCODINGS.as_slice(), &streams].concat()
        }
        (_, false) => ENCODINGS.to_vec(),
        (_, true) => vec!["application/json", "application/yaml"],
    }
}
