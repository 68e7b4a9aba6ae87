//! Which container of a Pod is meant, and how a client's options read in the kubelet's language.
//!
//! Owns: the checks of log, exec, attach and portforward options, in upstream's words.
//! Called by: the streams.
//! Never: does IO.

use minik_api::{FieldError, Status, object};
use serde_json::Value;

use crate::query::Query;

/// All containers in the order of upstream's walk over them.
fn containers(pod: &Value) -> impl Iterator<Item = &str> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    lists.flat_map(|l| pod["spec"][l].as_array().into_iter().flatten()).filter_map(|c| c["name"].as_str())
}

pub fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = object::name(pod);
    if !asked.is_empty() {
        let known = containers(pod).any(|c| c == asked);
        let refused = || Status::bad_request(format!("container {asked} is not valid for pod {name}"));
        return if known { Ok(asked.into()) } else { Err(refused()) };
    }
    let main = pod["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
    match main {
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        [only] => Ok(only["name"].as_str().unwrap_or("").into()),
        _ => {
            let all: Vec<&str> = containers(pod).collect();
            let message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", all.join(" "));
            Err(Status::bad_request(message))
        }
    }
}

/// The Node the Pod runs on.
pub fn host(pod: &Value) -> Result<&str, Status> {
    let name = object::name(pod);
    assigned(pod).ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))
}

pub fn assigned(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())
}

/// So that a value may stand in a query.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn joined(pairs: &[(&str, String)]) -> String {
    let each: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={}", percent_encode(v))).collect();
    each.join("&")
}

/// Options of a log, checked.
pub fn log_query(pod_name: &str, query: &Query) -> Result<String, Status> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            pairs.push((flag, "true".into()));
        }
    }
    let mut faults = Vec::new();
    for (field, least, words) in [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        let Some(number) = query.number(field)? else { continue };
        if number < least {
            faults.push(FieldError::invalid(field, &number.into(), words));
        }
        pairs.push((field, number.to_string()));
    }
    let since = query.get("sinceTime");
    if !since.is_empty() {
        let parsed: Result<jiff::Timestamp, _> = since.parse();
        parsed.map_err(|e| Status::bad_request(e.to_string()))?;
        pairs.push(("sinceTime", since.into()));
        if query.has("sinceSeconds") {
            faults.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
    }
    match query.get("stream") {
        "" => {}
        stream @ ("All" | "Stdout" | "Stderr") => {
            if stream != "All" && query.has("tailLines") {
                let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
                faults.push(FieldError::forbidden("", detail));
            }
            pairs.push(("stream", stream.into()));
        }
        other => faults.push(FieldError::not_supported("stream", &other.into(), &["All", "Stderr", "Stdout"])),
    }
    if faults.is_empty() { Ok(joined(&pairs)) } else { Err(Status::invalid("", "PodLogOptions", pod_name, &faults)) }
}

/// Options of exec and attach.
pub fn stream_query(query: &Query) -> String {
    let mut pairs = Vec::new();
    for (asked, told) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(asked) {
            pairs.push((told, "1".to_string()));
        }
    }
    pairs.extend(query.all("command").map(|c| ("command", c.to_string())));
    joined(&pairs)
}

/// Ports of a WebSocket port-forward; with SPDY they come later, in the streams.
pub fn ports_query(query: &Query) -> Result<String, Status> {
    let mut pairs = Vec::new();
    for port in query.all("ports").flat_map(|p| p.split(',')).filter(|p| !p.is_empty()) {
        let number: u16 =
            port.trim().parse().map_err(|_| Status::bad_request(format!("unable to parse {port:?} as a port")))?;
        pairs.push(("port", number.to_string()));
    }
    Ok(joined(&pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_must_be_named_when_there_are_several() {
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let one = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}});
        let said = |pod: &Value, asked: &str| container(pod, asked).unwrap_or_else(|s| s.message);
        assert_eq!(said(&one, ""), "a");
        assert_eq!(said(&one, "i"), "i");
        assert_eq!(said(&two, ""), "a container name must be specified for pod p, choose one of: [a b]");
        assert_eq!(said(&two, "x"), "container x is not valid for pod p");
        assert_eq!(host(&two).expect_err("no node").message, "pod p does not have a host assigned");
    }

    fn log(query: &str) -> String {
        log_query("p", &Query::parse(query)).unwrap_or_else(|s| s.message)
    }

    #[test]
    fn log_options_are_checked_and_passed_on() {
        assert_eq!(log("follow=true&tailLines=5&previous=false&container=a"), "follow=true&tailLines=5");
        assert_eq!(log("sinceTime=2026-01-01T00:00:00Z"), "sinceTime=2026-01-01T00%3A00%3A00Z");
        assert_eq!(
            log("tailLines=-1"),
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(
            log("limitBytes=0"),
            "PodLogOptions \"p\" is invalid: limitBytes: Invalid value: 0: must be greater than 0"
        );
    }

    #[test]
    fn options_of_a_command_read_as_the_kubelet_reads_them() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=1&stderr=false&tty=true");
        assert_eq!(stream_query(&query), "input=1&output=1&tty=1&command=sh&command=-c&command=echo%20a%26b");
        assert_eq!(ports_query(&Query::parse("ports=80,81&ports=90")).expect("ports"), "port=80&port=81&port=90");
        assert!(ports_query(&Query::parse("ports=http")).is_err());
    }
}
