//! A node's address made known to its neighbours before they ask again.
//!
//! Owns: the gratuitous ARP of an address (RFC 5227, section 3).
//! Called by: the control plane's process, once its port is open.
//! Never: claims an address; it must be one of the node's own.
//!
//! A node that starts a moment earlier asks for an address nobody has yet, and Linux asks again only after a second
//! (`net.ipv4.neigh.*.retrans_time_ms`). The announcement answers it, and what waits on its side is sent at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nlink::{Connection, Route};
use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};

type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const MAC_LEN: u8 = 6;
const IPV4_LEN: u8 = 4;
const ETHERNET: u16 = 1;
const IPV4: u16 = 0x0800;
const REQUEST: u16 = 1;
const PACKET_LEN: usize = 28;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not look up the link of {address}")]
    Link { address: Ipv4Addr, source: nlink::Error },
    #[error("{address} is on no Ethernet link of this node")]
    NotOurs { address: Ipv4Addr },
    #[error("could not announce {address}")]
    Send { address: Ipv4Addr, source: io::Error },
}

/// Tells every neighbour on the link of `address` which Ethernet address it has.
pub async fn announce(address: Ipv4Addr) -> Result<(), Error> {
    let failed = |source| Error::Link { address, source };
    let not_ours = || Error::NotOurs { address };
    let kernel = Connection::<Route>::new().map_err(failed)?;
    let held = kernel.get_address_by_ip(IpAddr::V4(address)).await.map_err(failed)?.ok_or_else(not_ours)?;
    let link = kernel.get_link_by_index(held.ifindex()).await.map_err(failed)?.ok_or_else(not_ours)?;
    let mac: Mac = link.address().and_then(|mac| mac.try_into().ok()).ok_or_else(not_ours)?;
    send(held.ifindex(), &packet(mac, address)).map_err(|source| Error::Send { address, source })
}

/// Asks for its own address in its own name: every neighbour that waits for it learns it from the question.
fn packet(mac: Mac, address: Ipv4Addr) -> [u8; PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    packet[0..2].copy_from_slice(&ETHERNET.to_be_bytes());
    packet[2..4].copy_from_slice(&IPV4.to_be_bytes());
    packet[4] = MAC_LEN;
    packet[5] = IPV4_LEN;
    packet[6..8].copy_from_slice(&REQUEST.to_be_bytes());
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&address.octets());
    packet[24..28].copy_from_slice(&address.octets());
    packet
}

#[expect(unsafe_code, reason = "no safe wrapper knows the address of a link")]
fn send(link: u32, packet: &[u8]) -> io::Result<()> {
    let socket: OwnedFd = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(eth::ARP))?;
    let mut addr = [0; 8];
    addr[..BROADCAST.len()].copy_from_slice(&BROADCAST);
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: i32::try_from(link).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: MAC_LEN,
        sll_addr: addr,
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: both pointers are to live values of the lengths given, and the kernel only reads them.
    let sent = unsafe {
        let to = std::ptr::from_ref(&to).cast();
        libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, len)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
