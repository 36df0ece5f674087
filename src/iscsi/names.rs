//! Names of initiators and targets, and of their sessions.

use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes (RFC 7143 §4.2.7.1).
const MAX_LEN: usize = 223;

/// The name of an initiator or of a target, such as `iqn.2026-01.edu.example:fc28`, in lower case.
///
/// `iqn.` names without a date are taken too, because sites have them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IscsiName(String);

/// Why some text is no iSCSI name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Longer than 223 bytes.
    #[error("longer than {MAX_LEN} bytes")]
    TooLong,
    /// It begins with none of the known types.
    #[error("does not begin with iqn., eui. or naa.")]
    Type,
    /// A character that cannot be in a name.
    #[error("holds {0:?}, which cannot be in an iSCSI name")]
    Character(char),
}

impl IscsiName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IscsiName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > MAX_LEN {
            return Err(InvalidName::TooLong);
        }
        // RFC 7143 §4.2.7.2 folds case; it is the reason that names can be compared as bytes.
        let name = text.to_lowercase();
        if name.len() > MAX_LEN {
            return Err(InvalidName::TooLong);
        }
        let known = ["iqn.", "eui.", "naa."];
        if !known
            .iter()
            .any(|t| name.starts_with(t) && name.len() > t.len())
        {
            return Err(InvalidName::Type);
        }
        // Firmware puts host names into its name, underscores and all; what cannot be told apart in
        // a list, a path or a log line stays out.
        let fits = |c: char| c.is_alphanumeric() || "-.:_@+=%".contains(c);
        match name.chars().find(|&c| !fits(c)) {
            Some(c) => Err(InvalidName::Character(c)),
            None => Ok(IscsiName(name)),
        }
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The initiator's part of a session's identifier (RFC 7143 §11.12.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isid(pub [u8; 6]);

impl fmt::Display for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_a_date_are_taken_in_lower_case() {
        for (text, name) in [
            (
                "iqn.edu.example.server-01:fc28",
                "iqn.edu.example.server-01:fc28",
            ),
            ("IQN.2026-01.Edu.Example:X", "iqn.2026-01.edu.example:x"),
            (
                "iqn.2010-04.org.ipxe:my_host",
                "iqn.2010-04.org.ipxe:my_host",
            ),
            ("naa.52004567BA64678D", "naa.52004567ba64678d"),
        ] {
            assert_eq!(text.parse::<IscsiName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("iqn.{}", "a".repeat(220));
        for (text, error) in [
            ("", InvalidName::Type),
            ("iqn.", InvalidName::Type),
            ("fc28", InvalidName::Type),
            ("iqn.a b", InvalidName::Character(' ')),
            ("iqn.../../x", InvalidName::Character('/')),
            ("iqn.a\u{7f}", InvalidName::Character('\u{7f}')),
            (long.as_str(), InvalidName::TooLong),
        ] {
            assert_eq!(text.parse::<IscsiName>().unwrap_err(), error, "{text:?}");
        }
    }
}
