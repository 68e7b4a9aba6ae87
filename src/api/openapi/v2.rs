//! The one document of OpenAPI v2, for clients that know no v3.
//!
//! Owns: how it is put together.
//! Called by: the API server for `/openapi/v2`.
//! Never: is the source of anything.

use super::{Body, Descriptions, Dialect, INFO, Paths, Schemas, path_of};
use crate::registry;

/// All of the built-in API; `further` adds the resources that are not built in.
pub fn document_v2(descriptions: &Descriptions, further: impl FnOnce(&mut Paths, &mut Schemas)) -> String {
    let mut schemas = Schemas::new(Dialect::V2, descriptions);
    let mut paths = Paths::new(Dialect::V2);
    paths.discovery(&mut schemas, "/api/", "core", "APIVersions");
    paths.discovery(&mut schemas, "/apis/", "apis", "APIGroupList");
    for group in registry::groups() {
        if !group.name.is_empty() {
            paths.discovery(&mut schemas, &format!("/apis/{}/", group.name), group.name, "APIGroup");
        }
        for version in &group.versions {
            schemas.serve(group.name, version);
            let path = format!("/{}/", path_of(group.name, version));
            paths.discovery(&mut schemas, &path, group.name, "APIResourceList");
            for resource in registry::of_version(group.name, version) {
                paths.resource(resource, &Body::of(resource), &mut schemas);
            }
        }
    }
    paths.version(&mut schemas);
    paths.issuer();
    paths.issuer_keys();
    further(&mut paths, &mut schemas);
    let mut out = format!(r#"{{"swagger":"2.0","info":{INFO},"paths":{{"#);
    out.push_str(&paths.finish());
    out.push_str(r#"},"definitions":{"#);
    out.push_str(&schemas.finish());
    out.push_str(
        r#"},"securityDefinitions":{"BearerToken":{"description":"Bearer Token authentication","type":"apiKey","#,
    );
    out.push_str(r#""name":"authorization","in":"header"}},"security":[{"BearerToken":[]}]}"#);
    out
}
