//! Versions from what clients made of their disks.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use netroot::block::{Disk, load};
use netroot::build::{
    self, Asked, Built, Changes, FileSystem, InitramfsCheck, Keep, PromoteRequest, Scrub,
};
use netroot::exec::{Cancel, Program, in_private_mounts};
use netroot::library::manifest::BootFrom;
use netroot::library::{
    Actor, Live, LiveSession, MacAddr, Mode, NewClient, NoServer, Quiet, Version,
};

use crate::site::{KERNEL, Site, StopAt, run, write};

pub(crate) const MAC: &str = "52:54:00:12:34:56";
const NEWER: &str = "6.1.0-22-amd64";

/// Nobody is connected, and everybody agrees, unless it is said otherwise.
#[derive(Default)]
struct Person {
    sessions: Vec<LiveSession>,
    refuses: bool,
    /// What they were shown.
    shown: Mutex<Option<Changes>>,
}

impl Asked for Person {
    fn sessions(&self) -> anyhow::Result<Vec<LiveSession>> {
        Ok(self.sessions.clone())
    }

    fn agree(&self, changes: Option<&Changes>) -> anyhow::Result<()> {
        *self.shown.lock().unwrap() = changes.cloned();
        anyhow::ensure!(!self.refuses, "nothing was done");
        Ok(())
    }
}

/// A library with `fc28@1` on a small disk, and a persistent client of it.
pub(crate) fn site_with_client(filesystem: FileSystem) -> Site {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(&tree.join("etc/machine-id"), b"");
    let mut request = site.request(&tree);
    request.filesystem = filesystem;
    site.build(&request).unwrap();
    add_client(&site, "fc28");
    site
}

fn add_client(site: &Site, image: &str) {
    let new = NewClient {
        mac: MAC.parse().unwrap(),
        name: Some("lab-07".parse().unwrap()),
        image: image.parse().unwrap(),
        mode: Mode::Persistent,
        args: Vec::new(),
        groups: Default::default(),
        settings: Default::default(),
    };
    let nobody = NoServer::new(site.library.live_lock().unwrap());
    site.library
        .add_client(&new, &nobody, &Actor::command())
        .unwrap();
}

fn mac() -> MacAddr {
    MAC.parse().unwrap()
}

fn request(image: &str) -> PromoteRequest {
    PromoteRequest {
        client: mac(),
        image: image.parse().unwrap(),
        check: InitramfsCheck::Refuse,
        scrub: Scrub::ByRecipe,
        keep: Keep::Nothing,
        by: Actor::command(),
    }
}

fn promote(site: &Site, request: &PromoteRequest) -> anyhow::Result<Built> {
    let person = Person::default();
    build::promote(&site.library, request, &person, &Cancel::new(), &Quiet)
}

/// All bytes of a disk in a sparse file.
fn save(disk: &dyn Disk, to: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let geometry = disk.geometry();
    let file = File::create(to).unwrap();
    for lba in (0..geometry.blocks).step_by(8192) {
        let blocks = 8192.min(geometry.blocks - lba);
        let extent = geometry.extent(lba, blocks).unwrap();
        let bytes = runtime.block_on(async {
            let segments = disk.read(extent).wait().await.unwrap();
            load(segments).wait().await.unwrap()
        });
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(&bytes, extent.offset()).unwrap();
        }
    }
    file.set_len(geometry.blocks * 512).unwrap();
}

/// Writes what differs between two files to a disk, as its client would.
fn write_changes(disk: &dyn Disk, before: &[u8], after: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let blocks = before.chunks(512).zip(after.chunks(512)).enumerate();
    runtime.block_on(async {
        for (lba, (_, new)) in blocks.filter(|(_, (old, new))| old != new) {
            let extent = disk.geometry().extent(lba as u64, 1).unwrap();
            let written = disk.write(extent, vec![new.to_vec().into()]);
            written.wait().await.unwrap();
        }
        disk.flush().wait().await.unwrap();
    });
}

