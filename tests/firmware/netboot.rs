//! Machines with nothing but their firmware find netroot by themselves: addresses come from a DHCP server
//! that knows nothing of it, what to boot from its ProxyDHCP, and the rest over TFTP and HTTP. Each ends
//! when the system that netroot gave speaks on the console.

use std::fs;
use std::time::{Duration, Instant};

use xtask::guest::STARTED;
use xtask::qemu::Rom;

use crate::lab::{LIMIT, Lab, add_client, set};

#[test]
fn uefi_is_told_by_proxy_dhcp_and_fetches_ipxe_by_tftp() {
    const MAC: &str = "52:54:00:00:0d:01";
    let lab = Lab::of_client("netboot-pxe", MAC);
    let machine = lab.switch_on_uefi(MAC, Rom::None);
    lab.wait(&machine, "NBP file downloaded successfully");
    lab.wait(&machine, "/boot.ipxe");
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}

#[test]
fn uefi_boots_by_http_alone() {
    const MAC: &str = "52:54:00:00:0d:02";
    let lab = Lab::of_client("netboot-http", MAC);
    let machine = lab.switch_on_uefi(MAC, Rom::HttpBoot);
    lab.wait(&machine, "/ipxe/ipxe-x64.efi");
    lab.wait(&machine, "/boot.ipxe");
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}

#[test]
fn a_boot_that_fails_in_ipxe_says_so_itself() {
    const MAC: &str = "52:54:00:00:0d:04";
    let lab = Lab::of_client("netboot-fails", MAC);
    fs::remove_file(lab.site.kernel("guest")).unwrap();
    let machine = lab.switch_on_bios(MAC);
    lab.wait(&machine, "/failed... ok");
    let told = || lab.told(MAC);
    let began = Instant::now();
    while !told().contains("iPXE could not do what its script says") {
        assert!(began.elapsed() < LIMIT, "{}", told());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(told().contains("https://ipxe.org/"), "{}", told());
    machine.pull_the_plug();
    lab.end();
}

/// All ROMs that QEMU has are iPXE, which is told the script at once. The server has a certificate here,
/// and this iPXE knows no HTTPS: it tries that way, and takes the other.
#[test]
fn ipxe_in_the_rom_of_a_bios_is_told_the_script_by_proxy_dhcp() {
    const MAC: &str = "52:54:00:00:0d:03";
    let lab = Lab::with("netboot-bios", |site| {
        add_client(site, MAC);
        set(site, "# tls = { certificate", "tls = \"made\"");
    });
    let machine = lab.switch_on_bios(MAC);
    lab.wait(&machine, "/boot.ipxe");
    // It was not built with HTTPS.
    lab.wait(
        &machine,
        "Could not start download: Operation not supported",
    );
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}
