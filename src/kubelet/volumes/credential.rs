//! podCertificate sources: a key made here and the certificate that a signer issues for it.
//!
//! Owns: the request for the certificate, what became of it, and when to ask for the next.
//! Called by: projected volumes, at set-up, when the request changed and when the certificate is to be renewed.
//! Never: keeps a key when the kubelet ends: a new one is made, as upstream does.

use std::time::Duration;

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodCertificateProjection;
use minik_api::object;
use minik_api::resources::{NODES, PODCERTIFICATEREQUESTS, SERVICEACCOUNTS};
use serde_json::{Value, json};

use super::{Context, VolumeError, pem, private_key};
use crate::events::PodEvents;
use crate::pod::Pod;
use crate::sources::Held;

/// Most signers answer at once; a pod need not complain about those.
const PATIENCE: Duration = Duration::from_secs(2);
/// A renewal that could not be asked for.
const ASK_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A renewal that takes longer than this is told to the user.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// One source of one volume.
#[derive(Default)]
pub enum Credential {
    #[default]
    Wanted,
    Asked(Asked),
    Issued(Issued),
    Renewing {
        old: Issued,
        asked: Asked,
    },
    /// Nobody asks again for what was denied or failed.
    Refused(String),
}

/// A request that waits for its signer.
pub struct Asked {
    key: String,
    name: String,
    request: Held,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    pub key: String,
    pub chain: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
    told: Told,
}

/// What the user was told of a certificate that is not renewed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Overdue,
    Expired,
}

/// What a request says, read from its conditions.
#[derive(Debug, PartialEq)]
enum Answer {
    Pending,
    Gone,
    Issued { chain: String, refresh_at: Timestamp, expires_at: Timestamp },
    Refused { condition: &'static str, reason: String, message: String },
}

/// Whose credential it is.
pub struct Owner<'a> {
    pub context: &'a Context,
    pub pod: &'a Pod,
    pub source: &'a PodCertificateProjection,
}

impl Credential {
    /// Asks for what is missing and takes what was answered.
    pub async fn advance(&mut self, owner: &Owner<'_>) -> Result<(), VolumeError> {
        let now = Timestamp::now();
        match self {
            Self::Wanted => *self = Self::Asked(owner.ask().await?),
            Self::Issued(issued) if issued.refresh_at <= now => match owner.ask().await {
                Ok(asked) => *self = Self::Renewing { old: issued.clone(), asked },
                Err(error) => {
                    tracing::warn!(pod = %owner.pod.key, %error, "could not ask for a new pod certificate; will retry");
                    issued.refresh_at = now + ASK_AGAIN_AFTER;
                }
            },
            Self::Asked(_) | Self::Issued(_) | Self::Renewing { .. } | Self::Refused(_) => {}
        }
        let answer = match self {
            Self::Asked(asked) => asked.answer(PATIENCE).await?,
            Self::Renewing { asked, .. } => asked.answer(Duration::ZERO).await?,
            Self::Wanted | Self::Issued(_) | Self::Refused(_) => return Ok(()),
        };
        self.take(answer, owner, now);
        Ok(())
    }

    fn take(&mut self, answer: Answer, owner: &Owner<'_>, now: Timestamp) {
        let events = PodEvents::new(&owner.context.recorder, owner.pod);
        match (answer, std::mem::take(self)) {
            (Answer::Pending, Self::Renewing { mut old, asked }) => {
                old.complain(&events, now);
                *self = Self::Renewing { old, asked };
            }
            (Answer::Gone, Self::Renewing { old, .. }) => *self = Self::Issued(old),
            (Answer::Gone, _) => {}
            (Answer::Issued { chain, refresh_at, expires_at }, Self::Asked(asked) | Self::Renewing { asked, .. }) => {
                *self = Self::Issued(Issued { key: asked.key, chain, refresh_at, expires_at, told: Told::Nothing });
            }
            (Answer::Refused { condition, reason, message }, Self::Asked(asked) | Self::Renewing { asked, .. }) => {
                let verb = if condition == "Denied" { "was denied" } else { "failed" };
                let request = format!("{}/{}", owner.pod.namespace(), asked.name);
                let told = format!("PodCertificateRequest {request} {verb}, reason={reason:?}, message={message:?}");
                events.warning(None, condition, &told);
                let condition = condition.to_lowercase();
                *self = Self::Refused(format!(
                    "PodCertificateRequest was permanently {condition}: reason={reason:?} message={message:?}"
                ));
            }
            (Answer::Pending | Answer::Issued { .. } | Answer::Refused { .. }, same) => *self = same,
        }
    }

