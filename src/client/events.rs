//! Kubernetes Events: what `kubectl describe` shows at its end.
//!
//! Owns: counting repeats, summing up similar ones, limiting their rate per object.
//! Called by: every component, without waiting.
//! Never: fails a caller, or retries for long: an Event is a courtesy.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minik_api::{ResourceId, object};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::debug;

use crate::params::Patch;
use crate::tasks::Tasks;
use crate::verbs::Client;

const EVENTS: ResourceId = ResourceId::new("", "v1", "events");
/// Events waiting to be written; more are dropped, as client-go drops them.
const QUEUE_MAX: usize = 1000;
/// client-go's spam filter: 25 at once for one object, then one in five minutes.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// client-go's aggregator: more than ten alike but for their message within ten minutes become one.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Objects remembered (client-go's caches hold as many).
const REMEMBERED_MAX: usize = 4096;
/// Kubernetes' limit for `message`.
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

/// The object an Event is about (`involvedObject`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Regarding {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// Such as `spec.containers{web}`.
    pub field_path: String,
}

impl Regarding {
    pub fn of(about: &Value) -> Regarding {
        let text = |v: &Value| v.as_str().unwrap_or("").to_string();
        Regarding {
            api_version: text(&about["apiVersion"]),
            kind: text(&about["kind"]),
            namespace: object::namespace(about).into(),
            name: object::name(about).into(),
            uid: object::uid(about).into(),
            resource_version: object::resource_version(about).into(),
            field_path: String::new(),
        }
    }
    pub fn with_field_path(mut self, path: impl Into<String>) -> Regarding {
        self.field_path = path.into();
        self
    }
}

#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Happening>,
}

struct Happening {
    regarding: Regarding,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

impl EventRecorder {
    /// `component` is what `kubectl describe` shows under From; `host` is the node's name or empty.
    pub fn new(client: Client, component: &str, host: &str, tasks: &Tasks) -> EventRecorder {
        let (sender, mut receiver) = mpsc::channel::<Happening>(QUEUE_MAX);
        let mut correlator = Correlator::default();
        let (component, host) = (component.to_string(), host.to_string());
        tasks.spawn(async move {
            while let Some(happening) = receiver.recv().await {
                if let Some(write) = correlator.correlate(happening, Instant::now()) {
                    send(&client, &mut correlator, write, &component, &host).await;
                }
            }
        });
        EventRecorder { sender }
    }

    /// Returns at once; when too many wait, the Event is dropped.
    pub fn record(&self, regarding: &Regarding, kind: EventType, reason: &str, message: &str) {
        let happening = Happening {
            regarding: regarding.clone(),
            kind,
            reason: reason.into(),
            message: clip(message),
            at: Timestamp::now(),
        };
        if self.sender.try_send(happening).is_err() {
            debug!(reason, "an Event was dropped: too many wait");
        }
    }

