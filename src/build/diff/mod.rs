//! What changed from one version to another: files, by looking into both disks, and packages, by what
//! their manifests tell.
//!
//! Both are mounted read-only where nobody else sees it, and walked side by side. What two files
//! differ in is found without trusting names or links in them. Contents are read and compared, but
//! for one case: where one disk is a copy of the other, or both are of a third, a file whose inode,
//! size and times of change and modification are the same in both has not been touched since the copy
//! was made: a file system sets the time of change with whatever happens to a file, and no program can
//! choose it. A stranger who wrote to the disk itself could, hence [`Trust`].

mod packages;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

pub use packages::{PackageChange, PackageChanges};
pub use trees::{Aspect, Changed, Differences, Entry, Kind, TreePath};

use super::FileSystem;
use super::tree::Root;
use crate::exec::{Cancel, Mount, PrivateMounts, in_private_mounts};
use crate::library::manifest::Package;
use crate::library::{Library, Progress, Version, VersionId};
pub(crate) use trees::{How, compare};

/// When a file is taken for unchanged although nobody read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Where inode, size and times say so, if both disks are copies of one.
    #[default]
    Inodes,
    /// Never.
    Nothing,
}

/// What is told about times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// Nothing: they differ wherever something was installed again.
    #[default]
    Ignored,
    /// Changed times of modification.
    Told,
}

/// The differences of two versions.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// The older, or the first that was named.
    pub from: VersionId,
    /// The other.
    pub to: VersionId,
    /// In the trees.
    pub files: Differences,
    /// In the lists of packages; nothing where one of the versions has none.
    pub packages: Option<PackageChanges>,
}

/// What a tree became since it was a version's.
#[derive(Debug, Clone, Serialize)]
pub struct Changes {
    /// In the files.
    pub files: Differences,
    /// In the lists of packages; nothing where one of them is not known.
    pub packages: Option<PackageChanges>,
}

/// Compares the tree at `root`, whose packages are `packages`, with the version that it was. All of it
/// is read: whoever had the tree may have written to the disk below it.
pub(super) fn changes_since(
    mounts: &PrivateMounts,
    version: &Version,
    root: &Root,
    packages: Option<&[Package]>,
    cancel: &Cancel,
) -> Result<Changes> {
    let about = || format!("comparing it with {}", version.id());
    let points = Points::<1>::new()?;
    let [point] = &points.0;
    let mounted = mount_sealed(mounts, version, point, cancel)?;
    let how = How {
        times: Times::Ignored,
        trust: Trust::Nothing,
    };
    let before = Root::open(mounted.path())?;
    let files = compare(&before, root, how, cancel).with_context(about)?;
    drop(before);
    mounted.unmount()?;
    let had = version.manifest().facts.packages.as_deref();
    Ok(Changes {
        files,
        packages: had
            .zip(packages)
            .map(|(old, new)| packages::compare(old, new)),
    })
}

