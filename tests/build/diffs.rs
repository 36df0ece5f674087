//! What changed between two versions, found by looking into their disks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use netroot::build::{self, Change, ChangeRequest, Diff, FileSystem, Script, Times, Trust};
use netroot::exec::{Cancel, in_private_mounts};
use netroot::library::{Quiet, Version, VersionFacts};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::awkward;
use crate::site::{Site, write};
use crate::upgrades::site_with_programs_on;

const KERNEL: &str = "6.1.0-21-amd64";

fn diff(site: &Site, from: &str, to: &str, times: Times, trust: Trust) -> Diff {
    let (from, to) = (site.version(from), site.version(to));
    build::diff(
        &site.library,
        [&from, &to],
        times,
        trust,
        &Cancel::new(),
        &Quiet,
    )
    .unwrap()
}

/// What is told of each path, in a word or two.
fn told(diff: &Diff) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in &diff.files.added {
        all.insert(entry.path.as_path().to_owned(), format!("+{}", entry.kind));
    }
    for entry in &diff.files.removed {
        all.insert(entry.path.as_path().to_owned(), format!("-{}", entry.kind));
    }
    for changed in &diff.files.changed {
        let aspects: Vec<String> = changed
            .aspects
            .iter()
            .map(|aspect| {
                let json = serde_json::to_value(aspect).unwrap();
                json["what"].as_str().unwrap().to_owned()
            })
            .collect();
        let path = changed.path.as_path().to_owned();
        all.insert(path, aspects.join(" "));
    }
    all
}

/// Seals a copy of a version that `change` changed.
fn change(site: &Site, from: &Version, image: &str, change: impl FnOnce(&Path) + Send) -> Version {
    let mut draft = site.library.draft(&image.parse().unwrap()).unwrap();
    draft.copy_from(from, &Quiet).unwrap();
    let told = &from.manifest().facts;
    let kind = told.filesystem.kind.clone();
    let options: &[&str] = if kind == "xfs" { &["nouuid"] } else { &[] };
    let point = site.path("draft");
    fs::create_dir_all(&point).unwrap();
    in_private_mounts(|mounts| {
        let (disk, cancel) = (draft.disk_path(), Cancel::new());
        let mounted = mounts
            .image(&disk, &kind, options, &point, &cancel)
            .unwrap();
        change(mounted.path());
        mounted.unmount().unwrap();
    })
    .unwrap();
    draft
        .add_kernel(&mut File::open(from.kernel_path()).unwrap())
        .unwrap();
    draft
        .add_initramfs(&mut File::open(from.initramfs_path()).unwrap())
        .unwrap();
    let facts = VersionFacts {
        parent: Some(from.id().clone()),
        ..told.clone()
    };
    draft.seal(facts, &Quiet).unwrap()
}

/// `fc28@1`, an image of everything that is awkward.
fn awkward_site(filesystem: FileSystem) -> Site {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    // Longer than XFS keeps; the builder refuses it.
    let mut request = site.request(&tree);
    request.filesystem = filesystem;
    site.build(&request).unwrap();
    site
}

fn change_all(root: &Path) {
    let path = |name: &str| root.join(name);
    write(&path("new/inside"), b"added");
    fs::write(path("files/one"), "2").unwrap();
    fs::write(path("files/more"), "shorter").unwrap();
    fs::set_permissions(path("files/none"), Permissions::from_mode(0o4711)).unwrap();
    chown(path("files/sticky"), Some(7), Some(8)).unwrap();
    fs::remove_dir_all(path("crowd/3")).unwrap();
    fs::remove_file(path("links/relative")).unwrap();
    symlink("../files/two", path("links/relative")).unwrap();
    fs::remove_file(path("files/empty")).unwrap();
    fs::create_dir(path("files/empty")).unwrap();
    fs::remove_file(path("nodes/null")).unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    let device = nix::libc::makedev(1, 5);
    mknod(&path("nodes/null"), SFlag::S_IFCHR, mode, device).unwrap();
    chown(path("nodes/null"), Some(0), Some(6)).unwrap();
    xattr::set(path("attributes/all"), "user.text", b"another").unwrap();
    xattr::remove(path("attributes/all"), "user.empty").unwrap();
    fs::write(
        path("names").join(OsStr::from_bytes(b"\xff\xfe not UTF-8 \x80")),
        "changed",
    )
    .unwrap();
    // One byte in a hole.
    let hole = File::options()
        .write(true)
        .open(path("sparse/hole"))
        .unwrap();
    hole.write_all_at(b"x", 40 << 20).unwrap();
    // Only the time, and only read.
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    let touched = File::options()
        .write(true)
        .open(path("files/buffer"))
        .unwrap();
    touched.set_times(times).unwrap();
}

