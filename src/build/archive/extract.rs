//! Putting the members of an archive into a tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat, umask};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::members::{Kind, Member, Members};
use crate::build::tree::attributes::{At, Attributes};
use crate::build::tree::root::open_dir;
use crate::build::tree::{Excludes, Root};
use crate::exec::Cancel;

/// Bytes that are read and written at once.
const BUFFER: usize = 256 * 1024;

/// Most bytes of directories' names and attributes: a large distribution has ten megabytes.
const MOST_KEPT: usize = 512 << 20;

/// Directories that the archive does not bring itself.
const IMPLICIT: Mode = Mode::from_bits_truncate(0o755);

struct Unpacker<'a> {
    target: &'a Root,
    /// Set at the end: what is put into a directory changes its times, and its ACL would rub off.
    directories: BTreeMap<PathBuf, Attributes>,
    /// Bytes that they take in memory.
    kept: usize,
    /// The directory of the last member, which often is the next one's as well.
    last: Option<(PathBuf, Rc<File>)>,
    buffer: Vec<u8>,
}

/// Unpacks the archive on `stream` into the empty tree `target`.
pub(super) fn unpack(
    stream: impl Read,
    target: &Root,
    excludes: &Excludes,
    cancel: &Cancel,
    progress: &mut dyn FnMut(),
) -> Result<()> {
    // The mask is this thread's own from here on, and the thread is there for this build only.
    unshare(CloneFlags::CLONE_FS).context("giving the thread a file mode mask of its own")?;
    umask(Mode::empty());
    let mut unpacker = Unpacker {
        target,
        directories: BTreeMap::new(),
        kept: 0,
        last: None,
        buffer: vec![0; BUFFER],
    };
    let mut members = Members::new(stream);
    while let Some(member) = members.next()? {
        cancel.check()?;
        let about = || format!("unpacking {}", Path::new(&member.path).display());
        let path = inside(&member.path).with_context(about)?;
        let left_out = path.ancestors().any(|path| excludes.leave_out(path));
        if !left_out {
            let unpacked = unpacker.member(&path, &member, &mut members, cancel);
            unpacked.with_context(about)?;
        }
        progress();
    }
    unpacker.finish()
}

/// The path of a member below the root.
fn inside(path: &OsStr) -> Result<PathBuf> {
    ensure!(
        !path.as_bytes().contains(&0),
        "its name contains a zero byte"
    );
    let mut below = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => below.push(name),
            Component::ParentDir => bail!("its name contains `..`: the archive is refused"),
            Component::RootDir | Component::Prefix(_) => {
                bail!("its name is an absolute path: the archive is refused")
            }
        }
    }
    Ok(below)
}

