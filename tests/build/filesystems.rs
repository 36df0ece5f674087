//! What is special about each file system: packed ones, copies with identifiers, the same disk twice.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use netroot::build::{self, Change, ChangeRequest, FileSystem, ImportRequest, Script, SourceDate};
use netroot::exec::{Cancel, in_private_mounts};
use netroot::library::Quiet;

use crate::awkward;
use crate::compare::{Times, assert_same};
use crate::site::{KERNEL, Site, StopAt, run, write};
use crate::upgrades::site_with_programs_on;

/// A date before now and after most of the awkward tree's times.
const DATE: SourceDate = SourceDate(1_700_000_000);

/// The tree of [`awkward::fill`], but no path or name longer than erofs-utils 1.5 take.
fn awkward_tree(site: &Site) -> std::path::PathBuf {
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    fs::remove_dir_all(tree.join("deep")).unwrap();
    fs::remove_file(tree.join("names").join("n".repeat(255))).unwrap();
    tree
}

#[test]
fn an_awkward_tree_comes_out_the_same_on_erofs() {
    let site = Site::new();
    let tree = awkward_tree(&site);
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o711)).unwrap();
    chown(&tree, Some(5), Some(70_000)).unwrap();
    xattr::set(&tree, "user.root", b"yes").unwrap();
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    let built = site.build(&request).unwrap();
    assert_eq!(built.warnings, Vec::<String>::new());
    let version = site.version("fc28");
    let facts = &version.manifest().facts;
    assert_eq!(facts.filesystem.kind, "erofs");
    assert_eq!(facts.filesystem.features, ["lz4hc", "big_pcluster"]);
    assert_eq!(facts.kernel_version, KERNEL);
    let disk = version.disk_path();
    let size = fs::metadata(&disk).unwrap().len();
    assert_eq!(size % (1 << 20), 0, "initiators want whole blocks");
    assert!(size < facts.tree.bytes, "{size} is not compressed");
    let shown = run("blkid", &["-o", "export", disk.to_str().unwrap()]);
    let uuid = facts.filesystem.uuid.as_deref().unwrap();
    assert!(shown.contains(&format!("\nUUID={uuid}\n")), "{shown}");
    assert!(shown.contains("\nLABEL=NETROOT\n"), "{shown}");
    site.look_into(&version, |mounted| {
        assert_same(&tree, mounted, &[], Times::Modified);
        let root = fs::metadata(mounted).unwrap();
        assert_eq!(root.permissions().mode() & 0o7777, 0o711);
        assert_eq!(xattr::get(mounted, "user.root").unwrap().unwrap(), b"yes");
    });
    site.library.verify(version.id(), &Quiet).unwrap();
    site.assert_clean();
}

#[test]
fn an_erofs_holds_neither_what_is_mounted_nor_what_is_excluded() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(&tree.join("var/cache/dnf/packages"), b"large");
    write(&tree.join("var/cache/.hidden"), b"small");
    write(&tree.join("srv/var/cache/dnf"), b"another");
    write(&tree.join("root/a+b [c]"), b"odd");
    write(&tree.join("root/aab c"), b"even");
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    for pattern in ["/var/cache/*", "/root/a+b [c]"] {
        request.excludes.add(pattern);
    }
    in_private_mounts(|mounts| {
        let flags = nix::mount::MsFlags::empty();
        let _proc = mounts
            .kernel_fs("proc", &tree.join("proc"), flags, "")
            .unwrap();
        assert!(tree.join("proc/version").exists());
        site.build(&request).unwrap();
    })
    .unwrap();
    site.look_into(&site.version("fc28"), |mounted| {
        let count = |path: &str| fs::read_dir(mounted.join(path)).unwrap().count();
        assert_eq!(
            (count("proc"), count("var/cache"), count("root")),
            (0, 0, 1)
        );
        assert!(mounted.join("srv/var/cache/dnf").exists());
        assert!(mounted.join("root/aab c").exists());
    });
}

