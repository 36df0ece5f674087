//! Machines with nothing but their firmware find netroot by themselves: addresses come from a DHCP server
//! that knows nothing of it, what to boot from its ProxyDHCP, and the rest over TFTP and HTTP. Each ends
//! when the system that netroot gave speaks on the console.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netroot::library::{Library, Quiet, VersionFacts};
use xtask::guest::{Guest, STARTED};
use xtask::lab_dir;
use xtask::netns::{Leases, Network};
use xtask::qemu::{Accelerator, Machine, OnReset, Rom};
use xtask::server::{Server, Site, remove_library};
use xtask::uefi::write_no_variables;

/// Under software emulation on a busy host; it takes about 40 s.
const LIMIT: Duration = Duration::from_secs(300);

/// A site with one image, whose kernel and initramfs are those of the small guest.
struct Lab {
    dir: PathBuf,
    network: Network,
    site: Site,
    server: Option<Server>,
}

impl Lab {
    fn new(name: &str, mac: &str) -> Self {
        Self::with(name, mac, |_| ())
    }

    /// One whose library is made different before it is served.
    fn with(name: &str, mac: &str, change: impl Fn(&Site)) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this makes network namespaces, which needs root"
        );
        let dir = lab_dir().join(name);
        remove_library(&dir).unwrap();
        fs::create_dir_all(&dir).unwrap();
        let network = Network::with_addresses_only(Leases::Infinite).unwrap();
        let site = proxy_site(&dir);
        seal(&site);
        let mut add = vec!["client", "add", mac, "--image", "guest"];
        add.extend(["--arg", "console=ttyS0,115200n8", "--arg", "loglevel=3"]);
        add.extend(["--arg", "no_timer_check", "--arg", "panic=-1"]);
        site.netroot(&add).unwrap();
        change(&site);
        let server = site.serve(&network, &dir.join("serve.log")).unwrap();
        Lab {
            dir,
            network,
            site,
            server: Some(server),
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("client.log")
    }

    fn switch_on_uefi(&self, mac: &str, rom: Rom) -> Machine {
        let variables = self.dir.join("variables");
        write_no_variables(&variables).unwrap();
        Machine::start_uefi(&self.network, mac, rom, &variables, &self.log()).unwrap()
    }

    /// Waits for a line on the console.
    fn wait(&self, machine: &Machine, text: &str) {
        let said = machine.serial().wait_for(text, 0, LIMIT);
        let said = said.unwrap_or_else(|error| {
            let server = self.server.as_ref().unwrap().said();
            panic!("{error:#}\nserve said:\n{server}")
        });
        println!("after {:.1} s: {}", said.at.as_secs_f64(), said.text);
    }

    fn end(mut self) {
        self.server.take().unwrap().stop().unwrap();
        remove_library(self.site.library()).unwrap();
    }
}

/// A library whose server answers on the laboratory's bridge.
pub(crate) fn proxy_site(dir: &Path) -> Site {
    let site = Site::new(
        Path::new(env!("CARGO_BIN_EXE_netroot")),
        &dir.join("library"),
    );
    site.init().unwrap();
    site.answer_dhcp().unwrap();
    site
}

/// A version of the image `guest`. Nothing of its disk is read: the guest lives in its initramfs.
pub(crate) fn seal(site: &Site) {
    let (kernel, initramfs) = Guest::boot_files().unwrap();
    let library = Library::open(site.library(), None).unwrap();
    let mut draft = library.draft(&"guest".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.add_kernel(&mut File::open(kernel).unwrap()).unwrap();
    draft
        .add_initramfs(&mut File::open(initramfs).unwrap())
        .unwrap();
    let facts = VersionFacts {
        kernel_version: "6.1.0".into(),
        ..VersionFacts::default()
    };
    draft.seal(facts, &Quiet).unwrap();
}

#[test]
fn uefi_is_told_by_proxy_dhcp_and_fetches_ipxe_by_tftp() {
    const MAC: &str = "52:54:00:00:0d:01";
    let lab = Lab::new("netboot-pxe", MAC);
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
    let lab = Lab::new("netboot-http", MAC);
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
    let lab = Lab::new("netboot-fails", MAC);
    fs::remove_file(lab.site.kernel("guest")).unwrap();
    let machine = Machine::start(
        &lab.network,
        MAC,
        Accelerator::Tcg,
        OnReset::End,
        &lab.log(),
    )
    .unwrap();
    lab.wait(&machine, "/failed... ok");
    let told = || {
        let shown = lab.site.json(&["client", "show", MAC, "--boots"]).unwrap();
        shown[0]["told"].as_str().unwrap_or_default().to_owned()
    };
    let began = Instant::now();
    while !told().contains("iPXE could not do what its script says") {
        assert!(began.elapsed() < LIMIT, "{}", told());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(told().contains("https://ipxe.org/"), "{}", told());
    machine.pull_the_plug();
    lab.end();
}

/// All ROMs that QEMU has are iPXE, which is told the script at once; other ROMs are told `undionly.kpxe`.
/// The server has a certificate here, and this iPXE knows no HTTPS: it tries that way, and takes the other.
#[test]
fn ipxe_in_the_rom_of_a_bios_is_told_the_script_by_proxy_dhcp() {
    const MAC: &str = "52:54:00:00:0d:03";
    let lab = Lab::with("netboot-bios", MAC, |site| {
        let settings = site.library().join("netroot.toml");
        let text = fs::read_to_string(&settings).unwrap();
        let (theirs, made) = (
            "# tls = { certificate = \"/etc/ssl/boot.pem\"",
            "tls = \"made\" #",
        );
        assert!(text.contains(theirs), "{text}");
        fs::write(&settings, text.replace(theirs, made)).unwrap();
    });
    let machine = Machine::start(
        &lab.network,
        MAC,
        Accelerator::Tcg,
        OnReset::End,
        &lab.log(),
    )
    .unwrap();
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
