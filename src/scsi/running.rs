//! Commands at work, and how all of them are aborted at a time.
//!
//! The commands that one initiator has at one unit belong to a generation. A command holds it for as
//! long as it works; one that waits for data only remembers it. Whoever aborts puts a new generation in
//! the place of the old one, and waits until nobody holds the old one any more.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// The commands of one initiator at one unit.
pub(super) struct Running(ArcSwap<Generation>);

struct Generation {
    fate: Arc<AtomicU8>,
    // It carries nothing: who waits for the end of the generation sees the sender go.
    ended: watch::Sender<()>,
}

/// Held by a command for as long as it works on its unit.
pub(super) struct Working(Arc<Generation>);

/// A command that waits for its initiator's data, which may never come: nobody waits for it.
pub(super) struct Waiting {
    generation: Weak<Generation>,
    fate: Arc<AtomicU8>,
}

/// What has become of a command while it was at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing: it goes on.
    Alive,
    /// Somebody has aborted it, and its initiator gets no answer.
    Aborted,
    /// Somebody else has aborted it, and its initiator gets to know by its status.
    Told,
    /// A sanitization has begun: it is refused unless it was at work before.
    Wiped,
    /// Its unit is there, but was opened anew.
    Reopened,
    /// Its unit is not there any more.
    Removed,
}

/// Commands that were aborted.
pub(super) struct Aborted {
    /// Whether there were any.
    pub(super) any: bool,
    ended: watch::Receiver<()>,
}

impl Running {
    pub(super) fn new() -> Self {
        Running(ArcSwap::from_pointee(Generation::new(Fate::Alive)))
    }

    /// One more command.
    pub(super) fn begin(&self) -> Working {
        Working(self.0.load_full())
    }

    /// Aborts what has begun, which gets no answer.
    pub(super) fn abort(&self) -> Aborted {
        self.replace(Fate::Aborted, Fate::Alive)
    }

    /// Aborts what has begun, which ends with TASK ABORTED status.
    pub(super) fn abort_told(&self) -> Aborted {
        self.replace(Fate::Told, Fate::Alive)
    }

    /// A sanitization begins: what waits for data is refused, what works ends as it would have.
    pub(super) fn wipe(&self) -> Aborted {
        self.replace(Fate::Wiped, Fate::Alive)
    }

    /// The unit is opened anew: nothing begins here any more, and what waits for data is told to come again.
    pub(super) fn reopen(&self) -> Aborted {
        self.replace(Fate::Reopened, Fate::Removed)
    }

    /// The unit is gone: nothing begins any more, and what waits for data will find it so.
    pub(super) fn close(&self) -> Aborted {
        self.replace(Fate::Removed, Fate::Removed)
    }

    fn replace(&self, old: Fate, new: Fate) -> Aborted {
        let next = Arc::new(Generation::new(new));
        // A unit that is gone stays so, whoever aborts commands at the same time.
        let generation = self.0.rcu(|current| match current.fate() {
            Fate::Removed => current.clone(),
            _ => next.clone(),
        });
        let _ = generation.fate.compare_exchange(
            Fate::Alive as u8,
            old as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        Aborted {
            any: Arc::strong_count(&generation) > 1 || Arc::weak_count(&generation) > 0,
            ended: generation.ended.subscribe(),
        }
    }
}

impl Generation {
    fn new(fate: Fate) -> Self {
        Generation {
            fate: Arc::new(AtomicU8::new(fate as u8)),
            ended: watch::Sender::new(()),
        }
    }

    fn fate(&self) -> Fate {
        Fate::of(&self.fate)
    }
}

impl Fate {
    fn of(cell: &AtomicU8) -> Fate {
        match cell.load(Ordering::SeqCst) {
            0 => Fate::Alive,
            1 => Fate::Aborted,
            2 => Fate::Told,
            3 => Fate::Wiped,
            4 => Fate::Reopened,
            _ => Fate::Removed,
        }
    }
}

impl Working {
    pub(super) fn fate(&self) -> Fate {
        self.0.fate()
    }

    /// The command waits for data from here on.
    pub(super) fn wait(&self) -> Waiting {
        Waiting {
            generation: Arc::downgrade(&self.0),
            fate: self.0.fate.clone(),
        }
    }
}

impl Waiting {
    /// The data are here, or will not come.
    ///
    /// # Errors
    /// What has become of the command meanwhile.
    pub(super) fn resume(self) -> Result<Working, Fate> {
        let fate = || match Fate::of(&self.fate) {
            // Only a nexus that is gone drops a generation that is alive.
            Fate::Alive => Fate::Aborted,
            fate => fate,
        };
        let working = Working(self.generation.upgrade().ok_or_else(fate)?);
        match working.fate() {
            Fate::Alive => Ok(working),
            fate => Err(fate),
        }
    }
}

impl Aborted {
    /// Resolves when none of the commands works on the unit any more.
    pub(super) async fn settled(mut self) {
        // Nothing is ever sent: the wait ends when the generation does.
        while self.ended.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn an_abort_waits_for_what_works_and_not_for_what_waits_for_data() {
        let running = Running::new();
        let (working, waiting) = (running.begin(), running.begin().wait());
        let aborted = running.abort();
        assert!(aborted.any);
        assert_eq!(working.fate(), Fate::Aborted);
        let mut settled = Box::pin(aborted.settled());
        assert!(settled.as_mut().now_or_never().is_none());
        // What begins later is not waited for.
        let next = running.begin();
        assert_eq!(next.fate(), Fate::Alive);
        drop(working);
        assert!(settled.as_mut().now_or_never().is_some());
        assert_eq!(waiting.resume().err(), Some(Fate::Aborted));
        assert!(next.wait().resume().is_ok());
    }

    #[test]
    fn an_abort_knows_whether_there_was_anything() {
        let running = Running::new();
        drop(running.begin());
        assert!(!running.abort().any);
        let _waiting = running.begin().wait();
        assert!(running.abort().any);
    }

    #[test]
    fn an_abort_that_is_told_is_known_as_such() {
        let running = Running::new();
        let (working, waiting) = (running.begin(), running.begin().wait());
        running.abort_told();
        assert_eq!(working.fate(), Fate::Told);
        assert_eq!(waiting.resume().err(), Some(Fate::Told));
        assert_eq!(running.begin().fate(), Fate::Alive);
    }

    #[test]
    fn nothing_begins_at_a_unit_that_is_gone() {
        let running = Running::new();
        let waiting = running.begin().wait();
        assert!(running.close().settled().now_or_never().is_some());
        assert_eq!(waiting.resume().err(), Some(Fate::Removed));
        running.abort();
        assert_eq!(running.begin().fate(), Fate::Removed);
    }
}
