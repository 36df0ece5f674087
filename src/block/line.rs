//! Short writes that need a thread share one.
//!
//! Where the file system knows no write that does not wait (ext4), each write needs a thread of the blocking
//! pool, and to hand a short one over takes more processor time than to do it. So those of a disk stand in
//! a line: who comes while one thread is at it leaves his job there, and no thread is woken for it.
//!
//! That is for writes that end in a cache. Where they are seen to take longer, as on a network's file system
//! that caches none, they are done side by side as others are.
//!
//! What is done is told a few at a time: each telling may wake a thread, which takes longer than a write.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::backing::{Threads, outcome};
use super::{Answer, Error, Result};

/// Bytes of the largest write that shares a thread with others: they wait while it is copied.
pub(super) const SHORT: u64 = 256 * 1024;

/// Bytes of a page. What does not begin and end at one is read first, for which others need not wait.
const PAGE: u64 = 4096;

/// Jobs that are done before the thread is given back, for others in the pool to have a turn.
const TURN: usize = 64;

/// What ends in a cache takes microseconds; to have waited for something takes longer than this.
const SLOW: Duration = Duration::from_millis(1);

/// So many in a row have waited: one alone may have been without a processor for a while.
const SLOW_ONES: u32 = 3;

/// Jobs that are told of together, at most. Where the next one hangs they wait for it, as those behind it do.
const TOGETHER: usize = 16;

/// How long what is done goes untold while others are.
const UNTOLD: Duration = Duration::from_micros(100);

/// The short writes of one disk.
#[derive(Default)]
pub(super) struct Line {
    /// For those that need one each.
    threads: Arc<Threads>,
    /// How many of the last ones have waited, one after another.
    slow: AtomicU32,
    // Held for a look or a change of the queue.
    waiting: Mutex<Waiting>,
}

struct Job {
    work: Box<dyn FnOnce() -> io::Result<()> + Send>,
    tell: oneshot::Sender<io::Result<()>>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Somebody does them, or is about to.
    has_runner: bool,
}

/// Who does the jobs of a line, in the blocking pool.
struct Runner {
    line: Arc<Line>,
    /// What came of those that are not told of yet.
    done: Vec<(oneshot::Sender<io::Result<()>>, io::Result<()>)>,
    /// There was nothing left to do.
    is_through: bool,
}

impl Line {
    /// For a disk that has these threads.
    pub(super) fn of(threads: &Arc<Threads>) -> Arc<Self> {
        Arc::new(Line {
            threads: threads.clone(),
            ..Line::default()
        })
    }

    /// Runs `work`, which writes `range`: in the line if that is short and does not wait, else on a thread of
    /// its own. What goes in the line is begun now, and done also where nobody waits for it.
    pub(super) fn write(
        self: &Arc<Self>,
        range: Range<u64>,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Answer<Result<()>> {
        let whole = range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE);
        if !whole || range.end - range.start > SHORT {
            return Answer::Later(Box::pin(self.threads.clone().blocking(work)));
        }
        if self.slow.load(Ordering::Relaxed) >= SLOW_ONES {
            let line = self.clone();
            let work = move || {
                let began = Instant::now();
                let result = work();
                line.took(began.elapsed());
                result
            };
            return Answer::Later(Box::pin(self.threads.clone().blocking(work)));
        }
        let (tell, told) = oneshot::channel();
        let work = Box::new(work);
        self.append(Job { work, tell });
        Answer::Later(Box::pin(async move {
            match told.await {
                Ok(result) => result.map_err(outcome),
                Err(_) => Err(Error::Failed(io::Error::other(
                    "a write was not done: it panicked, or the server ends",
                ))),
            }
        }))
    }

    /// Learns from a write how long they take here.
    fn took(&self, time: Duration) {
        if time > SLOW {
            self.slow.fetch_add(1, Ordering::Relaxed);
        } else {
            self.slow.store(0, Ordering::Relaxed);
        }
    }

