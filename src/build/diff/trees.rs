//! Two trees, walked side by side.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, major, minor};
use serde::{Serialize, Serializer};

use super::{Times, Trust};
use crate::build::tree::attributes::{At, Xattr};
use crate::build::tree::data::{BUFFER, next_data};
use crate::build::tree::pool::{Pool, in_parallel};
use crate::build::tree::{Root, about, enter, entries, kind_of, stat_at, workers};
use crate::exec::Cancel;

/// What is in one tree and not in the other, and what is not the same in both; by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Only in the second.
    pub added: Vec<Entry>,
    /// Only in the first.
    pub removed: Vec<Entry>,
    /// In both, and different.
    pub changed: Vec<Changed>,
}

/// Something in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it is, below the root.
    pub path: TreePath,
    /// What it is.
    pub kind: Kind,
    /// Bytes of its contents, if it is a file.
    pub size: u64,
}

/// Something that is in both trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Where it is, below the root.
    pub path: TreePath,
    /// What it is in the second tree.
    pub kind: Kind,
    /// What is not the same.
    pub aspects: Vec<Aspect>,
}

/// One thing that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Aspect {
    /// It is something else altogether; nothing more is told of it.
    Kind {
        /// In the first tree.
        from: Kind,
        /// In the second.
        to: Kind,
    },
    /// Permissions, with set-uid, set-gid and sticky bits.
    Mode {
        /// In the first tree.
        #[serde(serialize_with = "octal")]
        from: u32,
        /// In the second.
        #[serde(serialize_with = "octal")]
        to: u32,
    },
    /// User and group.
    Owner {
        /// In the first tree.
        from: (u32, u32),
        /// In the second.
        to: (u32, u32),
    },
    /// The contents of a file.
    Content {
        /// Bytes in the first tree.
        from: u64,
        /// In the second.
        to: u64,
    },
    /// Where a symlink leads.
    Target {
        /// In the first tree.
        from: TreePath,
        /// In the second.
        to: TreePath,
    },
    /// Which device a node is: major and minor number.
    Device {
        /// In the first tree.
        from: (u64, u64),
        /// In the second.
        to: (u64, u64),
    },
    /// Extended attributes, which ACLs and file capabilities are, too.
    Attributes {
        /// The names of those that are not the same.
        names: Vec<String>,
    },
    /// When it was modified.
    Modified {
        /// In the first tree.
        from: Timestamp,
        /// In the second.
        to: Timestamp,
    },
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink.
    Link,
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A path in a tree, whose names are bytes. In JSON it is a string, or a list of its bytes where it
/// is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreePath(PathBuf);

/// How strictly trees are compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    pub(super) times: Times,
    pub(super) trust: Trust,
}

impl Differences {
    /// Whether the trees are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl TreePath {
    /// The path, without a slash before it.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => to.serialize_str(text),
            None => to.collect_seq(self.0.as_os_str().as_bytes()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Link => "symlink",
            Kind::Block => "block device",
            Kind::Character => "character device",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        })
    }
}

/// Compares the trees `before` and `after`, as far as their own file systems go.
pub(super) fn compare(
    before: &Root,
    after: &Root,
    how: How,
    cancel: &Cancel,
) -> Result<Differences> {
    // A deep tree keeps two directories open for each level of it.
    crate::exec::allow_many_files();
    let walk = Walk {
        how,
        cancel,
        found: Mutex::default(),
    };
    let root = OsStr::new(".");
    let top = Arc::new(Level {
        sides: [
            Some(before.dir().try_clone()?),
            Some(after.dir().try_clone()?),
        ],
        path: PathBuf::new(),
    });
    let [old, new] = [stat_at(before.dir(), root)?, stat_at(after.dir(), root)?];
    let mut buffers = Buffers::new();
    walk.both(&top, root, PathBuf::from("."), [&old, &new], &mut buffers)?;
    let first = Task {
        above: top,
        name: root.to_owned(),
        there: [true, true],
    };
    in_parallel(first, workers(), cancel, || {
        let mut buffers = Buffers::new();
        let walk = &walk;
        Ok(move |task, pool: &Pool<Task>| walk.directory(task, pool, &mut buffers))
    })?;
    let found = walk.found.into_inner();
    let mut found = found.unwrap_or_else(PoisonError::into_inner);
    found.added.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.removed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.changed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

struct Walk<'a> {
    how: How,
    cancel: &'a Cancel,
    /// Held for a push only.
    found: Mutex<Differences>,
}

/// A directory, as far as the trees have it.
struct Level {
    sides: [Option<File>; 2],
    /// Below the root.
    path: PathBuf,
}

/// A directory that is still to be visited, and in which of the trees it is.
struct Task {
    above: Arc<Level>,
    name: OsString,
    there: [bool; 2],
}

