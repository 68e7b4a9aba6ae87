//! Forgets UDP connections that lead where a Service no longer does.
//!
//! A UDP "connection" lives as long as packets come, so a busy client would talk to a pod that is gone for ever, or
//! keep missing the endpoints a Service got after its first packet. TCP ends by itself.
//!
//! Owns: the choice of stale entries (pure) and their deletion.
//! Called by: the sync loop, after the rules that send new packets right were applied.
//! Never: touches connections that no Service address is part of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nlink::netlink::netfilter::{ConntrackEntry, ConntrackFilter, IpProtocol};
use nlink::netlink::types::AddressFamily;
use nlink::netlink::{Connection, Netfilter};

use crate::endpoints::Target;

#[derive(Debug, thiserror::Error)]
#[error("could not {verb} UDP connections")]
pub struct Error {
    verb: &'static str,
    source: nlink::Error,
}

/// Addresses whose translation changed from one plan to the next, with what they lead to now.
pub fn touched(
    before: &BTreeMap<Target, BTreeSet<Target>>,
    after: &BTreeMap<Target, BTreeSet<Target>>,
) -> BTreeMap<Target, BTreeSet<Target>> {
    let fronts: BTreeSet<&Target> = before.keys().chain(after.keys()).collect();
    let changed = fronts.into_iter().filter(|front| before.get(front) != after.get(front));
    changed.map(|front| (*front, after.get(front).cloned().unwrap_or_default())).collect()
}

/// Deletes the entries to `fronts` that lead to none of their targets. Returns how many.
pub async fn forget_stale(fronts: &BTreeMap<Target, BTreeSet<Target>>) -> Result<usize, Error> {
    if fronts.is_empty() {
        return Ok(0);
    }
    let failed = |verb| move |source| Error { verb, source };
    let kernel = Connection::<Netfilter>::new().map_err(failed("open a netlink socket for"))?;
    let udp = ConntrackFilter::new().proto(IpProtocol::Udp).family(AddressFamily::Inet);
    let entries = kernel.get_conntrack_matching(&udp).await.map_err(failed("list"))?;
    let mut deleted = 0;
    for entry in entries.iter().filter(|entry| is_stale(entry, fronts)) {
        match kernel.del_conntrack_entry(entry).await {
            Ok(()) => deleted += 1,
            Err(error) if error.is_not_found() => {}
            Err(source) => return Err(failed("delete")(source)),
        }
    }
    Ok(deleted)
}

fn is_stale(entry: &ConntrackEntry, fronts: &BTreeMap<Target, BTreeSet<Target>>) -> bool {
    let (Some(IpAddr::V4(ip)), Some(port)) = (entry.orig.dst_ip, entry.orig.dst_port) else { return false };
    let Some(targets) = fronts.get(&(ip, port)) else { return false };
    // The answers come from where the packets were sent: the endpoint, or the Service itself when nothing translated.
    match (entry.reply.src_ip, entry.reply.src_port) {
        (Some(IpAddr::V4(ip)), Some(port)) => !targets.contains(&(ip, port)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn target(last: u8) -> Target {
        (Ipv4Addr::new(10, 0, 0, last), 53)
    }

    #[test]
    fn only_fronts_whose_endpoints_changed_are_looked_at() {
        let before =
            [(target(1), BTreeSet::from([target(9)])), (target(2), BTreeSet::new()), (target(3), BTreeSet::new())];
        let after = [
            (target(1), BTreeSet::from([target(9)])),
            (target(2), BTreeSet::from([target(9)])),
            (target(4), BTreeSet::new()),
        ];
        let touched = touched(&before.into(), &after.into());
        assert_eq!(
            touched,
            [(target(2), BTreeSet::from([target(9)])), (target(3), BTreeSet::new()), (target(4), BTreeSet::new())]
                .into()
        );
    }
}
