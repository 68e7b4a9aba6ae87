//! The scheduler's picture of the cluster, kept from changes and its own assumptions.
//!
//! Owns: which Pod is on which Node, counting Pods whose binding is not confirmed yet as being there.
//! Called by: the loop; read by filters and scores.
//! Never: asks the API server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use minik_api::object;
use minik_client::Object;
use serde_json::Value;

use crate::node::Node;
use crate::pod::{Pod, is_terminal, node_name};
use crate::volumes::Storage;

#[derive(Default)]
pub(crate) struct Cluster {
    /// In order of name, so that a choice depends on nothing else.
    pub nodes: Vec<Node>,
    by_name: HashMap<String, usize>,
    /// Uid of each placed Pod -> its Node's name.
    placed: HashMap<String, String>,
    assumed: HashSet<String>,
    /// Placed Pods with affinity terms of their own: uid -> Node. Few, so they are kept apart.
    pub with_terms: HashMap<String, String>,
    namespaces: HashMap<String, Value>,
    /// Pods that wait for room made by preemption: Node -> Pods.
    nominated: BTreeMap<String, Vec<Arc<Pod>>>,
    /// Namespace -> what selects Pods there: Services, and by their owners' uid, controllers.
    pub selectors: crate::spread::Selectors,
    pub storage: Storage,
}

/// What a change of a Node can mean for Pods that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// Heartbeats and conditions: nothing.
    Irrelevant,
    Relevant,
}

impl Cluster {
    pub(crate) fn observe_node(&mut self, object: &Arc<Object>) -> NodeChange {
        let at = self.index(object::name(object));
        let node = &mut self.nodes[at];
        let relevant = match &node.object {
            None => true,
            Some(old) => {
                old["spec"] != object["spec"]
                    || old["metadata"]["labels"] != object["metadata"]["labels"]
                    || old["status"]["allocatable"] != object["status"]["allocatable"]
            }
        };
        let same_images = node.object.as_ref().is_some_and(|old| old["status"]["images"] == object["status"]["images"]);
        if relevant || !same_images {
            node.observe(object);
        } else {
            node.object = Some(object.clone());
        }
        if relevant { NodeChange::Relevant } else { NodeChange::Irrelevant }
    }

    /// Pods that name it keep their place until they are deleted themselves.
    pub(crate) fn forget_node(&mut self, name: &str) {
        if let Some(&at) = self.by_name.get(name) {
            self.nodes[at].object = None;
            self.drop_if_empty(at);
        }
    }

    pub(crate) fn observe_namespace(&mut self, name: &str, labels: Option<&Value>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_string(), labels.clone()),
            None => self.namespaces.remove(name),
        };
    }
    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&Value> {
        self.namespaces.get(name)
    }

    /// A Pod as the API server has it now. True if room may have become free.
    pub(crate) fn observe_pod(&mut self, object: &Arc<Object>) -> bool {
        let uid = object::uid(object);
        if node_name(object).is_empty() {
            // Not placed; an assumption about it stands until its binding fails or is seen.
            return false;
        }
        if is_terminal(object) {
            return self.forget_pod(uid);
        }
        self.assumed.remove(uid);
        self.place(Arc::new(Pod::new(object.clone())), node_name(object).to_string());
        false
    }

    /// True if it was placed.
    pub(crate) fn forget_pod(&mut self, uid: &str) -> bool {
        self.assumed.remove(uid);
        self.with_terms.remove(uid);
        let Some(name) = self.placed.remove(uid) else { return false };
        if let Some(&at) = self.by_name.get(&name) {
            self.take_off(at, uid);
            self.drop_if_empty(at);
        }
        true
    }

    /// Counts a Pod as placed before its binding is confirmed.
    pub(crate) fn assume(&mut self, pod: Arc<Pod>, node: &str) {
        self.assumed.insert(pod.uid.clone());
        self.place(pod, node.to_string());
    }
    /// The binding failed.
    pub(crate) fn unassume(&mut self, uid: &str) {
        if self.assumed.contains(uid) {
            self.forget_pod(uid);
        }
    }
    /// Takes a Pod off its Node while something is tried; `place_again` puts it back.
    pub(crate) fn lift(&mut self, uid: &str) {
        self.with_terms.remove(uid);
        if let Some(name) = self.placed.remove(uid)
            && let Some(&at) = self.by_name.get(&name)
        {
            self.take_off(at, uid);
        }
    }
    pub(crate) fn place_again(&mut self, pod: Arc<Pod>, node: &str) {
        self.place(pod, node.to_string());
    }
    pub(crate) fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    pub(crate) fn nominate(&mut self, pod: Arc<Pod>, node: &str) {
        self.denominate(&pod.uid);
        self.nominated.entry(node.to_string()).or_default().push(pod);
    }
    pub(crate) fn denominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|p| p.uid != uid);
            !pods.is_empty()
        });
    }
    /// Pods for which room on this Node is being kept.
    pub(crate) fn nominated(&self, node: &str) -> &[Arc<Pod>] {
        if self.nominated.is_empty() { &[] } else { self.nominated.get(node).map_or(&[], Vec::as_slice) }
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.by_name.get(name).map(|at| &self.nodes[*at])
    }
    /// Nodes that exist.
    pub(crate) fn existing(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.object.is_some())
    }

    fn place(&mut self, pod: Arc<Pod>, name: String) {
        if let Some(old) = self.placed.insert(pod.uid.clone(), name.clone())
            && let Some(&at) = self.by_name.get(&old)
        {
            self.take_off(at, &pod.uid);
        }
        self.storage.used_by(&pod);
        if !pod.pod_wants.is_empty() {
            self.with_terms.insert(pod.uid.clone(), name.clone());
        }
        let at = self.index(&name);
        self.nodes[at].add(pod);
    }

    fn take_off(&mut self, at: usize, uid: &str) {
        if let Some(pod) = self.nodes[at].remove(uid) {
            self.storage.no_longer_used_by(&pod);
        }
    }

    fn index(&mut self, name: &str) -> usize {
        if let Some(&at) = self.by_name.get(name) {
            return at;
        }
        let at = self.nodes.partition_point(|n| n.name.as_str() < name);
        self.nodes.insert(at, Node::unknown(name));
        self.renumber(at);
        at
    }

    fn drop_if_empty(&mut self, at: usize) {
        if self.nodes[at].object.is_none() && self.nodes[at].pods.is_empty() {
            let gone = self.nodes.remove(at);
            self.by_name.remove(&gone.name);
            self.renumber(at);
        }
    }

    fn renumber(&mut self, from: usize) {
        for (at, node) in self.nodes.iter().enumerate().skip(from) {
            self.by_name.insert(node.name.clone(), at);
        }
    }
}
