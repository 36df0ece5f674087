//! Hardware addresses, the identity of clients.

use std::fmt;
use std::str::FromStr;

use super::names::{NameError, serde_as_text};

/// The hardware address of a client's network interface.
///
/// It is read from `52:54:00:12:34:56`, `52-54-00-12-34-56` or `525400123456`, in either case, and
/// shown with colons and lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

serde_as_text!(
    MacAddr,
    "^(?!00:00:00:00:00:00)[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"
);

const WANTED: &str = "the hardware address of one interface, such as 52:54:00:12:34:56";

impl MacAddr {
    /// The address of an interface that sends these bytes.
    pub fn new(bytes: [u8; 6]) -> Result<Self, NameError> {
        let mac = MacAddr(bytes);
        // IEEE 802-2014 8.2.2: the lowest bit of the first byte marks group addresses. All zeros is
        // what firmware reports when it has no address at all.
        let [first, ..] = bytes;
        if first & 1 == 1 || bytes == [0; 6] {
            return Err(NameError::new(&mac.to_string(), WANTED));
        }
        Ok(mac)
    }

    /// Its bytes, in the order in which they are sent.
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }

    /// Twelve hex digits, as in paths, iSCSI names and targets of clones.
    pub fn bare(&self) -> String {
        self.joined("")
    }

    /// With hyphens, as iPXE's `${mac:hexhyp}` and PXELINUX write it.
    pub fn hyphens(&self) -> String {
        self.joined("-")
    }

    fn joined(&self, separator: &str) -> String {
        self.0.map(|byte| format!("{byte:02x}")).join(separator)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.joined(":"))
    }
}

impl FromStr for MacAddr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = match text.len() {
            12 if text.is_ascii() => (0..6).filter_map(|i| text.get(i * 2..i * 2 + 2)).collect(),
            17 if text.contains(':') => text.split(':').collect(),
            17 => text.split('-').collect(),
            _ => Vec::new(),
        };
        let bytes: Option<Vec<u8>> = parts.iter().map(|part| byte(part)).collect();
        bytes
            .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
            .ok_or_else(|| NameError::new(text, WANTED))
            .and_then(MacAddr::new)
    }
}

fn byte(part: &str) -> Option<u8> {
    let exact = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    exact.then(|| u8::from_str_radix(part, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_is_the_same_address() {
        let mac: MacAddr = "52:54:00:12:ab:56".parse().unwrap();
        for text in [
            "52-54-00-12-AB-56",
            "5254 0012ab56".replace(' ', "").as_str(),
            "525400 12AB56".replace(' ', "").as_str(),
        ] {
            assert_eq!(text.parse::<MacAddr>().unwrap(), mac, "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:12:ab:56");
        assert_eq!(mac.bare(), "52540012ab56");
        assert_eq!(mac.hyphens(), "52-54-00-12-ab-56");
    }

    #[test]
    fn what_is_no_address_of_one_interface_is_refused() {
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5g",
            "52:54-00:12:34:56",
            "5254001234567",
            "+2:54:00:12:34:56",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "ääääää",
            "52:54:00:12:34:56\n",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
    }
}
