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
use xtask::qemu::{ANSWER_LIMIT, Accelerator, BOOT_LIMIT, Machine, UP};
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

    // What it wrote becomes an image, which another machine boots while the server goes on.
    const OTHER: &str = "52:54:00:00:0a:02";
    lab.site
        .netroot(&["client", "promote", MAC, "promoted", "--yes"])
        .unwrap();
    lab.add_client_of(OTHER, "promoted", "ephemeral");
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

#[test]
fn a_disk_that_boots_itself_is_started_by_the_firmware_and_written_by_its_client() {
    const MAC: &str = "52:54:00:00:0d:01";
    const SAYS: &str = "NETROOT-LAB this was read from the second sector";
    let dir = lab_dir().join("boot-disk");
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let network = Network::create().unwrap();
    let library = dir.join("library");
    let site = Site::new(Path::new(env!("CARGO_BIN_EXE_netroot")), &library);
    site.netroot(&["init", "--host", "server-01.example.edu", "--yes"])
        .unwrap();
    let disk = dir.join("disk.raw");
    fs::write(&disk, speaking_disk(SAYS)).unwrap();
    let imported = ["image", "import", "dos", "--from", disk.to_str().unwrap()];
    site.netroot(&imported).unwrap();
    site.netroot(&[
        "client",
        "add",
        MAC,
        "--image",
        "dos",
        "--mode",
        "persistent",
    ])
    .unwrap();
    let server = site.serve(&network, &dir.join("serve.log")).unwrap();

    let log = dir.join("525400000d01.log");
    let machine = Machine::start(&network, MAC, Accelerator::Tcg, &log).unwrap();
    machine.serial().wait_for(SAYS, 0, RECONNECT).unwrap();
    machine.pull_the_plug();
    server.stop().unwrap();

    let copy = dir.join("copy.img");
    let opened = Library::open(&library, None).unwrap();
    let clone = opened.open_clone(&MAC.parse::<MacAddr>().unwrap()).unwrap();
    copy_disk(&*clone, &copy);
    let written = fs::read(&copy).unwrap();
    assert_eq!(
        written[1024..1536],
        written[512..1024],
        "what it wrote is on its disk"
    );
    assert!(written[512..].starts_with(SAYS.as_bytes()));
    site.netroot(&["image", "verify", "dos"]).unwrap();
    drop(opened);
    remove_library(&dir).unwrap();
}

/// A disk of 1 MiB with one partition. Its boot sector reads the second sector, where `says` is,
/// copies it to the third, and writes it to the serial line.
fn speaking_disk(says: &str) -> Vec<u8> {
    #[rustfmt::skip]
    const CODE: &[u8] = &[
        0x31, 0xc0,             // xor ax, ax
        0x8e, 0xd8,             // mov ds, ax
        0x8e, 0xc0,             // mov es, ax
        0x8e, 0xd0,             // mov ss, ax
        0xbc, 0x00, 0x7c,       // mov sp, 0x7c00
        0xfc,                   // cld
        0xb6, 0x00,             // mov dh, 0            head 0; dl is the drive
        0xb9, 0x02, 0x00,       // mov cx, 2            sector 2
        0xbb, 0x00, 0x80,       // mov bx, 0x8000
        0xb8, 0x01, 0x02,       // mov ax, 0x0201       read one
        0xcd, 0x13,             // int 0x13
        0xb9, 0x03, 0x00,       // mov cx, 3            sector 3
        0xb8, 0x01, 0x03,       // mov ax, 0x0301       write one
        0xcd, 0x13,             // int 0x13
        0xbe, 0x00, 0x80,       // mov si, 0x8000
        0xac,                   // next: lodsb
        0x84, 0xc0,             // test al, al
        0x74, 0x12,             // jz done
        0x88, 0xc4,             // mov ah, al
        0xba, 0xfd, 0x03,       // mov dx, 0x3fd        COM1's line status
        0xec,                   // wait: in al, dx
        0xa8, 0x20,             // test al, 0x20
        0x74, 0xfb,             // jz wait
        0xba, 0xf8, 0x03,       // mov dx, 0x3f8
        0x88, 0xe0,             // mov al, ah
        0xee,                   // out dx, al
        0xeb, 0xe9,             // jmp next
        0xf4,                   // done: hlt
        0xeb, 0xfd,             // jmp done
    ];
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(CODE);
    // One active partition of type Linux, from sector 64 to the end.
    disk[446] = 0x80;
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&64u32.to_le_bytes());
    disk[458..462].copy_from_slice(&(2048u32 - 64).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let line = format!("{says}\r\n");
    disk[512..512 + line.len()].copy_from_slice(line.as_bytes());
    disk
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
        self.add_client_of(mac, "deb12", mode);
    }

    fn add_client_of(&self, mac: &str, image: &str, mode: &str) {
        let mut add = vec!["client", "add", mac, "--image", image, "--mode", mode];
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
