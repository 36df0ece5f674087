//! Reservations: who may use a unit, and who not (SPC-4 §5.13).
//!
//! `state` says what persistent reservations are, `order` what each change makes of them; `change` and
//! `read` are PERSISTENT RESERVE OUT and IN, `legacy` is RESERVE and RELEASE, `kept` is what outlives a
//! restart, and `access` says which commands go through which reservations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub(super) use self::access::Access;
pub(super) use self::state::Registrant;
use self::state::State;
use super::itl::{Itl, NexusId};
use super::unit::ReservationStore;

mod access;
pub(super) mod change;
mod kept;
pub(super) mod legacy;
mod order;
pub(super) mod read;
mod state;

/// The reservations of one unit.
pub(super) struct Reservations {
    /// Replaced as a whole, so that commands look without a lock.
    state: ArcSwap<State>,
    // One change at a time. An asynchronous lock: it is held while a change is made durable.
    turn: tokio::sync::Mutex<()>,
    /// Who holds the unit by RESERVE; 0 for nobody.
    legacy: AtomicU64,
    store: Option<Arc<dyn ReservationStore>>,
    /// What was kept cannot be read, so nobody knows whom the unit belongs to.
    lost: bool,
}

impl Reservations {
    /// Those that the store has kept. May block.
    pub(super) fn open(store: Option<Arc<dyn ReservationStore>>) -> Self {
        let (state, lost) = match store.as_deref().map(kept::load) {
            None => (State::default(), false),
            Some(Ok(state)) => (state, false),
            Some(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "reading persistent reservations: the disk stays closed"
                );
                (State::default(), true)
            }
        };
        Reservations {
            state: ArcSwap::from_pointee(state),
            turn: tokio::sync::Mutex::default(),
            legacy: AtomicU64::new(0),
            store,
            lost,
        }
    }

    /// Whether nobody knows whom the unit belongs to.
    pub(super) fn are_lost(&self) -> bool {
        self.lost
    }

    /// Whether an initiator may do this now.
    pub(super) fn allow(&self, itl: &Itl, access: Access) -> bool {
        let holder = self.legacy.load(Ordering::SeqCst);
        if holder != 0 && holder != itl.nexus.0 && !matches!(access, Access::Always | Access::Own) {
            return false;
        }
        let state = self.state.load();
        let Some(reservation) = &state.reservation else {
            return true;
        };
        access.passes(reservation.kind)
            || state.is_holder(&itl.registrant)
            || reservation.kind.is_for_registrants() && state.is_registered(&itl.registrant)
    }

    /// An initiator is gone, and with it what it held by RESERVE. Persistent reservations stay.
    pub(super) fn nexus_lost(&self, nexus: NexusId) {
        let _ = self
            .legacy
            .compare_exchange(nexus.0, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// A reset ends what RESERVE began. Persistent reservations stay.
    pub(super) fn reset(&self) {
        self.legacy.store(0, Ordering::SeqCst);
    }
}
