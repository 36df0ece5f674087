//! NOP, Logout, Reject and Asynchronous Message (RFC 7143 §11.9, §11.14 to §11.19).

use super::bytes::{Reader, Writer, request};
use super::{Bhs, Error, Numbers, Serial, Tag};

/// A ping from the initiator, or its answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopOut {
    /// Not queued behind the command window.
    pub immediate: bool,
    /// The unit, given back.
    pub lun: [u8; 8],
    /// [`Tag::NONE`] where no answer is wanted.
    pub itt: Tag,
    /// Of the ping that this answers.
    pub ttt: Tag,
    /// Number of this command.
    pub cmd_sn: Serial,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
}

impl NopOut {
    const OPCODE: u8 = 0x00;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let first = r.u8()?;
        r.take::<7>()?;
        Ok(NopOut {
            immediate: first & 0x40 != 0,
            lun: r.take()?,
            itt: r.tag()?,
            ttt: r.tag()?,
            cmd_sn: r.serial()?,
            exp_stat_sn: r.serial()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(request(Self::OPCODE, self.immediate))
            .u8(0x80)
            .zeros(2)
            .lengths()
            .bytes(&self.lun)
            .tag(self.itt)
            .tag(self.ttt)
            .serial(self.cmd_sn)
            .serial(self.exp_stat_sn)
            .done()
    }
}

/// The answer to a ping, or a ping of the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopIn {
    /// The unit, given back.
    pub lun: [u8; 8],
    /// Of the ping that this answers; [`Tag::NONE`] in the target's own.
    pub itt: Tag,
    /// What the initiator's answer names; [`Tag::NONE`] where none is wanted.
    pub ttt: Tag,
    /// Sequence numbers.
    pub numbers: Numbers,
}

impl NopIn {
    const OPCODE: u8 = 0x20;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        r.take::<8>()?;
        Ok(NopIn {
            lun: r.take()?,
            itt: r.tag()?,
            ttt: r.tag()?,
            numbers: r.numbers()?,
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
            .done()
    }
}

/// The initiator leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutRequest {
    /// Not queued behind the command window.
    pub immediate: bool,
    /// 0 the session, 1 the connection, 2 the connection for recovery.
    pub reason: u8,
    /// Initiator task tag.
    pub itt: Tag,
    /// The connection.
    pub cid: u16,
    /// Number of this command.
    pub cmd_sn: Serial,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
}

impl LogoutRequest {
    const OPCODE: u8 = 0x06;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [first, reason] = r.take()?;
        r.take::<14>()?;
        let (itt, cid) = (r.tag()?, r.be16()?);
        r.take::<2>()?;
        Ok(LogoutRequest {
            immediate: first & 0x40 != 0,
            reason: reason & 0x7f,
            itt,
            cid,
            cmd_sn: r.serial()?,
            exp_stat_sn: r.serial()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(request(Self::OPCODE, self.immediate))
            .u8(0x80 | self.reason)
            .zeros(2)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .be16(self.cid)
            .zeros(2)
            .serial(self.cmd_sn)
            .serial(self.exp_stat_sn)
            .done()
    }
}

/// The initiator may leave. Time2Wait and Time2Retain are 0 at error recovery level 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutResponse {
    /// 0 done, 1 no such connection, 2 no recovery here.
    pub response: u8,
    /// Initiator task tag.
    pub itt: Tag,
    /// Sequence numbers.
    pub numbers: Numbers,
}

impl LogoutResponse {
    const OPCODE: u8 = 0x26;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, _, response] = r.take()?;
        r.take::<13>()?;
        let itt = r.tag()?;
        r.take::<4>()?;
        Ok(LogoutResponse {
            response,
            itt,
            numbers: r.numbers()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(0x80)
            .u8(self.response)
            .u8(0)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .zeros(4)
            .numbers(self.numbers)
            .done()
    }
}

/// The target does not take a PDU, whose header is in the data segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// See the constants.
    pub reason: u8,
    /// Sequence numbers.
    pub numbers: Numbers,
}

impl Reject {
    const OPCODE: u8 = 0x3f;
    /// The digest of the data is wrong.
    pub const DATA_DIGEST: u8 = 0x02;
    /// SNACK at error recovery level 0.
    pub const SNACK: u8 = 0x03;
    /// Something that cannot be at this time.
    pub const PROTOCOL_ERROR: u8 = 0x04;
    /// A PDU that is not known.
    pub const NOT_SUPPORTED: u8 = 0x05;
    /// There is no room for another command.
    pub const TOO_MANY_IMMEDIATE: u8 = 0x06;
    /// A task with this tag is on its way already.
    pub const TASK_IN_PROGRESS: u8 = 0x07;
    /// A field that cannot be.
    pub const INVALID_FIELD: u8 = 0x09;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, _, reason] = r.take()?;
        r.take::<21>()?;
        Ok(Reject {
            reason,
            numbers: r.numbers()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(0x80)
            .u8(self.reason)
            .u8(0)
            .lengths()
            .zeros(8)
            .tag(Tag::NONE)
            .zeros(4)
            .numbers(self.numbers)
            .done()
    }
}

/// Something happens that the initiator did not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncMessage {
    /// See the constants.
    pub event: u8,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Seconds, or other details of the event.
    pub parameters: [u16; 3],
}

impl AsyncMessage {
    const OPCODE: u8 = 0x32;
    /// The initiator shall log out, within as many seconds as the third parameter says.
    pub const LOGOUT: u8 = 1;
    /// The target is about to drop the session.
    pub const DROPPED: u8 = 3;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        r.take::<24>()?;
        let numbers = r.numbers()?;
        let [event, _] = r.take()?;
        Ok(AsyncMessage {
            event,
            numbers,
            parameters: [r.be16()?, r.be16()?, r.be16()?],
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        let [one, two, three] = self.parameters;
        Writer::new(Self::OPCODE)
            .u8(0x80)
            .zeros(2)
            .lengths()
            .zeros(8)
            .tag(Tag::NONE)
            .zeros(4)
            .numbers(self.numbers)
            .u8(self.event)
            .u8(0)
            .be16(one)
            .be16(two)
            .be16(three)
            .done()
    }
}
