//! Two trees, compared entry by entry.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

/// What is told of an entry, so that a difference can be read.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    kind: SFlag,
    mode: u32,
    owner: (u32, u32),
    names: u64,
    device: u64,
    size: i64,
    modified: (i64, i64),
    accessed: Option<(i64, i64)>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
    contents: Contents,
    other_names: BTreeSet<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
enum Contents {
    None,
    Hash(Vec<u8>),
    Link(OsString),
    Names(BTreeSet<OsString>),
}

/// How strictly trees are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Modified and accessed.
    All,
    /// Modified only.
    Modified,
    /// Modified, without the part of a second.
    Seconds,
}

struct Tree {
    entries: BTreeMap<PathBuf, (Told, FileStat)>,
}

/// Panics with every difference between the trees, other than of `left_out` names at the top.
pub(crate) fn assert_same(one: &Path, two: &Path, left_out: &[&str], times: Times) {
    let read = |root: &Path| {
        let mut tree = Tree {
            entries: BTreeMap::new(),
        };
        tree.visit(&File::open(root).unwrap(), Path::new(""), left_out, times);
        tree.name_links();
        tree
    };
    let (one, two) = (read(one), read(two));
    let mut wrong = Vec::new();
    let paths: BTreeSet<_> = one.entries.keys().chain(two.entries.keys()).collect();
    for path in paths {
        match (one.entries.get(path), two.entries.get(path)) {
            (Some((a, one)), Some((b, two))) => {
                for (a, b) in a.lines().into_iter().zip(b.lines()) {
                    if a != b {
                        wrong.push(format!("{}: {a:.200}, but {b:.200}", shown(path)));
                    }
                }
                // Holes stay holes; a file system may need a few blocks more for their map, or for
                // zeros that it compresses instead.
                if two.st_blocks > one.st_blocks + 64 + two.st_size / 512 / 128 {
                    wrong.push(format!(
                        "{}: its holes were filled, {} blocks became {}",
                        shown(path),
                        one.st_blocks,
                        two.st_blocks
                    ));
                }
            }
            (found, _) => {
                let side = if found.is_some() { "second" } else { "first" };
                wrong.push(format!("{}: missing in the {side}", shown(path)));
            }
        }
    }
    assert!(wrong.is_empty(), "the trees differ:\n{}", wrong.join("\n"));
    assert!(one.entries.len() > 5, "there was nothing to compare");
}

impl Told {
    /// Each thing on a line.
    fn lines(&self) -> Vec<String> {
        let text = format!("{self:#?}");
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            match lines.last_mut() {
                // What belongs to the thing above it is indented more.
                Some(above) if line.starts_with("     ") => above.push_str(line.trim_start()),
                _ => lines.push(line.trim_start().to_owned()),
            }
        }
        lines
    }
}

impl Tree {
    fn visit(&mut self, dir: &File, path: &Path, left_out: &[&str], times: Times) {
        let names = names(dir);
        for name in names {
            if path.as_os_str().is_empty() && left_out.iter().any(|out| name == *out) {
                continue;
            }
            let stat = fstatat(dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).unwrap();
            let below = path.join(&name);
            let told = tell(dir, &name, &stat, times);
            if told.kind == SFlag::S_IFDIR {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOATIME;
                let opened = openat(dir, name.as_os_str(), flags, Mode::empty()).unwrap();
                self.visit(&File::from(opened), &below, left_out, times);
            }
            self.entries.insert(below, (told, stat));
        }
    }

    /// Tells each file of several names what the others are.
    fn name_links(&mut self) {
        let mut groups: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
        for (path, (told, stat)) in &self.entries {
            if told.kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
                let group = groups.entry((stat.st_dev, stat.st_ino)).or_default();
                group.insert(path.clone());
            }
        }
        for (told, stat) in self.entries.values_mut() {
            if let Some(group) = groups.get(&(stat.st_dev, stat.st_ino)) {
                told.other_names = group.clone();
            }
        }
    }
}

fn tell(dir: &File, name: &OsString, stat: &FileStat, times: Times) -> Told {
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let is_dir = kind == SFlag::S_IFDIR;
    let fraction = match times {
        Times::Seconds => 0,
        Times::All | Times::Modified => stat.st_mtime_nsec,
    };
    // Reading one name of a symlink, as is done here, is seen at the other.
    let read_here = kind == SFlag::S_IFLNK && stat.st_nlink > 1;
    Told {
        kind,
        mode: stat.st_mode,
        owner: (stat.st_uid, stat.st_gid),
        names: if is_dir { 0 } else { stat.st_nlink },
        device: match kind {
            SFlag::S_IFCHR | SFlag::S_IFBLK => stat.st_rdev,
            _ => 0,
        },
        size: if is_dir { 0 } else { stat.st_size },
        modified: (stat.st_mtime, fraction),
        accessed: (times == Times::All && !read_here)
            .then_some((stat.st_atime, stat.st_atime_nsec)),
        xattrs: xattrs(dir, name),
        contents: contents(dir, name, kind),
        other_names: BTreeSet::new(),
    }
}

fn xattrs(dir: &File, name: &OsString) -> BTreeMap<OsString, Vec<u8>> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    let value = |name: OsString| {
        let value = xattr::get(&path, &name).unwrap().unwrap();
        (name, value)
    };
    // XFS shows ACLs to root a second time.
    let shown_twice = |name: &OsString| name.to_str().is_some_and(|n| n.starts_with("trusted.SGI"));
    let names = xattr::list(&path).unwrap();
    names.filter(|name| !shown_twice(name)).map(value).collect()
}

fn contents(dir: &File, name: &OsString, kind: SFlag) -> Contents {
    use sha2::Digest;
    let open = |flags| {
        let flags = flags | OFlag::O_RDONLY | OFlag::O_NOATIME;
        File::from(openat(dir, name.as_os_str(), flags, Mode::empty()).unwrap())
    };
    match kind {
        SFlag::S_IFREG => {
            let mut bytes = Vec::new();
            open(OFlag::empty()).read_to_end(&mut bytes).unwrap();
            Contents::Hash(sha2::Sha256::digest(&bytes).to_vec())
        }
        SFlag::S_IFLNK => Contents::Link(readlinkat(dir, name.as_os_str()).unwrap()),
        SFlag::S_IFDIR => Contents::Names(names(&open(OFlag::O_DIRECTORY)).into_iter().collect()),
        _ => Contents::None,
    }
}

fn names(dir: &File) -> Vec<OsString> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOATIME;
    let own = openat(dir, ".", flags, Mode::empty()).unwrap();
    let mut own = nix::dir::Dir::from_fd(own).unwrap();
    own.iter()
        .map(|entry| OsString::from_vec(entry.unwrap().file_name().to_bytes().to_vec()))
        .filter(|name| name != "." && name != "..")
        .collect()
}

/// The end of a path, which may be longer than a screen.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let skip = text.chars().count().saturating_sub(100);
    text.chars().skip(skip).collect()
}
