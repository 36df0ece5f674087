//! What clients are told before they have iPXE: DHCP, TFTP and the loaders.

use std::net::SocketAddr;

use serde::Deserialize;

use super::AbsolutePath;

/// What is said over DHCP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dhcp {
    /// Whether anything is.
    pub mode: DhcpMode,
    /// On which interfaces; empty: on all but loopback.
    pub interfaces: Vec<InterfaceName>,
}

/// Whether DHCP clients are answered. Addresses are never given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DhcpMode {
    /// Nobody is.
    #[default]
    Off,
    /// Machines that boot from the network are told what to boot, beside the DHCP server that gives them
    /// their addresses.
    Proxy,
    /// The same, where that DHCP server runs on this host and has its port: it names the class PXEClient, and
    /// machines ask this one on a port of its own.
    #[serde(rename = "proxy-4011")]
    Proxy4011,
}

/// Loaders over TFTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tftp {
    /// Where it listens; empty: on port 69 where DHCP clients are answered, else nowhere.
    pub listen: Vec<SocketAddr>,
}

/// Loaders that are given, each in place of what the directory of iPXE's binaries has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LoaderFiles {
    /// For a BIOS.
    pub bios: Option<AbsolutePath>,
    /// For UEFI of 32 bits.
    pub efi_ia32: Option<AbsolutePath>,
    /// For UEFI on x86-64.
    pub efi_x64: Option<AbsolutePath>,
    /// For UEFI on 64-bit Arm.
    pub efi_arm64: Option<AbsolutePath>,
}

/// The name of a network interface, as Linux takes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        // netdevice(7): IFNAMSIZ is 16, with the end.
        let fits = (1..16).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"/:".contains(&b));
        match fits {
            true => Ok(InterfaceName(name)),
            false => Err(format!(
                "{name:?} is no name of a network interface, such as eth0"
            )),
        }
    }
}
