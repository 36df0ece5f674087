//! SCSI Data-Out, Data-In and Ready To Transfer (RFC 7143 §11.7, §11.8).

use super::bytes::{Reader, Writer, flag};
use super::command::Residual;
use super::{Bhs, Error, Numbers, Serial, Tag};

/// Data for a command, from the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOut {
    /// The sequence ends here.
    pub last: bool,
    /// The unit; Windows does not set it, so it is not looked at.
    pub lun: [u8; 8],
    /// The command.
    pub itt: Tag,
    /// The R2T that asked, or [`Tag::NONE`] for unsolicited data.
    pub ttt: Tag,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
    /// Number of this PDU within its sequence.
    pub data_sn: u32,
    /// Where the data belong, in bytes from the start of the command's data.
    pub offset: u32,
}

impl DataOut {
    const OPCODE: u8 = 0x05;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, flags] = r.take()?;
        r.take::<6>()?;
        let (lun, itt, ttt) = (r.take()?, r.tag()?, r.tag()?);
        r.take::<4>()?;
        let exp_stat_sn = r.serial()?;
        r.take::<4>()?;
        Ok(DataOut {
            last: flags & 0x80 != 0,
            lun,
            itt,
            ttt,
            exp_stat_sn,
            data_sn: r.be32()?,
            offset: r.be32()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(flag(self.last, 0x80))
            .zeros(2)
            .lengths()
            .bytes(&self.lun)
            .tag(self.itt)
            .tag(self.ttt)
            .zeros(4)
            .serial(self.exp_stat_sn)
            .zeros(4)
            .be32(self.data_sn)
            .be32(self.offset)
            .done()
    }
}

/// Data of a command, for the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataIn {
    /// The sequence ends here.
    pub last: bool,
    /// Status and residual, when the command ends with this PDU.
    pub status: Option<(u8, Residual)>,
    /// The command.
    pub itt: Tag,
    /// Sequence numbers; the StatSN counts only with a status.
    pub numbers: Numbers,
    /// Number of this PDU within the command.
    pub data_sn: u32,
    /// Where the data belong, in bytes from the start of the command's data.
    pub offset: u32,
}

impl DataIn {
    const OPCODE: u8 = 0x25;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, flags, _, status] = r.take()?;
        r.take::<12>()?;
        let itt = r.tag()?;
        r.take::<4>()?;
        let (mut numbers, data_sn, offset, count) = (r.numbers()?, r.be32()?, r.be32()?, r.be32()?);
        let has_status = flags & 0x01 != 0;
        // §11.7.2: StatSN means something with a status only.
        if !has_status {
            numbers.stat_sn = Serial(0);
        }
        Ok(DataIn {
            last: flags & 0x80 != 0,
            status: if has_status {
                Some((status, Residual::parse(flags, count)?))
            } else {
                None
            },
            itt,
            numbers,
            data_sn,
            offset,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        let (status, flags, count) = match self.status {
            Some((status, residual)) => {
                let (flags, count) = residual.fields();
                (status, flags | 0x01, count)
            }
            None => (0, 0, 0),
        };
        // StatSN is reserved without a status (§11.7.3).
        let numbers = Numbers {
            stat_sn: if self.status.is_some() {
                self.numbers.stat_sn
            } else {
                Serial(0)
            },
            ..self.numbers
        };
        Writer::new(Self::OPCODE)
            .u8(flag(self.last, 0x80) | flags)
            .u8(0)
            .u8(status)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .tag(Tag::NONE)
            .numbers(numbers)
            .be32(self.data_sn)
            .be32(self.offset)
            .be32(count)
            .done()
    }
}

/// The target asks for data of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2t {
    /// The unit.
    pub lun: [u8; 8],
    /// The command.
    pub itt: Tag,
    /// Comes back in the data.
    pub ttt: Tag,
    /// Sequence numbers; the StatSN is the next one.
    pub numbers: Numbers,
    /// Number of this R2T within the command.
    pub r2t_sn: u32,
    /// First byte wanted.
    pub offset: u32,
    /// Number of bytes wanted.
    pub len: u32,
}

impl R2t {
    const OPCODE: u8 = 0x31;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        r.take::<8>()?;
        Ok(R2t {
            lun: r.take()?,
            itt: r.tag()?,
            ttt: r.tag()?,
            numbers: r.numbers()?,
            r2t_sn: r.be32()?,
            offset: r.be32()?,
            len: r.be32()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(0x80)
            .zeros(2)
            .lengths()
            .bytes(&self.lun)
            .tag(self.itt)
            .tag(self.ttt)
            .numbers(self.numbers)
            .be32(self.r2t_sn)
            .be32(self.offset)
            .be32(self.len)
            .done()
    }
}
