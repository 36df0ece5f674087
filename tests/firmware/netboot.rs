//! Machines with nothing but their firmware find netroot by themselves: addresses come from a DHCP server
//! that knows nothing of it, what to boot from its ProxyDHCP, and the rest over TFTP and HTTP. Each ends
//! when the system that netroot gave speaks on the console.

use std::fs;
use std::time::{Duration, Instant};

use xtask::debs::unpacked;
use xtask::guest::STARTED;
use xtask::ipxe::write_plain_rom;
use xtask::netns::{Leases, Network};
use xtask::program::run;
use xtask::qemu::{Machine, Rom};

use crate::lab::{LIMIT, Lab, add_client, add_client_of, set};

impl Lab {
    /// One with a client of `guest`, on the host of a DHCP server that knows of netroot that it is there.
    fn beside_dhcp(name: &str, mac: &str) -> Self {
        let network = Network::with_dhcp_on_the_same_host(Leases::Infinite).unwrap();
        let lab = Self::within(network, name, |site| {
            add_client(site, mac);
            set(site, "mode = \"proxy\"", "mode = \"proxy-4011\"");
        });
        let sockets = run(lab.network.command("ss").args(["-Hnulp"])).unwrap();
        let own: Vec<&str> = sockets
            .lines()
            .filter(|one| one.contains("netroot"))
            .collect();
        let has = |port: &str| own.iter().any(|one| one.contains(port));
        assert!(has(":4011 ") && has(":69 ") && !has(":67 "), "{sockets}");
        lab
    }
}

#[test]
fn uefi_is_told_by_proxy_dhcp_and_fetches_ipxe_by_tftp() {
    const MAC: &str = "52:54:00:00:0d:01";
    let lab = Lab::of_client("netboot-pxe", MAC);
    let machine = lab.switch_on_uefi(MAC, Rom::None);
    lab.wait(&machine, "NBP file downloaded successfully");
    lab.wait(&machine, "/boot.ipxe");
    lab.wait(&machine, STARTED);
    let boot = &lab.boots(MAC)[0];
    let steps = boot["steps"].as_array().unwrap().iter();
    let stages: Vec<&str> = steps.filter_map(|step| step["stage"].as_str()).collect();
    assert_eq!(
        stages[..4],
        ["dhcp", "loader", "script", "kernel"],
        "{boot}"
    );
    lab.booted_once(MAC);
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
    says_that_it_fails("netboot-fails", "52:54:00:00:0d:04", &[], "boot.cfg, ", 1);
}

#[test]
fn a_boot_that_fails_with_its_disk_attached_says_so_too() {
    let way = ["--way", "ibft"];
    let did = "boot.cfg, its firmware logged in, ";
    says_that_it_fails("netboot-fails-ibft", "52:54:00:00:0d:0a", &way, did, 1);
}

/// The menu comes back, and the next try finds nothing that the first one has left.
#[test]
fn a_boot_that_fails_behind_a_menu_says_so_each_time() {
    let set = ["--menu", "always", "--menu-timeout", "1", "--way", "ibft"];
    let did = "boot.cfg, its firmware logged in, ";
    says_that_it_fails("netboot-fails-menu", "52:54:00:00:0d:0b", &set, did, 2);
}

/// A machine that is set to boot so finds no kernel, and tells that after what it did last, in so many tries.
fn says_that_it_fails(name: &str, mac: &str, settings: &[&str], did: &str, tries: usize) {
    let lab = Lab::of_client(name, mac);
    let set = [&["client", "set", mac], settings];
    if !settings.is_empty() {
        lab.site.netroot(&set.concat()).unwrap();
    }
    fs::remove_file(lab.site.kernel("guest")).unwrap();
    let machine = lab.switch_on_bios(mac);
    let words = format!("{did}iPXE could not fetch the kernel: ");
    let is_it = |told: &str| told.contains(&words) && told.contains("(https://ipxe.org/");
    let began = Instant::now();
    loop {
        let boots = lab.boots(mac);
        let told = boots.iter().filter_map(|boot| boot["told"].as_str());
        if told.filter(|told| is_it(told)).count() >= tries {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{boots:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
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

/// The ROM is Debian 12's iPXE, which does not say so: a PXE ROM like any other, by what it sends and by the
/// interface (UNDI) that it has for what it loads.
#[test]
fn any_other_rom_of_a_bios_fetches_undionly_and_that_goes_on_with_the_script() {
    const MAC: &str = "52:54:00:00:0d:05";
    let lab = Lab::of_client("netboot-rom", MAC);
    let rom = lab.dir.join("plain.rom");
    write_plain_rom(&rom).unwrap();
    let machine = Machine::start_rom(&lab.network, MAC, &rom, &lab.log()).unwrap();
    lab.wait(&machine, "Filename: undionly.kpxe");
    lab.wait(&machine, "/undionly.kpxe... ok");
    lab.wait(&machine, "using undionly on");
    lab.wait(&machine, "/boot.ipxe... ok");
    lab.wait(&machine, STARTED);
    lab.booted_once(MAC);
    machine.pull_the_plug();
    lab.end();
}

/// The DHCP server of the same host has the port that a ProxyDHCP server would need: it sends machines to
/// the other one.
#[test]
fn a_rom_asks_on_port_4011_where_the_dhcp_server_sends_it_there() {
    const MAC: &str = "52:54:00:00:0d:06";
    let lab = Lab::beside_dhcp("netboot-4011-rom", MAC);
    let rom = lab.dir.join("plain.rom");
    write_plain_rom(&rom).unwrap();
    let machine = Machine::start_rom(&lab.network, MAC, &rom, &lab.log()).unwrap();
    lab.wait(&machine, "/undionly.kpxe... ok");
    lab.wait(&machine, "/boot.ipxe... ok");
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}

#[test]
fn uefi_asks_on_port_4011_where_the_dhcp_server_sends_it_there() {
    const MAC: &str = "52:54:00:00:0d:07";
    let lab = Lab::beside_dhcp("netboot-4011-uefi", MAC);
    let machine = lab.switch_on_uefi(MAC, Rom::None);
    lab.wait(&machine, "NBP file downloaded successfully");
    lab.wait(&machine, "/boot.ipxe");
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}

#[test]
fn uefi_on_arm64_fetches_its_own_ipxe_and_boots() {
    const MAC: &str = "52:54:00:00:0d:09";
    // Debian 12's package has no iPXE for it.
    let packaged = unpacked("trixie", "ipxe").unwrap().join("usr/lib/ipxe");
    let lab = Lab::with("netboot-arm64", |site| {
        add_client_of("arm64", "ttyAMA0", site, MAC);
        let dir = format!("ipxe_dir = \"{}\"", packaged.display());
        set(site, "ipxe_dir = ", &dir);
    });
    let variables = lab.dir.join("variables");
    let machine = Machine::start_arm64(&lab.network, MAC, &variables, &lab.log()).unwrap();
    lab.wait(&machine, "NBP filename is ipxe-arm64.efi");
    lab.wait(&machine, "/boot.ipxe... ok");
    lab.wait(&machine, "This is aarch64");
    lab.wait(&machine, STARTED);
    machine.pull_the_plug();
    lab.end();
}
