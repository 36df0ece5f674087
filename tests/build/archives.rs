//! Tar archives as sources.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use netroot::build::Source;

use crate::awkward;
use crate::compare::{Times, assert_same};
use crate::site::{KERNEL, Site, run};

/// What archives can hold: GNU tar leaves out sockets and second names of fifos.
fn tree_for_archives(site: &Site) -> PathBuf {
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    fs::remove_file(tree.join("nodes/socket")).unwrap();
    fs::remove_file(tree.join("nodes/fifo-too")).unwrap();
    // And an archive with a name of more than PATH_MAX cannot be made by tar in a test's directory.
    run("rm", &["-rf", tree.join("deep").to_str().unwrap()]);
    tree
}

fn check(options: &[&str], name: &str, times: Times) {
    let site = Site::new();
    let tree = tree_for_archives(&site);
    let archive = site.path(name);
    let paths = [
        "-C",
        tree.to_str().unwrap(),
        "-f",
        archive.to_str().unwrap(),
    ];
    run(
        "tar",
        &[&["-c", "--numeric-owner"], options, &paths, &["."]].concat(),
    );
    let built = site.build(&site.request(&archive)).unwrap();
    assert_eq!(built.version.to_string(), "fc28@1");
    let version = site.version("fc28");
    assert_eq!(version.manifest().facts.kernel_version, KERNEL);
    if times == Times::Seconds {
        strip_attributes(&tree);
    }
    site.look_into(&version, |mounted| {
        assert_same(&tree, mounted, &["lost+found"], times);
    });
    site.assert_clean();
}

/// An archive without attributes is compared with a tree without them.
fn strip_attributes(tree: &Path) {
    let dir = tree.join("attributes");
    for path in ["all", "default", "default/after", "link"] {
        let path = dir.join(path);
        for name in xattr::list(&path).unwrap() {
            xattr::remove(&path, &name).unwrap();
        }
    }
}

#[test]
fn a_pax_archive_holds_everything() {
    let options = [
        "--format=posix",
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
        "--zstd",
    ];
    let pax = "--pax-option=exthdr.name=%d/PaxHeaders/%f";
    check(
        &[&options[..], &[pax]].concat(),
        "fc28.tar.zst",
        Times::Modified,
    );
}

#[test]
fn acls_in_words_are_understood() {
    check(
        &[
            "--format=posix",
            "-S",
            "--acls",
            "--xattrs",
            "--xattrs-include=*",
            "-z",
        ],
        "a.tgz",
        Times::Modified,
    );
}

#[test]
fn older_sparse_formats_are_understood() {
    let options = [
        "--format=posix",
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
    ];
    for version in ["--sparse-version=0.0", "--sparse-version=0.1"] {
        check(
            &[&options[..], &[version]].concat(),
            "fc28.tar",
            Times::Modified,
        );
    }
}

#[test]
fn a_gnu_archive_holds_all_but_attributes() {
    check(
        &["--format=gnu", "--sparse", "--xz"],
        "fc28.tar.xz",
        Times::Seconds,
    );
}

#[test]
fn an_archive_on_the_standard_input_needs_size_and_kernel() {
    let site = Site::new();
    let mut request = site.request(site.dir.path());
    request.source = Source::StandardInput;
    let error = site.build(&request).unwrap_err().to_string();
    assert!(error.contains("give --size and --kernel"), "{error}");
    request.size = Some("2x".parse().unwrap());
    let error = site.build(&request).unwrap_err().to_string();
    assert!(error.contains("what a multiple of its size is"), "{error}");
}

/// Builds from an archive of the ordinary tree and the members that `add` appends.
fn refused(add: impl FnOnce(&mut tar::Builder<fs::File>), why: &str) {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let path = site.path("hostile.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", &tree).unwrap();
    add(&mut archive);
    archive.finish().unwrap();
    let error = format!("{:#}", site.build(&site.request(&path)).unwrap_err());
    assert!(error.contains(why), "{error}");
    assert!(site.library.images().unwrap().is_empty());
    assert!(!site.path("escaped").exists());
    site.assert_clean();
}

