//! Directories as sources.

use std::fs;
use std::path::Path;

use netroot::build::{self, Excludes, FileSystem, InitramfsCheck, Source};
use netroot::exec::{Cancel, find_program, in_private_mounts};
use netroot::library::Actor;
use netroot::library::{NoServer, Quiet};

use crate::awkward;
use crate::compare::{Times, assert_same};
use crate::site::{KERNEL, Site, StopAt, run, write};

fn awkward_tree_comes_out_the_same(filesystem: FileSystem) {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    let mut request = site.request(&tree);
    request.filesystem = filesystem;
    let built = site.build(&request).unwrap();
    assert_eq!(built.version.to_string(), "fc28@1");
    assert_eq!(built.warnings, Vec::<String>::new());
    let version = site.version("fc28");
    site.look_into(&version, |mounted| {
        assert_same(&tree, mounted, &["lost+found"], Times::All);
    });
    site.library.verify(version.id(), &Quiet).unwrap();
    site.assert_clean();
}

#[test]
fn an_awkward_tree_comes_out_the_same_on_xfs() {
    awkward_tree_comes_out_the_same(FileSystem::Xfs);
}

#[test]
fn an_awkward_tree_comes_out_the_same_on_ext4() {
    awkward_tree_comes_out_the_same(FileSystem::Ext4);
}

#[test]
fn an_awkward_tree_comes_out_the_same_on_btrfs() {
    awkward_tree_comes_out_the_same(FileSystem::Btrfs);
}

#[test]
fn the_manifest_tells_what_is_in_the_image() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    site.build(&site.request(&tree)).unwrap();
    let version = site.version("fc28");
    let facts = &version.manifest().facts;
    assert_eq!(facts.kernel_version, KERNEL);
    assert_eq!(facts.source, tree.to_str().unwrap());
    assert_eq!(facts.filesystem.label, "NETROOT");
    assert_eq!(facts.distribution.as_ref().unwrap().id, "debian");
    assert_eq!(facts.packages.as_ref().unwrap()[0].name, "base-files");
    assert_eq!(facts.early.version.as_deref(), Some("059-4"));
    assert!(facts.tree.entries > 10 && facts.tree.bytes > 4096);
    assert_eq!(fs::read(version.kernel_path()).unwrap(), b"kernel");
    let shown = run(
        "blkid",
        &["-o", "export", version.disk_path().to_str().unwrap()],
    );
    let uuid = facts.filesystem.uuid.as_deref().unwrap();
    assert!(shown.contains(&format!("\nUUID={uuid}\n")), "{shown}");
    assert!(shown.contains("\nLABEL=NETROOT\n"), "{shown}");
}

#[test]
fn a_host_without_rpm_warns_that_packages_are_not_listed() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    fs::remove_file(tree.join("var/lib/dpkg/status")).unwrap();
    write(&tree.join("etc/os-release"), b"ID=fedora\n");
    write(
        &tree.join("usr/lib/sysimage/rpm/rpmdb.sqlite"),
        b"never read",
    );
    let rpm = find_program("rpm").unwrap();
    let built = in_private_mounts(|mounts| {
        let hidden = mounts.bind(Path::new("/dev/null"), &rpm).unwrap();
        let built = site.build(&site.request(&tree)).unwrap();
        hidden.unmount().unwrap();
        built
    });
    let told = "the tree's packages are not listed: rpm is not installed on this host: install \
                package rpm";
    assert_eq!(built.unwrap().warnings, [told]);
    assert_eq!(site.version("fc28").manifest().facts.packages, None);
    site.assert_clean();
}

#[test]
fn an_old_kernel_gets_no_features_that_it_lacks() {
    let site = Site::new();
    let tree = site.tree("4.19.5-300.fc29.x86_64");
    let mut request = site.request(&tree);
    site.build(&request).unwrap();
    let disk = site.version("fc28@1").disk_path();
    let version = run("xfs_db", &["-r", "-c", "version", disk.to_str().unwrap()]);
    for lacking in ["BIGTIME", "INOBTCNT", "NREXT64"] {
        assert!(!version.contains(lacking), "{version}");
    }
    assert!(
        version.contains("CRC") || version.contains("V5"),
        "{version}"
    );
    request.filesystem = FileSystem::Ext4;
    site.build(&request).unwrap();
    let disk = site.version("fc28@2").disk_path();
    let shown = run("dumpe2fs", &["-h", disk.to_str().unwrap()]);
    for lacking in ["orphan_file", "fast_commit", "casefold"] {
        assert!(!shown.contains(lacking), "{shown}");
    }
}

#[test]
fn a_mounted_proc_is_not_copied_but_its_directory_is() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let request = site.request(&tree);
    in_private_mounts(|mounts| {
        let flags = nix::mount::MsFlags::empty();
        let _proc = mounts
            .kernel_fs("proc", &tree.join("proc"), flags, "")
            .unwrap();
        let _bound = mounts.bind(&tree.join("etc"), &tree.join("tmp")).unwrap();
        assert!(tree.join("proc/version").exists() && tree.join("tmp/os-release").exists());
        site.build(&request).unwrap();
    })
    .unwrap();
    site.look_into(&site.version("fc28"), |mounted| {
        assert_same(&tree, mounted, &["lost+found"], Times::All);
        assert_eq!(fs::read_dir(mounted.join("proc")).unwrap().count(), 0);
    });
}

