//! Who is at the other end of an HTTP connection.

use std::net::{IpAddr, SocketAddr};

use crate::library::Actor;

/// Who is at the other end of an HTTP connection; an extension of each request.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Somebody on the network.
    Network {
        /// Where the connection comes from.
        from: SocketAddr,
        /// The address of ours that it came to.
        local: SocketAddr,
        /// How it came.
        over: Scheme,
    },
    /// A user of this host, through the control socket.
    Local {
        /// Who runs the process.
        uid: u32,
        /// The process.
        pid: i32,
    },
}

/// How a connection carries what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As it is.
    Http,
    /// Encrypted.
    Https,
}

impl Scheme {
    /// What URLs begin with.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl Peer {
    /// Who it is in an event.
    pub fn actor(&self) -> Actor {
        match self {
            Peer::Local { uid, pid } => Actor::Socket {
                uid: *uid,
                pid: *pid,
            },
            Peer::Network { from, .. } => {
                let peer = unmapped(*from).to_string();
                Actor::Client {
                    initiator: String::new(),
                    peer,
                }
            }
        }
    }
}

/// The address with IPv4 as IPv4, also where an IPv6 socket took it in. One of IPv6 keeps its zone: those
/// of one link mean nothing without (RFC 4007 §6).
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_ipv4_and_ipv6_keeps_its_zone() {
        for (address, as_it_is) in [
            ("[::ffff:192.0.2.7]:69", "192.0.2.7:69"),
            ("192.0.2.7:69", "192.0.2.7:69"),
            ("[fe80::1%3]:69", "[fe80::1%3]:69"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(unmapped(address), as_it_is.parse().unwrap());
        }
    }
}
