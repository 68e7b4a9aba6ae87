//! All admission plugins in their order.
//!
//! Owns: that order, which is upstream's: completing plugins before webhooks, quota after everything.
//! Called by: the pipeline through the `Admission` trait.
//! Never: skips a plugin for a user, not even for the API server itself.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use minik_api::Status;

use super::plugin::{Plugin, World};
use super::{Admission, Review};
use super::{
    certificate_contents, certificates, claim_resize, default_ingress_class, default_storage_class,
    default_toleration_seconds, limit_ranger, namespace_lifecycle, node_restriction, pod_security, pod_topology_labels,
    policy, priority, rbac_escalation, resource_quota, runtime_class, service_account, storage_in_use, taint_nodes,
    webhook,
};
use crate::authz::{Authorizer, Authorizers};
use crate::objects::{Loopback, Objects};

pub struct Admissions {
    world: World,
    plugins: Vec<Box<dyn Plugin>>,
    quota: resource_quota::ResourceQuota,
    /// Known once the server stands; until then nothing is charged.
    loopback: OnceLock<Arc<dyn Loopback>>,
}

impl Admissions {
    pub fn new(objects: Arc<dyn Objects>, authorizers: Arc<Authorizers>) -> Self {
        let escalation = rbac_escalation::RbacEscalation::new(authorizers.clone());
        let world = World { objects, authorizer: authorizers as Arc<dyn Authorizer> };
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(certificate_contents::CertificateContents),
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccount),
            Box::new(node_restriction::NodeRestriction),
            Box::new(taint_nodes::TaintNodesByCondition),
            Box::new(pod_security::PodSecurity),
            Box::new(priority::Priority),
            Box::new(default_toleration_seconds::DefaultTolerationSeconds),
            Box::new(default_storage_class::DefaultStorageClass),
            Box::new(storage_in_use::StorageObjectInUseProtection),
            Box::new(claim_resize::PersistentVolumeClaimResize),
            Box::new(runtime_class::RuntimeClass),
            Box::new(certificates::CertificateApproval),
            Box::new(certificates::CertificateSigning),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(certificates::ClusterTrustBundleAttest),
            Box::new(default_ingress_class::DefaultIngressClass),
            Box::new(pod_topology_labels::PodTopologyLabels),
            Box::new(escalation),
        ];
        Self { world, plugins, quota: resource_quota::ResourceQuota::default(), loopback: OnceLock::new() }
    }

    /// Tells the plugins that write how to.
    pub fn attach(&self, loopback: Arc<dyn Loopback>) {
        // A second server cannot take over the first one's plugins.
        let _ = self.loopback.set(loopback);
    }
}

#[async_trait]
impl Admission for Admissions {
    async fn mutate(&self, review: &mut Review) -> Result<(), Status> {
        service_account::wait_for_default(review, &self.world).await;
        let (mut policies, mut webhooks) = (policy::Rounds::default(), webhook::Rounds::default());
        self.plugins.iter().try_for_each(|plugin| plugin.mutate(review, &self.world))?;
        let changed = policy::mutate(review, &self.world, &mut policies)?;
        // What a policy or a webhook changed, plugins, policies and earlier webhooks may want to complete once more.
        if webhook::mutate(review, &self.world, &mut webhooks).await? || changed {
            review.rewritten = true;
            policies.again();
            self.plugins.iter().try_for_each(|plugin| plugin.mutate(review, &self.world))?;
            policy::mutate(review, &self.world, &mut policies)?;
            webhook::mutate(review, &self.world, &mut webhooks).await?;
        }
        Ok(())
    }

    async fn validate(&self, review: &Review) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(review, &self.world))?;
        policy::validate(review, &self.world)?;
        webhook::validate(review, &self.world).await?;
        self.quota.validate(review, &self.world, self.loopback.get()).await
    }
}
