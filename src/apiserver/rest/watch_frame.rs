//! One event of a watch as it goes on the wire.
//!
//! Owns: the frames in every encoding and form.
//! Called by: watch.
//! Never: decides what is an event.

use bytes::{BufMut, Bytes, BytesMut};
use minik_api::wire::protobuf;
use minik_api::{Status, convert};
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::negotiate::{Accept, Encoding, Form};
use crate::query::Query;
use crate::{reply, stored};

/// How the events of one watch are written.
#[derive(Clone)]
pub struct Frames {
    pub accept: Accept,
    pub query: Query,
    /// Columns are sent with the first event only.
    headers_sent: bool,
    framing: Framing,
}

/// Where one event ends and the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As the encoding says: a line, a document, a length before it.
    Stream,
    /// By the messages of the connection; so far events end here.
    Messages(Vec<usize>),
}

impl Frames {
    pub fn new(accept: Accept, query: Query, framing: Framing) -> Self {
        Self { accept, query, headers_sent: false, framing }
    }

    /// Whether events are text, in any framing.
    pub fn is_text(&self) -> bool {
        self.accept.encoding != Encoding::Protobuf
    }

    /// The pieces of `chunk`, which is what was written since the last call: a message each, or all in one.
    pub fn pieces(&mut self, mut chunk: Bytes) -> Vec<Bytes> {
        let Framing::Messages(ends) = &mut self.framing else { return vec![chunk] };
        let mut begin = 0;
        std::mem::take(ends).into_iter().map(|end| chunk.split_to(end - std::mem::replace(&mut begin, end))).collect()
    }

    fn end(&mut self, out: &BytesMut) {
        if let Framing::Messages(ends) = &mut self.framing {
            ends.push(out.len());
        }
    }

    pub fn content_type(&self) -> &'static str {
        match (self.accept.encoding, self.accept.form) {
            (Encoding::Protobuf, Form::Object | Form::Metadata | Form::MetadataList) => protobuf::WATCH_CONTENT_TYPE,
            _ => "application/json",
        }
    }

    /// An event about a stored object.
    pub fn object(&mut self, out: &mut BytesMut, served: &Served, kind: &'static str, value: &Bytes) {
        let plain = self.accept.encoding == Encoding::Json && self.accept.form == Form::Object;
        if plain && served.can_copy(value) {
            json_frame(out, kind, value);
            return self.end(out);
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
                self.end(out);
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
        // In a table it is a row like any other, of an object that has nothing but this metadata.
        let row = &served.row;
        let mut tree = served.built_in().map_or_else(|| json!({}), convert::zero_object);
        tree["kind"] = row.kind.as_ref().into();
        tree["apiVersion"] = row.api_version().into();
        tree["metadata"]["resourceVersion"] = revision.to_string().into();
        if initial_end {
            tree["metadata"]["annotations"]["k8s.io/initial-events-end"] = "true".into();
        }
        self.tree(out, served, "BOOKMARK", &tree);
    }

    pub fn error(&mut self, out: &mut BytesMut, status: &Status) {
        self.write(out, "ERROR", &status.to_json());
    }

    fn write(&mut self, out: &mut BytesMut, kind: &'static str, tree: &Value) {
        match self.accept.encoding {
            Encoding::Protobuf if self.accept.form != Form::Table => match protobuf::watch_frame(kind, tree) {
                Ok(frame) if self.framing == Framing::Stream => out.put_slice(&frame),
                Ok(frame) => out.put_slice(&frame[protobuf::FRAME_PREFIX..]),
                Err(error) => tracing::warn!(%error, "an event has no protobuf form"),
            },
            _ => json_frame(out, kind, &stored::to_json(tree)),
        }
        self.end(out);
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
