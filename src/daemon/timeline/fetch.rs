//! A file on its way to a machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::Timestamp;

/// How much of a file was sent, and when the last of it.
#[derive(Debug)]
pub(crate) struct Moving {
    sent: AtomicU64,
    /// In nanoseconds since the epoch, as exact as what it is compared with; 0: never.
    moved: AtomicU64,
    size: u64,
}

/// Told by whoever sends a file how much of it has gone. Locks nothing: it is told for each portion.
#[derive(Debug, Default)]
pub struct Fetch(Option<Arc<Moving>>);

impl Moving {
    pub(super) fn new(size: u64) -> Self {
        Moving {
            sent: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            size,
        }
    }

    /// Bytes that were sent, and no more than there are.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed).min(self.size)
    }

    /// When some of it was sent last.
    pub(super) fn moved(&self) -> Option<Timestamp> {
        let moved = i128::from(self.moved.load(Relaxed));
        (moved > 0).then(|| Timestamp::from_nanosecond(moved).ok())?
    }

    pub(super) fn send(&self, bytes: u64, now: Timestamp) {
        self.sent.fetch_add(bytes, Relaxed);
        let now = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        self.moved.fetch_max(now, Relaxed);
    }
}

impl Fetch {
    pub(crate) fn of(moving: Option<Arc<Moving>>) -> Self {
        Fetch(moving)
    }

    /// So many bytes more were given to the connection.
    pub fn sent(&self, bytes: u64) {
        self.sent_at(bytes, Timestamp::now());
    }

    pub(super) fn sent_at(&self, bytes: u64, now: Timestamp) {
        if let Some(moving) = &self.0 {
            moving.send(bytes, now);
        }
    }
}
