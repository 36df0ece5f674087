//! Clients with disks of their own, and with the version itself: what stays, what goes, and what a killed
//! server means to them.

use std::time::Duration;

use xtask::qemu::ANSWER_LIMIT;

use crate::lab::{IMAGE, Lab, RECONNECT, Storage, draw};

#[test]
fn a_persistent_client_keeps_its_disk_until_reset_and_gets_it_back_by_undo() {
    const MAC: &str = "52:54:00:00:0a:01";
    let lab = Lab::with_debian("persistent", Storage::AsItIs);
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

    lab.site
        .netroot(&["client", "reset", MAC, "--yes"])
        .unwrap();
    let client = lab.boot(MAC);
    assert_eq!(client.nonce().unwrap(), None, "after reset");
    client.power_off().unwrap();
    lab.wait_until_gone(MAC);

    lab.site.netroot(&["client", "undo", MAC, "--yes"]).unwrap();
    let client = lab.boot(MAC);
    assert_eq!(client.nonce().unwrap(), Some(nonce.clone()), "after undo");

    let why = lab
        .site
        .refused(&["client", "reset", MAC, "--yes"])
        .unwrap();
    assert!(
        why.contains("--force") && why.contains("--at-next-boot"),
        "{why}"
    );
    assert_eq!(
        client.nonce().unwrap(),
        Some(nonce),
        "a refused reset changes nothing"
    );

    lab.site
        .netroot(&["client", "reset", MAC, "--yes", "--force"])
        .unwrap();
    lab.assert_locked_out(MAC, &client);
    client.pull_the_plug();

    server.stop().unwrap();
    lab.clean_up();
}

#[test]
fn clients_outlive_a_killed_server_and_leave_the_version_as_it_is() {
    const EPHEMERAL: &str = "52:54:00:00:0b:01";
    const SHARED: &str = "52:54:00:00:0b:02";
    let lab = Lab::with_debian("killed", Storage::Reflink);
    lab.add_client(EPHEMERAL, IMAGE, "ephemeral");
    lab.add_client(SHARED, IMAGE, "shared");
    let server = lab.serve();
    let nonce = draw();

    let ephemeral = lab.switch_on(EPHEMERAL);
    let shared = lab.switch_on(SHARED);
    lab.wait_until_up(EPHEMERAL, &ephemeral);
    let said = lab.wait_until_up(SHARED, &shared);
    assert!(
        said.contains("root=overlay"),
        "writes of a shared client go to RAM: {said}"
    );
    shared.write_nonce("only-in-ram").unwrap();
    ephemeral.write_nonce(&nonce).unwrap();
    let boot = lab.boot_id(EPHEMERAL);

    server.kill().unwrap();
    let server = lab.serve();
    let touched = ephemeral.ask("touch after-the-kill", RECONNECT).unwrap();
    assert_eq!(touched, "touched after-the-kill");
    assert_eq!(
        ephemeral.nonce().unwrap(),
        Some(nonce),
        "a reconnect resets nothing"
    );
    assert_eq!(lab.boot_id(EPHEMERAL), boot, "it is the same boot");
    let read = shared.ask(
        "run dd if=/dev/sda of=/dev/null bs=1M count=8 iflag=direct",
        RECONNECT,
    );
    assert!(
        read.unwrap().contains("8+0 records in"),
        "the shared client reads on"
    );
    let only = shared
        .ask("run blockdev --getro /dev/sda", ANSWER_LIMIT)
        .unwrap();
    assert_eq!(only, "ran 1", "a version is read-only");
    shared.power_off().unwrap();
    ephemeral.power_off().unwrap();

    let ephemeral = lab.boot(EPHEMERAL);
    assert_eq!(
        ephemeral.nonce().unwrap(),
        None,
        "the next boot is pristine"
    );
    assert_ne!(lab.boot_id(EPHEMERAL), boot);
    ephemeral.pull_the_plug();

    lab.assert_others_read_the_version();
    let took = server.stop().unwrap();
    assert!(took < Duration::from_secs(10), "serve took {took:?} to end");
    lab.site.netroot(&["image", "verify", "deb12"]).unwrap();
    lab.clean_up();
}
