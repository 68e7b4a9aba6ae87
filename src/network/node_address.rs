//! Addresses a node holds besides those Docker gave it.
//!
//! Owns: putting a Service's address on the node's loopback link, so that something on the node can answer there.
//! Called by: `dns`, for the kube-dns Service's address.
//! Never: touches addresses it was not asked for.

use std::net::Ipv4Addr;

use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::types::addr::Scope;
use nlink::{Connection, Route};

#[derive(Debug, thiserror::Error)]
#[error("could not put the address on the loopback link")]
pub struct Error(#[source] nlink::Error);

/// Makes `address` one of the node's own. Of scope host, so that the kernel never picks it as the source address of
/// what the node itself sends, nor for masquerading. Idempotent; it goes with the node's network namespace.
pub async fn claim(address: Ipv4Addr) -> Result<(), Error> {
    let kernel = Connection::<Route>::new().map_err(Error)?;
    let loopback = kernel.resolve_interface(&"lo".to_owned().into()).await.map_err(Error)?;
    kernel.set_link_up_by_index(loopback).await.map_err(Error)?;
    kernel.replace_address(Ipv4Address::with_index(loopback, address, 32).scope(Scope::Host)).await.map_err(Error)
}