/// How a client leaves its disk.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Left {
    ShutDown,
    PulledOff,
}

/// What a client does to its files, by a mount of its own.
pub(crate) fn as_the_client(site: &Site, left: Left, act: impl FnOnce(&Path) + Send) {
    let (before, after) = (site.path("before.img"), site.path("after.img"));
    let disk = site.library.open_clone(&mac()).unwrap();
    save(disk.as_ref(), &before);
    fs::copy(&before, &after).unwrap();
    let point = site.path("client");
    fs::create_dir_all(&point).unwrap();
    let kind = site
        .version("fc28@1")
        .manifest()
        .facts
        .filesystem
        .kind
        .clone();
    let options: &[&str] = if kind == "xfs" { &["nouuid"] } else { &[] };
    in_private_mounts(|mounts| {
        let cancel = Cancel::new();
        let mounted = mounts
            .image(&after, &kind, options, &point, &cancel)
            .unwrap();
        act(mounted.path());
        if left == Left::PulledOff {
            // In the journal, and not at its place.
            run("sync", &["-f", point.to_str().unwrap()]);
            let pulled = site.path("pulled.img");
            fs::copy(&after, &pulled).unwrap();
            mounted.unmount().unwrap();
            fs::rename(pulled, &after).unwrap();
        } else {
            mounted.unmount().unwrap();
        }
    })
    .unwrap();
    let bytes = |path: &PathBuf| fs::read(path).unwrap();
    write_changes(disk.as_ref(), &bytes(&before), &bytes(&after));
}

/// A newer kernel with its initramfs, and what every machine has of its own.
fn upgrade_a_little(root: &Path) {
    let modules = root.join("lib/modules");
    write(&modules.join(NEWER).join("vmlinuz"), b"newer kernel");
    let initramfs = crate::site::initramfs(NEWER);
    write(&root.join(format!("boot/initrd.img-{NEWER}")), &initramfs);
    write(&root.join("opt/tool"), b"installed by hand");
    write(
        &root.join("etc/machine-id"),
        b"0123456789abcdef0123456789abcdef\n",
    );
    write(&root.join("etc/ssh/ssh_host_ed25519_key"), b"secret");
    write(&root.join("var/cache/apt/archives/tool_1_all.deb"), b"deb");
    write(&root.join("var/cache/apt/archives/lock"), b"");
    write(&root.join("var/lib/apt/lists/x_InRelease"), b"list");
}

fn assert_promoted(site: &Site, version: &Version) {
    let facts = &version.manifest().facts;
    assert_eq!(facts.parent.as_ref().unwrap().to_string(), "fc28@1");
    assert_eq!(facts.source, "the disk of client lab-07");
    assert_eq!(facts.kernel_version, NEWER);
    assert_eq!(fs::read(version.kernel_path()).unwrap(), b"newer kernel");
    for scrubbed in [
        "machine-id",
        "SSH host keys",
        "downloaded packages",
        "package lists",
    ] {
        assert!(
            facts.scrubbed.iter().any(|what| what == scrubbed),
            "{:?}",
            facts.scrubbed
        );
    }
    site.look_into(version, |root| {
        assert_eq!(
            fs::read(root.join("opt/tool")).unwrap(),
            b"installed by hand"
        );
        assert_eq!(fs::read(root.join("etc/machine-id")).unwrap(), b"");
        assert!(!root.join("etc/ssh/ssh_host_ed25519_key").exists());
        let archives = crate::site::entries(&root.join("var/cache/apt/archives"));
        assert_eq!(archives, [root.join("var/cache/apt/archives/lock")]);
        let lists = crate::site::entries(&root.join("var/lib/apt/lists"));
        assert!(lists.is_empty(), "{lists:?}");
    });
    site.library.verify(version.id(), &Quiet).unwrap();
    site.library
        .verify(site.version("fc28@1").id(), &Quiet)
        .unwrap();
}