    /// The key and its chain, as long as nobody refused.
    pub fn current(&self) -> Result<&Issued, VolumeError> {
        match self {
            Self::Issued(issued) | Self::Renewing { old: issued, .. } => Ok(issued),
            Self::Wanted | Self::Asked(_) => {
                Err(VolumeError::Credential("credential bundle is not issued yet".to_string()))
            }
            Self::Refused(why) => Err(VolumeError::Credential(why.clone())),
        }
    }

    /// When there is something to do without a change of the request.
    pub fn wake_at(&self) -> Option<Timestamp> {
        match self {
            Self::Issued(issued) => Some(issued.refresh_at),
            Self::Renewing { old, .. } => old.complains_at(),
            Self::Wanted | Self::Asked(_) | Self::Refused(_) => None,
        }
    }

    /// The request that is waited for.
    pub fn request(&self) -> Option<&Held> {
        match self {
            Self::Asked(asked) | Self::Renewing { asked, .. } => Some(&asked.request),
            Self::Wanted | Self::Issued(_) | Self::Refused(_) => None,
        }
    }
}

impl Issued {
    fn complains_at(&self) -> Option<Timestamp> {
        match self.told {
            Told::Nothing => Some((self.refresh_at + OVERDUE_AFTER).min(self.expires_at)),
            Told::Overdue => Some(self.expires_at),
            Told::Expired => None,
        }
    }

    fn complain(&mut self, events: &PodEvents, now: Timestamp) {
        if self.told < Told::Overdue && self.refresh_at + OVERDUE_AFTER <= now {
            self.told = Told::Overdue;
            events.warning(None, "CertificateOverdueForRefresh", "PodCertificate refresh overdue");
        }
        if self.told < Told::Expired && self.expires_at <= now {
            self.told = Told::Expired;
            events.warning(None, "CertificateExpired", "PodCertificate expired");
        }
    }
}

impl Asked {
    async fn answer(&mut self, patience: Duration) -> Result<Answer, VolumeError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let request = self.request.get(&self.name).await?;
            let answer = request.as_deref().map_or(Answer::Gone, read);
            let changed = tokio::time::timeout_at(deadline, self.request.clone().changed());
            if answer != Answer::Pending || changed.await.is_err() {
                return Ok(answer);
            }
        }
    }
}

fn read(request: &Value) -> Answer {
    let status = &request["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let time = |field: &str| status[field].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let refused = |name| {
            let (reason, message) = (text(&condition["reason"]), text(&condition["message"]));
            Answer::Refused { condition: name, reason, message }
        };
        match condition["type"].as_str() {
            Some("Denied") => return refused("Denied"),
            Some("Failed") => return refused("Failed"),
            Some("Issued") => {
                // The API server lets no request be issued without its times.
                let (Some(refresh_at), Some(expires_at)) = (time("beginRefreshAt"), time("notAfter")) else { continue };
                let chain = pem::clean_chain(status["certificateChain"].as_str().unwrap_or_default());
                return Answer::Issued { chain, refresh_at, expires_at };
            }
            _ => {}
        }
    }
    Answer::Pending
}

