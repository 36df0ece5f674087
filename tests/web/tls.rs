//! The dashboard over TLS.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;

use netroot::library::Role;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::network::{Answer, PASSWORD, Server, Site, exchange};

/// Asks over TLS, trusting no certificate but this one.
fn ask(
    server: &Server,
    trusted: &CertificateDer<'static>,
    head: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(&server.admin).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let method = if body.is_empty() { "GET" } else { "POST" };
    exchange(&mut stream, &server.admin, method, "/login", head, body)
}

fn log_in(server: &Server, trusted: &CertificateDer<'static>) -> Answer {
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let body = format!("name=admin&password={}", PASSWORD.replace(' ', "+"));
    ask(server, trusted, &[form], &body)
}

#[test]
fn a_certificate_is_made_once_and_its_fingerprint_told() {
    let site = Site::new("tls = \"made\"\n");
    site.users(&[("admin", Role::Operator)]);
    let made = || {
        let pem = fs::read(site.library().join("secrets/admin.pem")).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap()
    };
    let server = site.serve();
    let certificate = made();
    assert_eq!(ask(&server, &certificate, &[], "").status, 200);
    // Whoever opens a connection and says nothing keeps nobody waiting.
    let _silent: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(&server.admin).unwrap())
        .collect();
    let answer = log_in(&server, &certificate);
    assert_eq!(answer.status, 303, "{answer:?}");
    let (held, rest) = answer.is("set-cookie").split_once(';').unwrap();
    assert!(held.starts_with("__Host-netroot="), "{held}");
    assert_eq!(rest, " Path=/; HttpOnly; SameSite=Strict; Secure");
    // Browsers do not know this certificate: they must not be made to insist on it.
    assert_eq!(answer.is("strict-transport-security"), "");
    let link = site.ok(&["user", "invite", "admin"]);
    let fingerprint = {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(&certificate);
        hash.iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<Vec<_>>()
            .join(":")
    };
    assert!(
        link.contains("https://127.0.0.1:") && link.contains(&fingerprint),
        "{link}"
    );
    drop(server);
    let again = site.serve();
    assert_eq!(made(), certificate);
    assert_eq!(ask(&again, &certificate, &[], "").status, 200);
}

#[test]
fn a_given_certificate_is_shown_and_insisted_upon() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (public, private) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&public, certificate.pem()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    let tls = format!("tls = {{ certificate = {public:?}, key = {private:?} }}\n");
    let site = Site::new(&tls);
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    let answer = ask(&server, certificate.der(), &[], "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.is("strict-transport-security"), "max-age=31536000");
    drop(server);
    fs::write(&private, "nonsense").unwrap();
    let failed = site.run(&["serve"], "");
    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        said.contains("reading the key") && said.contains("[admin] tls"),
        "{said}"
    );
}