#[test]
fn what_a_client_made_of_its_disk_becomes_a_version_and_stays_its_own() {
    for filesystem in [FileSystem::Xfs, FileSystem::Ext4, FileSystem::Btrfs] {
        let site = site_with_client(filesystem);
        as_the_client(&site, Left::ShutDown, upgrade_a_little);
        let (before, after) = (site.path("1.img"), site.path("2.img"));
        save(site.library.open_clone(&mac()).unwrap().as_ref(), &before);
        let client = site.library.client(&mac()).unwrap();

        let built = promote(&site, &request("fc28")).unwrap();
        assert_eq!(built.version.to_string(), "fc28@2");
        assert!(!built.warnings.iter().any(|text| text.contains("journal")));
        assert_promoted(&site, &site.version("fc28@2"));
        let built = promote(&site, &request("tools")).unwrap();
        assert_eq!(built.version.to_string(), "tools@1");

        save(site.library.open_clone(&mac()).unwrap().as_ref(), &after);
        let same = Program::new("cmp").args([&before, &after]).run();
        assert!(same.is_ok(), "the client's own disk was changed: {same:?}");
        assert_eq!(site.library.client(&mac()).unwrap(), client);
        site.assert_clean();
    }
}

#[test]
fn the_journal_of_a_client_that_lost_power_is_replayed() {
    for filesystem in [FileSystem::Xfs, FileSystem::Ext4] {
        let site = site_with_client(filesystem);
        as_the_client(&site, Left::PulledOff, upgrade_a_little);
        let built = promote(&site, &request("fc28")).unwrap();
        let warned = |text: &String| text.contains("not unmounted in order");
        assert!(built.warnings.iter().any(warned), "{:?}", built.warnings);
        assert_promoted(&site, &site.version("fc28@2"));
        site.assert_clean();
    }
}

#[test]
fn it_is_copied_by_reflink_where_the_library_lies_on_xfs() {
    let site = Site::new();
    let (image, point) = (site.path("library.img"), site.path("library"));
    File::create(&image).unwrap().set_len(4 << 30).unwrap();
    run("mkfs.xfs", &["-q", image.to_str().unwrap()]);
    in_private_mounts(|mounts| {
        // On top of the library that the site has.
        let cancel = Cancel::new();
        let mounted = mounts.image(&image, "xfs", &[], &point, &cancel).unwrap();
        let command = |args: &[&str]| {
            let program = Program::new(env!("CARGO_BIN_EXE_netroot"));
            let program = program
                .arg("--json")
                .arg("--library")
                .arg(point.join("lib"));
            program.args(args.iter().copied()).run().unwrap().text()
        };
        command(&["init", "--host", "server-01.example.edu"]);
        let tree = site.tree(KERNEL);
        command(&["image", "build", "fc28", "--from", tree.to_str().unwrap()]);
        command(&["client", "add", MAC, "--image", "fc28", "-m", "persistent"]);
        let clone = point.join("lib/clones/525400123456/disk.img");
        let inside = site.path("inside");
        fs::create_dir(&inside).unwrap();
        let disk = mounts
            .image(&clone, "xfs", &["nouuid"], &inside, &cancel)
            .unwrap();
        upgrade_a_little(disk.path());
        disk.unmount().unwrap();
        let free = || {
            let room = nix::sys::statvfs::statvfs(&point).unwrap();
            room.blocks_available() * room.fragment_size()
        };
        let before = free();
        command(&["client", "promote", MAC, "fc28", "--yes"]);
        // A whole copy of the disk would be tens of megabytes.
        assert!(before - free() < 8 << 20, "{} bytes", before - free());
        let shown = command(&["image", "show", "fc28@2"]);
        assert!(shown.contains(NEWER), "{shown}");
        for file in ["images/fc28/1/disk.img", "images/fc28/2/disk.img"] {
            // Sealed files are immutable there, and go with the mount.
            assert_eq!(
                fs::metadata(point.join("lib").join(file)).unwrap().mode() & 0o222,
                0
            );
        }
        mounted.unmount().unwrap();
    })
    .unwrap();
}