/// Compares two versions.
///
/// # Errors
/// When one of the disks cannot be mounted or read, or somebody asks to stop.
pub fn diff(
    library: &Library,
    [from, to]: [&Version; 2],
    times: Times,
    trust: Trust,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Diff> {
    let (old, new) = (from.manifest(), to.manifest());
    let packages = |version: &Version| version.manifest().facts.packages.clone();
    let packages = packages(from).zip(packages(to));
    let same_disk = old.disk.root == new.disk.root;
    let files = if same_disk {
        Differences::default()
    } else {
        let how = How {
            times,
            trust: match are_copies(library, from, to) {
                true => trust,
                false => Trust::Nothing,
            },
        };
        let what = format!("comparing {} with {}", from.id(), to.id());
        progress.step(&what, None);
        looking_into([from, to], cancel, |[from, to]| {
            compare(from, to, how, cancel)
        })
        .context(what)?
    };
    Ok(Diff {
        from: from.id().clone(),
        to: to.id().clone(),
        files,
        packages: packages.map(|(old, new)| packages::compare(&old, &new)),
    })
}

/// Checks a version's file system without changing it. Tells which one it is; nothing where the disk
/// has none that images can have, such as a disk with partitions.
///
/// # Errors
/// When it is damaged; the checker's words are in the error.
pub fn check_file_system(version: &Version, cancel: &Cancel) -> Result<Option<FileSystem>> {
    let kind = &version.manifest().facts.filesystem.kind;
    let Ok(filesystem) = kind.parse::<FileSystem>() else {
        return Ok(None);
    };
    filesystem
        .check(&version.disk_path(), cancel)
        .with_context(|| format!("the {kind} of {} is damaged", version.id()))?;
    Ok(Some(filesystem))
}

/// Whether the disks of two versions began as copies of one, and are of a kind that keeps inodes and
/// their times of change.
fn are_copies(library: &Library, one: &Version, other: &Version) -> bool {
    let kind = |version: &Version| version.manifest().facts.filesystem.kind.clone();
    // EROFS has no time of change of its own, and is made anew with each version.
    let keeps = matches!(kind(one).as_str(), "xfs" | "ext4" | "btrfs");
    let (mine, theirs) = (line_of(library, one), line_of(library, other));
    keeps && kind(one) == kind(other) && mine.iter().any(|version| theirs.contains(version))
}

/// A version and those that it descends from, as far as they are there to tell.
fn line_of(library: &Library, version: &Version) -> Vec<VersionId> {
    let mut line = vec![version.id().clone()];
    let mut parent = version.manifest().facts.parent.clone();
    while let Some(id) = parent.filter(|id| !line.contains(id)) {
        parent = library
            .version(&id)
            .ok()
            .and_then(|version| version.manifest().facts.parent.clone());
        line.push(id);
    }
    line
}

/// Mounts the disks of versions read-only, and looks into their trees.
fn looking_into<T: Send, const N: usize>(
    versions: [&Version; N],
    cancel: &Cancel,
    look: impl FnOnce([&Root; N]) -> Result<T> + Send,
) -> Result<T> {
    let points = Points::<N>::new()?;
    in_private_mounts(|mounts| {
        let mut mounted = Vec::new();
        for (version, point) in versions.iter().zip(&points.0) {
            mounted.push(mount_sealed(mounts, version, point, cancel)?);
        }
        let roots: Vec<Root> = mounted
            .iter()
            .map(|mount| Root::open(mount.path()))
            .collect::<Result<_>>()?;
        let all: Vec<&Root> = roots.iter().collect();
        let all = all
            .try_into()
            .map_err(|_| anyhow::anyhow!("a tree for each version"))?;
        let seen = look(all);
        drop(roots);
        for mount in mounted {
            mount.unmount()?;
        }
        seen
    })?
}

/// A sealed disk is clean, so nothing needs to be replayed; and it is not written, whatever is in it.
fn mount_sealed(
    mounts: &PrivateMounts,
    version: &Version,
    point: &Path,
    cancel: &Cancel,
) -> Result<Mount> {
    let kind = version.manifest().facts.filesystem.kind.as_str();
    let filesystem: FileSystem = kind.parse().with_context(|| {
        format!(
            "{} cannot be looked into: its disk has no file system of its own",
            version.id()
        )
    })?;
    let options = format!("ro{}", filesystem.look_options());
    let disk = version.disk_path();
    mounts
        .image(&disk, filesystem.name(), &[&options], point, cancel)
        .with_context(|| format!("mounting {} read-only", version.id()))
}

/// Empty directories to mount on. Nothing in them is ever deleted: a mount that would not go may be
/// on one still.
struct Points<const N: usize>([PathBuf; N]);

impl<const N: usize> Points<N> {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("netroot-diff-")
            .tempdir()
            .context("making a directory to mount on")?
            .keep();
        let points = Self(std::array::from_fn(|at| dir.join(at.to_string())));
        for point in &points.0 {
            fs::create_dir(point).with_context(|| format!("making {}", point.display()))?;
        }
        Ok(points)
    }
}

impl<const N: usize> Drop for Points<N> {
    fn drop(&mut self) {
        for point in &self.0 {
            // What cannot be removed is an empty directory in /tmp.
            let _ = fs::remove_dir(point);
        }
        if let Some(dir) = self.0.first().and_then(|point| point.parent()) {
            let _ = fs::remove_dir(dir);
        }
    }
}
