//! Whoever guesses passwords is slowed down, and nobody is locked out: a wrong password costs the next
//! try from there some seconds, never more than half a minute. Browsers that somebody was in with have
//! tries of their own, whatever others do at the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::daemon::network;

/// Wrong passwords of one user from one place that cost nothing: people mistype.
const FREE: u32 = 3;
/// Of all users together from one place: a classroom behind one address logs in at once.
const FREE_OF_ALL: u32 = 30;
/// Tries in a minute from places where nobody has logged in yet: more come from many machines that
/// guess together. Who logged in once is not hindered by them.
const A_MINUTE: u32 = 120;

const MINUTE: Duration = Duration::from_secs(60);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// What is forgotten after so long a quiet.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Names are free: so many are remembered.
const MOST: usize = 4096;

/// Tries that were wrong, by who tried.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<Tries>);

#[derive(Debug, Default)]
struct Tries {
    wrong: HashMap<Key, Count>,
    /// Where somebody has logged in, and when.
    known: HashMap<IpAddr, Instant>,
    minute: Option<Instant>,
    in_minute: u32,
}

/// Who tries to come in.
#[derive(Debug, Clone, Copy)]
pub(in crate::web) struct Caller<'a> {
    /// As whom: what was typed.
    pub(in crate::web) name: &'a str,
    /// From where.
    pub(in crate::web) peer: IpAddr,
    /// With which of that user's browsers, if it is one of theirs.
    pub(in crate::web) device: Option<&'a str>,
}

/// Whose tries are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// A user's, with one of their browsers.
    Device(String, String),
    /// A name's, at a place.
    Name(String, IpAddr),
    /// All of a place.
    Place(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    tries: u32,
    last: Instant,
}

impl Attempts {
    /// Whether somebody may try now, or how long they have to wait. It counts as wrong until it is
    /// told to be right, so that many tries at once are no way around.
    pub(super) fn begin(&self, caller: Caller<'_>, now: Instant) -> Result<(), Duration> {
        let place = network(caller.peer);
        let mut tries = self.tries();
        tries.forget(now);
        let keys = caller.keys();
        for (key, free) in &keys {
            if let Some(count) = tries.wrong.get(key) {
                let since = now.saturating_duration_since(count.last);
                let wait = wait_after(count.tries, *free).saturating_sub(since);
                if !wait.is_zero() {
                    return Err(wait);
                }
            }
        }
        if caller.is_stranger() && !tries.known.contains_key(&place) {
            let began = *tries.minute.get_or_insert(now);
            if now.saturating_duration_since(began) >= MINUTE {
                (tries.minute, tries.in_minute) = (Some(now), 0);
            }
            if tries.in_minute >= A_MINUTE {
                return Err(LONGEST);
            }
            tries.in_minute += 1;
        }
        for (key, _) in keys {
            let first = Count {
                tries: 0,
                last: now,
            };
            let count = tries.wrong.entry(key).or_insert(first);
            count.tries = count.tries.saturating_add(1);
            count.last = now;
        }
        Ok(())
    }

    /// A try has its answer: whoever has to wait waits from now on, however long the answer took.
    pub(super) fn answered(&self, caller: Caller<'_>, now: Instant) {
        let mut tries = self.tries();
        for (key, _) in caller.keys() {
            if let Some(count) = tries.wrong.get_mut(&key) {
                count.last = count.last.max(now);
            }
        }
    }

    /// The last try was right.
    pub(super) fn was_right(&self, caller: Caller<'_>) {
        let mut tries = self.tries();
        for (key, _) in caller.keys() {
            match key {
                // What others tried from there stays counted: one right password does not buy wrong
                // ones.
                Key::Place(_) => {
                    if let Some(all) = tries.wrong.get_mut(&key) {
                        all.tries = all.tries.saturating_sub(1);
                    }
                }
                Key::Device(..) | Key::Name(..) => {
                    tries.wrong.remove(&key);
                }
            }
        }
        tries.known.insert(network(caller.peer), Instant::now());
    }

    fn tries(&self) -> std::sync::MutexGuard<'_, Tries> {
        // A panic elsewhere leaves the counts whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller<'_> {
    /// What a wrong try of theirs counts for, and how many of those are free.
    fn keys(&self) -> Vec<(Key, u32)> {
        let name: String = self.name.chars().take(64).collect();
        if let Some(device) = self.device {
            return vec![(Key::Device(name, device.to_owned()), FREE)];
        }
        let place = network(self.peer);
        let mut keys = vec![(Key::Name(name, place), FREE)];
        // By default everybody comes from this host, through ssh or a proxy: that is not one place.
        if !place.is_loopback() {
            keys.push((Key::Place(place), FREE_OF_ALL));
        }
        keys
    }

    /// Whether nothing is known of them: they may be one of many who guess together.
    fn is_stranger(&self) -> bool {
        self.device.is_none() && !self.peer.to_canonical().is_loopback()
    }
}

