//! What changed from one version to another: files, by looking into both disks, and packages, by what
//! their manifests tell.
//!
//! Both are mounted read-only where nobody else sees it, and walked side by side. What two files
//! differ in is found without trusting names or links in them. Contents are read and compared, but
//! for one case: where one disk is a copy of the other, or both are of a third, a file whose inode,
//! size and times of change and modification are the same in both has not been touched since the copy
//! was made: a file system sets the time of change with whatever happens to a file, and no program can
//! choose it. A client that wrote its disk itself could have, so nothing of the kind is believed of
//! what was promoted from one.

mod packages;
mod trees;

use anyhow::{Context, Result};
use serde::Serialize;

pub use packages::{PackageChange, PackageChanges};
pub use trees::{Aspect, Changed, Differences, Entry, Kind, TreePath};

use super::FileSystem;
use super::tree::Root;
use crate::exec::{Cancel, Mount, PrivateMounts, in_private_mounts};
use crate::library::manifest::Package;
use crate::library::{Library, Progress, Version, VersionId};
use trees::{How, compare};

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
    let how = How {
        times: Times::Ignored,
        trust: Trust::Nothing,
    };
    let files = against(version, root, how, mounts, cancel)
        .with_context(|| format!("comparing it with {}", version.id()))?;
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
        in_private_mounts(|mounts| {
            let mounted = mount_sealed(mounts, to, cancel)?;
            let tree = Root::open(mounted.path())?;
            let found = against(from, &tree, how, mounts, cancel)?;
            drop(tree);
            mounted.unmount()?;
            Ok::<_, anyhow::Error>(found)
        })?
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

/// Whether the disks of two versions began as copies of one, are of a kind that keeps inodes and their
/// times of change, and were written by no client since.
fn are_copies(library: &Library, one: &Version, other: &Version) -> bool {
    let kind = |version: &Version| version.manifest().facts.filesystem.kind.clone();
    // EROFS has no time of change of its own, and is made anew with each version.
    let keeps = matches!(kind(one).as_str(), "xfs" | "ext4" | "btrfs");
    let (mine, theirs) = (line_of(library, one), line_of(library, other));
    let common = mine.iter().find(|step| {
        let mut line = theirs.iter();
        line.any(|other| other.version == step.version)
    });
    let Some(common) = common.filter(|_| keeps && kind(one) == kind(other)) else {
        return false;
    };
    let since = |line: &[Descent]| {
        let mut since = line
            .iter()
            .take_while(|step| step.version != common.version);
        since.all(|step| !step.promoted)
    };
    since(&mine) && since(&theirs)
}

/// A version in a line of descent.
struct Descent {
    version: VersionId,
    /// Its disk was a client's.
    promoted: bool,
}

/// A version and those that it descends from, as far as they are there to tell.
fn line_of(library: &Library, version: &Version) -> Vec<Descent> {
    let mut line: Vec<Descent> = Vec::new();
    let mut next = Some(version.id().clone());
    while let Some(id) = next.take_if(|id| line.iter().all(|step| step.version != *id)) {
        let known = library.version(&id).ok();
        let facts = known.as_ref().map(|version| &version.manifest().facts);
        next = facts.and_then(|facts| facts.parent.clone());
        line.push(Descent {
            version: id,
            promoted: facts.is_some_and(|facts| facts.promoted.is_some()),
        });
    }
    line
}

/// Compares a version with a tree that is mounted already: another version's, or that of a copy of a
/// client's disk.
fn against(
    version: &Version,
    tree: &Root,
    how: How,
    mounts: &PrivateMounts,
    cancel: &Cancel,
) -> Result<Differences> {
    let mounted = mount_sealed(mounts, version, cancel)?;
    let root = Root::open(mounted.path())?;
    let found = compare(&root, tree, how, cancel)?;
    drop(root);
    mounted.unmount()?;
    Ok(found)
}

/// A sealed disk is clean, so nothing needs to be replayed; and it is not written, whatever is in it.
///
/// It is mounted over the version's own directory: nobody but this thread sees that, and no other
/// directory has to be made, which a killed process would leave.
fn mount_sealed(mounts: &PrivateMounts, version: &Version, cancel: &Cancel) -> Result<Mount> {
    let kind = version.manifest().facts.filesystem.kind.as_str();
    let filesystem: FileSystem = kind.parse().with_context(|| {
        format!(
            "{} cannot be looked into: its disk has no file system of its own",
            version.id()
        )
    })?;
    let disk = version.disk_path();
    let point = disk.parent().context("a disk is in a directory")?;
    let options = format!("ro{}", filesystem.look_options());
    mounts
        .image(&disk, filesystem.name(), &[&options], point, cancel)
        .with_context(|| format!("mounting {} read-only", version.id()))
}
