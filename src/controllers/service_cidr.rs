//! ServiceCIDR: ready as soon as it is held by a finalizer, and let go when no address needs it.
//!
//! Owns: the finalizer, the condition Ready, and whether addresses would be left without a range.
//! Called by: the driver.
//! Never: gives out addresses; that is the API server's business.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use minik_api::resources::{IPADDRESSES, SERVICECIDRS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Patch, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions;
use crate::fields::{list, parse_time, text, time};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGER: &str = "service-cidr-controller";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Until every API server has heard of the deletion and gives out no more addresses of the range; upstream's time.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

pub(crate) struct ServiceCidr;

#[derive(Clone, Copy, PartialEq)]
struct Range {
    base: u128,
    /// Bits that are the same in all addresses of the range, and how many an address has.
    prefix: u32,
    width: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (address, prefix) = text.split_once('/')?;
        let (base, width) = bits(address.parse().ok()?);
        let prefix: u32 = prefix.parse().ok().filter(|p| *p <= width)?;
        Some(Range { base: cut(base, prefix, width), prefix, width })
    }
    fn contains(&self, address: IpAddr) -> bool {
        let (bits, width) = bits(address);
        width == self.width && cut(bits, self.prefix, width) == self.base
    }
    fn covers(&self, other: &Range) -> bool {
        self.width == other.width
            && self.prefix <= other.prefix
            && cut(other.base, self.prefix, self.width) == self.base
    }
    fn overlaps(&self, other: &Range) -> bool {
        self.covers(other) || other.covers(self)
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn cut(bits: u128, prefix: u32, width: u32) -> u128 {
    let tail = width - prefix;
    bits.checked_shr(tail).and_then(|b| b.checked_shl(tail)).unwrap_or(0)
}

fn ranges(cidr: &Value) -> Vec<Range> {
    list(&cidr["spec"]["cidrs"]).iter().filter_map(|c| Range::parse(text(c))).collect()
}

fn is_allocated(address: &Value) -> bool {
    object::label(address, MANAGED_BY) == Some(ALLOCATOR)
}

impl Reconciler for ServiceCidr {
    fn name(&self) -> &'static str {
        MANAGER
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[SERVICECIDRS, IPADDRESSES]
    }

    /// The ServiceCIDR itself and those that share addresses with it, or those an address lies in.
    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        let all = view.list(SERVICECIDRS, "");
        if change.resource == SERVICECIDRS {
            let changed = ranges(change.object());
            let related = |c: &&Arc<Object>| ranges(c).iter().any(|r| changed.iter().any(|o| o.overlaps(r)));
            let mut keys: Vec<ObjectKey> = all.filter(related).map(|c| c.key()).collect();
            if !keys.contains(&change.key) {
                keys.push(change.key.clone());
            }
            return keys;
        }
        // Addresses come and go with every Service; they matter to a range that waits for its end alone.
        let Ok(address) = change.key.name.parse() else { return Vec::new() };
        all.filter(|c| object::is_deleting(c) && ranges(c).iter().any(|r| r.contains(address)))
            .map(|c| c.key())
            .collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(cidr) = view.get_key(SERVICECIDRS, key) else { return Plan::nothing() };
        let held = object::finalizers(cidr).any(|f| f == FINALIZER);
        if !object::is_deleting(cidr) {
            let mut plan = Plan::nothing();
            if !held {
                plan.push(patch(cidr, json!({"metadata": {"finalizers": [FINALIZER]}})));
            }
            // Who made the cluster's own range says so in other words; ready is ready.
            if !conditions::is_true(&cidr["status"], "Ready") {
                plan.push(condition(cidr, "True", "", "Kubernetes Service CIDR is ready", now));
            }
            return plan;
        }
        if needed(view, cidr) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                           ServiceCIDR";
            let told = conditions::find(&cidr["status"], "Ready").is_some_and(|c| c["status"] == "False");
            let action = (!told).then(|| condition(cidr, "False", "Terminating", message, now));
            return Plan::of(action.into_iter().collect());
        }
        let until = parse_time(&cidr["metadata"]["deletionTimestamp"]).unwrap_or(now) + GRACE;
        if until > now {
            return Plan { requeue_at: Some(until), ..Plan::nothing() };
        }
        let action =
            held.then(|| patch(cidr, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})));
        Plan::of(action.into_iter().collect())
    }
}

