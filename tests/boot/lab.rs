//! One site: a library, a server, a network, machines.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netroot::block::{Disk, load};
use netroot::library::{Library, MacAddr, Target};
use serde_json::Value;
use xtask::mounts::{mount_privately, mount_xfs};
use xtask::netns::{Leases, Network, SERVER};
use xtask::program::{command, run};
use xtask::qemu::{ANSWER_LIMIT, Accelerator, Machine, OnReset, Rom};
use xtask::server::{Server, Site, remove_library};
use xtask::uefi::write_no_variables;
use xtask::{debian, lab_dir};

pub(crate) use xtask::debian::IMAGE;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_netroot");

/// A client that is switched off without a word is noticed by probes of its connection: 20 s.
const GONE: Duration = Duration::from_secs(45);
/// After a lost connection an initiator tries again every few seconds.
pub(crate) const RECONNECT: Duration = Duration::from_secs(90);

/// Whether a test is for long runs, in which so many minutes do not matter; it says so if this is none.
pub(crate) fn is_left_out(minutes: u32) -> bool {
    let left_out = std::env::var_os("NETROOT_LONG_TESTS").is_none();
    if left_out {
        println!("left out: takes {minutes} minutes (cargo xtask test --long)");
    }
    left_out
}

/// One library, one server, one network. Who gives the addresses there knows nothing of netroot.
pub(crate) struct Lab {
    name: &'static str,
    pub(crate) dir: PathBuf,
    /// The file that the library's own file system is in, if it has one.
    xfs: PathBuf,
    pub(crate) site: Site,
    pub(crate) network: Network,
    started: Instant,
}

/// Where the library lies.
pub(crate) enum Storage {
    /// On whatever file system the workspace is on: clones are reflinks or overlays.
    AsItIs,
    /// On an XFS of its own: clones are reflinks.
    Reflink,
}

impl Lab {
    /// A site with the image [`IMAGE`], the laboratory's quick one.
    pub(crate) fn with_debian(name: &'static str, storage: Storage) -> Self {
        let ready = debian::library(Path::new(BINARY)).unwrap();
        let lab = Self::new(name, storage, Leases::Infinite);
        debian::copy_library(&ready, lab.site.library()).unwrap();
        lab.site.answer_dhcp().unwrap();
        lab.tell("the image is there");
        lab
    }

    /// A site whose library is not made yet.
    pub(crate) fn new(name: &'static str, storage: Storage, leases: Leases) -> Self {
        let started = Instant::now();
        assert!(
            nix::unistd::geteuid().is_root(),
            "boot tests need root: namespaces, mounts, chroots"
        );
        let dir = lab_dir().join(format!("boot-{name}"));
        remove_library(&dir).unwrap();
        fs::create_dir_all(&dir).unwrap();
        // Before the mount: `ip netns` makes mounts that everybody should see.
        let network = Network::with_addresses_only(leases).unwrap();
        let (library, xfs) = (dir.join("library"), dir.join("xfs.img"));
        if matches!(storage, Storage::Reflink) {
            mount_xfs(&xfs, &library).unwrap();
        }
        let site = Site::new(Path::new(BINARY), &library);
        Self {
            name,
            dir,
            xfs,
            site,
            network,
            started,
        }
    }

    /// The tree of [`IMAGE`], to make another image of.
    pub(crate) fn mount_tree(&self) -> PathBuf {
        let disk = self.site.kernel(IMAGE).with_file_name("disk.img");
        let tree = self.dir.join("tree");
        mount_privately("loop,ro,nouuid", &disk, &tree).unwrap();
        tree
    }

    pub(crate) fn add_client(&self, mac: &str, image: &str, mode: &str) {
        let mut add = vec!["client", "add", mac, "--image", image, "--mode", mode];
        for argument in debian::KERNEL_ARGS {
            add.extend(["--arg", argument]);
        }
        self.site.netroot(&add).unwrap();
    }

    pub(crate) fn set(&self, mac: &str, settings: &[&str]) {
        let set = [&["client", "set", mac, "--yes"], settings].concat();
        self.site.netroot(&set).unwrap();
    }

