//! Trees of files: measured, read safely, and copied faithfully.
//!
//! A [`copy`] keeps owners, modes, times to the nanosecond, hard links, symlinks, extended
//! attributes (so ACLs and file capabilities), holes, device nodes, fifos and sockets; names are
//! bytes, and no path is ever handed to the kernel whole, so neither encoding nor `PATH_MAX`
//! matters. It does not leave the tree's file system.

pub(crate) mod attributes;
mod change;
mod copy;
pub(crate) mod data;
mod exclude;
mod links;
mod measure;
pub(crate) mod pool;
pub(crate) mod root;
mod writeback;

pub(crate) use copy::copy;
pub use exclude::Excludes;
pub(crate) use measure::{Measure, measure};
pub(crate) use root::Root;
pub(crate) use writeback::written_back;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

/// Threads that walk a tree: more than processors, since some of the time they wait for a disk.
pub(crate) fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (2 * processors).clamp(4, 16)
}

/// An entry of a directory.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    inode: u64,
}

/// The entries of `dir` in the order of their inodes, which is about the order that they lie on
/// the disk in.
pub(crate) fn entries(dir: &File) -> Result<Vec<Entry>> {
    // A descriptor of its own: reading moves the position.
    let own = openat(
        dir,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
    .context("opening it for its entries")?;
    let mut reader = nix::dir::Dir::from_fd(own).context("listing it")?;
    let mut entries = Vec::new();
    for entry in reader.iter() {
        let entry = entry.context("listing it")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push(Entry {
                name: OsStr::from_bytes(name).to_owned(),
                inode: entry.ino(),
            });
        }
    }
    entries.sort_unstable_by_key(|entry| entry.inode);
    Ok(entries)
}

/// What `name` in `dir` is; symlinks are not followed.
pub(crate) fn stat_at(dir: &File, name: &OsStr) -> Result<FileStat> {
    fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).context("looking at it")
}

pub(crate) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The directory `name` in `dir`, or `None` where another file system is mounted on it.
pub(crate) fn enter(dir: &File, name: &OsStr) -> Result<Option<File>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(dir, name, how) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::EXDEV) => Ok(None),
        Err(e) => Err(e).context("opening it"),
    }
}

/// Puts the entry's path in front of what went wrong with it.
pub(crate) fn about<T>(
    result: Result<T>,
    doing: &str,
    path: impl FnOnce() -> PathBuf,
) -> Result<T> {
    result.with_context(|| format!("{doing} {}", path().display()))
}