/// Whether some address lies in this range alone.
fn needed(view: &View, cidr: &Object) -> bool {
    let own = ranges(cidr);
    let others: Vec<Range> =
        view.list(SERVICECIDRS, "").filter(|c| object::uid(c) != object::uid(cidr)).flat_map(|c| ranges(c)).collect();
    if own.iter().all(|range| others.iter().any(|other| other.covers(range))) {
        return false;
    }
    view.list(IPADDRESSES, "").filter(|a| is_allocated(a)).any(|address| {
        let Ok(ip) = object::name(address).parse() else { return false };
        let within = |ranges: &[Range]| ranges.iter().any(|r| r.contains(ip));
        within(&own) && !within(&others)
    })
}

fn patch(cidr: &Object, mut body: Value) -> Action {
    body["metadata"]["uid"] = object::uid(cidr).into();
    Action::Patch { resource: SERVICECIDRS, key: cidr.key(), sub: "", patch: Patch::Strategic(body) }
}

fn condition(cidr: &Object, status: &str, reason: &str, message: &str, now: Timestamp) -> Action {
    let body = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": object::name(cidr), "uid": object::uid(cidr)},
        "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message,
                                   "lastTransitionTime": time(now)}]},
    });
    let patch = Patch::Apply { manager: MANAGER.into(), force: true, body };
    Action::Patch { resource: SERVICECIDRS, key: cidr.key(), sub: "status", patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn cidr(name: &str, range: &str) -> Value {
        json!({"metadata": {"name": name, "uid": name}, "spec": {"cidrs": [range]}})
    }
    fn ending(name: &str, range: &str) -> Value {
        let mut cidr = cidr(name, range);
        cidr["metadata"]["finalizers"] = json!([FINALIZER]);
        cidr["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        cidr
    }
    fn check(cidrs: &[Value], addresses: &[&str], now: &str, expected: Expect) {
        let address = |ip: &&str| (IPADDRESSES, json!({"metadata": {"name": ip, "labels": {MANAGED_BY: ALLOCATOR}}}));
        let cidrs = cidrs.iter().map(|c| (SERVICECIDRS, c.clone()));
        let view = View::of(cidrs.chain(addresses.iter().map(address)));
        let plan = ServiceCidr.plan(&view, &ObjectKey::new("", "a"), now.parse().unwrap());
        expected.assert_eq(&plan.to_string());
    }

    #[test]
    fn a_new_range_is_held_and_ready() {
        check(
            &[cidr("a", "10.0.0.0/24")],
            &[],
            "2026-01-01T00:00:00Z",
            expect![[r#"
            patch servicecidrs a {"metadata":{"finalizers":["networking.k8s.io/service-cidr-finalizer"]}}
            patch servicecidrs/status a {"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR","metadata":{"name":"a"},"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"Kubernetes Service CIDR is ready","reason":"","status":"True","type":"Ready"}]}}
        "#]],
        );
    }

    #[test]
    fn an_address_holds_the_only_range_it_lies_in() {
        check(
            &[ending("a", "10.0.0.0/24")],
            &["10.0.0.7"],
            "2026-01-01T01:00:00Z",
            expect![[r#"
            patch servicecidrs/status a {"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR","metadata":{"name":"a"},"status":{"conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR","reason":"Terminating","status":"False","type":"Ready"}]}}
        "#]],
        );
        let wider = cidr("b", "10.0.0.0/16");
        check(
            &[ending("a", "10.0.0.0/24"), wider],
            &["10.0.0.7"],
            "2026-01-01T01:00:00Z",
            expect![[r#"
            patch servicecidrs a {"metadata":{"$deleteFromPrimitiveList/finalizers":["networking.k8s.io/service-cidr-finalizer"]}}
        "#]],
        );
    }

    #[test]
    fn a_range_nobody_needs_goes_after_the_grace() {
        let others = &["10.1.0.7", "fd00::1"];
        check(
            &[ending("a", "10.0.0.0/24")],
            others,
            "2026-01-01T00:00:04Z",
            expect![[r#"
            again at 2026-01-01T00:00:10Z
        "#]],
        );
        check(
            &[ending("a", "10.0.0.0/24")],
            others,
            "2026-01-01T00:00:10Z",
            expect![[r#"
            patch servicecidrs a {"metadata":{"$deleteFromPrimitiveList/finalizers":["networking.k8s.io/service-cidr-finalizer"]}}
        "#]],
        );
    }
}
