//! Versions from disks that were made elsewhere.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use netroot::build::{
    self, Built, Change, ChangeRequest, DiskFormat, ImportRequest, Keep, Scrub, Watch,
};
use netroot::exec::{Cancel, Program, in_private_mounts};
use netroot::library::manifest::{BootFrom, TableKind};
use netroot::library::{Progress, Quiet};

use crate::site::{KERNEL, Site, StopAt, run, write};

const MIB: u64 = 1 << 20;

fn request(file: &Path) -> ImportRequest {
    ImportRequest::new("win".parse().unwrap(), file.to_owned())
}

fn import(site: &Site, request: &ImportRequest) -> anyhow::Result<Built> {
    build::import(&site.library, request, &Cancel::new(), &Quiet)
}

/// Why it is refused; nothing of it is left, and a plan says the same.
fn refused(site: &Site, request: &ImportRequest) -> String {
    let error = format!("{:#}", import(site, request).unwrap_err());
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
    error
}

/// A disk of 16 MiB with a GPT, boot code, and something in its partitions.
fn partitioned(site: &Site) -> PathBuf {
    let path = site.path("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(16 * MIB).unwrap();
    let script = "label: gpt\n,1M,21686148-6449-6E6F-744E-656564454649\n,4M,U\n,,L\n";
    let sfdisk = Program::new("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]);
    sfdisk.arg(&path).input(script).run().unwrap();
    file.write_all_at(&[0xeb, 0x63], 0).unwrap();
    file.write_all_at(b"a system", 9 * MIB).unwrap();
    path
}

fn converted(site: &Site, raw: &Path, format: &str, options: &[&str]) -> PathBuf {
    let path = site.path(&format!("disk.{format}"));
    let convert = Program::new("qemu-img").args(["convert", "-f", "raw", "-O", format]);
    convert
        .args(options.iter().copied())
        .arg(raw)
        .arg(&path)
        .run()
        .unwrap();
    path
}

#[test]
fn a_partitioned_disk_is_taken_as_it_is_from_every_format() {
    let site = Site::new();
    let raw = partitioned(&site);
    let bytes = fs::read(&raw).unwrap();
    let mut files = vec![raw.clone()];
    files.extend(["qcow2", "vmdk", "vhdx"].map(|format| converted(&site, &raw, format, &[])));
    // What streams write: compressed, and for VMware with its table at the end.
    let stream = site.path("stream");
    fs::create_dir(&stream).unwrap();
    let packed = stream.join("disk.vmdk");
    run(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "vmdk",
            "-o",
            "subformat=streamOptimized",
            raw.to_str().unwrap(),
            packed.to_str().unwrap(),
        ],
    );
    files.push(packed);
    for (number, file) in files.iter().enumerate() {
        let built = import(&site, &request(file)).unwrap();
        assert_eq!(
            built.version.number as usize,
            number + 1,
            "{}",
            file.display()
        );
        let version = site.version(&built.version.to_string());
        let BootFrom::Disk(table) = &version.manifest().boot else {
            panic!("{} has no kernel", file.display());
        };
        assert_eq!((table.kind, table.partitions), (TableKind::Gpt, 3));
        assert!(table.bios && table.efi);
        assert_eq!(version.boot_file("vmlinuz"), None);
        let disk = fs::read(version.disk_path()).unwrap();
        assert!(
            disk.starts_with(&bytes),
            "{} is another disk",
            file.display()
        );
        // VHDX has whole megabytes, VMDK whole grains.
        assert!(disk[bytes.len()..].iter().all(|&byte| byte == 0));
        assert!(
            version.manifest().disk.allocated < 4 * MIB,
            "holes were filled"
        );
        site.library.verify(version.id(), &Quiet).unwrap();
    }
    site.assert_clean();
}

#[test]
fn a_plan_tells_all_and_touches_nothing() {
    let site = Site::new();
    let disk = converted(&site, &partitioned(&site), "qcow2", &[]);
    let plan = build::plan_import(&site.library, &request(&disk), &Cancel::new()).unwrap();
    let text = plan.to_string();
    for part in [
        "A new version of win would be made:",
        "from qcow2 to a sparse disk of 16.0 MiB",
        "take it as it is: GPT with 3 partitions, for BIOS and EFI; clients boot it by sanboot",
        "hash, sync and publish it",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
}

/// A bare file system with the tree of `site` on it.
pub(crate) fn bare(site: &Site, mkfs: &[&str], tree: &Path) -> PathBuf {
    let path = site.path("bare.raw");
    File::create(&path).unwrap().set_len(320 * MIB).unwrap();
    let (program, args) = mkfs.split_first().unwrap();
    let made = Program::new(*program).args(args.iter().copied()).arg(&path);
    made.run().unwrap();
    let point = site.path("point");
    fs::create_dir_all(&point).unwrap();
    in_private_mounts(|mounts| {
        let kind = program.trim_start_matches("mkfs.");
        let cancel = Cancel::new();
        let mounted = mounts.image(&path, kind, &[], &point, &cancel).unwrap();
        let copy = Program::new("cp").arg("-a").arg(tree.join("."));
        copy.arg(mounted.path()).run().unwrap();
        mounted.unmount().unwrap();
    })
    .unwrap();
    path
}

#[test]
fn kernel_and_initramfs_of_a_bare_file_system_are_taken_out() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(
        &tree.join("etc/machine-id"),
        b"0123456789abcdef0123456789abcdef\n",
    );
    for (number, mkfs) in [
        vec!["mkfs.xfs", "-q", "-L", "ROOTFS"],
        vec!["mkfs.ext4", "-q", "-F", "-L", "ROOTFS"],
        vec!["mkfs.btrfs", "-q", "-L", "ROOTFS"],
    ]
    .iter()
    .enumerate()
    {
        let disk = bare(&site, mkfs, &tree);
        let disk = converted(&site, &disk, "qcow2", &["-c"]);
        let built = import(&site, &request(&disk)).unwrap();
        assert_eq!(built.version.number as usize, number + 1);
        let version = site.version(&built.version.to_string());
        let facts = &version.manifest().facts;
        assert!(mkfs[0].ends_with(&facts.filesystem.kind));
        assert_eq!(facts.filesystem.label, "ROOTFS");
        assert_eq!(facts.kernel_version, KERNEL);
        assert_eq!(facts.distribution.as_ref().unwrap().id, "debian");
        assert_eq!(facts.packages.as_ref().unwrap().len(), 1);
        assert_eq!(fs::read(version.kernel_path()).unwrap(), b"kernel");
        site.look_into(&version, |root| {
            assert!(root.join("etc/os-release").exists())
        });
        fs::remove_file(site.path("disk.qcow2")).unwrap();
    }
    site.assert_clean();
}

#[test]
fn what_it_holds_stays_where_that_is_asked_for() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(
        &tree.join("etc/machine-id"),
        b"0123456789abcdef0123456789abcdef\n",
    );
    let mut request = request(&bare(&site, &["mkfs.ext4", "-q", "-F"], &tree));
    request.scrub = Scrub::Nothing;
    let built = import(&site, &request).unwrap();
    let version = site.version(&built.version.to_string());
    assert!(version.manifest().facts.scrubbed.is_empty());
    site.look_into(&version, |root| {
        assert_eq!(fs::read(root.join("etc/machine-id")).unwrap().len(), 33);
    });
}

