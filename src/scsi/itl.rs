//! An initiator's way to one unit: an I_T_L nexus (SAM-5 §4.7).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attention::Attentions;
use super::copy::Held;
use super::lun::Lun;
use super::port::Path;
use super::reservations::Registrant;
use super::running::Running;
use super::unit::Unit;

/// Tells one nexus from every other that this device has ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NexusId(pub(super) u64);

/// The units that an initiator gets to.
pub(super) type Units = BTreeMap<Lun, Arc<Itl>>;

/// What a unit keeps for one initiator.
pub(super) struct Itl {
    pub(super) nexus: NexusId,
    pub(super) path: Arc<Path>,
    /// The same nexus, as reservations know it.
    pub(super) registrant: Registrant,
    pub(super) unit: Arc<Unit>,
    pub(super) attentions: Attentions,
    pub(super) running: Running,
    pub(super) copies: Held,
}

impl Itl {
    pub(super) fn new(nexus: NexusId, path: Arc<Path>, unit: Arc<Unit>) -> Self {
        let registrant = Registrant {
            initiator: path.initiator.clone(),
            port: path.target.relative,
        };
        Itl {
            nexus,
            path,
            registrant,
            unit,
            attentions: Attentions::new(),
            running: Running::new(),
            copies: Held::default(),
        }
    }
}

impl Drop for Itl {
    fn drop(&mut self) {
        self.unit.reservations.nexus_lost(self.nexus);
    }
}
