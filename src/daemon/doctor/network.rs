//! Ports that can be had, and what stands between them and clients.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::Finding;
use crate::boot::Loaders;
use crate::daemon::reach::{self, Door};
use crate::daemon::{Doors, dhcp};
use crate::library::Config;

/// What listens where.
fn doors(config: &Config) -> Vec<Door> {
    let of = |what, list: &[SocketAddr]| {
        let doors = list.iter().map(move |&address| Door { what, address });
        doors.collect::<Vec<_>>()
    };
    let mut doors = of("iSCSI", &config.iscsi.listen);
    doors.extend(of("boot service", &config.boot.listen));
    let tls = Doors::configured(config).boot_tls;
    doors.extend(of("boot service (TLS)", &tls));
    doors
}

/// Whether the server could listen, or does.
pub(super) fn ports(
    config: &Config,
    is_serving: bool,
    bind: &dyn Fn(SocketAddr) -> io::Result<()>,
) -> Vec<Finding> {
    let admin = config.admin.listen.iter().map(|&address| Door {
        what: "dashboard",
        address,
    });
    let all = doors(config).into_iter().chain(admin);
    let of = |Door { what, address }: Door| match (is_serving, bind(address)) {
        (true, _) => Finding::good("network", format!("{what}: this library's server runs")),
        (false, Ok(())) => Finding::good("network", format!("{what}: {address} is free")),
        (false, Err(error)) => Finding::bad(
            "network",
            format!("{what}: nobody could listen on {address}: {error}"),
            format!(
                "end what has it (ss -ltnp 'sport = :{}'), or change `listen` in netroot.toml",
                address.port()
            ),
        ),
    };
    all.map(of).collect()
}

/// Whether machines that boot from the network could be told what to boot, and given it, where that is
/// asked for.
pub(super) fn netboot(
    config: &Config,
    is_serving: bool,
    bind: &dyn Fn(SocketAddr) -> io::Result<()>,
) -> Vec<Finding> {
    let doors = dhcp::doors(config.dhcp.mode);
    let mut wanted: Vec<(&str, SocketAddr)> = doors.map(|(_, at)| ("ProxyDHCP", at)).collect();
    let tftp = config.tftp_listen();
    wanted.extend(tftp.iter().map(|&address| ("TFTP", address)));
    if wanted.is_empty() {
        return Vec::new();
    }
    let missing = Loaders::new(&config.boot).warnings();
    let missing = missing.into_iter().map(|why| {
        let remedy = "install it, or see [boot] ipxe_dir and loaders in netroot.toml";
        Finding::bad("iPXE", why, remedy)
    });
    let of = |(what, address): (&str, SocketAddr)| match (is_serving, bind(address)) {
        (true, _) => Finding::good("network", format!("{what}: this library's server runs")),
        (false, Ok(())) => Finding::good("network", format!("{what}: UDP {address} is free")),
        (false, Err(error)) => Finding::bad(
            "network",
            format!("{what}: nobody could listen on UDP {address}: {error}"),
            format!(
                "end what has it (ss -lunp 'sport = :{}'), be root, or change [dhcp] mode and [tftp] \
                 listen in netroot.toml",
                address.port()
            ),
        ),
    };
    wanted.into_iter().map(of).chain(missing).collect()
}

pub(super) fn bind_udp(address: SocketAddr) -> io::Result<()> {
    UdpSocket::bind(address).map(drop)
}

pub(super) fn bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

/// What would keep clients out.
pub(super) fn reachable(config: &Config) -> Vec<Finding> {
    let announced = Doors::configured(config).announce;
    let told = reach::warnings(&doors(config), &announced);
    if told.is_empty() {
        return vec![Finding::good(
            "network",
            "nothing is seen that would keep clients from target and boot service",
        )];
    }
    let hint = |told| {
        Finding::hint(
            "network",
            told,
            "see `listen` and `announce` in netroot.toml",
        )
    };
    told.into_iter().map(hint).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::library::{HostName, IqnPrefix};

    #[test]
    fn a_port_that_somebody_has_is_bad_and_ones_own_is_not() {
        let host: HostName = "server-01.example.edu".parse().unwrap();
        let text = Config::template(&host, &IqnPrefix::of(&host, 2026, 1), true);
        let config = Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap();
        let taken = |address: SocketAddr| match address.port() {
            3260 => Err(io::ErrorKind::AddrInUse.into()),
            _ => Ok(()),
        };
        let found = ports(&config, false, &taken);
        let bad: Vec<_> = found
            .iter()
            .filter(|one| one.verdict == Verdict::Bad)
            .collect();
        assert_eq!(bad.len(), 1, "{found:?}");
        assert!(bad[0].found.contains("iSCSI") && bad[0].found.contains("[::]:3260"));
        assert!(bad[0].remedy.as_ref().unwrap().contains(":3260"));
        let dhcp = |address: SocketAddr| match address.port() {
            67 => Err(io::ErrorKind::AddrInUse.into()),
            _ => Ok(()),
        };
        assert!(
            netboot(&config, false, &dhcp).is_empty(),
            "nobody asked for it"
        );
        let text = text.replace("mode = \"off\"", "mode = \"proxy\"");
        let text = text.replace("/usr/lib/ipxe", "/nonexistent");
        let proxy = Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap();
        let found = netboot(&proxy, false, &dhcp);
        let bad = found.iter().filter(|one| one.verdict == Verdict::Bad);
        let bad: Vec<&str> = bad.map(|one| one.found.as_str()).collect();
        assert!(bad[0].contains("UDP 0.0.0.0:67"), "{bad:?}");
        assert!(
            bad[1].contains("BIOS") && bad[2].contains("UEFI"),
            "{bad:?}"
        );
        let text = text.replace("\"proxy\"", "\"proxy-4011\"");
        let beside = Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap();
        let found = netboot(&beside, false, &dhcp);
        let free = found.iter().filter(|one| one.found.contains("is free"));
        let free: Vec<&str> = free.map(|one| one.found.as_str()).collect();
        assert!(
            free.len() == 2 && free[0].contains(":4011") && free[1].contains(":69"),
            "the DHCP server has the other: {found:?}"
        );
        let text = text.replace(
            "# tls = { certificate = \"/etc/ssl/boot.pem\"",
            "tls = \"made\" # ",
        );
        let secure = Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap();
        let tls = |address: SocketAddr| match address.port() {
            8443 => Err(io::ErrorKind::AddrInUse.into()),
            _ => Ok(()),
        };
        let bad = |config: &Config| {
            let found = ports(config, false, &tls);
            found.iter().any(|one| one.verdict == Verdict::Bad)
        };
        assert!(
            bad(&secure) && !bad(&config),
            "nobody listens there without"
        );
        let own = ports(&config, true, &taken);
        assert!(
            own.iter().all(|one| one.verdict == Verdict::Good),
            "{own:?}"
        );
    }
}
