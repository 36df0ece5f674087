//! Values of `netroot.toml` that are more than text and numbers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::ISCSI_PORT;
use crate::library::Allow;
use crate::library::names::{NameError, serde_as_text};

/// `format = 1`; a newer one is refused, because what it means is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Format;

impl TryFrom<i64> for Format {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match number {
            1 => Ok(Format),
            newer if newer > 1 => Err(format!(
                "this library has format {newer}, made by a newer netroot; this one knows format 1"
            )),
            wrong => Err(format!("there is no format {wrong}; it is 1")),
        }
    }
}

/// Where the disk of an image or a clone stands. LUN 0 is the storage array controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct DiskLun(pub(super) u16);

impl DiskLun {
    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for DiskLun {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        // Peripheral device addressing (SAM-5 4.7.3) reaches 255, and is what firmware sends.
        match u16::try_from(number) {
            Ok(lun @ 1..=255) => Ok(DiskLun(lun)),
            _ => Err(format!(
                "{number} is not a LUN from 1 to 255 (LUN 0 is the storage array controller)"
            )),
        }
    }
}

/// A path that means the same wherever the server is started.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        match path.is_absolute() && path.components().all(plain) {
            true => Ok(AbsolutePath(path)),
            false => Err(format!(
                "{} is no absolute path without `..`",
                path.display()
            )),
        }
    }
}

/// An address that is announced to clients, with or without a port: `192.0.2.1`, `[2001:db8::1]:3261`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce(SocketAddr);

serde_as_text!(Announce);

impl Announce {
    /// Address and port.
    pub fn address(&self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Announce {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        let address = text
            .parse::<SocketAddr>()
            .or_else(|_| {
                bare.parse()
                    .map(|ip: IpAddr| SocketAddr::new(ip, ISCSI_PORT))
            })
            .map_err(|_| {
                NameError::new(
                    text,
                    "an address with or without a port, such as 192.0.2.1 or [2001:db8::1]:3260",
                )
            })?;
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            return Err(NameError::new(
                text,
                "an address that a client can connect to",
            ));
        }
        Ok(Announce(address))
    }
}

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of addresses: `10.1.0.0/16`, `2001:db8::/64`, `192.0.2.7`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange(Allow);

impl AddressRange {
    /// Whether an address is in it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.lets_in("", address)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        match text.parse() {
            Ok(range @ Allow::Range(..)) => Ok(AddressRange(range)),
            _ => Err(NameError::new(
                &text,
                "a range of addresses, such as 10.1.0.0/16 or 2001:db8::/64",
            )),
        }
    }
}

/// The name of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

serde_as_text!(
    HostName,
    r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
);

impl HostName {
    /// The name of this host, if it has a usable one.
    pub fn here() -> Option<Self> {
        nix::unistd::gethostname().ok()?.to_str()?.parse().ok()
    }

    /// The name as text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        // Leaves room in a name of 223 bytes (RFC 7143 §4.2.7.1) for client and boot id.
        if text.len() > 120 || !text.split('.').all(label) {
            return Err(NameError::new(
                text,
                "the name of a host, such as server-01.example.edu",
            ));
        }
        Ok(HostName(text.to_ascii_lowercase()))
    }
}

/// What the names of all targets begin with: `iqn.2026-01.edu.example.server-01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IqnPrefix(String);

serde_as_text!(IqnPrefix);

impl IqnPrefix {
    /// Made from a host's name and this month.
    pub fn here(host: &HostName) -> Self {
        let today = jiff::Zoned::now();
        Self::of(host, today.year(), today.month())
    }

    /// Made from a host's name and the month in which the library is made.
    pub fn of(host: &HostName, year: i16, month: i8) -> Self {
        let reversed: Vec<&str> = host.as_str().rsplit('.').collect();
        IqnPrefix(format!("iqn.{year:04}-{month:02}.{}", reversed.join(".")))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IqnPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for IqnPrefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // RFC 7143 §4.2.7.2; names without a date, as the described system has them, are accepted.
        let rest = text.strip_prefix("iqn.").unwrap_or_default();
        let fits = text.len() <= 140
            && !rest.is_empty()
            && !rest.ends_with(['.', '-'])
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        if !fits {
            return Err(NameError::new(
                text,
                "the beginning of an iSCSI name: `iqn.`, then a to z, 0 to 9, `.` and `-`, such as iqn.2026-01.edu.example.server-01",
            ));
        }
        Ok(IqnPrefix(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_ranges_of_addresses_and_nothing_else() {
        let network = |text: &str| AddressRange::try_from(text.to_owned());
        let rooms = network("10.1.0.0/16").unwrap();
        assert!(rooms.has("10.1.255.7".parse().unwrap()));
        assert!(!rooms.has("10.2.0.1".parse().unwrap()));
        for wrong in ["any", "iqn.a:b", "10.1.0.0/33", ""] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_hosts() {
        assert_eq!(
            "Server-01.Example.EDU"
                .parse::<HostName>()
                .unwrap()
                .as_str(),
            "server-01.example.edu"
        );
        for bad in ["", "a..b", "-a", "a_b", "a b", "a@b"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert!("iqn.edu.example.server-01".parse::<IqnPrefix>().is_ok());
        for bad in [
            "",
            "iqn.",
            "eui.02004567A425678D",
            "iqn.a:b",
            "iqn.A",
            "iqn.a@b",
        ] {
            assert!(bad.parse::<IqnPrefix>().is_err(), "{bad}");
        }
    }
}
