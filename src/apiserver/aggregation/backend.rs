//! One extension API server as an APIService describes it.
//!
//! Owns: reading the description, the TLS towards it, and where it is at this moment.
//! Called by: the relay for every request, the availability check.
//! Never: sends a request.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use minik_api::{object, resources};
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::order::Priority;
use super::published::Published;
use crate::config::KeyPair;
use crate::connect::dial::{self, Connection, DialError};
use crate::connect::location;
use crate::objects::Objects;
use crate::trust;

const HTTPS_PORT: u16 = 443;

/// What of an APIService says where its server is and whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub service: String,
    pub port: u16,
    /// PEM in base64; empty for none.
    bundle: String,
    insecure: bool,
}

pub struct Backend {
    /// Of the APIService.
    pub name: String,
    pub group: String,
    pub version: String,
    pub priority: Priority,
    pub target: Target,
    /// As its condition says; requests to others are refused.
    pub available: bool,
    /// Whether there is such a condition: it may not be written yet, or overwritten.
    pub judged: bool,
    /// What it published last: discovery and OpenAPI. Kept while the APIService is there.
    pub published: Arc<ArcSwapOption<Published>>,
    tls: Result<Arc<ClientConfig>, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl Target {
    pub fn of(service: &Value) -> Option<Self> {
        let spec = &service["spec"];
        let reference = spec.get("service").filter(|s| s.is_object())?;
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        Some(Self {
            namespace: text(&reference["namespace"]),
            service: text(&reference["name"]),
            port: reference["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(HTTPS_PORT),
            bundle: text(&spec["caBundle"]),
            insecure: spec["insecureSkipTLSVerify"] == true,
        })
    }

    /// The name its certificate must be for.
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

impl Backend {
    /// `None` for an APIService that this server serves itself. What stays the same is taken over from `before`.
    pub fn of(service: &Value, before: Option<&Backend>, identity: Option<&KeyPair>) -> Option<Self> {
        let target = Target::of(service)?;
        let spec = &service["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or("").to_string();
        let number = |field: &str| spec[field].as_i64().unwrap_or(0);
        let tls = match before.filter(|b| b.target == target) {
            Some(same) => same.tls.clone(),
            None if target.insecure => trust::of_anybody(identity),
            None => trust::of_bundle(&target.bundle, identity),
        };
        Some(Self {
            name: object::name(service).into(),
            group: text("group"),
            version: text("version"),
            priority: Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") },
            target,
            available: super::availability::is_available(service),
            judged: super::availability::is_judged(service),
            published: before.map(|b| b.published.clone()).unwrap_or_default(),
            tls,
        })
    }

    /// Where its Service leads now: `host`, `port`. To an endpoint directly, so that it does not matter whether the
    /// node this server runs on has caught up with the Service's addresses.
    pub fn place(&self, objects: &dyn Objects) -> Result<(String, u16), ReachError> {
        let Target { namespace, service: name, port, .. } = &self.target;
        let service =
            objects.get(resources::SERVICES, namespace, name).ok_or_else(|| ReachError::NoService(name.clone()))?;
        if service["spec"]["type"] == "ExternalName" {
            return Ok((service["spec"]["externalName"].as_str().unwrap_or("").into(), *port));
        }
        let Some(port_name) = port_name(&service, *port) else { return Err(ReachError::NoEndpoints(name.clone())) };
        let slices = objects.list(resources::ENDPOINTSLICES, namespace);
        let found: Vec<(String, u16)> =
            slices.iter().filter(|s| leads_to(s, name)).flat_map(|s| location::ready(s, port_name)).collect();
        found.choose(&mut rand::rng()).cloned().ok_or_else(|| ReachError::NoEndpoints(name.clone()))
    }

    /// Its version in aggregated discovery. One that could not be asked yet is there all the same, empty and stale.
    pub fn discovered(&self) -> Value {
        let published = self.published.load_full();
        let mut version = published.as_ref().map(|p| p.discovery.clone()).unwrap_or_default();
        if !version.is_object() {
            version = json!({"version": self.version});
        }
        let stale = published.is_none_or(|p| p.stale);
        version["freshness"] = if stale { "Stale" } else { "Current" }.into();
        version
    }

    pub async fn connect(&self, host: &str, port: u16) -> Result<Connection, ReachError> {
        let tls = self.tls.as_ref().map_err(|e| ReachError::Tls(e.clone()))?;
        Ok(dial::open_named(tls, &self.target.server_name(), host, port).await?)
    }
}

/// The name of the Service's port with this number; endpoints know ports by name.
pub fn port_name(service: &Value, port: u16) -> Option<&str> {
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports.find(|p| p["port"].as_u64() == Some(port.into()))?;
    Some(found["name"].as_str().unwrap_or(""))
}

pub fn leads_to(slice: &Value, service: &str) -> bool {
    object::label(slice, "kubernetes.io/service-name") == Some(service)
}
