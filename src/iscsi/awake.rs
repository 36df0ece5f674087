//! Staying awake for a peer that goes on at once.
//!
//! To sleep and to be woken takes longer than most commands (about 30 us of the 60 that a peer with one command
//! at a time sees): while such a peer makes its next one, its thread looks at its sockets again and again
//! instead. Only for peers whose last command came that soon, never for more than [`PATIENCE`], by one session
//! fewer than there are processors, and not where somebody else wants this one's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long somebody is waited for: what takes longer is no peer that goes on at once.
const PATIENCE: Duration = Duration::from_micros(100);
/// A moment that was so long had the processor given to somebody else: for about as long as schedulers let one
/// run who never sleeps. Whoever has a moment's work there, as the peer itself now and then, is none of those.
const TAKEN_AWAY: Duration = Duration::from_millis(1);
/// For so long a thread sleeps as others do after that.
const REST: Duration = Duration::from_millis(10);

/// How many sessions may keep their threads awake.
pub(super) struct Spare {
    most: usize,
    taken: AtomicUsize,
}

impl Spare {
    pub(super) fn new(most: usize) -> Self {
        Spare {
            most,
            taken: AtomicUsize::new(0),
        }
    }

    fn take(self: &Arc<Self>) -> Option<Taken> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        let order = Ordering::Relaxed;
        let taken = self.taken.fetch_update(order, order, more);
        taken.is_ok().then(|| Taken(self.clone()))
    }
}

/// One of those that do.
struct Taken(Arc<Spare>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a session keeps its thread awake.
pub(super) struct Awake {
    spare: Arc<Spare>,
    /// Since when it waits.
    since: Option<Instant>,
    taken: Option<Taken>,
    /// Whether it waited only a moment the last time.
    is_quick: bool,
    rests: Option<Instant>,
}

impl Awake {
    pub(super) fn new(spare: Arc<Spare>) -> Self {
        Awake {
            spare,
            since: None,
            taken: None,
            is_quick: false,
            rests: None,
        }
    }

    /// Whether the thread is to stay awake for this session, which has nothing to do now.
    pub(super) fn stays(&mut self) -> bool {
        self.stays_at(Instant::now())
    }

    /// Something has come, or there is something to do.
    pub(super) fn goes_on(&mut self) {
        if self.since.is_some() {
            self.goes_on_at(Instant::now());
        }
    }

    fn stays_at(&mut self, now: Instant) -> bool {
        match self.since {
            None => {
                self.since = Some(now);
                if self.is_quick && self.rests.is_none_or(|until| until <= now) {
                    self.taken = self.spare.take();
                }
            }
            Some(since) if now.duration_since(since) > PATIENCE => self.sleeps(since, now),
            Some(_) => {}
        }
        self.taken.is_some()
    }

    fn goes_on_at(&mut self, now: Instant) {
        let Some(since) = self.since.take() else {
            return;
        };
        self.sleeps(since, now);
        // Whoever was slept for came as much later as that took.
        self.is_quick = now.duration_since(since) < 2 * PATIENCE;
    }

    /// It does not stay awake any more, as it did since then.
    fn sleeps(&mut self, since: Instant, now: Instant) {
        if self.taken.take().is_some() && now.duration_since(since) > TAKEN_AWAY {
            self.rests = Some(now + REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_awake_for_who_came_soon_the_last_time() {
        let spare = Arc::new(Spare::new(1));
        let mut awake = Awake::new(spare.clone());
        let now = &mut Instant::now();
        let waits = |awake: &mut Awake, now: &mut Instant, time: Duration| {
            let stays = awake.stays_at(*now);
            *now += time;
            awake.goes_on_at(*now);
            stays
        };
        assert!(!waits(&mut awake, now, PATIENCE));
        assert!(waits(&mut awake, now, 3 * PATIENCE), "it was quick");
        assert!(!waits(&mut awake, now, PATIENCE), "it was slow");
        assert!(waits(&mut awake, now, PATIENCE));

        assert!(awake.stays_at(*now));
        let mut other = Awake::new(spare.clone());
        other.is_quick = true;
        assert!(!other.stays_at(*now), "one is enough");
        assert!(awake.stays_at(*now + PATIENCE));
        assert!(
            !awake.stays_at(*now + 2 * PATIENCE),
            "it has waited for long enough"
        );
        other.goes_on_at(*now);
        assert!(other.stays_at(*now));
        drop(other);
        assert_eq!(spare.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_rests_where_somebody_else_wants_its_processor() {
        let mut awake = Awake::new(Arc::new(Spare::new(1)));
        let mut now = Instant::now();
        awake.is_quick = true;
        assert!(awake.stays_at(now));
        now += 2 * TAKEN_AWAY;
        awake.goes_on_at(now);
        awake.is_quick = true;
        assert!(!awake.stays_at(now), "it is somebody else's");
        awake.goes_on_at(now);
        now += REST;
        assert!(awake.stays_at(now));
    }
}
