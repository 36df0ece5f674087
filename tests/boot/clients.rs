//! Clients with disks of their own, and with a compressed one that they share: what stays, what goes, and
//! what a killed server means to them.

use std::time::Duration;

use xtask::debian;
use xtask::qemu::{ANSWER_LIMIT, BOOT_LIMIT, UP};

use crate::lab::{IMAGE, Lab, RECONNECT, Storage, data_disk, draw, is_left_out};

#[test]
fn a_persistent_client_keeps_its_disk_until_reset_and_gets_it_back_by_undo() {
    const MAC: &str = "52:54:00:00:0a:01";
    if is_left_out(8) {
        return;
    }
    let lab = Lab::with_debian("persistent", Storage::AsItIs);
    // Before people get it.
    lab.site.netroot_visibly(&["image", "test", IMAGE]).unwrap();
    lab.add_client(MAC, IMAGE, "persistent");
    let server = lab.serve();
    let nonce = draw();

    let client = lab.boot(MAC);
    client.write_nonce(&nonce).unwrap();
    client.power_off().unwrap();

    let client = lab.boot(MAC);
    assert_eq!(client.nonce().unwrap(), Some(nonce.clone()), "second boot");
    client.power_off().unwrap();
    lab.wait_until_gone(MAC);
    assert_eq!(lab.nonce_in_a_copy(MAC), nonce, "seen from the host");

    // What it wrote becomes an image, which another machine boots while the server goes on.
    const OTHER: &str = "52:54:00:00:0a:02";
    lab.site
        .netroot(&["client", "promote", MAC, "promoted", "--yes"])
        .unwrap();
    lab.add_client(OTHER, "promoted", "ephemeral");
    let other = lab.boot(OTHER);
    assert_eq!(other.nonce().unwrap(), Some(nonce.clone()), "promoted");
    other.power_off().unwrap();
    lab.wait_until_gone(OTHER);

    lab.site
        .netroot(&["client", "reset", MAC, "--yes"])
        .unwrap();
    let client = lab.boot(MAC);
    assert_eq!(client.nonce().unwrap(), None, "after reset");
    client.power_off().unwrap();
    lab.wait_until_gone(MAC);

    lab.site.netroot(&["client", "undo", MAC, "--yes"]).unwrap();
    let client = lab.boot(MAC);
    assert_eq!(client.nonce().unwrap(), Some(nonce), "after undo");
    client.power_off().unwrap();

    server.stop().unwrap();
    lab.clean_up();
}

#[test]
fn clients_of_one_image_keep_apart_and_outlive_a_killed_server() {
    const EPHEMERAL: &str = "52:54:00:00:0b:01";
    const PERSISTENT: &str = "52:54:00:00:0b:02";
    let lab = Lab::with_debian("killed", Storage::Reflink);
    lab.add_client(EPHEMERAL, IMAGE, "ephemeral");
    lab.add_client(PERSISTENT, IMAGE, "persistent");
    lab.set(EPHEMERAL, &["--data", "128M"]);
    let server = lab.serve();
    let (nonce, other) = (draw(), draw());

    let ephemeral = lab.switch_on(EPHEMERAL);
    let persistent = lab.switch_on(PERSISTENT);
    lab.wait_until_up(EPHEMERAL, &ephemeral);
    lab.wait_until_up(PERSISTENT, &persistent);
    ephemeral.write_nonce(&nonce).unwrap();
    persistent.write_nonce(&other).unwrap();
    let boot = lab.boot_id(EPHEMERAL);
    let identity = lab.identity(&ephemeral);
    assert_ne!(lab.identity(&persistent), identity);
    let small = data_disk(&ephemeral);
    let keep = format!("run echo {nonce} >/data/kept && sync -f /data/kept");
    ephemeral.ask(&keep, ANSWER_LIMIT).unwrap();

    server.kill().unwrap();
    let server = lab.serve();
    for (client, written) in [(&ephemeral, &nonce), (&persistent, &other)] {
        let touched = client.ask("touch after-the-kill", RECONNECT).unwrap();
        assert_eq!(touched, "touched after-the-kill");
        let read = client.nonce().unwrap();
        assert_eq!(read.as_ref(), Some(written), "a reconnect resets nothing");
    }
    assert_eq!(lab.boot_id(EPHEMERAL), boot, "it is the same boot");
    ephemeral.power_off().unwrap();
    lab.set(EPHEMERAL, &["--data", "256M"]);

    let ephemeral = lab.boot(EPHEMERAL);
    assert_eq!(
        ephemeral.nonce().unwrap(),
        None,
        "the next boot is pristine"
    );
    assert_ne!(lab.boot_id(EPHEMERAL), boot);
    assert_eq!(lab.identity(&ephemeral), identity, "but for who it is");
    let large = data_disk(&ephemeral);
    assert!(large > small * 3 / 2, "{small} has become {large} bytes");
    let kept = ephemeral.ask("run cat /data/kept", ANSWER_LIMIT).unwrap();
    assert_eq!(kept, format!("ran {nonce}"), "and its data disk");
    ephemeral.pull_the_plug();

    let why = lab
        .site
        .refused(&["client", "reset", PERSISTENT, "--yes"])
        .unwrap();
    assert!(
        why.contains("--force") && why.contains("--at-next-boot"),
        "{why}"
    );
    assert_eq!(
        persistent.nonce().unwrap(),
        Some(other),
        "a refused reset changes nothing"
    );
    lab.site
        .netroot(&["client", "reset", PERSISTENT, "--yes", "--force"])
        .unwrap();
    lab.assert_locked_out(PERSISTENT, &persistent);
    persistent.pull_the_plug();

    lab.assert_others_read_the_version();
    let took = server.stop().unwrap();
    assert!(took < Duration::from_secs(10), "serve took {took:?} to end");
    lab.site.netroot(&["image", "verify", "deb12"]).unwrap();
    lab.clean_up();
}

#[test]
fn a_shared_client_boots_from_a_compressed_image() {
    const MAC: &str = "52:54:00:00:0e:01";
    if is_left_out(3) {
        return;
    }
    let lab = Lab::with_debian("erofs", Storage::AsItIs);
    let tree = lab.mount_tree();
    let build = ["image", "build", "kiosk", "--fs", "erofs", "--from"];
    let build = [&build[..], &[tree.to_str().unwrap()]].concat();
    lab.site.netroot(&build).unwrap();
    let mut add = vec!["client", "add", MAC, "--image", "kiosk"];
    for argument in debian::KERNEL_ARGS {
        add.extend(["--arg", argument]);
    }
    let why = [&add[..], &["--mode", "persistent"]].concat();
    let why = lab.site.refused(&why).unwrap();
    assert!(why.contains("use mode shared"), "{why}");
    lab.site.netroot(&add).unwrap();
    let server = lab.serve();

    let client = lab.switch_on(MAC);
    // Not the usual stages: this kernel has no word about the mount of an EROFS.
    let said = client.serial().wait_for(UP, 0, BOOT_LIMIT).unwrap();
    lab.tell("the client is up");
    assert!(said.text.contains("root=overlay"), "{}", said.text);
    let kind = client.ask("run blkid -o value -s TYPE /dev/sda", ANSWER_LIMIT);
    assert_eq!(kind.unwrap(), "ran erofs");
    client.write_nonce("only-in-ram").unwrap();
    client.power_off().unwrap();

    server.stop().unwrap();
    lab.site.netroot(&["image", "verify", "kiosk"]).unwrap();
    lab.clean_up();
}
