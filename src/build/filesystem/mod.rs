//! File systems of images: made for the kernel that will mount them.
//!
//! What mkfs turns on by default suits the host that runs it. An image's own kernel may be years
//! older and refuse to mount (4.19 and XFS's bigtime), so each feature is chosen by a table.
//!
//! Most are mounted and filled. EROFS cannot be, and ext4 is packed from the tree as well where
//! the disk is to come out the same every time: the kernel spreads files over a mounted disk as it
//! happens to write them.

mod btrfs;
mod erofs;
mod ext4;
mod identity;
mod inodes;
mod xfs;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

pub(crate) use self::identity::identifier;
pub use self::identity::{SourceDate, WrongDate};
use super::SizeSpec;
use super::size::human;
use super::tree::{Excludes, Measure, Root};
use super::version::KernelRelease;
use crate::exec::{Cancel, Program};
pub use crate::library::{FileSystem, UnknownFileSystem};

/// Label of every root file system.
pub(crate) const LABEL: &str = "NETROOT";

const MIB: u64 = 1024 * 1024;

/// What a new file system turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) uuid: String,
    /// Features that were chosen for the image's kernel, and those that were left out.
    pub(crate) features: Vec<String>,
}

/// What a file system is made for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The kernel that mounts it.
    pub(crate) kernel: &'a KernelRelease,
    /// How much goes into it.
    pub(crate) tree: &'a Measure,
    /// What it is called by; see [`identifier`].
    pub(crate) uuid: &'a str,
}

impl FileSystem {
    /// Whether it can be changed once it is made.
    pub(crate) fn is_writable(self) -> bool {
        self != Self::Erofs
    }

    /// Whether it is made with its files in it, from a tree that can be read at a path; `date` is
    /// the one that the build claims.
    pub(crate) fn is_packed(self, date: Option<SourceDate>) -> bool {
        match self {
            Self::Erofs => true,
            Self::Ext4 => date.is_some(),
            Self::Xfs | Self::Btrfs => false,
        }
    }

    /// Refuses a kernel that cannot mount it.
    pub(crate) fn ensure_kernel(self, kernel: &KernelRelease) -> Result<()> {
        let first = erofs::FIRST_KERNEL;
        ensure!(
            self != Self::Erofs || kernel.knows(first),
            "kernel {kernel} has no erofs, which came with {first}: build the image with --fs xfs"
        );
        Ok(())
    }

    /// Refuses a disk of `size` bytes that `tree` cannot fit on.
    pub(crate) fn ensure_fit(self, size: u64, tree: &Measure) -> Result<()> {
        let least = self.least(tree);
        ensure!(
            size >= least,
            "a disk of {} is too small for {} in {} files: {} needs {} for that; give a larger \
             --size",
            human(size),
            human(tree.allocated),
            tree.entries,
            self.name(),
            human(least)
        );
        Ok(())
    }

    /// Bytes of the smallest disk that `tree` surely fits on.
    pub(crate) fn least(self, tree: &Measure) -> u64 {
        // An inode and its share of directories and indexes; on ext4 those are given in advance.
        let inodes = tree.entries.saturating_mul(1024);
        let files = tree.allocated.saturating_add(inodes);
        let (spare, journal, smallest) = match self {
            // mkfs.xfs refuses anything below 300 MB, and makes a log of 64 MiB from there.
            Self::Xfs => (files / 20, 96 * MIB, 300 * MIB),
            Self::Ext4 => (files / 20, 64 * MIB, 64 * MIB),
            // Room is given to data and metadata in pieces of a tenth of the disk (at most 1 GiB),
            // so a piece of each may stay almost empty; deleting needs a reserve.
            Self::Btrfs => (files / 4, 128 * MIB, 256 * MIB),
            // It gets what it needs.
            Self::Erofs => (0, 0, MIB),
        };
        (files + spare + journal).max(smallest).div_ceil(MIB) * MIB
    }