#[test]
fn a_client_that_is_connected_is_not_promoted() {
    let site = site_with_client(FileSystem::Ext4);
    let session = LiveSession {
        initiator: String::from("iqn.2026-01.edu.example:client-525400123456.1"),
        peer: "192.0.2.7:1024".parse().unwrap(),
        client: Some(mac()),
        boot: None,
        version: "fc28@1".parse().unwrap(),
        since: jiff::Timestamp::now(),
        firmware: false,
    };
    let person = Person {
        sessions: vec![session],
        ..Person::default()
    };
    let promoted = build::promote(
        &site.library,
        &request("fc28"),
        &person,
        &Cancel::new(),
        &Quiet,
    );
    let why = promoted.unwrap_err().to_string();
    assert!(why.contains("192.0.2.7:1024 has its disk open"), "{why}");
    assert_eq!(site.library.images().unwrap()[0].versions, [1]);
    site.assert_clean();
    // Nothing holds it any more.
    drop(site.library.hold_clone(&mac()).unwrap());
}

#[test]
fn whoever_does_not_agree_gets_nothing() {
    let site = site_with_client(FileSystem::Ext4);
    as_the_client(&site, Left::ShutDown, upgrade_a_little);
    let person = Person {
        refuses: true,
        ..Person::default()
    };
    let promoted = build::promote(
        &site.library,
        &request("new"),
        &person,
        &Cancel::new(),
        &Quiet,
    );
    assert_eq!(promoted.unwrap_err().to_string(), "nothing was done");
    assert!(site.library.image(&"new".parse().unwrap()).is_err());
    // What it was asked about: all that the client did, before anything was scrubbed.
    let shown = person.shown.into_inner().unwrap().unwrap();
    let added: Vec<_> = shown
        .files
        .added
        .iter()
        .map(|entry| entry.path.as_path())
        .collect();
    for path in ["opt/tool", "etc/ssh/ssh_host_ed25519_key"] {
        assert!(added.contains(&Path::new(path)), "{path} in {added:?}");
    }
    let changed: Vec<_> = shown
        .files
        .changed
        .iter()
        .map(|one| one.path.as_path())
        .collect();
    assert!(
        changed.contains(&Path::new("etc/machine-id")),
        "{changed:?}"
    );
    assert!(shown.files.removed.is_empty());
    assert!(shown.packages.unwrap().is_empty());
    site.assert_clean();
}

#[test]
fn stopping_leaves_nothing_and_holds_nobody() {
    let site = site_with_client(FileSystem::Xfs);
    for step in ["copying", "checking", "taking out", "hashing"] {
        let cancel = Cancel::new();
        let watch = StopAt {
            step,
            cancel: cancel.clone(),
        };
        let person = Person::default();
        let error = build::promote(&site.library, &request("fc28"), &person, &cancel, &watch);
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("interrupted"), "{step}: {error}");
        assert_eq!(site.library.images().unwrap()[0].versions, [1], "{step}");
        site.assert_clean();
        drop(site.library.hold_clone(&mac()).unwrap());
    }
}

