//! iPXE proves its secret, has the target prove another, and goes where it is sent, before it starts
//! what is on the disk.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use xtask::bios::speaking_disk;
use xtask::lab_dir;
use xtask::netns::{Leases, Network, SERVER};
use xtask::qemu::{Accelerator, Machine, OnReset, Rom};
use xtask::server::remove_library;
use xtask::uefi::{write_disk, write_no_variables};

use crate::portal::{Portal, SAID, secrets, target};

/// Under software emulation on a busy host; it takes about 20 s.
const LIMIT: Duration = Duration::from_secs(120);
const FAILED: &str = "NETROOT-LAB failed";
const SAYS: &str = "NETROOT-LAB this was read from the disk";

#[test]
fn ipxe_in_a_bios_proves_secrets_is_sent_elsewhere_and_hooks_three_drives() {
    let dir = directory("ipxe-bios");
    let network = Network::create(Leases::Infinite).unwrap();
    for (name, says) in [("c", SAYS), ("d", "second"), ("e", "third")] {
        fs::write(dir.join(name), speaking_disk(says)).unwrap();
    }
    let hooks: String = [("0x80", "c"), ("0x81", "d"), ("0x82", "e")]
        .iter()
        .map(|(drive, disk)| {
            format!(
                "sanhook --no-describe --drive {drive} {} || goto failed\n",
                uri(disk)
            )
        })
        .collect();
    // iPXE numbers drives in the order in which they are hooked, whatever they are called. In a BIOS the
    // table that tells systems of its drives (iBFT) has a fixed size (XBFTAB_SIZE), with room for two
    // with names and secrets; a third fails with "No space left on device" if it is to be described.
    let script = format!(
        "#!ipxe\n{}{hooks}sanboot --no-describe --drive 0x80\n:failed\necho {FAILED}\n",
        secrets()
    );
    let portal = Portal::start(&network, &dir, &["c", "d", "e"], script);
    let log = dir.join("client.log");
    let mac = "52:54:00:00:0c:02";
    let machine = Machine::start(&network, mac, Accelerator::Tcg, OnReset::End, &log).unwrap();
    let said = machine.serial().wait_for(SAYS, 0, LIMIT).unwrap();
    println!("after {:.1} s: {}", said.at.as_secs_f64(), said.text);
    machine.pull_the_plug();
    let opened = portal.opened.lock().unwrap().clone();
    assert_eq!(opened, ["c", "d", "e"].map(target));
    drop(portal);
    let disk = fs::read(dir.join("c")).unwrap();
    assert_eq!(disk[1024..1536], disk[512..1024], "what it wrote is on it");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn ipxe_in_uefi_proves_secrets_and_is_sent_elsewhere() {
    let dir = directory("ipxe-uefi");
    let network = Network::create(Leases::Infinite).unwrap();
    write_disk(&dir.join("c"), SAYS).unwrap();
    fs::write(dir.join("d"), vec![0; 1 << 20]).unwrap();
    let (first, second) = (uri("c"), uri("d"));
    let script = format!(
        "#!ipxe\n{}sanhook --drive 0x81 {second} && sanboot --drive 0x80 {first}\n",
        secrets()
    );
    let portal = Portal::start(&network, &dir, &["c", "d"], script);
    let (variables, log) = (dir.join("variables"), dir.join("client.log"));
    write_no_variables(&variables).unwrap();
    let mac = "52:54:00:00:0c:03";
    let machine = Machine::start_uefi(&network, mac, Rom::Ipxe, &variables, &log).unwrap();
    let said = machine.serial().wait_for(SAYS, 0, LIMIT).unwrap();
    println!("after {:.1} s: {}", said.at.as_secs_f64(), said.text);
    machine.wait_until_off(LIMIT).unwrap();
    let opened = portal.opened.lock().unwrap().clone();
    assert_eq!(opened, ["d", "c"].map(target));
    drop(portal);
    fs::remove_dir_all(&dir).unwrap();
}

fn directory(name: &str) -> PathBuf {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this makes a network namespace, which needs root"
    );
    let dir = lab_dir().join(name);
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn uri(disk: &str) -> String {
    format!("iscsi:{SERVER}::{SAID}:1:{}", target(disk))
}
