//! How fast sessions read and write: their counters, looked at once a second, and what that was over
//! the last minute. Kept in memory only.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::library::MacAddr;

/// How often the counters are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How many looks are remembered.
const REMEMBERED: usize = 60;

/// Bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Read by the initiator.
    pub read: u64,
    /// Written by it.
    pub written: u64,
}

/// The rates of the last minute, one a second, the oldest first. Shorter where less is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(VecDeque<Rate>);

/// The mean rates of the last minute, one for each [`Pace::SECONDS`], the oldest first. It is the same
/// for so long: for lists of many, where a number that never stands still tells less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pace(Vec<Rate>);

/// What a session's counters say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// The session.
    pub(super) session: u64,
    /// The client whose boot it is, if it is one of the library's.
    pub(super) client: Option<MacAddr>,
    /// Bytes that it has read so far.
    pub(super) read: u64,
    /// Bytes that it has written so far.
    pub(super) written: u64,
}

/// The rates of all sessions, of each client, and of all together.
#[derive(Debug, Default)]
pub(super) struct Rates {
    looked: Option<Instant>,
    /// How often: all paces change at the same looks.
    looks: usize,
    sessions: HashMap<u64, Followed>,
    clients: HashMap<MacAddr, History>,
    total: History,
}

#[derive(Debug)]
struct Followed {
    read: u64,
    written: u64,
    history: History,
}

impl Rate {
    /// Both ways together.
    pub fn sum(self) -> u64 {
        self.read.saturating_add(self.written)
    }

    fn add(&mut self, other: Rate) {
        self.read = self.read.saturating_add(other.read);
        self.written = self.written.saturating_add(other.written);
    }
}

impl History {
    /// The oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Rate> + Clone + '_ {
        self.0.iter().copied()
    }

    /// The latest one.
    pub fn now(&self) -> Rate {
        self.0.back().copied().unwrap_or_default()
    }

    /// Whether nothing happened in all that time.
    pub fn is_idle(&self) -> bool {
        self.0.iter().all(|rate| *rate == Rate::default())
    }

    /// What it was in the steps that were over `since` so many looks.
    fn pace(&self, since: usize) -> Pace {
        let known: Vec<Rate> = self.0.iter().rev().skip(since).copied().collect();
        // One step less than fit, so that it is no other one when the oldest begins to be forgotten.
        let steps = known.chunks_exact(Pace::STEP).take(Pace::STEPS);
        let mut means: Vec<Rate> = steps.map(mean).collect();
        means.reverse();
        Pace(means)
    }

    fn push(&mut self, rate: Rate) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(rate);
    }
}

impl Pace {
    /// What each of them is the mean of.
    pub const SECONDS: u32 = 5;

    const STEP: usize = Self::SECONDS as usize;
    const STEPS: usize = REMEMBERED / Self::STEP - 1;

    /// The oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Rate> + Clone + '_ {
        self.0.iter().copied()
    }

    /// The latest one.
    pub fn now(&self) -> Rate {
        self.0.last().copied().unwrap_or_default()
    }

    /// Whether nothing happened in all that time.
    pub fn is_idle(&self) -> bool {
        self.0.iter().all(|rate| *rate == Rate::default())
    }
}

impl Rates {
    /// Takes in what all live sessions' counters say at `now`.
    pub(super) fn sample(&mut self, now: Instant, readings: &[Reading]) {
        let Some(before) = self.looked.replace(now) else {
            // The first look only tells where everybody stands.
            self.sessions = readings.iter().map(follow).collect();
            return;
        };
        self.looks = self.looks.wrapping_add(1);
        let passed = now.saturating_duration_since(before).max(EVERY / 10);
        let (mut total, mut clients) = (Rate::default(), HashMap::<MacAddr, Rate>::new());
        let mut sessions = HashMap::with_capacity(readings.len());
        for reading in readings {
            // A new session began with nothing.
            let mut followed = self.sessions.remove(&reading.session).unwrap_or(Followed {
                read: 0,
                written: 0,
                history: History::default(),
            });
            let rate = Rate {
                read: a_second(reading.read.saturating_sub(followed.read), passed),
                written: a_second(reading.written.saturating_sub(followed.written), passed),
            };
            followed.history.push(rate);
            (followed.read, followed.written) = (reading.read, reading.written);
            sessions.insert(reading.session, followed);
            total.add(rate);
            if let Some(mac) = reading.client {
                clients.entry(mac).or_default().add(rate);
            }
        }
        self.sessions = sessions;
        self.total.push(total);
        self.clients.retain(|mac, history| {
            if !clients.contains_key(mac) {
                history.push(Rate::default());
            }
            clients.contains_key(mac) || !history.is_idle()
        });
        for (mac, rate) in clients {
            self.clients.entry(mac).or_default().push(rate);
        }
    }

