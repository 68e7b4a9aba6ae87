//! In which encoding and which form a client wants its answer.
//!
//! Owns: reading `Accept` and `pretty`.
//! Called by: the pipeline, once per request; errors are answered in the same encoding.
//! Never: encodes.

use http::HeaderMap;
use minik_api::Status;

use crate::query::Query;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    /// Whether the events of a watch can follow each other in it.
    pub fn has_stream(self) -> bool {
        self != Encoding::Yaml
    }
}

/// The shape of what is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Object,
    Table,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub encoding: Encoding,
    pub form: Form,
    pub pretty: bool,
    /// The client will unpack gzip.
    pub gzip: bool,
}

/// One entry of an `Accept` header.
struct Range<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

fn ranges(header: &str) -> Vec<Range<'_>> {
    let mut all: Vec<Range<'_>> = header.split(',').filter(|r| !r.trim().is_empty()).map(range).collect();
    // A stable sort: what is wanted equally stays in the client's order.
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    all
}

fn range(text: &str) -> Range<'_> {
    let mut pieces = text.split(';').map(str::trim);
    let media_type = pieces.next().unwrap_or_default();
    let parameters: Vec<(&str, &str)> = pieces.filter_map(|p| p.split_once('=')).collect();
    let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
    Range { media_type, parameters, quality }
}

impl Range<'_> {
    fn parameter(&self, key: &str) -> &str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    /// Whether a route is found by it: the router knows whole names and the one pattern for everything.
    fn is_routable(&self) -> bool {
        self.media_type != "application/*" && self.encoding().is_some()
    }

    /// `stream` asks for something that only some encodings have.
    fn has_stream(&self, encoding: Encoding) -> bool {
        match self.parameter("stream") {
            "" => true,
            stream => encoding.has_stream() && stream == "watch",
        }
    }

    fn form(&self) -> Option<Form> {
        let meta = self.parameter("g") == "meta.k8s.io" && matches!(self.parameter("v"), "v1" | "v1beta1");
        match self.parameter("as") {
            "" => Some(Form::Object),
            "Table" if meta => Some(Form::Table),
            "PartialObjectMetadata" if meta => Some(Form::Metadata),
            "PartialObjectMetadataList" if meta => Some(Form::MetadataList),
            _ => None,
        }
    }
}

fn header(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

pub fn unpacks_gzip(headers: &HeaderMap) -> bool {
    header(headers, http::header::ACCEPT_ENCODING).split(',').any(|e| e.trim().starts_with("gzip"))
}

/// Browsers and curl get indented answers, as upstream gives them.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    query.optional_flag("pretty").unwrap_or_else(|| {
        let agent = header(headers, http::header::USER_AGENT);
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p))
    })
}

impl Accept {
    /// As `of`, for what has no protobuf form: custom resources.
    pub fn without_protobuf(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        Self::among(headers, query, |encoding, form| encoding != Encoding::Protobuf && has_form(encoding, form))
    }

    /// As `of`, for what is no row of a table: reviews.
    pub fn without_table(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        Self::among(headers, query, |_, form| form != Form::Table)
    }

    /// As `of`, for documents that have no other form than their own.
    pub fn without_form(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        Self::among(headers, query, |_, form| form == Form::Object)
    }

    pub fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        Self::among(headers, query, has_form)
    }

    fn among(headers: &HeaderMap, query: &Query, known: impl Fn(Encoding, Form) -> bool) -> Result<Self, Status> {
        let pretty = wants_pretty(headers, query);
        let gzip = unpacks_gzip(headers);
        let wanted = header(headers, http::header::ACCEPT);
        if wanted.trim().is_empty() {
            return Ok(Self { pretty, gzip, ..Self::default() });
        }
        if !ranges(wanted).iter().any(Range::is_routable) {
            return Err(unroutable());
        }
        for range in ranges(wanted) {
            if let (Some(encoding), Some(form)) = (range.encoding(), range.form())
                && known(encoding, form)
                && range.has_stream(encoding)
            {
                let pretty = pretty || range.parameter("pretty") == "1";
                return Ok(Self { encoding, form, pretty, gzip });
            }
        }
        Err(not_acceptable())
    }
}

