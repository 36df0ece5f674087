//! What is printed for DHCP servers that a site keeps, read by those servers themselves.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Site, stderr};

const SERVER: &str = "192.0.2.1";

/// Runs a program of the host that is to find no mistake in `file`.
fn finds_no_mistake(program: &str, arguments: &[&str], file: &Path, package: &str) {
    let place = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(program));
    let found = place.iter().find(|place| place.exists());
    let found = found.unwrap_or_else(|| panic!("install the package {package}"));
    let output = Command::new(found)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
}

/// One that listens where it does by itself.
fn site(dir: &Path) -> Site {
    let site = Site::new(dir);
    fs::write(&site.config, "").unwrap();
    site
}

#[test]
fn dnsmasq_takes_what_is_printed_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path());
    let text = site.ok(&["boot", "dnsmasq", "--server", SERVER]);
    for line in [
        "dhcp-boot=tag:netroot-ipxe,http://192.0.2.1:8080/boot.ipxe",
        "dhcp-match=set:netroot-efi-x64,option:client-arch,9",
        "dhcp-boot=tag:netroot-efi-x64,tag:!netroot-ipxe,ipxe-x64.efi,,192.0.2.1",
        "dhcp-boot=tag:netroot-http-x64,tag:!netroot-ipxe,http://192.0.2.1:8080/ipxe/ipxe-x64.efi",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
    let file = dir.path().join("netroot.conf");
    fs::write(&file, &text).unwrap();
    finds_no_mistake("dnsmasq", &["--test", "-C"], &file, "dnsmasq-base");
    let json = site.json(&["boot", "dnsmasq", "--server", SERVER]);
    assert_eq!(
        json["dnsmasq"].as_str().unwrap().trim_end(),
        text.trim_end()
    );
}

#[test]
fn kea_takes_what_is_printed_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path());
    let file = dir.path().join("kea.json");
    fs::write(&file, site.ok(&["boot", "kea", "--server", SERVER])).unwrap();
    finds_no_mistake("kea-dhcp4", &["-t"], &file, "kea-dhcp4-server");
    let json = site.json(&["boot", "kea", "--server", SERVER]);
    let classes = json["Dhcp4"]["client-classes"].as_array().unwrap();
    let bios = classes.iter().find(|class| class["name"] == "netroot-bios");
    let bios = bios.unwrap();
    assert_eq!(bios["next-server"], SERVER);
    assert_eq!(bios["boot-file-name"], "undionly.kpxe");
    assert_eq!(
        bios["test"],
        "not member('netroot-ipxe') and (option[93].hex == 0x0000)"
    );
}

#[test]
fn what_is_still_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path());
    let said = |site: &Site| stderr(&site.run(&["boot", "kea", "--server", SERVER]));
    assert!(said(&site).contains("[tftp] listen"), "{}", said(&site));
    let settings = site.library.join("netroot.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let tftp = text.replace("\nlisten = []\n", "\nlisten = [\"[::]:69\"]\n");
    let elsewhere = tftp.replace("/usr/lib/ipxe", "/nonexistent");
    fs::write(&settings, elsewhere).unwrap();
    let warned = said(&site);
    assert!(!warned.contains("[tftp] listen"), "{warned}");
    assert!(
        warned.contains("no iPXE for machines with UEFI on x86-64 in /nonexistent"),
        "{warned}"
    );
}
