//! Connections that did not log in to a target, by address: whoever makes them is at work there, and may keep
//! others on the same machine from logging in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses that are remembered. One more takes the place of the one that was heard of least recently.
const MOST: usize = 4096;

/// Who knocks, and when.
#[derive(Debug, Clone, Default)]
pub struct Knocks(Arc<Mutex<HashMap<SocketAddr, Door>>>);

/// One address.
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
    address: SocketAddr,
    admitted: bool,
}

impl Knocks {
    /// The addresses from which somebody knocks, or has done so within this time.
    pub fn within(&self, time: Duration) -> Vec<(SocketAddr, Knocked)> {
        let doors = self.doors();
        let knocked = |(address, door): (&SocketAddr, &Door)| Some((*address, door.knocked()?));
        let all = doors.iter().filter_map(knocked);
        let lately = |knocked: &Knocked| knocked.is_there || knocked.at.elapsed() < time;
        all.filter(|(_, knocked)| lately(knocked)).collect()
    }

    /// A connection comes from `peer`.
    pub(super) fn knock(&self, peer: SocketAddr) -> Knock {
        // The scope of an address stays, its port does not matter.
        let mut address = super::link::canonical(peer);
        address.set_port(0);
        let mut doors = self.doors();
        if doors.len() >= MOST && !doors.contains_key(&address) {
            // Connections that are there are as many as there is room for.
            let over = doors.iter().filter(|(_, door)| door.open == 0);
            let oldest = over.min_by_key(|(_, door)| door.ended).map(|(a, _)| *a);
            oldest.map(|oldest| doors.remove(&oldest));
        }
        let door = doors.entry(address).or_default();
        door.open += 1;
        door.came = Some(Instant::now());
        Knock {
            knocks: self.clone(),
            address,
            admitted: false,
        }
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<SocketAddr, Door>> {
        // Counts change in one step each, so a panic elsewhere cannot leave them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Knock {
    /// The connection has logged in, and is seen as a session from now on.
    pub(super) fn admitted(mut self) {
        self.admitted = true;
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut doors = self.knocks.doors();
        let Some(door) = doors.get_mut(&self.address) else {
            return;
        };
        door.open -= 1;
        if !self.admitted {
            door.ended = Some(Instant::now());
        } else if door.knocked().is_none() {
            doors.remove(&self.address);
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
        let mut who: Vec<_> = knocks.within(TIME).into_iter().map(|(a, _)| a).collect();
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
        let ago = knocks.within(TIME)[0].1.at.elapsed();
        assert_eq!(ago, 10 * TIME);
        first.admitted();
        assert_eq!(who(&knocks), [address(2)]);
        second.admitted();
        assert_eq!(who(&knocks), [address(2)], "one of two is there still");
        drop(third);
        tokio::time::sleep(TIME / 2).await;
        assert_eq!(who(&knocks), [address(2)]);
        assert!(
            knocks
                .within(TIME)
                .iter()
                .all(|(_, knocked)| !knocked.is_there)
        );
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
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(knocks.doors().len(), MOST);
        let who = who(&knocks);
        assert!(who.iter().any(|address| address.ip() == peer(0).ip()));
        assert!(who.iter().any(|address| address.ip() == peer(4999).ip()));
        drop(there);
    }
}
