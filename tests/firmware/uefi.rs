//! UEFI without iPXE logs in to `netroot serve`, finds a disk with partitions and starts the program on
//! it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use netroot::library::{Library, Quiet, Target, VersionFacts};
use xtask::lab_dir;
use xtask::netns::{Leases, Network, SERVER};
use xtask::qemu::{Machine, Rom};
use xtask::server::{Server, Site, remove_library};
use xtask::uefi::{IscsiBoot, PROGRAM_SIZE, write_disk, write_variables};

const MAC: &str = "52:54:00:00:0c:01";
const INITIATOR: &str = "iqn.2026-01.edu.example:firmware";

/// Under software emulation on a busy host; it takes about 20 s.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn uefi_logs_in_by_itself_and_starts_what_is_on_the_disk() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this makes a network namespace, which needs root"
    );
    let dir = lab_dir().join("firmware");
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let network = Network::create(Leases::Infinite).unwrap();
    let site = Site::new(
        Path::new(env!("CARGO_BIN_EXE_netroot")),
        &dir.join("library"),
    );
    let host = ["--host", "server-01.example.edu", "--yes"];
    site.netroot(&[&["init"], &host[..]].concat()).unwrap();
    let message = format!("NETROOT-LAB {}", std::process::id());
    let target = seal(&site, &message);
    let server = site.serve(&network, &dir.join("serve.log")).unwrap();

    let boot = IscsiBoot {
        mac: MAC,
        initiator: INITIATOR,
        server: SERVER.parse::<Ipv4Addr>().unwrap(),
        port: 3260,
        target: &target,
        lun: 1,
    };
    let variables = dir.join("variables");
    write_variables(&boot, &variables).unwrap();
    let log = dir.join("client.log");
    let machine = Machine::start_uefi(&network, MAC, Rom::None, &variables, &log).unwrap();
    or_why(&server, site.wait_for_sessions(INITIATOR, 1, LIMIT));
    let said = or_why(&server, machine.serial().wait_for(&message, 0, LIMIT));
    println!("after {:.1} s: {}", said.at.as_secs_f64(), said.text);
    // The firmware does not log out: its connection is missed by probes only, later than this.
    let sessions = site.sessions(INITIATOR).unwrap();
    assert_eq!(sessions[0]["target"], target.as_str(), "{sessions:?}");
    let read = sessions[0]["bytes_read"].as_u64().unwrap();
    assert!(
        read > PROGRAM_SIZE,
        "the program was read by iSCSI: {sessions:?}"
    );
    machine.wait_until_off(LIMIT).unwrap();

    server.stop().unwrap();
    site.netroot(&["image", "verify", "firmware"]).unwrap();
    remove_library(site.library()).unwrap();
}

/// The server's side of what failed is half of the story.
fn or_why<T>(server: &Server, result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", server.said()))
}

/// A version whose disk has a program that prints `message`; the name of its target.
fn seal(site: &Site, message: &str) -> String {
    let library = Library::open(site.library(), None).unwrap();
    let mut draft = library.draft(&"firmware".parse().unwrap()).unwrap();
    draft.create_sparse(64 << 20).unwrap();
    write_disk(&draft.disk_path(), message).unwrap();
    let nothing = || File::open("/dev/null").unwrap();
    draft.add_kernel(&mut nothing()).unwrap();
    draft.add_initramfs(&mut nothing()).unwrap();
    let version = draft.seal(VersionFacts::default(), &Quiet).unwrap();
    library
        .target_name(&Target::Version(version.id().clone()))
        .to_string()
}
