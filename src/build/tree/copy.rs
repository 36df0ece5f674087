//! The copier.
//!
//! A directory is one piece of work: its entries are made in the copy, its subdirectories become
//! further pieces, and then its own attributes are set. That may happen before the subdirectories
//! are filled, since filling them does not touch it; and it must not happen earlier, since a
//! default ACL or a set-gid bit would rub off on the entries.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat, umask};
use nix::unistd::symlinkat;

use super::attributes::{At, Attributes, xattrs_of};
use super::data;
use super::exclude::Excludes;
use super::links::{Links, Name, link};
use super::pool::{Pool, in_parallel};
use super::root::Root;
use super::{about, enter, entries, kind_of, stat_at, workers};
use crate::exec::Cancel;

/// For the owner only, until the real mode is set.
const PRIVATE: Mode = Mode::S_IRWXU;

struct Copier<'a> {
    target: &'a Root,
    excludes: &'a Excludes,
    cancel: &'a Cancel,
    done: &'a (dyn Fn(u64) + Sync),
    links: Links,
}

/// A directory and its copy.
struct Pair {
    source: File,
    target: File,
    /// Below the root.
    path: PathBuf,
}

/// A directory that is still to be copied; its copy exists.
struct Task {
    parent: Arc<Pair>,
    name: OsString,
    stat: FileStat,
}

/// Copies what is in the tree `source`, and its own attributes, into the empty directory `target`.
/// `done` is told how many bytes of data were copied, as they are.
pub(crate) fn copy(
    source: &Root,
    target: &Root,
    excludes: &Excludes,
    cancel: &Cancel,
    done: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    crate::exec::allow_many_files();
    let copier = Copier {
        target,
        excludes,
        cancel,
        done,
        links: Links::default(),
    };
    let first = Task {
        parent: Arc::new(Pair {
            source: source.dir().try_clone()?,
            target: target.dir().try_clone()?,
            path: PathBuf::new(),
        }),
        name: OsString::from("."),
        stat: stat_at(source.dir(), OsStr::new("."))?,
    };
    in_parallel(first, workers(), cancel, || {
        // The file mode mask belongs to the process unless a thread takes its own.
        unshare(CloneFlags::CLONE_FS).context("giving a thread a file mode mask of its own")?;
        umask(Mode::empty());
        let mut buffer = vec![0; data::BUFFER];
        let copier = &copier;
        Ok(move |task, pool: &Pool<Task>| copier.directory(task, pool, &mut buffer))
    })
}

