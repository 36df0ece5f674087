//! Identifiers of file systems, and the date that makes builds come out the same.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use sha2::{Digest, Sha256};

/// The date that a build claims, in place of the clock's: whoever builds the same tree with the
/// same date gets the same disk, where the file system can do that.
///
/// In seconds since 1970, as <https://reproducible-builds.org/specs/source-date-epoch/> has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceDate(pub u32);

/// A date that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a date: give the seconds since 1970, such as 1700000000")]
pub struct WrongDate(String);

impl FromStr for SourceDate {
    type Err = WrongDate;

    fn from_str(text: &str) -> Result<Self, WrongDate> {
        match text.parse() {
            // 0 means `not set` to e2fsprogs.
            Ok(seconds) if seconds > 0 => Ok(Self(seconds)),
            _ => Err(WrongDate(text.to_owned())),
        }
    }
}

impl fmt::Display for SourceDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An identifier that nobody else has; with a date, the one of that image and date.
pub(crate) fn identifier(image: &str, date: Option<SourceDate>) -> Result<String> {
    let mut bytes = [0u8; 16];
    match date {
        None => getrandom::fill(&mut bytes)
            .map_err(|e| anyhow::anyhow!("drawing an identifier: {e}"))?,
        Some(date) => bytes
            .iter_mut()
            .zip(Sha256::digest(format!("netroot|{image}|{date}")))
            .for_each(|(to, from)| *to = from),
    }
    // RFC 9562: version 4 (§5.4) is drawn, version 8 (§5.8) is whatever its maker says.
    let version = if date.is_none() { 0x4 } else { 0x8 };
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | (version << 76);
    let number = number & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_drawn_or_derived() {
        let drawn = identifier("fc28", None).unwrap();
        assert_eq!(drawn.len(), 36);
        assert_eq!(drawn.chars().nth(14), Some('4'));
        assert!("89ab".contains(drawn.chars().nth(19).unwrap()));
        assert_ne!(drawn, identifier("fc28", None).unwrap());
        let of = |image, date| identifier(image, Some(SourceDate(date))).unwrap();
        assert_eq!(of("fc28", 1), of("fc28", 1));
        assert_ne!(of("fc28", 1), of("fc29", 1));
        assert_ne!(of("fc28", 1), of("fc28", 2));
        assert_eq!(of("fc28", 1).chars().nth(14), Some('8'));
    }

    #[test]
    fn a_date_is_a_number_of_seconds() {
        assert_eq!("1700000000".parse(), Ok(SourceDate(1_700_000_000)));
        for wrong in ["", "0", "-1", "2023-11-14", "99999999999"] {
            assert!(wrong.parse::<SourceDate>().is_err(), "{wrong}");
        }
    }
}
