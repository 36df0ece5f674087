//! Machines that ask for a script and that nobody knows. Kept in memory only: after a restart of the
//! server they are seen anew.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::timeline::PATIENCE;
use crate::library::{BootFailure, MacAddr};

/// Machines that are remembered which nobody knows.
const STRANGERS: usize = 64;

/// How many of them may come from one address: a few stand behind some routers, and nobody may push
/// the others out with addresses that he makes up.
const STRANGERS_OF_ONE: usize = 8;

/// How long they are remembered.
const STRANGE: SignedDuration = SignedDuration::from_hours(24);

/// A machine that asked for a script and is nobody's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stranger {
    /// The hardware address that it told.
    pub mac: MacAddr,
    /// Where it asked from last.
    #[schema(value_type = String)]
    pub peer: IpAddr,
    /// When it asked first.
    pub first: Timestamp,
    /// When it asked last.
    pub last: Timestamp,
    /// How often.
    pub times: u64,
    /// What its iPXE said last that it could not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BootFailure>,
}

/// What was seen of machines that nobody knows.
#[derive(Debug, Default)]
pub(super) struct Room {
    strangers: HashMap<MacAddr, Stranger>,
}

impl Room {
    /// Somebody asked for the script of a machine that nobody knows. Tells whether that is news.
    pub(super) fn stranger(&mut self, mac: MacAddr, peer: IpAddr, now: Timestamp) -> bool {
        if let Some(known) = self.strangers.get_mut(&mac) {
            let news = now.duration_since(known.last) >= PATIENCE;
            (known.peer, known.last, known.times) = (peer, now, known.times + 1);
            return news;
        }
        self.strangers
            .retain(|_, one| now.duration_since(one.last) < STRANGE);
        let of_one = self.strangers.values().filter(|one| one.peer == peer);
        if of_one.count() >= STRANGERS_OF_ONE {
            return false;
        }
        if self.strangers.len() >= STRANGERS
            && let Some(oldest) = self.strangers.values().min_by_key(|one| one.last)
        {
            let oldest = oldest.mac;
            self.strangers.remove(&oldest);
        }
        let stranger = Stranger {
            mac,
            peer,
            first: now,
            last: now,
            times: 1,
            failure: None,
        };
        self.strangers.insert(mac, stranger);
        true
    }

    /// Those who asked last first.
    pub(super) fn strangers(&self, now: Timestamp) -> Vec<Stranger> {
        let recent = self.strangers.values();
        let mut recent: Vec<Stranger> = recent
            .filter(|one| now.duration_since(one.last) < STRANGE)
            .cloned()
            .collect();
        recent.sort_by_key(|one| (std::cmp::Reverse(one.last), one.mac));
        recent
    }

    /// Forgets strangers that became clients.
    pub(super) fn retain(&mut self, is_client: impl Fn(&MacAddr) -> bool) {
        self.strangers.retain(|mac, _| !is_client(mac));
    }

    /// iPXE of one of them says that it could not go on. Only who asked last from this address may say so.
    /// Tells whether that is news.
    pub(super) fn failed(&mut self, mac: &MacAddr, peer: IpAddr, failure: BootFailure) -> bool {
        let known = self.strangers.get_mut(mac).filter(|one| one.peer == peer);
        known.is_some_and(|known| known.failure.replace(failure) != Some(failure))
    }

    /// One of them became a client.
    pub(super) fn is_known(&mut self, mac: &MacAddr) {
        self.strangers.remove(mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, last]).unwrap()
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn strangers_are_bounded_and_go_when_they_are_known() {
        let mut room = Room::default();
        assert!(room.stranger(mac(1), peer(1), at(0)));
        assert!(!room.stranger(mac(1), peer(2), at(1)), "no news");
        let first = &room.strangers(at(2))[0];
        assert_eq!((first.times, first.peer), (2, peer(2)));
        let many = (10..60).filter(|&n| room.stranger(mac(n), peer(9), at(3)));
        assert_eq!(many.count(), STRANGERS_OF_ONE);
        for n in 60..250 {
            assert!(room.stranger(mac(n), peer(n), at(i64::from(n))));
        }
        let known = room.strangers(at(250));
        assert_eq!(known.len(), STRANGERS);
        assert_eq!(known[0].mac, mac(249), "the latest first");
        room.retain(|known| *known == mac(249));
        assert_eq!(room.strangers(at(250)).len(), STRANGERS - 1);
        assert!(room.strangers(at(250 + 86_400)).is_empty());
    }
}
