//! Whose an address is: the kernel's table of neighbours (ARP for IPv4, NDP for IPv6).
//!
//! The table is read anew for each question, so nothing that is wrong in it stays wrong here. It tells
//! where this host's answers go, and no more: who can forge ARP or NDP on the client's own network segment
//! gets them. A stale entry counts, as the connection that the question came by was made through it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::Server;
use crate::iscsi::Origin;
use crate::library::{Client, MacAddr};

/// Which machine is at an address, as far as the network can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// Whichever it says that it is: the configuration trusts its network.
    Trusted,
    /// A neighbour with these hardware addresses.
    Neighbour(IpAddr, Vec<MacAddr>),
    /// Nobody can tell.
    Unknown(Unproven),
}

/// How often the table is read while the kernel asks the network who has an address.
const TRIES: u32 = 5;

/// How long that may take each time: a neighbour answers within a millisecond.
const ANSWERS: Duration = Duration::from_millis(40);

/// Where a word goes that makes the kernel ask: nobody listens there (RFC 863, discard).
const DISCARD: u16 = 9;

/// Messages of one dump: a kernel keeps 1024 neighbours by default, and this many by no configuration that
/// makes sense.
const MOST: usize = 1 << 20;

/// Why somebody is not known to be the client that he says he is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unproven {
    /// He is no neighbour: something routes between him and this server.
    Routed(IpAddr),
    /// His address is that of a machine with another hardware address.
    Another(IpAddr, MacAddr),
    /// The table cannot be read.
    Unreadable(String),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unproven::Routed(ip) => write!(
                f,
                "{ip} is no neighbour of this server, so nobody can tell which machine it is; where a \
                 router stands between them, list its network in [boot] trusted in netroot.toml"
            ),
            Unproven::Another(ip, mac) => write!(
                f,
                "{ip} belongs to {mac}, which is not an address of this client; if it is the same \
                 machine, add it: netroot client set CLIENT --mac {mac}"
            ),
            Unproven::Unreadable(why) => write!(
                f,
                "the kernel's table of neighbours could not be read ({why}), so nobody can tell which \
                 machine it is"
            ),
        }
    }
}

impl Server {
    /// Which machine connects from `peer`: a neighbour's hardware address, unless the configuration trusts
    /// what comes from its network. Waits for a moment where the kernel has to ask, and keeps nobody else
    /// from anything meanwhile.
    pub async fn whereabouts(self: &Arc<Self>, peer: SocketAddr) -> Whereabouts {
        let ip = peer.ip().to_canonical();
        if self.trusts(ip) {
            return Whereabouts::Trusted;
        }
        // This host is nobody's neighbour.
        let tries = if ip.is_loopback() { 0 } else { TRIES };
        for attempt in 0..tries {
            if attempt > 0 {
                tokio::time::sleep(ANSWERS).await;
            }
            let look = self.call_for_firmware(move |_| look(peer)).await;
            match look.unwrap_or_else(|| Err(io::Error::other("the server made a mistake"))) {
                Ok(owners) if owners.is_empty() => {}
                Ok(owners) => return Whereabouts::Neighbour(ip, owners),
                Err(error) => {
                    return Whereabouts::Unknown(Unproven::Unreadable(error.to_string()));
                }
            }
        }
        Whereabouts::Unknown(Unproven::Routed(ip))
    }

    /// Whether the configuration trusts what comes from there.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        let (config, ip) = (self.library().config(), ip.to_canonical());
        config.boot.trusted.iter().any(|network| network.has(ip))
    }
}

impl Whereabouts {
    /// Whether that is this client: a neighbour with none but its hardware addresses, or somebody who is
    /// believed.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn is(&self, client: &Client) -> Result<(), Unproven> {
        match self {
            Whereabouts::Trusted => Ok(()),
            Whereabouts::Neighbour(ip, owners) => {
                match owners.iter().find(|mac| !client.has_mac(mac)) {
                    Some(stranger) => Err(Unproven::Another(*ip, *stranger)),
                    None => Ok(()),
                }
            }
            Whereabouts::Unknown(why) => Err(why.clone()),
        }
    }
}

/// The hardware addresses of whoever is connected from `peer`: an entry of the table led our answers there.
/// None where something routes between, or nobody can tell. Takes less than a millisecond.
pub(super) fn hardware_at(peer: SocketAddr) -> Vec<MacAddr> {
    match table(peer.ip().to_canonical()) {
        Ok(table) => owners(&table, peer),
        Err(error) => {
            tracing::warn!(%peer, %error, "cannot read the kernel's table of neighbours");
            Vec::new()
        }
    }
}

/// What is said of those who may have one of the hardware addresses that are meant.
pub(super) fn neighbours_among<T>(
    peers: Vec<(Origin, T)>,
    is_meant: impl Fn(&MacAddr) -> bool,
) -> io::Result<Vec<T>> {
    let mut tables = HashMap::new();
    let mut found = Vec::new();
    for (origin, what) in peers {
        let ip = origin.ip();
        let meant = match tables.entry(ip.is_ipv4()) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(place) => place.insert(addresses(&table(ip)?, &is_meant)),
        };
        if meant.iter().any(|address| origin.may_be(*address)) {
            found.push(what);
        }
    }
    Ok(found)
}

/// The addresses that lead to the hardware that is meant: few of a table, which may be long.
fn addresses(table: &[Neighbour], is_meant: impl Fn(&MacAddr) -> bool) -> Vec<SocketAddr> {
    let meant = table.iter().filter(|entry| is_meant(&entry.mac));
    meant.map(Neighbour::address).collect()
}