#[test]
fn what_cannot_become_an_erofs_is_refused() {
    let site = Site::new();
    let tree = site.tree("4.19.5-300.fc29.x86_64");
    let refused = |request: &build::BuildRequest, why: &str| {
        let error = format!("{:#}", site.build(request).unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(site.library.images().unwrap().is_empty());
        site.assert_clean();
    };
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    refused(&request, "kernel 4.19.5-300.fc29.x86_64 has no erofs");
    fs::remove_dir_all(&tree).unwrap();
    site.tree(KERNEL);
    request.size = Some("2G".parse().unwrap());
    refused(&request, "--size does nothing here");
}

#[test]
fn an_erofs_of_an_archive_and_a_date_is_the_same_every_time() {
    let site = Site::new();
    let tree = awkward_tree(&site);
    let archive = site.path("tree.tar");
    let (from, to) = (tree.to_str().unwrap(), archive.to_str().unwrap());
    run(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "-cf",
            to,
            "-C",
            from,
            ".",
        ],
    );
    let mut request = site.request(&archive);
    request.filesystem = FileSystem::Erofs;
    request.date = Some(DATE);
    let mut roots = Vec::new();
    for _ in 0..2 {
        let built = site.build(&request).unwrap();
        assert_eq!(built.warnings, Vec::<String>::new());
        let version = site.library.version(&built.version).unwrap();
        roots.push(version.manifest().disk.root);
        site.assert_clean();
    }
    // A scratch file system has another order each time; what is packed from it has not.
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn an_erofs_of_a_changed_tree_is_packed_from_what_came_out() {
    let site = site_with_programs_on(FileSystem::Xfs);
    let tree = site.path("tree");
    write(&tree.join("srv/secret"), b"x");
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    request.image = "kiosk".parse().unwrap();
    request.custom.scripts = vec![Script::Shell("id -u > /root/added".into())];
    request.excludes.add("/srv");
    site.build(&request).unwrap();
    site.look_into(&site.version("kiosk"), |mounted| {
        assert_eq!(fs::read(mounted.join("root/added")).unwrap(), b"0\n");
        assert!(!mounted.join("srv").exists() && mounted.join("usr/bin/id").exists());
    });
    assert!(!tree.join("root/added").exists());
    site.assert_clean();
}

#[test]
fn a_path_that_the_tools_cannot_take_is_an_error_that_leaves_nothing() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    let error = format!("{:#}", site.build(&request).unwrap_err());
    assert!(error.contains("with --fs xfs both fit"), "{error}");
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
}

#[test]
fn an_initramfs_without_the_file_system_is_refused() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let initramfs = tree.join(format!("boot/initrd.img-{KERNEL}"));
    let mut bytes = fs::read(&initramfs).unwrap();
    let at = bytes.windows(8).position(|text| text == b"btrfs.ko");
    bytes[at.unwrap()] = b'_';
    fs::write(&initramfs, bytes).unwrap();
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Btrfs;
    let error = format!("{:#}", site.build(&request).unwrap_err());
    assert!(
        error.contains("module btrfs is not in it") && error.contains("filesystems+=\" btrfs \""),
        "{error}"
    );
    request.filesystem = FileSystem::Ext4;
    site.build(&request).unwrap();
}

fn to_run(to: &str, script: &str) -> ChangeRequest {
    let changes = vec![Change::Script(Script::Shell(script.into()))];
    ChangeRequest::new("fc28".parse().unwrap(), to.parse().unwrap(), changes)
}

fn upgrade(site: &Site, to: &str, script: &str, size: Option<&str>) -> build::Built {
    let mut request = to_run(to, script);
    request.size = size.map(|size| size.parse().unwrap());
    build::change(&site.library, &request, &Cancel::new(), &Quiet)
        .unwrap()
        .unwrap()
}

