//! The OpenAPI documents of the built-in API: v3 for each group and version, v2 for all of it.
//!
//! Owns: how the schema's facts, the registry's paths and the descriptions become a document. It is written as text,
//! on demand and in one go: the largest is 1.5 MB, and nothing of it is kept.
//! Called by: the API server for `/openapi/v3` and `/openapi/v2`.
//! Never: knows custom resources; whoever holds their definitions hands them in.

mod custom;
mod operations;
mod paths;
mod protobuf;
mod schemas;
#[cfg(test)]
mod tests;
mod v2;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::OnceLock;

pub use custom::{CustomKind, add_custom, custom_document, custom_hash};
pub use paths::{Body, Paths};
pub use protobuf::{protobuf_v2, protobuf_v3};
pub use schemas::Schemas;
pub use v2::document_v2;

use crate::registry;

/// The `info` of every document.
const INFO: &str = r#"{"title":"Kubernetes","version":"1.37"}"#;
const SECURITY: &str = r#"{"BearerToken":{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}}"#;

/// Which of the two OpenAPI versions a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }
}

/// What types and fields mean, in words. Held only while a document is written: unpacked it is 700 kB.
#[derive(Default)]
pub struct Descriptions {
    text: String,
    /// `io.k8s.api.core.v1.Pod` or `io.k8s.api.core.v1.Pod spec`, sorted: where it is in the text, and its words.
    entries: Vec<(u32, u32, u32, u32)>,
}

impl Descriptions {
    /// No words at all: the document is complete but for descriptions.
    pub fn none() -> Self {
        Self::default()
    }

    /// From what `minik-descriptions` packs at build time: deflated lines of `name TAB description`, the description
    /// escaped as in a JSON string, sorted by name.
    pub fn unpack(packed: &[u8]) -> std::io::Result<Self> {
        let mut text = String::new();
        flate2::read::DeflateDecoder::new(packed).read_to_string(&mut text)?;
        let mut entries = Vec::new();
        let mut start = 0u32;
        for line in text.split_inclusive('\n') {
            let end = start + line.len() as u32;
            if let Some(tab) = line.find('\t') {
                let tab = start + tab as u32;
                entries.push((start, tab, tab + 1, end - 1));
            }
            start = end;
        }
        Ok(Self { text, entries })
    }

    fn find(&self, name: &str) -> Option<&str> {
        let slice = |from: u32, to: u32| &self.text[from as usize..to as usize];
        let at = self.entries.binary_search_by(|e| slice(e.0, e.1).cmp(name)).ok()?;
        Some(slice(self.entries[at].2, self.entries[at].3))
    }

    /// Escaped as the inside of a JSON string.
    pub fn of_type(&self, openapi_name: &str) -> Option<&str> {
        self.find(openapi_name)
    }
    pub fn of_field(&self, openapi_name: &str, field: &str) -> Option<&str> {
        self.find(&format!("{openapi_name} {field}"))
    }
}

/// The path of a group version below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of a built-in group version, or of a group (`apis/apps`), `api`, `apis` and the rest.
pub fn document(path: &str, descriptions: &Descriptions) -> Option<String> {
    if !paths_served().iter().any(|p| p == path) {
        return None;
    }
    let mut schemas = Schemas::new(Dialect::V3, descriptions);
    let mut paths = Paths::new(Dialect::V3);
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["api", version] => group_version("", version, &mut paths, &mut schemas),
        ["apis", group, version] => group_version(group, version, &mut paths, &mut schemas),
        ["apis", group] => paths.discovery(&mut schemas, &format!("/{path}/"), group, "APIGroup"),
        ["api"] => paths.discovery(&mut schemas, "/api/", "core", "APIVersions"),
        ["apis"] => paths.discovery(&mut schemas, "/apis/", "apis", "APIGroupList"),
        [".well-known", ..] => paths.issuer(),
        ["openid", ..] => paths.issuer_keys(),
        _ => paths.version(&mut schemas),
    }
    Some(whole_document(INFO, paths, schemas))
}

fn whole_document(info: &str, paths: Paths, schemas: Schemas) -> String {
    let mut out = format!(r#"{{"openapi":"3.0.0","info":{info},"paths":{{"#);
    out.push_str(&paths.finish());
    out.push_str(r#"},"components":{"#);
    let schemas = schemas.finish();
    if !schemas.is_empty() {
        out.push_str(&format!(r#""schemas":{{{schemas}}},"#));
    }
    out.push_str(r#""securitySchemes":"#);
    out.push_str(SECURITY);
    out.push_str("}}");
    out
}

fn group_version(group: &str, version: &str, paths: &mut Paths, schemas: &mut Schemas) {
    schemas.serve(group, version);
    paths.discovery(schemas, &format!("/{}/", path_of(group, version)), group, "APIResourceList");
    for resource in registry::of_version(group, version) {
        paths.resource(resource, &Body::of(resource), schemas);
    }
}

/// Every path below `/openapi/v3/` that the built-in API has, in order.
pub fn paths_served() -> &'static [String] {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let others = ["api", "apis", "version", ".well-known/openid-configuration", "openid/v1/jwks"];
        let mut paths: Vec<String> = others.map(String::from).into();
        for group in registry::groups() {
            if !group.name.is_empty() {
                paths.push(format!("apis/{}", group.name));
            }
            paths.extend(group.versions.iter().map(|v| path_of(group.name, v)));
        }
        paths.sort();
        paths
    })
}

/// The index at `/openapi/v3`, with further paths and where their documents are (custom resources, aggregated APIs).
pub fn index(further: &[(String, String)]) -> String {
    let hash = built_in_hash();
    let url = |path: &String| (path.clone(), format!("/openapi/v3/{path}?hash={hash}"));
    let mut entries: BTreeMap<String, String> = paths_served().iter().map(url).collect();
    entries.extend(further.iter().cloned());
    let line = |(path, url): (&String, &String)| format!(r#"{}:{{"serverRelativeURL":{}}}"#, quoted(path), quoted(url));
    let lines: Vec<String> = entries.iter().map(line).collect();
    format!(r#"{{"paths":{{{}}}}}"#, lines.join(","))
}

/// Clients keep a document until its hash changes, and the built-in ones change with the program alone. So this is a
/// hash of what they are made from, taken when the program is compiled.
pub fn built_in_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| format!("{HASH_OF_SOURCES:032X}"))
}

const HASH_OF_SOURCES: u128 = {
    let mut hash = FNV_OFFSET;
    hash = fnv(include_bytes!("schema.table"), hash);
    hash = fnv(include_bytes!("registry.table"), hash);
    hash = fnv(include_bytes!("openapi.rs"), hash);
    hash = fnv(include_bytes!("openapi/custom.rs"), hash);
    hash = fnv(include_bytes!("openapi/operations.rs"), hash);
    hash = fnv(include_bytes!("openapi/paths.rs"), hash);
    fnv(include_bytes!("openapi/schemas.rs"), hash)
};
const FNV_OFFSET: u128 = 0x6c62272e07bb014262b821756295c58d;

/// FNV-1a of 128 bits: not secure, but the input is our own.
#[allow(long_running_const_eval, reason = "160 kB of tables are hashed once per build")]
const fn fnv(bytes: &[u8], mut hash: u128) -> u128 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u128).wrapping_mul(0x0000000001000000000000000000013B);
        i += 1;
    }
    hash
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}
