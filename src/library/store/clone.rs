//! Clones: the disks of clients, made from versions without copying them.
//!
//! On a file system with reflinks a clone shares the version's blocks until they are written; on any
//! other it is an overlay: a sparse file and a bitmap of the blocks that it holds. Never a silent
//! full copy.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::draft::{is_dead, remove_tree};
use super::{DISK, Places, random_name};
use crate::block::OverlayDisk;
use crate::library::error::{Doing, Result};
use crate::library::images::Version;
use crate::library::mac::MacAddr;
use crate::library::names::VersionId;
use crate::library::{Library, document, owner};

/// The bitmap of an overlay.
pub(super) const BITMAP: &str = "disk.bitmap";
/// Where predecessors are kept, below a clone's directory.
const DISCARDED: &str = "discarded";
/// Begins the name of a clone that is made and not yet in its place.
pub(super) const NEW: &str = ".new-";
/// Begins the name of a copy that is being made, for as long as somebody holds its lock.
pub(super) const COPY: &str = ".copy-";

/// How a clone leaves unsaid what it shares with its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloneKind {
    /// Its file shares the version's blocks.
    Reflink,
    /// A sparse file and a bitmap; everything else is read from the version.
    Overlay,
}

impl fmt::Display for CloneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CloneKind::Reflink => "reflink",
            CloneKind::Overlay => "overlay",
        })
    }
}

/// What a client's document tells of its clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct CloneInfo {
    /// Tells one clone of a client from the next.
    pub id: String,
    /// The version that it was made from, whose kernel it boots.
    pub from: VersionId,
    /// How it shares.
    pub kind: CloneKind,
    /// When it was made.
    pub made: Timestamp,
}

/// A move of clones that is to be done: which goes out of its place and which comes in.
///
/// It is written down before it is done and can be done again from any point where it was cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swap {
    pub(crate) out: Option<CloneInfo>,
    pub(crate) into: Option<CloneInfo>,
    /// A copy that is to be kept beside it.
    #[serde(default)]
    pub(crate) aside: Option<CloneInfo>,
    /// Nothing moves, but something is not kept any longer.
    #[serde(default)]
    pub(crate) prunes: bool,
}

/// Whether this error of a reflink means that the file system cannot, rather than that it failed.
pub(crate) fn cannot_share(error: &io::Error) -> bool {
    // ioctl_ficlone(2): EOPNOTSUPP and EINVAL for file systems and files without reflinks, EXDEV
    // between file systems; ENOTTY from those that do not know the call at all.
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EXDEV | libc::ENOTTY | libc::ENOSYS)
    )
}

