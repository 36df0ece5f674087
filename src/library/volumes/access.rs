//! Who may have a volume: initiators by their names, addresses by their ranges.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::library::names::{NameError, serde_as_text};

/// One entry of a volume's access list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allow {
    /// Everybody who reaches the target.
    Any,
    /// An initiator's name in lower case, or with a trailing `*` what names begin with.
    Name(String),
    /// A range of addresses: the first one, and how many bits of it count.
    Range(IpAddr, u8),
}

serde_as_text!(Allow, PATTERN);

/// What is taken, for programs: names in ASCII, and addresses as they are written most often.
const PATTERN: &str = concat!(
    r"^(any|(iqn|eui|naa)\.[A-Za-z0-9.:_@+=%-]{0,200}\*?",
    r"|((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    r"(/(3[0-2]|[12]?[0-9]))?",
    r"|(([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,6}(:[0-9a-f]{1,4}|:)|::([0-9a-f]{1,4})?",
    r"|([0-9a-f]{1,4}:){1,5}(:[0-9a-f]{1,4}){2}|([0-9a-f]{1,4}:){1,4}(:[0-9a-f]{1,4}){3}",
    r"|([0-9a-f]{1,4}:){1,3}(:[0-9a-f]{1,4}){4}|([0-9a-f]{1,4}:){1,2}(:[0-9a-f]{1,4}){5})",
    r"(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$"
);

const WANTED: &str = "whom a volume may be for: an initiator's name (iqn.2026-01.edu.example:node-1, \
    or with * at its end), an address range (192.0.2.0/24, 2001:db8::/64, 192.0.2.7), or any";

impl Allow {
    fn is_name(&self) -> bool {
        matches!(self, Allow::Name(_))
    }

    fn is_range(&self) -> bool {
        matches!(self, Allow::Range(..))
    }

    /// Whether it fits somebody.
    pub(crate) fn lets_in(&self, initiator: &str, peer: IpAddr) -> bool {
        match self {
            Allow::Any => true,
            Allow::Name(name) => match name.strip_suffix('*') {
                Some(beginning) => initiator.starts_with(beginning),
                None => initiator == name,
            },
            Allow::Range(first, bits) => within(*first, *bits, peer.to_canonical()),
        }
    }
}

/// Whether a list lets somebody in. Where it has both names and ranges, one of each kind must fit; an
/// empty list lets nobody in.
pub(super) fn lets_in(list: &[Allow], initiator: &str, peer: IpAddr) -> bool {
    let kind = |is_one: fn(&Allow) -> bool| {
        let mut of_kind = list.iter().filter(|allow| is_one(allow)).peekable();
        of_kind.peek().is_none() || of_kind.any(|allow| allow.lets_in(initiator, peer))
    };
    !list.is_empty()
        && (list.contains(&Allow::Any) || kind(Allow::is_name) && kind(Allow::is_range))
}

fn within(first: IpAddr, bits: u8, address: IpAddr) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let host = width.saturating_sub(u32::from(bits));
        // A shift by the whole width is none: every address is in a range of 0 bits.
        (a ^ b).checked_shr(host).unwrap_or(0) == 0
    };
    match (first, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allow::Any => f.write_str("any"),
            Allow::Name(name) => f.write_str(name),
            Allow::Range(first, bits) => write!(f, "{first}/{bits}"),
        }
    }
}

impl FromStr for Allow {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new(text, WANTED);
        if text == "any" {
            return Ok(Allow::Any);
        }
        // RFC 7143 §4.2.7.2: names are compared without regard to case.
        let name = text.to_lowercase();
        if ["iqn.", "eui.", "naa."]
            .iter()
            .any(|kind| name.starts_with(kind))
        {
            let body = name.strip_suffix('*').unwrap_or(&name);
            let fits = |c: char| c.is_alphanumeric() || "-.:_@+=%".contains(c);
            return match body.len() <= 223 && body.chars().all(fits) {
                true => Ok(Allow::Name(name)),
                false => Err(wrong()),
            };
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if given.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        // IPv4 peers of an IPv6 socket are known as IPv4: a range of mapped ones is one of those.
        let (first, bits, width) = match given.to_canonical() {
            v4 @ IpAddr::V4(_) if given.is_ipv6() => {
                (v4, bits.checked_sub(96).ok_or_else(wrong)?, 32)
            }
            other => (other, bits, width),
        };
        match bits <= width {
            true => Ok(Allow::Range(first, bits)),
            false => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<Allow> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn names_and_ranges_both_have_to_fit() {
        let may = |texts: &[&str], name: &str, peer: &str| {
            lets_in(&list(texts), name, peer.parse().unwrap())
        };
        assert!(!may(&[], "iqn.a:b", "192.0.2.1"));
        assert!(may(&["any"], "iqn.a:b", "192.0.2.1"));
        assert!(may(&["IQN.a:B"], "iqn.a:b", "192.0.2.1"));
        assert!(!may(&["iqn.a:b"], "iqn.a:bc", "192.0.2.1"));
        assert!(may(&["iqn.a:*"], "iqn.a:bc", "192.0.2.1"));
        assert!(may(&["192.0.2.0/24"], "iqn.x", "192.0.2.255"));
        assert!(!may(&["192.0.2.0/24"], "iqn.x", "192.0.3.0"));
        assert!(may(&["192.0.2.0/24"], "iqn.x", "::ffff:192.0.2.9"));
        assert!(may(&["::ffff:192.0.2.0/120"], "iqn.x", "192.0.2.9"));
        assert!(!may(&["0.0.0.0/0"], "iqn.x", "2001:db8::1"));
        assert!(may(&["0.0.0.0/0", "::/0"], "iqn.x", "2001:db8::1"));
        let both = ["iqn.a:b", "192.0.2.1", "192.0.2.2"];
        assert!(may(&both, "iqn.a:b", "192.0.2.2"));
        assert!(!may(&both, "iqn.a:b", "192.0.2.3"));
        assert!(!may(&both, "iqn.a:c", "192.0.2.2"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for wrong in [
            "",
            "*",
            "all",
            "192.0.2.0/33",
            "::/129",
            "::ffff:192.0.2.0/24",
            "iqn.a b",
            "1.2.3",
        ] {
            assert!(wrong.parse::<Allow>().is_err(), "{wrong}");
        }
        assert_eq!(
            list(&["2001:db8::/64"]).first().unwrap().to_string(),
            "2001:db8::/64"
        );
    }
}
