//! Unit attentions: what an initiator must be told before its next command (SAM-5 §5.14).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sense::Sense;

/// Conditions of one unit that one initiator has not been told yet, oldest first.
pub(super) struct Attentions {
    /// Whether there is any, so that a command which has none to report takes no lock.
    pending: AtomicBool,
    // Held for a look at a short queue, never across an await. No condition is in it twice.
    queue: Mutex<Vec<Sense>>,
}

impl Attentions {
    /// Those of a new nexus: the unit has just come up for it.
    pub(super) fn new() -> Self {
        Attentions {
            pending: AtomicBool::new(true),
            queue: Mutex::new(vec![Sense::POWER_ON]),
        }
    }

    /// Adds a condition, unless it waits already or a power-on, which says as much, does.
    pub(super) fn raise(&self, sense: Sense) {
        let mut queue = self.lock();
        if !queue.contains(&Sense::POWER_ON) && !queue.contains(&sense) {
            queue.push(sense);
            self.pending.store(true, Ordering::Release);
        }
    }

    /// Takes the oldest condition away, to be reported.
    pub(super) fn take(&self) -> Option<Sense> {
        if !self.pending.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.lock();
        let sense = (!queue.is_empty()).then(|| queue.remove(0));
        self.pending.store(!queue.is_empty(), Ordering::Release);
        sense
    }

    /// Takes a condition away that has been told in another way.
    pub(super) fn withdraw(&self, sense: Sense) {
        if !self.pending.load(Ordering::Acquire) {
            return;
        }
        let mut queue = self.lock();
        queue.retain(|waiting| *waiting != sense);
        self.pending.store(!queue.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sense>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
