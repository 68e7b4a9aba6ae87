//! What is said of which objects: upstream's answers to the same are in tests/upstream/golden/05-warnings.jsonl.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{Occasion, of};
use crate::registry::{self, Resource};

fn resource(group: &str, plural: &str) -> &'static Resource {
    registry::lookup(group, "v1", plural).expect("a resource")
}

fn check(resource: &Resource, occasion: Occasion<'_>, object: &Value, expected: Expect) {
    expected.assert_eq(&of(resource, occasion, object).join("\n"));
}

fn created(group: &str, plural: &str, object: &Value, expected: Expect) {
    check(resource(group, plural), Occasion::Create, object, expected);
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "w"}, "spec": spec})
}

#[test]
fn nothing_is_said_of_what_is_as_it_should_be() {
    let spec = json!({"nodeSelector": {"kubernetes.io/os": "linux"}, "imagePullSecrets": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "c", "env": [{"name": "A", "value": "a"}, {"name": "A", "value": "$(A):b"}],
            "resources": {"limits": {"memory": "2Gi"}}, "ports": [{"containerPort": 80, "protocol": "TCP"},
                {"containerPort": 80, "protocol": "UDP"}]}]});
    created("", "pods", &pod(spec), expect![[""]]);
}

#[test]
fn a_pod_is_warned_about_where_it_cannot_mean_what_it_says() {
    let spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1,
        "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
        "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}, {"ip": "2001:DB8::1"}],
        "topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/os"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"preference": {"matchExpressions": [{"key": "beta.kubernetes.io/arch", "values": ["-a"]}]}}]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {}}]}},
        "containers": [{"name": "c", "env": [{"name": "A", "value": "a"}, {"name": "A", "value": "$(A)"}],
            "resources": {"limits": {"memory": "1500m"}}}]});
    let expected = expect![[r#"
        metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]
        spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#]];
    let mut named = pod(json!({"nodeSelector": spec["nodeSelector"]}));
    named["metadata"]["name"] = "w.x".into();
    created("", "pods", &named, expected);
    created(
        "",
        "pods",
        &pod(spec),
        expect![[r#"
        spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead
        spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use "kubernetes.io/arch" instead
        spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: -a is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        spec.topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead
        spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod
        spec.hostAliases[1].ip: duplicate ip "1.2.3.4"
        spec.imagePullSecrets[1].name: duplicate name "a"
        spec.imagePullSecrets[2].name: invalid empty name ""
        spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer
        spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply
        spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1
        spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod
        spec.hostAliases[2].ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#]],
    );
}

#[test]
fn ports_of_all_containers_are_compared() {
    let port = |more: Value| {
        let mut port = json!({"containerPort": 80, "protocol": "TCP"});
        port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        port
    };
    let spec = json!({
        "initContainers": [{"name": "i", "ports": [port(json!({"name": "http", "hostPort": 80}))]}],
        "containers": [{"name": "c", "ports": [port(json!({"name": "http", "hostIP": "1.2.3.4"})),
            port(json!({"hostPort": 80, "hostIP": "1.2.3.4"})), port(json!({"hostPort": 81}))]}],
    });
    created(
        "",
        "pods",
        &pod(spec),
        expect![[r#"
        spec.containers[0].ports[0]: hostIP set without hostPort: {Name:http HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}
        spec.containers[0].ports[0]: overlapping port definition with spec.initContainers[0].ports[0]
        spec.containers[0].ports[1]: dangerously ambiguous port definition with spec.initContainers[0].ports[0]
        spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]
        spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]
        spec.containers[0].ports[0]: duplicate port name "http" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]"#]],
    );
}

#[test]
fn files_of_a_volume_are_in_each_others_way_by_whole_names() {
    let items = |paths: &[&str]| paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>();
    let spec = json!({"volumes": [
        {"name": "m", "configMap": {"name": "map", "items": items(&["a", "ab", "a/b/", "c"])}},
        {"name": "p", "projected": {"sources": [{}, {"secret": {"name": "s", "items": items(&["a/b"])}},
            {"serviceAccountToken": {"path": "a"}}, {"clusterTrustBundle": {"signerName": "e.com/s", "path": "a/b/c"}}]}},
        {"name": "o", "storageos": {}},
    ]});
    created(
        "",
        "pods",
        &pod(spec),
        expect![[r#"
        spec.volumes[2].storageOS: deprecated in v1.22, non-functional in v1.25+
        volume "m" (ConfigMap "map"): overlapping paths: "a/b" with "a"
        volume "p" (Projected) has no sources provided
        volume "p" (Projected): overlapping paths: "a" (ServiceAccountToken) with "a/b" (Secret "s")
        volume "p" (Projected): overlapping paths: "a/b/c" (ClusterTrustBundle "e.com/s") with "a/b" (Secret "s")
        volume "p" (Projected): overlapping paths: "a/b/c" (ClusterTrustBundle "e.com/s") with "a" (ServiceAccountToken)"#]],
    );
}

#[test]
fn a_template_is_spoken_of_again_only_when_the_desired_state_changed() {
    let deployments = resource("apps", "deployments");
    let at = |generation: i64, label: &str| {
        json!({"metadata": {"name": "w.x", "generation": generation},
            "spec": {"template": {"spec": {"nodeSelector": {label: "a"}}}}})
    };
    let old = at(1, "beta.kubernetes.io/os");
    check(
        deployments,
        Occasion::Create,
        &old,
        expect![[r#"
        metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]
        spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#]],
    );
    check(deployments, Occasion::Update { old: &old }, &at(1, "beta.kubernetes.io/arch"), expect![[""]]);
    check(
        deployments,
        Occasion::Update { old: &old },
        &at(2, "beta.kubernetes.io/arch"),
        expect![[
            r#"spec.template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead"#
        ]],
    );
    // Upstream mistakes the old template for the new one here.
    let controllers = resource("", "replicationcontrollers");
    check(
        controllers,
        Occasion::Update { old: &old },
        &at(2, "beta.kubernetes.io/arch"),
        expect![[
            r#"spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#
        ]],
    );
}

#[test]
fn what_annotations_say_of_app_armor_is_told_of_templates() {
    let annotated = |of_pod: Value| {
        json!({"metadata": {"name": "w"}, "template": {
            "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "localhost/p"}},
            "spec": {"securityContext": {"appArmorProfile": of_pod}, "containers": [{"name": "c"}]}}})
    };
    created(
        "",
        "podtemplates",
        &annotated(Value::Null),
        expect![[
            r#"template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the "appArmorProfile" field instead"#
        ]],
    );
    let same = json!({"type": "Localhost", "localhostProfile": "p"});
    created("", "podtemplates", &annotated(same), expect![[""]]);
}

#[test]
fn claims_of_a_stateful_set_have_another_path_in_an_update() {
    let sets = resource("apps", "statefulsets");
    let claim = json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}});
    let set = json!({"metadata": {"name": "w"}, "spec": {"revisionHistoryLimit": -1, "volumeClaimTemplates": [claim]}});
    check(
        sets,
        Occasion::Create,
        &set,
        expect![[r#"
        spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer
        spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"#]],
    );
    check(
        sets,
        Occasion::Update { old: &set },
        &set,
        expect![[r#"
        spec.volumeClaimTemplates[0].Spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer
        spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"#]],
    );
}

#[test]
fn jobs_may_have_too_many_indexes_and_schedules_no_zone() {
    let job = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001});
    created(
        "batch",
        "jobs",
        &pod(job.clone()),
        expect![
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ],
    );
    let of = |schedule: &str| json!({"metadata": {"name": "w"}, "spec": {"schedule": schedule, "jobTemplate": {"spec": {}}}});
    let (old, new) = (of("TZ=UTC * * * * *"), of("TZ=UTC 1 * * * *"));
    check(
        resource("batch", "cronjobs"),
        Occasion::Update { old: &old },
        &new,
        expect![
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        ],
    );
}

#[test]
fn a_service_is_told_which_fields_it_does_not_use() {
    let headless = json!({"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["1.2.3.4"], "sessionAffinity": "ClientIP",
        "loadBalancerIP": "1.2.3.04", "externalName": "a", "trafficDistribution": "PreferClose"});
    created(
        "",
        "services",
        &pod(headless),
        expect![[r#"
        spec.loadBalancerIP is ignored for headless services
        spec.externalIPs is ignored for headless services
        spec.SessionAffinity is ignored for headless services
        spec.loadBalancerIP: non-standard IP address "1.2.3.04" is invalid: use "1.2.3.4"
        spec.externalName is ignored when spec.type is not "ExternalName"
        spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#]],
    );
    let external = json!({"type": "ExternalName", "externalName": "a", "externalIPs": ["1.2.3.4"]});
    created(
        "",
        "services",
        &pod(external),
        expect![[r#"spec.externalIPs is ignored when spec.type is "ExternalName""#]],
    );
    let plain = json!({"type": "LoadBalancer", "clusterIP": "2001:DB8::1", "clusterIPs": ["2001:DB8::1"], "externalIPs": ["::1"],
        "loadBalancerIP": "::ffff:1.2.3.4", "loadBalancerSourceRanges": ["2001:DB8::/32", "10.0.0.0/8"]});
    created(
        "",
        "services",
        &pod(plain),
        expect![[r#"
        spec.clusterIPs[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")
        spec.externalIPs is deprecated and may no longer be implemented in some clusters
        spec.loadBalancerIP: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4"
        spec.loadBalancerSourceRanges[0]: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format ("2001:db8::/32")"#]],
    );
}

#[test]
fn addresses_in_a_status_are_looked_at_too() {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "2001:DB8::1"}, {"hostname": "a"}]}}});
    check(
        resource("", "services"),
        Occasion::Status,
        &status,
        expect![[
            r#"status.loadBalancer.ingress[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#
        ]],
    );
    check(resource("apps", "deployments"), Occasion::Status, &status, expect![[""]]);
    let status = json!({"status": {"podIPs": [{"ip": "2001:DB8::1"}], "hostIPs": [{"ip": "1.2.3.4"}]}});
    check(
        resource("", "pods"),
        Occasion::Status,
        &status,
        expect![[
            r#"status.podIPs[0].ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#
        ]],
    );
}

#[test]
fn whoever_spells_addresses_well_is_not_checked() {
    let slice = |manager: &str| {
        json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": manager}}, "addressType": "FQDN",
            "endpoints": [{"addresses": ["2001:DB8::1"]}]})
    };
    created(
        "discovery.k8s.io",
        "endpointslices",
        &slice("me"),
        expect![[r#"
        spec.addressType: FQDN endpoints are deprecated
        endpoints[0].addresses[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#]],
    );
    let slices = resource("discovery.k8s.io", "endpointslices");
    let (old, new) = (slice("me"), slice("endpointslice-controller.k8s.io"));
    check(slices, Occasion::Update { old: &old }, &new, expect![[""]]);
}

#[test]
fn volumes_and_claims_are_told_what_is_gone() {
    let volume = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/mount-options": "a"}},
        "spec": {"persistentVolumeReclaimPolicy": "Recycle", "storageos": {}, "nodeAffinity": {"required": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "beta.kubernetes.io/os", "values": ["-a"]}]}]}}}});
    created(
        "",
        "persistentvolumes",
        &volume,
        expect![[r#"
        metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use "mountOptions" attribute instead
        spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.
        spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead
        spec.storageOS: deprecated in v1.22, non-functional in v1.25+"#]],
    );
    let claim = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "a"}},
        "spec": {"resources": {"requests": {"storage": "0.5"}, "limits": {"storage": "20Pi"}}}});
    created(
        "",
        "persistentvolumeclaims",
        &claim,
        expect![[r#"
        metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "storageClassName" attribute instead
        spec.resources.requests[storage]: fractional byte value "0.5" is invalid, must be an integer
        spec.resources.limits[storage]: fractional byte value "20Pi" is invalid, must be an integer"#]],
    );
}

#[test]
fn a_driver_is_warned_about_tokens_when_they_change() {
    let drivers = resource("storage.k8s.io", "csidrivers");
    let of = |audience: &str| json!({"spec": {"tokenRequests": [{"audience": audience}]}});
    check(
        drivers,
        Occasion::Create,
        &of("a"),
        expect![
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"
        ],
    );
    check(drivers, Occasion::Update { old: &of("a") }, &of("a"), expect![[""]]);
    check(
        drivers,
        Occasion::Update { old: &of("b") },
        &of("a"),
        expect![
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"
        ],
    );
}

#[test]
fn a_quota_should_not_allow_more_requests_than_limits() {
    let hard =
        json!({"cpu": "2", "limits.cpu": "1500m", "requests.memory": "1Gi", "memory": "3Gi", "limits.memory": "2Gi"});
    created(
        "",
        "resourcequotas",
        &pod(json!({"hard": hard})),
        expect!["ResourceQuota cpu (2) should be less than limits.cpu (1500m)"],
    );
}

#[test]
fn a_webhook_that_no_review_will_reach_is_told_so() {
    let rule = |groups: Value, resources: Value| json!({"apiGroups": groups, "resources": resources});
    let rules = [
        rule(json!(["authorization.k8s.io", ""]), json!(["subjectaccessreviews", "pods", "subjectaccessreviews"])),
        rule(json!(["authorization.k8s.io"]), json!(["*", "subjectaccessreviews"])),
    ];
    let configuration = json!({"webhooks": [{"rules": rules}]});
    created(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        &configuration,
        expect![
            "webhooks[0].rules[0]: subjectaccessreviews.authorization.k8s.io is excluded from admission webhooks; this rule will have no effect"
        ],
    );
}

#[test]
fn a_definition_is_told_of_formats_and_sets_that_are_new() {
    let definitions = resource("apiextensions.k8s.io", "customresourcedefinitions");
    let of = |format: &str| {
        let list = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object", "properties": {
            "a": {"type": "string", "format": format}, "b": {"type": "string", "format": "date-time"}}}});
        json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"list": list}}}}]}})
    };
    check(
        definitions,
        Occasion::Create,
        &of("odd"),
        expect![[r#"
        unrecognized format "odd"
        x-kubernetes-list-type: set for items of type "object" is not supported by server-side apply or CEL validation rules"#]],
    );
    check(definitions, Occasion::Update { old: &of("odd") }, &of("odd"), expect![[""]]);
    check(definitions, Occasion::Update { old: &of("odd") }, &of("int64"), expect![[r#"unrecognized format "int64""#]]);
}

#[test]
fn an_object_of_a_definition_is_told_of_new_finalizers_whatever_its_kind_is_called() {
    let pods = Resource { group: String::from("example.com").into(), ..resource("", "pods").clone() };
    let of = |finalizers: &[&str]| json!({"metadata": {"name": "w.x", "finalizers": finalizers}});
    let new = of(&["b.example.com", "plain", "example.com/a", "orphan"]);
    check(
        &pods,
        Occasion::Create,
        &new,
        expect![[r#"
        metadata.finalizers: "b.example.com": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers
        metadata.finalizers: "plain": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"#]],
    );
    check(
        &pods,
        Occasion::Update { old: &of(&["plain"]) },
        &new,
        expect![[
            r#"metadata.finalizers: "b.example.com": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"#
        ]],
    );
    check(&pods, Occasion::Status, &new, expect![[""]]);
}

#[test]
fn others() {
    let node = json!({"spec": {"externalID": "a", "configSource": {}, "podCIDRs": ["2001:DB8::/64"]}});
    created(
        "",
        "nodes",
        &node,
        expect![[r#"
        spec.externalID: this field is deprecated, and is unused by Kubernetes
        spec.podCIDRs[0]: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#]],
    );
    let slice = json!({"spec": {"driver": "Driver.example.com"}});
    created(
        "resource.k8s.io",
        "resourceslices",
        &slice,
        expect![[
            r#"spec.driver: driver names should be lowercase; "Driver.example.com" contains uppercase characters"#
        ]],
    );
    let class = json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "a"}}});
    created(
        "node.k8s.io",
        "runtimeclasses",
        &class,
        expect![[r#"scheduling.nodeSelector: deprecated since v1.14; use "kubernetes.io/os" instead"#]],
    );
    let secret = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}});
    created("", "secrets", &secret, expect!["tls: failed to find any PEM data in certificate input"]);
    let ingress = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}});
    created(
        "networking.k8s.io",
        "ingresses",
        &ingress,
        expect![[
            r#"annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead"#
        ]],
    );
    let account = json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    created(
        "",
        "serviceaccounts",
        &account,
        expect![
            "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        ],
    );
    let accounts = resource("", "serviceaccounts");
    check(accounts, Occasion::Update { old: &account }, &account, expect![[""]]);
}
