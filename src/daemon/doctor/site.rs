//! The library, certificates, and clients that would not boot.

use std::io;

use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::Finding;
use super::certificate::ends;
use crate::daemon::Doors;
use crate::daemon::reach::withheld;
use crate::library::config::{Given, ServerTls};
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

/// Until when the certificates hold that somebody gave. One that the server made it makes anew in time.
pub(super) fn certificates(config: &Config, now: Timestamp) -> Vec<Finding> {
    let doors = [
        (
            "dashboard",
            "[admin] tls",
            "browsers refuse it",
            &config.admin.tls,
        ),
        (
            "boot service",
            "[boot] tls",
            "iPXE refuses it",
            &config.boot.tls,
        ),
    ];
    let of = |(about, key, refused, tls): (_, _, _, &Option<ServerTls>)| match tls {
        Some(ServerTls::Given(given)) => Some(certificate((about, key, refused), given, now)),
        Some(ServerTls::Made(_)) | None => None,
    };
    doors.into_iter().filter_map(of).collect()
}

/// Until when a certificate holds: what it is for, the key that names it, and who would miss it.
fn certificate(
    (about, key, refused): (&'static str, &str, &str),
    given: &Given,
    now: Timestamp,
) -> Finding {
    let file = given.certificate.display();
    let read = CertificateDer::from_pem_file(&given.certificate);
    let Ok(certificate) = read else {
        return Finding::bad(
            about,
            format!("{file} has no certificate that can be read: the server would not start"),
            format!("see {key} in netroot.toml"),
        );
    };
    let Some(until) = ends(&certificate) else {
        return Finding::hint(
            about,
            format!("until when the certificate {file} holds cannot be told"),
            "openssl x509 -in FILE -noout -enddate",
        );
    };
    let day = until.strftime("%Y-%m-%d");
    let anew = "renew it, and start the server anew";
    match now {
        now if now >= until => Finding::bad(
            about,
            format!("the certificate {file} has ended on {day}: {refused}"),
            anew,
        ),
        now if now.duration_until(until) < SOON => {
            Finding::hint(about, format!("the certificate {file} ends on {day}"), anew)
        }
        _ => Finding::good(about, format!("the certificate {file} holds until {day}")),
    }
}

/// Whether clients could be given what is theirs alone.
pub(super) fn secrets(config: &Config) -> Option<Finding> {
    let why = withheld(config.boot.secrets, &Doors::configured(config).boot_tls)?;
    let remedy = "set [boot] tls and tls_listen in netroot.toml";
    Some(Finding::bad("boot service", why, remedy))
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
    use crate::library::config::{Made, SecretsOver};
    use crate::library::{HostName, IqnPrefix};

    /// As it is when a library is made.
    fn config() -> Config {
        let host: HostName = "server-01.example.edu".parse().unwrap();
        let text = Config::template(&host, &IqnPrefix::of(&host, 2026, 1), true);
        Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap()
    }

    #[test]
    fn the_end_of_each_doors_certificate_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let given = |name: &str, year| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params =
                rcgen::CertificateParams::new(vec![String::from("a.example")]).unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 4, 5);
            let certificate = dir.path().join(name);
            std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
            Some(ServerTls::Given(Given {
                key: certificate.clone(),
                certificate,
            }))
        };
        let mut config = config();
        let now = "2026-03-20T00:00:00Z".parse().unwrap();
        let found = |config: &Config| -> Vec<(&str, Verdict, String)> {
            let all = certificates(config, now).into_iter();
            all.map(|one| (one.about, one.verdict, one.found)).collect()
        };
        assert!(found(&config).is_empty());
        config.admin.tls = given("admin.pem", 2031);
        config.boot.tls = given("boot.pem", 2025);
        let told = found(&config);
        let [
            ("dashboard", Verdict::Good, _),
            ("boot service", Verdict::Bad, ended),
        ] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert!(
            ended.contains("boot.pem has ended on 2025-04-05: iPXE"),
            "{ended}"
        );
        config.boot.tls = given("boot.pem", 2026);
        assert_eq!(found(&config)[1].1, Verdict::Hint);
        std::fs::write(dir.path().join("boot.pem"), "none").unwrap();
        assert_eq!(found(&config)[1].1, Verdict::Bad);
    }

    #[test]
    fn secrets_that_nobody_can_be_given_are_told() {
        let mut config = config();
        assert_eq!(secrets(&config), None);
        config.boot.secrets = SecretsOver::Https;
        assert_eq!(secrets(&config).unwrap().verdict, Verdict::Bad);
        config.boot.tls = Some(ServerTls::Made(Made::Made));
        assert_eq!(secrets(&config), None);
        config.boot.tls_listen.clear();
        assert_eq!(secrets(&config).unwrap().verdict, Verdict::Bad);
    }

    #[test]
    fn little_room_is_told() {
        assert_eq!(judged(ROOM).verdict, Verdict::Good);
        assert_eq!(judged(ROOM - 1).verdict, Verdict::Hint);
        assert!(sharing(Ok(false)).found.contains("overlays"));
    }
}
