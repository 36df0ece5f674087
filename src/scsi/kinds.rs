//! What kind of unit one is: which commands it has.

use super::unit::{Kind, Options};

/// Kinds of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const DISK: Kinds = Kinds(1);
    pub(super) const CONTROLLER: Kinds = Kinds(2);
    /// Every unit is a disk or a controller.
    pub(super) const ALL: Kinds = Kinds(3);
    /// Disks that give space back.
    pub(super) const THIN: Kinds = Kinds(4);
    /// Disks that write as a whole or not at all.
    pub(super) const ATOMIC: Kinds = Kinds(8);
    /// Disks that may be wiped.
    pub(super) const SANITIZED: Kinds = Kinds(16);

    /// Whether a unit of one set may be one of the other.
    pub(super) fn meet(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn may_be_sanitized(self) -> bool {
        self.meet(Kinds::SANITIZED)
    }

    /// Those that a unit belongs to.
    pub(super) fn of(kind: &Kind, options: &Options) -> Kinds {
        let Kind::Disk(disk) = kind else {
            return Kinds::CONTROLLER;
        };
        let geometry = disk.geometry();
        let writable = !geometry.read_only;
        let with = |kinds: Kinds, there: bool| if there { kinds.0 } else { 0 };
        Kinds(
            Kinds::DISK.0
                // A disk that is read-only says so to an UNMAP, like to any other change.
                | with(Kinds::THIN, geometry.thin || !writable)
                | with(Kinds::ATOMIC, geometry.atomic > 0)
                | with(Kinds::SANITIZED, options.sanitize && writable),
        )
    }
}
