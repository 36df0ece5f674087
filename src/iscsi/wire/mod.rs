//! PDUs as bytes (RFC 7143 §11). No I/O, no state, and nothing here can panic, whatever the bytes.
//!
//! Each format has `parse`, which gives a value without an illegal state or an [`Error`], and `emit`,
//! which gives the basic header segment. Data segments, their padding and digests are framed by the
//! connection; `emit` leaves the lengths at zero and [`set_lengths`] fills them in.

pub use self::command::{Attribute, Residual, ScsiCommand, ScsiResponse};
pub use self::data::{DataIn, DataOut, R2t};
pub use self::login::{LoginRequest, LoginResponse, Stage};
pub use self::misc::{AsyncMessage, LogoutRequest, LogoutResponse, NopIn, NopOut, Reject};
pub use self::pairs::{Pairs, pairs};
pub use self::task::{TaskRequest, TaskResponse};
pub use self::text::{TextRequest, TextResponse};

mod bytes;
mod command;
mod data;
mod login;
mod misc;
mod pairs;
mod task;
#[cfg(test)]
mod tests;
mod text;

/// Bytes of a basic header segment.
pub const BHS_LEN: usize = 48;
/// Bytes of a digest.
pub const DIGEST_LEN: usize = 4;

/// A basic header segment.
pub type Bhs = [u8; BHS_LEN];

/// Why bytes are no PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are fewer than the format has.
    #[error("it ends too early")]
    Truncated,
    /// A field has a value that the format does not allow.
    #[error("its {0} cannot be")]
    Illegal(&'static str),
}

/// What a PDU is, by the low six bits of its first byte (RFC 7143 §11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The standard's names say it.
pub enum Opcode {
    NopOut,
    ScsiCommand,
    TaskRequest,
    LoginRequest,
    TextRequest,
    DataOut,
    LogoutRequest,
    Snack,
    NopIn,
    ScsiResponse,
    TaskResponse,
    LoginResponse,
    TextResponse,
    DataIn,
    LogoutResponse,
    R2t,
    AsyncMessage,
    Reject,
    Unknown(u8),
}

/// What every header tells, whatever its opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Kind of PDU.
    pub opcode: Opcode,
    /// The I bit: it is not queued behind the command window.
    pub immediate: bool,
    /// Bytes of additional header segments.
    pub ahs_len: usize,
    /// Bytes of data, without padding.
    pub data_len: usize,
    /// Initiator task tag.
    pub itt: Tag,
}

/// An initiator or target task tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u32);

/// A sequence number, compared by serial number arithmetic (RFC 1982).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial(pub u32);

/// The three numbers in every PDU to the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Of this status, or of the next one in PDUs without status.
    pub stat_sn: Serial,
    /// The next command expected.
    pub exp_cmd_sn: Serial,
    /// The last command that would be taken.
    pub max_cmd_sn: Serial,
}

impl Tag {
    /// Stands for no tag.
    pub const NONE: Tag = Tag(0xffff_ffff);
}

impl Serial {
    /// The number `n` later.
    pub fn plus(self, n: u32) -> Serial {
        Serial(self.0.wrapping_add(n))
    }

    /// How far `other` is after this one; negative where it is before.
    pub fn distance_to(self, other: Serial) -> i32 {
        other.0.wrapping_sub(self.0) as i32
    }
}

impl Opcode {
    fn parse(byte: u8) -> Self {
        match byte & 0x3f {
            0x00 => Opcode::NopOut,
            0x01 => Opcode::ScsiCommand,
            0x02 => Opcode::TaskRequest,
            0x03 => Opcode::LoginRequest,
            0x04 => Opcode::TextRequest,
            0x05 => Opcode::DataOut,
            0x06 => Opcode::LogoutRequest,
            0x10 => Opcode::Snack,
            0x20 => Opcode::NopIn,
            0x21 => Opcode::ScsiResponse,
            0x22 => Opcode::TaskResponse,
            0x23 => Opcode::LoginResponse,
            0x24 => Opcode::TextResponse,
            0x25 => Opcode::DataIn,
            0x26 => Opcode::LogoutResponse,
            0x31 => Opcode::R2t,
            0x32 => Opcode::AsyncMessage,
            0x3f => Opcode::Reject,
            other => Opcode::Unknown(other),
        }
    }
}

impl Head {
    /// Reads what is common to all headers.
    pub fn parse(bhs: &Bhs) -> Head {
        let [first, _, _, _, ahs, d0, d1, d2, ..] = *bhs;
        let [.., i0, i1, i2, i3] = *bhs.first_chunk::<20>().unwrap_or(&[0; 20]);
        Head {
            opcode: Opcode::parse(first),
            immediate: first & 0x40 != 0,
            ahs_len: usize::from(ahs) * 4,
            data_len: u32::from_be_bytes([0, d0, d1, d2]) as usize,
            itt: Tag(u32::from_be_bytes([i0, i1, i2, i3])),
        }
    }

    /// Bytes of padding after the data segment.
    pub fn padding(&self) -> usize {
        padding(self.data_len)
    }
}

/// Bytes that fill a data segment of `len` bytes up to a multiple of four.
pub fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

/// Writes the length of the data segment into a header that has no additional segments.
pub fn set_lengths(bhs: &mut Bhs, data_len: usize) {
    let [_, d0, d1, d2] = (data_len as u32).to_be_bytes();
    let [_, _, _, _, ahs, a, b, c, ..] = bhs;
    (*ahs, *a, *b, *c) = (0, d0, d1, d2);
}
