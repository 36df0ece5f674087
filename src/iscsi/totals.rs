//! What the target has done since it began: counted without locks, read by whoever watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::directory::End;
use super::sessions::Counters;
use crate::scsi::{Response, Status};

/// What the target has done since it began. Readers may see it a moment late.
#[derive(Debug, Default)]
pub struct Totals {
    /// Of sessions that are over.
    pub ended: Counters,
    /// Sessions that are over, by why.
    pub ends: [AtomicU64; End::ALL.len()],
    /// Logins that succeeded, discovery included.
    pub logins: AtomicU64,
    /// Logins that were refused, by the class and detail that their initiators were told.
    pub refused: Refused,
    /// Logins that broke off or were no logins.
    pub broken_off: AtomicU64,
    /// CHECK CONDITIONs by their sense key (SPC-5 §4.4.8).
    pub checks: [AtomicU64; 16],
    /// Time from a command's arrival to its answer, commands that read.
    pub reads: Histogram,
    /// The same, commands that write: with the time that their data took.
    pub writes: Histogram,
    /// The same, all others.
    pub others: Histogram,
}

/// Refused logins by whose mistake it was (RFC 7143 §11.13.5).
#[derive(Debug, Default)]
pub struct Refused {
    /// There is no such target for the initiator.
    pub not_found: AtomicU64,
    /// It may not have it.
    pub forbidden: AtomicU64,
    /// Anything else about the initiator's request.
    pub initiator: AtomicU64,
    /// The server could not.
    pub target: AtomicU64,
}

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; Histogram::BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What a command does, as far as time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reads,
    Writes,
    Other,
}

impl End {
    /// All there are.
    pub const ALL: [End; 8] = [
        End::Logout,
        End::ConnectionLost,
        End::TimedOut,
        End::Kicked,
        End::Reinstated,
        End::ShutDown,
        End::ProtocolError,
        End::Reset,
    ];
}

impl Histogram {
    /// Upper bounds of the buckets, in microseconds; the last bucket has none.
    pub const BOUNDS: [u64; 16] = [
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 10_000_000,
    ];

    /// Once more.
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(micros, Relaxed);
    }

    /// How often it was within each bound, and within none.
    pub fn buckets(&self) -> [u64; Self::BOUNDS.len() + 1] {
        std::array::from_fn(|at| {
            self.buckets
                .get(at)
                .map_or(0, |bucket| bucket.load(Relaxed))
        })
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros.load(Relaxed))
    }
}

impl Totals {
    /// A session is over.
    pub(super) fn session_ended(&self, end: End, counters: &Arc<Counters>) {
        let at = End::ALL.iter().position(|one| *one == end);
        if let Some(count) = at.and_then(|at| self.ends.get(at)) {
            count.fetch_add(1, Relaxed);
        }
        let add = |to: &AtomicU64, from: &AtomicU64| to.fetch_add(from.load(Relaxed), Relaxed);
        add(&self.ended.reads, &counters.reads);
        add(&self.ended.writes, &counters.writes);
        add(&self.ended.bytes_read, &counters.bytes_read);
        add(&self.ended.bytes_written, &counters.bytes_written);
    }

    /// A login was refused with this status.
    pub(super) fn login_refused(&self, status: u16) {
        let count = match status {
            0x0203 => &self.refused.not_found,
            0x0202 => &self.refused.forbidden,
            // Sent elsewhere, where it will be welcome.
            _ if status >> 8 == 1 => return,
            _ if status >> 8 == 2 => &self.refused.initiator,
            _ => &self.refused.target,
        };
        count.fetch_add(1, Relaxed);
    }

    /// A command was answered.
    pub(super) fn answered(&self, kind: Kind, time: Duration, response: &Response) {
        let histogram = match kind {
            Kind::Reads => &self.reads,
            Kind::Writes => &self.writes,
            Kind::Other => &self.others,
        };
        histogram.record(time);
        if response.status == Status::CheckCondition
            && let Some(sense) = &response.sense
            && let Some(count) = self.checks.get(usize::from(sense.key & 0xf))
        {
            count.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bound_that_it_is_within() {
        let histogram = Histogram::default();
        for micros in [0, 50, 51, 1_000, 11_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets[0], 2);
        assert_eq!(buckets[1], 1);
        assert_eq!(buckets[4], 1);
        assert_eq!(buckets[16], 1);
        assert_eq!(histogram.sum(), Duration::from_micros(11_001_101));
    }
}
