//! Room for connections: so many at a time, and not all of them for one peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::server::Limits;

/// What the listeners of a server share.
pub(super) struct Room {
    connections: usize,
    per_address: usize,
    // Held for a look or a change of the counts, never across an await.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("too many connections")]
    All,
    #[error("too many connections from this address")]
    Address,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Room {
            connections: limits.connections,
            per_address: limits.connections_per_address,
            taken: Mutex::default(),
        })
    }

    /// Takes a seat for a connection from `address`, until it is dropped.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        // One peer is one peer, whichever kind of socket it came to.
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.connections {
            return Err(Full::All);
        }
        let here = taken.by_address.get(&address).copied().unwrap_or_default();
        if here >= self.per_address {
            return Err(Full::Address);
        }
        taken.by_address.insert(address, here + 1);
        taken.all += 1;
        Ok(Seat {
            room: self.clone(),
            address,
        })
    }
}

/// The seat of one connection.
pub(super) struct Seat {
    room: Arc<Room>,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = &self.room.taken;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        let Some(here) = taken.by_address.get_mut(&self.address) else {
            return;
        };
        *here -= 1;
        if *here == 0 {
            taken.by_address.remove(&self.address);
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
}
