//! Real clients: a Debian image is built and served, and machines without a disk boot from it in QEMU.
//!
//! `cargo xtask test` runs this; by hand: `cargo test --test boot -- --nocapture`, as root. What the
//! clients' consoles and the servers say is kept under `target/lab`.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netroot::block::{Disk, load};
use netroot::library::{Library, MacAddr, Target};
use serde_json::Value;
use xtask::netns::{Network, SERVER};
use xtask::program::{command, run};
use xtask::qemu::{ANSWER_LIMIT, Accelerator, Machine};
use xtask::server::{Server, Site, remove_library};
use xtask::{debian, lab_dir};

/// A client that is switched off without a word is noticed by probes of its connection: 20 s.
const GONE: Duration = Duration::from_secs(45);
/// After a lost connection an initiator tries again every few seconds.
const RECONNECT: Duration = Duration::from_secs(90);

#[test]
fn a_persistent_client_keeps_its_disk_until_reset_and_gets_it_back_by_undo() {
    const MAC: &str = "52:54:00:00:0a:01";
    let lab = Lab::new("persistent", Storage::AsItIs);
    lab.add_client(MAC, "persistent");
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
    let lab = Lab::new("killed", Storage::Reflink);
    lab.add_client(EPHEMERAL, "ephemeral");
    lab.add_client(SHARED, "shared");
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

#[test]
fn a_shared_client_boots_from_a_compressed_image() {
    const MAC: &str = "52:54:00:00:0c:01";
    let lab = Lab::new("erofs", Storage::AsItIs);
    let tree = debian::tree().unwrap();
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
    let said = lab.wait_until_up(MAC, &client);
    assert!(said.contains("root=overlay"), "{said}");
    let kind = client.ask("run blkid -o value -s TYPE /dev/sda", ANSWER_LIMIT);
    assert_eq!(kind.unwrap(), "ran erofs");
    client.write_nonce("only-in-ram").unwrap();
    client.power_off().unwrap();

    server.stop().unwrap();
    lab.site.netroot(&["image", "verify", "kiosk"]).unwrap();
    lab.clean_up();
}

/// One library, one server, one network.
struct Lab {
    name: &'static str,
    dir: PathBuf,
    /// The file that the library's own file system is in, if it has one.
    xfs: PathBuf,
    site: Site,
    network: Network,
    accelerator: Accelerator,
    started: Instant,
}

/// Where the library lies.
enum Storage {
    /// On whatever file system the workspace is on: clones are reflinks or overlays.
    AsItIs,
    /// On an XFS of its own: clones are reflinks.
    Reflink,
}

impl Lab {
    fn new(name: &'static str, storage: Storage) -> Self {
        let started = Instant::now();
        assert!(
            nix::unistd::geteuid().is_root(),
            "boot tests need root: namespaces, mounts, chroots"
        );
        let tree = debian::tree().unwrap();
        let accelerator = Accelerator::find(&debian::kernel(&tree).unwrap());
        let dir = lab_dir().join(format!("boot-{name}"));
        remove_library(&dir).unwrap();
        fs::create_dir_all(&dir).unwrap();
        // Before the mount: `ip netns` makes mounts that everybody should see.
        let network = Network::create().unwrap();
        let (library, xfs) = (dir.join("library"), dir.join("xfs.img"));
        if matches!(storage, Storage::Reflink) {
            mount_xfs(&xfs, &library);
        }
        let site = Site::new(Path::new(env!("CARGO_BIN_EXE_netroot")), &library);
        let lab = Self {
            name,
            dir,
            xfs,
            site,
            network,
            accelerator,
            started,
        };
        lab.site
            .netroot(&["init", "--host", "server-01.example.edu", "--yes"])
            .unwrap();
        let tree = tree.to_string_lossy();
        lab.site
            .netroot(&["image", "build", "deb12", "--from", &tree])
            .unwrap();
        lab.tell("the image is built");
        lab
    }

    fn add_client(&self, mac: &str, mode: &str) {
        let mut add = vec!["client", "add", mac, "--image", "deb12", "--mode", mode];
        for argument in debian::KERNEL_ARGS {
            add.extend(["--arg", argument]);
        }
        self.site.netroot(&add).unwrap();
    }

    fn serve(&self) -> Server {
        let server = self
            .site
            .serve(&self.network, &self.dir.join("serve.log"))
            .unwrap();
        self.tell("the server answers");
        server
    }

    fn switch_on(&self, mac: &str) -> Machine {
        let count = fs::read_dir(&self.dir).unwrap().count();
        let log = self
            .dir
            .join(format!("{}-{count}.log", mac.replace(':', "")));
        Machine::start(&self.network, mac, self.accelerator, &log).unwrap()
    }

    fn wait_until_up(&self, mac: &str, machine: &Machine) -> String {
        let said = machine.boot(|stage, at| {
            self.tell(&format!("{mac} {:6.1} s  {stage}", at.as_secs_f64()));
        });
        // The server's side of a boot that failed is half of the story.
        said.unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", self.server_said()))
    }

    fn boot(&self, mac: &str) -> Machine {
        let machine = self.switch_on(mac);
        self.wait_until_up(mac, &machine);
        machine
    }

    fn wait_until_gone(&self, mac: &str) {
        self.site
            .wait_for_sessions(&mac.replace(':', ""), 0, GONE)
            .unwrap();
    }

    fn boot_id(&self, mac: &str) -> Value {
        let shown = self.site.json(&["client", "show", mac]).unwrap();
        let id = shown["boot"]["id"].clone();
        assert!(
            id.is_string(),
            "the document of a running client names its boot: {shown}"
        );
        id
    }

    /// Its sessions end and stay ended, although it tries again and again, and its disk does not answer.
    fn assert_locked_out(&self, mac: &str, client: &Machine) {
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
    fn nonce_in_a_copy(&self, mac: &str) -> String {
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
    fn assert_others_read_the_version(&self) {
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

    fn server_said(&self) -> String {
        fs::read_to_string(self.dir.join("serve.log")).unwrap_or_default()
    }

    fn tell(&self, what: &str) {
        println!(
            "{:10} {:6.1} s  {what}",
            self.name,
            self.started.elapsed().as_secs_f64()
        );
    }

    /// Only after success: what failed is looked at. The consoles stay in any case.
    fn clean_up(self) {
        self.tell("done");
        if self.xfs.exists() {
            run(&mut command("umount", [self.site.library()])).unwrap();
            fs::remove_file(&self.xfs).unwrap();
        }
        remove_library(self.site.library()).unwrap();
    }
}

/// Makes an XFS in the file `image` and mounts it for this thread and what it starts: the mount and its
/// loop device end with the thread, even if it is killed.
fn mount_xfs(image: &Path, mount_point: &Path) {
    File::create(image).unwrap().set_len(20 << 30).unwrap();
    run(command("mkfs.xfs", ["-q", "-m", "reflink=1"]).arg(image)).unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    run(&mut command("mount", ["--make-rprivate", "/"])).unwrap();
    fs::create_dir(mount_point).unwrap();
    run(command("mount", ["-o", "loop"]).args([image, mount_point])).unwrap();
}

/// Copies a disk into a sparse file.
fn copy_disk(disk: &dyn Disk, to: &Path) {
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
fn draw() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
