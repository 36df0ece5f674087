//! Sizes of disks and shares of them, as people give them.

use std::fmt;
use std::str::FromStr;

use super::names::{NameError, serde_as_text};
use super::wanted::SizeSpec;

/// A number of bytes, in whole pieces of 4 KiB: `20G` is 20 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

serde_as_text!(ByteSize, "^([1-9][0-9]{0,3}[KMGTP]|[1-9][0-9]{0,15})$");

/// What file systems and initiators write at once.
const PIECE: u64 = 4096;

impl ByteSize {
    /// This many bytes, rounded up to whole pieces.
    pub fn new(bytes: u64) -> Self {
        ByteSize(bytes.saturating_add(PIECE - 1) / PIECE * PIECE)
    }

    /// The number.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// So much, or the word that there is none, whatever others say: `20G`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SizeOrNone {
    /// So many bytes.
    Size(ByteSize),
    /// None.
    None,
}

serde_as_text!(
    SizeOrNone,
    "^([1-9][0-9]{0,3}[KMGTP]|[1-9][0-9]{0,15}|none)$"
);

impl SizeOrNone {
    /// How much, where there is any.
    pub fn size(self) -> Option<ByteSize> {
        match self {
            SizeOrNone::Size(size) => Some(size),
            SizeOrNone::None => None,
        }
    }
}

impl FromStr for SizeOrNone {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "none" => Ok(SizeOrNone::None),
            text => text.parse().map(SizeOrNone::Size).map_err(|_: NameError| {
                NameError::new(text, "a size in bytes, such as 20G or 512M, or `none`")
            }),
        }
    }
}

impl fmt::Display for SizeOrNone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeOrNone::Size(size) => size.fmt(f),
            SizeOrNone::None => f.pad("none"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(SizeSpec::Bytes(bytes)) => Ok(ByteSize::new(bytes)),
            _ => Err(NameError::new(text, "a size in bytes, such as 20G or 512M")),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(char, u32); 5] = [('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)];
        let whole = UNITS.iter().find(|(_, shift)| {
            let unit = 1_u64 << shift;
            self.0.is_multiple_of(unit) && (1..=9999).contains(&(self.0 >> shift))
        });
        match whole {
            Some((letter, shift)) => f.pad(&format!("{}{letter}", self.0 >> shift)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_as_a_person_would_and_read_again() {
        for (text, bytes, written) in [
            ("20G", 20 << 30, "20G"),
            ("1024M", 1 << 30, "1G"),
            ("9999T", 9999 << 40, "9999T"),
            ("1", 4096, "4K"),
            ("40001536", 40_001_536, "40001536"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string()), (bytes, written.into()));
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
            let or_none: SizeOrNone = text.parse().unwrap();
            assert_eq!(
                (or_none.size(), or_none.to_string()),
                (Some(size), written.into())
            );
        }
        let none: SizeOrNone = "none".parse().unwrap();
        assert_eq!((none.size(), none.to_string()), (None, "none".into()));
        for wrong in ["", "0", "2x", "-1", "1.5G", "20 G", "20Q"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
            assert!(wrong.parse::<SizeOrNone>().is_err(), "{wrong}");
        }
    }
}
