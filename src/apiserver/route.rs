//! What a request is about, from its method, path and query.
//!
//! Owns: `RequestInfo`, read exactly as upstream's RequestInfoFactory reads it, since RBAC decides by it.
//! Called by: the pipeline, once per request.
//! Never: knows which resources exist.

use http::Method;
use minik_api::selector::{FieldRequirement, FieldSelector, LabelSelector, Requirement};

use crate::query::{Query, percent_decode};

#[derive(Clone, Debug, Default)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// API verb of a resource request, the lower-case method otherwise.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource: the path that a proxy request asks for, as it was sent.
    pub rest: String,
    pub fields: Vec<FieldRequirement>,
    pub labels: Vec<Requirement>,
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

impl RequestInfo {
    pub fn of(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.into(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let decoded = percent_decode(path);
        // A slash is one however it is written. Where none is hidden, the path is kept as it was sent.
        let slashes = |text: &str| text.matches('/').count();
        let path = if slashes(&decoded) == slashes(path) { path } else { decoded.as_ref() };
        // Between two slashes is an empty name, which no resource has and which stands for every namespace.
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let parts = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = percent_decode(version).into_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = percent_decode(group).into_owned();
                info.version = percent_decode(version).into_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = verb_of(method).into();
        info.resource(parts, path);
        info.refine(query);
        info
    }

    fn resource(&mut self, parts: &[&str], path: &str) {
        let mut parts = parts;
        // The old spelling of a watch, `/api/v1/watch/pods`.
        if parts.len() > 1 && parts[0] == "watch" {
            self.verb = "watch".into();
            parts = &parts[1..];
        }
        if let ["namespaces", namespace, rest @ ..] = parts {
            self.namespace = percent_decode(namespace).into_owned();
            if !rest.is_empty() && !matches!(rest[0], "status" | "finalize") {
                parts = rest;
            }
        }
        let text = |at: usize| parts.get(at).map(|s| percent_decode(s).into_owned()).unwrap_or_default();
        (self.resource, self.name, self.subresource) = (text(0), text(1), text(2));
        if parts.len() > 3 || (parts.len() == 3 && path.ends_with('/')) {
            self.rest = tail(path, parts[2]).into();
        }
    }

    fn refine(&mut self, query: &Query) {
        if !self.name.is_empty() && self.verb != "watch" {
            return;
        }
        match self.verb.as_str() {
            "get" if query.flag("watch") => self.verb = "watch".into(),
            "get" => self.verb = "list".into(),
            "delete" => self.verb = "deletecollection".into(),
            _ => {}
        }
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            if let Ok(fields) = FieldSelector::parse(query.get("fieldSelector")) {
                if let Some(name) = fields.exact("metadata.name").filter(|_| self.name.is_empty()) {
                    self.name = name.into();
                }
                self.fields = fields.requirements().to_vec();
            }
            if let Ok(labels) = LabelSelector::parse(query.get("labelSelector")) {
                self.labels = labels.requirements().to_vec();
            }
        }
    }
}

/// The path after `segment`, which is a piece of it, with its leading slash. By place and not by text: a namespace may
/// be called like a resource.
fn tail<'a>(path: &'a str, segment: &str) -> &'a str {
    let begin = (segment.as_ptr() as usize).saturating_sub(path.as_ptr() as usize);
    path.get(begin + segment.len()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, expected: &str) {
        let method: Method = method.parse().expect("a method");
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let i = RequestInfo::of(&method, path, &Query::parse(query));
        let seen = format!(
            "{} {}/{} {} ns={} name={} sub={} rest={}",
            i.verb, i.group, i.version, i.resource, i.namespace, i.name, i.subresource, i.rest
        );
        assert_eq!(if i.is_resource { seen } else { format!("{} {}", i.verb, i.path) }, expected, "{uri}");
    }

    #[test]
    fn paths_mean_what_they_mean_upstream() {
        check("GET", "/healthz", "get /healthz");
        check("GET", "/apis/apps/v1", "get /apis/apps/v1");
        check("GET", "/api/v1/pods", "list /v1 pods ns= name= sub= rest=");
        check("GET", "/api/v1/namespaces", "list /v1 namespaces ns= name= sub= rest=");
        check("GET", "/api/v1/namespaces/a", "get /v1 namespaces ns=a name=a sub= rest=");
        check("PUT", "/api/v1/namespaces/a/finalize", "update /v1 namespaces ns=a name=a sub=finalize rest=");
        check("POST", "/api/v1/namespaces/a/pods", "create /v1 pods ns=a name= sub= rest=");
        check(
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 deployments ns=a name= sub= rest=",
        );
        check("GET", "/api/v1/namespaces/a/pods?watch=1", "watch /v1 pods ns=a name= sub= rest=");
        check(
            "GET",
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx",
            "list /v1 pods ns=a name=x sub= rest=",
        );
        check("POST", "/api/v1/namespaces/a/pods/x/exec?command=ls", "create /v1 pods ns=a name=x sub=exec rest=");
        check("GET", "/api/v1/namespaces/", "list /v1 namespaces ns= name= sub= rest=");
        check("GET", "/api/v1/namespaces//pods", "list /v1 pods ns= name= sub= rest=");
        check("GET", "/api/v1//namespaces", "get /v1  ns= name=namespaces sub= rest=");
        check("GET", "/api/v1/namespaces/a/configmaps/b%2Fc", "get /v1 configmaps ns=a name=b sub=c rest=");
        check("GET", "/api/v1/watch/namespaces/a/pods/x", "watch /v1 pods ns=a name=x sub= rest=");
    }

    #[test]
    fn a_proxied_path_is_kept_as_it_was_sent() {
        check(
            "GET",
            "/api/v1/namespaces/a/services/web:80/proxy/x%20y/z/",
            "get /v1 services ns=a name=web:80 sub=proxy rest=/x%20y/z/",
        );
        check(
            "GET",
            "/api/v1/namespaces/pods/pods/pods/proxy/proxy",
            "get /v1 pods ns=pods name=pods sub=proxy rest=/proxy",
        );
        check("GET", "/api/v1/namespaces/a/pods/p/proxy/", "get /v1 pods ns=a name=p sub=proxy rest=/");
    }
}
