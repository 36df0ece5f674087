//! SCSI Command and SCSI Response (RFC 7143 §11.3, §11.4).

use super::bytes::{Reader, Writer, flag, request};
use super::{Bhs, Error, Numbers, Serial, Tag};

/// A command for a logical unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiCommand {
    /// Not queued behind the command window.
    pub immediate: bool,
    /// No unsolicited Data-Out follows.
    pub last: bool,
    /// Data is expected from the target.
    pub read: bool,
    /// Data goes to the target.
    pub write: bool,
    /// How it is ordered among others.
    pub attribute: Attribute,
    /// The unit, as SAM-5 writes it.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub itt: Tag,
    /// Bytes that the initiator expects to move.
    pub expected_len: u32,
    /// Number of this command.
    pub cmd_sn: Serial,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
    /// The command block.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    const OPCODE: u8 = 0x01;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let (first, flags) = (r.u8()?, r.u8()?);
        r.take::<6>()?;
        Ok(ScsiCommand {
            immediate: first & 0x40 != 0,
            last: flags & 0x80 != 0,
            read: flags & 0x40 != 0,
            write: flags & 0x20 != 0,
            attribute: Attribute::parse(flags & 0x07),
            lun: r.take()?,
            itt: r.tag()?,
            expected_len: r.be32()?,
            cmd_sn: r.serial()?,
            exp_stat_sn: r.serial()?,
            cdb: r.take()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        let flags = flag(self.last, 0x80)
            | flag(self.read, 0x40)
            | flag(self.write, 0x20)
            | self.attribute.emit();
        Writer::new(request(Self::OPCODE, self.immediate))
            .u8(flags)
            .zeros(2)
            .lengths()
            .bytes(&self.lun)
            .tag(self.itt)
            .be32(self.expected_len)
            .serial(self.cmd_sn)
            .serial(self.exp_stat_sn)
            .bytes(&self.cdb)
            .done()
    }
}

/// Task attributes (§11.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// None is given, which means [`Attribute::Simple`].
    Untagged,
    /// In any order.
    Simple,
    /// After all older ones, and before all younger ones.
    Ordered,
    /// Before all that have not begun.
    HeadOfQueue,
    /// Only while an auto contingent allegiance stands, which no unit here has.
    Aca,
    /// Reserved: 5, 6 or 7.
    Unknown(u8),
}

impl Attribute {
    fn parse(bits: u8) -> Self {
        match bits {
            0 => Attribute::Untagged,
            1 => Attribute::Simple,
            2 => Attribute::Ordered,
            3 => Attribute::HeadOfQueue,
            4 => Attribute::Aca,
            other => Attribute::Unknown(other),
        }
    }

    fn emit(self) -> u8 {
        match self {
            Attribute::Untagged => 0,
            Attribute::Simple => 1,
            Attribute::Ordered => 2,
            Attribute::HeadOfQueue => 3,
            Attribute::Aca => 4,
            Attribute::Unknown(bits) => bits & 0x07,
        }
    }
}

/// The end of a command, with its sense data in the data segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiResponse {
    /// 0: completed at target; 1: target failure.
    pub response: u8,
    /// SCSI status.
    pub status: u8,
    /// What was moved less, or would have been moved more, than expected.
    pub residual: Residual,
    /// Initiator task tag.
    pub itt: Tag,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Data-In and R2T PDUs that were sent for the command.
    pub exp_data_sn: u32,
}

/// Difference between the bytes that the initiator expected to move and those that the command moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// Exactly what was expected.
    None,
    /// This many less.
    Underflow(u32),
    /// This many more were there.
    Overflow(u32),
}

impl Residual {
    /// The difference between what was expected and what the device has or takes.
    pub fn between(expected: u64, actual: u64) -> Residual {
        let bytes = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        match expected.abs_diff(actual) {
            0 => Residual::None,
            n if actual > expected => Residual::Overflow(bytes(n)),
            n => Residual::Underflow(bytes(n)),
        }
    }

    /// The O and U bits, and the count.
    pub(super) fn fields(self) -> (u8, u32) {
        match self {
            Residual::None => (0, 0),
            Residual::Underflow(n) => (0x02, n),
            Residual::Overflow(n) => (0x04, n),
        }
    }

    pub(super) fn parse(flags: u8, count: u32) -> Result<Self, Error> {
        match flags & 0x06 {
            0x00 => Ok(Residual::None),
            0x02 => Ok(Residual::Underflow(count)),
            0x04 => Ok(Residual::Overflow(count)),
            _ => Err(Error::Illegal("residual flags")),
        }
    }
}

impl ScsiResponse {
    const OPCODE: u8 = 0x21;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, flags, response, status] = r.take()?;
        r.take::<12>()?;
        let itt = r.tag()?;
        r.take::<4>()?;
        let numbers = r.numbers()?;
        let exp_data_sn = r.be32()?;
        r.take::<4>()?;
        Ok(ScsiResponse {
            response,
            status,
            residual: Residual::parse(flags, r.be32()?)?,
            itt,
            numbers,
            exp_data_sn,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        let (flags, count) = self.residual.fields();
        Writer::new(Self::OPCODE)
            .u8(0x80 | flags)
            .u8(self.response)
            .u8(self.status)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .zeros(4)
            .numbers(self.numbers)
            .be32(self.exp_data_sn)
            .zeros(4)
            .be32(count)
            .done()
    }
}