    pub fn event(&self, about: &Value, kind: EventType, reason: &str, message: &str) {
        self.record(&Regarding::of(about), kind, reason, message);
    }
}

fn clip(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_string()
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    regarding: Regarding,
    kind: EventType,
    reason: String,
    message: String,
}

struct Known {
    name: String,
    count: u64,
    first: Timestamp,
}

struct Similar {
    messages: Vec<String>,
    since: Instant,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Decides what an occurrence becomes: a new Event, a higher count of an old one, or nothing.
#[derive(Default)]
struct Correlator {
    known: HashMap<Identity, Known>,
    similar: HashMap<(Regarding, EventType, String), Similar>,
    buckets: HashMap<Regarding, Bucket>,
}

struct Write {
    identity: Identity,
    name: String,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Correlator {
    fn correlate(&mut self, happening: Happening, now: Instant) -> Option<Write> {
        let Happening { mut regarding, kind, reason, message, at } = happening;
        // The version differs with each change of the object; repeats are repeats all the same.
        let version = std::mem::take(&mut regarding.resource_version);
        self.forget_if_full();
        if !self.permit(&regarding, now) {
            return None;
        }
        let message = self.sum_up(&regarding, kind, &reason, message, now);
        let mut identity = Identity { regarding, kind, reason, message };
        let known = self.known.entry(identity.clone()).or_insert_with(|| {
            // client-go names them so too: the object's name and the time in hexadecimal nanoseconds.
            let name = format!("{}.{:x}", identity.regarding.name, at.as_nanosecond());
            Known { name, count: 0, first: at }
        });
        known.count += 1;
        identity.regarding.resource_version = version;
        Some(Write { identity, name: known.name.clone(), count: known.count, first: known.first, last: at })
    }

    fn permit(&mut self, regarding: &Regarding, now: Instant) -> bool {
        let bucket = self.buckets.entry(regarding.clone()).or_insert(Bucket { tokens: BURST, at: now });
        let earned = now.duration_since(bucket.at).as_secs_f64() * REFILL_PER_SECOND;
        bucket.tokens = (bucket.tokens + earned).min(BURST);
        bucket.at = now;
        let permitted = bucket.tokens >= 1.0;
        if permitted {
            bucket.tokens -= 1.0;
        }
        permitted
    }

    fn sum_up(
        &mut self,
        regarding: &Regarding,
        kind: EventType,
        reason: &str,
        message: String,
        now: Instant,
    ) -> String {
        let at = (regarding.clone(), kind, reason.to_string());
        let similar = self.similar.entry(at).or_insert_with(|| Similar { messages: Vec::new(), since: now });
        if now.duration_since(similar.since) > SIMILAR_WINDOW {
            similar.messages.clear();
            similar.since = now;
        }
        if similar.messages.contains(&message) {
            return message;
        }
        if similar.messages.len() < SIMILAR_MAX {
            similar.messages.push(message.clone());
            return message;
        }
        format!("(combined from similar events): {message}")
    }

    fn forget_if_full(&mut self) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
            self.similar.clear();
        }
        if self.buckets.len() >= REMEMBERED_MAX {
            self.buckets.clear();
        }
    }
}

/// A repeat patches the count; if the Event has expired since, it is made anew.
async fn send(client: &Client, correlator: &mut Correlator, write: Write, component: &str, host: &str) {
    let namespace = namespace_of(&write.identity.regarding);
    if write.count > 1 {
        let body = json!({"count": write.count, "lastTimestamp": time(write.last), "message": write.identity.message});
        match client.patch(EVENTS, namespace, &write.name, "", &Patch::Merge(body)).await {
            Ok(_) => return,
            Err(e) if e.is_not_found() => {}
            Err(e) => return debug!(error = %e.chain(), "an Event could not be counted"),
        }
    }
    if let Err(e) = client.create(EVENTS, namespace, &body(&write, component, host)).await {
        debug!(error = %e.chain(), "an Event could not be written");
        let mut identity = write.identity;
        identity.regarding.resource_version.clear();
        correlator.known.remove(&identity);
    }
}

fn namespace_of(regarding: &Regarding) -> &str {
    if regarding.namespace.is_empty() { "default" } else { &regarding.namespace }
}

fn body(write: &Write, component: &str, host: &str) -> Value {
    let Identity { regarding, kind, reason, message } = &write.identity;
    let mut involved = json!({});
    for (field, text) in [
        ("apiVersion", &regarding.api_version),
        ("kind", &regarding.kind),
        ("namespace", &regarding.namespace),
        ("name", &regarding.name),
        ("uid", &regarding.uid),
        ("resourceVersion", &regarding.resource_version),
        ("fieldPath", &regarding.field_path),
    ] {
        if !text.is_empty() {
            involved[field] = text.clone().into();
        }
    }
    let mut source = json!({"component": component});
    if !host.is_empty() {
        source["host"] = host.into();
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": namespace_of(regarding), "name": write.name},
        "involvedObject": involved, "type": format!("{kind:?}"), "reason": reason, "message": message,
        "firstTimestamp": time(write.first), "lastTimestamp": time(write.last), "count": write.count,
        "source": source, "reportingComponent": component, "reportingInstance": host,
    })
}

/// `metav1.Time` has whole seconds.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(message: &str, second: i64) -> Happening {
        Happening {
            regarding: Regarding { name: "web".into(), namespace: "a".into(), ..Regarding::default() },
            kind: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn a_repeat_counts_up_the_first_event() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let first = correlator.correlate(happening("m", 1), now).unwrap();
        let second = correlator.correlate(happening("m", 5), now).unwrap();
        assert_eq!((first.count, second.count), (1, 2));
        assert_eq!(first.name, "web.3b9aca00");
        assert_eq!(first.name, second.name);
        assert_eq!(second.first.as_second(), 1);
    }

    #[test]
    fn many_alike_become_one_and_then_none() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let mut texts: Vec<String> = Vec::new();
        for i in 0..40 {
            let write = correlator.correlate(happening(&format!("m{i}"), i), now);
            texts.push(write.map_or("none".into(), |w| w.identity.message));
        }
        assert_eq!(texts[9], "m9");
        assert_eq!(texts[10], "(combined from similar events): m10");
        assert_eq!(texts[24], "(combined from similar events): m24");
        assert_eq!(texts[25], "none");
        let later = now + Duration::from_secs(301);
        assert!(correlator.correlate(happening("m9", 400), later).is_some());
    }

    #[test]
    fn the_body_is_a_core_event_in_the_objects_namespace() {
        let mut correlator = Correlator::default();
        let write = correlator.correlate(happening("hello", 1), Instant::now()).unwrap();
        let body = body(&write, "kubelet", "node-1");
        assert_eq!(body["metadata"]["namespace"], "a");
        assert_eq!(body["involvedObject"], json!({"name": "web", "namespace": "a"}));
        assert_eq!(body["source"], json!({"component": "kubelet", "host": "node-1"}));
        assert_eq!(body["firstTimestamp"], "1970-01-01T00:00:01Z");
    }
}