#[test]
fn what_is_excluded_is_left_out() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    write(&tree.join("var/cache/dnf/packages"), b"large");
    write(&tree.join("root/.bash_history"), b"secret");
    let mut request = site.request(&tree);
    request.excludes = Excludes::new(["/var/cache/*", "/root/.bash_history"]);
    site.build(&request).unwrap();
    site.look_into(&site.version("fc28"), |mounted| {
        assert!(mounted.join("var/cache").is_dir());
        assert!(!mounted.join("var/cache/dnf").exists());
        assert!(!mounted.join("root/.bash_history").exists());
        assert!(mounted.join("root").is_dir());
    });
}

#[test]
fn a_library_inside_of_the_tree_does_not_copy_itself() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let outer = site.dir.path();
    for name in ["lib", "boot", "etc"] {
        fs::rename(tree.join(name), outer.join(name)).unwrap();
    }
    let built = site.build(&site.request(outer)).unwrap();
    assert!(
        built.warnings[0].contains("the library lies inside"),
        "{:?}",
        built.warnings
    );
    site.look_into(&site.version("fc28"), |mounted| {
        assert!(mounted.join("boot").exists() && !mounted.join("library").exists());
    });
}

/// Builds, and expects a refusal that says `why` and leaves nothing.
fn refused(site: &Site, request: &build::BuildRequest, why: &str) {
    let error = format!("{:#}", site.build(request).unwrap_err());
    assert!(error.contains(why), "{error}");
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
}

#[test]
fn what_cannot_become_an_image_is_refused_before_anything_is_written() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let mut request = site.request(&tree);
    request.size = Some("200M".parse().unwrap());
    refused(&site, &request, "xfs needs 300.0 MiB");
    request.size = None;
    request.kernel = Some("5.10.0".into());
    refused(
        &site,
        &request,
        "no kernel 5.10.0 under /lib/modules, only 6.1.0-21-amd64",
    );
    request.kernel = None;
    write(&tree.join(format!("boot/initrd.img-{KERNEL}")), b"not one");
    refused(&site, &request, "neither a cpio archive nor compressed");
    request.check = InitramfsCheck::Skip;
    let built = site.build(&request).unwrap();
    assert!(built.warnings[0].contains("not checked"));
    site.library
        .remove_image(
            &request.image,
            &NoServer::new(site.library.live_lock().unwrap()),
            &Actor::Command { uid: 0 },
        )
        .unwrap();
    request.check = InitramfsCheck::Refuse;
    fs::remove_file(tree.join(format!("boot/initrd.img-{KERNEL}"))).unwrap();
    refused(&site, &request, "update-initramfs -c -k 6.1.0-21-amd64");
    fs::remove_dir_all(tree.join("lib/modules")).unwrap();
    refused(&site, &request, "the tree has no kernel");
}

#[test]
fn a_plan_tells_all_and_touches_nothing() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let mut request = site.request(&tree);
    request.size = Some("1G".parse().unwrap());
    let plan = build::plan_image(&site.library, &request, &Cancel::new()).unwrap();
    let text = plan.to_string();
    assert!(
        text.contains("1. create a sparse disk of 1.0 GiB\n"),
        "{text}"
    );
    assert!(
        text.contains("2. make xfs for kernel 6.1.0-21-amd64 on it\n"),
        "{text}"
    );
    assert!(text.contains("8. hash, sync and publish it"), "{text}");
    assert_eq!(
        fs::read_dir(site.path("library/images")).unwrap().count(),
        0
    );
}

#[test]
fn stopping_at_any_step_leaves_nothing() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    let request = site.request(&tree);
    for step in [
        "reading",
        "creating",
        "making",
        "mounting",
        "copying",
        "taking",
        "unmounting",
        "checking",
        "syncing",
        "hashing",
    ] {
        let watch = StopAt {
            step,
            cancel: Cancel::new(),
        };
        let error = build::image(&site.library, &request, &watch.cancel, &watch).unwrap_err();
        assert!(
            format!("{error:#}").contains("interrupted"),
            "{step}: {error:#}"
        );
        assert!(site.library.images().unwrap().is_empty(), "{step}");
        site.assert_clean();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    // The same tree on a disk that loses its second half, where only one file lies.
    let (disk, point) = (site.path("failing.img"), site.path("failing"));
    fs::create_dir(&point).unwrap();
    let file = fs::File::create(&disk).unwrap();
    file.set_len(20 << 20).unwrap();
    let args = ["-q", "-b", "4096", "-O", "^has_journal", "-d"];
    let paths = [tree.to_str().unwrap(), disk.to_str().unwrap()];
    run("mkfs.ext4", &[&args[..], &paths[..]].concat());
    in_private_mounts(|mounts| {
        let mount = |options| {
            mounts
                .image(&disk, "ext4", options, &point, &Cancel::new())
                .unwrap()
        };
        let writable = mount(&[]);
        write(&point.join("srv/broken"), &vec![7; 12 << 20]);
        writable.unmount().unwrap();
        let _mounted = mount(&["ro"]);
        file.set_len(8 << 20).unwrap();
        let error = site.build(&site.request(&point)).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("copying srv/broken: reading it: Input/output error"),
            "{error}"
        );
    })
    .unwrap();
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
}

#[test]
fn a_source_that_does_not_exist_is_named() {
    let site = Site::new();
    let mut request = site.request(site.dir.path());
    request.source = Source::Directory("/no/such/tree".into());
    refused(
        &site,
        &request,
        "looking for /no/such/tree: No such file or directory",
    );
}
