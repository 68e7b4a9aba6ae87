//! How every component talks to the API: transport, verbs, list+watch, cache, and the driver that runs reconcilers.
//!
//! Owns: connections, decoding of answers and watches, caches, retries, events, leases, the driver.
//! Called by: scheduler, controllers, kubelet, proxy, dns, the CLI.
//! Never: decides what a cluster should look like; that is a `Reconciler`'s business.

mod backoff;
mod cache;
mod changes;
mod directory;
mod driver;
mod error;
mod events;
mod execute;
mod http2;
mod kubeconfig;
mod leader;
mod object;
mod params;
mod plan;
mod queue;
mod reflector;
mod remote;
mod service_account;
mod tasks;
mod transport;
mod verbs;
mod view;
mod watch;

pub use backoff::Backoff;
pub use cache::{Cache, CacheBuilder, Selection, Wait};
pub use changes::{Change, ChangeReceiver};
pub use driver::{DriverConfig, drive};
pub use error::{ConfigError, DecodeError, Error, TransportError};
pub use events::{EventRecorder, EventType, Regarding};
pub use execute::Executor;
pub use kubeconfig::{Credentials, Endpoint, Kubeconfig};
pub use leader::{LeaderConfig, lead};
pub use object::{Object, intern};
pub use params::{DeleteParams, List, ListParams, Patch, Propagation, WatchParams};
pub use plan::{Action, Answer, Ask, Failure, IfFailed, Narration, Plan, Question, Reconciler, merge_difference};
pub use remote::Remote;
pub use service_account::AsServiceAccount;
pub use tasks::Tasks;
pub use transport::{Body, BoxError, Transport, body_from_bytes, empty_body};
pub use verbs::Client;
pub use view::View;
pub use watch::{WatchEvent, WatchStream};
