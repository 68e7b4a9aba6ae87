//! What validation says, in Kubernetes' words.

use super::*;
use expect_test::{Expect, expect};
use serde_json::json;

fn show(errors: Vec<FieldError>, expected: Expect) {
    let text: String = errors.iter().map(|e| format!("{}: {}\n", e.path, e.body())).collect();
    expected.assert_eq(&text);
}

/// Decoded and completed as the server does before it validates.
fn completed(group: &str, kind: &str, object: Value) -> Value {
    let of = crate::schema::Type::of_kind(group, "v1", kind).unwrap();
    let mut object = crate::decode::from_value(of, object).unwrap().object;
    crate::defaulting::apply(group, "v1", kind, &mut object);
    object
}

fn check(group: &str, kind: &str, object: Value, expected: Expect) {
    show(create(group, "v1", kind, &completed(group, kind, object)), expected);
}

fn check_update(group: &str, kind: &str, old: Value, change: Value, expected: Expect) {
    let mut old = completed(group, kind, old);
    old["metadata"]["resourceVersion"] = "1".into();
    let new = completed(group, kind, crate::patch::merge::apply(&old, &change));
    show(update(group, "v1", kind, &new, &old), expected);
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
}

#[test]
fn a_sound_pod_has_no_faults() {
    let spec = json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}], "livenessProbe": {"httpGet": {"port": "web"}},
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}}],
        "volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "p", "projected": {"sources": [{"secret": {"name": "s"}}]}}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]});
    check("", "Pod", pod(spec), expect![[""]]);
}

#[test]
fn each_part_of_a_sysctl_begins_and_ends_with_a_letter_or_digit() {
    let names = ["kernel.shmmax", "net/ipv4/ip_forward", "foo-", "bar..", "-a.b"];
    let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "securityContext": {"sysctls": sysctls}});
    let faults = create("", "v1", "Pod", &completed("", "Pod", pod(spec)));
    let places: Vec<&str> = faults.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(places, [2, 3, 4].map(|i| format!("spec.securityContext.sysctls[{i}].name")));
}

