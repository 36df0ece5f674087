//! Memory for data on their way between disks and peers: how much of it each session may use.
//!
//! Half of what the server has is shared out evenly among the sessions that there are: the more they
//! are, the less each may have under way. The other half is lent to commands that are larger than such
//! a share, one after the other. So however many peers come, and whatever they ask for, all of them
//! together use what the server was given, and each of them goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::session::LARGEST;

/// Bounds of a share, each way: what a session may have, however many or few there are.
const LEAST: u64 = 256 * 1024;
const MOST: u64 = 32 * 1024 * 1024;
/// Data to the peer, data that it was asked for, and data that it sends unasked.
const WAYS: u64 = 3;
/// The ways of the two that a command may borrow for.
const LENT: u64 = 2;

/// What a server has.
pub(super) struct Memory {
    /// What is shared out.
    shared: u64,
    sessions: AtomicU64,
    /// Bytes that a session may have under way, each way.
    share: AtomicU64,
    // A semaphore, because those who wait get theirs in the order in which they came.
    loans: Arc<Semaphore>,
}

/// One session's part of it.
pub(super) struct Share {
    memory: Arc<Memory>,
    loan: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// `bytes` for all sessions together.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        let half = bytes / 2;
        let loans = (half / (LARGEST * LENT)).clamp(1, 1 << 16);
        let memory = Memory {
            shared: half,
            sessions: AtomicU64::new(0),
            share: AtomicU64::new(MOST),
            loans: Arc::new(Semaphore::new(loans as usize)),
        };
        memory.divide(0);
        Arc::new(memory)
    }

    /// One more session.
    pub(super) fn join(self: &Arc<Self>) -> Share {
        self.divide(self.sessions.fetch_add(1, Relaxed) + 1);
        Share {
            memory: self.clone(),
            loan: None,
        }
    }

    fn divide(&self, sessions: u64) {
        let share = self.shared / WAYS / sessions.max(1);
        self.share.store(share.clamp(LEAST, MOST), Relaxed);
    }
}

impl Share {
    /// Bytes that the session may have under way, each way.
    pub(super) fn limit(&self) -> u64 {
        let share = self.memory.share.load(Relaxed);
        if self.loan.is_some() {
            share.max(LARGEST)
        } else {
            share
        }
    }

    /// Waits until the session may have a command of any size under way.
    pub(super) fn loan(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<> {
        let loans = self.memory.loans.clone();
        async move { loans.acquire_owned().await.ok() }
    }

    /// The session may have a command of any size under way, until it gives the loan back.
    pub(super) fn borrow(&mut self, loan: Option<OwnedSemaphorePermit>) {
        self.loan = loan;
    }

    /// Whether the session has borrowed.
    pub(super) fn has_borrowed(&self) -> bool {
        self.loan.is_some()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let left = self.memory.sessions.fetch_sub(1, Relaxed) - 1;
        self.memory.divide(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn sessions_share_evenly_between_a_least_and_a_most() {
        let memory = Memory::new(1024 * MIB);
        let first = memory.join();
        assert_eq!(first.limit(), MOST);
        let others: Vec<_> = (1..32).map(|_| memory.join()).collect();
        assert_eq!(first.limit(), 512 * MIB / 3 / 32);
        let crowd: Vec<_> = (32..4096).map(|_| memory.join()).collect();
        assert_eq!(first.limit(), LEAST);
        drop((others, crowd));
        assert_eq!(first.limit(), MOST);
    }

    #[test]
    fn what_is_larger_than_a_share_is_borrowed_in_turn() {
        // Room for two loans, and for little else.
        let memory = Memory::new(2 * 2 * LENT * LARGEST);
        let mut crowd: Vec<_> = (0..100).map(|_| memory.join()).collect();
        let mut third = crowd.pop().unwrap();
        assert!(third.limit() < LARGEST);
        for share in crowd.iter_mut().take(2) {
            let loan = share.loan().now_or_never().expect("there is room");
            share.borrow(loan);
            assert_eq!(share.limit(), LARGEST);
        }
        let mut waiting = Box::pin(third.loan());
        assert!(waiting.as_mut().now_or_never().is_none());
        crowd[0].borrow(None);
        third.borrow(waiting.now_or_never().expect("it has been given back"));
        assert!(third.has_borrowed() && !crowd[0].has_borrowed());
    }
}
