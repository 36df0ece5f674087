//! Can clients reach this server? What would keep them out is said when it starts, not found out
//! by a machine that hangs at boot.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;

use super::firewall::Firewall;
use crate::library::Config;

/// What clients must be able to reach.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// `iSCSI` or `boot service`.
    pub what: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

/// One sentence for each thing that would keep clients out.
pub(super) fn warnings(doors: &[Door], announced: &[SocketAddr]) -> Vec<String> {
    let mut warnings: Vec<String> = doors.iter().filter_map(loopback_only).collect();
    let not_here = announced.iter().filter(|address| !is_own(address.ip()));
    warnings.extend(not_here.map(|address| {
        format!(
            "{address} is announced to clients and is no address of this host that others can reach: \
             right only if something forwards it here; else change [iscsi] announce"
        )
    }));
    if let Some(firewall) = Firewall::read() {
        let doors = doors.iter().filter(|door| !door.address.ip().is_loopback());
        let blocked = doors.filter(|door| firewall.blocks(door.address.port()));
        warnings.extend(blocked.map(|door| {
            let port = door.address.port();
            format!(
                "the firewall seems to drop TCP port {port} ({}): allow it",
                door.what
            )
        }));
    }
    warnings
}

/// Whether other machines may know this host by `ip`: only what an interface has can be bound.
fn is_own(ip: IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && std::net::UdpSocket::bind((ip, 0)).is_ok()
}

fn loopback_only(door: &Door) -> Option<String> {
    let ip = door.address.ip();
    ip.is_loopback().then(|| {
        format!(
            "{} listens on {} only: no other machine can reach it",
            door.what, ip
        )
    })
}

/// The address by which other machines would know this one: the source of packets that leave it.
/// Nothing is sent.
pub fn own_address() -> Option<IpAddr> {
    let probe = |bind: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    // Documentation addresses (RFC 5737, RFC 3849): routed like any other, owned by nobody.
    probe("0.0.0.0:0", "192.0.2.1:9").or_else(|| probe("[::]:0", "[2001:db8::1]:9"))
}

/// The IPv4 addresses of this host by which other machines may know it: one on each network that it is on.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    // Without them there is still the one above.
    let all = getifaddrs().into_iter().flatten();
    let own = all.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip()));
    own.filter(|ip| !ip.is_loopback() && !ip.is_link_local())
        .map(IpAddr::V4)
        .collect()
}

/// Where a browser finds the dashboard of a server with this configuration; nothing if it has none.
pub fn admin_url(config: &Config) -> Option<String> {
    let address = config.admin.listen.first()?;
    let scheme = match config.admin.tls {
        Some(_) => "https",
        None => "http",
    };
    let port = address.port();
    let at = |ip| SocketAddr::new(ip, port).to_string();
    Some(match (address.ip(), config.admin.names.first()) {
        (ip, _) if ip.is_loopback() => format!("{scheme}://{}", at(ip)),
        (_, Some(name)) => format!("{scheme}://{name}:{port}"),
        (ip, None) if ip.is_unspecified() => {
            format!("{scheme}://{}", at(own_address().unwrap_or(ip)))
        }
        (ip, None) => format!("{scheme}://{}", at(ip)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_on_loopback_is_warned_about() {
        let door = Door {
            what: "iSCSI",
            address: "127.0.0.1:3260".parse().unwrap(),
        };
        assert!(loopback_only(&door).unwrap().contains("127.0.0.1 only"));
        let told = warnings(&[], &["0.0.0.0:3260".parse().unwrap()]);
        assert!(
            told.iter().any(|line| line.contains("announce")),
            "{told:?}"
        );
    }
}
