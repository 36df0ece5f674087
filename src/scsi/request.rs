//! What every command is given.

use std::sync::Arc;

use super::cdb::Cdb;
use super::itl::{Itl, Units};
use super::kinds::Kinds;
use super::sense::Sense;
use super::unit::Unit;

/// A command on its way: the unit it is for, and its block.
pub(super) struct Request<'a> {
    pub(super) unit: &'a Arc<Unit>,
    pub(super) kinds: Kinds,
    /// What the unit keeps for the initiator.
    pub(super) itl: &'a Arc<Itl>,
    /// All units that the initiator gets to.
    pub(super) units: &'a Units,
    pub(super) cdb: Cdb,
}

impl Request<'_> {
    /// Takes the oldest unit attention, to be told.
    pub(super) fn take_attention(&self) -> Option<Sense> {
        let sense = self.itl.attentions.take()?;
        if sense == Sense::LUNS_CHANGED {
            // LUICLR (SPC-4 §7.8.7): told by one unit, it is told for all.
            for itl in self.units.values() {
                itl.attentions.withdraw(sense);
            }
        }
        Some(sense)
    }
}
