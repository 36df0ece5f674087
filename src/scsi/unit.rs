//! Logical units: what each is, and who it says that it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::block::Disk;

/// A logical unit.
pub(super) struct Unit {
    pub(super) kind: Kind,
    pub(super) identity: Identity,
    pub(super) options: Options,
    running: Running,
}

/// What a logical unit is.
pub(super) enum Kind {
    /// A storage array controller, there so that LUN 0 always answers.
    Controller,
    /// A disk.
    Disk(Arc<dyn Disk>),
}

/// What a disk's owner allows, and keeps for it.
#[derive(Clone, Default)]
pub struct Options {
    /// SANITIZE may destroy everything on the disk.
    pub sanitize: bool,
    /// Where persistent reservations are kept over restarts. Without it APTPL is refused.
    pub reservations: Option<Arc<dyn ReservationStore>>,
}

/// Keeps what a unit's persistent reservations are while no server runs. Both calls may block.
pub trait ReservationStore: Send + Sync {
    /// What was kept last; nothing if that was never.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Keeps `state`, durably when this returns, in the place of what was kept before.
    ///
    /// # Errors
    /// When it cannot be written; then the old state stands.
    fn save(&self, state: &[u8]) -> io::Result<()>;
}

/// Who a unit says that it is. Two units with one identity are taken for two paths to one disk.
pub(super) struct Identity {
    /// NAA designator, locally assigned (SPC-4 §7.8.6.6.4).
    pub(super) naa: [u8; 8],
    /// The same in hexadecimal: the serial number.
    pub(super) serial: String,
}

impl Unit {
    pub(super) fn new(kind: Kind, name: &str, options: Options) -> Self {
        Unit {
            kind,
            identity: Identity::from_name(name),
            options,
            running: Running::new(),
        }
    }

    /// Counts the resets of this unit, so that a command can tell whether it was aborted.
    pub(super) fn epoch(&self) -> u64 {
        self.running.epoch.load(Ordering::Acquire)
    }

    /// Held by a command for as long as it works on the unit.
    pub(super) fn working(&self) -> Working {
        let current = self
            .running
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Working {
            _token: current.subscribe(),
        }
    }

    /// Aborts what was started before; resolves when none of that works on the unit any more.
    pub(super) fn reset(&self) -> impl Future<Output = ()> + Send + 'static {
        let old = {
            let mut current = self
                .running
                .current
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.running.epoch.fetch_add(1, Ordering::AcqRel);
            std::mem::replace(&mut *current, watch::Sender::new(()))
        };
        async move { old.closed().await }
    }
}

/// The commands that work on a unit between two resets.
struct Running {
    epoch: AtomicU64,
    // The channel carries nothing: commands hold receivers, and a sender can wait until none is left.
    // The lock is held for a clone or a replacement.
    current: Mutex<watch::Sender<()>>,
}

impl Running {
    fn new() -> Self {
        Running {
            epoch: AtomicU64::new(0),
            current: Mutex::new(watch::Sender::new(())),
        }
    }
}

/// A command at work.
pub(super) struct Working {
    _token: watch::Receiver<()>,
}

impl Identity {
    /// The identity that belongs to a stable name: the same in every run and on every server.
    fn from_name(name: &str) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(name.as_bytes());
        let mut naa = [0; 8];
        for (to, from) in naa.iter_mut().zip(digest) {
            *to = from;
        }
        let [first, ..] = &mut naa;
        *first = 0x30 | (*first & 0x0f);
        let serial = naa.iter().map(|byte| format!("{byte:02x}")).collect();
        Identity { naa, serial }
    }
}