    /// Bytes of a disk for `tree`: what is wanted, else twice the tree.
    pub(crate) fn disk_size(self, wanted: Option<SizeSpec>, tree: &Measure) -> u64 {
        match wanted {
            Some(wanted) => wanted.of(tree.allocated),
            // Nobody asked for a certain size: a very small tree gets what its file system needs.
            None => SizeSpec::default().of(tree.allocated).max(self.least(tree)),
        }
    }

    /// Makes it, empty, on `disk`.
    pub(crate) fn make(self, disk: &Path, wanted: Wanted<'_>, cancel: &Cancel) -> Result<Made> {
        let Wanted { kernel, tree, uuid } = wanted;
        let (program, (args, features)) = match self {
            Self::Xfs => ("mkfs.xfs", xfs::options(kernel, xfs::tools(cancel)?, uuid)),
            Self::Btrfs => {
                let tools = btrfs::tools(cancel)?;
                ("mkfs.btrfs", btrfs::options(kernel, tools, uuid))
            }
            Self::Ext4 => {
                let (size, tools) = (size_of(disk)?, ext4::tools(cancel)?);
                ("mkfs.ext4", ext4::options(kernel, tools, size, tree, uuid))
            }
            Self::Erofs => bail!("erofs is read-only: it cannot be made empty and filled"),
        };
        Program::new(program)
            .args(args)
            .arg(disk)
            .cancel(cancel)
            .run()
            .with_context(|| format!("making the file system on {}", disk.display()))?;
        let uuid = uuid.to_owned();
        Ok(Made { uuid, features })
    }

    /// Makes it on `disk` with all of `tree` in it, which must be mounted read-only at its path, by
    /// itself. An EROFS gives the disk its size.
    pub(crate) fn pack(
        self,
        disk: &Path,
        wanted: Wanted<'_>,
        tree: &Root,
        excludes: &Excludes,
        date: Option<SourceDate>,
        cancel: &Cancel,
    ) -> Result<Made> {
        let (kernel, uuid) = (wanted.kernel, wanted.uuid);
        let features = match (self, date) {
            (Self::Erofs, date) => erofs::pack(disk, kernel, tree, excludes, uuid, date, cancel)?,
            (Self::Ext4, Some(date)) if excludes.is_empty() => {
                let (size, tools) = (size_of(disk)?, ext4::tools(cancel)?);
                let (args, features) = ext4::options(kernel, tools, size, wanted.tree, uuid);
                ext4::pack(disk, args, tree, date, cancel)?;
                features
            }
            _ => bail!("{} cannot be packed from a tree", self.name()),
        };
        let uuid = uuid.to_owned();
        Ok(Made { uuid, features })
    }

    /// Gives a copy of a version's disk an identifier of its own, where the kernel would not mount
    /// it beside the version without: tells it then. `kernel` is the oldest that may mount it, where
    /// that is known. The journal must have been replayed.
    ///
    /// XFS has `nouuid` for this, and ext4 does not care; theirs stays, since an image may mount its
    /// root by it.
    pub(crate) fn identify(
        self,
        disk: &Path,
        kernel: Option<&KernelRelease>,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        if !self.needs_identifier() {
            return Ok(None);
        }
        let uuid = identifier("", None)?;
        btrfs::identify(disk, kernel, &uuid, cancel)?;
        Ok(Some(uuid))
    }

    /// Whether a copy cannot be mounted beside what it was copied from.
    pub(crate) fn needs_identifier(self) -> bool {
        self == Self::Btrfs
    }

