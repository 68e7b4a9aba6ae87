//! Packs the descriptions of every type that the kinds below lead to.
//!
//! Owns: the list of kinds to start from.
//! Called by: cargo, once: nothing here depends on a file that changes.
//! Never: runs again when minik's sources change.

use std::io::Write;

use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut generator = SchemaGenerator::default();
    start_from_every_kind(&mut generator);
    let mut lines: Vec<String> = Vec::new();
    for (name, schema) in generator.take_definitions(true) {
        line(&mut lines, &name, &schema);
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            line(&mut lines, &format!("{name} {field}"), schema);
        }
    }
    // Found by binary search of their names.
    lines.sort_by(|a, b| a.split('\t').next().cmp(&b.split('\t').next()));
    assert!(lines.len() > 2500, "k8s-openapi gave only {} descriptions", lines.len());
    let path = std::path::Path::new(&std::env::var("OUT_DIR").expect("cargo sets it")).join("descriptions.deflate");
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(lines.concat().as_bytes()).expect("memory does not fail");
    std::fs::write(path, packer.finish().expect("memory does not fail")).expect("OUT_DIR is writable");
}

fn line(lines: &mut Vec<String>, name: &str, schema: &Value) {
    if let Some(text) = schema["description"].as_str() {
        let quoted = Value::from(text).to_string();
        lines.push(format!("{name}\t{}\n", &quoted[1..quoted.len() - 1]));
    }
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

macro_rules! kinds {
    ($generator:expr, $($module:path: $($kind:ident)*;)*) => {
        $({
            use $module as module;
            $(add::<module::$kind>($generator);)*
        })*
    };
}

fn start_from_every_kind(generator: &mut SchemaGenerator) {
    use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
    kinds! { generator,
        api::admissionregistration::v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
            MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
            ValidatingWebhookConfiguration;
        api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
            SubjectAccessReview;
        api::autoscaling::v1: HorizontalPodAutoscaler Scale;
        api::autoscaling::v2: HorizontalPodAutoscaler;
        api::batch::v1: CronJob Job;
        api::certificates::v1: CertificateSigningRequest ClusterTrustBundle PodCertificateRequest;
        api::coordination::v1: Lease;
        api::core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node
            PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret
            Service ServiceAccount;
        api::discovery::v1: EndpointSlice;
        api::events::v1: Event;
        api::flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
        api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        api::node::v1: RuntimeClass;
        api::policy::v1: Eviction PodDisruptionBudget;
        api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        api::resource::v1: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
        api::scheduling::v1: PriorityClass;
        api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
            VolumeAttributesClass;
        api::storagemigration::v1: StorageVersionMigration;
        apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        apimachinery::pkg::apis::meta::v1: APIGroupList APIResourceList APIVersions DeleteOptions Status;
        kube_aggregator::pkg::apis::apiregistration::v1: APIService;
    }
}
