//! Calls of the library, which block: each on a thread of its own, and so many at a time as their kind
//! may have. Whoever looks at pages never takes the places of machines that boot.
//!
//! A place belongs to the work, and not to who waits for it: work goes on when somebody hangs up, and
//! so does what it takes from others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Server;
use super::places::Places;

/// Calls for clients that may run at a time: a login that waits for an older boot to settle must
/// leave threads to the disk writes that it waits for. All kinds together stay far below the 512
/// threads that tokio has for work that blocks.
const FOR_CLIENTS: usize = 64;

/// Calls for firmware that may run at a time, DHCP's and TFTP's and looks at the table of neighbours: each
/// takes a millisecond, and none waits behind the logins of machines that are further.
const FOR_FIRMWARE: usize = 8;

/// Calls for pages and API that may run at a time.
const FOR_PEOPLE: usize = 48;

/// Of those that read much, and may take a processor or tens of megabytes for a second or more.
const LONG: usize = 3;

/// How long such a call looks before it is to come to an end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Long calls that one may wait for at a time: those of others come in between.
const LONG_OF_ONE: u64 = 6;

/// Long calls that anybody may wait for at a time.
const LONG_OF_ALL: u64 = 256;

/// The places of all calls.
pub(super) struct Calls {
    firmware: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    people: Arc<Semaphore>,
    long: Arc<Semaphore>,
    long_by: Arc<Places<String>>,
}

/// Why a call was not made, or has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCall {
    /// Whoever asks waits for too many already.
    TooMany,
    /// It panicked.
    Failed,
}

impl Default for Calls {
    fn default() -> Self {
        let places = |number| Arc::new(Semaphore::new(number));
        Calls {
            firmware: places(FOR_FIRMWARE),
            clients: places(FOR_CLIENTS),
            people: places(FOR_PEOPLE),
            long: places(LONG),
            long_by: Places::new(LONG_OF_ONE, LONG_OF_ALL),
        }
    }
}

/// How long work that reads much goes on.
pub struct Patience {
    until: Instant,
    gone: Arc<AtomicBool>,
}

impl Patience {
    /// Whether to come to an end with what there is: its time is over, or nobody waits any more.
    pub fn is_over(&self) -> bool {
        self.is_alone() || Instant::now() >= self.until
    }

    /// Whether nobody waits any more.
    pub fn is_alone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// Tells that whoever waits has gone, when this goes.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Server {
    /// Runs work of the library that somebody on a page or a program waits for; nothing where it
    /// panicked.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Option<T> {
        let server = self.clone();
        on_a_place(&self.calls.people, move || work(&server)).await
    }

    /// The same for a machine that boots or is connected: nobody else takes these places.
    pub async fn call_for_client<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Option<T> {
        let server = self.clone();
        on_a_place(&self.calls.clients, move || work(&server)).await
    }

    /// The same for firmware that asks what to boot, and for looks that take no longer.
    pub(super) async fn call_for_firmware<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Option<T> {
        let server = self.clone();
        on_a_place(&self.calls.firmware, move || work(&server)).await
    }

    /// The same for work that reads much: few at a time, and it asks its [`Patience`] whether to go on.
    /// `who` asks for it.
    pub async fn call_for_long<T: Send + 'static>(
        self: &Arc<Self>,
        who: &str,
        work: impl FnOnce(&Arc<Self>, &Patience) -> T + Send + 'static,
    ) -> Result<T, NoCall> {
        let share = self.calls.long_by.take(who.to_owned(), 1);
        let share = share.ok_or(NoCall::TooMany)?;
        let server = self.clone();
        let waits = Waits(Arc::default());
        let gone = waits.0.clone();
        let done = on_a_place(&self.calls.long, move || {
            let _share = share;
            let until = Instant::now() + PATIENCE;
            work(&server, &Patience { until, gone })
        });
        let done = done.await;
        drop(waits);
        done.ok_or(NoCall::Failed)
    }
}

/// Runs work on a thread of its own when there is a place, which it keeps until it is done.
async fn on_a_place<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.ok()?;
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    match done.await {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!(%error, "a call of the library ended badly");
            None
        }
    }
}

#[cfg(test)]
impl Calls {
    /// Takes all places of machines that boot or are connected, as logins that wait do.
    pub(super) async fn all_of_clients(&self) -> tokio::sync::SemaphorePermit<'_> {
        let many = u32::try_from(FOR_CLIENTS).unwrap();
        self.clients.acquire_many(many).await.unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_place_is_taken_until_the_work_is_done_whoever_hangs_up() {
        let places = Arc::new(Semaphore::new(1));
        let (begins, begun) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let call = on_a_place(&places, move || {
            begins.send(()).unwrap();
            let _ = ends.recv();
        });
        // Long enough for it to begin; then whoever asked is gone.
        let waited = tokio::time::timeout(Duration::from_millis(200), call).await;
        assert!(waited.is_err());
        begun.recv().unwrap();
        assert_eq!(places.available_permits(), 0, "it still works");
        end.send(()).unwrap();
        let free = tokio::time::timeout(Duration::from_secs(10), places.acquire());
        assert!(free.await.is_ok());
    }

    #[test]
    fn patience_ends_when_nobody_waits() {
        let waits = Waits(Arc::default());
        let until = Instant::now() + Duration::from_secs(3600);
        let gone = waits.0.clone();
        let patience = Patience { until, gone };
        assert!(!patience.is_over());
        drop(waits);
        assert!(patience.is_over() && patience.is_alone());
    }
}
