//! Failed proofs, by address: whoever guesses secrets has to wait.
//!
//! Nobody is locked out, least of all by somebody else: an address that has failed often has its next
//! proof looked at a little later, and that is all. Between connections this bounds how many guesses an
//! address has a minute; the secrets themselves have 96 bits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::room::net;

/// Failures that cost nothing: a mistyped secret.
const FREE: u32 = 3;
/// The first wait; it doubles with each failure.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait, well within the time that a login has.
const LONGEST: Duration = Duration::from_secs(3);
/// After this time half of the failures are forgotten.
const HALF: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const MOST: usize = 4096;

/// The failures of all addresses.
#[derive(Debug, Default)]
pub(super) struct Failures {
    // Held for a look or a change, never across an await.
    known: Mutex<HashMap<IpAddr, Record>>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    count: u32,
    last: Instant,
}

impl Record {
    fn remaining(&self, now: Instant) -> u32 {
        let halves = now.saturating_duration_since(self.last).as_secs() / HALF.as_secs();
        let halves = u32::try_from(halves).unwrap_or(u32::MAX);
        self.count.checked_shr(halves).unwrap_or(0)
    }
}

impl Failures {
    /// How long a proof from this address waits before it is looked at.
    pub(super) fn wait(&self, address: IpAddr) -> Duration {
        self.wait_at(address, Instant::now())
    }

    /// A proof from this address has failed.
    pub(super) fn add(&self, address: IpAddr) {
        self.add_at(address, Instant::now());
    }

    fn wait_at(&self, address: IpAddr, now: Instant) -> Duration {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.get(&net(address)).map_or(0, |r| r.remaining(now));
        match count.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(more) => FIRST
                .saturating_mul(1u32.checked_shl(more - 1).unwrap_or(u32::MAX))
                .min(LONGEST),
        }
    }

    fn add_at(&self, address: IpAddr, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let net = net(address);
        if known.len() >= MOST && !known.contains_key(&net) {
            known.retain(|_, record| record.remaining(now) > 0);
        }
        // A table full of guessers forgets the one that has been quiet for longest.
        if known.len() >= MOST && !known.contains_key(&net) {
            let oldest = known.iter().min_by_key(|(_, r)| r.last).map(|(a, _)| *a);
            oldest.map(|oldest| known.remove(&oldest));
        }
        let record = known.entry(net).or_insert(Record {
            count: 0,
            last: now,
        });
        *record = Record {
            count: record.remaining(now).saturating_add(1),
            last: now,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_often_waits_longer_but_never_long() {
        let (failures, now) = (Failures::default(), Instant::now());
        let guesser = IpAddr::from([192, 0, 2, 1]);
        let mut waits = Vec::new();
        for _ in 0..10 {
            waits.push(failures.wait_at(guesser, now).as_millis());
            failures.add_at(guesser, now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3000]);
        for _ in 0..1000 {
            failures.add_at(guesser, now);
        }
        assert_eq!(failures.wait_at(guesser, now), LONGEST);
        let other = IpAddr::from([192, 0, 2, 2]);
        assert_eq!(failures.wait_at(other, now), Duration::ZERO);
    }

    #[test]
    fn failures_are_forgotten() {
        let (failures, now) = (Failures::default(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..8 {
            failures.add_at(address, now);
        }
        assert_eq!(failures.wait_at(address, now).as_millis(), 1600);
        assert_eq!(failures.wait_at(address, now + HALF).as_millis(), 100);
        assert_eq!(failures.wait_at(address, now + 2 * HALF), Duration::ZERO);
        assert_eq!(failures.wait_at(address, now + 5000 * HALF), Duration::ZERO);
    }

    #[test]
    fn a_network_of_one_owner_counts_as_one() {
        let (failures, now) = (Failures::default(), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for i in 0..5 {
            failures.add_at(address(&format!("2001:db8::{i}")), now);
        }
        assert!(failures.wait_at(address("2001:db8::ffff"), now) > Duration::ZERO);
        assert!(failures.wait_at(address("2001:db8:0:1::1"), now).is_zero());
        for _ in 0..5 {
            failures.add_at(address("::ffff:192.0.2.1"), now);
        }
        assert!(failures.wait_at(address("192.0.2.1"), now) > Duration::ZERO);
    }

    #[test]
    fn the_table_stays_small() {
        let (failures, now) = (Failures::default(), Instant::now());
        for i in 0..5000_u32 {
            let now = now + Duration::from_millis(u64::from(i));
            failures.add_at(IpAddr::V4(i.into()), now);
        }
        assert_eq!(failures.known.lock().unwrap().len(), MOST);
    }
}