/// Tables are never written as protobuf.
fn has_form(encoding: Encoding, form: Form) -> bool {
    encoding != Encoding::Protobuf || form != Form::Table
}

/// Some media type is known, but not in the form that is asked for.
pub fn not_acceptable() -> Status {
    let message = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    Status::new(406, "NotAcceptable", message)
}

/// A watch in an encoding that has no stream.
pub fn not_streamable() -> Status {
    let message = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    Status::new(406, "NotAcceptable", message)
}

/// No media type is known: upstream's router says so before anything else.
pub fn unroutable() -> Status {
    let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    Status::of_route(406, "NotAcceptable", message)
}

/// As `unroutable`, where the route may also be watched.
pub fn unroutable_list() -> Status {
    let unroutable = unroutable();
    let streams = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    Status { message: unroutable.message.clone() + streams, ..unroutable }
}

/// Which of these media types the client likes best, where names and patterns are all that counts; the first when it
/// does not say.
pub fn preferred(headers: &HeaderMap, known: &[&str]) -> Option<usize> {
    let wanted = header(headers, http::header::ACCEPT);
    if wanted.is_empty() {
        return Some(0);
    }
    let takes = |range: &Range<'_>, media: &str| {
        let (Some((kind, subtype)), Some((of, sub))) = (range.media_type.split_once('/'), media.split_once('/')) else {
            return false;
        };
        (kind == of || kind == "*") && (subtype == sub || subtype == "*")
    };
    ranges(wanted).iter().find_map(|range| known.iter().position(|media| takes(range, media)))
}

/// The encoding in which some entry of `Accept` asks for exactly this group, version and kind (`g`, `v`, `as`).
pub fn asks_for(headers: &HeaderMap, group: &str, version: &str, kind: &str) -> Option<Encoding> {
    ranges(header(headers, http::header::ACCEPT))
        .iter()
        .map_while(|r| Some((r.encoding()?, r)))
        .find(|(_, r)| r.parameter("g") == group && r.parameter("v") == version && r.parameter("as") == kind)
        .map(|(encoding, _)| encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &'static str) -> Result<(Encoding, Form), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, text.parse().expect("a header"));
        Accept::of(&headers, &Query::default()).map(|a| (a.encoding, a.form)).map_err(|s| s.code)
    }

    #[test]
    fn the_best_form_that_we_know_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl), Ok((Encoding::Json, Form::Table)));
        let metadata =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(accept(metadata), Ok((Encoding::Protobuf, Form::MetadataList)));
        assert_eq!(accept("application/cbor, application/json;q=0.9, */*;q=0.1"), Ok((Encoding::Json, Form::Object)));
        assert_eq!(accept("text/html"), Err(406));
        assert_eq!(accept("application/*"), Err(406));
        assert_eq!(accept("application/*, application/yaml;q=0.1"), Ok((Encoding::Json, Form::Object)));
        assert_eq!(accept("application/json;stream=watch"), Ok((Encoding::Json, Form::Object)));
        assert_eq!(accept("application/json;stream=other"), Err(406));
        assert_eq!(accept("application/yaml;stream=watch, */*"), Ok((Encoding::Json, Form::Object)));
        let preferred = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, text.parse().expect("a header"));
            preferred(&headers, &["application/json", "application/a+protobuf"])
        };
        assert_eq!(preferred("text/html, application/a+protobuf;q=0.5, */*;q=0.1"), Some(1));
        assert_eq!(preferred("application/*"), Some(0));
        assert_eq!(preferred("application/yaml"), None);
        assert_eq!(accept("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"), Err(406));
    }
}
