//! What a machine that boots from the network is told beside the addresses that its own DHCP server gives
//! it: which loader to fetch, and from where (a ProxyDHCP server, PXE specification 2.1 §2.2).
//!
//! [`Query`] is what a packet asks, [`Query::answer`] what is said to it; who may be answered, and where
//! to, is told by [`Query::receiver`]. [`dnsmasq`] and [`kea`] say the same in the words of DHCP servers
//! that a site keeps.

mod answer;
mod query;
mod servers;

pub use answer::{Door, Found, Receiver};
pub use query::{Ignored, Query};
pub use servers::{dnsmasq, kea};

/// Where DHCP servers are asked (RFC 2131 §4.1).
pub const SERVER_PORT: u16 = 67;

/// Where clients without an address listen (RFC 2131 §4.1).
pub const CLIENT_PORT: u16 = 68;

/// Where machines that have their address ask once more what to boot (PXE 2.1 §2.2.3).
pub const BOOT_PORT: u16 = 4011;

/// The class of a machine that boots by PXE, and of who answers it (PXE 2.1 §2.2.1).
const PXE_CLIENT: &[u8] = b"PXEClient";

/// The class of one that boots by UEFI HTTP boot (UEFI 2.10 §24.7.2).
const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// The user class of iPXE (RFC 3004; iPXE says it in every request).
const IPXE: &[u8] = b"iPXE";

/// Encapsulated options of iPXE, which nobody else sends.
const IPXE_OPTIONS: u8 = 175;

#[cfg(test)]
pub(crate) mod tests;
