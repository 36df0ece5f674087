//! TLS of dashboard and API, and of the boot service: by a certificate that somebody gave, or by one that
//! the server makes for itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result, bail};
use getrandom::SysRng;
use jiff::civil::Date;
use jiff::{ToSpan, Zoned};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rsa::rand_core::UnwrapErr;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept as Handshake, TlsAcceptor};

use super::Server;
use super::http::{self, Accept};
use super::peer::{Peer, Scheme};
use super::reach::{own_address, own_addresses};
use crate::library::config::{Given, ServerTls};
use crate::library::{Config, HostName, Library};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Dashboard and API.
    Admin,
    /// The boot service.
    Boot,
}

impl Purpose {
    /// Key and certificate that the server made, in one file, so that they are never of two minds.
    fn file(self) -> &'static str {
        match self {
            Purpose::Admin => "admin.pem",
            Purpose::Boot => "boot.pem",
        }
    }

    /// The table of the configuration that tells of it.
    fn table(self) -> &'static str {
        match self {
            Purpose::Admin => "[admin]",
            Purpose::Boot => "[boot]",
        }
    }

    fn tls(self, config: &Config) -> Option<&ServerTls> {
        match self {
            Purpose::Admin => config.admin.tls.as_ref(),
            Purpose::Boot => config.boot.tls.as_ref(),
        }
    }

    fn listen(self, config: &Config) -> &[SocketAddr] {
        match self {
            Purpose::Admin => &config.admin.listen,
            Purpose::Boot => &config.boot.tls_listen,
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Purpose::Admin => "dashboard",
            Purpose::Boot => "boot service",
        })
    }
}

/// How long a certificate that the server made holds: browsers and telephones refuse those of servers
/// that claim more (CA/Browser Forum, Baseline Requirements §6.3.2).
const DAYS: i64 = 397;

/// So many days before its end another one is made.
const EARLY: i64 = 60;

/// Begins the lines before key and certificate that tell what they were made for, until when they hold,
/// and the fingerprint of who signed them, if it is another.
const FOR: &str = "for: ";
const UNTIL: &str = "until: ";
const BY: &str = "by: ";

/// Key and certificate of who signs those of the boot service. Loaders are built to trust it, so it does
/// not change with the server's names, and holds for longer than the loaders will be around.
const AUTHORITY: &str = "boot-ca.pem";
const AUTHORITY_YEARS: i64 = 20;

/// How connections are encrypted: one thing, however many listeners have it.
#[derive(Clone)]
pub(super) struct Tls {
    purpose: Purpose,
    // Held for a look or an exchange.
    shown: Arc<RwLock<Shown>>,
}

/// The certificate that is shown, and its key.
#[derive(Clone)]
struct Shown {
    acceptor: TlsAcceptor,
    fingerprint: String,
}

impl Tls {
    /// What the configuration says; nothing where it says that nothing is encrypted.
    pub(super) fn configured(library: &Library, purpose: Purpose) -> Result<Option<Self>> {
        match purpose.tls(&library.config()) {
            None => Ok(None),
            Some(tls) => Ok(Some(Self {
                purpose,
                shown: Arc::new(RwLock::new(Shown::of(library, purpose, tls)?)),
            })),
        }
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub(super) fn fingerprint(&self) -> String {
        self.read().fingerprint.clone()
    }

    /// Shows the certificate that there is by now, if it can be used: one of yours may be another, one that
    /// was made may come to its end. Connections that are open go on. Whether it is another.
    pub(super) fn renew(&self, library: &Library) -> Result<bool> {
        let config = library.config();
        // To encrypt no more takes another start.
        let Some(tls) = self.purpose.tls(&config) else {
            return Ok(false);
        };
        let now = Shown::of(library, self.purpose, tls)?;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, now);
        // What goes along with it may be another although it is not.
        Ok(before.fingerprint != shown.fingerprint)
    }

