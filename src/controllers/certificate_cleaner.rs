//! Deletes certificate requests that have served their purpose or never will.
//!
//! Owns: how long CertificateSigningRequests and PodCertificateRequests are kept.
//! Called by: the driver.
//! Never: looks round for old ones; each request's time of deletion is a deadline of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use minik_api::resources::{CERTIFICATESIGNINGREQUESTS, PODCERTIFICATEREQUESTS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Plan, Reconciler, View};
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::certificate_request::{is_issued, pem_block};
use crate::fields::{list, parse_time, text};

/// After a decision was made and carried out; upstream's times.
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);
const POD_REQUEST_KEPT: SignedDuration = SignedDuration::from_mins(15);

pub(crate) enum CertificateCleaner {
    Signing,
    Pods,
}

impl CertificateCleaner {
    fn resource(&self) -> ResourceId {
        match self {
            CertificateCleaner::Signing => CERTIFICATESIGNINGREQUESTS,
            CertificateCleaner::Pods => PODCERTIFICATEREQUESTS,
        }
    }
    fn until(&self, object: &Value) -> Option<Timestamp> {
        match self {
            CertificateCleaner::Signing => kept_until(object),
            CertificateCleaner::Pods => Some(created(object)? + POD_REQUEST_KEPT),
        }
    }
}

impl Reconciler for CertificateCleaner {
    fn name(&self) -> &'static str {
        match self {
            CertificateCleaner::Signing => "certificatesigningrequest-cleaner",
            CertificateCleaner::Pods => "podcertificaterequest-cleaner",
        }
    }
    fn watches(&self) -> &'static [ResourceId] {
        match self {
            CertificateCleaner::Signing => &[CERTIFICATESIGNINGREQUESTS],
            CertificateCleaner::Pods => &[PODCERTIFICATEREQUESTS],
        }
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(object) = view.get_key(self.resource(), key) else { return Plan::nothing() };
        match self.until(object) {
            Some(until) if until <= now && !object::is_deleting(object) => {
                Plan::of(vec![Action::delete(self.resource(), object)])
            }
            Some(until) if until > now => Plan { requeue_at: Some(until), ..Plan::nothing() },
            _ => Plan::nothing(),
        }
    }
}

fn created(object: &Value) -> Option<Timestamp> {
    parse_time(&object["metadata"]["creationTimestamp"])
}

/// The earliest time at which one of the reasons to delete holds.
fn kept_until(object: &Value) -> Option<Timestamp> {
    let conditions = list(&object["status"]["conditions"]);
    if conditions.is_empty() {
        return Some(created(object)? + PENDING_KEPT);
    }
    let issued = is_issued(object);
    let by_condition = conditions.iter().filter_map(|condition| {
        let since = parse_time(&condition["lastUpdateTime"])?;
        match text(&condition["type"]) {
            "Denied" | "Failed" => Some(since + DECIDED_KEPT),
            "Approved" => Some(since + if issued { DECIDED_KEPT } else { PENDING_KEPT }),
            _ => None,
        }
    });
    let approved = conditions.iter().any(|c| c["type"] == "Approved");
    let expiry = if approved { certificate_end(object) } else { None };
    by_condition.chain(expiry).min()
}

fn certificate_end(object: &Value) -> Option<Timestamp> {
    let pem = String::from_utf8(BASE64.decode(text(&object["status"]["certificate"])).ok()?).ok()?;
    let der = pem_block(&pem, "CERTIFICATE")?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate_authority::fixture::authority;
    use serde_json::json;

    fn plan(status: Value, now: &str) -> String {
        let object = json!({"metadata": {"name": "r", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": status});
        let view = View::of([(CERTIFICATESIGNINGREQUESTS, object)]);
        CertificateCleaner::Signing.plan(&view, &ObjectKey::new("", "r"), now.parse().unwrap()).to_string()
    }

    #[test]
    fn an_undecided_request_is_kept_for_a_day_and_a_denied_one_for_an_hour() {
        assert_eq!(plan(json!({}), "2026-01-01T10:00:00Z"), "again at 2026-01-02T00:00:00Z\n");
        assert_eq!(plan(json!({}), "2026-01-02T00:00:00Z"), "delete certificatesigningrequests r\n");
        let denied = json!({"conditions": [{"type": "Denied", "lastUpdateTime": "2026-01-01T00:10:00Z"}]});
        assert_eq!(plan(denied.clone(), "2026-01-01T01:00:00Z"), "again at 2026-01-01T01:10:00Z\n");
        assert_eq!(plan(denied, "2026-01-01T01:10:00Z"), "delete certificatesigningrequests r\n");
    }

    #[test]
    fn an_approved_request_is_kept_longer_while_nobody_has_signed_it_and_never_longer_than_its_certificate() {
        let approved = |certificate: &str| {
            json!({"certificate": certificate,
                "conditions": [{"type": "Approved", "lastUpdateTime": "2026-01-01T00:10:00Z"}]})
        };
        assert_eq!(plan(approved(""), "2026-01-01T01:00:00Z"), "again at 2026-01-02T00:10:00Z\n");
        let unreadable = BASE64.encode("no certificate");
        assert_eq!(plan(approved(&unreadable), "2026-01-01T01:00:00Z"), "again at 2026-01-01T01:10:00Z\n");
        // The authority's own certificate will do: it is valid for very long.
        let valid = BASE64.encode(authority().1);
        assert_eq!(plan(approved(&valid), "2026-01-01T01:00:00Z"), "again at 2026-01-01T01:10:00Z\n");
    }
}
