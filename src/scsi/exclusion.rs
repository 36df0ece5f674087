//! Keeps commands off blocks that a command changes as one (SBC-4 §4.29): COMPARE AND WRITE, ORWRITE and
//! WRITE ATOMIC read and write, and nobody is to see or change what is between.
//!
//! As long as there is no such command, others pay for two additions to a counter that their thread
//! has for itself and a look at a flag. While there is one, everybody takes a ticket, and waits for the
//! tickets before it that are in its way.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::block::Answer;

/// Counters, so that threads seldom share one.
const SEATS: usize = 16;

/// Who works on the blocks of a unit.
#[derive(Default)]
pub(super) struct Exclusion {
    /// Commands that are alone on their blocks, or wait to be.
    alone: AtomicUsize,
    /// Commands that began while there was none of those.
    seats: [Seat; SEATS],
    // Held for a look at a short list, never across an await, and only while somebody is to be alone.
    tickets: Mutex<Tickets>,
    changed: Notify,
}

/// A counter on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Seat(AtomicUsize);

#[derive(Default)]
struct Tickets {
    next: u64,
    /// In the order in which they came.
    list: Vec<Ticket>,
}

struct Ticket {
    number: u64,
    blocks: Range<u64>,
    manner: Manner,
}

/// How a command is on its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Together with others of its kind.
    Shared,
    /// Alone.
    Alone,
}

/// The blocks may be worked on for as long as this lives.
pub(super) struct Claim {
    exclusion: Arc<Exclusion>,
    hold: Hold,
}

enum Hold {
    Seat(usize),
    Ticket(u64),
    /// The same, of a command that is alone.
    Alone(u64),
}

impl Exclusion {
    /// Works on `blocks` (as a range of bytes) beside other such commands: at once, where nobody is to
    /// be alone on any. `done` makes the answer of the outcome.
    pub(super) fn beside<R: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        blocks: Range<u64>,
        work: impl FnOnce() -> Answer<R> + Send + 'static,
        done: impl FnOnce(R) -> T + Send + 'static,
    ) -> Answer<T> {
        if let Some(claim) = self.sit() {
            return work().map(move |outcome| {
                drop(claim);
                done(outcome)
            });
        }
        let exclusion = self.clone();
        Answer::Later(Box::pin(async move {
            let _claim = exclusion.shared(blocks).await;
            done(work().wait().await)
        }))
    }

    /// Waits until nobody is alone on any of `blocks`.
    pub(super) async fn shared(self: Arc<Self>, blocks: Range<u64>) -> Claim {
        if let Some(claim) = self.sit() {
            return claim;
        }
        let ticket = self.ticket(blocks, Manner::Shared);
        let claim = self.claim(Hold::Ticket(ticket));
        self.wait(|exclusion| exclusion.lock().is_free(ticket))
            .await;
        claim
    }

    /// Waits until nobody else works on any of `blocks`, and keeps others off.
    pub(super) async fn alone(self: Arc<Self>, blocks: Range<u64>) -> Claim {
        // In this order: who has not seen the flag is counted, and who is not counted sees it.
        self.alone.fetch_add(1, Ordering::SeqCst);
        let ticket = self.ticket(blocks, Manner::Alone);
        let claim = self.claim(Hold::Alone(ticket));
        self.wait(|exclusion| {
            let taken = |seat: &Seat| seat.0.load(Ordering::SeqCst) > 0;
            exclusion.lock().is_free(ticket) && !exclusion.seats.iter().any(taken)
        })
        .await;
        claim
    }

    /// A place without a ticket, as long as nobody is to be alone.
    fn sit(self: &Arc<Self>) -> Option<Claim> {
        let at = seat_of_thread();
        let seat = self.seats.get(at)?;
        seat.0.fetch_add(1, Ordering::SeqCst);
        let claim = self.claim(Hold::Seat(at));
        (self.alone.load(Ordering::SeqCst) == 0).then_some(claim)
    }

    fn claim(self: &Arc<Self>, hold: Hold) -> Claim {
        Claim {
            exclusion: self.clone(),
            hold,
        }
    }

    fn ticket(&self, blocks: Range<u64>, manner: Manner) -> u64 {
        let mut tickets = self.lock();
        let number = tickets.next;
        tickets.next += 1;
        tickets.list.push(Ticket {
            number,
            blocks,
            manner,
        });
        number
    }

    async fn wait(&self, free: impl Fn(&Self) -> bool) {
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if free(self) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tickets {
    /// Whether no earlier ticket is in the way. Later ones wait, so nobody waits for ever.
    fn is_free(&self, number: u64) -> bool {
        let Some(own) = self.list.iter().find(|ticket| ticket.number == number) else {
            return true;
        };
        let in_the_way = |other: &Ticket| {
            (own.manner == Manner::Alone || other.manner == Manner::Alone)
                && other.blocks.start < own.blocks.end
                && own.blocks.start < other.blocks.end
        };
        self.list
            .iter()
            .take_while(|ticket| ticket.number != number)
            .all(|other| !in_the_way(other))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let exclusion = &self.exclusion;
        let number = match self.hold {
            Hold::Seat(at) => {
                if let Some(seat) = exclusion.seats.get(at) {
                    seat.0.fetch_sub(1, Ordering::SeqCst);
                }
                if exclusion.alone.load(Ordering::SeqCst) > 0 {
                    exclusion.changed.notify_waiters();
                }
                return;
            }
            Hold::Ticket(number) | Hold::Alone(number) => number,
        };
        exclusion
            .lock()
            .list
            .retain(|ticket| ticket.number != number);
        if matches!(self.hold, Hold::Alone(_)) {
            exclusion.alone.fetch_sub(1, Ordering::SeqCst);
        }
        exclusion.changed.notify_waiters();
    }
}

/// Where this thread counts.
fn seat_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SEAT: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SEATS;
    }
    SEAT.with(|seat| *seat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn who_is_to_be_alone_waits_for_those_before_and_holds_up_those_behind() {
        let exclusion = Arc::new(Exclusion::default());
        let first = exclusion.clone().shared(0..8).now_or_never().unwrap();
        let mut alone = Box::pin(exclusion.clone().alone(4..12));
        assert!(alone.as_mut().now_or_never().is_none());
        let mut behind = Box::pin(exclusion.clone().shared(8..9));
        assert!(behind.as_mut().now_or_never().is_none());
        let elsewhere = exclusion.clone().shared(12..20).now_or_never();
        assert!(elsewhere.is_some(), "other blocks are free");
        drop(first);
        let claim = alone.as_mut().now_or_never().unwrap();
        assert!(behind.as_mut().now_or_never().is_none());
        drop(claim);
        assert!(behind.as_mut().now_or_never().is_some());
    }

    #[test]
    fn who_gives_up_waiting_holds_up_nobody() {
        let exclusion = Arc::new(Exclusion::default());
        let first = exclusion.clone().shared(0..8).now_or_never().unwrap();
        let mut alone = Box::pin(exclusion.clone().alone(0..8));
        assert!(alone.as_mut().now_or_never().is_none());
        drop(alone);
        assert!(exclusion.clone().shared(0..8).now_or_never().is_some());
        assert_eq!(exclusion.alone.load(Ordering::SeqCst), 0);
        drop(first);
        assert!(exclusion.clone().alone(0..8).now_or_never().is_some());
    }
}