#[test]
fn nobodys_distribution_loses_what_no_two_clients_should_share() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(&tree.join("etc/os-release"), b"ID=homemade\n");
    write(
        &tree.join("etc/machine-id"),
        b"0123456789abcdef0123456789abcdef\n",
    );
    let gone = [
        "etc/ssh/ssh_host_rsa_key",
        "var/lib/systemd/random-seed",
        "var/lib/dhcp/dhclient.leases",
        "root/.ash_history",
    ];
    for path in gone {
        write(&tree.join(path), b"this machine's");
    }
    write(&tree.join("var/log/own/messages"), b"a line");
    // Without netroot's service nobody would write what a link leads to.
    let name = b"InitiatorName=iqn.2004-10.com.example:this\n";
    write(&tree.join("etc/iscsi/initiatorname.iscsi"), name);
    let built = import(
        &site,
        &request(&bare(&site, &["mkfs.ext4", "-q", "-F"], &tree)),
    )
    .unwrap();
    let version = site.version(&built.version.to_string());
    let facts = &version.manifest().facts;
    let scrubbed = [
        "machine-id",
        "SSH host keys",
        "random seed and credentials' key",
        "logs",
        "DHCP leases",
        "histories of shells and editors",
    ];
    assert_eq!(facts.scrubbed, scrubbed);
    site.look_into(&version, |root| {
        for path in gone {
            assert!(!root.join(path).exists(), "{path}");
        }
        assert_eq!(fs::read(root.join("etc/machine-id")).unwrap(), b"");
        assert!(root.join("var/log/own").is_dir());
        assert!(!root.join("var/log/own/messages").exists());
        let kept = fs::read(root.join("etc/iscsi/initiatorname.iscsi")).unwrap();
        assert_eq!(kept, name);
    });
}

