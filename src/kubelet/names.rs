//! The labels and annotations by which a container in the runtime is known to belong to a Pod.
//!
//! Owns: their spelling, which is upstream's: another kubelet, crictl and log collectors read them too.
//! Called by: what builds CRI configurations and what reads them back.
//! Never: does anything.

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Where on the node the termination message file of a container lies.
pub const TERMINATION_MESSAGE_FILE: &str = "minik.dev/termination-message-file";

/// The resources a container was started with, as JSON: what a resize is compared with.
pub const RESOURCES: &str = "minik.dev/resources";

pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