fn every_aspect(filesystem: FileSystem) {
    let site = awkward_site(filesystem);
    let first = site.version("fc28@1");
    change(&site, &first, "fc28", change_all);
    let found = diff(&site, "fc28@1", "fc28@2", Times::Ignored, Trust::Inodes);
    let all = told(&found);
    let mut expected: Vec<(&[u8], &str)> = vec![
        (b"attributes/all", "attributes"),
        (b"crowd/3", "-directory"),
        (b"files/empty", "kind"),
        (b"files/more", "content"),
        (b"files/none", "mode"),
        (b"files/one", "content"),
        (b"files/sticky", "owner"),
        (b"links/relative", "target"),
        (b"names/\xff\xfe not UTF-8 \x80", "content"),
        (b"new", "+directory"),
        (b"new/inside", "+file"),
        (b"nodes/null", "device"),
        (b"sparse/hole", "content"),
    ];
    let crowd: Vec<String> = (0..30).map(|number| format!("crowd/3/{number}")).collect();
    expected.extend(crowd.iter().map(|path| (path.as_bytes(), "-file")));
    let expected: BTreeMap<PathBuf, String> = expected
        .into_iter()
        .map(|(path, what)| (PathBuf::from(OsStr::from_bytes(path)), what.to_owned()))
        .collect();
    assert_eq!(all, expected);
    // What is taken for unchanged by its inode is so when it is read.
    let read = diff(&site, "fc28@1", "fc28@2", Times::Ignored, Trust::Nothing);
    assert_eq!(read.files, found.files);
    // With times, what was only touched is told, too.
    let times = diff(&site, "fc28@1", "fc28@2", Times::Told, Trust::Inodes);
    assert_eq!(told(&times)[Path::new("files/buffer")], "modified");
    // The other way round everything is the other way round.
    let back = diff(&site, "fc28@2", "fc28@1", Times::Ignored, Trust::Inodes);
    let paths = |entries: &[build::Entry]| -> Vec<_> {
        entries.iter().map(|entry| entry.path.clone()).collect()
    };
    assert_eq!(paths(&back.files.added), paths(&found.files.removed));
    assert_eq!(paths(&back.files.removed), paths(&found.files.added));
    let json = serde_json::to_value(&found).unwrap();
    let modes = json["files"]["changed"].as_array().unwrap();
    let mode = modes
        .iter()
        .find(|one| one["path"] == "files/none")
        .unwrap();
    assert_eq!(mode["aspects"][0]["to"], "4711");
    let bytes = modes.iter().filter(|one| one["path"].is_array());
    assert_eq!(
        bytes.count(),
        1,
        "a name that is not UTF-8 is told by its bytes"
    );
    site.assert_clean();
}

#[test]
fn every_aspect_is_told_on_xfs() {
    every_aspect(FileSystem::Xfs);
}

#[test]
fn every_aspect_is_told_on_ext4() {
    every_aspect(FileSystem::Ext4);
}

#[test]
fn two_builds_of_one_tree_are_the_same_whatever_they_lie_on() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    // Longer than the tools of EROFS take.
    fs::remove_dir_all(tree.join("deep")).unwrap();
    fs::remove_file(tree.join("names").join("n".repeat(255))).unwrap();
    let all = [
        FileSystem::Xfs,
        FileSystem::Ext4,
        FileSystem::Btrfs,
        FileSystem::Erofs,
    ];
    for filesystem in all {
        let mut request = site.request(&tree);
        request.filesystem = filesystem;
        site.build(&request).unwrap();
    }
    // mkfs.ext4 makes a directory that the others have no use for.
    let expected = [
        ("fc28@1", "fc28@2", "+directory"),
        ("fc28@2", "fc28@3", "-directory"),
        ("fc28@3", "fc28@4", ""),
    ];
    for (from, to, what) in expected {
        let found = diff(&site, from, to, Times::Told, Trust::Inodes);
        let all = told(&found);
        let others: Vec<_> = all
            .iter()
            .filter(|(path, _)| *path != Path::new("lost+found"))
            .collect();
        assert!(others.is_empty(), "{from} {to}: {others:?}");
        let found = all.get(Path::new("lost+found"));
        assert_eq!(found.map_or("", String::as_str), what, "{from} {to}");
    }
    site.assert_clean();
}

