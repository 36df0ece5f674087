//! Which addresses are one owner's.

use std::net::{IpAddr, Ipv6Addr};

/// The network of one owner that an address is in: an IPv4 address is shared by few, and of IPv6 whoever
/// has one has 2^64 of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}