#[test]
fn copies_of_a_btrfs_have_identifiers_of_their_own_and_do_not_meet() {
    let site = site_with_programs_on(FileSystem::Btrfs);
    let base = site.version("fc28");
    let script = |name: &str| format!("echo {name} > /root/name; sleep 1; cat /root/name");
    std::thread::scope(|scope| {
        // Each is mounted while the others are, and the version itself beside them.
        let first = scope.spawn(|| upgrade(&site, "fc29", &script("fc29"), Some("2x")));
        let second = scope.spawn(|| upgrade(&site, "fc30", &script("fc30"), None));
        site.look_into(&base, |mounted| {
            std::thread::sleep(Duration::from_secs(1));
            assert!(!mounted.join("root/name").exists());
        });
        first.join().unwrap();
        second.join().unwrap();
    });
    let mut identifiers = vec![base.manifest().facts.filesystem.uuid.clone().unwrap()];
    for name in ["fc29", "fc30"] {
        let version = site.version(name);
        let facts = &version.manifest().facts.filesystem;
        let disk = version.disk_path();
        let shown = run("blkid", &["-o", "export", disk.to_str().unwrap()]);
        let uuid = facts.uuid.clone().unwrap();
        assert!(shown.contains(&format!("\nUUID={uuid}\n")), "{shown}");
        assert!(shown.contains("\nLABEL=NETROOT\n"), "{shown}");
        identifiers.push(uuid);
        site.look_into(&version, |mounted| {
            let said = fs::read_to_string(mounted.join("root/name")).unwrap();
            assert_eq!(said.trim(), name);
            let whole = nix::sys::statvfs::statvfs(mounted).unwrap();
            let bytes = whole.blocks() * whole.fragment_size();
            assert_eq!(bytes, version.manifest().disk.size, "it was not grown");
        });
    }
    identifiers.sort();
    identifiers.dedup();
    assert_eq!(identifiers.len(), 3);
    // A copy of a copy gets one, too.
    let third = upgrade(&site, "fc28", "touch /root/again", None);
    assert_eq!(third.version.to_string(), "fc28@2");
    upgrade(&site, "fc31", "ls /root/again", None);
    site.library.verify(base.id(), &Quiet).unwrap();
    site.assert_clean();
}

#[test]
fn a_btrfs_from_elsewhere_gets_an_identifier_beside_its_twin() {
    let site = Site::new();
    let mut request = site.request(&site.tree(KERNEL));
    request.filesystem = FileSystem::Btrfs;
    site.build(&request).unwrap();
    let first = site.version("fc28");
    // The same disk comes back as a file, while the version is mounted; then what came of it.
    site.look_into(&first, |_| {
        for (image, twin) in [("other", "fc28"), ("third", "other")] {
            let disk = site.version(twin).disk_path();
            let import = ImportRequest::new(image.parse().unwrap(), disk);
            build::import(&site.library, &import, &Cancel::new(), &Quiet).unwrap();
        }
    });
    let uuid = |name: &str| site.version(name).manifest().facts.filesystem.uuid.clone();
    assert_ne!(uuid("other"), uuid("fc28"));
    assert_ne!(uuid("third"), uuid("other"));
    let disk = site.version("third").disk_path();
    let shown = run("blkid", &["-o", "export", disk.to_str().unwrap()]);
    assert!(shown.contains(&uuid("third").unwrap()), "{shown}");
    site.library.verify(first.id(), &Quiet).unwrap();
    site.assert_clean();
}

#[test]
fn an_erofs_from_elsewhere_is_taken_as_it_is() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(
        &tree.join("etc/machine-id"),
        b"0123456789abcdef0123456789abcdef\n",
    );
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    site.build(&request).unwrap();
    let first = site.version("fc28");
    let import = ImportRequest::new("other".parse().unwrap(), first.disk_path());
    let built = build::import(&site.library, &import, &Cancel::new(), &Quiet).unwrap();
    assert!(
        built.warnings[0].contains("cannot be scrubbed"),
        "{built:?}"
    );
    let other = site.version("other");
    assert_eq!(other.manifest().disk.root, first.manifest().disk.root);
    assert_eq!(other.manifest().facts.filesystem.kind, "erofs");
}

#[test]
fn an_erofs_cannot_be_upgraded() {
    let site = site_with_programs_on(FileSystem::Erofs);
    let error = build::plan_change(&site.library, &to_run("fc29", ":")).unwrap_err();
    assert!(error.to_string().contains("build a new version"), "{error}");
}

