//! Connections that did not log in to a target, by address: whoever makes them is at work there, and may keep
//! others on the same machine from logging in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::room::net;

/// Doors that are remembered. One more takes the place of the one that was heard of least recently.
const MOST: usize = 4096;
/// Those of one network, which may be one machine's as a whole: all further addresses of it are one.
const MOST_OF_A_NET: usize = MOST / 4;
/// How long they are remembered where others want the room.
const KEPT: Duration = Duration::from_secs(60);

/// Who knocks, and when.
#[derive(Debug, Clone, Default)]
pub struct Knocks(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    doors: HashMap<Origin, Door>,
    /// When the last one of those was heard of that have made room.
    forgotten: Option<Instant>,
}

/// From where somebody knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From this address. Its port is 0.
    Address(SocketAddr),
    /// From any address of this IPv6 network of 64 bits.
    Net(SocketAddr),
}

impl Origin {
    /// Whether it may be this address, whose port is 0, too.
    pub fn may_be(&self, address: SocketAddr) -> bool {
        match self {
            Origin::Address(own) => *own == address,
            Origin::Net(own) => *own == net_of(address),
        }
    }

    /// An address of it.
    pub fn ip(&self) -> IpAddr {
        let (Origin::Address(address) | Origin::Net(address)) = self;
        address.ip()
    }
}

/// The network of an address, on its link.
fn net_of(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(net(address.ip()));
    address
}

/// What is known of one of them.
#[derive(Debug, Default)]
struct Door {
    /// Connections that have not logged in so far.
    open: usize,
    /// When the last of those came.
    came: Option<Instant>,
    /// When one ended that never did, or was turned away.
    ended: Option<Instant>,
}

/// Somebody at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knocked {
    /// When he came or went last.
    pub at: Instant,
    /// He is there still.
    pub is_there: bool,
}

impl Door {
    fn knocked(&self) -> Option<Knocked> {
        let is_there = self.open > 0;
        let came = self.came.filter(|_| is_there);
        Some(Knocked {
            at: came.max(self.ended)?,
            is_there,
        })
    }
}

/// A connection that has not logged in.
#[derive(Debug)]
pub(super) struct Knock {
    knocks: Knocks,
    origin: Origin,
    forgotten: bool,
}

impl Knocks {
    /// From where somebody knocks, or has done so within this time, which is no longer than a minute. Nobody
    /// knows where more have done so than can be remembered.
    pub fn within(&self, time: Duration) -> Option<Vec<(Origin, Knocked)>> {
        let table = self.table();
        if table.forgotten.is_some_and(|at| at.elapsed() < time) {
            return None;
        }
        let knocked = |(origin, door): (&Origin, &Door)| Some((*origin, door.knocked()?));
        let all = table.doors.iter().filter_map(knocked);
        let lately = |knocked: &Knocked| knocked.is_there || knocked.at.elapsed() < time;
        Some(all.filter(|(_, knocked)| lately(knocked)).collect())
    }

