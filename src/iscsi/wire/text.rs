//! Text Request and Text Response (RFC 7143 §11.10, §11.11).

use super::bytes::{Reader, Writer, flag, request};
use super::{Bhs, Error, Numbers, Serial, Tag};

/// A part of a text exchange, from the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRequest {
    /// Not queued behind the command window.
    pub immediate: bool,
    /// The initiator has said all.
    pub last: bool,
    /// The pairs go on in the next PDU.
    pub more: bool,
    /// Initiator task tag.
    pub itt: Tag,
    /// What the target gave, or [`Tag::NONE`] at the start of an exchange.
    pub ttt: Tag,
    /// Number of this command.
    pub cmd_sn: Serial,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
}

impl TextRequest {
    const OPCODE: u8 = 0x04;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [first, flags] = r.take()?;
        r.take::<14>()?;
        Ok(TextRequest {
            immediate: first & 0x40 != 0,
            last: flags & 0x80 != 0,
            more: flags & 0x40 != 0,
            itt: r.tag()?,
            ttt: r.tag()?,
            cmd_sn: r.serial()?,
            exp_stat_sn: r.serial()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(request(Self::OPCODE, self.immediate))
            .u8(flag(self.last, 0x80) | flag(self.more, 0x40))
            .zeros(2)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .tag(self.ttt)
            .serial(self.cmd_sn)
            .serial(self.exp_stat_sn)
            .done()
    }
}

/// A part of a text exchange, from the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextResponse {
    /// The exchange is over.
    pub last: bool,
    /// The pairs go on in the next PDU.
    pub more: bool,
    /// Initiator task tag.
    pub itt: Tag,
    /// To be given back, or [`Tag::NONE`] when the exchange is over.
    pub ttt: Tag,
    /// Sequence numbers.
    pub numbers: Numbers,
}

impl TextResponse {
    const OPCODE: u8 = 0x24;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, flags] = r.take()?;
        r.take::<14>()?;
        Ok(TextResponse {
            last: flags & 0x80 != 0,
            more: flags & 0x40 != 0,
            itt: r.tag()?,
            ttt: r.tag()?,
            numbers: r.numbers()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(flag(self.last, 0x80) | flag(self.more, 0x40))
            .zeros(2)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .tag(self.ttt)
            .numbers(self.numbers)
            .done()
    }
}
