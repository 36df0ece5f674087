//! Whether a peer keeps up: takes what waits for it, and sends what it has begun or promised to send.
//!
//! TCP notices a peer that is gone. One that is there and does nothing would keep memory and commands
//! for as long as it likes.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that have to move in the time that there is for it, where there are as many.
const ENOUGH: u64 = 256 * 1024;

/// What one way of a connection owes.
pub(super) struct Progress {
    limit: Duration,
    /// Since when something is owed; nothing while nothing is.
    since: Option<Instant>,
    moved: u64,
}

impl Progress {
    /// `limit` is the time that a peer gets for [`ENOUGH`] bytes, or for all that it owes.
    pub(super) fn new(limit: Duration) -> Self {
        Progress {
            limit,
            since: None,
            moved: 0,
        }
    }

    /// So many bytes have moved, and something is still owed or not.
    pub(super) fn moved(&mut self, bytes: u64, owes: bool) {
        self.moved_at(Instant::now, bytes, owes);
    }

    fn moved_at(&mut self, now: impl FnOnce() -> Instant, bytes: u64, owes: bool) {
        if !owes {
            self.since = None;
            return;
        }
        self.moved += bytes;
        if self.since.is_none() {
            self.since = Some(now());
            self.moved = 0;
        }
    }

    /// When to ask whether it has stalled.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.limit)
    }

    /// Whether too little has moved. Otherwise the time begins anew.
    pub(super) fn has_stalled(&mut self, now: Instant) -> bool {
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        let stalled = self.moved < ENOUGH;
        self.since = Some(now);
        self.moved = 0;
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn who_owes_nothing_has_all_the_time() {
        let mut progress = Progress::new(LIMIT);
        progress.moved(0, false);
        assert_eq!(progress.due(), None);
        assert!(!progress.has_stalled(Instant::now() + LIMIT * 2));
    }

    #[test]
    fn a_byte_a_second_is_too_little_and_a_block_a_second_is_enough() {
        let begin = Instant::now();
        for (bytes, stalls) in [(1, true), (8192, false)] {
            let mut progress = Progress::new(LIMIT);
            progress.moved_at(|| begin, 0, true);
            for second in 1..60 {
                let now = begin + Duration::from_secs(second);
                progress.moved_at(|| now, bytes, true);
                assert!(!progress.has_stalled(now), "it has time left");
            }
            assert_eq!(progress.has_stalled(begin + LIMIT), stalls);
        }
    }

    #[test]
    fn who_has_settled_starts_anew() {
        let begin = Instant::now();
        let mut progress = Progress::new(LIMIT);
        progress.moved_at(|| begin, 0, true);
        progress.moved_at(|| begin + LIMIT / 2, 10, false);
        progress.moved_at(|| begin + LIMIT / 2, 0, true);
        assert!(!progress.has_stalled(begin + LIMIT));
        assert!(progress.has_stalled(begin + LIMIT * 2));
    }
}
