//! Sense data: why a command was not done (SPC-4 §4.5).

use crate::block;

/// What went wrong, as sense key, additional code and qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// SENSE KEY.
    pub key: u8,
    /// ADDITIONAL SENSE CODE and its QUALIFIER.
    pub code: u16,
    /// Where in the parameters or the medium, if that is told.
    pub information: Option<u32>,
    /// The byte of the command block or the parameter list at fault.
    pub field: Option<Field>,
}

/// A byte at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// In the command block.
    Cdb(u16),
    /// In the parameter list.
    Parameter(u16),
}

/// What a command was doing when its disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Reading,
    Writing,
}

impl Sense {
    /// Nothing is wrong.
    pub const NONE: Sense = Sense::of(0x0, 0x0000);
    /// No such opcode or service action.
    pub const INVALID_OPCODE: Sense = Sense::of(0x5, 0x2000);
    /// A field of the command block has a value that cannot be.
    pub const INVALID_FIELD: Sense = Sense::of(0x5, 0x2400);
    /// Blocks beyond the end.
    pub const OUT_OF_RANGE: Sense = Sense::of(0x5, 0x2100);
    /// A field of the parameter list has a value that cannot be.
    pub const INVALID_PARAMETER: Sense = Sense::of(0x5, 0x2600);
    /// The parameter list ends too early.
    pub const PARAMETER_LENGTH: Sense = Sense::of(0x5, 0x1a00);
    /// No such logical unit.
    pub const NO_UNIT: Sense = Sense::of(0x5, 0x2500);
    /// There are no saved mode pages.
    pub const NO_SAVED_PAGES: Sense = Sense::of(0x5, 0x3900);
    /// The unit is never written.
    pub const WRITE_PROTECTED: Sense = Sense::of(0x7, 0x2700);
    /// There is no room to write.
    pub const NO_SPACE: Sense = Sense::of(0x7, 0x2707);
    /// The data differ.
    pub const MISCOMPARE: Sense = Sense::of(0xe, 0x1d00);
    /// The medium could not be read.
    pub const READ_ERROR: Sense = Sense::of(0x3, 0x1100);
    /// The medium could not be written.
    pub const WRITE_ERROR: Sense = Sense::of(0x3, 0x0c00);
    /// The initiator sent less data than the command needs.
    pub const NOT_ENOUGH_DATA: Sense = Sense::of(0xb, 0x0c0d);
    /// Unit attention: a new nexus, or the device has started.
    pub const POWER_ON: Sense = Sense::of(0x6, 0x2900);
    /// Unit attention: somebody has reset the unit.
    pub const RESET: Sense = Sense::of(0x6, 0x2903);
    /// Unit attention: somebody has cleared this initiator's commands.
    pub const COMMANDS_CLEARED: Sense = Sense::of(0x6, 0x2f00);

    /// Length of fixed format sense data.
    pub const LEN: usize = 18;

    const fn of(key: u8, code: u16) -> Sense {
        Sense {
            key,
            code,
            information: None,
            field: None,
        }
    }

    /// The same, pointing at a byte of the command block.
    pub(super) fn at(self, byte: u16) -> Sense {
        Sense {
            field: Some(Field::Cdb(byte)),
            ..self
        }
    }

    /// The same, pointing at a byte of the parameter list.
    pub(super) fn in_parameter(self, byte: u16) -> Sense {
        Sense {
            field: Some(Field::Parameter(byte)),
            ..self
        }
    }

    /// The one place where a disk's outcome becomes sense data.
    pub(super) fn from_disk(error: &block::Error, doing: Doing) -> Sense {
        match (error, doing) {
            (block::Error::OutOfSpace, _) => Sense::NO_SPACE,
            (block::Error::ReadOnly, _) => Sense::WRITE_PROTECTED,
            (block::Error::Failed(_), Doing::Reading) => Sense::READ_ERROR,
            (block::Error::Failed(_), Doing::Writing) => Sense::WRITE_ERROR,
        }
    }

    /// Fixed format (SPC-4 §4.5.3).
    pub fn emit(&self) -> [u8; Sense::LEN] {
        let [asc, ascq] = self.code.to_be_bytes();
        let [i0, i1, i2, i3] = self.information.unwrap_or(0).to_be_bytes();
        let valid = if self.information.is_some() { 0x80 } else { 0 };
        // SENSE-KEY SPECIFIC: SKSV, C/D and the FIELD POINTER (§4.5.2.4.2).
        let (specific, pointer) = match self.field {
            Some(Field::Cdb(byte)) => (0xc0, byte),
            Some(Field::Parameter(byte)) => (0x80, byte),
            None => (0, 0),
        };
        let [p0, p1] = pointer.to_be_bytes();
        let additional = (Sense::LEN - 8) as u8;
        [
            0x70 | valid,
            0,
            self.key,
            i0,
            i1,
            i2,
            i3,
            additional,
            0,
            0,
            0,
            0,
            asc,
            ascq,
            0,
            specific,
            p0,
            p1,
        ]
    }
}
