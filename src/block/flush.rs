//! Flushes that arrive together are done together.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Error, Result};

/// Joins concurrent flushes of one disk: whoever waits while one is running shares the next.
///
/// The kernel tells a failed write-back once and then forgets it, so a later sync would succeed
/// although data are gone. Therefore one failure is final: every flush after it fails as well,
/// until the disk is opened again.
#[derive(Default)]
pub(crate) struct Flusher {
    asked: AtomicU64,
    failed: AtomicBool,
    // Flushes up to this number are durable. An asynchronous lock: it is held while the sync runs, and that
    // is what makes others wait.
    through: tokio::sync::Mutex<u64>,
}

impl Flusher {
    /// Runs `sync`, unless a sync that began after this call has been done by somebody else.
    pub(crate) async fn flush<F>(&self, sync: impl FnOnce() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut through = self.through.lock().await;
        self.check()?;
        if *through >= mine {
            return Ok(());
        }
        let covers = self.asked.load(Ordering::SeqCst);
        sync().await.inspect_err(|_| self.fail())?;
        *through = covers;
        Ok(())
    }

    /// A sync has failed, here or of what else writes the disk: it may have been told what the next would
    /// have been.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Nothing of the disk is durable any more once a sync of it has failed.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failed.load(Ordering::SeqCst) {
            true => Err(Error::Failed(io::Error::other(
                "an earlier flush of this disk failed, so nothing is known to be durable",
            ))),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[tokio::test]
    async fn many_waiting_flushes_are_one_sync() {
        let flusher = Arc::new(Flusher::default());
        let syncs = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (flusher, syncs) = (flusher.clone(), syncs.clone());
                tokio::spawn(async move {
                    flusher
                        .flush(|| async {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            Ok(())
                        })
                        .await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert!(syncs.load(Ordering::SeqCst) <= 3);
    }

    #[tokio::test]
    async fn a_failed_flush_is_never_followed_by_a_good_one() {
        let flusher = Flusher::default();
        let failed = || async { Err(Error::Failed(io::Error::other("lost"))) };
        assert!(flusher.flush(failed).await.is_err());
        assert!(flusher.flush(|| async { Ok(()) }).await.is_err());
        assert!(flusher.check().is_err());
    }
}
