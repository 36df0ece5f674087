//! How large a disk is to be.

use std::str::FromStr;

/// A size as a person gives it: a multiple of the tree, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeSpec {
    /// This many hundredths of what the tree occupies: `2x` is 200.
    Hundredths(u32),
    /// This many bytes: `20G` is 20 GiB.
    Bytes(u64),
}

/// A size that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: give a multiple of the tree such as 1.5x, or bytes such as 20G")]
pub struct WrongSize(String);

/// Letters for powers of 1024, as `truncate` and `qemu-img` take them.
const UNITS: &[(&str, u32)] = &[("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

const MIB: u64 = 1024 * 1024;

impl SizeSpec {
    /// Bytes of a disk for a tree that occupies `tree` bytes, a multiple of 1 MiB.
    pub(crate) fn of(self, tree: u64) -> u64 {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Hundredths(times) => tree.saturating_mul(u64::from(times)) / 100,
        };
        bytes.div_ceil(MIB).saturating_mul(MIB)
    }
}

impl Default for SizeSpec {
    /// Twice the tree, as the described system does it.
    fn default() -> Self {
        Self::Hundredths(200)
    }
}

impl FromStr for SizeSpec {
    type Err = WrongSize;

    fn from_str(text: &str) -> Result<Self, WrongSize> {
        let wrong = || WrongSize(text.to_owned());
        if let Some(times) = text.strip_suffix(['x', 'X']) {
            let times: f64 = times.parse().map_err(|_| wrong())?;
            // Under 1x nothing fits; beyond 1000x it is a typing mistake.
            if !(1.0..=1000.0).contains(&times) {
                return Err(wrong());
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // within the range above
            return Ok(Self::Hundredths((times * 100.0).round() as u32));
        }
        let upper = text.to_ascii_uppercase();
        let number = upper.strip_suffix('B').unwrap_or(&upper);
        let number = number.strip_suffix('I').unwrap_or(number);
        let unit = UNITS.iter().find_map(|(unit, shift)| {
            let digits = number.strip_suffix(unit)?;
            Some((digits, *shift))
        });
        let (digits, shift) = unit.unwrap_or((number, 0));
        let bytes: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = bytes.checked_mul(1 << shift).ok_or_else(wrong)?;
        if bytes == 0 {
            return Err(wrong());
        }
        Ok(Self::Bytes(bytes))
    }
}

/// Bytes for people: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        None => format!("{bytes} bytes"),
        Some((unit, shift)) => {
            #[allow(clippy::cast_precision_loss)] // one decimal is shown
            let value = bytes as f64 / (1u64 << shift) as f64;
            format!("{value:.1} {unit}iB")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_multiples_or_bytes() {
        let check = |text: &str, expected| assert_eq!(text.parse(), Ok(expected), "{text}");
        check("2x", SizeSpec::Hundredths(200));
        check("1.5x", SizeSpec::Hundredths(150));
        check("20G", SizeSpec::Bytes(20 << 30));
        check("20GiB", SizeSpec::Bytes(20 << 30));
        check("700m", SizeSpec::Bytes(700 << 20));
        check("1048576", SizeSpec::Bytes(1 << 20));
        for wrong in [
            "",
            "x",
            "0.5x",
            "-2x",
            "NaNx",
            "0",
            "20Q",
            "G",
            "1.5G",
            "99999999P",
        ] {
            assert!(wrong.parse::<SizeSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_disk_has_whole_mebibytes() {
        assert_eq!(SizeSpec::default().of(3 * MIB + 1), 7 * MIB);
        assert_eq!(SizeSpec::Bytes(5).of(0), MIB);
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human(1536 * MIB), "1.5 GiB");
        assert_eq!(human(17), "17 bytes");
    }
}
