//! Expressions about a write: what they may name, and what they must come to.
//!
//! Owns: the types of those names, and upstream's words for an expression of the wrong type.
//! Called by: the API server's admission, and the type check of policies.
//! Never: evaluates.

use std::sync::{LazyLock, OnceLock};

use crate::types::{AUTHORIZER, RESOURCE_CHECK};
use crate::{Environment, Program, Type};

/// Whether an expression may use `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Params {
    None,
    Known,
}

/// A compiled expression, or upstream's message about why it is none.
pub type Compiled = Result<Program, String>;

/// `request`.
pub static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let text = || Type::String;
    let kind = Type::object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource =
        Type::object("kubernetes.GroupVersionResource", [("group", text()), ("version", text()), ("resource", text())]);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", Type::list(text())),
            ("extra", Type::map(text(), Type::list(text()))),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
});

/// `namespaceObject`.
pub static NAMESPACE: LazyLock<Type> = LazyLock::new(|| {
    let text = || Type::String;
    let texts = || Type::map(text(), text());
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", text()),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", text()),
            ("finalizers", Type::list(text())),
        ],
    );
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", Type::list(text()))]);
    let status = Type::object("kubernetes.NamespaceStatus", [("phase", text())]);
    Type::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
});

/// The names of an expression about a write.
pub fn environment(params: Params) -> Environment {
    static NAMES: OnceLock<Environment> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        Environment::default()
            .with("object", Type::Dyn)
            .with("oldObject", Type::Dyn)
            .with("request", REQUEST.clone())
            .with("namespaceObject", NAMESPACE.clone())
            .with("authorizer", Type::Opaque(AUTHORIZER))
            .with("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK))
    });
    match params {
        Params::None => names.clone(),
        Params::Known => names.clone().with("params", Type::Dyn),
    }
}

/// Compiles `text`, which must come to one of `results`.
pub fn compile(environment: &Environment, text: &str, results: &[Type]) -> Compiled {
    let program =
        Program::compile(environment, text.trim()).map_err(|faults| format!("compilation failed: {faults}"))?;
    let found = program.result();
    // What is only known at run time is judged then.
    if found.is_dyn() || results.contains(&Type::Dyn) || results.contains(found) {
        return Ok(program);
    }
    Err(match results {
        [one] => format!("must evaluate to {}", one.runtime_name()),
        many => {
            let names: Vec<&str> = many.iter().map(Type::runtime_name).collect();
            format!("must evaluate to one of [{}]", names.join(" "))
        }
    })
}