#[test]
fn a_changed_byte_is_found_where_everything_else_was_put_back() {
    let site = awkward_site(FileSystem::Xfs);
    let first = site.version("fc28@1");
    change(&site, &first, "fc29", |root| {
        let path = root.join("files/more");
        let was = fs::metadata(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"!", 299_999).unwrap();
        let times = fs::FileTimes::new()
            .set_modified(was.modified().unwrap())
            .set_accessed(was.accessed().unwrap());
        file.set_times(times).unwrap();
    });
    let found = diff(&site, "fc28", "fc29", Times::Told, Trust::Inodes);
    let all = told(&found);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[Path::new("files/more")], "content");
}

#[test]
fn what_a_client_wrote_past_its_file_system_is_found_in_what_was_promoted() {
    const SECRET: &[u8] = b"a line that is nowhere else on this disk";
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(&tree.join("etc/line"), SECRET);
    site.build(&site.request(&tree)).unwrap();
    let first = site.version("fc28@1");
    let forged = |image: &str, promoted: Option<&str>| {
        let mut draft = site.library.draft(&image.parse().unwrap()).unwrap();
        draft.copy_from(&first, &Quiet).unwrap();
        let disk = fs::read(draft.disk_path()).unwrap();
        let at = disk.windows(SECRET.len()).position(|part| part == SECRET);
        // No inode, no time: only the block that holds the line.
        let file = File::options().write(true).open(draft.disk_path()).unwrap();
        file.write_all_at(b"A", at.unwrap() as u64).unwrap();
        draft.add_kernel(&mut &b"k"[..]).unwrap();
        draft.add_initramfs(&mut &b"i"[..]).unwrap();
        let facts = VersionFacts {
            parent: Some(first.id().clone()),
            promoted: promoted.map(|name| name.parse().unwrap()),
            ..first.manifest().facts.clone()
        };
        draft.seal(facts, &Quiet).unwrap();
    };
    forged("promoted", Some("lab-07"));
    forged("updated", None);
    let paths = |to, trust| -> Vec<PathBuf> {
        let found = diff(&site, "fc28", to, Times::Ignored, trust);
        told(&found).into_keys().collect()
    };
    let line = [PathBuf::from("etc/line")];
    assert_eq!(paths("promoted", Trust::Inodes), line);
    // This host's own kernel writes no file without its time of change, so it is not looked for.
    assert!(paths("updated", Trust::Inodes).is_empty());
    assert_eq!(paths("updated", Trust::Nothing), line);
}

#[test]
fn packages_are_told_by_name_and_version() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    site.build(&site.request(&tree)).unwrap();
    write(
        &tree.join("var/lib/dpkg/status"),
        b"Package: base-files\nStatus: install ok installed\nVersion: 13\n\n\
          Package: linux-image\nStatus: install ok installed\nVersion: 6.12\n",
    );
    site.build(&site.request(&tree)).unwrap();
    let found = diff(&site, "fc28@1", "fc28@2", Times::Ignored, Trust::Inodes);
    let packages = found.packages.as_ref().unwrap();
    assert_eq!(packages.added[0].name, "linux-image");
    let upgraded = &packages.upgraded[0];
    assert_eq!((upgraded.from.as_str(), upgraded.to.as_str()), ("12", "13"));
    assert_eq!(
        told(&found),
        BTreeMap::from([(
            PathBuf::from("var/lib/dpkg/status"),
            String::from("content")
        )])
    );
    let same = diff(&site, "fc28@1", "fc28@1", Times::Told, Trust::Nothing);
    assert!(same.files.is_empty() && same.packages.unwrap().is_empty());
}

