//! `netroot.toml`: written by people, read strictly. A mistake is told with its line and key.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::names::{KernelArg, NameError, serde_as_text};

/// The configuration of a library, as one server sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    format: Format,
    /// The name of the host that the library was made on.
    pub host: HostName,
    /// What the names of all targets and initiators begin with.
    pub iqn_prefix: IqnPrefix,
    /// How versions are kept.
    #[serde(default)]
    pub images: Images,
    /// The target.
    #[serde(default)]
    pub iscsi: Iscsi,
    /// The boot service.
    #[serde(default)]
    pub boot: Boot,
    /// Dashboard and API.
    #[serde(default)]
    pub admin: Admin,
}

/// How versions are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Make sealed files immutable (`chattr +i`) where the file system can.
    pub immutable: bool,
}

/// The target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Iscsi {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What SendTargets and boot.cfg name; empty: the address that a connection came in on.
    pub announce: Vec<Announce>,
    /// Where the disk of an image or a clone stands.
    pub lun: DiskLun,
}

/// The boot service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Name servers for clients; empty: what DHCP says.
    pub nameservers: Vec<IpAddr>,
    /// Kernel arguments of all clients.
    pub kernel_args: Vec<KernelArg>,
    /// Where iPXE's binaries are found.
    pub ipxe_dir: PathBuf,
}

/// Dashboard and API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
}

/// The settings that one server may have of its own, in the file that `--config` names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Override {
    iscsi: IscsiOverride,
    boot: ListenOverride,
    admin: ListenOverride,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IscsiOverride {
    listen: Option<Vec<SocketAddr>>,
    announce: Option<Vec<Announce>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenOverride {
    listen: Option<Vec<SocketAddr>>,
}

impl Default for Images {
    fn default() -> Self {
        Images { immutable: true }
    }
}

impl Default for Iscsi {
    fn default() -> Self {
        Iscsi {
            listen: vec![everywhere(ISCSI_PORT)],
            announce: Vec::new(),
            lun: DiskLun(1),
        }
    }
}

impl Default for Boot {
    fn default() -> Self {
        Boot {
            listen: vec![everywhere(8080)],
            nameservers: Vec::new(),
            kernel_args: Vec::new(),
            ipxe_dir: PathBuf::from("/usr/lib/ipxe"),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8081))],
        }
    }
}

/// The port of iSCSI, RFC 7143 §13.8.
pub const ISCSI_PORT: u16 = 3260;

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

/// A mistake in `netroot.toml`.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {key}{message}", file = file.display(), key = key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key with its table, such as `iscsi.lun`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl Config {
    /// Reads the text of `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| located(file, text, &error))
    }

    /// Takes this server's own settings from the text of `file`.
    pub fn override_from(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let own: Override = toml::from_str(text).map_err(|error| located(file, text, &error))?;
        fn take<T>(into: &mut T, own: Option<T>) {
            if let Some(own) = own {
                *into = own;
            }
        }
        take(&mut self.iscsi.listen, own.iscsi.listen);
        take(&mut self.iscsi.announce, own.iscsi.announce);
        take(&mut self.boot.listen, own.boot.listen);
        take(&mut self.admin.listen, own.admin.listen);
        Ok(())
    }

    /// The commented file that a new library gets.
    pub fn template(host: &HostName, prefix: &IqnPrefix, immutable: bool) -> String {
        let text = include_str!("netroot.toml.in");
        text.replace("@HOST@", host.as_str())
            .replace("@IQN_PREFIX@", prefix.as_str())
            .replace("@IMMUTABLE@", if immutable { "true" } else { "false" })
    }
}

/// Says where in the file a mistake is, as a person finds it: line and key.
fn located(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().unwrap_or(Range { start: 0, end: 0 }).start;
    let before = text.get(..at).unwrap_or(text);
    ConfigError {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        key: key_at(text, before.matches('\n').count()),
        message: error.message().replace('\n', ", "),
    }
}