impl Tries {
    fn forget(&mut self, now: Instant) {
        if self.wrong.len() >= MOST {
            let quiet = |count: &Count| now.saturating_duration_since(count.last);
            self.wrong.retain(|_, count| quiet(count) < FORGOTTEN);
            // Still too many: those who have waited longest, half of them at once.
            if self.wrong.len() >= MOST {
                let mut lasts: Vec<Instant> = self.wrong.values().map(|count| count.last).collect();
                lasts.sort();
                if let Some(&middle) = lasts.get(MOST / 2) {
                    self.wrong.retain(|_, count| count.last > middle);
                }
            }
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
    }
}

/// 1, 2, 4, ... seconds after those that are free.
fn wait_after(tries: u32, free: u32) -> Duration {
    match tries.checked_sub(free) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(5)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn by(name: &str, peer: IpAddr) -> Caller<'_> {
        Caller {
            name,
            peer,
            device: None,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_wrong_password_after_the_third_costs_twice_the_time() {
        let attempts = Attempts::default();
        let peer = ip("192.0.2.1");
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..12 {
            if let Err(wait) = attempts.begin(by("admin", peer), now) {
                waits.push(wait.as_secs());
                now += wait;
                attempts.begin(by("admin", peer), now).unwrap();
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        // Others are not hindered: not another name there, not the same one elsewhere.
        assert!(attempts.begin(by("alice", peer), now).is_ok());
        assert!(attempts.begin(by("admin", ip("192.0.2.2")), now).is_ok());
        // And a refused try costs nothing: who waits is let in.
        now += seconds(30);
        assert!(attempts.begin(by("admin", peer), now).is_ok());
        attempts.was_right(by("admin", peer));
        assert!(attempts.begin(by("admin", peer), now).is_ok());
    }

    #[test]
    fn a_slow_answer_takes_nothing_from_the_wait() {
        let attempts = Attempts::default();
        let peer = ip("192.0.2.1");
        let start = Instant::now();
        for _ in 0..FREE {
            attempts.begin(by("admin", peer), start).unwrap();
        }
        attempts.answered(by("admin", peer), start + seconds(60));
        let next = attempts.begin(by("admin", peer), start + seconds(60));
        assert_eq!(next, Err(seconds(1)));
        assert!(
            attempts
                .begin(by("admin", peer), start + seconds(61))
                .is_ok()
        );
    }

    #[test]
    fn many_names_from_one_network_are_one_who_guesses() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let peer = |n: u32| ip(&format!("2001:db8::{n:x}"));
        let tried =
            (0..100).filter(|n| attempts.begin(by(&format!("u{n}"), peer(*n)), now).is_ok());
        assert_eq!(tried.count(), FREE_OF_ALL as usize);
        assert!(attempts.begin(by("u", ip("2001:db8:0:1::1")), now).is_ok());
    }

    #[test]
    fn many_machines_do_not_keep_out_who_was_in() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let home = ip("192.0.2.1");
        attempts.begin(by("admin", home), now).unwrap();
        attempts.was_right(by("admin", home));
        let strangers = (0..1000u32).map(|n| IpAddr::from((n + 10_000_000).to_be_bytes()));
        let tried = strangers.filter(|ip| attempts.begin(by("admin", *ip), now).is_ok());
        assert_eq!(tried.count(), A_MINUTE as usize - 1);
        assert!(attempts.begin(by("admin", home), now).is_ok());
        let stranger = ip("198.51.100.1");
        assert_eq!(attempts.begin(by("x", stranger), now), Err(LONGEST));
        assert!(attempts.begin(by("x", stranger), now + MINUTE).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        for n in 0..20_000u32 {
            now += seconds(1);
            let _ = attempts.begin(by("x", IpAddr::from((n << 8).to_be_bytes())), now);
            assert!(attempts.tries().wrong.len() <= MOST + 1);
        }
    }

    #[test]
    fn who_was_in_before_is_kept_out_by_nobody() {
        let attempts = Attempts::default();
        let now = Instant::now();
        // Somebody guesses the same name from the same address, and all others besides.
        let place = ip("192.0.2.1");
        for n in 0..100 {
            let _ = attempts.begin(by("admin", place), now);
            let _ = attempts.begin(by(&format!("u{n}"), place), now);
        }
        assert!(attempts.begin(by("admin", place), now).is_err());
        let mine = Caller {
            device: Some("one"),
            ..by("admin", place)
        };
        for _ in 0..FREE {
            attempts.begin(mine, now).unwrap();
        }
        // A browser that was stolen does not guess for ever, either; the user's others go on.
        assert!(attempts.begin(mine, now).is_err());
        let other = Caller {
            device: Some("two"),
            ..mine
        };
        assert!(attempts.begin(other, now).is_ok());
    }

    #[test]
    fn this_host_is_not_one_place() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let here = ip("127.0.0.1");
        for n in 0..1000 {
            let _ = attempts.begin(by(&format!("u{n}"), here), now);
        }
        assert!(attempts.begin(by("admin", here), now).is_ok());
    }
}
