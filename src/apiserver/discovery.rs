//! Which groups, versions and resources there are, told to clients.
//!
//! Owns: `/api`, `/apis` and everything below that names no resource, in the plain and the aggregated form.
//! Called by: paths outside the resources.
//! Never: says anything that neither the catalog says nor another server about its own groups.

use http::{HeaderMap, HeaderValue, Response, header};
use minik_api::registry::api_version;
use minik_api::{Status, registry};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::aggregation::merged::{self, Group, Tie, Version};
use crate::body::Body;
use crate::catalog::{Served, Table};
use crate::negotiate::{Accept, Encoding, asks_for};
use crate::query::Query;
use crate::reply;
use crate::server::Core;

/// What follows the media type of the aggregated form.
const AGGREGATED: &str = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub fn answer(core: &Core, path: &[&str], headers: &HeaderMap, query: &Query) -> Result<Response<Body>, Status> {
    let table = core.catalog.now();
    let aggregated = asks_for(headers, "apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList");
    if let Some(encoding) = aggregated
        && path.len() == 1
    {
        return Ok(aggregated_answer(core, &table, path[0] == "api", headers, encoding));
    }
    let groups = || merged::groups(&table, &core.aggregation.backends(), Tie::Service);
    let accept = Accept::without_form(headers, query)?;
    let tree = match path {
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{
                "clientCIDR": "0.0.0.0/0",
                "serverAddress": format!("{}:{}", core.config.advertise_address, core.config.port),
            }],
        }),
        ["apis"] => {
            let groups: Vec<Value> = groups().iter().filter(|g| !g.name.is_empty()).map(group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] if table.of_version("", version).next().is_some() => resource_list(&table, "", version),
        ["apis", name] => match groups().iter().find(|g| g.name == *name) {
            Some(known) => {
                let mut tree = group(known);
                tree["kind"] = "APIGroup".into();
                tree["apiVersion"] = "v1".into();
                tree
            }
            None => return unknown(name),
        },
        ["apis", name, version] if table.group(name).is_some_and(|g| g.versions.iter().any(|v| v == version)) => {
            resource_list(&table, name, version)
        }
        ["apis", name, _] => return unknown(name),
        _ => return unknown(""),
    };
    Ok(reply::tree(&accept, 200, &tree))
}

/// Below a built-in group the router answers.
fn unknown(group: &str) -> Result<Response<Body>, Status> {
    if registry::groups().iter().any(|g| g.name == group) {
        return Err(Status::path_unknown());
    }
    Ok(reply::text(404, "404 page not found\n"))
}

fn group(group: &Group) -> Value {
    let version = |v: &Version| json!({"groupVersion": api_version(&group.name, &v.name), "version": v.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn verbs(verbs: minik_api::registry::Verbs) -> Vec<&'static str> {
    verbs.iter().map(minik_api::Verb::as_str).collect()
}

fn resource_list(table: &Table, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for served in table.of_version(group, version) {
        resources.push(resource(served));
        for sub in &served.row.subresources {
            let row = &served.row;
            let mut tree = json!({
                "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.is_namespaced(),
                "kind": sub.kind.kind, "verbs": verbs(sub.verbs),
            });
            if (&sub.kind.group, &sub.kind.version) != (&row.group, &row.version) {
                tree["group"] = sub.kind.group.as_ref().into();
                tree["version"] = sub.kind.version.as_ref().into();
            }
            resources.push(tree);
        }
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut list = json!({
        "kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": resources,
    });
    // As upstream: the core group's document does not say its own version.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    list
}

/// Upstream's fingerprint of where a resource is stored.
fn storage_version_hash(served: &Served) -> String {
    use base64::Engine;
    let row = &served.row;
    let digest = Sha256::digest(format!("{}/{}/{}", row.stored_group, row.hashed_version, row.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn resource(served: &Served) -> Value {
    let row = &served.row;
    let mut tree = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.is_namespaced(), "kind": row.kind,
        "verbs": verbs(row.verbs),
    });
    if !row.short_names.is_empty() {
        tree["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        tree["categories"] = json!(row.categories);
    }
    if row.is_stored() {
        tree["storageVersionHash"] = storage_version_hash(served).into();
    }
    tree
}

fn aggregated_answer(
    core: &Core,
    table: &Table,
    core_group: bool,
    headers: &HeaderMap,
    encoding: Encoding,
) -> Response<Body> {
    let groups = merged::groups(table, &core.aggregation.backends(), Tie::Group);
    let groups = groups.iter().filter(|g| g.name.is_empty() == core_group);
    let items: Vec<Value> = groups.map(|g| discovered_group(table, g)).collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    // Of the JSON for every encoding: `Vary` tells them apart.
    let tag = format!("\"{}\"", hex::encode_upper(Sha512::digest(crate::stored::to_json(&list))));
    let seen = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut response = match seen == tag {
        true => reply::raw(304, "application/json", ""),
        false => reply::tree(&Accept { encoding, ..Accept::default() }, 200, &list),
    };
    let headers = response.headers_mut();
    if let Some(Ok(media)) = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str)
        && let Ok(media) = HeaderValue::from_str(&format!("{media}{AGGREGATED}"))
    {
        headers.insert(header::CONTENT_TYPE, media);
    }
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn discovered_group(table: &Table, group: &Group) -> Value {
    let version = |version: &Version| match &version.backend {
        Some(backend) => backend.discovered(),
        None => {
            let resources: Vec<Value> = table.of_version(&group.name, &version.name).map(|s| discovered(s)).collect();
            json!({"version": version.name, "resources": resources, "freshness": "Current"})
        }
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

/// A built-in kind of the resource's own version is named without it, as upstream does.
fn response_kind(served: &Served, group: &str, version: &str, kind: &str) -> Value {
    let own = (group, version) == (served.row.group.as_ref(), served.row.version.as_ref());
    if own && served.custom().is_none() {
        return json!({"group": "", "version": "", "kind": kind});
    }
    json!({"group": group, "version": version, "kind": kind})
}

fn discovered(served: &Served) -> Value {
    let row = &served.row;
    let mut tree = json!({
        "resource": row.plural,
        "responseKind": response_kind(served, &row.group, &row.version, &row.kind),
        "scope": if row.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(row.verbs),
    });
    if !row.short_names.is_empty() {
        tree["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        tree["categories"] = json!(row.categories);
    }
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": response_kind(served, &sub.kind.group, &sub.kind.version, &sub.kind.kind),
                "verbs": verbs(sub.verbs),
            })
        })
        .collect();
    if !subresources.is_empty() {
        tree["subresources"] = subresources.into();
    }
    tree
}
