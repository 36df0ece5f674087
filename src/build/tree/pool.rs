//! Work that makes more work, done by several threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::exec::Cancel;

/// What is still to be done, newest first: a tree is walked in depth, so that few directories are
/// open at once.
pub(crate) struct Pool<T> {
    // A plain lock: it is held for a push or a pop, never while work is done.
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    todo: Vec<T>,
    /// Workers that may still add to `todo`.
    busy: usize,
    failed: Option<anyhow::Error>,
}

/// Does `first` and all that it leads to on `workers` threads, each with a worker that `hire`
/// makes. The first failure ends it; what the others have begun is finished.
pub(crate) fn in_parallel<T, W>(
    first: T,
    workers: usize,
    cancel: &Cancel,
    hire: impl Fn() -> Result<W> + Sync,
) -> Result<()>
where
    T: Send,
    W: FnMut(T, &Pool<T>) -> Result<()>,
{
    let pool = Pool {
        state: Mutex::new(State {
            todo: vec![first],
            busy: 0,
            failed: None,
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| match hire() {
                Ok(mut worker) => {
                    while let Some(item) = pool.take(cancel) {
                        let done = worker(item, &pool);
                        pool.finish(done);
                    }
                }
                Err(error) => pool.fail(error),
            });
        }
    });
    let state = pool.state.into_inner();
    match state.unwrap_or_else(PoisonError::into_inner).failed {
        Some(error) => Err(error),
        None => Ok(cancel.check()?),
    }
}

impl<T> Pool<T> {
    /// Adds work, to be done in the order of `items` after what is added later.
    pub(crate) fn add(&self, items: impl IntoIterator<Item = T>) {
        self.lock().todo.extend(items);
        self.changed.notify_all();
    }

    /// Whether one of the workers has failed, so that waiting for it makes no sense.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    fn take(&self, cancel: &Cancel) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() || cancel.is_cancelled() {
                return None;
            }
            if let Some(item) = state.todo.pop() {
                state.busy += 1;
                return Some(item);
            }
            if state.busy == 0 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, done: Result<()>) {
        let mut state = self.lock();
        state.busy -= 1;
        if let Err(error) = done {
            state.failed.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn fail(&self, error: anyhow::Error) {
        self.lock().failed.get_or_insert(error);
        self.changed.notify_all();
    }

    /// A worker that panics poisons the lock and then the scope; the state itself stays whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn all_that_work_leads_to_is_done_once() {
        let sum = AtomicU64::new(0);
        in_parallel(1u64, 4, &Cancel::new(), || {
            Ok(|item: u64, pool: &Pool<u64>| {
                sum.fetch_add(item, Ordering::Relaxed);
                pool.add([item * 2, item * 2 + 1].into_iter().filter(|&i| i <= 1000));
                Ok(())
            })
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 500_500);
    }

    #[test]
    fn the_first_failure_ends_it() {
        let error = in_parallel(0u64, 3, &Cancel::new(), || {
            Ok(|item: u64, pool: &Pool<u64>| {
                anyhow::ensure!(item < 50, "fifty");
                pool.add([item + 1]);
                Ok(())
            })
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "fifty");
    }

    #[test]
    fn it_stops_when_asked() {
        let cancel = Cancel::new();
        let error = in_parallel(0u64, 2, &cancel, || {
            Ok(|item: u64, pool: &Pool<u64>| {
                if item == 10 {
                    cancel.cancel();
                }
                pool.add([item + 1]);
                Ok(())
            })
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
    }
}
