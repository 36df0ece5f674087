//! Unit attentions: what an initiator must be told before its next command (SAM-5 §5.14).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lun::Lun;
use super::sense::Sense;

/// Conditions that one nexus has not been told yet, oldest first, for each unit.
pub(super) struct Attentions(
    // Held for a look at a short queue, never across an await.
    Mutex<BTreeMap<Lun, Vec<Sense>>>,
);

impl Attentions {
    /// Those of a new nexus: each unit has just come up for it.
    pub(super) fn new(luns: impl Iterator<Item = Lun>) -> Self {
        Attentions(Mutex::new(
            luns.map(|lun| (lun, vec![Sense::POWER_ON])).collect(),
        ))
    }

    /// Adds a condition, unless it waits already or a power-on, which says as much, does.
    pub(super) fn raise(&self, lun: Lun, sense: Sense) {
        let mut all = self.lock();
        let queue = all.entry(lun).or_default();
        if !queue.contains(&Sense::POWER_ON) && !queue.contains(&sense) {
            queue.push(sense);
        }
    }

    /// Takes the oldest condition away, to be reported.
    pub(super) fn take(&self, lun: Lun) -> Option<Sense> {
        let mut all = self.lock();
        let queue = all.get_mut(&lun)?;
        let sense = (!queue.is_empty()).then(|| queue.remove(0));
        if queue.is_empty() {
            all.remove(&lun);
        }
        sense
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lun, Vec<Sense>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