#[test]
fn a_file_system_without_a_kernel_is_refused() {
    let site = Site::new();
    let tree = site.path("empty");
    write(&tree.join("etc/os-release"), b"ID=debian\n");
    let disk = bare(&site, &["mkfs.ext4", "-q", "-F"], &tree);
    let why = refused(&site, &request(&disk));
    assert!(why.contains("the tree has no kernel"), "{why}");
}

#[test]
fn no_path_on_an_imported_disk_leads_to_the_host() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let kernel = tree.join(format!("lib/modules/{KERNEL}/vmlinuz"));
    // What is there on the host, and not on the disk.
    let secret = site.path("secret");
    write(&secret, b"of the host");
    fs::remove_file(&kernel).unwrap();
    std::os::unix::fs::symlink(&secret, &kernel).unwrap();
    let ext4 = ["mkfs.ext4", "-q", "-F"];
    let why = refused(&site, &request(&bare(&site, &ext4, &tree)));
    assert!(why.contains("neither /lib/modules"), "{why}");
    // A device of the host: /dev/zero would be a kernel without end.
    fs::remove_file(&kernel).unwrap();
    run("mknod", &[kernel.to_str().unwrap(), "c", "1", "5"]);
    let why = refused(&site, &request(&bare(&site, &ext4, &tree)));
    assert!(
        why.contains("vmlinuz in ") && why.contains("Permission denied"),
        "{why}"
    );
    // All of /etc is the host's.
    fs::remove_file(&kernel).unwrap();
    write(&kernel, b"kernel");
    fs::remove_dir_all(tree.join("etc")).unwrap();
    std::os::unix::fs::symlink("/etc", tree.join("etc")).unwrap();
    fs::remove_dir_all(tree.join("usr/lib")).unwrap_or_default();
    let built = import(&site, &request(&bare(&site, &ext4, &tree))).unwrap();
    let version = site.version(&built.version.to_string());
    assert_eq!(version.manifest().facts.distribution, None);
    assert_eq!(fs::read(&secret).unwrap(), b"of the host");
    site.assert_clean();
}

/// Looks at every step, from where the disk is mounted, at the mounts, and tries to run the disk's
/// program.
#[derive(Default)]
struct Runs {
    seen: Mutex<Vec<(String, std::io::Result<std::process::ExitStatus>)>>,
}

impl Progress for Runs {
    fn step(&self, _: &str, _: Option<u64>) {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for line in mounts.lines() {
            // proc_pid_mountinfo(5): the fifth is the mount point, the sixth its options.
            let mut fields = line.split(' ').skip(4);
            let (point, options) = (fields.next().unwrap(), fields.next().unwrap());
            let program = Path::new(point).join("raise");
            if program.exists() {
                let run = std::process::Command::new(program).status();
                self.seen.lock().unwrap().push((options.to_owned(), run));
            }
        }
    }

    fn advance(&self, _: u64) {}
}