#[test]
fn comparing_stops_when_asked_and_two_do_not_disturb_each_other() {
    let site = awkward_site(FileSystem::Xfs);
    let first = site.version("fc28@1");
    change(&site, &first, "fc29", change_all);
    let versions = [site.version("fc28"), site.version("fc29")];
    let cancel = Cancel::new();
    cancel.cancel();
    let [from, to] = &versions;
    let stopped = build::diff(
        &site.library,
        [from, to],
        Times::Told,
        Trust::Nothing,
        &cancel,
        &Quiet,
    );
    assert!(format!("{:#}", stopped.unwrap_err()).contains("interrupted"));
    site.assert_clean();
    let one = || diff(&site, "fc28", "fc29", Times::Told, Trust::Inodes);
    let (mine, theirs) = std::thread::scope(|scope| {
        let other = scope.spawn(one);
        (one(), other.join().unwrap())
    });
    assert_eq!(mine.files, theirs.files);
    assert!(!mine.files.is_empty());
    site.assert_clean();
}

/// Copies of one file system have one identifier (XFS, ext4) or must not have it (btrfs).
fn two_upgrades_beside_a_diff(filesystem: FileSystem) {
    let site = site_with_programs_on(filesystem);
    let upgrade = |to: &str, script: &str| {
        let changes = vec![Change::Script(Script::Shell(script.into()))];
        let (from, to) = ("fc28@1".parse().unwrap(), to.parse().unwrap());
        let request = ChangeRequest::new(from, to, changes);
        build::change(&site.library, &request, &Cancel::new(), &Quiet).unwrap()
    };
    upgrade("fc28", "echo 2 >/root/name");
    std::thread::scope(|scope| {
        let script = |name: &str| format!("echo {name} >/root/name; sleep 1; cat /root/name");
        let upgrades = ["fc29", "fc30"].map(|name| {
            let (upgrade, script) = (&upgrade, script(name));
            scope.spawn(move || upgrade(name, &script))
        });
        loop {
            let diff = diff(&site, "fc28@1", "fc28@2", Times::Ignored, Trust::Nothing);
            let told = told(&diff);
            let name = told.get(Path::new("root/name")).map(String::as_str);
            assert_eq!(name, Some("+file"), "{told:?}");
            if upgrades.iter().all(|upgrade| upgrade.is_finished()) {
                break;
            }
        }
        for upgrade in upgrades {
            upgrade.join().unwrap();
        }
    });
    for name in ["fc29", "fc30"] {
        site.look_into(&site.version(name), |root| {
            assert_eq!(
                fs::read_to_string(root.join("root/name")).unwrap(),
                format!("{name}\n")
            );
        });
    }
    let base = site.version("fc28@1");
    site.library.verify(base.id(), &Quiet).unwrap();
    site.assert_clean();
}

#[test]
fn two_upgrades_of_an_xfs_and_a_diff_beside_them_do_not_meet() {
    two_upgrades_beside_a_diff(FileSystem::Xfs);
}

#[test]
fn two_upgrades_of_a_btrfs_and_a_diff_beside_them_do_not_meet() {
    two_upgrades_beside_a_diff(FileSystem::Btrfs);
}

#[test]
fn a_damaged_file_system_is_found_although_its_hash_is_right() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    for (number, filesystem) in [(1, FileSystem::Xfs), (2, FileSystem::Ext4)] {
        let mut request = site.request(&tree);
        request.filesystem = filesystem;
        site.build(&request).unwrap();
        let sound = site.version(&format!("fc28@{number}"));
        let kind = build::check_file_system(&sound, &Cancel::new()).unwrap();
        assert_eq!(kind, Some(filesystem));
        // Damaged before it was sealed: the hash knows nothing of it.
        let mut draft = site.library.draft(&"broken".parse().unwrap()).unwrap();
        draft.copy_from(&sound, &Quiet).unwrap();
        let disk = File::options().write(true).open(draft.disk_path()).unwrap();
        // Superblocks are left alone; what comes after them is where inodes and maps of space are.
        disk.write_all_at(&[0x5a; 16 << 10], 8 << 10).unwrap();
        draft.add_kernel(&mut &b"k"[..]).unwrap();
        draft.add_initramfs(&mut &b"i"[..]).unwrap();
        let facts = sound.manifest().facts.clone();
        let broken = draft.seal(facts, &Quiet).unwrap();
        site.library.verify(broken.id(), &Quiet).unwrap();
        let error = build::check_file_system(&broken, &Cancel::new()).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains(&format!(
                "the {} of broken@{number} is damaged",
                filesystem.name()
            )),
            "{error}"
        );
    }
    site.assert_clean();
}
