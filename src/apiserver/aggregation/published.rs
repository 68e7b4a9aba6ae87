//! What an extension API server says about its own API.
//!
//! Owns: its discovery in the aggregated form (made from the plain one where it knows no other) and its OpenAPI index.
//! Called by: the attendant of each backend, which asks; discovery and OpenAPI, which merge it.
//! Never: keeps a document: those are asked for when somebody wants them.

use std::collections::BTreeMap;

use http::header;
use serde_json::{Value, json};

use super::ask::{AskError, Session};
use super::backend::Backend;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Of one group version.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// `APIVersionDiscovery` without its freshness.
    pub discovery: Value,
    /// The server could not be asked since; what is here is old.
    pub stale: bool,
    /// Paths below `/openapi/v3` and where their documents are.
    pub openapi: BTreeMap<String, String>,
}

pub async fn ask(session: &mut Session, backend: &Backend) -> Result<Published, AskError> {
    Ok(Published {
        discovery: discovery(session, backend).await?,
        stale: false,
        openapi: openapi_index(session, backend).await?,
    })
}

async fn discovery(session: &mut Session, backend: &Backend) -> Result<Value, AskError> {
    let (group, version) = (backend.group.as_str(), backend.version.as_str());
    let answer = session.get("/apis", AGGREGATED).await?;
    if answer.code == 200 && is_aggregated(answer.header(header::CONTENT_TYPE)) {
        let list: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
        return Ok(find(&list, group, version).unwrap_or_else(|| json!({"version": version})));
    }
    let path = format!("/apis/{group}/{version}");
    let answer = session.get(&path, "application/json").await?;
    if answer.code != 200 {
        let why = format!("bad status: {}", answer.code);
        return Err(AskError::Failed { url: session.url(&path), why });
    }
    let list: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    Ok(json!({"version": version, "resources": from_plain(&list["resources"])}))
}

fn is_aggregated(content_type: &str) -> bool {
    let pieces: Vec<&str> = content_type.split(';').map(str::trim).collect();
    ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|p| pieces.contains(p))
}

fn find(list: &Value, group: &str, version: &str) -> Option<Value> {
    let mut groups = list["items"].as_array()?.iter();
    let versions = groups.find(|g| g["metadata"]["name"] == group)?["versions"].as_array()?;
    let mut found = versions.iter().find(|v| v["version"] == version)?.clone();
    found.as_object_mut()?.remove("freshness");
    for resource in found["resources"].as_array_mut().into_iter().flatten() {
        has_kind(resource);
        resource["subresources"].as_array_mut().into_iter().flatten().for_each(has_kind);
        if resource["subresources"].is_null() {
            resource.as_object_mut()?.remove("subresources");
        }
    }
    Some(found)
}

/// Some clients fall over a resource without one.
fn has_kind(resource: &mut Value) {
    if !resource["responseKind"].is_object() {
        resource["responseKind"] = json!({"group": "", "version": "", "kind": ""});
    }
}

/// The resources of an `APIResourceList` as aggregated discovery tells them.
fn from_plain(resources: &Value) -> Vec<Value> {
    let all = resources.as_array().map_or(&[][..], Vec::as_slice);
    let text = |r: &Value, field: &str| r[field].as_str().unwrap_or("").to_string();
    let kind = |r: &Value| json!({"group": text(r, "group"), "version": text(r, "version"), "kind": text(r, "kind")});
    let mut out: Vec<Value> = Vec::new();
    for resource in all {
        let name = text(resource, "name");
        let (plural, sub) = name.split_once('/').map_or((name.as_str(), None), |(p, s)| (p, Some(s)));
        let at = out.iter().position(|r| r["resource"] == plural);
        let at = at.unwrap_or_else(|| {
            let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
            out.push(json!({
                "resource": plural, "responseKind": {"group": "", "version": "", "kind": ""}, "scope": scope,
                "singularResource": "", "verbs": [],
            }));
            out.len() - 1
        });
        let row = &mut out[at];
        match sub {
            None => {
                row["responseKind"] = kind(resource);
                row["singularResource"] = text(resource, "singularName").into();
                row["verbs"] = resource["verbs"].clone();
                for list in ["shortNames", "categories"] {
                    if resource[list].is_array() {
                        row[list] = resource[list].clone();
                    }
                }
            }
            Some(sub) => {
                if !row["subresources"].is_array() {
                    row["subresources"] = json!([]);
                }
                let entry = json!({"subresource": sub, "responseKind": kind(resource), "verbs": resource["verbs"]});
                row["subresources"].as_array_mut().expect("made one above").push(entry);
            }
        }
    }
    out
}

/// Only what lies below its own group: what else it has (`version`, other groups) is not its to say here.
async fn openapi_index(session: &mut Session, backend: &Backend) -> Result<BTreeMap<String, String>, AskError> {
    let answer = session.get("/openapi/v3", "application/json").await?;
    if answer.code != 200 {
        return Ok(BTreeMap::new());
    }
    let index: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let (of_group, of_version) =
        (format!("apis/{}", backend.group), format!("apis/{}/{}", backend.group, backend.version));
    let paths = index["paths"].as_object().into_iter().flatten();
    let url = |entry: &Value| entry["serverRelativeURL"].as_str().unwrap_or("").to_string();
    Ok(paths.filter(|(p, _)| **p == of_group || **p == of_version).map(|(p, e)| (p.clone(), url(e))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_discovery_is_told_in_the_aggregated_form() {
        let list = json!([
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"],
             "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
        ]);
        let told = from_plain(&list);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["responseKind"]["kind"], "Flunder");
        assert_eq!((&told[0]["scope"], &told[0]["shortNames"]), (&json!("Namespaced"), &json!(["fl"])));
        assert_eq!(told[0]["subresources"][0]["subresource"], "status");
    }

    #[test]
    fn a_version_is_found_among_all_that_the_server_has() {
        let list = json!({"items": [{"metadata": {"name": "g"}, "versions": [
            {"version": "v1", "freshness": "Current", "resources": [{"resource": "a", "verbs": ["get"]}]}]}]});
        let found = find(&list, "g", "v1").expect("it is there");
        assert_eq!(found["resources"][0]["responseKind"]["kind"], "");
        assert!(found.get("freshness").is_none());
        assert!(find(&list, "g", "v2").is_none());
        assert!(is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
        assert!(!is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
    }
}
