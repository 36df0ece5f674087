//! A menu that iPXE goes on from by itself, with what it offers first.

use std::fs;
use std::path::Path;
use std::time::Duration;

use xtask::bios::speaking_disk;
use xtask::lab_dir;
use xtask::netns::{Leases, Network};
use xtask::qemu::{Accelerator, Machine, OnReset};
use xtask::server::{Site, remove_library};

const MAC: &str = "52:54:00:00:0c:05";
const SAYS: &str = "NETROOT-LAB this was chosen";

/// Under software emulation on a busy host; it takes about 20 s.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn ipxe_shows_a_menu_and_boots_the_first_item_once_when_nobody_chooses() {
    let dir = lab_dir().join("firmware-menu");
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let network = Network::create(Leases::Infinite).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_netroot"));
    let site = Site::new(binary, &dir.join("library"));
    site.init().unwrap();
    for (image, says) in [("own", "NETROOT-LAB its own"), ("chosen", SAYS)] {
        let disk = dir.join(image);
        fs::write(&disk, speaking_disk(says)).unwrap();
        let disk = disk.to_str().unwrap();
        site.netroot(&["image", "import", image, "--from", disk])
            .unwrap();
    }
    // Ours takes the first item, too, where iPXE has no menus: this one fails there.
    let menu = include_str!("../../esp/menu.ipxe");
    let menu = menu.replace("|| goto @DEFAULT@", "|| goto unable") + ":unable\necho No menu\n";
    fs::create_dir_all(site.library().join("esp")).unwrap();
    fs::write(site.library().join("esp/menu.ipxe"), menu).unwrap();
    let add = [
        ["client", "add", MAC, "--image", "own"],
        [
            "--mode",
            "persistent",
            "--menu",
            "always",
            "--menu-item=chosen",
        ],
        [
            "--menu-item",
            "own",
            "--menu-item=local",
            "--menu-timeout",
            "2",
        ],
    ];
    site.netroot(&add.concat()).unwrap();
    let server = site.serve(&network, &dir.join("serve.log")).unwrap();
    let log = dir.join("client.log");
    let machine = Machine::start(&network, MAC, Accelerator::Tcg, OnReset::End, &log).unwrap();
    let said = machine.serial().wait_for(SAYS, 0, LIMIT).unwrap();
    println!("after {:.1} s: {}", said.at.as_secs_f64(), said.text);
    machine.pull_the_plug();
    let client = site.netroot(&["client", "show", MAC]).unwrap();
    assert!(client.contains(" of chosen@1 from "), "{client}");
    assert!(client.contains("own in mode persistent"), "{client}");
    server.stop().unwrap();
    remove_library(&dir).unwrap();
}
