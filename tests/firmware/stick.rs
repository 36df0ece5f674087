//! A stick that `esp export` made: UEFI starts iPXE from it, that finds what lies beside it, and tells
//! the server whose files those are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netroot::library::{Library, Quiet, VersionFacts};
use serde_json::Value;
use xtask::debs::unpacked;
use xtask::netns::{Leases, Network};
use xtask::program::{command, run};
use xtask::qemu::Machine;
use xtask::server::{Server, Site, remove_library};
use xtask::uefi::write_no_variables;
use xtask::{guest, lab_dir};

const MAC: &str = "52:54:00:00:0c:05";

/// The guest's kernel and initramfs have started.
const UP: &str = "@0=0";

/// Under software emulation on a busy host; it takes about 40 s.
const LIMIT: Duration = Duration::from_secs(400);

#[test]
fn a_stick_boots_by_itself_and_by_what_the_server_says() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this makes a network namespace, which needs root"
    );
    let dir = lab_dir().join("stick");
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let network = Network::create(Leases::Infinite).unwrap();
    let site = Site::new(
        Path::new(env!("CARGO_BIN_EXE_netroot")),
        &dir.join("library"),
    );
    let host = ["--host", "server-01.example.edu", "--yes"];
    site.netroot(&[&["init"], &host[..]].concat()).unwrap();
    seal(&site);
    let add = ["client", "add", MAC, "--name", "stick", "--image", "lab"];
    site.netroot(&add).unwrap();
    let server = site.serve(&network, &dir.join("serve.log")).unwrap();
    let ipxe = unpacked("trixie", "ipxe")
        .unwrap()
        .join("usr/lib/ipxe/ipxe-amd64.efi");

    let itself = export(&site, &ipxe, &dir.join("itself.img"), &["--image", "lab"]);
    sound(&itself);
    boots(&network, &server, &itself, &dir);
    assert_eq!(client(&site)["esp"], "fresh", "it told whose files it has");

    // In a mode in which each boot has an id of its own, which only the server can give.
    let set = [
        "client",
        "set",
        "stick",
        "--way",
        "esp",
        "--mode",
        "persistent",
        "--yes",
    ];
    site.netroot(&set).unwrap();
    let asks = export(&site, &ipxe, &dir.join("asks.img"), &["--client", "stick"]);
    sound(&asks);
    let log = boots(&network, &server, &asks, &dir);
    assert!(
        log.contains("http://192.0.2.1:8080/boot.cfg... ok"),
        "{log}"
    );
    assert!(log.contains("file:///linux/vmlinuz-lab"), "{log}");
    assert!(
        !log.contains("/images/lab/1/"),
        "nothing came from the server: {log}"
    );

    // Another version: the stick is stale, and boots what the server gives it instead.
    seal(&site);
    site.netroot(&["client", "reset", "stick", "--yes"])
        .unwrap();
    let log = boots(&network, &server, &asks, &dir);
    assert!(
        log.contains("The ESP of this machine is not of this version"),
        "{log}"
    );
    assert!(log.contains("/images/lab/2/vmlinuz-lab"), "{log}");
    assert_eq!(client(&site)["esp"], "stale");
    // Other things of this host may be wrong.
    let doctor = site
        .netroot(&["doctor"])
        .unwrap_or_else(|error| format!("{error:#}"));
    assert!(
        doctor.contains("the ESP of stick has not the kernel"),
        "{doctor}"
    );
    server.stop().unwrap();
    remove_library(&dir).unwrap();
}

/// A version whose kernel and initramfs are the laboratory's guest. What follows the initramfs tells
/// one version from the next, and the kernel passes over it.
fn seal(site: &Site) {
    let library = Library::open(site.library(), None).unwrap();
    let (kernel, initramfs) = guest::files().unwrap();
    let mut draft = library.draft(&"lab".parse().unwrap()).unwrap();
    draft.create_sparse(64 << 20).unwrap();
    draft
        .add_kernel(&mut fs::File::open(kernel).unwrap())
        .unwrap();
    let mut initramfs = fs::read(initramfs).unwrap();
    let number = library
        .image(&"lab".parse().unwrap())
        .map_or(0, |image| image.versions.len());
    initramfs.extend(vec![0; 4 * (number + 1)]);
    draft.add_initramfs(&mut initramfs.as_slice()).unwrap();
    let facts = VersionFacts {
        kernel_version: "lab".into(),
        ..Default::default()
    };
    draft.seal(facts, &Quiet).unwrap();
}

fn export(site: &Site, ipxe: &Path, to: &Path, whose: &[&str]) -> PathBuf {
    let (file, ipxe) = (to.to_string_lossy(), ipxe.to_string_lossy());
    let server = ["--server", xtask::netns::SERVER, "--ipxe", &ipxe];
    site.netroot(&[&["esp", "export", &file], whose, &server].concat())
        .unwrap();
    let checked = site.netroot(&[&["esp", "check", &file], whose, &server].concat());
    assert!(!checked.unwrap().contains("stale"));
    to.to_owned()
}

/// Others' tools find nothing to complain about.
fn sound(stick: &Path) {
    let table = run(command("sgdisk", ["--verify"]).arg(stick)).unwrap();
    assert!(table.contains("No problems found"), "{table}");
    let bytes = fs::read(stick).unwrap();
    let partition = stick.with_extension("fat");
    fs::write(&partition, &bytes[1 << 20..bytes.len() - (1 << 20)]).unwrap();
    run(command("fsck.fat", ["-n", "-v"]).arg(&partition)).unwrap();
    fs::remove_file(partition).unwrap();
}

/// Boots a machine from the stick until the guest is up; all that it said.
fn boots(network: &Network, server: &Server, stick: &Path, dir: &Path) -> String {
    let (variables, log) = (dir.join("variables"), dir.join("client.log"));
    write_no_variables(&variables).unwrap();
    let machine = Machine::start_stick(network, MAC, stick, &variables, &log).unwrap();
    let up = machine.serial().wait_for(UP, 0, LIMIT);
    let up = up.unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", server.said()));
    println!("after {:.1} s: {}", up.at.as_secs_f64(), up.text);
    let lines = machine.serial().lines(0).join("\n");
    machine.pull_the_plug();
    lines
}

fn client(site: &Site) -> Value {
    let shown = site.json(&["client", "show", "stick"]).unwrap();
    match shown {
        Value::Array(mut clients) => clients.remove(0),
        one => one,
    }
}
