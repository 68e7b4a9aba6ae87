//! A Node as the scheduler sees it: what it offers and what its Pods take.
//!
//! Owns: the sums over the Pods of one Node.
//! Called by: the picture of the cluster; filters and scores.
//! Never: looks at another Node.

use std::collections::HashMap;
use std::sync::Arc;

use minik_client::Object;
use serde_json::{Value, json};

use crate::pod::{HostPort, Pod};
use crate::resources::Resources;
use minik_api::taints::{Taint, taints};

#[derive(Clone)]
pub(crate) struct Node {
    pub name: String,
    /// None: Pods name it, but there is no such Node (yet, or any more).
    pub object: Option<Arc<Object>>,
    pub labels: Value,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub pods_max: i64,
    pub requested: Resources,
    pub scored_milli_cpu: i64,
    pub scored_memory: i64,
    pub pods: HashMap<String, Arc<Pod>>,
    pub ports: Vec<HostPort>,
    /// Name of an image -> its size.
    pub images: HashMap<String, i64>,
}

impl Node {
    pub(crate) fn unknown(name: &str) -> Node {
        Node {
            name: name.into(),
            object: None,
            labels: json!({}),
            taints: Vec::new(),
            unschedulable: false,
            allocatable: Resources::default(),
            pods_max: 0,
            requested: Resources::default(),
            scored_milli_cpu: 0,
            scored_memory: 0,
            pods: HashMap::new(),
            ports: Vec::new(),
            images: HashMap::new(),
        }
    }

    pub(crate) fn observe(&mut self, object: &Arc<Object>) {
        self.labels = object["metadata"]["labels"].clone();
        self.taints = taints(&object["spec"]["taints"]);
        self.unschedulable = object["spec"]["unschedulable"] == true;
        self.allocatable = Resources::parse(&object["status"]["allocatable"]);
        let pods = &object["status"]["allocatable"]["pods"];
        self.pods_max = minik_api::quantity::Quantity::from_json(pods).map_or(0, |q| q.value());
        self.images = images(&object["status"]["images"]);
        self.object = Some(object.clone());
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)?.as_str()
    }

    pub(crate) fn add(&mut self, pod: Arc<Pod>) {
        if let Some(old) = self.pods.insert(pod.uid.clone(), pod.clone()) {
            self.take_back(&old);
        }
        self.requested.add(&pod.resources.requests);
        self.scored_milli_cpu += pod.resources.scored_milli_cpu;
        self.scored_memory += pod.resources.scored_memory;
        self.ports.extend(pod.host_ports.iter().cloned());
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let old = self.pods.remove(uid)?;
        self.take_back(&old);
        Some(old)
    }

    fn take_back(&mut self, pod: &Pod) {
        self.requested.subtract(&pod.resources.requests);
        self.scored_milli_cpu -= pod.resources.scored_milli_cpu;
        self.scored_memory -= pod.resources.scored_memory;
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

fn images(list: &Value) -> HashMap<String, i64> {
    let mut sizes = HashMap::new();
    for image in list.as_array().into_iter().flatten() {
        let size = image["sizeBytes"].as_i64().unwrap_or(0);
        for name in image["names"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            sizes.insert(name.to_string(), size);
        }
    }
    sizes
}
