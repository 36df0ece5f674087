//! UDP as a server with several addresses needs it: a packet is known with the address and the interface
//! that it came in by, and the answer goes out the same way.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A UDP socket.
#[derive(Debug)]
pub(super) struct Datagrams(UdpSocket);

/// Where a packet came from, and by which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Who sent it. IPv4 on a socket of both families is IPv4.
    pub from: SocketAddr,
    /// What it was sent to: an address of ours, or everybody's.
    pub to: IpAddr,
    /// Our address on that network.
    pub local: IpAddr,
    /// The interface's number.
    pub interface: u32,
}

impl Arrival {
    /// Whether it was sent to this host, and not to everybody or to a group.
    pub(super) fn is_unicast(&self) -> bool {
        self.to == self.local
    }
}

impl Datagrams {
    /// A socket for nobody else: with two on a port, who gets which packet would be luck.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        match address {
            SocketAddr::V4(_) => {
                socket.set_broadcast(true)?;
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            SocketAddr::V6(_) => {
                // IPv4 clients come in by the same socket, whatever the system's default.
                socket.set_only_v6(false)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into()).map(Datagrams)
    }

    /// Where it is bound.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits for a packet. What does not fit into `buffer` is cut off.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Arrival)> {
        self.0
            .async_io(Interest::READABLE, || self.try_receive(buffer))
            .await
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Arrival)> {
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.0.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from = received.address.as_ref().and_then(address);
        let way = received.cmsgs()?.find_map(|message| way(&message));
        match (from, way) {
            (Some(from), Some((to, local, interface))) => {
                let arrival = Arrival {
                    from: crate::iscsi::canonical(from),
                    to,
                    local,
                    interface,
                };
                Ok((received.bytes, arrival))
            }
            // Linux tells both of every packet.
            _ => Err(io::Error::other("a packet came from nowhere")),
        }
    }

    /// Sends IPv4 by the way that a packet came in.
    pub(super) async fn send_back(
        &self,
        bytes: &[u8],
        to: SocketAddrV4,
        came: (Ipv4Addr, u32),
    ) -> io::Result<()> {
        let (local, interface) = came;
        let way = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(interface).unwrap_or_default(),
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from_ne_bytes(local.octets()),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let send = || {
            let way = ControlMessage::Ipv4PacketInfo(&way);
            let parts = [IoSlice::new(bytes)];
            let to = SockaddrIn::from(to);
            let fd = self.0.as_raw_fd();
            Ok(sendmsg(fd, &parts, &[way], MsgFlags::empty(), Some(&to))?)
        };
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}

/// A socket for what goes on with one client, at a port of its own, by the way that its packet came in.
pub(super) async fn answering(came: &Arrival) -> io::Result<UdpSocket> {
    let local = match (came.local, came.from) {
        // An address of one link means something only together with the link.
        (IpAddr::V6(ip), SocketAddr::V6(from)) => {
            SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, from.scope_id()))
        }
        (ip, _) => SocketAddr::new(ip, 0),
    };
    let socket = UdpSocket::bind(local).await?;
    // Packets of anybody else do not get in.
    socket.connect(came.from).await?;
    Ok(socket)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4));
    let v6 = storage.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6));
    v4.map(SocketAddr::V4).or(v6.map(SocketAddr::V6))
}

/// What the kernel tells of a packet's way: where it was sent to, our address there, the interface.
fn way(message: &ControlMessageOwned) -> Option<(IpAddr, IpAddr, u32)> {
    let v4 = |address: libc::in_addr| IpAddr::from(Ipv4Addr::from(address.s_addr.to_ne_bytes()));
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some((
            v4(info.ipi_addr),
            v4(info.ipi_spec_dst),
            u32::try_from(info.ipi_ifindex).unwrap_or_default(),
        )),
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let to = IpAddr::from(info.ipi6_addr.s6_addr).to_canonical();
            Some((to, to, info.ipi6_ifindex))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_packet_is_known_with_its_way_and_answered_by_it() {
        let socket = Datagrams::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.9:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        client.send_to(b"hello", at).await.unwrap();
        let mut buffer = [0; 16];
        let (length, came) = socket.receive(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert_eq!(came.from, client.local_addr().unwrap());
        assert_eq!(came.local, at.ip());
        assert!(came.is_unicast() && came.interface > 0);
        let SocketAddr::V4(to) = came.from else {
            panic!("{came:?}");
        };
        let way = (Ipv4Addr::LOCALHOST, came.interface);
        socket.send_back(b"yes", to, way).await.unwrap();
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"yes"[..], at));
    }

    #[tokio::test]
    async fn ipv4_on_a_socket_of_both_families_is_ipv4() {
        let socket = match Datagrams::bind("[::]:0".parse().unwrap()) {
            // A kernel without IPv6 has no such sockets.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return,
            bound => bound.unwrap(),
        };
        let port = socket.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"hello", ("127.0.0.2", port)).await.unwrap();
        let (_, came) = socket.receive(&mut [0; 16]).await.unwrap();
        assert_eq!(came.from, client.local_addr().unwrap());
        assert_eq!(came.local, IpAddr::from([127, 0, 0, 2]));
        let answering = answering(&came).await.unwrap();
        answering.send(b"yes").await.unwrap();
        let (_, from) = client.recv_from(&mut [0; 16]).await.unwrap();
        assert_eq!(from, answering.local_addr().unwrap());
        assert_eq!(from.ip(), came.local);
    }
}