    /// A connection comes from `peer`.
    pub(super) fn knock(&self, peer: SocketAddr) -> Knock {
        // The scope of an address stays, its port does not matter.
        let mut address = super::link::canonical(peer);
        address.set_port(0);
        let mut table = self.table();
        let origin = table.make_room_for(address);
        let door = table.doors.entry(origin).or_default();
        door.open += 1;
        door.came = Some(Instant::now());
        Knock {
            knocks: self.clone(),
            origin,
            forgotten: false,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Counts change in one step each, so a panic elsewhere cannot leave them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Sees to it that there is room for the door of an address, and tells which that is.
    fn make_room_for(&mut self, address: SocketAddr) -> Origin {
        let own = Origin::Address(address);
        if self.doors.len() < MOST_OF_A_NET || self.doors.contains_key(&own) {
            return own;
        }
        let now = Instant::now();
        let kept = |ended: Instant| now.saturating_duration_since(ended) < KEPT;
        self.doors
            .retain(|_, door| door.open > 0 || door.ended.is_some_and(kept));
        let net = net_of(address);
        let is_near =
            |origin: &&Origin| matches!(origin, Origin::Address(near) if net_of(*near) == net);
        let origin = match self.doors.keys().filter(is_near).count() {
            MOST_OF_A_NET.. => Origin::Net(net),
            _ => own,
        };
        if self.doors.len() >= MOST && !self.doors.contains_key(&origin) {
            // Connections that are there are as many as there is room for.
            let over = self.doors.iter().filter(|(_, door)| door.open == 0);
            let oldest = over.min_by_key(|(_, door)| door.ended).map(|(o, _)| *o);
            let oldest = oldest.and_then(|oldest| self.doors.remove(&oldest));
            self.forgotten = oldest.and_then(|door| door.ended).max(self.forgotten);
        }
        origin
    }
}

impl Knock {
    /// Nobody is to hear of it any more: it has logged in, and is seen as a session from now on, or is none that
    /// counts.
    pub(super) fn forget(mut self) {
        self.forgotten = true;
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut table = self.knocks.table();
        let Some(door) = table.doors.get_mut(&self.origin) else {
            return;
        };
        door.open -= 1;
        if !self.forgotten {
            door.ended = Some(Instant::now());
        } else if door.knocked().is_none() {
            table.doors.remove(&self.origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    const TIME: Duration = Duration::from_secs(6);

    fn peer(n: u32) -> SocketAddr {
        ([10, 0, (n >> 8) as u8, n as u8], 4000 + n as u16 % 1000).into()
    }

    fn who(knocks: &Knocks) -> Vec<SocketAddr> {
        let address = |(origin, _)| match origin {
            Origin::Address(address) => address,
            Origin::Net(net) => panic!("all of {net}"),
        };
        let all = knocks.within(TIME).unwrap().into_iter();
        let mut who: Vec<_> = all.map(address).collect();
        who.sort();
        who
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_logged_in_is_told_for_a_while() {
        let knocks = Knocks::default();
        let address = |n: u32| SocketAddr::new(peer(n).ip(), 0);
        let (first, second) = (knocks.knock(peer(1)), knocks.knock(peer(2)));
        let third = knocks.knock("[::ffff:10.0.0.2]:7".parse().unwrap());
        tokio::time::sleep(10 * TIME).await;
        assert_eq!(who(&knocks), [address(1), address(2)], "they are there");
        let ago = knocks.within(TIME).unwrap()[0].1.at.elapsed();
        assert_eq!(ago, 10 * TIME);
        first.forget();
        assert_eq!(who(&knocks), [address(2)]);
        second.forget();
        assert_eq!(who(&knocks), [address(2)], "one of two is there still");
        drop(third);
        tokio::time::sleep(TIME / 2).await;
        assert_eq!(who(&knocks), [address(2)]);
        assert!(!knocks.within(TIME).unwrap()[0].1.is_there);
        tokio::time::sleep(TIME / 2).await;
        assert!(who(&knocks).is_empty());
    }

    #[tokio::test]
    async fn a_link_local_address_is_told_with_its_link() {
        let knocks = Knocks::default();
        let there =
            |link| SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 0, link));
        let _both = [2, 3].map(|link| knocks.knock(there(link)));
        let links: Vec<_> = who(&knocks).iter().map(SocketAddr::to_string).collect();
        assert_eq!(links, ["[fe80::1%2]:0", "[fe80::1%3]:0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_stays_small_and_loses_nobody_who_is_there() {
        let knocks = Knocks::default();
        let there = knocks.knock(peer(0));
        for n in 1..5000 {
            drop(knocks.knock(peer(n)));
            tokio::time::advance(Duration::from_millis(3)).await;
        }
        assert_eq!(knocks.table().doors.len(), MOST);
        let who = who(&knocks);
        assert!(who.iter().any(|address| address.ip() == peer(0).ip()));
        assert!(who.iter().any(|address| address.ip() == peer(4999).ip()));
        drop(there);
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_to_go_a_moment_ago_may_be_anybody() {
        let knocks = Knocks::default();
        for n in 0..MOST as u32 {
            drop(knocks.knock(peer(n)));
        }
        assert_eq!(who(&knocks).len(), MOST, "as many as there is room for");
        drop(knocks.knock(peer(9999)));
        assert_eq!(knocks.within(TIME), None);
        tokio::time::sleep(TIME).await;
        assert!(who(&knocks).is_empty());
        tokio::time::sleep(KEPT).await;
        drop(knocks.knock(peer(9998)));
        assert_eq!(knocks.table().doors.len(), 1, "what is long over goes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_with_too_many_addresses_is_one_and_displaces_nobody() {
        let knocks = Knocks::default();
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let system = peer(1);
        drop(knocks.knock(system));
        for n in 0..2 * MOST {
            drop(knocks.knock(at(&format!("2001:db8::1:{n:x}"))));
        }
        let victim = knocks.knock(at("2001:db8::7"));
        let all = knocks.within(TIME).unwrap();
        assert_eq!(all.len(), 2 + MOST_OF_A_NET);
        let may_be = |address| all.iter().any(|(origin, _)| origin.may_be(address));
        assert!(may_be(SocketAddr::new(system.ip(), 0)));
        assert!(may_be(at("2001:db8::7")));
        assert!(!may_be(at("2001:db8:0:1::7")));
        victim.forget();
        let all = knocks.within(TIME).unwrap();
        assert!(all.iter().all(|(_, knocked)| !knocked.is_there));
    }
}
