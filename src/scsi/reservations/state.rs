//! Persistent reservations as values: what there is at a time (SPC-4 §5.13).

use std::collections::BTreeMap;

use crate::scsi::port::TransportId;

/// Registrations, and what is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::scsi) struct State {
    /// PRGENERATION: it counts changes of registrations since power-on.
    pub(super) generation: u32,
    /// Whose key is which. Keys are never 0.
    pub(super) registrations: BTreeMap<Registrant, u64>,
    pub(super) reservation: Option<Reservation>,
    /// APTPL: it is kept over restarts.
    pub(super) kept: bool,
}

/// A nexus as registrations know it: it outlives its sessions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::scsi) struct Registrant {
    /// The initiator port.
    pub(in crate::scsi) initiator: TransportId,
    /// The relative identifier of the target port.
    pub(in crate::scsi) port: u16,
}

/// A persistent reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) kind: Kind,
    /// Who made it. Those for all registrants are held by every registrant (SPC-4 §5.13.10).
    pub(super) holder: Registrant,
}

/// TYPE (SPC-4 §6.15.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrants = 5,
    ExclusiveAccessRegistrants = 6,
    WriteExclusiveAll = 7,
    ExclusiveAccessAll = 8,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] = [
        Kind::WriteExclusive,
        Kind::ExclusiveAccess,
        Kind::WriteExclusiveRegistrants,
        Kind::ExclusiveAccessRegistrants,
        Kind::WriteExclusiveAll,
        Kind::ExclusiveAccessAll,
    ];

    pub(super) fn parse(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// Others may read.
    pub(super) fn is_write_exclusive(self) -> bool {
        matches!(
            self,
            Kind::WriteExclusive | Kind::WriteExclusiveRegistrants | Kind::WriteExclusiveAll
        )
    }

    /// Registered initiators may do all that the holder may.
    pub(super) fn is_for_registrants(self) -> bool {
        !matches!(self, Kind::WriteExclusive | Kind::ExclusiveAccess)
    }

    /// Every registrant holds it.
    pub(super) fn is_held_by_all(self) -> bool {
        matches!(self, Kind::WriteExclusiveAll | Kind::ExclusiveAccessAll)
    }
}

impl State {
    pub(super) fn is_registered(&self, who: &Registrant) -> bool {
        self.registrations.contains_key(who)
    }

    /// Whether `who` holds the reservation that there is.
    pub(super) fn is_holder(&self, who: &Registrant) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| {
            if reservation.kind.is_held_by_all() {
                self.is_registered(who)
            } else {
                reservation.holder == *who
            }
        })
    }
}
