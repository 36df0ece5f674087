//! Room for connections: so many at a time, and not all of them for one peer.
//!
//! Who has not logged in to a target yet (discovery included, which asks for no proof) gets a part of
//! the room only: whatever strangers open, machines find a place.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::server::Limits;

/// What the listeners of a server share.
pub(super) struct Room {
    connections: usize,
    strangers: usize,
    per_address: usize,
    // Held for a look or a change of the counts, never across an await.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    strangers: usize,
    strangers_by_net: HashMap<IpAddr, usize>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("too many connections")]
    All,
    #[error("too many connections that have not logged in")]
    Strangers,
    #[error("too many connections from this address")]
    Address,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Room {
            connections: limits.connections,
            strangers: limits.strangers,
            per_address: limits.connections_per_address,
            taken: Mutex::default(),
        })
    }

    /// Takes a seat for a connection from `address`, until it is dropped.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        // One peer is one peer, whichever kind of socket it came to.
        let address = address.to_canonical();
        let mut taken = self.taken();
        if taken.all >= self.connections {
            return Err(Full::All);
        }
        if taken.strangers >= self.strangers {
            return Err(Full::Strangers);
        }
        // Machines of a room may well share one network, but they log in within a moment.
        let here = count(&taken.by_address, &address);
        let near = count(&taken.strangers_by_net, &net(address));
        if here.max(near) >= self.per_address {
            return Err(Full::Address);
        }
        taken.by_address.insert(address, here + 1);
        taken.strangers_by_net.insert(net(address), near + 1);
        taken.all += 1;
        taken.strangers += 1;
        Ok(Seat {
            room: self.clone(),
            address,
            stranger: AtomicBool::new(true),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seat of one connection.
pub(super) struct Seat {
    room: Arc<Room>,
    address: IpAddr,
    stranger: AtomicBool,
}

impl Seat {
    /// The connection has logged in to a target: it is a stranger's no more.
    pub(super) fn admitted(&self) {
        if self.stranger.swap(false, Ordering::AcqRel) {
            let mut taken = self.room.taken();
            taken.strangers -= 1;
            leave(&mut taken.strangers_by_net, &net(self.address));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.admitted();
        let mut taken = self.room.taken();
        taken.all -= 1;
        leave(&mut taken.by_address, &self.address);
    }
}

/// Who has one address of an IPv6 network of 64 bits has all of them.
pub(super) fn net(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(here) = counts.get_mut(key) {
        *here -= 1;
        if *here == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_connection_ends() {
        let room = Room::new(&Limits {
            connections: 3,
            connections_per_address: 2,
            ..Limits::default()
        });
        let one: IpAddr = [192, 0, 2, 1].into();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let other: IpAddr = [192, 0, 2, 2].into();
        let (first, second) = (room.enter(one).unwrap(), room.enter(mapped).unwrap());
        assert_eq!(room.enter(one).err(), Some(Full::Address));
        let third = room.enter(other).unwrap();
        assert_eq!(room.enter(other).err(), Some(Full::All));
        drop(first);
        let again = room.enter(one).unwrap();
        drop((second, third, again));
        assert!(room.taken.lock().unwrap().by_address.is_empty());
    }
    #[test]
    fn strangers_leave_room_for_who_logs_in() {
        let room = Room::new(&Limits {
            connections: 4,
            strangers: 2,
            ..Limits::default()
        });
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let (first, second) = (room.enter(address(1)), room.enter(address(2)));
        assert_eq!(room.enter(address(3)).err(), Some(Full::Strangers));
        first.as_ref().unwrap().admitted();
        let third = room.enter(address(3)).unwrap();
        drop((first, second, third));
        let taken = room.taken();
        assert_eq!((taken.all, taken.strangers), (0, 0));
        assert!(taken.strangers_by_net.is_empty());
    }

    #[test]
    fn strangers_of_one_network_count_as_one() {
        let room = Room::new(&Limits {
            connections_per_address: 2,
            ..Limits::default()
        });
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = room.enter(address("2001:db8::1")).unwrap();
        let _two = room.enter(address("2001:db8::2")).unwrap();
        assert_eq!(
            room.enter(address("2001:db8::3")).err(),
            Some(Full::Address)
        );
        let _other = room.enter(address("2001:db8:0:1::1")).unwrap();
        one.admitted();
        let _three = room.enter(address("2001:db8::3")).unwrap();
    }
}