    fn read(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn of(library: &Library, purpose: Purpose, tls: &ServerTls) -> Result<Self> {
        match tls {
            ServerTls::Given(given) => Self::given(given, purpose),
            ServerTls::Made(_) => Self::made(library, purpose),
        }
    }

    fn given(given: &Given, purpose: Purpose) -> Result<Self> {
        let reading = |what: &str, path: &Path| {
            let (path, table) = (path.display(), purpose.table());
            format!("reading the {what} {path}, which {table} tls in netroot.toml names")
        };
        let chain = CertificateDer::pem_file_iter(&given.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| reading("certificate", &given.certificate))?;
        let key =
            PrivateKeyDer::from_pem_file(&given.key).with_context(|| reading("key", &given.key))?;
        Self::new(chain, key).with_context(|| {
            format!(
                "using the certificate {} with the key {}",
                given.certificate.display(),
                given.key.display()
            )
        })
    }

    fn made(library: &Library, purpose: Purpose) -> Result<Self> {
        let config = library.config();
        let names = names(&config, purpose);
        let authority = match purpose {
            Purpose::Admin => None,
            Purpose::Boot => Some(Authority::of(library)?),
        };
        let by = authority.as_ref();
        let make = || made(&config, &names, by).map_err(|error| unmade(purpose, error));
        let file = purpose.file();
        let is_good = |pem: &str| serves(pem, &names, by, &Zoned::now());
        let pem = library.renewed_secret(file, is_good, make)?;
        let read = || {
            let chain =
                CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
            Self::new(chain, PrivateKeyDer::from_pem_slice(pem.as_bytes())?)
        };
        read().with_context(|| {
            format!(
                "using the certificate that was made for the {purpose}, secrets/{file} in the library; \
                 remove that file, and another one is made"
            )
        })
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self> {
        let Some(own) = chain.first() else {
            bail!("there is no certificate in the file");
        };
        let fingerprint = fingerprint(own);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            fingerprint,
        })
    }
}

/// A listener whose connections are encrypted.
pub(super) struct TlsListener {
    /// Where connections come in.
    pub listener: TcpListener,
    /// How they are encrypted.
    pub tls: Tls,
}

impl Accept for TlsListener {
    type Stream = TlsStream<TcpStream>;
    type Opening = Handshake<TcpStream>;

    async fn next(&self) -> io::Result<(Self::Opening, Peer)> {
        let (stream, mut peer) = http::accept(&self.listener).await?;
        if let Peer::Network { over, .. } = &mut peer {
            *over = Scheme::Https;
        }
        let acceptor = self.tls.read().acceptor.clone();
        Ok((acceptor.accept(stream), peer))
    }
}

impl Server {
    /// Whose certificates are renewed from now on.
    pub(super) fn keep_certificates(&self, of: Vec<Tls>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = of;
    }

    /// Shows the certificates that there are by now. One that cannot be used leaves the one before, and is
    /// warned of. Blocks.
    pub(super) fn renew_certificates(&self) -> Vec<String> {
        let all = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let renew = |tls: &Tls| match tls.renew(&self.library) {
            Ok(false) => None,
            Ok(true) => {
                let (purpose, now) = (tls.purpose, tls.fingerprint());
                tracing::info!(%purpose, now, "another certificate is shown from now on");
                None
            }
            Err(error) => Some(format!(
                "the {} goes on with the certificate that it had: {error:#}",
                tls.purpose
            )),
        };
        all.iter().filter_map(renew).collect()
    }
}

/// The fingerprint of the certificate that the server made for its dashboard, if it has made one.
pub fn made_fingerprint(library: &Library) -> Option<String> {
    let made = matches!(library.config().admin.tls, Some(ServerTls::Made(_)));
    let pem = library
        .find_secret(Purpose::Admin.file())
        .ok()
        .flatten()
        .filter(|_| made)?;
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(fingerprint(&certificate))
}

fn fingerprint(certificate: &CertificateDer) -> String {
    let hash = Sha256::digest(certificate);
    let pairs: Vec<String> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn unmade(purpose: Purpose, error: anyhow::Error) -> crate::library::Error {
    crate::library::Error::Io {
        doing: format!("making the certificate of the {purpose}"),
        source: io::Error::other(error),
    }
}

/// What a line before a key tells.
fn told<'a>(pem: &'a str, what: &str) -> Option<&'a str> {
    pem.lines().find_map(|line| line.strip_prefix(what))
}