/// The key that is set in the given line (from 0), or in the array that began above it.
fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line + 1).collect();
    let key = lines.iter().rev().find_map(|line| {
        let (key, _) = line.split_once('=')?;
        let key = key.trim();
        (!key.is_empty() && !key.contains([' ', '#', '"'])).then_some(key)
    });
    let table = lines.iter().rev().find_map(|line| {
        let inner = line.trim().strip_prefix('[')?.split(']').next()?;
        (!inner.is_empty()
            && inner
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .then_some(inner)
    });
    // A mistake in a table's header is about the table, not about the last key before it.
    if lines
        .last()
        .is_some_and(|line| line.trim().starts_with('['))
    {
        return table.map(str::to_owned);
    }
    match (table, key) {
        (Some(table), Some(key)) => Some(format!("{table}.{key}")),
        (None, Some(key)) => Some(key.to_owned()),
        (_, None) => None,
    }
}

/// `format = 1`; a newer one is refused, because what it means is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "i64")]
struct Format;

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
pub struct DiskLun(u16);

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

/// The name of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

serde_as_text!(HostName);

impl HostName {
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

    fn example() -> String {
        let host: HostName = "server-01.example.edu".parse().unwrap();
        Config::template(&host, &IqnPrefix::of(&host, 2026, 1), true)
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("netroot.toml"), text)
    }

    #[test]
    fn what_init_writes_is_the_default() {
        let config = parse(&example()).unwrap();
        assert_eq!(
            config.iqn_prefix.as_str(),
            "iqn.2026-01.edu.example.server-01"
        );
        assert_eq!(config.iscsi, Iscsi::default());
        assert_eq!(config.boot, Boot::default());
        assert_eq!(config.admin, Admin::default());
        assert_eq!(config.images, Images::default());
    }

    #[test]
    fn mistakes_are_told_with_line_and_key() {
        let check = |from: &str, to: &str, key: &str| {
            let text = example().replace(from, to);
            assert_ne!(text, example(), "{from}");
            let line = text.lines().position(|line| line.contains(to)).unwrap() + 1;
            let error = parse(&text).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert_eq!(error.key.as_deref(), Some(key), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("netroot.toml:{line}: `{key}`: "))
            );
        };
        check("lun = 1", "lun = 0", "iscsi.lun");
        check("lun = 1", "lun = \"one\"", "iscsi.lun");
        check("lun = 1", "luns = 1", "iscsi.luns");
        check("format = 1", "format = 2", "format");
        check(
            "nameservers = []",
            "nameservers = [\"one\"]",
            "boot.nameservers",
        );
        check(
            "kernel_args = []",
            "kernel_args = [\"a b\"]",
            "boot.kernel_args",
        );
        check("[\"[::]:3260\"]", "[\"3260\"]", "iscsi.listen");
        check(
            "announce = []",
            "announce = [\"0.0.0.0\"]",
            "iscsi.announce",
        );
        check("[admin]", "[adnim]", "adnim");
    }

    #[test]
    fn a_mistake_in_an_array_of_several_lines() {
        let text = example().replace(
            "nameservers = []",
            "nameservers = [\n  \"192.0.2.91\",\n  \"x\",\n]",
        );
        let error = parse(&text).unwrap_err();
        assert_eq!(error.key.as_deref(), Some("boot.nameservers"));
        assert!(
            text.lines().nth(error.line - 1).unwrap().contains("\"x\""),
            "{error}"
        );
    }

    #[test]
    fn a_server_overrides_what_is_its_own_and_nothing_else() {
        let mut config = parse(&example()).unwrap();
        let own = Path::new("own.toml");
        config
            .override_from(
                own,
                "[iscsi]\nannounce = [\"192.0.2.1\", \"[2001:db8::1]:3261\"]\n",
            )
            .unwrap();
        let announced: Vec<String> = config
            .iscsi
            .announce
            .iter()
            .map(|a| a.to_string())
            .collect();
        assert_eq!(announced, ["192.0.2.1:3260", "[2001:db8::1]:3261"]);
        let error = config.override_from(own, "[iscsi]\nlun = 2\n").unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (2, Some("iscsi.lun")));
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