/// One look at the table; it makes the kernel ask where nothing is found. Takes less than a millisecond.
fn look(peer: SocketAddr) -> io::Result<Vec<MacAddr>> {
    let owners = owners(&table(peer.ip().to_canonical())?, peer);
    if owners.is_empty() {
        // Without an entry, or with one that has failed, the kernel asks again when something is to be
        // sent. What cannot be sent changes nothing.
        let _ = nudge(peer);
    }
    Ok(owners)
}

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Neighbour {
    ip: IpAddr,
    interface: u32,
    mac: MacAddr,
}

impl Neighbour {
    fn address(&self) -> SocketAddr {
        on_link(self.ip, self.interface)
    }
}

/// An address by itself. The same link-local one is another machine's on another interface (RFC 4007 §6).
fn on_link(ip: IpAddr, interface: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, 0, 0, interface).into()
        }
        ip => SocketAddr::new(ip, 0),
    }
}

/// The hardware addresses that answers to `peer` may go to. It may be a neighbour by several interfaces,
/// and is taken for none that is not one by all of them.
fn owners(table: &[Neighbour], peer: SocketAddr) -> Vec<MacAddr> {
    let link = match peer {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let address = on_link(peer.ip().to_canonical(), link);
    let meant = table.iter().filter(|entry| entry.address() == address);
    meant.map(|entry| entry.mac).collect()
}

/// The neighbours of the family of `ip` whose hardware addresses are known.
fn table(ip: IpAddr) -> io::Result<Vec<Neighbour>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    let mut asked = NeighbourMessage::default();
    asked.header.family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    let question = RouteNetlinkMessage::GetNeighbour(asked);
    let mut question = NetlinkMessage::new(header, NetlinkPayload::from(question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut neighbours = Vec::new();
    for _ in 0..MOST {
        let (answer, _) = socket.recv_from_full()?;
        if let Part::Last = part(&answer, &mut neighbours)? {
            return Ok(neighbours);
        }
    }
    Err(io::Error::other("it does not end"))
}

/// Whether a part of a dump is its last.
enum Part {
    More,
    Last,
}

/// Takes the neighbours out of a part of a dump.
fn part(mut bytes: &[u8], into: &mut Vec<Neighbour>) -> io::Result<Part> {
    while !bytes.is_empty() {
        let message: NetlinkMessage<RouteNetlinkMessage> =
            NetlinkMessage::deserialize(bytes).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(Part::Last),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => {
                into.extend(neighbour(&entry));
            }
            _ => {}
        }
        // Messages begin at multiples of four bytes (netlink(7), NLMSG_ALIGN).
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(Part::More)
}

/// An entry that tells where answers go; those that do not, or that are no Ethernet, are none.
fn neighbour(entry: &NeighbourMessage) -> Option<Neighbour> {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    let knows = [Reachable, Stale, Delay, Probe, Permanent];
    if !knows.contains(&entry.header.state) {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some((*v4).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some((*v6).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    Some(Neighbour {
        ip: ip?,
        interface: entry.header.ifindex,
        mac: MacAddr::new(mac?).ok()?,
    })
}

/// Sends an empty datagram, for which the kernel has to know where its receiver is.
fn nudge(mut peer: SocketAddr) -> io::Result<()> {
    let own = match peer {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    peer.set_port(DISCARD);
    UdpSocket::bind((own, 0))?.send_to(&[], peer).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ip: &str, interface: u32, last: u8) -> Neighbour {
        Neighbour {
            ip: ip.parse().unwrap(),
            interface,
            mac: mac(last),
        }
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn an_address_is_its_neighbours_on_all_interfaces_that_it_can_be_on() {
        let table = [
            entry("192.0.2.7", 2, 7),
            entry("192.0.2.8", 2, 8),
            entry("192.0.2.8", 3, 9),
            entry("fe80::1", 2, 1),
            entry("fe80::1", 3, 2),
            entry("2001:db8::1", 3, 2),
        ];
        let at = |peer: &str| owners(&table, peer.parse().unwrap());
        assert_eq!(at("192.0.2.7:1000"), [mac(7)]);
        assert_eq!(at("[::ffff:192.0.2.7]:1000"), [mac(7)]);
        assert_eq!(at("192.0.2.8:1000"), [mac(8), mac(9)]);
        assert_eq!(at("192.0.2.9:1000"), []);
        assert_eq!(at("[fe80::1%3]:1000"), [mac(2)]);
        assert_eq!(at("[fe80::1%4]:1000"), []);
        assert_eq!(at("[2001:db8::1]:1000"), [mac(2)]);
        let of = |last| addresses(&table, |its| *its == mac(last));
        let told = of(2).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(told, ["[fe80::1%3]:0", "[2001:db8::1]:0"]);
        assert!(of(3).is_empty());
    }

    #[test]
    fn only_entries_that_tell_where_answers_go_count() {
        let entry = |state, address: &[u8]| {
            let mut entry = NeighbourMessage::default();
            entry.header.state = state;
            let ip = NeighbourAddress::Inet(Ipv4Addr::new(192, 0, 2, 7));
            entry.attributes = vec![
                NeighbourAttribute::Destination(ip),
                NeighbourAttribute::LinkLayerAddress(address.to_vec()),
            ];
            neighbour(&entry).map(|found| found.mac)
        };
        let address = [0x52, 0x54, 0, 0, 0, 7];
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Delay,
        ] {
            assert_eq!(entry(state, &address), Some(mac(7)));
        }
        for state in [
            NeighbourState::Failed,
            NeighbourState::Incomplete,
            NeighbourState::Noarp,
        ] {
            assert_eq!(entry(state, &address), None);
        }
        assert_eq!(entry(NeighbourState::Reachable, &address[..4]), None);
    }

    #[test]
    fn the_table_of_this_host_can_be_read() {
        for ip in ["127.0.0.1", "::1"] {
            table(ip.parse().unwrap()).unwrap();
        }
    }
}
