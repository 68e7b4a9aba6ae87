//! Annotations of a Pod that mean something.
//!
//! Owns: their keys.
//! Called by: validation, warnings, strategies, admission, controllers, the kubelet.
//! Never: says what they mean.

/// The name of a container follows.
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// The name of a container follows.
pub const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// What of a ReplicaSet's Pods goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The Pod stands for one that a kubelet runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
