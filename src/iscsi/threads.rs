//! Threads of sessions: each has a socket poller of its own, and keeps the sessions that it was given.
//!
//! A session that another thread takes over wherever that has nothing to do (as on a runtime of many threads)
//! wakes that thread for it, and one that is to stay awake for a peer would stay so while another thread is
//! told by the kernel what came. Measured with 1 MiB written at depth 8: 1.4 times as much a second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::awake::Spare;
use crate::block::THREADS_OF_A_DISK;

/// Threads for work that blocks, of all sessions together; of those on one thread never fewer than two disks may
/// hold: one whose storage does not answer leaves the others some.
const BLOCKING: usize = 1024;

/// The threads of a server's sessions. They end when this is dropped.
pub(super) struct Threads {
    all: Vec<Thread>,
    spare: Arc<Spare>,
}

struct Thread {
    handle: Handle,
    sessions: Arc<AtomicUsize>,
    /// Dropped when the thread is to end; closed when it has.
    ends: oneshot::Sender<()>,
}

/// A session's place on a thread.
pub(super) struct Seat {
    pub(super) handle: Handle,
    sessions: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    /// As many as there are processors, or as can be had.
    pub(super) fn start() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let blocking = (BLOCKING / processors).max(2 * THREADS_OF_A_DISK);
        let start = |number| Thread::start(number, blocking);
        let started: io::Result<Vec<_>> = (0..processors).map(start).collect();
        let all = started.unwrap_or_else(|error| {
            tracing::warn!(%error, "sessions have no threads of their own");
            Vec::new()
        });
        Threads {
            // One processor is left to everybody else.
            spare: Arc::new(Spare::new(all.len().saturating_sub(1))),
            all,
        }
    }

    /// A place on the thread that has the fewest sessions; none where there are no threads, or all have failed.
    pub(super) fn seat(&self) -> Option<Seat> {
        let load = |thread: &&Thread| thread.sessions.load(Ordering::Relaxed);
        let Thread {
            handle, sessions, ..
        } = self.running().min_by_key(load)?;
        sessions.fetch_add(1, Ordering::Relaxed);
        Some(Seat {
            handle: handle.clone(),
            sessions: sessions.clone(),
        })
    }

    fn running(&self) -> impl Iterator<Item = &Thread> {
        self.all.iter().filter(|thread| !thread.ends.is_closed())
    }

    /// How many of them may stay awake.
    pub(super) fn spare(&self) -> Arc<Spare> {
        self.spare.clone()
    }
}

impl Thread {
    /// One with so many more for work that blocks.
    fn start(number: usize, blocking: usize) -> io::Result<Self> {
        let (ends, ended) = oneshot::channel();
        let (tells, told) = mpsc::channel();
        // All of it there: a runtime may not be dropped where another one runs, should there be no thread.
        let body = move || {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_all().max_blocking_threads(blocking);
            let runtime = match runtime.build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tells.send(Err(error))),
            };
            let _ = tells.send(Ok(runtime.handle().clone()));
            let _ = runtime.block_on(ended);
            // Work that still blocks is nobody's any more.
            runtime.shutdown_background();
        };
        let builder = std::thread::Builder::new().name(format!("sessions-{number}"));
        builder.spawn(body)?;
        let handle = told.recv().map_err(io::Error::other)??;
        Ok(Thread {
            handle,
            sessions: Arc::default(),
            ends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_are_spread_and_run_until_the_threads_are_dropped() {
        let threads = Threads::start();
        let count = threads.all.len();
        assert!(count > 0);
        let seats: Vec<_> = (0..2 * count).map(|_| threads.seat().unwrap()).collect();
        let loads = |threads: &Threads| {
            let load = |thread: &Thread| thread.sessions.load(Ordering::Relaxed);
            threads.all.iter().map(load).collect::<Vec<_>>()
        };
        assert_eq!(loads(&threads), vec![2; count]);
        let ran = seats[0]
            .handle
            .spawn(async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(ran.await.unwrap().as_deref(), Some("sessions-0"));
        let lasting = seats[0].handle.spawn(std::future::pending::<()>());
        drop(seats);
        assert_eq!(loads(&threads), vec![0; count]);
        drop(threads);
        assert!(lasting.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_thread_has_no_more_others_for_work_that_blocks_than_it_was_given() {
        let thread = Thread::start(0, 1).unwrap();
        let (goes_on, waits) = mpsc::channel::<()>();
        let (begins, begun) = mpsc::channel();
        let first = thread.handle.spawn_blocking(move || {
            begins.send(()).unwrap();
            waits.recv()
        });
        begun.recv().unwrap();
        let second = thread.handle.spawn_blocking(|| ());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!second.is_finished());
        goes_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap();
    }

    #[test]
    fn a_thread_that_has_ended_gets_no_sessions() {
        let mut threads = Threads::start();
        threads
            .all
            .extend((threads.all.len()..2).map(|number| Thread::start(number, 1).unwrap()));
        // It ends.
        threads.all[0].ends = oneshot::channel().0;
        for _ in 0..2 {
            std::mem::forget(threads.seat().unwrap());
        }
        assert_eq!(threads.all[0].sessions.load(Ordering::Relaxed), 0);
    }
}
