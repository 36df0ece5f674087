//! Taking numbers out of bytes, and putting them in, in network order.

use super::{BHS_LEN, Bhs, Error, Numbers, Serial, Tag};

/// Takes bytes from the front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads a basic header segment: no less is ever enough for one.
    pub(super) fn header(bytes: &'a [u8]) -> Result<Self, Error> {
        bytes.get(..BHS_LEN).map(Reader).ok_or(Error::Truncated)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        self.take::<1>().map(u8::from_be_bytes)
    }

    pub(super) fn be16(&mut self) -> Result<u16, Error> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn be32(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn tag(&mut self) -> Result<Tag, Error> {
        self.be32().map(Tag)
    }

    pub(super) fn serial(&mut self) -> Result<Serial, Error> {
        self.be32().map(Serial)
    }

    pub(super) fn numbers(&mut self) -> Result<Numbers, Error> {
        Ok(Numbers {
            stat_sn: self.serial()?,
            exp_cmd_sn: self.serial()?,
            max_cmd_sn: self.serial()?,
        })
    }
}

/// Puts bytes into a basic header segment, from the front.
pub(super) struct Writer {
    bhs: Bhs,
    at: usize,
}

impl Writer {
    pub(super) fn new(opcode: u8) -> Self {
        Writer {
            bhs: [0; BHS_LEN],
            at: 0,
        }
        .bytes(&[opcode])
    }

    /// More than fits is left out; the formats are constants that fit.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        for (to, from) in self.bhs.iter_mut().skip(self.at).zip(bytes) {
            *to = *from;
        }
        self.at += bytes.len();
        self
    }

    pub(super) fn zeros(mut self, n: usize) -> Self {
        self.at += n;
        self
    }

    /// TotalAHSLength and DataSegmentLength, which framing fills in.
    pub(super) fn lengths(self) -> Self {
        self.zeros(4)
    }

    pub(super) fn u8(self, n: u8) -> Self {
        self.bytes(&[n])
    }

    pub(super) fn be16(self, n: u16) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(super) fn be32(self, n: u32) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(super) fn tag(self, tag: Tag) -> Self {
        self.be32(tag.0)
    }

    pub(super) fn serial(self, serial: Serial) -> Self {
        self.be32(serial.0)
    }

    pub(super) fn numbers(self, numbers: Numbers) -> Self {
        self.serial(numbers.stat_sn)
            .serial(numbers.exp_cmd_sn)
            .serial(numbers.max_cmd_sn)
    }

    pub(super) fn done(self) -> Bhs {
        self.bhs
    }
}

/// `mask` if `set`.
pub(super) fn flag(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}

/// The first byte of a request.
pub(super) fn request(opcode: u8, immediate: bool) -> u8 {
    opcode | flag(immediate, 0x40)
}
