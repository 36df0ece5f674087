//! Sense data: why a command was not done (SPC-4 §4.5).

use crate::block;

/// Length of fixed format sense data.
const FIXED_LEN: u8 = 18;

/// What went wrong, as sense key, additional code and qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// SENSE KEY.
    pub key: u8,
    /// ADDITIONAL SENSE CODE and its QUALIFIER.
    pub code: u16,
    /// Where in the parameters or the medium, if that is told.
    pub information: Option<u64>,
    /// What of the command block or the parameter list is at fault.
    pub field: Option<Field>,
    /// How far the work is that the unit is busy with, in parts of 65,536.
    pub progress: Option<u16>,
    /// How it is written down.
    pub format: Format,
}

/// The two ways to write sense data down (SPC-4 §4.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Fixed format, as long as D_SENSE is 0.
    #[default]
    Fixed,
    /// Descriptor format, which has room for INFORMATION of 64 bits.
    Descriptor,
}

/// A field at fault (SPC-4 §4.5.2.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// What it is in.
    pub place: Place,
    /// Its byte.
    pub byte: u16,
    /// Its highest bit, where it is not a whole byte.
    pub bit: Option<u8>,
}

/// What a field at fault is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The command block.
    Cdb,
    /// The parameter list.
    Parameters,
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
    /// The initiator sends less data than the command takes, or more (SAM-5: in its information unit).
    pub const WRONG_LENGTH: Sense = Sense::of(0x5, 0x0e03);
    /// Data of the command got lost on the way (RFC 7143 §11.4.7.2, Protocol Service CRC error).
    pub const DATA_LOST: Sense = Sense::of(0xb, 0x4705);
    /// Unit attention: a new nexus, or the device has started.
    pub const POWER_ON: Sense = Sense::of(0x6, 0x2900);
    /// Unit attention: somebody has reset the unit.
    pub const RESET: Sense = Sense::of(0x6, 0x2903);
    /// Unit attention: somebody has cleared this initiator's commands.
    pub const COMMANDS_CLEARED: Sense = Sense::of(0x6, 0x2f00);
    /// Unit attention: there are other units than before.
    pub const LUNS_CHANGED: Sense = Sense::of(0x6, 0x3f0e);
    /// Unit attention: the disk has another size.
    pub const CAPACITY_CHANGED: Sense = Sense::of(0x6, 0x2a09);
    /// Unit attention: another initiator has changed mode parameters.
    pub const MODE_CHANGED: Sense = Sense::of(0x6, 0x2a01);
    /// Unit attention: the persistent reservation or the registration is gone by another's CLEAR.
    pub const RESERVATIONS_PREEMPTED: Sense = Sense::of(0x6, 0x2a03);
    /// Unit attention: the persistent reservation has been released.
    pub const RESERVATIONS_RELEASED: Sense = Sense::of(0x6, 0x2a04);
    /// Unit attention: the registration has been taken away.
    pub const REGISTRATIONS_PREEMPTED: Sense = Sense::of(0x6, 0x2a05);
    /// Unit attention: the state of a target port group has changed.
    pub const ACCESS_CHANGED: Sense = Sense::of(0x6, 0x2a06);
    /// The initiator has asked that nobody writes.
    pub const SOFTWARE_PROTECTED: Sense = Sense::of(0x7, 0x2702);
    /// Something is wrong that only a person can put right.
    pub const MANUAL_INTERVENTION: Sense = Sense::of(0x2, 0x0403);
    /// Something of this side's own has failed.
    pub const INTERNAL: Sense = Sense::of(0x4, 0x4400);
    /// There are as many registrations as there can be.
    pub const TOO_MANY_REGISTRATIONS: Sense = Sense::of(0x5, 0x5504);
    /// The scope or type is not that of the reservation that is to be released.
    pub const INVALID_RELEASE: Sense = Sense::of(0x5, 0x2604);

    /// More CSCD descriptors than there may be.
    pub const TOO_MANY_CSCDS: Sense = Sense::of(0x5, 0x2606);
    /// A CSCD descriptor of a kind that is not known.
    pub const UNSUPPORTED_CSCD: Sense = Sense::of(0x5, 0x2607);
    /// More segment descriptors than there may be.
    pub const TOO_MANY_SEGMENTS: Sense = Sense::of(0x5, 0x2608);
    /// A segment descriptor of a kind that is not known.
    pub const UNSUPPORTED_SEGMENT: Sense = Sense::of(0x5, 0x2609);
    /// More inline data than there may be.
    pub const INLINE_TOO_LONG: Sense = Sense::of(0x5, 0x260b);
    /// A unit that is to be copied from or to is not within reach.
    pub const COPY_UNREACHABLE: Sense = Sense::of(0xa, 0x0d02);
    /// Blocks that are to be copied are not there.
    pub const COPY_ABORTED: Sense = Sense::of(0xa, 0x0000);
    /// A unit that is copied from or to has failed, or cannot do its part.
    pub const COPY_FAILED: Sense = Sense::of(0xa, 0x0d01);

    /// A copy with this list identifier is under way.
    pub const OPERATION_IN_PROGRESS: Sense = Sense::of(0x5, 0x0016);
    /// Everything on the disk is being destroyed.
    pub const SANITIZING: Sense = Sense::of(0x2, 0x041b);
    /// Not everything that was to be destroyed is.
    pub const SANITIZE_FAILED: Sense = Sense::of(0x3, 0x3103);

    const fn of(key: u8, code: u16) -> Sense {
        Sense {
            key,
            code,
            information: None,
            field: None,
            progress: None,
            format: Format::Fixed,
        }
    }

    /// The same, pointing at a byte of the command block.
    pub(super) fn at(self, byte: u16) -> Sense {
        self.pointing(Place::Cdb, byte)
    }

    /// The same, pointing at a byte of the parameter list.
    pub(super) fn in_parameter(self, byte: u16) -> Sense {
        self.pointing(Place::Parameters, byte)
    }

    /// The same, pointing at a bit of the byte.
    pub(super) fn bit(self, bit: u8) -> Sense {
        let field = self.field.map(|field| Field {
            bit: Some(bit & 0x07),
            ..field
        });
        Sense { field, ..self }
    }

    fn pointing(self, place: Place, byte: u16) -> Sense {
        Sense {
            field: Some(Field {
                place,
                byte,
                bit: None,
            }),
            ..self
        }
    }

    /// The same, written down in this format.
    pub(super) fn in_format(self, format: Format) -> Sense {
        Sense { format, ..self }
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

    /// The bytes, in the format that was asked for.
    pub fn emit(&self) -> Vec<u8> {
        match self.format {
            Format::Fixed => self.fixed(),
            Format::Descriptor => self.descriptors(),
        }
    }

    /// Fixed format (SPC-4 §4.5.3).
    fn fixed(&self) -> Vec<u8> {
        let [asc, ascq] = self.code.to_be_bytes();
        // VALID is 0 where the information does not fit (SPC-4 §4.5.3).
        let information = self.information.and_then(|i| u32::try_from(i).ok());
        let valid = if information.is_some() { 0x80 } else { 0 };
        let mut data = vec![0x70 | valid, 0, self.key];
        data.extend(information.unwrap_or(0).to_be_bytes());
        data.extend([FIXED_LEN - 8, 0, 0, 0, 0, asc, ascq, 0]);
        data.extend(self.specific());
        data
    }

    /// Descriptor format (SPC-4 §4.5.2), with the descriptors that there is something to say in.
    fn descriptors(&self) -> Vec<u8> {
        let [asc, ascq] = self.code.to_be_bytes();
        let mut list = Vec::new();
        if let Some(information) = self.information {
            // Information, with VALID (§4.5.2.2).
            list.extend([0x00, 0x0a, 0x80, 0]);
            list.extend(information.to_be_bytes());
        }
        if self.field.is_some() || self.progress.is_some() {
            // Sense key specific (§4.5.2.4).
            list.extend([0x02, 0x06, 0, 0]);
            list.extend(self.specific());
            list.push(0);
        }
        let mut data = vec![0x72, self.key, asc, ascq, 0, 0, 0, list.len() as u8];
        data.extend(list);
        data
    }

    /// SENSE KEY SPECIFIC: SKSV, and C/D, BPV, BIT POINTER and FIELD POINTER (SPC-4 §4.5.2.4.2) or
    /// PROGRESS INDICATION (§4.5.2.4.4).
    fn specific(&self) -> [u8; 3] {
        if let Some(progress) = self.progress {
            let [high, low] = progress.to_be_bytes();
            return [0x80, high, low];
        }
        let Some(field) = self.field else {
            return [0; 3];
        };
        let place = match field.place {
            Place::Cdb => 0xc0,
            Place::Parameters => 0x80,
        };
        let bit = field.bit.map_or(0, |bit| 0x08 | bit);
        let [high, low] = field.byte.to_be_bytes();
        [place | bit, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_at_fault_is_told_to_the_bit_in_both_formats() {
        let sense = Sense::INVALID_FIELD.at(0x0102).bit(3);
        assert_eq!(
            sense.emit(),
            [
                0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcb, 1, 2
            ]
        );
        let sense = Sense::INVALID_PARAMETER
            .in_parameter(7)
            .in_format(Format::Descriptor);
        assert_eq!(
            sense.emit(),
            [0x72, 5, 0x26, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 0, 7, 0]
        );
    }

    #[test]
    fn information_beyond_32_bits_is_told_where_there_is_room_for_it() {
        let far = Sense {
            information: Some(1 << 40),
            ..Sense::READ_ERROR
        };
        assert_eq!(far.emit()[..7], [0x70, 0, 3, 0, 0, 0, 0]);
        let far = far.in_format(Format::Descriptor).emit();
        assert_eq!(far[..12], [0x72, 3, 0x11, 0, 0, 0, 0, 12, 0, 10, 0x80, 0]);
        assert_eq!(far[12..], (1u64 << 40).to_be_bytes());
        let near = Sense {
            information: Some(0x1234),
            ..Sense::READ_ERROR
        };
        assert_eq!(near.emit()[..7], [0xf0, 0, 3, 0, 0, 0x12, 0x34]);
    }
}
