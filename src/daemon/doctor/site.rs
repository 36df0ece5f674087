//! The library, the dashboard's certificate, and clients that would not boot.

use std::io;

use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::Finding;
use super::certificate::ends;
use crate::library::config::ServerTls;
use crate::library::{ClientView, Config, Library, OwnEsp};

/// Less room than this is told of.
const ROOM: u64 = 10 << 30;
/// A certificate that ends so soon is told of.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Room for versions and for what clients write.
pub(super) fn room(library: &Library) -> Option<Finding> {
    let found = statvfs(library.root()).ok()?;
    // Their types differ from architecture to architecture.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(found.blocks_available()).saturating_mul(found.fragment_size().into());
    Some(judged(free))
}

fn judged(free: u64) -> Finding {
    let shown = format!("{} GiB are free on its file system", free >> 30);
    match free < ROOM {
        false => Finding::good("library", shown),
        true => Finding::hint(
            "library",
            format!(
                "{shown}: clones grow as clients write, and stop with an error when nothing is left"
            ),
            "netroot image prune, client reset, or a larger disk",
        ),
    }
}

/// Whether clones share what they have in common with their version.
pub(super) fn sharing(shares: io::Result<bool>) -> Finding {
    match shares {
        Ok(true) => Finding::good("library", "clones are reflinks: made in a moment"),
        Ok(false) => Finding::hint(
            "library",
            "its file system has no reflinks: clones are overlays, and upgrades copy whole images",
            "put the library on XFS or btrfs",
        ),
        Err(error) => Finding::hint(
            "library",
            format!("whether its file system has reflinks cannot be tried: {error}"),
            "ask as the library's owner, or as root",
        ),
    }
}

/// Until when the dashboard's certificate holds, where somebody gave one. One that the server made it
/// makes anew in time.
pub(super) fn certificate(config: &Config, now: Timestamp) -> Option<Finding> {
    let Some(ServerTls::Given(given)) = &config.admin.tls else {
        return None;
    };
    let file = given.certificate.display();
    let read = CertificateDer::from_pem_file(&given.certificate);
    let Ok(certificate) = read else {
        return Some(Finding::bad(
            "dashboard",
            format!("{file} has no certificate that can be read: the server would not start"),
            "see [admin] tls in netroot.toml",
        ));
    };
    let Some(until) = ends(&certificate) else {
        return Some(Finding::hint(
            "dashboard",
            format!("until when the certificate {file} holds cannot be told"),
            "openssl x509 -in FILE -noout -enddate",
        ));
    };
    let day = until.strftime("%Y-%m-%d");
    Some(match now {
        now if now >= until => Finding::bad(
            "dashboard",
            format!("the certificate {file} has ended on {day}: browsers refuse it"),
            "renew it, and start the server anew",
        ),
        now if now.duration_until(until) < SOON => Finding::hint(
            "dashboard",
            format!("the certificate {file} ends on {day}"),
            "renew it, and start the server anew",
        ),
        _ => Finding::good(
            "dashboard",
            format!("the certificate {file} holds until {day}"),
        ),
    })
}

/// Clients for which there would be nothing to boot.
pub(super) fn boots(library: &Library) -> Vec<Finding> {
    let clients = match library.clients() {
        Ok(clients) => clients,
        Err(error) => {
            return vec![Finding::bad(
                "clients",
                error.to_string(),
                "see to its documents",
            )];
        }
    };
    let mut found = Vec::new();
    for client in &clients {
        if let Err(why) = library.issue_boot(client) {
            found.push(Finding::bad(
                "clients",
                format!("{} would not boot: {why}", client.name),
                format!("netroot client show {}", client.name),
            ));
        }
    }
    if found.is_empty() {
        let count = clients.len();
        found.push(Finding::good(
            "clients",
            format!("{count} known, each with something to boot"),
        ));
    }
    found
}

/// Clients whose own partition has another kernel than the one that they boot next.
pub(super) fn partitions(seen: Option<&[ClientView]>) -> Vec<Finding> {
    let stale = |view: &&ClientView| view.esp == Some(OwnEsp::Stale);
    let seen = seen.unwrap_or_default().iter().filter(stale);
    let told = seen.map(|view| {
        let name = &view.client.name;
        Finding::hint(
            "clients",
            format!("the ESP of {name} has not the kernel of the version that it boots next"),
            format!("netroot esp export DIR --client {name}"),
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn little_room_is_told() {
        assert_eq!(judged(ROOM).verdict, Verdict::Good);
        assert_eq!(judged(ROOM - 1).verdict, Verdict::Hint);
        assert!(sharing(Ok(false)).found.contains("overlays"));
    }
}