    /// Options for a mount that is thrown away if it fails: nothing in it must survive a crash
    /// before it is sealed.
    pub(crate) fn draft_options(self) -> &'static [&'static str] {
        match self {
            // A draft made from a version has the version's identifier, which may be mounted.
            Self::Xfs => &["nouuid", "noatime", "logbufs=8", "logbsize=256k"],
            Self::Ext4 => &["noatime", "nobarrier", "noauto_da_alloc", "data=writeback"],
            Self::Btrfs => &["noatime", "nobarrier", "commit=300"],
            Self::Erofs => &["ro"],
        }
    }

    /// What a person adds to the options of a mount, to look into a draft.
    pub(crate) fn look_options(self) -> &'static str {
        match self {
            Self::Xfs => ",nouuid,norecovery",
            Self::Ext4 => ",noload",
            Self::Btrfs => ",rescue=nologreplay",
            Self::Erofs => "",
        }
    }

    /// Checks the unmounted `disk` without changing it.
    pub(crate) fn check(self, disk: &Path, cancel: &Cancel) -> Result<()> {
        let program = match self {
            Self::Xfs => Program::new("xfs_repair").args(["-n", "-f"]),
            Self::Ext4 => Program::new("e2fsck").args(["-f", "-n"]),
            Self::Btrfs => Program::new("btrfs").args(["check", "--readonly"]),
            // Without a place to extract to, everything is unpacked to nowhere.
            Self::Erofs => Program::new("fsck.erofs").arg("--extract"),
        };
        program
            .arg(disk)
            .cancel(cancel)
            .run()
            .with_context(|| format!("checking the file system on {}", disk.display()))?;
        Ok(())
    }

    /// Grows the file system to the whole of `disk`; `mounted` is where it is mounted.
    pub(crate) fn grow(self, mounted: &Path, cancel: &Cancel) -> Result<()> {
        let program = match self {
            Self::Xfs => Program::new("xfs_growfs").arg("-d").arg(mounted),
            Self::Ext4 => Program::new("resize2fs").arg(device_of(mounted)?),
            Self::Btrfs => Program::new("btrfs")
                .args(["filesystem", "resize", "max"])
                .arg(mounted),
            Self::Erofs => bail!("erofs is read-only: it cannot grow"),
        };
        program
            .cancel(cancel)
            .run()
            .context("growing the file system")?;
        Ok(())
    }
}

fn size_of(disk: &Path) -> Result<u64> {
    let metadata = disk.metadata();
    Ok(metadata
        .with_context(|| format!("looking at {}", disk.display()))?
        .len())
}

/// The loop device that is mounted on `dir`.
fn device_of(dir: &Path) -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")
        .context("reading the list of mounts")?;
    let wanted = dir.to_str().context("a mount point must be UTF-8 here")?;
    for line in mounts.lines().rev() {
        // proc_pid_mountinfo(5): the mount point is the fifth field, the source the second after
        // the separator; blanks are written as \040.
        let mut halves = line.splitn(2, " - ");
        let point = halves.next().and_then(|half| half.split(' ').nth(4));
        if point.map(|point| point.replace("\\040", " ")).as_deref() == Some(wanted) {
            let source = halves.next().and_then(|half| half.split(' ').nth(1));
            return source
                .map(str::to_owned)
                .context("a mount without a source");
        }
    }
    bail!("nothing is mounted on {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for filesystem in FileSystem::ALL {
            assert_eq!(filesystem.name().parse(), Ok(filesystem));
        }
        let error = "zfs".parse::<FileSystem>().unwrap_err().to_string();
        assert!(error.contains("give xfs, ext4, btrfs or erofs"), "{error}");
    }

    #[test]
    fn a_tree_that_cannot_fit_is_refused() {
        let tree = Measure {
            allocated: 1 << 30,
            data: 1 << 30,
            entries: 30_000,
        };
        let error = FileSystem::Xfs.ensure_fit(1 << 30, &tree).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a disk of 1.0 GiB is too small for 1.0 GiB in 30000 files: xfs needs 1.2 GiB for \
             that; give a larger --size"
        );
        FileSystem::Xfs.ensure_fit(2 << 30, &tree).unwrap();
    }

    #[test]
    fn a_kernel_without_erofs_is_refused() {
        let kernel = |text| KernelRelease::parse(text).unwrap();
        let refused = FileSystem::Erofs.ensure_kernel(&kernel("4.19.5-300.fc29.x86_64"));
        assert!(refused.unwrap_err().to_string().contains("--fs xfs"));
        FileSystem::Erofs.ensure_kernel(&kernel("5.4.0")).unwrap();
        FileSystem::Xfs.ensure_kernel(&kernel("4.4.0")).unwrap();
    }
}