impl Copier<'_> {
    fn directory(&self, task: Task, pool: &Pool<Task>, buffer: &mut [u8]) -> Result<()> {
        let path = task.parent.path.join(&task.name);
        let path: PathBuf = path
            .components()
            .filter(|part| part.as_os_str() != ".")
            .collect();
        let opened = self.open(&task);
        let (source, target) = about(opened, "copying", || path.clone())?;
        let Some(source) = source else {
            // A mount point: what is mounted stays behind, the directory does not.
            let attributes = Attributes::new(&task.stat, Vec::new());
            return about(attributes.set_on_dir(&target), "copying", || path);
        };
        let here = Arc::new(Pair {
            source,
            target,
            path,
        });
        let found = entries(&here.source);
        let mut below = Vec::new();
        for entry in about(found, "reading", || here.path.clone())? {
            let path = here.path.join(&entry.name);
            if !self.excludes.leave_out(&path) {
                let copied = self.entry(&here, entry.name, &path, pool, buffer);
                below.extend(about(copied, "copying", || path)?);
            }
            self.cancel.check()?;
        }
        let attributes = self.attributes_of(&here.source);
        let set = attributes.and_then(|all| all.set_on_dir(&here.target));
        about(set, "copying", || here.path.clone())?;
        pool.add(below);
        Ok(())
    }

    fn open(&self, task: &Task) -> Result<(Option<File>, File)> {
        let source = enter(&task.parent.source, &task.name)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = openat(
            &task.parent.target,
            task.name.as_os_str(),
            flags,
            Mode::empty(),
        )
        .context("opening its copy")?;
        Ok((source, File::from(target)))
    }

    fn attributes_of(&self, file: &File) -> Result<Attributes> {
        let stat = fstat(file).context("looking at it")?;
        Ok(Attributes::new(&stat, xattrs_of(file)?))
    }

    /// Copies one entry; a directory is only made, and given back to be filled.
    fn entry(
        &self,
        here: &Arc<Pair>,
        name: OsString,
        path: &std::path::Path,
        pool: &Pool<Task>,
        buffer: &mut [u8],
    ) -> Result<Option<Task>> {
        let stat = stat_at(&here.source, &name)?;
        let kind = kind_of(&stat);
        if kind == SFlag::S_IFDIR {
            mkdirat(&here.target, name.as_os_str(), PRIVATE).context("making it")?;
            let parent = Arc::clone(here);
            return Ok(Some(Task { parent, name, stat }));
        }
        let inode = (stat.st_dev, stat.st_ino);
        let shared = stat.st_nlink > 1;
        if shared {
            match self.links.name(inode, &|| pool.has_failed()) {
                Name::First => {}
                Name::Further(copy) => {
                    link(self.target.dir(), &copy, &here.target, &name)?;
                    return Ok(None);
                }
                Name::Abandoned => bail!("its other name could not be copied"),
            }
        }
        match kind {
            SFlag::S_IFREG => self.file(here, &name, buffer)?,
            SFlag::S_IFLNK => symlink(here, &name, &stat)?,
            _ => node(here, &name, kind, &stat)?,
        }
        if shared {
            self.links.copied(inode, path.to_owned());
        }
        Ok(None)
    }

    fn file(&self, here: &Pair, name: &OsStr, buffer: &mut [u8]) -> Result<()> {
        let source = File::from(open_to_read(&here.source, name)?);
        let stat = fstat(&source).context("looking at it")?;
        if kind_of(&stat) != SFlag::S_IFREG {
            bail!("it is not a file any more; stop what changes the tree and try again");
        }
        let attributes = Attributes::new(&stat, xattrs_of(&source)?);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = openat(&here.target, name, flags, attributes.creation_mode())
            .context("making its copy")?;
        let target = File::from(target);
        data::copy(&source, &target, &stat, buffer, self.cancel, self.done)?;
        attributes.set_on_file(&target)
    }
}

/// Opens a file without leaving a trace in its access time.
fn open_to_read(dir: &File, name: &OsStr) -> Result<OwnedFd> {
    // Not blocking, in case it has just become a fifo.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    match openat(dir, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        // Only its owner and root may leave no trace.
        Err(Errno::EPERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    }
    .context("opening it")
}

fn symlink(here: &Pair, name: &OsStr, stat: &FileStat) -> Result<()> {
    let at = |dir| At { dir, name };
    let leads_to = readlinkat(&here.source, name).context("reading where it leads")?;
    match symlinkat(leads_to.as_os_str(), &here.target, name) {
        Err(Errno::ENAMETOOLONG) => bail!(
            "it leads to a path of {} bytes, which is more than the image's file system keeps \
             (XFS: 1023)",
            leads_to.len()
        ),
        other => other.context("making its copy")?,
    }
    let attributes = Attributes::new(stat, at(&here.source).xattrs()?);
    attributes.set_on_symlink(at(&here.target))
}

fn node(here: &Pair, name: &OsStr, kind: SFlag, stat: &FileStat) -> Result<()> {
    let at = |dir| At { dir, name };
    let attributes = Attributes::new(stat, at(&here.source).xattrs()?);
    let mode = attributes.creation_mode();
    mknodat(&here.target, name, kind, mode, stat.st_rdev).context("making its copy")?;
    attributes.set_on_node(at(&here.target))
}
