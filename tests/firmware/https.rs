//! iPXE that knows HTTPS: Debian 13's, as it is and made to trust the server's certificate.

use std::fs;
use std::path::PathBuf;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use xtask::guest::STARTED;
use xtask::ipxe::{snponly, write_trusting};
use xtask::lab_dir;
use xtask::netns::BOOT_PORT;
use xtask::program::run;
use xtask::qemu::Rom;

use crate::lab::{Lab, add_client, set};

const TLS_PORT: u16 = 8443;
const HTTP: &str = "http://192.0.2.1:8080";
const HTTPS: &str = "https://192.0.2.1:8443";

/// A server with a certificate of its own making, whose loader is `loader`.
fn lab(name: &str, mac: &str, secrets: &str, loader: &str) -> Lab {
    Lab::with(name, |site| {
        add_client(site, mac);
        set(site, "# tls = { certificate", "tls = \"made\"");
        set(site, "secrets = ", &format!("secrets = \"{secrets}\""));
        let loaders = format!("loaders = {{ efi-x64 = \"{loader}\" }}");
        set(site, "loaders = ", &loaders);
    })
}

#[test]
fn who_trusts_the_certificate_fetches_all_by_https() {
    const MAC: &str = "52:54:00:00:0d:06";
    const NAME: &str = "https-trusted";
    let loader: PathBuf = lab_dir().join(NAME).join("ipxe.efi");
    let lab = lab(NAME, MAC, "https", &loader.to_string_lossy());
    // The server has made it by now: what a person would give to `make TRUST=`.
    let authority = lab.site.library().join("secrets/boot-ca.pem");
    let authority = CertificateDer::from_pem_file(authority).unwrap();
    write_trusting(&authority, &loader).unwrap();
    let chap = ["client", "set", MAC, "--chap", "kernel-line"];
    lab.site.netroot(&chap).unwrap();
    count(&lab);

    let machine = lab.switch_on_uefi(MAC, Rom::None);
    lab.wait(&machine, &format!("{HTTP}/boot.ipxe... ok"));
    // Those of the image show how much has come before they end.
    for file in [
        "/local.ipxe... ok",
        "/boot.cfg... ok",
        "/images/guest/1/vmlinuz-6.1.0...",
        "/images/guest/1/initramfs-6.1.0.img...",
    ] {
        lab.wait(&machine, &format!("{HTTPS}{file}"));
    }
    // The secret has come with what came by HTTPS.
    lab.wait(&machine, "rd.iscsi.password=");
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    let (plain, encrypted) = (sent(&lab, BOOT_PORT), sent(&lab, TLS_PORT));
    println!("{plain} bytes over HTTP, {encrypted} over HTTPS");
    let kernel = fs::metadata(lab.site.kernel("guest")).unwrap().len();
    assert!(encrypted > kernel, "{encrypted}");
    assert!(
        plain < 10_000,
        "the first script, and nothing else: {plain}"
    );
    lab.end();
}

#[test]
fn who_does_not_trust_it_goes_on_by_http() {
    const MAC: &str = "52:54:00:00:0d:07";
    let stock = snponly().unwrap();
    let lab = lab("https-untrusted", MAC, "http", &stock.to_string_lossy());
    let machine = lab.switch_on_uefi(MAC, Rom::None);
    lab.wait(&machine, &format!("{HTTP}/boot.ipxe... ok"));
    lab.wait(
        &machine,
        &format!("{HTTPS}/local.ipxe... Permission denied"),
    );
    lab.wait(&machine, &format!("{HTTP}/boot.cfg... ok"));
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}

#[test]
fn who_does_not_trust_it_is_told_so_where_nothing_else_will_do() {
    const MAC: &str = "52:54:00:00:0d:08";
    let stock = snponly().unwrap();
    let lab = lab("https-only", MAC, "https", &stock.to_string_lossy());
    let machine = lab.switch_on_uefi(MAC, Rom::None);
    lab.wait(
        &machine,
        "This iPXE has to know HTTPS, and to trust the certificate at",
    );
    lab.wait(&machine, &format!("{HTTPS}/boot.cfg... Permission denied"));
    // It says so to the server as well, by the way that it has.
    lab.wait(&machine, &format!("{HTTP}/failed... ok"));
    lab.wait(&machine, "or could not be reached at");
    machine.pull_the_plug();
    let said = lab.server.said();
    assert!(said.contains("a boot failed"), "{said}");
    let told = lab.told(MAC);
    assert!(told.contains("https://ipxe.org/"), "{told}");
    lab.end();
}

/// Counts what the server sends from its two doors.
fn count(lab: &Lab) {
    let rules = format!(
        "table inet lab {{\n chain out {{\n type filter hook output priority 0;\n \
         tcp sport {BOOT_PORT} counter\n tcp sport {TLS_PORT} counter\n }}\n}}\n"
    );
    let file = lab.dir.join("counters");
    fs::write(&file, rules).unwrap();
    run(lab.network.command("nft").arg("-f").arg(file)).unwrap();
}

/// How many bytes it has sent from this one.
fn sent(lab: &Lab, port: u16) -> u64 {
    let counters = run(lab
        .network
        .command("nft")
        .args(["list", "table", "inet", "lab"]))
    .unwrap();
    let of = format!("sport {port} ");
    let line = counters.lines().find(|line| line.contains(&of)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