struct Buffers([Vec<u8>; 2]);

impl Buffers {
    fn new() -> Self {
        Self([vec![0; BUFFER], vec![0; BUFFER]])
    }
}

impl Walk<'_> {
    fn directory(&self, task: Task, pool: &Pool<Task>, buffers: &mut Buffers) -> Result<()> {
        let path = match task.name.as_bytes() {
            b"." => PathBuf::new(),
            _ => task.above.path.join(&task.name),
        };
        let opened = open_sides(&task);
        let sides = about(opened, "reading", || path.clone())?;
        let mut names: BTreeMap<OsString, [Option<FileStat>; 2]> = BTreeMap::new();
        for (at, side) in sides.iter().enumerate() {
            let Some(dir) = side else { continue };
            let found = about(entries(dir), "reading", || path.clone())?;
            for entry in found {
                let stat = about(stat_at(dir, &entry.name), "reading", || {
                    path.join(&entry.name)
                })?;
                if let Some(place) = names.entry(entry.name).or_default().get_mut(at) {
                    *place = Some(stat);
                }
            }
        }
        let here = Arc::new(Level { sides, path });
        let mut below = Vec::new();
        for (name, stats) in names {
            self.cancel.check()?;
            let path = here.path.join(&name);
            match &stats {
                [Some(old), Some(new)] => {
                    let compared = self.both(&here, &name, path.clone(), [old, new], buffers);
                    about(compared, "comparing", || path)?;
                }
                [Some(old), None] => self.lock().removed.push(entry(path, old)),
                [None, Some(new)] => self.lock().added.push(entry(path, new)),
                [None, None] => {}
            }
            let there = stats.map(|stat| stat.is_some_and(|stat| kind_of(&stat) == SFlag::S_IFDIR));
            if there.contains(&true) {
                let above = Arc::clone(&here);
                below.push(Task { above, name, there });
            }
        }
        pool.add(below);
        Ok(())
    }

    /// Compares what is called the same in both trees.
    fn both(
        &self,
        here: &Level,
        name: &OsStr,
        path: PathBuf,
        [old, new]: [&FileStat; 2],
        buffers: &mut Buffers,
    ) -> Result<()> {
        if self.how.trust == Trust::Inodes && is_untouched(old, new) {
            return Ok(());
        }
        let [Some(one), Some(other)] = &here.sides else {
            return Ok(());
        };
        let dirs = [one, other];
        let kind = kind_of(new);
        let aspects = if kind_of(old) == kind {
            let mut aspects = told_by_stat(old, new);
            aspects.extend(match kind {
                SFlag::S_IFREG => self.contents(dirs, name, [old, new], buffers)?,
                SFlag::S_IFLNK => targets(dirs, name)?,
                _ => None,
            });
            aspects.extend(attributes(dirs, name)?);
            if self.how.times == Times::Told {
                aspects.extend(modified(old, new));
            }
            aspects
        } else {
            let (from, to) = (kind_named(old), kind_named(new));
            vec![Aspect::Kind { from, to }]
        };
        if !aspects.is_empty() {
            let (path, kind) = (TreePath(path), kind_named(new));
            self.lock().changed.push(Changed {
                path,
                kind,
                aspects,
            });
        }
        Ok(())
    }

    fn contents(
        &self,
        [one, other]: [&File; 2],
        name: &OsStr,
        [old, new]: [&FileStat; 2],
        buffers: &mut Buffers,
    ) -> Result<Option<Aspect>> {
        let (from, to) = (size_of(old), size_of(new));
        let changed = Some(Aspect::Content { from, to });
        if from != to {
            return Ok(changed);
        }
        if from == 0 {
            return Ok(None);
        }
        let files = [open(one, name)?, open(other, name)?];
        let same = same_bytes(&files, from, buffers, self.cancel)?;
        Ok(if same { None } else { changed })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Differences> {
        // A worker that panics poisons the lock and then the scope; each push is whole.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_sides(task: &Task) -> Result<[Option<File>; 2]> {
    let mut sides = [None, None];
    let above = task.above.sides.iter().zip(task.there);
    for (side, (dir, there)) in sides.iter_mut().zip(above) {
        if let Some(dir) = dir.as_ref().filter(|_| there) {
            *side = enter(dir, &task.name)?;
        }
    }
    Ok(sides)
}

/// Whether a file is the same as when the disk was copied, by what no program can choose: see the
/// module above.
fn is_untouched(old: &FileStat, new: &FileStat) -> bool {
    let identity = |stat: &FileStat| {
        (
            stat.st_ino,
            (stat.st_ctime, stat.st_ctime_nsec),
            (stat.st_mtime, stat.st_mtime_nsec),
            stat.st_size,
            stat.st_mode,
        )
    };
    identity(old) == identity(new)
}

fn told_by_stat(old: &FileStat, new: &FileStat) -> Vec<Aspect> {
    let mut aspects = Vec::new();
    let (from, to) = (old.st_mode & 0o7777, new.st_mode & 0o7777);
    // Symlinks have no mode of their own, and file systems show different ones.
    if from != to && kind_of(new) != SFlag::S_IFLNK {
        aspects.push(Aspect::Mode { from, to });
    }
    let owner = |stat: &FileStat| (stat.st_uid, stat.st_gid);
    let (from, to) = (owner(old), owner(new));
    if from != to {
        aspects.push(Aspect::Owner { from, to });
    }
    let is_node = matches!(kind_of(new), SFlag::S_IFBLK | SFlag::S_IFCHR);
    if is_node && old.st_rdev != new.st_rdev {
        let device = |stat: &FileStat| (major(stat.st_rdev), minor(stat.st_rdev));
        let (from, to) = (device(old), device(new));
        aspects.push(Aspect::Device { from, to });
    }
    aspects
}

fn targets([one, other]: [&File; 2], name: &OsStr) -> Result<Option<Aspect>> {
    let read = |dir: &File| readlinkat(dir, name).context("reading where it leads");
    let (from, to) = (read(one)?, read(other)?);
    Ok((from != to).then(|| Aspect::Target {
        from: TreePath(from.into()),
        to: TreePath(to.into()),
    }))
}

fn attributes([one, other]: [&File; 2], name: &OsStr) -> Result<Option<Aspect>> {
    let sorted = |dir: &File| -> Result<Vec<Xattr>> {
        let mut all = At { dir, name }.xattrs()?;
        all.sort();
        Ok(all)
    };
    let (old, new) = (sorted(one)?, sorted(other)?);
    let changed = |from: &[Xattr], to: &[Xattr]| -> Vec<String> {
        let gone = from.iter().filter(|attribute| !to.contains(attribute));
        gone.map(|(name, _)| name.to_string_lossy().into_owned())
            .collect()
    };
    let mut names = changed(&old, &new);
    names.extend(changed(&new, &old));
    names.sort();
    names.dedup();
    Ok((!names.is_empty()).then_some(Aspect::Attributes { names }))
}

fn modified(old: &FileStat, new: &FileStat) -> Option<Aspect> {
    let time = |stat: &FileStat| {
        let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        // A time that no calendar knows is as good as the first one.
        Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(Timestamp::MIN)
    };
    let (from, to) = (time(old), time(new));
    (from != to).then_some(Aspect::Modified { from, to })
}

fn open(dir: &File, name: &OsStr) -> Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = openat(dir, name, flags, Mode::empty()).context("opening it")?;
    Ok(File::from(file))
}