impl Owner<'_> {
    /// Makes a key and asks the signer for a certificate.
    async fn ask(&self) -> Result<Asked, VolumeError> {
        let key_type = self.source.key_type.clone();
        let key = tokio::task::spawn_blocking(move || private_key::generate(&key_type)).await;
        let key = key.map_err(|e| self.failed(&e))?.map_err(|e| self.failed(&e))?;
        let namespace = self.pod.namespace();
        let body = self.request(&key.request).await?;
        let made = self.context.client.create(PODCERTIFICATEREQUESTS, namespace, &body).await;
        let made = made.map_err(|e| VolumeError::Credential(format!("while creating on API: {}", e.chain())))?;
        let name = object::name(&made).to_string();
        // A node may list no requests but its own.
        let fields = format!("metadata.name={name},spec.nodeName={}", self.context.node_name);
        let request = self.context.sources.hold_selected(PODCERTIFICATEREQUESTS, namespace, &fields);
        Ok(Asked { key: key.pem, name, request })
    }

    async fn request(&self, proof: &[u8]) -> Result<Value, VolumeError> {
        let (pod, source) = (self.pod, self.source);
        let account = pod.spec.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let client = &self.context.client;
        let found = client.get(SERVICEACCOUNTS, pod.namespace(), account).await;
        let found =
            found.map_err(|e| VolumeError::Credential(format!("while fetching service account: {}", e.chain())))?;
        let node = client.get(NODES, "", &self.context.node_name).await;
        let node = node.map_err(|e| VolumeError::Credential(format!("while getting node object: {}", e.chain())))?;
        let mut spec = json!({
            "signerName": source.signer_name,
            "podName": pod.name(), "podUID": pod.uid,
            "serviceAccountName": account, "serviceAccountUID": object::uid(&found),
            "nodeName": self.context.node_name, "nodeUID": object::uid(&node),
            "stubPKCS10Request": base64::engine::general_purpose::STANDARD.encode(proof),
        });
        if let Some(seconds) = source.max_expiration_seconds {
            spec["maxExpirationSeconds"] = seconds.into();
        }
        if let Some(annotations) = &source.user_annotations {
            spec["unverifiedUserAnnotations"] = json!(annotations);
        }
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
            "metadata": {
                "namespace": pod.namespace(),
                "generateName": "req-",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid}],
            },
            "spec": spec,
        }))
    }

    fn failed(&self, error: &dyn std::error::Error) -> VolumeError {
        VolumeError::Credential(format!("while generating keypair: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_by_its_conditions() {
        assert_eq!(read(&json!({})), Answer::Pending);
        let denied = json!({"status": {"conditions": [{"type": "Denied", "reason": "Policy", "message": "no"}]}});
        let refused = Answer::Refused { condition: "Denied", reason: "Policy".into(), message: "no".into() };
        assert_eq!(read(&denied), refused);
        let chain = pem::encode("CERTIFICATE", b"leaf");
        let issued = json!({"status": {
            "conditions": [{"type": "Issued", "status": "True"}], "certificateChain": format!("leaf:\n{chain}"),
            "beginRefreshAt": "2026-01-01T12:00:00Z", "notAfter": "2026-01-02T00:00:00Z",
        }});
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (refresh_at, expires_at) = (at("2026-01-01T12:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert_eq!(read(&issued), Answer::Issued { chain, refresh_at, expires_at });
    }

    #[test]
    fn a_late_renewal_is_told_when_overdue_and_when_expired() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let mut issued = Issued {
            key: String::new(),
            chain: String::new(),
            refresh_at: at("2026-01-01T12:00:00Z"),
            expires_at: at("2026-01-02T00:00:00Z"),
            told: Told::Nothing,
        };
        assert_eq!(issued.complains_at(), Some(at("2026-01-01T12:10:00Z")));
        issued.told = Told::Overdue;
        assert_eq!(issued.complains_at(), Some(issued.expires_at));
    }
}
