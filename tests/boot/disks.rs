//! Disks that boot themselves: imported with their boot loader, started by the firmware.

use std::fs;
use std::path::Path;

use netroot::library::{Library, MacAddr, Proof};
use xtask::bios::speaking_disk;
use xtask::netns::{Leases, Network};
use xtask::qemu::{Accelerator, BOOT_LIMIT, Machine, OnReset, UP};
use xtask::server::{Site, remove_library};
use xtask::{installed, ipxe, lab_dir};

use crate::lab::{BINARY, Lab, RECONNECT, Storage, copy_disk, draw, is_left_out, run_in};

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

#[test]
fn a_linux_with_its_own_grub_comes_up_in_a_bios_and_by_uefi() {
    if is_left_out(5) {
        return;
    }
    let lab = Lab::new("grub", Storage::AsItIs, Leases::Infinite);
    let linux = installed::debian().unwrap();
    lab.site.init().unwrap();
    lab.site.answer_dhcp().unwrap();
    let disk = linux.disk.to_str().unwrap();
    let import = ["image", "import", "linux", "--from", disk];
    lab.site.netroot(&import).unwrap();
    let add = ["client", "add", GRUB, "--image", "linux"];
    let add = [&add[..], &["--mode", "persistent"]].concat();
    lab.site.netroot(&add).unwrap();
    let server = lab.serve();
    let nonce = draw();

    let (accelerator, log) = (Accelerator::find(&linux.kernel), lab.log(GRUB));
    let client = Machine::start(&lab.network, GRUB, accelerator, OnReset::End, &log).unwrap();
    wait_until_installed_is_up(&lab, &client, "pc");
    assert_root_is_proven(&lab, &client, "chap");
    client.write_nonce(&nonce).unwrap();
    assert_boots_are_told(&lab, &["bios"]);
    // Its own iscsid finds the way back, with the name and the secret of this boot.
    server.kill().unwrap();
    let server = lab.serve();
    let touched = client.ask("touch after-the-kill", RECONNECT).unwrap();
    assert_eq!(touched, "touched after-the-kill");
    client.power_off().unwrap();
    lab.wait_until_gone(GRUB);

    let client = lab.switch_on_uefi(GRUB);
    wait_until_installed_is_up(&lab, &client, "efi");
    assert_root_is_proven(&lab, &client, "chap");
    assert_eq!(client.nonce().unwrap(), Some(nonce), "its writes remain");
    assert_boots_are_told(&lab, &["efi-x64", "bios"]);
    client.power_off().unwrap();
    lab.wait_until_gone(GRUB);

    // As it was imported, by the next release's iPXE, and to a target that proves itself as well.
    server.stop().unwrap();
    give_loader(&lab, &ipxe::snponly().unwrap());
    let server = lab.serve();
    let reset = ["client", "reset", GRUB, "--yes"];
    lab.site.netroot(&reset).unwrap();
    lab.set(GRUB, &["--mutual", "on"]);
    let client = lab.switch_on_uefi(GRUB);
    wait_until_installed_is_up(&lab, &client, "efi");
    assert_root_is_proven(&lab, &client, "mutual");
    assert_eq!(of_session(&client, "username_in"), "netroot");
    assert_eq!(client.nonce().unwrap(), None, "after reset");
    assert_boots_are_told(&lab, &["efi-x64", "efi-x64", "bios"]);
    client.power_off().unwrap();
    lab.wait_until_gone(GRUB);

    server.stop().unwrap();
    lab.site.netroot(&["image", "verify", "linux"]).unwrap();
    lab.clean_up();
}

const GRUB: &str = "52:54:00:00:0d:02";

fn give_loader(lab: &Lab, loader: &Path) {
    let settings = lab.site.library().join("netroot.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let given = format!("loaders = {{ efi-x64 = \"{}\" }}", loader.display());
    let changed = text.replace("loaders = {}", &given);
    assert_ne!(changed, text);
    fs::write(&settings, changed).unwrap();
}

/// It comes by the firmware's iPXE and its own GRUB, which tells what it runs on.
fn wait_until_installed_is_up(lab: &Lab, client: &Machine, platform: &str) {
    let grub = format!("GRUB ({platform}) has its disk");
    for stage in ["/boot.cfg", &grub, "Linux version", UP] {
        let line = client.serial().wait_for(stage, 0, BOOT_LIMIT);
        let line = line.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.server_said()));
        lab.tell(&format!("{:6.1} s  {stage}", line.at.as_secs_f64()));
    }
}

/// Its root is the client's disk, which it got by the secret of this boot, out of the firmware's table.
fn assert_root_is_proven(lab: &Lab, client: &Machine, proof: &str) {
    assert_eq!(
        run_in(client, "findmnt -n -o SOURCE,FSTYPE /"),
        "/dev/sda3 ext4"
    );
    let device = run_in(client, "readlink -f /sys/class/block/sda3");
    assert!(device.contains("/session1/"), "{device}");
    let bare = GRUB.replace(':', "");
    let target = of_session(client, "targetname");
    assert!(target.ends_with(&format!(":client-{bare}")), "{target}");
    assert_eq!(of_session(client, "username"), bare);
    // Its iscsid takes the session over in its own time.
    let patience = "/sys/class/iscsi_session/session1/recovery_tmo";
    let wait = format!("for i in $(seq 50); do grep -x 86400 {patience} && break; sleep 1; done");
    assert_eq!(run_in(client, &wait), "86400");
    assert_eq!(
        run_in(client, "systemctl is-active iscsid.service"),
        "active"
    );
    let line = run_in(client, "cat /proc/cmdline");
    assert!(line.contains("root=LABEL=INSTALLED"), "{line}");
    assert!(
        !line.contains("iscsi") && !line.contains("password"),
        "{line}"
    );
    let modes = run_in(client, "stat -c %a /sys/firmware/ibft/target*/*secret*");
    assert!(modes.split(' ').all(|mode| mode == "400"), "{modes}");
    let shown = lab.site.json(&["client", "show", GRUB]).unwrap();
    assert_eq!(shown["boot"]["proof"], proof, "{shown}");
}

/// Each boot came from its firmware to its system, the last one is up, and the server has words for it.
fn assert_boots_are_told(lab: &Lab, firmware: &[&str]) {
    let shown = lab.site.json(&["client", "show", GRUB, "--boots"]).unwrap();
    let boots = shown.as_array().unwrap();
    let seen: Vec<_> = boots.iter().map(|boot| boot["firmware"].clone()).collect();
    assert_eq!(seen, firmware);
    for boot in boots {
        let steps = boot["steps"].as_array().unwrap();
        let stages: Vec<_> = steps.iter().map(|step| &step["stage"]).collect();
        let found = stages
            .windows(4)
            .any(|stages| stages == ["firmware", "system", "first-read", "first-write"]);
        assert!(found && boot["kernel"] == "disk", "{boot:#}");
    }
    assert_eq!(boots[0]["told"], "its system is up", "{shown:#}");
}

fn of_session(client: &Machine, what: &str) -> String {
    run_in(
        client,
        &format!("cat /sys/class/iscsi_session/session1/{what}"),
    )
}
