//! Grains that are being changed: two changes of one grain happen one after the other.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The grains under change now. A change that copies a grain up would otherwise write what it read
/// from the base over what another change has put there meanwhile.
#[derive(Default)]
pub(super) struct Busy {
    // Held for a look at a short list, never across an await.
    ranges: Mutex<Vec<Range<u64>>>,
    freed: Notify,
}

impl Busy {
    /// Waits until nobody changes any of `grains`, and keeps others off them until the guard drops.
    pub(super) async fn claim(self: &Arc<Self>, grains: Range<u64>) -> Claim {
        loop {
            // Registered before the look, so that a release in between is not missed.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
                let overlaps = |r: &Range<u64>| r.start < grains.end && grains.start < r.end;
                if !ranges.iter().any(overlaps) {
                    ranges.push(grains.clone());
                    return Claim {
                        busy: self.clone(),
                        grains,
                    };
                }
            }
            freed.await;
        }
    }
}

/// Grains that nobody else changes while this lives.
pub(super) struct Claim {
    busy: Arc<Busy>,
    grains: Range<u64>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut ranges = self
            .busy
            .ranges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = ranges.iter().position(|r| *r == self.grains) {
            ranges.swap_remove(at);
        }
        drop(ranges);
        self.busy.freed.notify_waiters();
    }
}
