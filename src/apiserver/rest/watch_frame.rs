//! One event of a watch as it goes on the wire.
//!
//! Owns: the frames in every encoding and form.
//! Called by: watch.
//! Never: decides what is an event.

use bytes::{BufMut, Bytes, BytesMut};
use minik_api::Status;
use minik_api::wire::protobuf;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::negotiate::{Accept, Encoding, Form};
use crate::query::Query;
use crate::{reply, stored};

/// How the events of one watch are written.
pub struct Frames {
    pub accept: Accept,
    pub query: Query,
    /// Columns are sent with the first event only.
    headers_sent: bool,
}

impl Frames {
    pub fn new(accept: Accept, query: Query) -> Self {
        Self { accept, query, headers_sent: false }
    }

    pub fn content_type(&self) -> &'static str {
        match (self.accept.encoding, self.accept.form) {
            (Encoding::Protobuf, Form::Object | Form::Metadata | Form::MetadataList) => protobuf::WATCH_CONTENT_TYPE,
            (Encoding::Yaml, _) => "application/yaml;stream=watch",
            _ => "application/json",
        }
    }

    /// An event about a stored object.
    pub fn object(&mut self, out: &mut BytesMut, served: &Served, kind: &'static str, value: &Bytes) {
        let plain = self.accept.encoding == Encoding::Json && self.accept.form == Form::Object;
        if plain && served.can_copy(value) {
            return json_frame(out, kind, value);
        }
        self.tree(out, served, kind, &reply::served(served, value));
    }

    fn tree(&mut self, out: &mut BytesMut, served: &Served, kind: &'static str, tree: &Value) {
        match self.accept.form {
            Form::Object => self.write(out, kind, tree),
            Form::Metadata | Form::MetadataList => self.write(out, kind, &reply::metadata_only(tree)),
            Form::Table => {
                let mut table = reply::table(served, &[tree], &self.query).unwrap_or_default();
                table["metadata"] = json!({"resourceVersion": tree["metadata"]["resourceVersion"]});
                if std::mem::replace(&mut self.headers_sent, true) {
                    table["columnDefinitions"] = Value::Null;
                }
                json_frame(out, kind, &stored::to_json(&table));
            }
        }
    }

    /// How far the watch has come; with `initial_end`, that what was there at its start has been sent.
    pub fn bookmark(
        &mut self,
        out: &mut BytesMut,
        served: &Served,
        revision: minik_store::Revision,
        initial_end: bool,
    ) {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        // In a table it is a row like any other, of an object that has nothing but this metadata.
        let row = &served.row;
        let mut tree = served.built_in().map_or_else(|| json!({}), minik_api::decode::zero_object);
        tree["kind"] = row.kind.as_ref().into();
        tree["apiVersion"] = row.api_version().into();
        tree["metadata"] = metadata;
        self.tree(out, served, "BOOKMARK", &tree);
    }

    pub fn error(&mut self, out: &mut BytesMut, status: &Status) {
        self.write(out, "ERROR", &status.to_json());
    }

    fn write(&self, out: &mut BytesMut, kind: &'static str, tree: &Value) {
        match self.accept.encoding {
            Encoding::Protobuf if self.accept.form != Form::Table => match protobuf::watch_frame(kind, tree) {
                Ok(frame) => out.put_slice(&frame),
                Err(error) => tracing::warn!(%error, "an event has no protobuf form"),
            },
            Encoding::Yaml => {
                let event = json!({"type": kind, "object": tree});
                out.put_slice(b"---\n");
                out.put_slice(serde_yaml::to_string(&event).unwrap_or_default().as_bytes());
            }
            _ => json_frame(out, kind, &stored::to_json(tree)),
        }
    }
}

fn json_frame(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