/// Whether what was made is for these names, is signed by the right one, and holds for a while. What
/// cannot be read is not judged here: whoever uses it says so.
fn serves(pem: &str, names: &[String], by: Option<&Authority>, now: &Zoned) -> bool {
    let (Some(made_for), Some(until)) = (told(pem, FOR), told(pem, UNTIL)) else {
        return true;
    };
    if told(pem, BY) != by.map(|authority| authority.fingerprint.as_str()) {
        return false;
    }
    let Ok(until) = until.parse::<Date>() else {
        return true;
    };
    let early = now.date().checked_add(EARLY.days());
    // An address that this host has lost does no harm; one that it has got has to be in it.
    let known: Vec<&str> = made_for.split(' ').collect();
    early.is_ok_and(|early| early < until)
        && names.iter().all(|name| known.contains(&name.as_str()))
}

/// What this host is called by browsers and boot loaders.
fn names(config: &Config, purpose: Purpose) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), config.host.to_string()];
    names.extend(HostName::here().map(|name| name.to_string()));
    names.extend(config.admin.names.iter().map(HostName::to_string));
    let loopback = ["127.0.0.1", "::1"].map(str::to_owned);
    names.extend(loopback);
    let listening = purpose.listen(config).iter().map(|address| address.ip());
    // Machines that boot find this host by its address on their own network. Browsers are not asked to
    // trust another certificate whenever there is one more.
    let further = match purpose {
        Purpose::Admin => Vec::new(),
        Purpose::Boot => own_addresses(),
    };
    let addresses = listening.chain(own_address()).chain(further);
    let addresses = addresses.filter(|ip: &IpAddr| !ip.is_unspecified());
    names.extend(addresses.map(|ip| ip.to_string()));
    names.sort();
    names.dedup();
    names
}

/// Key and certificate for this host, in PEM, and before them what they were made for.
fn made(config: &Config, names: &[String], by: Option<&Authority>) -> Result<String> {
    let mut params = CertificateParams::new(names).context("naming it")?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
        .distinguished_name
        .push(DnType::CommonName, config.host.as_str());
    let now = Zoned::now();
    let until = now.checked_add(DAYS.days())?;
    hold(&mut params, &now, &until)?;
    let (key, certificate, by) = match by {
        None => {
            let key = KeyPair::generate().context("drawing its key")?;
            let own = params.self_signed(&key).context("signing it")?;
            (key, own.pem(), String::new())
        }
        Some(Authority {
            issuer,
            pem,
            fingerprint,
        }) => {
            let key = rsa_key().context("drawing its key")?;
            let own = params.signed_by(&key, issuer).context("signing it")?;
            (key, own.pem() + pem, format!("{BY}{fingerprint}\n"))
        }
    };
    let (made_for, until, key) = (names.join(" "), until.date(), key.serialize_pem());
    Ok(format!(
        "{FOR}{made_for}\n{UNTIL}{until}\n{by}{key}{certificate}"
    ))
}

fn hold(params: &mut CertificateParams, now: &Zoned, until: &Zoned) -> Result<()> {
    let day = |at: &Zoned| {
        let (month, day) = (at.month().unsigned_abs(), at.day().unsigned_abs());
        rcgen::date_time_ymd(at.year().into(), month, day)
    };
    // Clocks of clients may be behind.
    params.not_before = day(&now.checked_sub(1.day())?);
    params.not_after = day(until);
    Ok(())
}

/// iPXE of before 2026 (Debian 13 has one of 2025) reads keys of no other kind.
fn rsa_key() -> Result<KeyPair> {
    let key = RsaPrivateKey::new(&mut UnwrapErr(SysRng), 2048)?.to_pkcs8_der()?;
    let key = PrivatePkcs8KeyDer::from(key.as_bytes());
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(
        &key,
        &PKCS_RSA_SHA256,
    )?)
}

/// Who signs what the boot service shows.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, which goes along with those that it signs.
    pem: String,
    fingerprint: String,
}