/// Whether two files of the same size have the same contents. What is a hole in both is not read.
fn same_bytes(
    files: &[File; 2],
    size: u64,
    Buffers([mine, theirs]): &mut Buffers,
    cancel: &Cancel,
) -> Result<bool> {
    let [one, other] = files;
    let mut at = 0;
    while let Some((from, to)) = next_to_read(files, at, size)? {
        at = from;
        while at < to {
            cancel.check()?;
            let want = usize::try_from(to - at).map_or(BUFFER, |left| left.min(BUFFER));
            let (Some(mine), Some(theirs)) = (mine.get_mut(..want), theirs.get_mut(..want)) else {
                bail!("a piece larger than its buffer");
            };
            one.read_exact_at(mine, at).context("reading it")?;
            other.read_exact_at(theirs, at).context("reading it")?;
            if mine != theirs {
                return Ok(false);
            }
            at += want as u64;
        }
    }
    Ok(true)
}

/// The next range, from `at` on, in which one of the files has data.
fn next_to_read([one, other]: &[File; 2], at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    let (mine, theirs) = (next_data(one, at, size)?, next_data(other, at, size)?);
    Ok(match (mine, theirs) {
        (Some((from, to)), Some((other_from, other_to))) => {
            Some((from.min(other_from), to.max(other_to)))
        }
        (one, other) => one.or(other),
    })
}

fn entry(path: PathBuf, stat: &FileStat) -> Entry {
    let kind = kind_named(stat);
    Entry {
        path: TreePath(path),
        kind,
        size: match kind {
            Kind::File => size_of(stat),
            _ => 0,
        },
    }
}

fn size_of(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn kind_named(stat: &FileStat) -> Kind {
    match kind_of(stat) {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Link,
        SFlag::S_IFBLK => Kind::Block,
        SFlag::S_IFCHR => Kind::Character,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        _ => Kind::File,
    }
}

fn octal<S: Serializer>(mode: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{mode:04o}"))
}
