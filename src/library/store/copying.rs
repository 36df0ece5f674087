//! Copies of clients' disks: snapshots, and what is made of them.
//!
//! A copy shares its blocks where the file system can, and is that of one moment then, also while the
//! client writes. An overlay's files are copied one after the other, so nobody may write to it meanwhile.
//! A copy on its way is a hidden directory beside the clone, known for what it is by a lock, as drafts are.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::clone::{self, BITMAP, COPY, CloneInfo, CloneKind, NEW};
use super::draft::{HELD, new_file, remove_tree};
use super::{DISK, Places, copy, random_name};
use crate::block::OverlayDisk;
use crate::library::error::{Doing, Error, Result};
use crate::library::lock::{self, WriteLock};
use crate::library::mac::MacAddr;
use crate::library::progress::Quiet;
use crate::library::{document, owner};

/// A disk to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The one in its place.
    InPlace(&'a CloneInfo),
    /// One that is kept.
    Kept(&'a CloneInfo),
}

/// A copy that is being made. Removed on drop, unless it is [settled](Self::settle).
#[derive(Debug)]
pub(crate) struct Copying {
    info: CloneInfo,
    /// The disk that it is a copy of.
    of: String,
    /// Open since the lock was held, so that they are the right ones wherever they are moved.
    files: Vec<(&'static str, File)>,
    /// Removed with this, if it is still there.
    dir: PathBuf,
    _held: File,
}

impl Copying {
    /// Begins a copy of a client's disk. Of an overlay that is in its place the caller holds others off
    /// until it is [filled](Self::fill).
    pub(crate) fn begin(
        _: &WriteLock,
        places: &Places,
        mac: &MacAddr,
        source: Source<'_>,
    ) -> Result<Self> {
        let home = places.clone(mac);
        let (from, dir) = match source {
            Source::InPlace(clone) => (clone, home.clone()),
            Source::Kept(clone) => (clone, clone::kept_dir(places, mac, clone)),
        };
        if let (CloneKind::Overlay, Source::InPlace(_)) = (from.kind, source) {
            let (disk, bitmap) = (dir.join(DISK), dir.join(BITMAP));
            OverlayDisk::make_durable(&disk, &bitmap).doing("syncing", &disk)?;
        }
        let mut files = Vec::new();
        for name in clone::files(from.kind) {
            let path = dir.join(name);
            files.push((*name, File::open(&path).doing("opening", &path)?));
        }
        let id = random_name().doing("drawing a name in", &home)?;
        let dir = home.join(format!("{COPY}{id}"));
        owner::make_dirs(&dir).doing("creating", &dir)?;
        let path = dir.join(HELD);
        let held = new_file(&path).doing("creating", &path)?;
        if !lock::try_whole(&held).doing("locking", &path)? {
            return Err(Error::Invalid(format!(
                "{} was locked by somebody else; repeat it",
                path.display()
            )));
        }
        Ok(Copying {
            info: CloneInfo {
                id,
                from: from.from.clone(),
                kind: from.kind,
                made: Timestamp::now(),
            },
            of: from.id.clone(),
            files,
            dir,
            _held: held,
        })
    }

    /// The disk that it is a copy of, by its id.
    pub(crate) fn of(&self) -> &str {
        &self.of
    }

    /// Copies, durably. Quick where blocks can be shared; else it takes as long as there is to copy.
    pub(crate) fn fill(&self) -> Result<()> {
        for (name, source) in &self.files {
            let path = self.dir.join(name);
            let target = new_file(&path).doing("creating", &path)?;
            self.copy(source, &target, &path)?;
            owner::give(&target, &self.dir);
            target
                .set_permissions(Permissions::from_mode(0o600))
                .and_then(|()| target.sync_all())
                .doing("syncing", &path)?;
        }
        document::sync_dir(&self.dir)
    }

    fn copy(&self, source: &File, target: &File, path: &Path) -> Result<()> {
        match self.info.kind {
            // Never a silent full copy: a clone that shares can be shared.
            CloneKind::Reflink => {
                reflink_copy::reflink_file(source, target).doing("cloning to", path)
            }
            CloneKind::Overlay => copy::copy_disk(source, target, "", &Quiet)
                .map(|_| ())
                .map_err(|stopped| stopped.at("copying to", path)),
        }
    }

    /// Puts it where a change of the client finds what was made for it.
    pub(crate) fn settle(self, _: &WriteLock) -> Result<CloneInfo> {
        let held = self.dir.join(HELD);
        let new = self.dir.with_file_name(format!("{NEW}{}", self.info.id));
        fs::remove_file(&held).doing("removing", &held)?;
        fs::rename(&self.dir, &new).doing("keeping", &self.dir)?;
        Ok(self.info.clone())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if self.dir.exists() {
            // What cannot be removed now is swept by the next command.
            let _ = remove_tree(&self.dir);
        }
    }
}