impl Library {
    /// Whether clones share what they have in common with their version: it is tried with two files
    /// that are gone at once.
    pub fn shares_blocks(&self) -> io::Result<bool> {
        let dir = tempfile::Builder::new()
            .prefix(NEW)
            .tempdir_in(self.places().clones())?;
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, [1; 4096])?;
        match reflink_copy::reflink(&from, &to) {
            Ok(()) => Ok(true),
            Err(error) if cannot_share(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Makes a clone of `version` for a client, beside its place, of `size` bytes if that is more than the
/// version has.
pub(crate) fn make(
    places: &Places,
    mac: &MacAddr,
    version: &Version,
    size: Option<u64>,
) -> Result<CloneInfo> {
    let home = places.clone(mac);
    let id = random_name().doing("drawing a name in", &home)?;
    let dir = home.join(format!("{NEW}{id}"));
    owner::make_dirs(&dir).doing("creating", &dir)?;
    let made = fill(&dir, version).and_then(|kind| match size {
        Some(size) => grow_in(&dir, kind, size).map(|()| kind),
        None => Ok(kind),
    });
    match made {
        Ok(kind) => Ok(CloneInfo {
            id,
            from: version.id().clone(),
            kind,
            made: Timestamp::now(),
        }),
        Err(error) => {
            // The first error is the one to tell; the next command sweeps what is left.
            let _ = remove_tree(&dir);
            Err(error)
        }
    }
}

fn fill(dir: &Path, version: &Version) -> Result<CloneKind> {
    let path = dir.join(DISK);
    let kind = match reflink_copy::reflink(version.disk_path(), &path) {
        Ok(()) => CloneKind::Reflink,
        Err(error) if cannot_share(&error) => {
            let bitmap = dir.join(BITMAP);
            let size = version.manifest().disk.size;
            OverlayDisk::create(&path, &bitmap, size).doing("creating", &path)?;
            CloneKind::Overlay
        }
        Err(error) => return Err(error).doing("cloning to", &path),
    };
    for name in files(kind) {
        let path = dir.join(name);
        let file = File::open(&path).doing("opening", &path)?;
        owner::give(&file, dir);
        // A reflink has its version's permissions, and a client's disk is nobody else's business.
        file.set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.sync_all())
            .doing("syncing", &path)?;
    }
    document::sync_dir(dir)?;
    Ok(kind)
}

/// Makes a client's disk longer, by a hole; never shorter.
pub(crate) fn grow(places: &Places, mac: &MacAddr, clone: &CloneInfo, size: u64) -> Result<()> {
    grow_in(&places.clone(mac), clone.kind, size)
}

fn grow_in(dir: &Path, kind: CloneKind, size: u64) -> Result<()> {
    let path = dir.join(DISK);
    let grown = match kind {
        CloneKind::Overlay => OverlayDisk::grow(&path, &dir.join(BITMAP), size),
        CloneKind::Reflink => lengthen(&path, size),
    };
    grown.doing("enlarging", &path)
}

/// Makes a file longer, durably; never shorter.
pub(super) fn lengthen(path: &Path, size: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    if file.metadata()?.len() >= size {
        return Ok(());
    }
    file.set_len(size)?;
    file.sync_all()
}

/// Bytes of a client's disk, as the client sees it.
pub(crate) fn size(places: &Places, mac: &MacAddr) -> Result<u64> {
    let (path, _) = paths(places, mac);
    Ok(fs::metadata(&path).doing("looking at", &path)?.len())
}

/// Where a disk is that is kept for a client.
pub(super) fn kept_dir(places: &Places, mac: &MacAddr, clone: &CloneInfo) -> PathBuf {
    places.clone(mac).join(DISCARDED).join(&clone.id)
}

/// Takes back a clone that was made and is not wanted after all.
pub(crate) fn unmake(places: &Places, mac: &MacAddr, clone: &CloneInfo) {
    // What cannot be removed now is swept with the client's next change.
    let _ = remove_tree(&places.clone(mac).join(format!("{NEW}{}", clone.id)));
    let _ = fs::remove_dir(places.clone(mac));
}

/// Does a move, from wherever an earlier attempt was cut off.
pub(crate) fn swap(places: &Places, mac: &MacAddr, swap: &Swap) -> Result<()> {
    let home = places.clone(mac);
    if let Some(out) = &swap.out {
        let to = home.join(DISCARDED).join(&out.id);
        owner::make_dirs(&to).doing("creating", &to)?;
        for name in files(out.kind) {
            // Already there: this file was moved before, and what is in its place is the new one's.
            if !to.join(name).exists() {
                move_file(&home.join(name), &to.join(name))?;
            }
        }
        document::sync_dir(&to)?;
    }
    if let Some(into) = &swap.into {
        let fresh = home.join(format!("{NEW}{}", into.id));
        let kept = home.join(DISCARDED).join(&into.id);
        let from = if fresh.exists() { fresh } else { kept };
        for name in files(into.kind) {
            move_file(&from.join(name), &home.join(name))?;
        }
    }
    if let Some(aside) = &swap.aside {
        let to = home.join(DISCARDED);
        owner::make_dirs(&to).doing("creating", &to)?;
        move_file(
            &home.join(format!("{NEW}{}", aside.id)),
            &to.join(&aside.id),
        )?;
        document::sync_dir(&to)?;
    }
    if home.exists() {
        document::sync_dir(&home)?;
    }
    Ok(())
}

/// Removes what no document names any more: clones that were not finished, predecessors that expired.
pub(crate) fn prune(places: &Places, mac: &MacAddr, kept: &[&CloneInfo]) -> Result<()> {
    let home = places.clone(mac);
    sweep_new(&home)?;
    let discarded = home.join(DISCARDED);
    for name in document::entries(&discarded)? {
        if !kept.iter().any(|clone| clone.id == name) {
            remove_tree(&discarded.join(name))?;
        }
    }
    // Both go when they are empty, and stay when they are not.
    let _ = fs::remove_dir(&discarded);
    let _ = fs::remove_dir(&home);
    Ok(())
}

/// Takes the file of a hold away; who holds it notices when he looks whose disk it is.
pub(crate) fn end_hold(places: &Places, mac: &MacAddr) -> Result<()> {
    let path = places.held(mac);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).doing("removing", &path)
        }
        _ => Ok(()),
    }
}