impl Unpacker<'_> {
    fn member(
        &mut self,
        path: &Path,
        member: &Member,
        data: &mut dyn Read,
        cancel: &Cancel,
    ) -> Result<()> {
        let Some(name) = path.file_name() else {
            ensure!(
                member.kind == Kind::Directory,
                "only a directory can be the root"
            );
            return self.remember(PathBuf::new(), &member.attributes);
        };
        let dir = self.parent(path.parent().unwrap_or(Path::new("")))?;
        let at = At { dir: &dir, name };
        if member.kind == Kind::Directory {
            return self.directory(at, path, member);
        }
        self.replace(at, path)?;
        match &member.kind {
            Kind::File => self.file(at, member, data, cancel),
            Kind::Symlink(leads_to) => {
                symlinkat(leads_to.as_os_str(), at.dir, at.name).context("making the link")?;
                member.attributes.set_on_symlink(at)
            }
            Kind::HardLink(first) => self.hard_link(at, first),
            Kind::Node { kind, device } => {
                let mode = member.attributes.creation_mode();
                mknodat(at.dir, at.name, *kind, mode, *device).context("making the node")?;
                member.attributes.set_on_node(at)
            }
            Kind::Directory => Ok(()),
        }
    }

    fn directory(&mut self, at: At<'_>, path: &Path, member: &Member) -> Result<()> {
        match mkdirat(at.dir, at.name, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let is_directory = kind_at(at)? == Some(SFlag::S_IFDIR);
                ensure!(
                    is_directory,
                    "something that is not a directory has this name already: the archive is refused"
                );
            }
            Err(e) => return Err(e).context("making the directory"),
        }
        self.remember(path.to_owned(), &member.attributes)
    }

    /// Keeps what is set on a directory when all is in it.
    fn remember(&mut self, path: PathBuf, attributes: &Attributes) -> Result<()> {
        let xattrs = attributes.xattrs.iter();
        let bytes: usize = xattrs
            .map(|(name, value)| name.len() + value.len() + 64)
            .sum();
        self.kept += path.as_os_str().len() + size_of::<Attributes>() + bytes;
        ensure!(
            self.kept <= MOST_KEPT,
            "the directories of the archive have more attributes than fit into memory"
        );
        self.directories.insert(path, attributes.clone());
        Ok(())
    }

    fn file(
        &mut self,
        at: At<'_>,
        member: &Member,
        data: &mut dyn Read,
        cancel: &Cancel,
    ) -> Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = member.attributes.creation_mode();
        let file = File::from(openat(at.dir, at.name, flags, mode).context("making the file")?);
        if member.size > member.data_size() {
            // Before the data: XFS gives a file that grows more blocks than it asked for.
            file.set_len(member.size).context("setting its size")?;
        }
        for &(offset, length) in &member.pieces {
            self.piece(&file, offset, length, data, cancel)?;
        }
        member.attributes.set_on_file(&file)
    }

    fn piece(
        &mut self,
        file: &File,
        mut offset: u64,
        mut left: u64,
        data: &mut dyn Read,
        cancel: &Cancel,
    ) -> Result<()> {
        while left > 0 {
            cancel.check()?;
            let want = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let part = self.buffer.get_mut(..want).unwrap_or_default();
            let got = match data.read(part) {
                Ok(0) => bail!("the archive is cut off"),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e).context("reading the archive"),
            };
            let part = self.buffer.get(..got).unwrap_or_default();
            file.write_all_at(part, offset).context("writing it")?;
            offset += got as u64;
            left -= got as u64;
        }
        Ok(())
    }

    /// A further name of an earlier member, whose name is from the root, too.
    fn hard_link(&mut self, at: At<'_>, first: &OsStr) -> Result<()> {
        let first = inside(first).context("the name that it is a link to is wrong")?;
        let name = first.file_name().context("a hard link to the root")?;
        let dir = self.open(first.parent().unwrap_or(Path::new("")))?;
        // Not through a symlink: the default of linkat(2).
        linkat(&dir, name, at.dir, at.name, AtFlags::empty())
            .with_context(|| format!("linking it to {}", first.display()))
    }

    /// Makes room for a member: a later one of the same name replaces an earlier one.
    fn replace(&mut self, at: At<'_>, path: &Path) -> Result<()> {
        match kind_at(at)? {
            None => Ok(()),
            Some(SFlag::S_IFDIR) => {
                unlinkat(at.dir, at.name, UnlinkatFlags::RemoveDir)
                    .context("a directory that is not empty has this name already")?;
                self.directories.remove(path);
                self.last = None;
                Ok(())
            }
            Some(_) => unlinkat(at.dir, at.name, UnlinkatFlags::NoRemoveDir)
                .context("replacing an earlier member of this name"),
        }
    }

    /// The directory that a member belongs to, made if the archive did not bring it.
    fn parent(&mut self, path: &Path) -> Result<Rc<File>> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(dir));
        }
        let dir = match self.open(path) {
            Ok(dir) => dir,
            Err(error) if is(&error, Errno::ENOENT) => self.make(path)?,
            Err(error) => return Err(error),
        };
        let dir = Rc::new(dir);
        self.last = Some((path.to_owned(), Rc::clone(&dir)));
        Ok(dir)
    }

    fn open(&self, path: &Path) -> Result<File> {
        match open_dir(self.target.dir(), path) {
            Err(error) if is(&error, Errno::ELOOP) || is(&error, Errno::ENOTDIR) => bail!(
                "its name leads through {}, which is a symlink or no directory at all: the \
                 archive is refused",
                path.display()
            ),
            other => other,
        }
    }

    fn make(&self, path: &Path) -> Result<File> {
        let mut dir = self.open(Path::new(""))?;
        let mut below = PathBuf::new();
        for part in path.components() {
            below.push(part);
            match mkdirat(&dir, Path::new(&part), IMPLICIT) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e).with_context(|| format!("making {}", below.display())),
            }
            dir = self.open(&below)?;
        }
        Ok(dir)
    }

    fn finish(self) -> Result<()> {
        for (path, attributes) in &self.directories {
            let about = || format!("unpacking {}", path.display());
            let dir = self.open(path).with_context(about)?;
            attributes.set_on_dir(&dir).with_context(about)?;
        }
        Ok(())
    }
}

/// What has this name already.
fn kind_at(at: At<'_>) -> Result<Option<SFlag>> {
    match nix::sys::stat::fstatat(at.dir, at.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(SFlag::from_bits_truncate(
            stat.st_mode & SFlag::S_IFMT.bits(),
        ))),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e).context("looking at it"),
    }
}

fn is(error: &anyhow::Error, errno: Errno) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.raw_os_error() == Some(errno as i32))
}
