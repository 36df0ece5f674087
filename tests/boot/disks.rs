//! Disks that boot themselves: imported with their boot loader, started by the firmware.

use std::fs;
use std::path::Path;

use netroot::library::{Library, MacAddr, Proof};
use xtask::bios::speaking_disk;
use xtask::lab_dir;
use xtask::netns::{Leases, Network};
use xtask::qemu::{Accelerator, Machine, OnReset};
use xtask::server::{Site, remove_library};

use crate::lab::{BINARY, RECONNECT, copy_disk};

#[test]
fn a_disk_that_boots_itself_is_started_by_the_firmware_and_written_by_its_client() {
    const MAC: &str = "52:54:00:00:0d:01";
    const SAYS: &str = "NETROOT-LAB this was read from the second sector";
    let dir = lab_dir().join("boot-disk");
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let network = Network::create(Leases::Infinite).unwrap();
    let library = dir.join("library");
    let site = Site::new(Path::new(BINARY), &library);
    site.netroot(&["init", "--host", "server-01.example.edu", "--yes"])
        .unwrap();
    let disk = dir.join("disk.raw");
    fs::write(&disk, speaking_disk(SAYS)).unwrap();
    let imported = ["image", "import", "dos", "--from", disk.to_str().unwrap()];
    site.netroot(&imported).unwrap();
    site.netroot(&[
        "client",
        "add",
        MAC,
        "--image",
        "dos",
        "--mode",
        "persistent",
    ])
    .unwrap();
    let server = site.serve(&network, &dir.join("serve.log")).unwrap();

    let log = dir.join("525400000d01.log");
    let machine = Machine::start(&network, MAC, Accelerator::Tcg, OnReset::End, &log).unwrap();
    machine.serial().wait_for(SAYS, 0, RECONNECT).unwrap();
    machine.pull_the_plug();
    server.stop().unwrap();

    let copy = dir.join("copy.img");
    let opened = Library::open(&library, None).unwrap();
    let mac: MacAddr = MAC.parse().unwrap();
    let boot = opened.client(&mac).unwrap().boot.unwrap();
    assert_eq!(
        boot.proof,
        Some(Proof::Chap),
        "the firmware was told a secret"
    );
    let clone = opened.open_clone(&mac).unwrap();
    copy_disk(&*clone, &copy);
    let written = fs::read(&copy).unwrap();
    assert_eq!(
        written[1024..1536],
        written[512..1024],
        "what it wrote is on its disk"
    );
    assert!(written[512..].starts_with(SAYS.as_bytes()));
    site.netroot(&["image", "verify", "dos"]).unwrap();
    drop(opened);
    remove_library(&dir).unwrap();
}
