//! Answers: one object, a list, a `Status`, in the encoding and form the client asked for.
//!
//! Owns: the way from a tree or from stored bytes to an HTTP answer.
//! Called by: every handler; the pipeline, for errors.
//! Never: reads the store.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use minik_api::table::{self, IncludeObject};
use minik_api::wire::protobuf;
use minik_api::{Status, convert};
use minik_store::Entry;
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::call::Call;
use crate::catalog::Served;
use crate::negotiate::{Accept, Encoding, Form};
use crate::query::Query;
use crate::stored;

/// What most answers have in the end: to find room for one more would be to move all.
const HEADERS: usize = 8;
pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// Upstream compresses what is larger.
const GZIP_BYTES_MIN: usize = 128 << 10;

pub fn raw(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Compressed when that pays and the client can read it.
pub fn sized(accept: &Accept, code: u16, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    if !accept.gzip || bytes.len() < GZIP_BYTES_MIN {
        return raw(code, content_type, bytes);
    }
    // Level 1, as upstream: the network is near and the processor is what a LIST waits for.
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 8), flate2::Compression::new(1));
    encoder.write_all(&bytes).expect("memory takes every byte");
    let packed = encoder.finish().expect("memory takes every byte");
    let mut response = raw(code, content_type, packed);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = raw(code, PLAIN_TEXT, text.into());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// JSON bytes that need no other form.
pub fn json_bytes(accept: &Accept, code: u16, bytes: Bytes) -> Response<Body> {
    if accept.pretty && accept.encoding == Encoding::Json {
        return tree(accept, code, &stored::decode_bytes(&bytes));
    }
    let mut line = BytesMut::with_capacity(bytes.len() + 1);
    line.put_slice(&bytes);
    line.put_u8(b'\n');
    sized(accept, code, "application/json", line.freeze())
}

/// A tree in the client's encoding.
pub fn tree(accept: &Accept, code: u16, tree: &Value) -> Response<Body> {
    match accept.encoding {
        Encoding::Json if accept.pretty => {
            let text = serde_json::to_string_pretty(tree).expect("a tree has string keys");
            sized(accept, code, "application/json", text.into())
        }
        Encoding::Json => {
            // As Go's encoder ends what it writes.
            let mut line = stored::to_json(tree);
            line.push(b'\n');
            sized(accept, code, "application/json", line.into())
        }
        Encoding::Yaml => {
            let text = serde_yaml::to_string(tree).unwrap_or_default();
            sized(accept, code, "application/yaml", text.into())
        }
        Encoding::Protobuf => match protobuf::encode(tree) {
            Ok(bytes) => sized(accept, code, protobuf::CONTENT_TYPE, bytes.into()),
            // What has no protobuf form (a Table, a custom resource) is refused while negotiating; this is a list of
            // something the schema does not know.
            Err(error) => status(&Accept::default(), &Status::new(406, "NotAcceptable", error.to_string())),
        },
    }
}

/// What upstream writes without regard to what was asked for: indented, and without an end of the line.
pub fn for_people(code: u16, tree: &Value) -> Response<Body> {
    raw(code, "application/json", serde_json::to_string_pretty(tree).expect("a tree has string keys"))
}

pub fn status(accept: &Accept, status: &Status) -> Response<Body> {
    let mut response = tree(&Accept { form: Form::Object, gzip: false, ..*accept }, status.code, &status.to_json());
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// `Status` of a success that has no object to show.
pub fn success(accept: &Accept, code: u16, details: Option<Value>) -> Response<Body> {
    let mut answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    match details {
        Some(details) => answer["details"] = details,
        None => answer["code"] = code.into(),
    }
    tree(&Accept { form: Form::Object, ..*accept }, code, &answer)
}

/// A stored object in the version of the request.
pub fn served_tree(served: &Served, entry: &Entry) -> Value {
    self::served(served, &entry.value)
}

pub fn served(served: &Served, value: &Bytes) -> Value {
    let tree = stored::decode_bytes(value);
    if served.can_copy(value) {
        return tree;
    }
    let mut tree = convert::convert(tree, &served.row.api_version());
    if let Some(custom) = served.custom()
        && let Err(error) = custom.read(&mut tree)
    {
        tracing::warn!(%error, "a stored object does not fit its definition any more");
    }
    tree
}

/// One stored object, copied when nothing else is asked for.
pub fn entry(call: &Call, code: u16, served: &Served, entry: &Entry) -> Response<Body> {
    let plain = call.accept.encoding == Encoding::Json && call.accept.form == Form::Object;
    if plain && served.can_copy(&entry.value) {
        return json_bytes(&call.accept, code, entry.value.clone());
    }
    object(call, code, served, &served_tree(served, entry))
}

/// One object in the version of the request, in the form the client asked for.
pub fn object(call: &Call, code: u16, served: &Served, object: &Value) -> Response<Body> {
    match call.accept.form {
        Form::Object => tree(&call.accept, code, object),
        Form::Metadata => tree(&call.accept, code, &metadata_only(object)),
        Form::MetadataList => {
            let one = go_type(served, &served.row.kind);
            let why =
                format!("you requested PartialObjectMetadataList, but the requested object is not a list ({one})");
            status(&call.accept, &Status::new(406, "NotAcceptable", why))
        }
        Form::Table => table_of_one(call, code, object, table(served, &[object], &call.query)),
    }
}

/// The `Scale` of an object.
pub fn scale(call: &Call, code: u16, served: &Served, scale: &Value) -> Response<Body> {
    if call.accept.form != Form::Table {
        return object(call, code, served, scale);
    }
    let render = if served.custom().is_some() { table::render_custom_scale } else { table::render_scale };
    let answer = include_object(&call.query).map(|include| render(scale, Timestamp::now(), include));
    table_of_one(call, code, scale, answer)
}

fn table_of_one(call: &Call, code: u16, object: &Value, answer: Result<Value, Status>) -> Response<Body> {
    match answer {
        Ok(mut answer) => {
            let version = &object["metadata"]["resourceVersion"];
            // A dry run has none.
            answer["metadata"] = if version.is_null() { json!({}) } else { json!({"resourceVersion": version}) };
            tree(&json_only(&call.accept), code, &answer)
        }
        Err(error) => status(&call.accept, &error),
    }
}

/// What upstream's program calls the kind, which some of its messages say.
pub fn go_type(served: &Served, kind: &str) -> String {
    if served.custom().is_some() {
        let list = if kind == served.row.list_kind { "List" } else { "" };
        return format!("*unstructured.Unstructured{list}");
    }
    format!("*{}.{kind}", crate::decode::go_package(&served.row.group))
}

/// Tables have no protobuf form; upstream refuses, and no client asks without JSON as an alternative.
pub fn json_only(accept: &Accept) -> Accept {
    let encoding = if accept.encoding == Encoding::Protobuf { Encoding::Json } else { accept.encoding };
    Accept { encoding, ..*accept }
}

pub fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": convert::metadata_alone(object)})
}

pub fn include_object(query: &Query) -> Result<IncludeObject, Status> {
    match query.get("includeObject") {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        "None" => Ok(IncludeObject::None),
        other => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

pub fn table(served: &Served, objects: &[&Value], query: &Query) -> Result<Value, Status> {
    let include = include_object(query)?;
    Ok(match served.custom() {
        Some(custom) => table::render_custom(custom.columns(), objects, Timestamp::now(), include),
        None => table::render(&served.row, objects, Timestamp::now(), include),
    })
}
