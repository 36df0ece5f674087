//! Wake-on-LAN: the frame that turns machines on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::{
    Actor, Client, ClientName, ClientSelector, Error, Event, Library, MacAddr, Result,
};

/// Where magic packets go by custom: the discard service (RFC 863), since it is the network card that
/// reads them, and nobody else should.
const PORT: u16 = 9;

/// A client that is woken, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Woken {
    /// The client.
    pub client: ClientName,
    /// Its address.
    pub mac: MacAddr,
    /// The addresses that are called: each of its network cards may be the one that listens.
    pub called: Vec<MacAddr>,
    /// Where they are called, interface by interface.
    pub by: Vec<WakeWay>,
}

/// A way that a magic packet takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeWay {
    /// The interface.
    pub interface: String,
    /// Where it goes on its network.
    #[schema(value_type = String)]
    pub to: SocketAddr,
    /// Why it could not be sent; nothing where it was, or was not tried.
    pub failed: Option<String>,
}

/// Calls clients by Wake-on-LAN, or with `dry_run` tells how.
///
/// # Errors
/// When there are none, or no network leads to machines.
pub fn wake(
    library: &Library,
    clients: &ClientSelector,
    dry_run: bool,
    actor: &Actor,
) -> Result<Vec<Woken>> {
    let mut woken = Vec::new();
    for client in library.select(clients)? {
        let called = match dry_run {
            true => plan(&client),
            false => call(&client),
        };
        woken.push(called.map_err(|source| Error::Io {
            doing: format!("waking {}", client.name),
            source,
        })?);
        if !dry_run {
            library.note(&Event::new(actor, "client-wake").of(&client.mac));
        }
    }
    Ok(woken)
}

/// What calling a client would do. Nothing is sent.
fn plan(client: &Client) -> io::Result<Woken> {
    let by = ways()?;
    if by.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NetworkUnreachable,
            "no interface of this host that is up leads to other machines; look at `ip -brief address`",
        ));
    }
    Ok(Woken {
        client: client.name.clone(),
        mac: client.mac,
        called: std::iter::once(client.mac)
            .chain(client.more_macs.iter().copied())
            .collect(),
        by,
    })
}

/// Calls all network cards of a client on all networks of this host. Nobody answers: whether a machine
/// wakes is seen when it boots.
fn call(client: &Client) -> io::Result<Woken> {
    let mut woken = plan(client)?;
    let packets: Vec<Vec<u8>> = woken.called.iter().map(magic).collect();
    for way in &mut woken.by {
        let sent = packets.iter().try_for_each(|packet| send(way, packet));
        way.failed = sent.err().map(|why| why.to_string());
    }
    match woken.by.iter().find_map(|way| way.failed.as_ref()) {
        Some(why) if woken.by.iter().all(|way| way.failed.is_some()) => {
            Err(io::Error::other(why.clone()))
        }
        _ => Ok(woken),
    }
}

/// Six bytes of ones, then the address sixteen times (AMD publication 20213, Magic Packet Technology).
fn magic(mac: &MacAddr) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    for _ in 0..16 {
        packet.extend(mac.bytes());
    }
    packet
}

fn send(way: &WakeWay, packet: &[u8]) -> io::Result<()> {
    let from: SocketAddr = match way.to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from)?;
    if way.to.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    // A datagram is sent whole or not at all.
    socket.send_to(packet, way.to).map(drop)
}

/// One for each network that machines are on: the broadcast address of each IPv4 network, and all nodes
/// of the link (RFC 4291 §2.7.1) where an interface has no such address.
fn ways() -> io::Result<Vec<WakeWay>> {
    let all: Vec<InterfaceAddress> = getifaddrs()?.collect();
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_BROADCAST;
    let usable = all.iter().filter(|one| {
        one.flags.contains(wanted) && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let usable: Vec<&InterfaceAddress> = usable.collect();
    let mut ways: Vec<WakeWay> = Vec::new();
    for one in &usable {
        let broadcast = one.broadcast.as_ref().and_then(|to| to.as_sockaddr_in());
        let (Some(to), Some(_)) = (broadcast, ipv4(one)) else {
            continue;
        };
        ways.push(WakeWay::of(one, (to.ip(), PORT).into()));
    }
    for one in &usable {
        let link_local = one.address.as_ref().and_then(|at| at.as_sockaddr_in6());
        let is_link_local = link_local.is_some_and(|at| at.ip().is_unicast_link_local());
        if !is_link_local || ways.iter().any(|way| way.interface == one.interface_name) {
            continue;
        }
        let Ok(index) = if_nametoindex(one.interface_name.as_str()) else {
            // It has just gone.
            continue;
        };
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = SocketAddrV6::new(all_nodes, PORT, 0, index);
        ways.push(WakeWay::of(one, to.into()));
    }
    ways.dedup();
    Ok(ways)
}

fn ipv4(one: &InterfaceAddress) -> Option<IpAddr> {
    let at = one.address.as_ref()?.as_sockaddr_in()?;
    Some(at.ip().into())
}

impl WakeWay {
    fn of(interface: &InterfaceAddress, to: SocketAddr) -> Self {
        WakeWay {
            interface: interface.interface_name.clone(),
            to,
            failed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_packet_calls_the_address_sixteen_times() {
        let packet = magic(&"52:54:00:12:34:56".parse().unwrap());
        assert_eq!(packet.len(), 102);
        let (head, calls) = packet.split_at(6);
        assert_eq!(head, [0xff; 6]);
        let calls: Vec<&[u8]> = calls.chunks(6).collect();
        assert_eq!(calls, [&[0x52, 0x54, 0, 0x12, 0x34, 0x56][..]; 16]);
    }
}
