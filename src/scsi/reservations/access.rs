//! What a command does to a unit, as far as reservations go, and what goes through which.

use super::state::Kind;
use crate::scsi::cdb::Cdb;

/// What a command needs of a unit that others may have reserved (SPC-4 §5.13.1, SBC-3 §4.17: the tables
/// of commands that are allowed in the presence of reservations).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scsi) enum Access {
    /// Nothing: it goes through every reservation.
    Always,
    /// It goes through persistent reservations, and not through RESERVE.
    Persistent,
    /// It looks: it goes through those that keep others from writing only.
    Read,
    /// It changes the medium.
    Write,
    /// It changes something else, or may disturb whoever holds the reservation.
    Control,
    /// Nothing where the bits of `mask` in a byte of the command block have this value; otherwise as
    /// [`Access::Control`].
    Unless {
        /// The byte.
        byte: usize,
        /// Its bits.
        mask: u8,
        /// Their harmless value.
        value: u8,
    },
    /// The command deals with reservations, and has rules of its own.
    Own,
}

impl Access {
    /// The same, with what depends on the command block decided.
    pub(in crate::scsi) fn of(self, cdb: &Cdb) -> Access {
        match self {
            Access::Unless { byte, mask, value } if cdb.byte(byte) & mask == value => {
                Access::Always
            }
            Access::Unless { .. } => Access::Control,
            access => access,
        }
    }

    /// Whether the command goes through a persistent reservation that its initiator has no part in.
    pub(super) fn passes(self, kind: Kind) -> bool {
        match self {
            Access::Always | Access::Persistent | Access::Own => true,
            Access::Read => kind.is_write_exclusive(),
            Access::Write | Access::Control | Access::Unless { .. } => false,
        }
    }
}
