//! The API server as its owner holds it.
//!
//! Owns: how the parts are put together, and the two ways in: a request in process, a listener.
//! Called by: the node's wiring, tests.
//! Never: handles a request itself; that is `pipeline`.

use std::sync::Arc;
use std::time::Instant;

use minik_store::{Entry, Error, Store, Write};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::aggregation::{self, Aggregation};
use crate::audit::{AuditError, Auditor};
use crate::authn::{Authenticator, Peer};
use crate::authz::{AlwaysAllow, Authorizer};
use crate::body::Body;
use crate::catalog::{Catalog, Served};
use crate::config::{AuthorizationMode, Config};
use crate::connect::Dialer;
use crate::fairness::Fairness;
use crate::listen::{self, ServeError};
use crate::loopback::{SelfCall, StoredObjects};
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::security::{Security, SecurityError, Settings};
use crate::{bootstrap_objects, definitions, expiry, fairness, openapi, pipeline};

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the certificates of the API server cannot be used: {0}")]
    Certificate(String),
    #[error("what a cluster is born with could not be written: {0}")]
    Bootstrap(String),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Security(#[from] SecurityError),
}

/// What every request needs.
pub struct Core {
    pub config: Config,
    pub store: Store,
    pub catalog: Arc<Catalog>,
    pub objects: Arc<dyn Objects>,
    pub security: Security,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub admission: Arc<dyn Admission>,
    /// The way to kubelets, Pods and endpoints.
    pub dialer: Dialer,
    /// Groups that other servers serve.
    pub aggregation: Aggregation,
    pub openapi_ages: openapi::Ages,
    pub metrics: Metrics,
    pub fairness: Fairness,
    pub auditor: Option<Arc<Auditor>>,
    pub started: Instant,
    /// Ends watches and other long requests when the server stops.
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
}

impl Core {
    /// Stores what a request changes of a resource. What that means for what users may do holds when this returns.
    pub async fn write(&self, served: &Served, writes: Vec<Write>) -> Result<Vec<Entry>, Error> {
        let entries = self.store.transact(writes).await?;
        if let (Some(resource), Some(newest)) = (served.row.id(), entries.iter().map(|e| e.modified).max()) {
            self.security.authorizers.in_force(resource, newest).await;
        }
        Ok(entries)
    }
}

pub struct ApiServer {
    core: Arc<Core>,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

fn settings(config: &Config) -> Settings<'_> {
    Settings {
        client_ca: config.tls.as_ref().and_then(|tls| tls.client_ca.as_deref()),
        front_proxy_ca: config.front_proxy_ca.as_deref(),
        issuer: &config.service_account_issuer,
        token_key: config.service_account_key.as_deref(),
        static_tokens: config.static_tokens.clone(),
    }
}

impl ApiServer {
    pub async fn build(config: Config) -> Result<Arc<ApiServer>, BuildError> {
        let catalog = Arc::new(Catalog::built_in());
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let objects: Arc<dyn Objects> =
            Arc::new(StoredObjects::new(config.store.clone(), catalog.clone(), stopping.clone()));
        let security = Security::start(objects.clone(), &settings(&config), &tasks, &stopping)?;
        let tls = config.tls.as_ref().map(|tls| listen::acceptor(tls, &security.authenticators)).transpose()?;
        let authorizer: Arc<dyn Authorizer> = match config.authorization {
            AuthorizationMode::NodeAndRbac => security.authorizers.clone(),
            AuthorizationMode::AlwaysAllow => Arc::new(AlwaysAllow),
        };
        let core = Arc::new(Core {
            store: config.store.clone(),
            catalog,
            objects,
            authenticator: security.authenticators.clone(),
            authorizer,
            admission: security.admissions.clone(),
            security,
            dialer: Dialer::new(config.kubelet.as_ref())?,
            aggregation: Aggregation::new(config.front_proxy.clone()),
            openapi_ages: openapi::Ages::default(),
            metrics: Metrics::default(),
            fairness: Fairness::default(),
            auditor: config.audit.as_ref().map(Auditor::open).transpose()?,
            started: Instant::now(),
            stopping,
            tasks,
            config,
        });
        core.security.admissions.attach(Arc::new(SelfCall(Arc::downgrade(&core))));
        bootstrap_objects::ensure(&core).await.map_err(|s| BuildError::Bootstrap(s.message))?;
        definitions::start(&core);
        aggregation::start(&core);
        fairness::start(&core).await;
        expiry::start(&core);
        Ok(Arc::new(ApiServer { core, tls }))
    }

    /// Answers one request without a socket. A `UserInfo` in the extensions says who asks; without one the headers do.
    pub async fn handle(&self, request: http::Request<Body>) -> http::Response<Body> {
        pipeline::handle(&self.core, request, &Peer::default()).await
    }

    /// Serves until `cancel`, then lets requests finish.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, cancel: CancellationToken) -> Result<(), ServeError> {
        listen::serve(self.core.clone(), self.tls.clone(), listener, cancel).await
    }

    /// Ends watches and background work; requests in process fail to wait for nothing afterwards.
    pub async fn stop(&self) {
        self.core.stopping.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}
