//! Grains that are being changed: two changes of one grain happen one after the other.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The grains under change now. A change that copies a grain up would otherwise write what it read
/// from the base over what another change has put there meanwhile.
#[derive(Default)]
pub(super) struct Busy {
    // Held for a look at a short list, never across an await.
    claimed: Mutex<Claimed>,
    freed: Notify,
}

#[derive(Default)]
struct Claimed {
    ranges: Vec<Range<u64>>,
    /// Somebody waits for one of them.
    is_awaited: bool,
}

impl Busy {
    /// Keeps others off `grains` until the guard drops, unless somebody changes one of them now.
    pub(super) fn try_claim(self: &Arc<Self>, grains: &Range<u64>) -> Option<Claim> {
        let claimed = &mut *self.lock();
        claimed.claim(grains).then(|| self.guard(grains))
    }

    /// Waits until nobody changes any of `grains`, and keeps others off them until the guard drops.
    pub(super) async fn claim(self: &Arc<Self>, grains: &Range<u64>) -> Claim {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            {
                let claimed = &mut *self.lock();
                if claimed.claim(grains) {
                    return self.guard(grains);
                }
                claimed.is_awaited = true;
                // Before the lock is let go of, so that no release is missed.
                freed.as_mut().enable();
            }
            freed.await;
        }
    }

    fn guard(self: &Arc<Self>, grains: &Range<u64>) -> Claim {
        Claim {
            busy: self.clone(),
            grains: grains.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Claimed> {
        // Nothing panics while it is held.
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    /// Enters `grains`, unless one of them is claimed. Tells whether it did.
    fn claim(&mut self, grains: &Range<u64>) -> bool {
        let overlaps = |r: &Range<u64>| r.start < grains.end && grains.start < r.end;
        let is_free = !self.ranges.iter().any(overlaps);
        if is_free {
            self.ranges.push(grains.clone());
        }
        is_free
    }
}

/// Grains that nobody else changes while this lives.
pub(super) struct Claim {
    busy: Arc<Busy>,
    grains: Range<u64>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.busy.lock();
        if let Some(at) = claimed.ranges.iter().position(|r| *r == self.grains) {
            claimed.ranges.swap_remove(at);
        }
        let is_awaited = std::mem::take(&mut claimed.is_awaited);
        drop(claimed);
        if is_awaited {
            self.busy.freed.notify_waiters();
        }
    }
}
