//! How long canaries have.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;

use super::STAY;
use crate::library::names::{NameError, serde_as_text};

/// How long canaries have to boot, to log in and to stay: `10m`, `2h`, `3d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Within {
    minutes: u32,
}

serde_as_text!(
    Within,
    "^(([3-9]|[1-9][0-9]{1,3})m|([1-9][0-9]?|[1-6][0-9]{2}|7[0-3][0-9]|74[0-4])h|([1-9]|[12][0-9]|3[01])d)$"
);

/// More than a month is forgotten, not waited for.
const LONGEST: u32 = 31 * 24 * 60;

impl Within {
    /// As a time.
    pub fn duration(self) -> SignedDuration {
        SignedDuration::from_mins(self.minutes.into())
    }
}

impl Default for Within {
    fn default() -> Self {
        Within { minutes: 30 }
    }
}

impl FromStr for Within {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (number, unit) = match text.split_at_checked(text.len().saturating_sub(1)) {
            Some((number, "m")) => (number, 1),
            Some((number, "h")) => (number, 60),
            Some((number, "d")) => (number, 24 * 60),
            _ => ("", 0),
        };
        let number = number
            .parse()
            .ok()
            .filter(|parsed: &u32| parsed.to_string() == number);
        number
            .and_then(|number| number.checked_mul(unit))
            .map(|minutes| Within { minutes })
            .filter(|within| within.duration() > STAY && within.minutes <= LONGEST)
            .ok_or_else(|| {
                NameError::new(
                    text,
                    "a time such as 10m, 2h or 3d: longer than the 2 minutes that a canary has to \
                     stay, 31d at most",
                )
            })
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minutes {
            minutes if minutes % (24 * 60) == 0 => write!(f, "{}d", minutes / (24 * 60)),
            minutes if minutes % 60 == 0 => write!(f, "{}h", minutes / 60),
            minutes => write!(f, "{minutes}m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_longer_than_a_canary_has_to_stay() {
        for (text, minutes) in [("3m", 3), ("10m", 10), ("2h", 120), ("31d", LONGEST)] {
            let within: Within = text.parse().unwrap();
            assert_eq!(within.minutes, minutes);
            assert_eq!(within.to_string(), text);
        }
        for bad in [
            "",
            "m",
            "2m",
            "0h",
            "10",
            "10s",
            "-3m",
            "+3m",
            "03m",
            "32d",
            "9999999999m",
            "ä",
        ] {
            assert!(bad.parse::<Within>().is_err(), "{bad}");
        }
    }
}
