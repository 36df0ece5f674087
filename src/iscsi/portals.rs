//! Network portals (RFC 7143 §4.2.7.2): where a target listens, and what SendTargets tells of it. They may
//! come and go while sessions are there.
//!
//! All portals are of one portal group: a session may come in by any of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// The portals of a running target.
#[derive(Clone, Default)]
pub struct Portals(Arc<Shared>);

#[derive(Default)]
struct Shared {
    // Held for a look or a change, never across an await.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    open: Vec<Portal>,
    /// Listeners whose first connection is still to be accepted by somebody.
    waiting: Vec<Door>,
    announced: Vec<SocketAddr>,
}

struct Portal {
    /// What it is known by: the address that was asked for, with a port of 0 if any was right.
    name: SocketAddr,
    address: SocketAddr,
    // A watch channel, because the listener must see the end, also if it looks late; and because the
    // sender learns when the listener has gone.
    closes: watch::Sender<bool>,
}

/// A listener, and what tells it to end.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) closes: watch::Receiver<bool>,
}

impl Portals {
    /// No portals yet. SendTargets will name `announced` in place of those that there are, unless that is
    /// empty.
    pub fn new(announced: Vec<SocketAddr>) -> Self {
        let portals = Portals::default();
        portals.announce(announced);
        portals
    }

    /// Logins from now on are told these addresses; with none, where the target listens.
    pub fn announce(&self, announced: Vec<SocketAddr>) {
        self.state().announced = announced;
    }

    /// Takes connections from `listener`, which was asked to listen on `name`.
    ///
    /// # Errors
    /// When the listener's address cannot be told.
    pub fn open(&self, name: SocketAddr, listener: TcpListener) -> std::io::Result<()> {
        let address = listener.local_addr()?;
        let (closes, closed) = watch::channel(false);
        let mut state = self.state();
        state.open.push(Portal {
            name,
            address,
            closes,
        });
        state.waiting.push(Door {
            listener,
            closes: closed,
        });
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Takes no connections there any more, and resolves when others may listen there. Sessions that came
    /// in by it go on.
    pub async fn close(&self, name: SocketAddr) {
        let portal = {
            let mut state = self.state();
            let at = state.open.iter().position(|portal| portal.name == name);
            at.map(|at| state.open.remove(at))
        };
        if let Some(portal) = portal {
            portal.closes.send_replace(true);
            portal.closes.closed().await;
        }
    }

    /// What the portals are known by.
    pub fn names(&self) -> Vec<SocketAddr> {
        self.state().open.iter().map(|portal| portal.name).collect()
    }

    /// Where the target listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let state = self.state();
        state.open.iter().map(|portal| portal.address).collect()
    }

    /// Resolves to the next listener that nobody accepts from.
    pub(super) async fn next(&self) -> Door {
        loop {
            if let Some(door) = self.state().waiting.pop() {
                return door;
            }
            self.0.changed.notified().await;
        }
    }

    /// What SendTargets tells an initiator that came in at `local`: first that, which it can reach.
    pub(super) fn told_at(&self, local: SocketAddr) -> Vec<SocketAddr> {
        // A TargetAddress says nothing of links (RFC 7143 §13.8).
        let local = SocketAddr::new(local.ip(), local.port());
        let state = self.state();
        if !state.announced.is_empty() {
            return state.announced.clone();
        }
        let mut told = vec![local];
        for portal in &state.open {
            let address = seen_from(portal.address, local.ip());
            if let Some(address) = address.filter(|address| !told.contains(address)) {
                told.push(address);
            }
        }
        told
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A portal's address for an initiator that reached this host at `local`; nothing if it means nothing to
/// that.
fn seen_from(portal: SocketAddr, local: IpAddr) -> Option<SocketAddr> {
    let ip = portal.ip().to_canonical();
    let of_one_link = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let near = |ip: IpAddr| (ip.is_loopback(), of_one_link(ip));
    match ip.is_unspecified() {
        // A socket for everything of IPv6 takes IPv4, too; not the other way round.
        true if ip.is_ipv4() && local.is_ipv6() => None,
        true => Some(SocketAddr::new(local, portal.port())),
        // Addresses of one host or one link are told to those who are there.
        false if near(ip) > near(local) => None,
        false => Some(SocketAddr::new(ip, portal.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn portals(names: &[&str]) -> Portals {
        let portals = Portals::default();
        for name in names {
            let name = name.parse().unwrap();
            let listener = TcpListener::bind(name).await.unwrap();
            portals.open(name, listener).unwrap();
        }
        portals
    }

    #[tokio::test]
    async fn an_initiator_is_told_all_portals_and_first_the_one_that_it_came_by() {
        let portals = portals(&["0.0.0.0:0", "127.0.0.1:0", "[::]:0"]).await;
        let [all, loopback, v6]: [SocketAddr; 3] = portals.addresses().try_into().unwrap();
        let at = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        let came = at("192.0.2.1", all.port());
        assert_eq!(
            portals.told_at(came),
            [came, at("192.0.2.1", v6.port())],
            "nobody elsewhere reaches a loopback"
        );
        assert_eq!(
            portals.told_at(loopback),
            [
                loopback,
                at("127.0.0.1", all.port()),
                at("127.0.0.1", v6.port())
            ]
        );
        let came = at("2001:db8::1", v6.port());
        assert_eq!(portals.told_at(came), [came]);
        let came = format!("[fe80::1%7]:{}", v6.port()).parse().unwrap();
        assert_eq!(portals.told_at(came), [at("fe80::1", v6.port())]);
        let announced = vec![at("198.51.100.7", 3260), at("2001:db8::7", 3261)];
        portals.announce(announced.clone());
        assert_eq!(portals.told_at(came), announced);
    }

    #[tokio::test]
    async fn an_address_is_free_when_its_portal_has_closed() {
        let portals = portals(&["127.0.0.1:0"]).await;
        let [name] = portals.names()[..] else {
            panic!("one portal");
        };
        let [address] = portals.addresses()[..] else {
            panic!("one portal");
        };
        let door = portals.next().await;
        let listening = tokio::spawn(async move {
            let Door {
                listener,
                mut closes,
            } = door;
            let _ = closes.wait_for(|closes| *closes).await;
            drop(listener);
        });
        portals.close(name).await;
        TcpListener::bind(address).await.unwrap();
        listening.await.unwrap();
        assert!(portals.addresses().is_empty());
        portals.close(name).await;
    }
}
