//! What an entry of a tree has besides its contents, and how it is set on a new one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use xattr::FileExt;

/// Bits of a mode that creating a file does not set for sure: set-uid, set-gid and sticky.
const SPECIAL_BITS: u32 = 0o7000;

/// Attributes that belong to what a file is, not to the file system that it lies on: those of
/// others (`btrfs.compression`, `system.nfs4_acl`) mean nothing elsewhere and cannot be set.
///
/// XFS shows ACLs to root a second time, as `trusted.SGI_ACL_FILE` and `..._DEFAULT`.
const KEPT: &[&[u8]] = &[b"user.", b"trusted.", b"security.", b"system.posix_acl_"];

/// An extended attribute: name and value. ACLs and file capabilities are some, too.
pub(crate) type Xattr = (OsString, Vec<u8>);

/// Owner, mode, times and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The permission bits and the special ones, without the type.
    pub(crate) mode: u32,
    pub(crate) accessed: TimeSpec,
    pub(crate) modified: TimeSpec,
    pub(crate) xattrs: Vec<Xattr>,
}

/// An entry in an open directory: where the system calls that take no descriptor find it.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) dir: &'a File,
    pub(crate) name: &'a OsStr,
}

impl Attributes {
    /// Those that `stat` tells, with `xattrs`.
    pub(crate) fn new(stat: &FileStat, xattrs: Vec<Xattr>) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            accessed: TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
            modified: TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
            xattrs,
        }
    }

    /// The mode to create an entry with; the rest comes with [`set_on_file`](Self::set_on_file).
    pub(crate) fn creation_mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode & 0o777)
    }

    /// Sets all on a file that this thread has just created with [`creation_mode`](Self::creation_mode)
    /// and umask 0, so that what creating gave it already (root's ownership) costs no call.
    ///
    /// The order matters: a change of owner clears set-uid bits and capabilities, an ACL changes
    /// the mode, and everything changes times.
    pub(crate) fn set_on_file(&self, file: &File) -> Result<()> {
        let chowned = self.set_owner(file)?;
        if chowned || self.mode & SPECIAL_BITS != 0 {
            fchmod(file, Mode::from_bits_truncate(self.mode)).context("setting its mode")?;
        }
        self.finish(file)
    }

    /// Sets all on a directory that was made for its owner only, after its entries were made.
    pub(crate) fn set_on_dir(&self, dir: &File) -> Result<()> {
        self.set_owner(dir)?;
        fchmod(dir, Mode::from_bits_truncate(self.mode)).context("setting its mode")?;
        self.finish(dir)
    }

    /// Sets all on what cannot be opened: a device node, fifo or socket.
    pub(crate) fn set_on_node(&self, at: At<'_>) -> Result<()> {
        self.set_owner_at(at)?;
        // A node cannot be a symlink here: this thread made it in a directory that nobody else has.
        let mode = Mode::from_bits_truncate(self.mode);
        let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
        nix::sys::stat::fchmodat(at.dir, at.name, mode, flags).context("setting its mode")?;
        self.finish_at(at)
    }

    /// Sets all on a symlink, which has no mode of its own.
    pub(crate) fn set_on_symlink(&self, at: At<'_>) -> Result<()> {
        self.set_owner_at(at)?;
        self.finish_at(at)
    }

    fn set_owner(&self, file: &File) -> Result<bool> {
        if (self.uid, self.gid) == (0, 0) {
            return Ok(false);
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fchown(file, Some(uid), Some(gid)).context("setting its owner")?;
        Ok(true)
    }

    fn set_owner_at(&self, at: At<'_>) -> Result<()> {
        if (self.uid, self.gid) == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(at.dir, at.name, Some(uid), Some(gid), flags).context("setting its owner")
    }

    fn finish(&self, file: &File) -> Result<()> {
        for (name, value) in &self.xattrs {
            file.set_xattr(name, value).with_context(|| setting(name))?;
        }
        futimens(file, &self.accessed, &self.modified).context("setting its times")
    }

    fn finish_at(&self, at: At<'_>) -> Result<()> {
        for (name, value) in &self.xattrs {
            xattr::set(at.path(), name, value).with_context(|| setting(name))?;
        }
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(at.dir, at.name, &self.accessed, &self.modified, flags)
            .context("setting its times")
    }
}

impl At<'_> {
    /// A path for calls that know no directory descriptors; symlinks at its end must not be
    /// followed.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd())).join(self.name)
    }

    /// The extended attributes that are kept of an entry that cannot be opened.
    pub(crate) fn xattrs(&self) -> Result<Vec<Xattr>> {
        let path = self.path();
        collect(xattr::list(&path), |name| xattr::get(&path, name))
    }
}

/// The extended attributes of `file` that are kept.
pub(crate) fn xattrs_of(file: &File) -> Result<Vec<Xattr>> {
    collect(file.list_xattr(), |name| file.get_xattr(name))
}

/// Whether an attribute of this name is copied at all.
pub(crate) fn is_kept(name: &OsStr) -> bool {
    let begins = |prefix: &&[u8]| name.as_bytes().starts_with(prefix);
    KEPT.iter().any(begins) && !begins(&&b"trusted.SGI_ACL_"[..])
}

fn collect(
    names: io::Result<xattr::XAttrs>,
    value_of: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>,
) -> Result<Vec<Xattr>> {
    let names = match names {
        Ok(names) => names,
        // A file system without extended attributes has none to copy.
        Err(e) if e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(Vec::new()),
        Err(e) => return Err(e).context("listing its extended attributes"),
    };
    let mut kept = Vec::new();
    for name in names.filter(|name| is_kept(name)) {
        let value =
            value_of(&name).with_context(|| format!("reading its attribute {}", name.display()))?;
        kept.extend(value.map(|value| (name, value)));
    }
    Ok(kept)
}

fn setting(name: &OsStr) -> String {
    format!("setting its attribute {}", name.display())
}
