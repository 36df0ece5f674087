//! Who is at the other end of an HTTP connection.

use std::net::SocketAddr;

use crate::iscsi::canonical;
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
                let peer = canonical(*from).to_string();
                Actor::Client {
                    initiator: String::new(),
                    peer,
                }
            }
        }
    }
}