#[test]
fn a_pods_faults_are_told_with_their_places() {
    let spec = json!({"restartPolicy": "Sometimes", "containers": [
        {"name": "A_b", "image": "", "ports": [{"containerPort": 70000, "name": "x"}, {"containerPort": 1, "name": "x"}],
            "env": [{"name": "a=b"}, {"name": "X", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "volumeMounts": [{"name": "gone", "mountPath": ""}],
            "resources": {"requests": {"cpu": "2", "foo": "1"}, "limits": {"cpu": "1"}},
            "readinessProbe": {"periodSeconds": -1}},
        {"name": "c", "image": "i"}, {"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/a/../b"}}],
        "nodeSelector": {"a b": "c"}});
    check(
        "",
        "Pod",
        pod(spec),
        expect![[r#"
        spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
        spec.containers[0].name: Invalid value: "A_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        spec.containers[0].image: Required value
        spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
        spec.containers[0].ports[1].name: Duplicate value: "x"
        spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
        spec.containers[0].env[1].valueFrom: Invalid value: "": may not be specified when `value` is not empty
        spec.containers[0].volumeMounts[0].name: Not found: "gone"
        spec.containers[0].volumeMounts[0].mountPath: Required value
        spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
        spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers
        spec.containers[0].readinessProbe: Required value: must specify a handler type
        spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0
        spec.containers[2].name: Duplicate value: "c"
        spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
        spec.nodeSelector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]],
    );
}

#[test]
fn names_labels_and_owners_follow_the_rules_of_metadata() {
    let object = json!({"metadata": {"name": "Web", "namespace": "", "labels": {"a/b/c": "-"}, "annotations": {"x y": ""},
        "finalizers": ["plain"], "ownerReferences": [{"apiVersion": "v1", "kind": "", "name": "n", "uid": ""}]}});
    check(
        "",
        "ConfigMap",
        object,
        expect![[r#"
        metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        metadata.namespace: Required value
        metadata.labels: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
        metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        metadata.annotations: Invalid value: "x y": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        metadata.ownerReferences[0].kind: Required value: must not be empty
        metadata.ownerReferences[0].uid: Required value: must not be empty
        metadata.finalizers[0]: Invalid value: "plain": name is neither a standard finalizer name nor is it fully qualified
    "#]],
    );
    check(
        "",
        "Namespace",
        json!({"metadata": {"generateName": "a.b-"}}),
        expect![[r#"
        metadata.generateName: Invalid value: "a.b-": must not contain dots
        metadata.name: Required value: name or generateName is required
    "#]],
    );
}

#[test]
fn a_deployments_selector_matches_its_template_and_stays() {
    let deployment = |labels: Value| {
        json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    check(
        "apps",
        "Deployment",
        deployment(json!({"a": "x"})),
        expect![[r#"
        spec.template.metadata.labels: Invalid value: {"a":"x"}: `selector` does not match template `labels`
    "#]],
    );
    check(
        "apps",
        "Deployment",
        json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": -1}}),
        expect![[r#"
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
        spec.selector: Required value
        spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`
        spec.template.spec.containers: Required value
    "#]],
    );
    let change = json!({"spec": {"selector": {"matchLabels": {"a": null, "c": "d"}}, "template": {"metadata": {"labels": {"c": "d"}}}}});
    check_update(
        "apps",
        "Deployment",
        deployment(json!({"a": "b"})),
        change,
        expect![[r#"
        spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable
    "#]],
    );
}

#[test]
fn annotations_that_mean_something_have_a_form_and_agree_with_fields() {
    let mut odd = pod(json!({"containers": [{"name": "c", "image": "i",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}}}]}));
    odd["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "x",
        "controller.kubernetes.io/pod-deletion-cost": "+5",
        "container.apparmor.security.beta.kubernetes.io/gone": "odd",
        "container.apparmor.security.beta.kubernetes.io/c": "localhost/other",
        "container.seccomp.security.alpha.kubernetes.io/c": "localhost/../a",
    });
    check(
        "",
        "Pod",
        odd,
        expect![[r#"
        metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set
        metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+5": must be a 32bit integer
        metadata.annotations.container.seccomp.security.alpha.kubernetes.io/c: Invalid value: "../a": must not contain '..'
        metadata.annotations[container.apparmor.security.beta.kubernetes.io/gone]: Invalid value: "gone": container not found
        metadata.annotations[container.apparmor.security.beta.kubernetes.io/gone]: Invalid value: "odd": invalid AppArmor profile name: "odd"
        spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match
        spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match
    "#]],
    );
}

#[test]
fn a_pod_behind_a_gate_may_only_be_sent_to_fewer_nodes() {
    let required = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let term = |keys: &[&str]| {
        let all: Vec<Value> = keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
        json!({"matchExpressions": all})
    };
    let gated = |affinity: Value| {
        pod(json!({"containers": [{"name": "c", "image": "i"}], "schedulingGates": [{"name": "example.com/g"}],
            "nodeSelector": {"a": "b"}, "affinity": affinity}))
    };
    let old = gated(required(json!([term(&["k"])])));
    let change = json!({"spec": {"nodeSelector": {"c": "d"}, "affinity": required(json!([term(&["k", "l"])]))}});
    check_update("", "Pod", old.clone(), change, expect![[""]]);
    let change = json!({"spec": {"nodeSelector": {"a": "x"}, "affinity": required(json!([term(&["l"])]))}});
    check_update(
        "",
        "Pod",
        old.clone(),
        change,
        expect![[r#"
        spec.nodeSelector: Invalid value: {"a":"x"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: {"MatchExpressions":[{"Key":"l","Operator":"Exists","Values":null}],"MatchFields":null}: only additions are allowed (no mutations or deletions)
    "#]],
    );
    let change = json!({"spec": {"affinity": required(json!([term(&["k"]), term(&["l"])]))}});
    check_update(
        "",
        "Pod",
        old,
        change,
        expect![[r#"
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: [{"MatchExpressions":[{"Key":"k","Operator":"Exists","Values":null}],"MatchFields":null},{"MatchExpressions":[{"Key":"l","Operator":"Exists","Values":null}],"MatchFields":null}]: no additions/deletions to non-empty NodeSelectorTerms list are allowed
    "#]],
    );
    let change = json!({"spec": {"affinity": required(json!([term(&["k"])]))}});
    check_update("", "Pod", gated(Value::Null), change, expect![[""]]);
}

#[test]
fn a_running_pod_changes_its_image_and_little_else() {
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    check_update(
        "",
        "Pod",
        pod(spec.clone()),
        json!({"spec": {"containers": [{"name": "c", "image": "j"}]}}),
        expect![""],
    );
    check_update(
        "",
        "Pod",
        pod(spec),
        json!({"spec": {"nodeName": "n", "activeDeadlineSeconds": 5}}),
        expect![[r#"
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
            @@ -43,7 +43,7 @@
              "ServiceAccountName": "",
              "DeprecatedServiceAccount": "",
              "AutomountServiceAccountToken": null,
            - "NodeName": "",
            + "NodeName": "n",
              "HostNetwork": false,
              "HostPID": false,
              "HostIPC": false,

        "#]],
    );
}

#[test]
fn services_jobs_and_bindings_have_rules_of_their_own() {
    let service = json!({"metadata": {"name": "1x.y", "namespace": "default"}, "spec": {"ports": [{"port": 80}, {"port": 80, "targetPort": "Bad_Name"}], "type": "Odd"}});
    check(
        "",
        "Service",
        service,
        expect![[r#"
        metadata.name: Invalid value: "1x.y": must not contain dots
        spec.ports[0].name: Required value
        spec.ports[1].name: Required value
        spec.ports[1].targetPort: Invalid value: "Bad_Name": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
        spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
        spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}
    "#]],
    );
    let job = json!({"metadata": {"name": "j", "namespace": "default"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    check(
        "batch",
        "Job",
        job,
        expect![[r#"
            spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"
            spec.selector: Required value
            spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`
        "#]],
    );
    let cron = json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {"schedule": "61 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
    check(
        "batch",
        "CronJob",
        cron,
        expect![[r#"
        spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61
    "#]],
    );
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]});
    check(
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        binding,
        expect![[r#"
        roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
        subjects[0].namespace: Required value
    "#]],
    );
}

#[test]
fn an_immutable_config_map_stays_as_it_is() {
    let old = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}, "immutable": true});
    check_update(
        "",
        "ConfigMap",
        old,
        json!({"data": {"a": "c"}, "immutable": false}),
        expect![[r#"
        immutable: Forbidden: field is immutable when `immutable` is set
        data: Forbidden: field is immutable when `immutable` is set
    "#]],
    );
}

#[test]
fn what_a_driver_says_of_itself_is_checked() {
    let spec = json!({"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Forever"], "serviceAccountTokenInSecrets": true,
        "nodeAllocatableUpdatePeriodSeconds": 1});
    check(
        "storage.k8s.io",
        "CSIDriver",
        json!({"metadata": {"name": "d"}, "spec": spec}),
        expect![[r#"
            spec.fsGroupPolicy: Unsupported value: "Some": supported values: "File", "None", "ReadWriteOnceWithFSType"
            spec.volumeLifecycleModes: Unsupported value: "Forever": supported values: "Persistent", "Ephemeral"
            spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 1: must be greater than or equal to 10 seconds
            spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified
        "#]],
    );
    let drivers = json!([{"name": "d", "nodeID": ""}, {"name": "d", "nodeID": "n", "topologyKeys": ["a", "a"]}]);
    check(
        "storage.k8s.io",
        "CSINode",
        json!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}}),
        expect![[r#"
            spec.drivers[0].nodeID: Required value
            spec.drivers[1].name: Duplicate value: "d"
            spec.drivers[1]: Duplicate value: "a"
        "#]],
    );
}

#[test]
fn classes_and_attachments_keep_what_they_are() {
    let class = json!({"metadata": {"name": "c"}, "provisioner": "p", "parameters": {"a": "b"}});
    check_update(
        "storage.k8s.io",
        "StorageClass",
        class,
        json!({"parameters": {"a": "c"}, "reclaimPolicy": "Retain"}),
        expect![[r#"
            parameters: Invalid value: null: field is immutable
            reclaimPolicy: Invalid value: null: field is immutable
        "#]],
    );
    let attributes = json!({"metadata": {"name": "c"}, "driverName": "p", "parameters": {"a": "b"}});
    check_update(
        "storage.k8s.io",
        "VolumeAttributesClass",
        attributes,
        json!({"driverName": "q", "parameters": null}),
        expect![[r#"
            driverName: Forbidden: updates to driverName are forbidden.
            parameters: Forbidden: updates to parameters are forbidden.
            parameters: Required value: must contain at least one key/value pair
        "#]],
    );
    check(
        "storage.k8s.io",
        "VolumeAttachment",
        json!({"metadata": {"name": "a"}, "spec": {"attacher": "", "nodeName": "n", "source": {"persistentVolumeName": ""}}}),
        expect![[r#"
            spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName
            spec.source.persistentVolumeName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.attacher: Required value
        "#]],
    );
}

#[test]
fn a_volume_names_its_source_completely() {
    let volume = |source: Value| {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        json!({"metadata": {"name": "v"}, "spec": spec})
    };
    check("", "PersistentVolume", volume(json!({"csi": {"driver": "d", "volumeHandle": "h"}})), expect![[""]]);
    check(
        "",
        "PersistentVolume",
        volume(json!({"csi": {"driver": "", "volumeHandle": ""}})),
        expect![[r#"
            spec.csi.driver: Required value
            spec.csi.volumeHandle: Required value
        "#]],
    );
    check(
        "",
        "PersistentVolume",
        volume(json!({"local": {"path": "/a/../b"}})),
        expect![[r#"
            spec.local.path: Invalid value: "/a/../b": must not contain '..'
            spec.nodeAffinity: Required value: Local volume requires node affinity
        "#]],
    );
}

#[test]
fn scopes_of_a_quota_fit_what_it_counts() {
    let object = json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {
        "hard": {"pods": "1", "configmaps": "2", "count/a.b": "3"}, "scopes": ["Terminating", "X"],
        "scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In"}, {"scopeName": "PriorityClass", "operator": "Y"}]}}});
    check(
        "",
        "ResourceQuota",
        object,
        expect![[r#"
        spec.scopes: Invalid value: ["Terminating","X"]: unsupported scope applied to resource
        spec.scopes: Invalid value: ["Terminating","X"]: unsupported scope
        spec.scopeSelector.matchExpressions: Invalid value: {"MatchExpressions":[{"ScopeName":"BestEffort","Operator":"In","Values":null},{"ScopeName":"PriorityClass","Operator":"Y","Values":null}]}: unsupported scope applied to resource
        spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity
        spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
        spec.scopeSelector.matchExpressions.operator: Invalid value: "Y": not a valid selector operator
    "#]],
    );
}

fn claim(spec: Value) -> Value {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"metadata": {"name": "c", "namespace": "default"}, "spec": whole})
}

#[test]
fn a_claims_class_moves_once_from_its_annotation_to_its_field() {
    let mut old = claim(json!({}));
    old["metadata"]["annotations"] = json!({"volume.beta.kubernetes.io/storage-class": "slow"});
    let class = |name: &str| json!({"spec": {"storageClassName": name}});
    check_update("", "PersistentVolumeClaim", old.clone(), class("slow"), expect![[""]]);
    let gone = json!({"metadata": {"annotations": null}});
    check_update(
        "",
        "PersistentVolumeClaim",
        old,
        gone,
        expect![[r#"
        metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: "": field is immutable
    "#]],
    );
    check_update("", "PersistentVolumeClaim", claim(json!({})), class("slow"), expect![[""]]);
    check_update(
        "",
        "PersistentVolumeClaim",
        claim(json!({"storageClassName": "slow"})),
        class("fast"),
        expect![[r#"
        spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        @@ -10,7 +10,7 @@
           }
          },
          "VolumeName": "",
        - "StorageClassName": "slow",
        + "StorageClassName": "fast",
          "VolumeMode": "Filesystem",
          "DataSource": null,
          "DataSourceRef": null,

    "#]],
    );
}

#[test]
fn both_ways_to_name_what_a_claim_is_filled_from_agree() {
    let other = json!({"kind": "PersistentVolumeClaim", "name": "other"});
    let sources = json!({"dataSource": other, "dataSourceRef": {"kind": "Thing", "name": "other", "namespace": "N"}});
    check(
        "",
        "PersistentVolumeClaim",
        claim(sources),
        expect![[r#"
        spec.dataSourceRef: Invalid value: "Thing": must be 'PersistentVolumeClaim' when referencing the default apiGroup
        spec.dataSourceRef.namespace: Invalid value: "N": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        spec: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified
    "#]],
    );
    let sources = json!({"dataSource": other, "dataSourceRef": {"apiGroup": "g", "kind": "Thing", "name": "other"}});
    check(
        "",
        "PersistentVolumeClaim",
        claim(sources),
        expect![[r#"
        spec: Invalid value: {}: must match dataSourceRef
    "#]],
    );
}