/// Removes clones that a killed command made and never wrote down. Tells whether there was one.
pub(crate) fn sweep_new(home: &Path) -> Result<bool> {
    let mut any = false;
    for name in document::entries(home)? {
        let dead = || is_dead(&home.join(&name));
        if name.starts_with(NEW) || (name.starts_with(COPY) && dead()?) {
            remove_tree(&home.join(&name))?;
            any = true;
        }
    }
    if any {
        let _ = fs::remove_dir(home); // goes where it was made for a client that was never added
    }
    Ok(any)
}

/// Where a client's disk is, and its bitmap if it is an overlay.
pub(crate) fn paths(places: &Places, mac: &MacAddr) -> (PathBuf, PathBuf) {
    let home = places.clone(mac);
    (home.join(DISK), home.join(BITMAP))
}

/// Bytes that a client's clone takes by itself, as the file system counts them. A reflink's count
/// includes what it shares.
pub(crate) fn allocated(places: &Places, mac: &MacAddr) -> u64 {
    let (disk, bitmap) = paths(places, mac);
    blocks(&[disk, bitmap])
}

/// The same of one that is kept for undo.
pub(crate) fn allocated_kept(places: &Places, mac: &MacAddr, clone: &CloneInfo) -> u64 {
    let dir = kept_dir(places, mac, clone);
    let files = files(clone.kind).iter().map(|name| dir.join(name));
    blocks(&files.collect::<Vec<_>>())
}

fn blocks(files: &[PathBuf]) -> u64 {
    files
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

pub(super) fn files(kind: CloneKind) -> &'static [&'static str] {
    match kind {
        CloneKind::Reflink => &[DISK],
        CloneKind::Overlay => &[DISK, BITMAP],
    }
}

fn move_file(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Ok(()) => Ok(()),
        // Moved before the last attempt was cut off.
        Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
        Err(error) => Err(error).doing("moving a clone to", to),
    }
}

/// Takes a client's whole directory of clones to where the sweep removes it, and tells where that is. It
/// may be gone already.
pub(crate) fn take_out(places: &Places, mac: &MacAddr) -> Result<Option<PathBuf>> {
    let home = places.clone(mac);
    if !home.exists() {
        return Ok(None);
    }
    let name = random_name().doing("drawing a name for", &home)?;
    let away = places.clones().join(format!("{}{name}", super::REMOVED));
    fs::rename(&home, &away).doing("removing", &home)?;
    document::sync_dir(&places.clones())?;
    Ok(Some(away))
}

/// Removes a client's whole directory of clones, which was renamed out of its place before.
pub(crate) fn remove_all(dir: &Path) -> Result<()> {
    let discarded = dir.join(DISCARDED);
    for below in [discarded.as_path(), dir] {
        for name in document::entries(below)? {
            let path = below.join(name);
            if path.is_dir() && path != discarded {
                remove_tree(&path)?;
            }
        }
    }
    if discarded.exists() {
        remove_tree(&discarded)?;
    }
    remove_tree(dir)
}
