//! Which resources the API server has, those of CustomResourceDefinitions and other servers included.
//!
//! Owns: reading discovery, and reading it again when definitions change.
//! Called by: the garbage collector, the end of Namespaces, and whatever scales or counts things of any kind.
//! Never: polls; a change of a definition is what makes it look again.

use std::sync::Arc;
use std::time::Duration;

use minik_api::ResourceId;
use minik_api::resources::{APISERVICES, CUSTOMRESOURCEDEFINITIONS};
use minik_client::{Backoff, Cache, Client, Error, intern};
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::fields::{list, text};

/// A definition is published a moment after it is established: looked for again this often, doubling.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_CAP: Duration = Duration::from_secs(30);
/// Looks after a change; then the next change is waited for.
const LOOKS_MAX: u32 = 4;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub id: ResourceId,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Discovered {
    /// Each resource once, in its group's preferred version.
    pub resources: Vec<Known>,
    /// Groups that could not be read: what is in them is not known.
    pub failed: Vec<String>,
}

impl Known {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

impl Discovered {
    /// By what an owner reference says; any version of the group will do.
    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Known> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.resources.iter().find(|k| k.id.group == group && k.kind == kind)
    }
    pub(crate) fn by_id(&self, id: ResourceId) -> Option<&Known> {
        self.resources.iter().find(|k| k.id == id)
    }
}

/// Where the size of an object is read and set, whatever its kind.
pub(crate) fn scale_path(r: ResourceId, namespace: &str, name: &str) -> String {
    let root =
        if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
    format!("{root}/namespaces/{namespace}/{}/{name}/scale", r.plural)
}

pub(crate) type Watched = watch::Receiver<Arc<Discovered>>;

/// Reads once, then again after each change of a definition, until the task is dropped.
pub(crate) async fn follow(client: Client, cache: Cache, found: watch::Sender<Arc<Discovered>>) {
    let mut changes = cache.changes_of(&[CUSTOMRESOURCEDEFINITIONS, APISERVICES]);
    let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_CAP);
    let mut looks = 0;
    loop {
        match read(&client).await {
            Ok(discovered) => {
                looks += 1;
                found.send_if_modified(|known| {
                    let changed = **known != discovered;
                    if changed {
                        debug!(resources = discovered.resources.len(), "discovery changed");
                        *known = Arc::new(discovered.clone());
                    }
                    changed
                });
            }
            Err(e) => {
                warn!(error = %e.chain(), "discovery failed");
                looks = 0;
            }
        }
        let wait = backoff.next_random();
        let again =
            async { if looks < LOOKS_MAX { tokio::time::sleep(wait).await } else { std::future::pending().await } };
        tokio::select! {
            () = again => {}
            _ = changes.recv() => {
                while changes.try_recv().is_some() {}
                backoff.reset();
                looks = 0;
                tokio::time::sleep(AGAIN_FIRST).await;
            }
        }
    }
}

async fn read(client: &Client) -> Result<Discovered, Error> {
    let mut all = Discovered::default();
    all.add("", "v1", &client.get_path("/api/v1").await?);
    let groups = client.get_path("/apis").await?;
    for group in list(&groups["groups"]) {
        let name = text(&group["name"]);
        let preferred = text(&group["preferredVersion"]["version"]);
        let rest = list(&group["versions"]).iter().map(|v| text(&v["version"])).filter(|v| *v != preferred);
        for version in std::iter::once(preferred).chain(rest) {
            match client.get_path(&format!("/apis/{name}/{version}")).await {
                Ok(found) => all.add(name, version, &found),
                Err(e) if e.is_not_found() => {}
                Err(e) => {
                    debug!(group = name, version, error = %e.chain(), "a group cannot be discovered");
                    all.failed.push(format!("{name}/{version}"));
                }
            }
        }
    }
    Ok(all)
}

impl Discovered {
    fn add(&mut self, group: &str, version: &str, found: &Value) {
        for resource in list(&found["resources"]) {
            let plural = text(&resource["name"]);
            let known = |k: &Known| k.id.group == group && k.id.plural == plural;
            // Subresources have a slash; a resource known in the preferred version is not wanted in another.
            if plural.contains('/') || self.resources.iter().any(known) {
                continue;
            }
            self.resources.push(Known {
                id: ResourceId::new(intern(group), intern(version), intern(plural)),
                kind: text(&resource["kind"]).to_string(),
                namespaced: resource["namespaced"] == true,
                verbs: list(&resource["verbs"]).iter().filter_map(Value::as_str).map(String::from).collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_is_known_once_and_found_by_kind_in_any_version() {
        let mut all = Discovered::default();
        let page = json!({"resources": [
            {"name": "widgets", "kind": "Widget", "namespaced": true, "verbs": ["list", "delete"]},
            {"name": "widgets/status", "kind": "Widget", "namespaced": true, "verbs": ["get"]}]});
        all.add("x.io", "v1", &page);
        all.add("x.io", "v1beta1", &page);
        assert_eq!(all.resources.len(), 1);
        let widget = all.by_kind("x.io/v1beta1", "Widget").unwrap();
        assert_eq!(widget.id, ResourceId::new("x.io", "v1", "widgets"));
        assert!(widget.can("delete") && !widget.can("watch"));
        assert!(all.by_kind("y.io/v1", "Widget").is_none());
    }
}
