//! Warnings about addresses and about what routes to them.
//!
//! Owns: Services, Endpoints, EndpointSlices, Ingresses, NetworkPolicies, and how addresses are spelt.
//! Called by: `warnings`, and `pod` and others for the addresses of their kinds.
//! Never: judges addresses that are refused.

use serde_json::Value;

use super::Warnings;
use crate::names;
use crate::object;
use crate::validation::check::At;

/// Whoever bears this label with one of these values spells addresses well.
const ENDPOINTS_MANAGER: (&str, &[&str]) = ("endpoints.kubernetes.io/managed-by", &["endpoint-controller"]);
const SLICES_MANAGER: (&str, &[&str]) = (
    "endpointslice.kubernetes.io/managed-by",
    &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"],
);

pub(super) fn ip(at: &At<'_>, warnings: &mut Warnings) {
    if let Some(text) = names::odd_ip(at.text()) {
        warnings.at(at, text);
    }
}

pub(super) fn cidr(at: &At<'_>, warnings: &mut Warnings) {
    if let Some(text) = names::odd_cidr(at.text()) {
        warnings.at(at, text);
    }
}

pub(super) fn pod_addresses(pod: &At<'_>, warnings: &mut Warnings) {
    let status = pod.get("status");
    for list in ["podIPs", "hostIPs"] {
        status.get(list).items().for_each(|address| ip(&address.get("ip"), warnings));
    }
}

/// The addresses that a load balancer has given.
pub(super) fn balancer_addresses(object: &At<'_>, warnings: &mut Warnings) {
    let status = object.get("status");
    let balancer = status.get("loadBalancer");
    for point in balancer.get("ingress").items() {
        // The path is that of the point, not of its address.
        ip(&point.showing(&point.value["ip"]), warnings);
    }
}

pub(super) fn service(service: &At<'_>, warnings: &mut Warnings) {
    let spec = service.get("spec");
    let kind = spec.get("type");
    let external = kind.text() == "ExternalName";
    let headless = kind.text() == "ClusterIP" && spec.get("clusterIP").text() == "None";
    if object::annotation(service.value, "service.kubernetes.io/topology-aware-hints").is_some() {
        warnings.say(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead",
        );
    }
    if !matches!(spec.get("clusterIP").text(), "" | "None") {
        spec.get("clusterIPs").items().for_each(|address| ip(&address, warnings));
    }
    let (addresses, balancer) = (spec.get("externalIPs"), spec.get("loadBalancerIP"));
    if headless {
        if !balancer.text().is_empty() {
            warnings.say("spec.loadBalancerIP is ignored for headless services");
        }
        if addresses.len() > 0 {
            warnings.say("spec.externalIPs is ignored for headless services");
        }
        if spec.get("sessionAffinity").text() != "None" {
            warnings.say("spec.SessionAffinity is ignored for headless services");
        }
    }
    addresses.items().for_each(|address| ip(&address, warnings));
    if addresses.len() > 0 && !headless && !external {
        warnings.say("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    ip(&balancer, warnings);
    spec.get("loadBalancerSourceRanges").items().for_each(|range| cidr(&range, warnings));
    if external && addresses.len() > 0 {
        warnings.say(r#"spec.externalIPs is ignored when spec.type is "ExternalName""#);
    }
    if !external && !spec.get("externalName").text().is_empty() {
        warnings.say(r#"spec.externalName is ignored when spec.type is not "ExternalName""#);
    }
    if spec.get("trafficDistribution").text() == "PreferClose" {
        warnings.say(r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#);
    }
}

fn is_managed(object: &At<'_>, (label, managers): (&str, &[&str])) -> bool {
    object::label(object.value, label).is_some_and(|manager| managers.contains(&manager))
}

pub(super) fn endpoints(endpoints: &At<'_>, warnings: &mut Warnings) {
    if is_managed(endpoints, ENDPOINTS_MANAGER) {
        return;
    }
    for subset in endpoints.get("subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            subset.get(list).items().for_each(|address| ip(&address.get("ip"), warnings));
        }
    }
}

pub(super) fn endpoint_slice(slice: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_none() && slice.get("addressType").text() == "FQDN" {
        warnings.say("spec.addressType: FQDN endpoints are deprecated");
    }
    if is_managed(slice, SLICES_MANAGER) {
        return;
    }
    for endpoint in slice.get("endpoints").items() {
        endpoint.get("addresses").items().for_each(|address| ip(&address, warnings));
    }
}

/// Of networking.k8s.io.
pub(super) fn of_policies(kind: &str, old: Option<&Value>, at: &At<'_>, warnings: &mut Warnings) {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let spec = at.get("spec");
    match (kind, old) {
        ("Ingress", None)
            if object::annotation(at.value, CLASS).is_some() && spec.get("ingressClassName").is_null() =>
        {
            warnings.say(format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"));
        }
        ("NetworkPolicy", _) => {
            for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
                spec.get(rules).items().for_each(|rule| blocks(&rule.get(peers), warnings));
            }
        }
        _ => {}
    }
}

fn blocks(peers: &At<'_>, warnings: &mut Warnings) {
    for peer in peers.items() {
        let block = peer.get("ipBlock");
        cidr(&block.get("cidr"), warnings);
        block.get("except").items().for_each(|except| cidr(&except, warnings));
    }
}
