//! Can clients reach this server? What would keep them out is said when it starts, not found out
//! by a machine that hangs at boot.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;

use super::firewall::Firewall;
use crate::library::Config;
use crate::library::config::SecretsOver;

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

/// Why clients are given nothing that is theirs alone, where that goes only over what nobody listens for.
pub(super) fn withheld(secrets: SecretsOver, tls: &[SocketAddr]) -> Option<&'static str> {
    (secrets == SecretsOver::Https && tls.is_empty()).then_some(
        "[boot] secrets = \"https\" in netroot.toml, and the boot service has no certificate or no \
         tls_listen: clients that prove a secret cannot boot, and none has an identity",
    )
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
    let own = interfaces().into_iter().map(|(_, own)| own.ip());
    own.filter(|ip| ip.is_ipv4() && !ip.is_loopback() && !is_of_one_link(*ip))
        .collect()
}

/// The addresses of this host by which a system finds it whose firmware reached it at `local`, best first.
pub(super) fn known_as(local: SocketAddr) -> Vec<IpAddr> {
    let ip = local.ip().to_canonical();
    let mut known = match ip {
        IpAddr::V4(_) => vec![ip],
        IpAddr::V6(_) => beside(local, &interfaces()),
    };
    if known.is_empty() {
        known.extend(own_address());
    }
    known
}

/// What the interface has that has `local`. IPv4 comes first: it is what systems set up, whichever their
/// firmware came by. What counts on one link only is left out, as they number their links otherwise.
fn beside(local: SocketAddr, interfaces: &[(String, SocketAddr)]) -> Vec<IpAddr> {
    // Interfaces may have the same address of a link: those of one card do, for instance.
    let scope = |at: &SocketAddr| match at {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(at) => at.scope_id(),
    };
    let is_it = |own: &SocketAddr| own.ip() == local.ip() && scope(own) == scope(&local);
    let Some((name, _)) = interfaces.iter().find(|(_, own)| is_it(own)) else {
        return Vec::new();
    };
    let there = interfaces.iter().filter(|(of, _)| of == name);
    let mut known: Vec<IpAddr> = there
        .map(|(_, own)| own.ip())
        .filter(|ip| !is_of_one_link(*ip) && (!ip.is_loopback() || local.ip().is_loopback()))
        .collect();
    known.sort_by_key(|ip| (ip.is_ipv6(), *ip != local.ip()));
    known
}

fn is_of_one_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The addresses of this host, each with the name of its interface.
fn interfaces() -> Vec<(String, SocketAddr)> {
    let all = getifaddrs().into_iter().flatten();
    let own = all.filter_map(|one| {
        let address = one.address?;
        let v4 = address
            .as_sockaddr_in()
            .map(|at| SocketAddr::V4((*at).into()));
        let v6 = address
            .as_sockaddr_in6()
            .map(|at| SocketAddr::V6((*at).into()));
        Some((one.interface_name, v4.or(v6)?))
    });
    own.collect()
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
    fn systems_find_this_host_by_ipv4_on_the_network_that_their_firmware_came_by() {
        let interfaces: Vec<(String, SocketAddr)> = [
            ("lo", "127.0.0.1:0"),
            ("lo", "[2001:db8::1]:0"),
            ("eth0", "192.0.2.1:0"),
            ("eth1", "[2001:db8:1::2]:0"),
            ("eth1", "[2001:db8:1::1]:0"),
            ("eth1", "169.254.7.7:0"),
            ("eth1", "198.51.100.1:0"),
            ("eth1", "[fe80::1%3]:0"),
            ("eth2", "[fe80::1%4]:0"),
            ("eth2", "[2001:db8:2::1]:0"),
            ("eth3", "[fe80::3%5]:0"),
        ]
        .map(|(name, at)| (name.to_owned(), at.parse().unwrap()))
        .into();
        let beside = |local: &str| -> Vec<String> {
            let found = beside(local.parse().unwrap(), &interfaces).into_iter();
            found.map(|ip| ip.to_string()).collect()
        };
        let dual = ["198.51.100.1", "2001:db8:1::1", "2001:db8:1::2"];
        assert_eq!(beside("[2001:db8:1::1]:8080"), dual);
        assert_eq!(
            beside("[fe80::1%3]:8080"),
            ["198.51.100.1", "2001:db8:1::2", "2001:db8:1::1"]
        );
        assert_eq!(beside("[fe80::1%4]:8080"), ["2001:db8:2::1"]);
        assert!(beside("[fe80::3%5]:8080").is_empty());
        // An address of its own that is on no network.
        assert_eq!(beside("[2001:db8::1]:8080"), ["2001:db8::1"]);
        let mapped = "[::ffff:192.0.2.9]:8080".parse().unwrap();
        assert_eq!(known_as(mapped), ["192.0.2.9".parse::<IpAddr>().unwrap()]);
    }

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