impl Watch for Runs {
    fn line(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}

#[test]
fn nothing_on_an_imported_disk_raises_anybody_while_it_is_looked_into() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let program = tree.join("raise");
    fs::copy("/usr/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    assert!(Program::new(&program).run().is_ok(), "it does run here");
    let disk = bare(&site, &["mkfs.ext4", "-q", "-F"], &tree);
    fs::remove_file(&program).unwrap();
    let runs = Runs::default();
    build::import(&site.library, &request(&disk), &Cancel::new(), &runs).unwrap();
    let seen = runs.seen.into_inner().unwrap();
    assert!(!seen.is_empty(), "the disk was never seen mounted");
    for (options, run) in seen {
        let has = |option| options.split(',').any(|own| own == option);
        assert!(has("nosuid") && has("nodev") && has("noexec"), "{options}");
        let error = run.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
    // It is on the disk as it was, and its owner is root.
    site.look_into(&site.version("win"), |root| {
        let found = fs::metadata(root.join("raise")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o4755, 0));
    });
    site.assert_clean();
}

/// A copy of a disk that is mounted and written: as if its machine had lost power.
fn pulled_from_its_machine(site: &Site, disk: &Path, kind: &str) -> PathBuf {
    let pulled = site.path("pulled.raw");
    let point = site.path("point");
    in_private_mounts(|mounts| {
        let cancel = Cancel::new();
        let mounted = mounts.image(disk, kind, &[], &point, &cancel).unwrap();
        write(&mounted.path().join("in-the-journal"), b"written last");
        // Logged, and not at its place.
        File::open(mounted.path()).unwrap().sync_all().unwrap();
        let file = File::open(mounted.path().join("in-the-journal")).unwrap();
        file.sync_all().unwrap();
        drop(file);
        fs::copy(disk, &pulled).unwrap();
        mounted.unmount().unwrap();
    })
    .unwrap();
    pulled
}

#[test]
fn a_journal_is_replayed_before_the_disk_is_sealed() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    for mkfs in [
        vec!["mkfs.xfs", "-q"],
        vec!["mkfs.ext4", "-q", "-F"],
        vec!["mkfs.btrfs", "-q"],
    ] {
        let kind = mkfs[0].trim_start_matches("mkfs.");
        let disk = bare(&site, &mkfs, &tree);
        let disk = pulled_from_its_machine(&site, &disk, kind);
        let built = import(&site, &request(&disk)).unwrap();
        assert!(
            built
                .warnings
                .iter()
                .any(|text| text.contains("not unmounted in order")),
            "{:?}",
            built.warnings
        );
        let version = site.version(&built.version.to_string());
        // Mounted without recovery: what the journal held is at its place.
        site.look_into(&version, |root| {
            assert_eq!(
                fs::read(root.join("in-the-journal")).unwrap(),
                b"written last"
            );
        });
    }
    site.assert_clean();
}

#[test]
fn a_file_that_names_others_is_refused_and_they_are_not_read() {
    let site = Site::new();
    let raw = partitioned(&site);
    let with = |options: &[&str]| {
        let path = site.path("hostile");
        let create = Program::new("qemu-img").arg("create");
        let create = create.args(options.iter().copied()).arg(&path).arg("16M");
        create.run().unwrap();
        path
    };
    let apart = format!(
        "data_file={},data_file_raw=on",
        site.path("apart").display()
    );
    for options in [
        // Read as raw, /etc/shadow would become the first blocks of an image that anybody may boot.
        &["-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw"][..],
        &[
            "-f",
            "qcow2",
            "-u",
            "-b",
            "nbd:192.0.2.1:10809",
            "-F",
            "raw",
        ],
        &["-f", "qcow2", "-o", &apart],
    ] {
        let disk = with(options);
        let why = refused(&site, &request(&disk));
        assert!(why.contains("it is not whole"), "{options:?}: {why}");
    }
    let secret = site.path("secret");
    write(&secret, b"secret of the host");
    run(
        "qemu-img",
        &[
            "create",
            "-f",
            "vmdk",
            site.path("base.vmdk").to_str().unwrap(),
            "16M",
        ],
    );
    let base = site.path("base.vmdk");
    let disk = with(&["-f", "vmdk", "-b", base.to_str().unwrap(), "-F", "vmdk"]);
    let why = refused(&site, &request(&disk));
    assert!(why.contains("it has a parent"), "{why}");
    let descriptor = site.path("flat.vmdk");
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW 32768 FLAT \"{}\" 0\n",
        secret.display()
    );
    write(&descriptor, text.as_bytes());
    let why = refused(&site, &request(&descriptor));
    assert!(why.contains("data is in other files"), "{why}");
    // The header says a sparse extent, without a capacity the descriptor decides.
    let embedded = site.path("embedded.vmdk");
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    bytes[28] = 1;
    bytes[512..512 + text.len()].copy_from_slice(text.as_bytes());
    write(&embedded, &bytes);
    let why = refused(&site, &request(&embedded));
    assert!(why.contains("only a descriptor"), "{why}");
    // A raw disk whose first block somebody made a qcow2 header: said to be raw, it is read as raw.
    let mut request = request(&with(&[
        "-f",
        "qcow2",
        "-u",
        "-b",
        "/etc/shadow",
        "-F",
        "raw",
    ]));
    request.format = Some(DiskFormat::Raw);
    let why = refused(&site, &request);
    assert!(why.contains("nobody knows what is on it"), "{why}");
    request.file = raw;
    request.format = Some(DiskFormat::Qcow2);
    let why = refused(&site, &request);
    assert!(why.contains("it is no qcow2"), "{why}");
}

