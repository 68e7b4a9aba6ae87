//! Which state of the world a list shows, and where its next page starts.
//!
//! Owns: `resourceVersion`, `resourceVersionMatch`, `limit` and `continue` of a list.
//! Called by: list, deletion of collections.
//! Never: reads the store.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minik_api::{FieldError, Status};
use minik_store::Revision;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::query::Query;
use crate::rest::get::parse_revision;

/// Which revision to read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Now,
    NotOlderThan(Revision),
    Exactly(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub at: At,
    pub limit: usize,
    /// The last key of the page before, without the resource's prefix.
    pub start_after: Option<String>,
}

/// What a continue token says; the fields are etcd3's.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1: go on in whatever there is now.
    rv: i64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

pub fn token(revision: Option<Revision>, start_after: &str) -> String {
    let rv = revision.map_or(-1, |r| r.0 as i64);
    let token = Token { v: TOKEN_VERSION.into(), rv, start: start_after.into() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("strings and a number"))
}

fn open_token(text: &str) -> Result<Token, Status> {
    let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| bad(&e.to_string()))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
    if token.v != TOKEN_VERSION || token.start.is_empty() {
        return Err(bad(&format!("server does not recognize this encoded version {:?}", token.v)));
    }
    Ok(token)
}

impl PageRequest {
    pub fn of(query: &Query) -> Result<Self, Status> {
        check(query)?;
        // Upstream reads all options before it heeds any.
        query.number("timeoutSeconds")?;
        let limit = query.number("limit")?.unwrap_or(0).max(0) as usize;
        let (version, exact) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
        if !query.get("continue").is_empty() {
            if !version.is_empty() && version != "0" {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = open_token(query.get("continue"))?;
            let at = if token.rv < 0 { At::Now } else { At::Exactly(Revision(token.rv as u64)) };
            return Ok(Self { at, limit, start_after: Some(token.start) });
        }
        let revision = parse_revision(version)
            .map_err(|s| Status::bad_request(format!("invalid resource version: {}", s.message)))?;
        let at = match exact {
            _ if revision.0 == 0 => At::Now,
            "Exact" => At::Exactly(revision),
            "NotOlderThan" => At::NotOlderThan(revision),
            // Before resourceVersionMatch there was, a limited list at a revision meant exactly that one.
            _ if limit > 0 => At::Exactly(revision),
            _ => At::NotOlderThan(revision),
        };
        Ok(Self { at, limit, start_after: None })
    }
}

fn check(query: &Query) -> Result<(), Status> {
    let (version, exact) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let path = "resourceVersionMatch";
    let mut faults = Vec::new();
    if !exact.is_empty() {
        if version.is_empty() {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            faults.push(FieldError::forbidden(path, detail));
        }
        if !query.get("continue").is_empty() {
            faults.push(FieldError::forbidden(path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(exact, "Exact" | "NotOlderThan") {
            faults.push(FieldError::not_supported(path, &json!(exact), &["Exact", "NotOlderThan", ""]));
        }
        if exact == "Exact" && version == "0" {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            faults.push(FieldError::forbidden(path, detail));
        }
    }
    if query.has("sendInitialEvents") {
        faults.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &faults)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(query: &str) -> Result<At, u16> {
        PageRequest::of(&Query::parse(query)).map(|p| p.at).map_err(|s| s.code)
    }

    #[test]
    fn resource_versions_of_lists_mean_what_the_documentation_says() {
        assert_eq!(at(""), Ok(At::Now));
        assert_eq!(at("resourceVersion=0"), Ok(At::Now));
        assert_eq!(at("resourceVersion=7"), Ok(At::NotOlderThan(Revision(7))));
        assert_eq!(at("resourceVersion=7&limit=5"), Ok(At::Exactly(Revision(7))));
        assert_eq!(
            at("resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5"),
            Ok(At::NotOlderThan(Revision(7)))
        );
        assert_eq!(at("resourceVersion=7&resourceVersionMatch=Exact"), Ok(At::Exactly(Revision(7))));
        assert_eq!(at("resourceVersionMatch=Exact"), Err(422));
        assert_eq!(at("resourceVersion=0&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(at("resourceVersion=x"), Err(400));
        assert_eq!(at("continue=nonsense"), Err(400));
    }

    #[test]
    fn a_token_leads_back_to_its_place() {
        let query = Query::parse(&format!("limit=2&continue={}", token(Some(Revision(9)), "default/a")));
        let page = PageRequest::of(&query).expect("a page");
        assert_eq!((page.at, page.start_after.as_deref()), (At::Exactly(Revision(9)), Some("default/a")));
        let inconsistent = Query::parse(&format!("continue={}", token(None, "default/a")));
        assert_eq!(PageRequest::of(&inconsistent).expect("a page").at, At::Now);
    }
}