#[test]
fn a_hostile_client_changes_nothing_on_the_host() {
    let site = site_with_client(FileSystem::Ext4);
    let secret = site.path("secret");
    fs::create_dir(&secret).unwrap();
    write(&secret.join("machine-id"), b"of the host");
    write(&secret.join("ssh_host_rsa_key"), b"of the host");
    let target = secret.clone();
    as_the_client(&site, Left::ShutDown, move |root| {
        upgrade_a_little(root);
        // The scrub is to empty the host's files, and the kernel is to be one of them.
        fs::remove_dir_all(root.join("etc/ssh")).unwrap();
        symlink(&target, root.join("etc/ssh")).unwrap();
        fs::remove_file(root.join("etc/machine-id")).unwrap();
        symlink(target.join("machine-id"), root.join("etc/machine-id")).unwrap();
        let script = root.join("opt/root");
        write(&script, b"#!/bin/sh\n");
        run("chmod", &["4755", script.to_str().unwrap()]);
        run(
            "mknod",
            &[root.join("opt/disk").to_str().unwrap(), "b", "7", "0"],
        );
    });
    let built = promote(&site, &request("fc28")).unwrap();
    assert_eq!(built.version.to_string(), "fc28@2");
    for file in ["machine-id", "ssh_host_rsa_key"] {
        assert_eq!(fs::read(secret.join(file)).unwrap(), b"of the host");
    }
    site.assert_clean();
    // Its disk is another file system altogether, or none.
    let disk = site.library.open_clone(&mac()).unwrap();
    let size = disk.geometry().blocks * 512;
    let other = site.path("other.img");
    File::create(&other)
        .unwrap()
        .set_len(size.max(320 << 20))
        .unwrap();
    run("mkfs.xfs", &["-q", other.to_str().unwrap()]);
    let mut new = fs::read(&other).unwrap();
    new.truncate(4 << 20);
    write_changes(disk.as_ref(), &vec![0x5a; new.len()], &new);
    drop(disk);
    let why = format!("{:#}", promote(&site, &request("fc28")).unwrap_err());
    assert!(
        why.contains("xfs") || why.contains("it is cut off"),
        "{why}"
    );
    assert_eq!(site.library.images().unwrap()[0].versions, [1, 2]);
    site.assert_clean();
}

#[test]
fn a_disk_that_boots_itself_is_promoted_as_it_is() {
    let site = Site::new();
    let mut disk = vec![0; 1 << 20];
    disk[0] = 0xeb;
    disk[450] = 0x83;
    disk[454] = 64;
    disk[458] = 128;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let file = site.path("win.raw");
    fs::write(&file, &disk).unwrap();
    let import = build::ImportRequest::new("win".parse().unwrap(), file);
    build::import(&site.library, &import, &Cancel::new(), &Quiet).unwrap();
    add_client(&site, "win");
    let mut new = disk.clone();
    new[64 * 512..64 * 512 + 5].copy_from_slice(b"mine!");
    // A second partition.
    new[466] = 0x83;
    new[470] = 255;
    new[474] = 1;
    write_changes(
        site.library.open_clone(&mac()).unwrap().as_ref(),
        &disk,
        &new,
    );
    let built = promote(&site, &request("win")).unwrap();
    let version = site.version(&built.version.to_string());
    assert_eq!(fs::read(version.disk_path()).unwrap(), new);
    match &version.manifest().boot {
        BootFrom::Disk(table) => assert_eq!(table.partitions, 2),
        other => panic!("{other:?}"),
    }
    site.assert_clean();
}

#[test]
fn a_plan_tells_all_and_refuses_what_cannot_be() {
    let site = site_with_client(FileSystem::Ext4);
    let plan = build::plan_promote(&site.library, &request("fc28")).unwrap();
    let text = plan.to_string();
    for part in [
        "1. copy the disk of client lab-07, made from fc28@1; it cannot boot meanwhile",
        "replay the journal of its ext4, and check it",
        "show how it differs from fc28@1, and ask",
        "hash, sync and publish it",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let tree = site.path("tree");
    let mut other = site.request(&tree);
    other.image = "other".parse().unwrap();
    other.filesystem = FileSystem::Ext4;
    site.build(&other).unwrap();
    let why = build::plan_promote(&site.library, &request("other")).unwrap_err();
    assert!(why.to_string().contains("other exists already"), "{why}");
    let nobody = NoServer::new(site.library.live_lock().unwrap());
    assert!(nobody.sessions().is_empty());
}
