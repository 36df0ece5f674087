//! Logical units: what each is, and who it says that it is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::alua::AccessState;
use super::exclusion::Exclusion;
use super::itl::{Itl, NexusId};
use super::kinds::Kinds;
use super::mode::Settings;
use super::port::Path;
use super::reservations::Reservations;
use super::running::Aborted;
use super::sanitize::Sanitation;
use super::sense::Sense;
use crate::block::Disk;

/// A logical unit.
pub(super) struct Unit {
    pub(super) kind: Kind,
    pub(super) identity: Identity,
    /// What commands it has.
    pub(super) kinds: Kinds,
    /// Who works on which blocks.
    pub(super) exclusion: Arc<Exclusion>,
    pub(super) sanitation: Arc<Sanitation>,
    pub(super) reservations: Arc<Reservations>,
    /// Places for flushes that nobody waits for.
    pub(super) unwaited: Arc<Semaphore>,
    pub(super) settings: Settings,
    pub(super) access_state: AccessState,
    closed: AtomicBool,
    // Held for a walk over the list, never across an await. Commands do not look at it.
    itls: Mutex<Vec<Weak<Itl>>>,
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
    /// Where it is kept that a SANITIZE has begun. Without it, one that the end of the server cuts off
    /// is forgotten; with it the next server tells that it has failed.
    pub sanitizing: Option<Arc<dyn ReservationStore>>,
    /// Where persistent reservations are kept over restarts. Without it APTPL is refused.
    pub reservations: Option<Arc<dyn ReservationStore>>,
}

/// Keeps what a unit's persistent reservations (or sanitizations) are while no server runs. Both calls may block.
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

/// Flushes of a unit that nobody waits for; whoever asks for one more waits for it.
const MOST_UNWAITED: usize = 4;

/// Who a unit says that it is. Two units with one identity are taken for two paths to one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// NAA designator, locally assigned (SPC-4 §7.8.6.6.4).
    pub(super) naa: [u8; 8],
    /// The same in hexadecimal: the serial number.
    pub(super) serial: String,
}

impl Unit {
    pub(super) fn new(kind: Kind, name: &str, options: Options) -> Self {
        Unit {
            kinds: Kinds::of(&kind, &options),
            exclusion: Arc::default(),
            kind,
            identity: Identity::from_name(name),
            reservations: Arc::new(Reservations::open(options.reservations)),
            sanitation: Arc::new(Sanitation::open(options.sanitizing)),
            unwaited: Arc::new(Semaphore::new(MOST_UNWAITED)),
            settings: Settings::default(),
            access_state: AccessState::default(),
            closed: AtomicBool::new(false),
            itls: Mutex::default(),
        }
    }

    /// The same disk, opened anew with other options: hosts keep what they have reserved, and a
    /// sanitization that is under way goes on. Nothing of this is another disk's.
    pub(super) fn succeeding(disk: Arc<dyn Disk>, options: &Options, old: &Unit) -> Self {
        let kind = Kind::Disk(disk);
        Unit {
            kinds: Kinds::of(&kind, options),
            kind,
            identity: old.identity.clone(),
            exclusion: Arc::default(),
            reservations: old.reservations.clone(),
            sanitation: old.sanitation.clone(),
            unwaited: old.unwaited.clone(),
            settings: Settings::default(),
            access_state: AccessState::default(),
            closed: AtomicBool::new(false),
            itls: Mutex::default(),
        }
    }

    /// Whether nobody gets to it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// One more way to this unit.
    pub(super) fn join(self: &Arc<Self>, nexus: NexusId, path: &Arc<Path>) -> Arc<Itl> {
        let itl = Arc::new(Itl::new(nexus, path.clone(), self.clone()));
        let mut itls = self.itls.lock().unwrap_or_else(PoisonError::into_inner);
        itls.retain(|itl| itl.strong_count() > 0);
        itls.push(Arc::downgrade(&itl));
        itl
    }

    /// All ways to this unit.
    pub(super) fn itls(&self) -> Vec<Arc<Itl>> {
        let itls = self.itls.lock().unwrap_or_else(PoisonError::into_inner);
        itls.iter().filter_map(Weak::upgrade).collect()
    }

    /// Raises a unit attention for those initiators.
    pub(super) fn tell(&self, sense: Sense, whom: impl Fn(&Itl) -> bool) {
        for itl in self.itls().iter().filter(|itl| whom(itl)) {
            itl.attentions.raise(sense);
        }
    }

    /// LOGICAL UNIT RESET (SAM-5 §6.3.3): everybody's commands are aborted, and everybody is told. The
    /// result resolves when none of those commands works any more.
    pub(super) fn reset(&self, by: NexusId) -> Vec<Aborted> {
        let itls = self.itls();
        let aborted = itls.iter().map(|itl| self.abort(itl, by)).collect();
        self.reservations.reset();
        self.settings.reset();
        for itl in &itls {
            itl.attentions.raise(Sense::RESET);
        }
        aborted
    }

    /// CLEAR TASK SET (SAM-5 §7.4): everybody's commands are aborted, and of the others those are told
    /// that had any, unless the status of their commands tells them (SAM-5 §5.6).
    pub(super) fn clear(&self, by: NexusId) -> Vec<Aborted> {
        let silent = !self.settings.aborted_status();
        let abort = |itl: &Arc<Itl>| {
            let aborted = self.abort(itl, by);
            if silent && aborted.any && itl.nexus != by {
                itl.attentions.raise(Sense::COMMANDS_CLEARED);
            }
            aborted
        };
        self.itls().iter().map(abort).collect()
    }

    /// Aborts the commands of one initiator, as `by` has asked for it. Those of others than that one end
    /// with TASK ABORTED status where an initiator has asked for this (TAS, SPC-4 §7.5.8); its own
    /// never have one.
    pub(super) fn abort(&self, itl: &Itl, by: NexusId) -> Aborted {
        if itl.nexus != by && self.settings.aborted_status() {
            itl.running.abort_told()
        } else {
            itl.running.abort()
        }
    }

    /// A sanitization begins: what waits for data is refused. The result resolves when nothing that
    /// began before works on the disk any more.
    pub(super) fn wipe(&self) -> Vec<Aborted> {
        self.itls().iter().map(|itl| itl.running.wipe()).collect()
    }

    /// Nobody gets to the unit any more; `reopened` if the same disk takes its place.
    pub(super) fn close(&self, reopened: bool) -> Vec<Aborted> {
        self.closed.store(true, Ordering::SeqCst);
        let close = |itl: &Arc<Itl>| match reopened {
            true => itl.running.reopen(),
            false => itl.running.close(),
        };
        self.itls().iter().map(close).collect()
    }
}

impl Identity {
    /// Whether this is the designator (its CODE SET, and its ASSOCIATION and DESIGNATOR TYPE in one
    /// byte) of the unit.
    pub(super) fn is(&self, kind: [u8; 2], designator: &[u8]) -> bool {
        kind == [0x01, 0x03] && designator == self.naa
    }

    /// The identity that belongs to a stable name: the same in every run and on every server.
    pub(super) fn from_name(name: &str) -> Self {
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