    pub(crate) fn serve(&self) -> Server {
        let server = self
            .site
            .serve(&self.network, &self.dir.join("serve.log"))
            .unwrap();
        self.tell("the server answers");
        server
    }

    pub(crate) fn switch_on(&self, mac: &str) -> Machine {
        self.switch_on_with(mac, OnReset::End)
    }

    pub(crate) fn switch_on_with(&self, mac: &str, on_reset: OnReset) -> Machine {
        let accelerator = Accelerator::find(&self.site.kernel(IMAGE));
        Machine::start(&self.network, mac, accelerator, on_reset, &self.log(mac)).unwrap()
    }

    /// Switches on a machine with UEFI that has nothing to boot from but the network.
    pub(crate) fn switch_on_uefi(&self, mac: &str) -> Machine {
        let (variables, log) = (self.variables(), self.log(mac));
        Machine::start_uefi(&self.network, mac, Rom::None, &variables, &log).unwrap()
    }

    /// Switches on a machine with UEFI that boots from a stick.
    pub(crate) fn switch_on_stick(&self, mac: &str, stick: &Path) -> Machine {
        let (variables, log) = (self.variables(), self.log(mac));
        Machine::start_stick(&self.network, mac, stick, &variables, &log).unwrap()
    }

    /// UEFI's variables as a new machine has them.
    fn variables(&self) -> PathBuf {
        let variables = self.dir.join("variables");
        write_no_variables(&variables).unwrap();
        variables
    }

    /// Where the next machine's console is kept.
    pub(crate) fn log(&self, mac: &str) -> PathBuf {
        let count = fs::read_dir(&self.dir).unwrap().count();
        self.dir
            .join(format!("{}-{count}.log", mac.replace(':', "")))
    }

    pub(crate) fn wait_until_up(&self, mac: &str, machine: &Machine) -> String {
        let said = machine.boot(|stage, at| {
            self.tell(&format!("{mac} {:6.1} s  {stage}", at.as_secs_f64()));
        });
        // The server's side of a boot that failed is half of the story.
        said.unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", self.server_said()))
    }

    pub(crate) fn boot(&self, mac: &str) -> Machine {
        let machine = self.switch_on(mac);
        self.wait_until_up(mac, &machine);
        machine
    }

    pub(crate) fn wait_until_gone(&self, mac: &str) {
        self.site
            .wait_for_sessions(&mac.replace(':', ""), 0, GONE)
            .unwrap();
    }

    pub(crate) fn boot_id(&self, mac: &str) -> Value {
        let shown = self.site.json(&["client", "show", mac]).unwrap();
        let id = shown["boot"]["id"].clone();
        assert!(
            id.is_string(),
            "the document of a running client names its boot: {shown}"
        );
        id
    }

    /// What tells it from every other machine: its machine-id and its SSH host keys, as it has them.
    pub(crate) fn identity(&self, client: &Machine) -> String {
        let files = "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub";
        let said = client.ask(&format!("run {files}"), ANSWER_LIMIT).unwrap();
        assert!(said.contains(" ssh-ed25519 "), "{said}");
        said
    }

    /// Its sessions end and stay ended, although it tries again and again, and its disk does not answer.
    pub(crate) fn assert_locked_out(&self, mac: &str, client: &Machine) {
        let bare = mac.replace(':', "");
        self.site
            .wait_for_sessions(&bare, 0, Duration::from_secs(10))
            .unwrap();
        let asked = client.ask("touch after-the-fence", Duration::from_secs(20));
        assert!(asked.is_err(), "a fenced client wrote: {asked:?}");
        assert_eq!(self.site.sessions(&bare).unwrap(), Vec::<Value>::new());
        let said = self.server_said();
        assert!(
            said.contains("this boot was fenced"),
            "it was told why: {said}"
        );
    }

    /// The nonce in a copy of the client's clone, as the host sees it.
    pub(crate) fn nonce_in_a_copy(&self, mac: &str) -> String {
        let library = Library::open(self.site.library(), None).unwrap();
        let clone = library
            .open_clone(&mac.parse::<MacAddr>().unwrap())
            .unwrap();
        let copy = self.dir.join("copy.img");
        copy_disk(&*clone, &copy);
        // In a mount namespace of its own, so that nothing stays mounted whatever happens. The copy has
        // the same UUID as its version.
        let script = "mount -o loop,nouuid \"$0\" /mnt && cat /mnt/var/lib/netroot-lab.nonce";
        let mut look = command("unshare", ["--mount", "sh", "-c", script]);
        let nonce = run(look.arg(&copy)).unwrap();
        fs::remove_file(copy).unwrap();
        nonce.trim().to_owned()
    }