#[test]
fn what_is_cut_off_is_refused() {
    let site = Site::new();
    let raw = partitioned(&site);
    let cut = |path: &Path, size: u64| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(size)
    };
    let qcow2 = converted(&site, &raw, "qcow2", &[]);
    // Clusters that the tables point to are gone.
    cut(&qcow2, fs::metadata(&qcow2).unwrap().len() / 2).unwrap();
    let why = refused(&site, &request(&qcow2));
    assert!(why.contains("disk.qcow2"), "{why}");
    cut(&raw, 8 * MIB).unwrap();
    let why = refused(&site, &request(&raw));
    assert!(why.contains("it is cut off"), "{why}");
    cut(&raw, 0).unwrap();
    refused(&site, &request(&raw));
}

#[test]
fn what_is_not_looked_into_is_not_changed_here() {
    let site = Site::new();
    import(&site, &request(&partitioned(&site))).unwrap();
    let change = ChangeRequest::new(
        "win".parse().unwrap(),
        "win".parse().unwrap(),
        vec![Change::Update],
    );
    let why = build::plan_change(&site.library, &change).unwrap_err();
    let why = why.to_string();
    assert!(
        why.contains("win@1 boots from its own disk (GPT with 3"),
        "{why}"
    );
    assert!(why.contains("client promote"), "{why}");
}

#[test]
fn stopping_leaves_nothing() {
    let site = Site::new();
    let disk = converted(&site, &partitioned(&site), "qcow2", &[]);
    for step in ["converting", "syncing", "hashing"] {
        let cancel = Cancel::new();
        let watch = StopAt {
            step,
            cancel: cancel.clone(),
        };
        let error = build::import(&site.library, &request(&disk), &cancel, &watch).unwrap_err();
        assert!(
            format!("{error:#}").contains("interrupted"),
            "{step}: {error:#}"
        );
        assert!(site.library.images().unwrap().is_empty());
        site.assert_clean();
    }
}

/// Keeps what a person is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn step(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

impl Watch for Told {
    fn line(&self, _: &str) {}
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[test]
fn an_import_that_failed_is_kept_if_asked() {
    let site = Site::new();
    let disk = site.path("root.img");
    File::create(&disk).unwrap().set_len(16 * MIB).unwrap();
    run("mkfs.ext4", &["-q", disk.to_str().unwrap()]);
    let mut request = request(&disk);
    // Nothing in it could boot.
    refused(&site, &request);
    request.keep = Keep::Failed;
    let told = Told::default();
    build::import(&site.library, &request, &Cancel::new(), &told).unwrap_err();
    let told = told.0.into_inner().unwrap().join("\n");
    let kept = crate::site::entries(&site.path("library/images/win"));
    let [kept] = kept.as_slice() else {
        panic!("{kept:?}");
    };
    let way = format!(
        "look inside by `mount -o loop,ro,nosuid,nodev,noload {} /mnt`",
        kept.join("disk.img").display()
    );
    assert!(told.contains(&way), "{told}");
    assert_eq!(fs::metadata(kept.join("disk.img")).unwrap().len(), 16 * MIB);
}
