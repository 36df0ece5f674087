//! A machine with UEFI that shares its disk with everybody: it comes by the network, then by a stick, and
//! is the same machine.

use std::path::{Path, PathBuf};

use xtask::debs::unpacked;
use xtask::netns::SERVER;
use xtask::qemu::{ANSWER_LIMIT, Machine};

use crate::lab::{IMAGE, Lab, Storage, data_disk};

#[test]
fn a_shared_client_is_the_same_by_uefi_from_the_network_and_from_a_stick() {
    const MAC: &str = "52:54:00:00:0c:11";
    let lab = Lab::with_debian("uefi", Storage::AsItIs);
    lab.add_client(MAC, IMAGE, "shared");
    lab.set(MAC, &["--data", "128M"]);
    let server = lab.serve();

    let client = lab.switch_on_uefi(MAC);
    let said = lab.wait_until_up(MAC, &client);
    assert!(
        said.contains("root=overlay"),
        "writes of a shared client go to RAM: {said}"
    );
    let lines = console(&client);
    // The firmware's words: it was told by ProxyDHCP, and fetched iPXE by TFTP.
    assert!(lines.contains("NBP file downloaded successfully"));
    assert!(lines.contains("/images/deb12/1/vmlinuz-"), "{lines}");
    client.write_nonce("only-in-ram").unwrap();
    let only = client.ask("run blockdev --getro /dev/sda", ANSWER_LIMIT);
    assert_eq!(only.unwrap(), "ran 1", "a version is read-only");
    // Its data disk has a target of its own, which the system logs in to beside the version's.
    let size = data_disk(&client);
    assert!((64 << 20..128 << 20).contains(&size), "{size} bytes");
    let sessions = lab.site.sessions(&MAC.replace(':', "")).unwrap();
    let targets: Vec<&str> = sessions
        .iter()
        .map(|session| session["target"].as_str().unwrap())
        .collect();
    let is_open = |end: &str| targets.iter().any(|target| target.ends_with(end));
    assert!(
        is_open(":deb12.1") && is_open(":client-525400000c11"),
        "{targets:?}"
    );
    let identity = lab.identity(&client);
    client.power_off().unwrap();
    lab.wait_until_gone(MAC);

    lab.set(MAC, &["--way", "esp"]);
    let stick = export(&lab, MAC);
    let client = lab.switch_on_stick(MAC, &stick);
    lab.wait_until_up(MAC, &client);
    let lines = console(&client);
    assert!(lines.contains("file:///linux/vmlinuz-"), "{lines}");
    assert!(
        !lines.contains("/images/deb12/1/vmlinuz-"),
        "its kernel is on the stick: {lines}"
    );
    assert_eq!(client.nonce().unwrap(), None, "RAM forgets");
    assert_eq!(lab.identity(&client), identity);
    client.power_off().unwrap();

    server.stop().unwrap();
    lab.site.netroot(&["image", "verify", IMAGE]).unwrap();
    lab.clean_up();
}

/// Debian 12's iPXE knows no `autoexec.ipxe`; the next release's does.
fn export(lab: &Lab, mac: &str) -> PathBuf {
    let ipxe = unpacked("trixie", "ipxe").unwrap();
    let ipxe = ipxe.join("usr/lib/ipxe/ipxe-amd64.efi");
    let stick = lab.dir.join("stick.img");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (to, loader) = (text(&stick), text(&ipxe));
    let of = ["--client", mac, "--server", SERVER, "--ipxe", &loader];
    lab.site
        .netroot(&[&["esp", "export", &to], &of[..]].concat())
        .unwrap();
    stick
}

fn console(client: &Machine) -> String {
    client.serial().lines(0).join("\n")
}