    /// An initiator of another make sees the version at an address that it can reach, no clone, and
    /// reads the same bytes as the file has.
    pub(crate) fn assert_others_read_the_version(&self) {
        let portal = format!("iscsi://{SERVER}");
        let list = |url: &str| run(self.network.command("iscsi-ls").args(["-s", url])).unwrap();
        let seen = list(&portal);
        let library = Library::open(self.site.library(), None).unwrap();
        let version = library.resolve(&"deb12".parse().unwrap()).unwrap();
        let target = library.target_name(&Target::Version(version.id().clone()));
        assert!(seen.contains(&format!("{target} ")), "{seen}");
        assert!(seen.contains(&format!("{SERVER}:3260")), "{seen}");
        assert!(
            !seen.contains("client-"),
            "clones are nobody else's business: {seen}"
        );
        let copy = self.dir.join("read.img");
        let url = format!("{portal}/{target}/1");
        let mut convert = self.network.command("qemu-img");
        convert
            .args(["convert", "-f", "raw", "-O", "raw", &url])
            .arg(&copy);
        run(&mut convert).unwrap();
        let same = run(&mut command("cmp", [&copy, &version.disk_path()]));
        assert!(same.is_ok(), "what was read differs: {same:?}");
        fs::remove_file(copy).unwrap();
    }

    pub(crate) fn server_said(&self) -> String {
        fs::read_to_string(self.dir.join("serve.log")).unwrap_or_default()
    }

    pub(crate) fn tell(&self, what: &str) {
        println!(
            "{:10} {:6.1} s  {what}",
            self.name,
            self.started.elapsed().as_secs_f64()
        );
    }

    /// Only after success: what failed is looked at. The consoles stay in any case.
    pub(crate) fn clean_up(self) {
        self.tell("done");
        if self.xfs.exists() {
            run(&mut command("umount", [self.site.library()])).unwrap();
            fs::remove_file(&self.xfs).unwrap();
        }
        remove_library(self.site.library()).unwrap();
    }
}

/// What a command in the client prints.
pub(crate) fn run_in(client: &Machine, command: &str) -> String {
    let said = client.ask(&format!("run {command}"), ANSWER_LIMIT).unwrap();
    said.strip_prefix("ran").unwrap().trim().to_owned()
}

/// The size of the file system on a client's data disk, once what mounts it has done all that it does.
pub(crate) fn data_disk(client: &Machine) -> u64 {
    let told = "findmnt --noheadings --bytes --output FSTYPE,LABEL,SIZE /data";
    let wait = format!("run systemctl start netroot-data.service && {told}");
    let said = client.ask(&wait, ANSWER_LIMIT).unwrap();
    let words: Vec<_> = said.split_whitespace().collect();
    let ["ran", "ext4", "DATA", size] = words[..] else {
        panic!("{said}");
    };
    size.parse().unwrap()
}

/// Copies a disk into a sparse file.
pub(crate) fn copy_disk(disk: &dyn Disk, to: &Path) {
    // Disks answer on the blocking threads of a runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let geometry = disk.geometry();
    let file = File::create(to).unwrap();
    let step = (4 << 20) / u64::from(geometry.block_size);
    for lba in (0..geometry.blocks).step_by(usize::try_from(step).unwrap()) {
        let extent = geometry
            .extent(lba, step.min(geometry.blocks - lba))
            .unwrap();
        let bytes = runtime.block_on(async {
            let segments = disk.read(extent).wait().await.unwrap();
            load(segments).wait().await.unwrap()
        });
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(&bytes, extent.offset()).unwrap();
        }
    }
    file.set_len(geometry.blocks * u64::from(geometry.block_size))
        .unwrap();
}

/// A word that no earlier run has written anywhere.
pub(crate) fn draw() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
