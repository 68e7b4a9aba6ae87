//! Events about pods, with upstream's reasons.
//!
//! Owns: what an Event of the kubelet is about.
//! Called by: everything that has something to tell a user.
//! Never: fails anything: an Event that cannot be written is dropped.

use minik_client::{EventRecorder, EventType, Regarding};

use crate::pod::Pod;

/// Events about one pod.
#[derive(Clone)]
pub struct PodEvents {
    recorder: EventRecorder,
    about: Regarding,
}

impl PodEvents {
    pub fn new(recorder: &EventRecorder, pod: &Pod) -> PodEvents {
        let about = Regarding {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: pod.namespace().into(),
            name: pod.name().into(),
            uid: pod.uid.clone(),
            resource_version: pod.metadata.resource_version.clone().unwrap_or_default(),
            field_path: String::new(),
        };
        PodEvents { recorder: recorder.clone(), about }
    }

    pub fn normal(&self, field_path: Option<String>, reason: &str, message: &str) {
        self.tell(field_path, EventType::Normal, reason, message);
    }
    pub fn warning(&self, field_path: Option<String>, reason: &str, message: &str) {
        self.tell(field_path, EventType::Warning, reason, message);
    }
    fn tell(&self, field_path: Option<String>, kind: EventType, reason: &str, message: &str) {
        tracing::debug!(pod = %self.about.name, reason, message, "event");
        let about = Regarding { field_path: field_path.unwrap_or_default(), ..self.about.clone() };
        self.recorder.record(&about, kind, reason, message);
    }
}