impl Authority {
    /// That of a library, made where there is none.
    fn of(library: &Library) -> Result<Self> {
        let host = library.config().host.to_string();
        let make = || Self::made(&host).map_err(|error| unmade(Purpose::Boot, error));
        let kept = library.kept_secret(AUTHORITY, make)?;
        Self::read(&kept).with_context(|| {
            format!(
                "using what signs the certificates of the boot service, secrets/{AUTHORITY} in the library; \
                 remove that file, and another one is made, which no loader trusts yet"
            )
        })
    }

    fn read(kept: &str) -> Result<Self> {
        let host = told(kept, FOR).context("it does not tell what it was made for")?;
        let key = PrivateKeyDer::from_pem_slice(kept.as_bytes())?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_RSA_SHA256)?;
        let certificate = CertificateDer::from_pem_slice(kept.as_bytes())?;
        let begins = kept.find("-----BEGIN CERTIFICATE");
        let pem = begins.and_then(|at| kept.get(at..));
        Ok(Self {
            issuer: Issuer::new(Self::params(host)?, key),
            pem: pem.context("it has no certificate")?.to_owned(),
            fingerprint: fingerprint(&certificate),
        })
    }

    fn made(host: &str) -> Result<String> {
        let key = rsa_key().context("drawing its key")?;
        let own = Self::params(host)?
            .self_signed(&key)
            .context("signing it")?;
        let (key, own) = (key.serialize_pem(), own.pem());
        Ok(format!("{FOR}{host}\n{key}{own}"))
    }

    fn params(host: &str) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        let name = format!("netroot boot service of {host}");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let now = Zoned::now();
        hold(
            &mut params,
            &now,
            &now.checked_add(AUTHORITY_YEARS.years())?,
        )?;
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    fn library() -> (tempfile::TempDir, Library) {
        let (dir, library) = Library::temporary();
        let own = dir.path().join("own.toml");
        std::fs::write(&own, "[admin]\ntls = \"made\"\n").unwrap();
        let library = Library::open(library.root(), Some(&own)).unwrap();
        (dir, library)
    }

    #[test]
    fn a_certificate_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, library) = library();
        assert_eq!(made_fingerprint(&library), None);
        let first = Tls::configured(&library, Purpose::Admin).unwrap().unwrap();
        let again = Tls::configured(&library, Purpose::Admin).unwrap().unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        assert_eq!(made_fingerprint(&library), Some(first.fingerprint()));
        let path = library.root().join("secrets").join("admin.pem");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "nonsense").unwrap();
        let Err(error) = Tls::configured(&library, Purpose::Admin) else {
            panic!("nonsense is no certificate");
        };
        assert!(
            format!("{error:#}").contains("remove that file"),
            "{error:#}"
        );
    }

    #[test]
    fn a_certificate_is_made_anew_before_its_end_and_for_another_name() {
        let (_dir, library) = library();
        let mut names = names(&library.config(), Purpose::Admin);
        let pem = made(&library.config(), &names, None).unwrap();
        let now = Zoned::now();
        let after = |days: i64| now.checked_add(days.days()).unwrap();
        assert!(serves(&pem, &names, None, &now));
        assert!(serves(&pem, &names, None, &after(DAYS - EARLY - 1)));
        assert!(!serves(&pem, &names, None, &after(DAYS - EARLY + 1)));
        assert!(serves(&pem, &names[1..], None, &now), "fewer names");
        names.push("room5.example.edu".to_owned());
        assert!(!serves(&pem, &names, None, &now));
    }

    #[test]
    fn a_given_certificate_needs_its_own_key() {
        let (dir, library) = library();
        let names = names(&library.config(), Purpose::Admin);
        let make = || made(&library.config(), &names, None).unwrap();
        let (one, other) = (make(), make());
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (one, other) = (file("one.pem", &one), file("other.pem", &other));
        let given = |certificate: &Path, key: &Path| {
            let given = Given {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            };
            Shown::given(&given, Purpose::Boot)
        };
        assert!(given(&one, &one).is_ok());
        let error = |tried: Result<Shown>| format!("{:#}", tried.err().unwrap());
        assert!(
            error(given(&one, &other)).contains("with the key"),
            "not its key"
        );
        assert!(error(given(&dir.path().join("none"), &one)).contains("reading the certificate"));
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let (dir, library) = library();
        let names = names(&library.config(), Purpose::Admin);
        let pem = dir.path().join("own.pem");
        let config = library.config();
        let put = || {
            let made = made(&config, &names, None).unwrap();
            std::fs::write(&pem, &made).unwrap();
            made
        };
        let first = put();
        let own = dir.path().join("own.toml");
        let given = format!("[admin]\ntls = {{ certificate = {pem:?}, key = {pem:?} }}\n");
        std::fs::write(&own, given).unwrap();
        let library = Library::open(library.root(), Some(&own)).unwrap();
        let doors = crate::daemon::Doors::configured(&library.config());
        let tls = Tls::configured(&library, Purpose::Admin).unwrap().unwrap();
        let server = Server::new(library, tokio::runtime::Handle::current(), doors);
        server.keep_certificates(vec![tls.clone()]);
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
        let listener = TlsListener {
            listener: listener.unwrap(),
            tls: tls.clone(),
        };
        let address = listener.listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((opening, _)) = listener.next().await {
                let _ = opening.await;
            }
        });
        // Who trusts this certificate and no other.
        let is_shown = async |pem: &str| {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap();
            let provider = Arc::new(ring::default_provider());
            let client = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = TcpStream::connect(address).await.unwrap();
            let name = "localhost".try_into().unwrap();
            let client = TlsConnector::from(Arc::new(client));
            client.connect(name, stream).await.is_ok()
        };
        let fingerprint = tls.fingerprint();
        assert!(is_shown(&first).await);
        assert_eq!(server.renew_certificates(), [""; 0]);
        assert_eq!(tls.fingerprint(), fingerprint, "it is the same");
        let second = put();
        assert!(is_shown(&first).await, "nobody has looked");
        assert!(!is_shown(&second).await);
        assert_eq!(server.renew_certificates(), [""; 0]);
        assert_ne!(tls.fingerprint(), fingerprint);
        assert!(is_shown(&second).await && !is_shown(&first).await);
        std::fs::write(&pem, "half of a certif").unwrap();
        let warned = server.renew_certificates();
        assert!(warned[0].contains("own.pem"), "{warned:?}");
        assert!(is_shown(&second).await, "the one before");
    }

    #[test]
    fn what_loaders_trust_stays_when_the_boot_service_is_named_anew() {
        let (dir, library) = Library::temporary();
        let path = library.root().to_owned();
        drop(library);
        let open = |names: &str| {
            let own = dir.path().join("own.toml");
            let text = format!("[boot]\ntls = \"made\"\n[admin]\nnames = [{names}]\n");
            std::fs::write(&own, text).unwrap();
            Library::open(&path, Some(&own)).unwrap()
        };
        let secret = |name: &str| std::fs::read_to_string(path.join("secrets").join(name)).unwrap();
        let shown = |names: &str| {
            let library = open(names);
            let tls = Tls::configured(&library, Purpose::Boot).unwrap().unwrap();
            (tls.fingerprint(), secret(AUTHORITY))
        };
        let (first, authority) = shown("");
        assert_eq!(shown(""), (first.clone(), authority.clone()));
        let (renamed, same) = shown("\"boot.example.edu\"");
        assert_ne!(first, renamed);
        assert_eq!(authority, same);
        let chain = secret("boot.pem");
        let (_, trusted) = authority.split_once("-----BEGIN CERTIFICATE").unwrap();
        assert!(chain.ends_with(trusted), "it goes along");

        // One that nobody signed, of an earlier netroot, is made anew; so is one whose signer is gone.
        let config = open("").config();
        let alone = made(&config, &names(&config, Purpose::Boot), None).unwrap();
        std::fs::write(path.join("secrets/boot.pem"), alone).unwrap();
        let (again, same) = shown("");
        assert_eq!(authority, same);
        assert!(secret("boot.pem").ends_with(trusted));
        std::fs::remove_file(path.join("secrets").join(AUTHORITY)).unwrap();
        let (other, changed) = shown("");
        assert_ne!(authority, changed);
        assert_ne!(again, other);
    }
}