    fn append(self: &Arc<Self>, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        let has_runner = std::mem::replace(&mut waiting.has_runner, true);
        drop(waiting);
        if !has_runner {
            let runner = Runner {
                line: self.clone(),
                done: Vec::with_capacity(TOGETHER),
                is_through: false,
            };
            spawn_blocking(move || runner.run());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner {
    fn run(mut self) {
        let mut told = Instant::now();
        for _ in 0..TURN {
            let Some(Job { work, tell }) = self.next() else {
                return;
            };
            let began = Instant::now();
            // A panic was told by its hook, and its waiter hears nothing more. Those behind are not to blame.
            if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                self.done.push((tell, result));
            }
            let now = Instant::now();
            self.line.took(now - began);
            if self.done.len() >= TOGETHER || now - told > UNTOLD {
                self.tell();
                told = now;
            }
        }
        self.tell();
        spawn_blocking(move || self.run());
    }

    fn next(&mut self) -> Option<Job> {
        let mut waiting = self.line.lock();
        let job = waiting.jobs.pop_front();
        waiting.has_runner = job.is_some();
        self.is_through = job.is_none();
        job
    }

    fn tell(&mut self) {
        for (tell, result) in self.done.drain(..) {
            // Whoever has stopped waiting need not know.
            let _ = tell.send(result);
        }
    }
}

impl Drop for Runner {
    /// What is done is told. Where the runtime ends before its turn comes, those who wait are told as well, and
    /// another may begin anew.
    fn drop(&mut self) {
        self.tell();
        if self.is_through {
            return;
        }
        let mut waiting = self.line.lock();
        waiting.has_runner = false;
        let lost = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        drop(lost);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    const ONE: Range<u64> = 0..PAGE;

    impl Line {
        /// Waits until so many stand in it.
        async fn has_got(&self, jobs: usize) {
            while self.lock().jobs.len() < jobs {
                tokio::task::yield_now().await;
            }
        }
    }

    /// A job that keeps its thread until it is told.
    fn held() -> (
        mpsc::Sender<()>,
        impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        let (go, may_go) = mpsc::channel();
        (go, move || may_go.recv().map_err(io::Error::other))
    }

    /// A runtime whose pool has one thread.
    fn narrow() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.max_blocking_threads(1).build().unwrap()
    }

    #[tokio::test]
    async fn short_writes_are_done_in_turn_and_others_beside_them() {
        let line = Arc::new(Line::default());
        let (go, first) = held();
        let first = tokio::spawn(line.write(ONE, first).wait());
        tokio::task::yield_now().await;
        let done = Arc::new(Mutex::new(Vec::new()));
        let job = |n: usize| {
            let done = done.clone();
            move || {
                done.lock().unwrap().push(n);
                Ok(())
            }
        };
        let behind: Vec<_> = (0..3 * TURN)
            .map(|n| tokio::spawn(line.write(ONE, job(n)).wait()))
            .collect();
        line.has_got(3 * TURN).await;
        for range in [0..SHORT + PAGE, 512..PAGE, 0..512] {
            line.write(range, job(1000)).wait().await.unwrap();
        }
        assert_eq!(*done.lock().unwrap(), [1000; 3]);
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        for one in join_all(behind).await {
            one.unwrap().unwrap();
        }
        let expected: Vec<usize> = (0..3 * TURN).collect();
        assert_eq!(done.lock().unwrap()[3..], expected);
    }

    #[tokio::test]
    async fn a_write_begins_before_anybody_waits_for_it() {
        let line = Arc::new(Line::default());
        let (tell, done) = oneshot::channel();
        let answer = line.write(ONE, move || {
            tell.send(()).map_err(|()| io::Error::other("?"))
        });
        done.await.unwrap();
        answer.wait().await.unwrap();
    }

    #[tokio::test]
    async fn what_waits_does_so_side_by_side() {
        let line = Arc::new(Line::default());
        let slow = || {
            std::thread::sleep(2 * SLOW);
            Ok(())
        };
        for _ in 1..SLOW_ONES {
            line.write(ONE, slow).wait().await.unwrap();
        }
        // One that is quick between them shows that they had bad luck.
        line.write(ONE, || Ok(())).wait().await.unwrap();
        assert_eq!(line.slow.load(Ordering::Relaxed), 0);
        for _ in 0..SLOW_ONES {
            line.write(ONE, slow).wait().await.unwrap();
        }
        let (go, first) = held();
        let first = tokio::spawn(line.write(ONE, first).wait());
        tokio::task::yield_now().await;
        line.write(ONE, slow).wait().await.unwrap();
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        // A quick one shows that there is a cache again.
        while line.slow.load(Ordering::Relaxed) > 0 {
            line.write(ONE, || Ok(())).wait().await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_job_comes_to_is_its_own() {
        let line = Arc::new(Line::default());
        let (go, first) = held();
        let first = tokio::spawn(line.write(ONE, first).wait());
        tokio::task::yield_now().await;
        let full = || Err(io::ErrorKind::StorageFull.into());
        let full = tokio::spawn(line.write(ONE, full).wait());
        let broken = tokio::spawn(line.write(ONE, || panic!("as the test wants it")).wait());
        let good = tokio::spawn(line.write(ONE, || Ok(())).wait());
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert!(matches!(full.await.unwrap(), Err(Error::OutOfSpace)));
        assert!(matches!(broken.await.unwrap(), Err(Error::Failed(_))));
        good.await.unwrap().unwrap();
        line.write(ONE, || Ok(())).wait().await.unwrap();
    }

    #[tokio::test]
    async fn who_stops_waiting_stops_no_one() {
        let line = Arc::new(Line::default());
        let (go, first) = held();
        let first = tokio::spawn(line.write(ONE, first).wait());
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let second = tokio::spawn(
            line.write(ONE, move || {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .wait(),
        );
        tokio::task::yield_now().await;
        first.abort();
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        line.write(ONE, || Ok(())).wait().await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_thread_is_given_back_now_and_then() {
        let line = Arc::new(Line::default());
        narrow().block_on(async {
            let (go, first) = held();
            let first = tokio::spawn(line.write(ONE, first).wait());
            tokio::task::yield_now().await;
            let done = Arc::new(AtomicUsize::new(0));
            let behind: Vec<_> = (0..3 * TURN)
                .map(|_| {
                    let done = done.clone();
                    tokio::spawn(
                        line.write(ONE, move || {
                            done.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .wait(),
                    )
                })
                .collect();
            line.has_got(3 * TURN).await;
            let other = spawn_blocking(move || done.load(Ordering::SeqCst));
            go.send(()).unwrap();
            assert_eq!(other.await.unwrap(), TURN - 1);
            first.await.unwrap().unwrap();
            for one in join_all(behind).await {
                one.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn a_runtime_that_ends_takes_no_line_with_it() {
        let line = Arc::new(Line::default());
        let runtime = narrow();
        let ended = runtime.handle().clone();
        runtime.shutdown_background();
        let lost = {
            let _entered = ended.enter();
            line.write(ONE, || Ok(()))
        };
        assert!(narrow().block_on(lost.wait()).is_err());
        let next = async { line.write(ONE, || Ok(())).wait().await };
        narrow().block_on(next).unwrap();
    }
}