/// A member whose name is taken as it is.
fn member(archive: &mut tar::Builder<fs::File>, name: &str, kind: tar::EntryType, link: &str) {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    for number in [0, 1, 2] {
        match number {
            0 => header.set_uid(0),
            1 => header.set_gid(0),
            _ => header.set_mtime(0),
        }
    }
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
}

#[test]
fn members_that_leave_the_tree_are_refused() {
    let file = tar::EntryType::Regular;
    refused(
        |archive| member(archive, "/etc/escaped", file, ""),
        "absolute path",
    );
    refused(|archive| member(archive, "../../escaped", file, ""), "`..`");
    refused(
        |archive| member(archive, "etc/../../escaped", file, ""),
        "`..`",
    );
}

#[test]
fn members_through_symlinks_are_refused() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let link = |archive: &mut tar::Builder<fs::File>| member(archive, "out", Symlink, "/tmp");
    let through = |name: &'static str, kind, to: &'static str| {
        move |archive: &mut tar::Builder<fs::File>| {
            link(archive);
            member(archive, name, kind, to);
        }
    };
    refused(through("out/escaped", Regular, ""), "leads through out");
    refused(
        through("out/deeper/escaped", Regular, ""),
        "leads through out",
    );
    refused(through("out", Directory, ""), "not a directory");
    refused(through("name", Link, "out/passwd"), "leads through out");
    refused(through("name", Link, "../../etc/passwd"), "`..`");
    refused(through("name", Link, "/etc/passwd"), "absolute path");
}

#[test]
fn a_later_symlink_does_not_lead_directories_attributes_away() {
    use tar::EntryType::{Directory, Symlink};
    refused(
        |archive| {
            member(archive, "etc/full", Directory, "");
            member(archive, "etc", Symlink, "/tmp");
        },
        "a directory that is not empty",
    );
}

#[test]
fn archives_that_are_none_or_cut_off_are_refused() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    let path = site.path("fc28.tar");
    run(
        "tar",
        &[
            "-c",
            "-C",
            tree.to_str().unwrap(),
            "-f",
            path.to_str().unwrap(),
            ".",
        ],
    );
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], why: &str| {
        fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", site.build(&site.request(&path)).unwrap_err());
        assert!(error.contains(why), "{error}");
        site.assert_clean();
    };
    refused(&whole[..100], "this is not a tar archive");
    refused(b"", "this is not a tar archive");
    refused(b"#!/bin/sh\n", "this is not a tar archive");
    refused(&whole[..700], "cut off");
    let data = whole
        .windows(6)
        .position(|bytes| bytes == b"070701")
        .unwrap();
    refused(&whole[..data + 100], "cut off");
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    refused(&damaged, "not a tar archive, or it is damaged");
    refused(&[b'x'; 2000], "not a tar archive");
    refused(&zstd::encode_all(&whole[..], 1).unwrap()[..500], "");
}

/// Headers that state what no archive can hold end the build at once, and fill no memory.
#[test]
fn bombs_are_refused() {
    let raw = |change: &dyn Fn(&mut [u8]), data: &[u8], why: &str| {
        refused(
            |archive| {
                let mut header = tar::Header::new_gnu();
                header.set_path("bomb").unwrap();
                header.set_mode(0o644);
                header.set_size(0);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                change(header.as_mut_bytes());
                header.set_cksum();
                let file = archive.get_mut();
                file.write_all(header.as_bytes()).unwrap();
                file.write_all(data).unwrap();
            },
            why,
        );
    };
    let (size, kind) = (124..136, 156);
    let all_ones = |header: &mut [u8]| header[size.clone()].fill(0xff);
    raw(
        &all_ones,
        &[],
        "states a size of 18446744073709551615 bytes",
    );
    let long_name = |header: &mut [u8]| {
        header[kind] = b'L';
        header[size.clone()].copy_from_slice(b"07777777777\0");
    };
    raw(&long_name, &[], "a name or attribute of 1073741823 bytes");
    // GNU's sparse map: byte 482 says that a block of it follows, byte 504 of that one the same.
    let sparse = |header: &mut [u8]| {
        header[kind] = b'S';
        header[482] = 1;
        header[483..495].copy_from_slice(b"00000000000\0");
    };
    let mut block = [0; 512];
    block[504] = 1;
    raw(
        &sparse,
        &block.repeat(60_000),
        "a map of a sparse member is too long",
    );
}
