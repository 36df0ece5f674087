//! A tree of everything that copiers get wrong.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::libc::makedev;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mkdirat, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// An ACL as the kernel keeps it: owner rwx, user 4711 (who has no name) r-x, group r--, mask r-x, others nothing.
const ACL: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, //
    2, 0, 5, 0, 0x67, 0x12, 0, 0, //
    4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, //
    16, 0, 5, 0, 0xff, 0xff, 0xff, 0xff, //
    32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
];

/// cap_dac_override and cap_fowner, whose mask is the byte of a line end.
const CAPABILITY: &[u8] = &[
    1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Fills `tree` with awkward things.
pub(crate) fn fill(tree: &Path) {
    files(&tree.join("files"));
    names(&tree.join("names"));
    links(&tree.join("links"));
    nodes(&tree.join("nodes"));
    attributes(&tree.join("attributes"));
    sparse(&tree.join("sparse"));
    deep(&tree.join("deep"));
    crowd(&tree.join("crowd"));
    // Last, and from the inside out: everything else would change it again.
    times(tree);
}

fn files(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for (name, length) in [
        ("empty", 0),
        ("one", 1),
        ("buffer", 256 << 10),
        ("more", 300_001),
    ] {
        let bytes: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
        fs::write(dir.join(name), bytes).unwrap();
    }
    let modes = [
        ("set-uid", 0o4755),
        ("set-gid", 0o2711),
        ("sticky", 0o1777),
        ("none", 0),
    ];
    for (name, mode) in modes {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(1000), Some(1001)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    for (name, mode) in [("shut", 0o000), ("shared", 0o2770), ("tmp", 0o1777)] {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(33), Some(44)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        fs::write(path.join("inside"), name).unwrap();
    }
}

fn names(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let longest = [b'n'; 255];
    let names: [&[u8]; 6] = [
        b"\xff\xfe not UTF-8 \x80",
        b"line\nend",
        b" blank ",
        b"-rf",
        b"back\\slash*?[",
        &longest,
    ];
    for name in names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
}

fn links(dir: &Path) {
    fs::create_dir_all(dir.join("other")).unwrap();
    fs::write(dir.join("first"), "one file of three names").unwrap();
    fs::hard_link(dir.join("first"), dir.join("second")).unwrap();
    fs::hard_link(dir.join("first"), dir.join("other/third")).unwrap();
    let long = "t/".repeat(500);
    for (name, target) in [
        ("dangling", "/no/such/file"),
        ("relative", "../files/one"),
        ("outside", "../../../../../etc/passwd"),
        ("long", long.as_str()),
    ] {
        symlink(target, dir.join(name)).unwrap();
    }
    lchown(dir.join("dangling"), Some(7), Some(8)).unwrap();
    symlink("a link of two names", dir.join("linked")).unwrap();
    fs::hard_link(dir.join("linked"), dir.join("other/linked")).unwrap();
}

fn nodes(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    let nodes = [
        ("null", SFlag::S_IFCHR, makedev(1, 3)),
        ("large", SFlag::S_IFCHR, makedev(300, 70_000)),
        ("disk", SFlag::S_IFBLK, makedev(8, 0)),
        ("fifo", SFlag::S_IFIFO, 0),
    ];
    for (name, kind, device) in nodes {
        mknod(&dir.join(name), kind, mode, device).unwrap();
        chown(dir.join(name), Some(0), Some(6)).unwrap();
    }
    fs::hard_link(dir.join("fifo"), dir.join("fifo-too")).unwrap();
    drop(UnixListener::bind(dir.join("socket")).unwrap());
}

fn attributes(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let file = dir.join("all");
    fs::write(&file, "x").unwrap();
    chown(&file, Some(1000), Some(1000)).unwrap();
    xattr::set(&file, "user.text", b"value\nof two lines").unwrap();
    xattr::set(&file, "user.bytes", b"\0\xff\n\0").unwrap();
    xattr::set(&file, "user.empty", b"").unwrap();
    xattr::set(&file, "trusted.overlay.opaque", b"y").unwrap();
    xattr::set(&file, "security.capability", CAPABILITY).unwrap();
    xattr::set(&file, "system.posix_acl_access", ACL).unwrap();
    // A default ACL rubs off on what is made in the directory afterwards.
    let plain = dir.join("default");
    fs::create_dir_all(plain.join("before")).unwrap();
    fs::write(plain.join("file"), "x").unwrap();
    xattr::set(&plain, "system.posix_acl_default", ACL).unwrap();
    xattr::set(&plain, "user.directory", b"yes").unwrap();
    fs::create_dir(plain.join("after")).unwrap();
    symlink("x", dir.join("link")).unwrap();
    xattr::set(dir.join("link"), "trusted.link", b"its own").unwrap();
}

fn sparse(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let make = |name: &str, size: u64, pieces: &[u64]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(size).unwrap();
        for &at in pieces {
            file.write_all_at(&[0xab; 8192], at).unwrap();
        }
    };
    make("hole", 64 << 20, &[]);
    make("middle", 64 << 20, &[16 << 20]);
    make(
        "many",
        64 << 20,
        &[0, 1 << 20, 5 << 20, 9 << 20, 20 << 20, (64 << 20) - 8192],
    );
    make("odd", (1 << 20) + 1, &[4096]);
}

/// 40 directories of 200 letters each: the last file's path is longer than `PATH_MAX`.
fn deep(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mut at = File::open(dir).unwrap();
    let name = "d".repeat(200);
    for _ in 0..40 {
        mkdirat(&at, name.as_str(), Mode::S_IRWXU).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        at = File::from(openat(&at, name.as_str(), flags, Mode::empty()).unwrap());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
    let file = openat(&at, "bottom", flags, Mode::from_bits_truncate(0o600)).unwrap();
    File::from(file).write_all_at(b"deep", 0).unwrap();
    let flags = nix::fcntl::AtFlags::empty();
    nix::unistd::linkat(&at, "bottom", &at, "bottom-too", flags).unwrap();
}

/// Many small files, so that all threads have something to do.
fn crowd(dir: &Path) {
    for outer in 0..30 {
        let outer = dir.join(outer.to_string());
        fs::create_dir_all(&outer).unwrap();
        for inner in 0..30 {
            fs::write(outer.join(inner.to_string()), outer.as_os_str().as_bytes()).unwrap();
        }
        let file = OpenOptions::new()
            .write(true)
            .open(outer.join("7"))
            .unwrap();
        file.set_len(100_000).unwrap();
    }
}

/// Times to the nanosecond, some of long ago.
fn times(tree: &Path) {
    let set = |name: &str, seconds: i64, nanoseconds: i64| {
        let path = tree.join(name);
        let accessed = TimeSpec::new(seconds + 5, 987_654_321);
        let modified = TimeSpec::new(seconds, nanoseconds);
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, &path, &accessed, &modified, flags).unwrap();
    };
    set("files/one", 1_234_567_890, 123_456_789);
    set("files/empty", -86_400, 1);
    set("links/dangling", 1_000_000_000, 999_999_999);
    set("nodes/null", 1_100_000_000, 5);
    set("nodes/socket", 1_100_000_001, 6);
    set("files/shared", 1_200_000_000, 7);
    set("files", 1_300_000_000, 8);
}