    pub(super) fn session(&self, id: u64) -> Option<&History> {
        self.sessions.get(&id).map(|followed| &followed.history)
    }

    pub(super) fn client(&self, mac: &MacAddr) -> Option<&History> {
        self.clients.get(mac)
    }

    pub(super) fn pace(&self, mac: &MacAddr) -> Option<Pace> {
        Some(self.client(mac)?.pace(self.looks % Pace::STEP))
    }

    pub(super) fn total(&self) -> &History {
        &self.total
    }
}

fn follow(reading: &Reading) -> (u64, Followed) {
    let followed = Followed {
        read: reading.read,
        written: reading.written,
        history: History::default(),
    };
    (reading.session, followed)
}

fn mean(rates: &[Rate]) -> Rate {
    let mut mean = Rate::default();
    rates.iter().for_each(|rate| mean.add(*rate));
    let number = rates.len().max(1) as u64;
    Rate {
        read: mean.read / number,
        written: mean.written / number,
    }
}

fn a_second(bytes: u64, passed: Duration) -> u64 {
    // Counters are far below the 2^53 bytes that a float tells apart, and nobody reads more digits.
    (bytes as f64 / passed.as_secs_f64()).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(session: u64, client: u8, read: u64, written: u64) -> Reading {
        Reading {
            session,
            client: (client > 0).then(|| MacAddr::new([2, 0, 0, 0, 0, client]).unwrap()),
            read,
            written,
        }
    }

    fn mac(client: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, client]).unwrap()
    }

    #[test]
    fn bytes_between_two_looks_are_a_rate() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        rates.sample(at(0), &[reading(1, 1, 5000, 0)]);
        assert_eq!(rates.total().now(), Rate::default(), "nothing is known yet");
        let both = [reading(1, 1, 7000, 100), reading(2, 1, 500, 0)];
        rates.sample(at(2000), &[both[0], both[1], reading(3, 0, 0, 40)]);
        let rate = |read, written| Rate { read, written };
        assert_eq!(rates.session(1).unwrap().now(), rate(1000, 50));
        assert_eq!(rates.session(2).unwrap().now(), rate(250, 0), "a new one");
        assert_eq!(rates.client(&mac(1)).unwrap().now(), rate(1250, 50));
        assert_eq!(rates.total().now(), rate(1250, 70));
    }

    #[test]
    fn a_pace_stands_still_for_its_step() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let mut seen = Vec::new();
        for second in 0..=90 {
            let now = start + Duration::from_secs(second);
            // 100, 200, 300 bytes a second and so on.
            let read = (1..=second).map(|second| second * 100).sum();
            rates.sample(now, &[reading(1, 1, read, 0)]);
            let pace = rates.pace(&mac(1)).unwrap_or_default();
            if seen.last() != Some(&pace) {
                seen.push(pace);
            }
        }
        assert_eq!(
            seen.len(),
            1 + 90 / Pace::STEP,
            "nothing, and then each step"
        );
        let reads = |pace: &Pace| pace.samples().map(|rate| rate.read).collect::<Vec<_>>();
        assert_eq!(reads(&seen[1]), [300]);
        assert_eq!(reads(&seen[2]), [300, 800]);
        let last = reads(seen.last().unwrap());
        assert_eq!((last.len(), last.last()), (Pace::STEPS, Some(&8800)));
    }

    #[test]
    fn a_client_without_sessions_fades_within_a_minute() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        rates.sample(start, &[]);
        for second in 1..=90 {
            let now = start + Duration::from_secs(second);
            match second {
                1..=20 => rates.sample(now, &[reading(1, 1, second * 10, 0)]),
                _ => rates.sample(now, &[]),
            }
            assert!(rates.total().samples().len() <= REMEMBERED);
            assert_eq!(rates.client(&mac(1)).is_some(), second < 80, "{second}");
        }
        assert!(rates.session(1).is_none());
        assert!(rates.total().is_idle() && rates.total().samples().len() == REMEMBERED);
    }
}
