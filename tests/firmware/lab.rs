//! A site whose machines find netroot by themselves: addresses come from a host beside it that knows
//! nothing of netroot, what to boot from its ProxyDHCP.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use netroot::library::{Library, Quiet, VersionFacts};
use serde_json::Value;
use xtask::lab_dir;
use xtask::netns::{Leases, Network, Station};
use xtask::qemu::{Accelerator, Machine, OnReset, Rom};
use xtask::server::{Server, Site, remove_library};
use xtask::tiny;
use xtask::uefi::write_no_variables;

/// Under software emulation on a busy host; it takes about 40 s.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// A library, and the server that answers for it on the laboratory's bridge.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) network: Network,
    pub(crate) site: Site,
    pub(crate) server: Server,
}

impl Lab {
    /// One with nothing in its library.
    pub(crate) fn empty(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    /// One with the image `guest`, which this client has.
    pub(crate) fn of_client(name: &str, mac: &str) -> Self {
        Self::with(name, |site| add_client(site, mac))
    }

    /// One whose library is made different before it is served.
    pub(crate) fn with(name: &str, change: impl FnOnce(&Site)) -> Self {
        let network = Network::with_addresses_only(Leases::Infinite);
        Self::within(network.unwrap(), name, change)
    }

    /// The same in a network of this kind.
    pub(crate) fn within(network: Network, name: &str, change: impl FnOnce(&Site)) -> Self {
        let dir = lab_dir().join(name);
        remove_library(&dir).unwrap();
        fs::create_dir_all(&dir).unwrap();
        let site = Site::new(
            Path::new(env!("CARGO_BIN_EXE_netroot")),
            &dir.join("library"),
        );
        site.init().unwrap();
        site.answer_dhcp().unwrap();
        change(&site);
        let server = site.serve(&network, &dir.join("serve.log")).unwrap();
        Lab {
            dir,
            network,
            site,
            server,
        }
    }

    /// The host that gives the addresses.
    pub(crate) fn beside(&self) -> &Station {
        self.network.beside().unwrap()
    }

    /// Where a machine's console is kept.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("client.log")
    }

    /// A machine with a BIOS and iPXE in its network card.
    pub(crate) fn switch_on_bios(&self, mac: &str) -> Machine {
        let (tcg, end) = (Accelerator::Tcg, OnReset::End);
        Machine::start(&self.network, mac, tcg, end, &self.log()).unwrap()
    }

    pub(crate) fn switch_on_uefi(&self, mac: &str, rom: Rom) -> Machine {
        let variables = self.dir.join("variables");
        write_no_variables(&variables).unwrap();
        Machine::start_uefi(&self.network, mac, rom, &variables, &self.log()).unwrap()
    }

    /// Waits for a line on the console.
    pub(crate) fn wait(&self, machine: &Machine, text: &str) {
        let said = machine.serial().wait_for(text, 0, LIMIT);
        let said =
            said.unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", self.server.said()));
        println!("after {:.1} s: {}", said.at.as_secs_f64(), said.text);
    }

    /// A client's boots, as the server tells them, the latest first.
    pub(crate) fn boots(&self, mac: &str) -> Vec<Value> {
        let shown = self.site.json(&["client", "show", mac, "--boots"]).unwrap();
        shown.as_array().unwrap().clone()
    }

    /// How the last one went, in words.
    pub(crate) fn told(&self, mac: &str) -> String {
        let told = &self.boots(mac)[0]["told"];
        told.as_str().unwrap_or_default().to_owned()
    }

    /// However often its firmware and its loader have asked, that was one boot, and none has failed.
    pub(crate) fn booted_once(&self, mac: &str) {
        let boots = self.boots(mac);
        assert_eq!(boots.len(), 1, "{boots:?}");
        assert_ne!(boots[0]["outcome"], "failed", "{boots:?}");
    }

    /// Ends it in good order.
    pub(crate) fn end(self) {
        self.server.stop().unwrap();
        remove_library(self.site.library()).unwrap();
    }
}

/// Adds the image `guest`, a system that tells what it was started with, and a client of it.
pub(crate) fn add_client(site: &Site, mac: &str) {
    add_client_of("amd64", "ttyS0,115200n8", site, mac);
}

/// The same of another architecture, whose first serial line is called otherwise.
pub(crate) fn add_client_of(architecture: &str, console: &str, site: &Site, mac: &str) {
    seal(site, tiny::boot_files(architecture).unwrap());
    let console = format!("console={console}");
    let mut add = vec!["client", "add", mac, "--image", "guest"];
    add.extend(["--arg", &console, "--arg", "loglevel=3"]);
    add.extend(["--arg", "no_timer_check", "--arg", "panic=-1"]);
    site.netroot(&add).unwrap();
}

/// A version of the image `guest`. Nothing of its disk is read: what boots lives in its initramfs.
pub(crate) fn seal(site: &Site, (kernel, initramfs): (PathBuf, PathBuf)) {
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

/// Has the settings say `to` in the line that begins so.
pub(crate) fn set(site: &Site, line: &str, to: &str) {
    let settings = site.library().join("netroot.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let mut found = 0;
    let mut changed = String::new();
    for own in text.lines() {
        let is_it = own.starts_with(line);
        found += u32::from(is_it);
        changed += if is_it { to } else { own };
        changed += "\n";
    }
    assert_eq!(found, 1, "lines that begin with {line}");
    fs::write(&settings, changed).unwrap();
}