/// Builds twice, with what time does to a tree in between, and gives the hashes of the disks.
fn twice(filesystem: FileSystem) -> (Site, [String; 2]) {
    let site = Site::new();
    let tree = awkward_tree(&site);
    chown(&tree, Some(5), Some(70_000)).unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o711)).unwrap();
    // mke2fs knows one name of a symlink only.
    fs::remove_file(tree.join("links/other/linked")).unwrap();
    let mut request = site.request(&tree);
    (request.filesystem, request.date) = (filesystem, Some(DATE));
    let mut hashes = [String::new(), String::new()];
    for hash in &mut hashes {
        let built = site.build(&request).unwrap();
        assert_eq!(built.warnings, Vec::<String>::new());
        let version = site.library.version(&built.version).unwrap();
        *hash = version.manifest().disk.root.to_string();
        // Both are seen by the copier: when files were read, and when inodes were changed.
        std::thread::sleep(Duration::from_millis(1100));
        run("cat", &[tree.join("files/more").to_str().unwrap()]);
        run("touch", &["-a", tree.join("files/one").to_str().unwrap()]);
        fs::set_permissions(tree.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    (site, hashes)
}

#[test]
fn an_erofs_of_a_date_is_the_same_every_time() {
    let (_site, [first, second]) = twice(FileSystem::Erofs);
    assert_eq!(first, second);
}

#[test]
fn an_ext4_of_a_date_is_the_same_every_time_and_whole() {
    let (site, [first, second]) = twice(FileSystem::Ext4);
    assert_eq!(first, second);
    let tree = site.path("tree");
    // Times after the date become the date.
    for entry in walkdir::WalkDir::new(&tree) {
        let entry = entry.unwrap();
        let date = std::time::UNIX_EPOCH + Duration::from_secs(DATE.0.into());
        if entry.metadata().unwrap().modified().unwrap() > date {
            let time = nix::sys::time::TimeSpec::new(DATE.0.into(), 0);
            let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
            let here = nix::fcntl::AT_FDCWD;
            nix::sys::stat::utimensat(here, entry.path(), &time, &time, flags).unwrap();
        }
    }
    site.look_into(&site.version("fc28"), |mounted| {
        assert_same(&tree, mounted, &["lost+found"], Times::Seconds);
        let root = fs::metadata(mounted).unwrap();
        assert_eq!(root.permissions().mode() & 0o7777, 0o711);
        let owner = std::os::unix::fs::MetadataExt::gid(&root);
        assert_eq!(owner, 70_000);
    });
    site.assert_clean();
}

#[test]
fn the_environment_gives_the_date_to_the_command() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let mut hashes = Vec::new();
    for date in ["1700000000", "1700000000", "1700000001"] {
        // The last one with another date, which stands in the file system.
        let said = Command::new(env!("CARGO_BIN_EXE_netroot"))
            .args(["image", "build", "a", "--fs", "erofs", "--json", "--from"])
            .arg(&tree)
            .env("NETROOT_LIBRARY", site.path("library"))
            .env("SOURCE_DATE_EPOCH", date)
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        let version = site.version("a");
        hashes.push(version.manifest().disk.root);
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    let wrong = Command::new(env!("CARGO_BIN_EXE_netroot"))
        .args(["image", "build", "a", "--from"])
        .arg(&tree)
        .env("SOURCE_DATE_EPOCH", "yesterday")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("give the seconds since 1970"), "{said}");
}

#[test]
fn stopping_a_build_that_packs_leaves_nothing() {
    let site = Site::new();
    let tree = awkward_tree(&site);
    let mut request = site.request(&tree);
    request.filesystem = FileSystem::Erofs;
    for step in ["mounting", "packing", "taking", "unmounting", "checking"] {
        let watch = StopAt {
            step,
            cancel: Cancel::new(),
        };
        let error = build::image(&site.library, &request, &watch.cancel, &watch).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("interrupted"), "{step}: {error}");
        assert!(site.library.images().unwrap().is_empty(), "{step}");
        site.assert_clean();
    }
}

#[test]
fn who_gives_a_date_is_told_where_it_does_not_help() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let mut request = site.request(&tree);
    request.date = Some(DATE);
    let warnings = |request: &build::BuildRequest| {
        let plan = build::plan_image(&site.library, request, &Cancel::new()).unwrap();
        plan.warnings.join("\n")
    };
    assert!(warnings(&request).contains("give --fs ext4 or --fs erofs"));
    request.filesystem = FileSystem::Ext4;
    assert_eq!(warnings(&request), "");
    request.excludes.add("/root");
    assert!(warnings(&request).contains("remove it from the tree"));
    request.filesystem = FileSystem::Erofs;
    assert_eq!(warnings(&request), "");
}
