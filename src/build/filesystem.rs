//! File systems of images: made for the kernel that will mount them.
//!
//! What mkfs turns on by default suits the host that runs it. An image's own kernel may be years
//! older and refuse to mount (4.19 and XFS's bigtime), so each feature is chosen by a table.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::SizeSpec;
use super::size::human;
use super::tree::Measure;
use super::version::{KernelRelease, Since};
use crate::exec::{Cancel, Program};

/// Label of every root file system.
pub(crate) const LABEL: &str = "NETROOT";

/// A file system that an image can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileSystem {
    /// The default: what the described system uses.
    #[default]
    Xfs,
    /// For kernels or people that want it.
    Ext4,
}

/// A file system that images cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file system that images can have: give xfs or ext4")]
pub struct UnknownFileSystem(String);

/// What a new file system turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) uuid: String,
    /// Features that were chosen for the image's kernel, and on XFS those that were left out.
    pub(crate) features: Vec<String>,
}

/// A feature of XFS.
struct XfsFeature {
    /// The option of mkfs.xfs that it belongs to.
    option: &'static str,
    name: &'static str,
    /// The first kernel that has it and does not call it experimental; none: never turned on.
    kernel: Option<Since>,
    /// The first mkfs.xfs that knows the name. An older one never turns it on either.
    mkfs: Since,
}

const fn feature(
    option: &'static str,
    name: &'static str,
    kernel: Option<Since>,
    mkfs: Since,
) -> XfsFeature {
    XfsFeature {
        option,
        name,
        kernel,
        mkfs,
    }
}

/// rmapbt and parent serve online repair, which clients do not do, and cost every write; metadir
/// serves quota and realtime devices, exchange programs that do not exist yet. nrext64 is for files
/// with more than two thousand million extents.
const XFS_FEATURES: &[XfsFeature] = &[
    feature("-m", "crc", Some(Since(3, 10)), Since(3, 2)),
    feature("-m", "finobt", Some(Since(3, 16)), Since(3, 2)),
    feature("-i", "sparse", Some(Since(4, 10)), Since(4, 2)),
    feature("-m", "reflink", Some(Since(4, 16)), Since(4, 9)),
    feature("-m", "rmapbt", None, Since(4, 8)),
    feature("-m", "bigtime", Some(Since(5, 15)), Since(5, 10)),
    feature("-m", "inobtcount", Some(Since(5, 15)), Since(5, 10)),
    feature("-i", "nrext64", None, Since(5, 19)),
    feature("-i", "exchange", None, Since(6, 10)),
    feature("-n", "parent", None, Since(6, 10)),
    feature("-m", "metadir", None, Since(6, 13)),
];

/// Features of ext4 that every kernel since 3.10 and every e2fsck since 1.42 knows.
const EXT4_ALWAYS: &[&str] = &[
    "none",
    "has_journal",
    "extent",
    "huge_file",
    "flex_bg",
    "dir_nlink",
    "extra_isize",
    "sparse_super",
    "large_file",
    "filetype",
    "resize_inode",
    "dir_index",
    "ext_attr",
    "64bit",
];

/// Kernels know checksums since 3.18, but the image's own e2fsck must as well, or the client stops
/// at its boot: 4.9 is the first long-term kernel whose distributions have one. For the same
/// reason, later features (orphan_file, metadata_csum_seed) stay off: Ubuntu 22.04 has a kernel
/// that knows orphan_file, and an e2fsck that refuses it.
const EXT4_CHECKSUMS: Since = Since(4, 9);

const MIB: u64 = 1024 * 1024;

impl FileSystem {
    /// Its name, for mount and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
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
        let (journal, smallest) = match self {
            // mkfs.xfs refuses anything below 300 MB, and makes a log of 64 MiB from there.
            Self::Xfs => (96 * MIB, 300 * MIB),
            Self::Ext4 => (64 * MIB, 64 * MIB),
        };
        let files = tree.allocated.saturating_add(inodes);
        let spare = files / 20;
        (files + spare + journal).max(smallest).div_ceil(MIB) * MIB
    }

    /// Makes the file system on `disk` for `kernel` and `tree`.
    pub(crate) fn make(
        self,
        disk: &Path,
        kernel: &KernelRelease,
        tree: &Measure,
        cancel: &Cancel,
    ) -> Result<Made> {
        let uuid = random_uuid()?;
        let (program, args, features) = match self {
            Self::Xfs => {
                let (args, features) = xfs_options(kernel, xfs_tools(cancel)?, &uuid);
                ("mkfs.xfs", args, features)
            }
            Self::Ext4 => {
                let size = disk.metadata().context("looking at the disk")?.len();
                let (args, features) = ext4_options(kernel, ext4_tools(cancel)?, size, tree, &uuid);
                ("mkfs.ext4", args, features)
            }
        };
        Program::new(program)
            .args(args)
            .arg(disk)
            .cancel(cancel)
            .run()
            .with_context(|| format!("making the file system on {}", disk.display()))?;
        Ok(Made { uuid, features })
    }

    /// Options for a mount that is thrown away if it fails: nothing in it must survive a crash
    /// before it is sealed.
    pub(crate) fn draft_options(self) -> &'static [&'static str] {
        match self {
            // A draft made from a version has the version's identifier, which may be mounted.
            Self::Xfs => &["nouuid", "noatime", "logbufs=8", "logbsize=256k"],
            Self::Ext4 => &["noatime", "nobarrier", "noauto_da_alloc", "data=writeback"],
        }
    }

    /// Bytes of a disk for `tree`: what is wanted, else twice the tree.
    pub(crate) fn disk_size(self, wanted: Option<SizeSpec>, tree: &Measure) -> u64 {
        match wanted {
            Some(wanted) => wanted.of(tree.allocated),
            // Nobody asked for a certain size: a very small tree gets what its file system needs.
            None => SizeSpec::default().of(tree.allocated).max(self.least(tree)),
        }
    }

    /// What a person adds to the options of a mount, to look into a draft.
    pub(crate) fn look_options(self) -> &'static str {
        match self {
            Self::Xfs => ",nouuid,norecovery",
            Self::Ext4 => ",noload",
        }
    }

    /// Checks the unmounted `disk` without changing it.
    pub(crate) fn check(self, disk: &Path, cancel: &Cancel) -> Result<()> {
        let program = match self {
            Self::Xfs => Program::new("xfs_repair").args(["-n", "-f"]),
            Self::Ext4 => Program::new("e2fsck").args(["-f", "-n"]),
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
        };
        program
            .cancel(cancel)
            .run()
            .context("growing the file system")?;
        Ok(())
    }
}

impl FromStr for FileSystem {
    type Err = UnknownFileSystem;

    fn from_str(text: &str) -> Result<Self, UnknownFileSystem> {
        match text {
            "xfs" => Ok(Self::Xfs),
            "ext4" => Ok(Self::Ext4),
            _ => Err(UnknownFileSystem(text.to_owned())),
        }
    }
}

fn xfs_tools(cancel: &Cancel) -> Result<Since> {
    let said = Program::new("mkfs.xfs").arg("-V").cancel(cancel).run()?;
    Since::find(&said.text()).context("mkfs.xfs -V does not tell its version")
}

fn ext4_tools(cancel: &Cancel) -> Result<Since> {
    let said = Program::new("mkfs.ext4").arg("-V").cancel(cancel).run()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    Since::find(&said).context("mkfs.ext4 -V does not tell its version")
}

/// Arguments of mkfs.xfs, and the features as they were decided.
fn xfs_options(kernel: &KernelRelease, tools: Since, uuid: &str) -> (Vec<OsString>, Vec<String>) {
    let mut decided = Vec::new();
    let mut groups = [
        ("-m", vec![format!("uuid={uuid}")]),
        ("-i", vec![]),
        ("-n", vec![]),
    ];
    for feature in XFS_FEATURES.iter().filter(|feature| tools >= feature.mkfs) {
        let wanted = feature.kernel.is_some_and(|since| kernel.knows(since));
        let option = format!("{}={}", feature.name, u8::from(wanted));
        let group = groups.iter_mut().find(|(name, _)| *name == feature.option);
        if let Some((_, options)) = group {
            options.push(option.clone());
        }
        decided.push(option);
    }
    // -K: the file is sparse already. Sectors of 4096 bytes work on disks with blocks of 512 and
    // of 4096 bytes, those of 512 only on the former.
    let mut args = vec!["-q", "-K", "-L", LABEL, "-s", "size=4096"]
        .into_iter()
        .map(OsString::from)
        .collect::<Vec<_>>();
    for (name, options) in groups.iter().filter(|(_, options)| !options.is_empty()) {
        args.extend([OsString::from(name), OsString::from(options.join(","))]);
    }
    (args, decided)
}

/// Arguments of mkfs.ext4, and the features as they were decided.
fn ext4_options(
    kernel: &KernelRelease,
    tools: Since,
    size: u64,
    tree: &Measure,
    uuid: &str,
) -> (Vec<OsString>, Vec<String>) {
    let mut features: Vec<String> = EXT4_ALWAYS.iter().map(|&name| name.to_owned()).collect();
    if kernel.knows(EXT4_CHECKSUMS) {
        features.push(String::from("metadata_csum"));
    }
    // The inode tables of a new sparse file are zeros already; without the promise the first
    // client would write them all.
    let extended = if tools >= Since(1, 47) {
        "nodiscard,assume_storage_prezeroed=1"
    } else {
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    };
    // One inode for 16 KiB is the usual; a tree of many small files needs more.
    let inodes = (size / (16 * 1024)).max(tree.entries.saturating_mul(3) / 2 + 4096);
    let args = [
        "-q", "-F", "-b", "4096", "-I", "256", "-m", "1", "-L", LABEL,
    ]
    .into_iter()
    .map(OsString::from)
    .chain(["-U".into(), uuid.into(), "-E".into(), extended.into()])
    .chain(["-N".into(), inodes.to_string().into()])
    .chain(["-O".into(), features.join(",").into()])
    .collect();
    features.retain(|name| name != "none");
    (args, features)
}

/// An identifier of version 4 (RFC 9562 §5.4).
fn random_uuid() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("drawing an identifier: {e}"))?;
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
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

    fn kernel(text: &str) -> KernelRelease {
        KernelRelease::parse(text).unwrap()
    }

    #[test]
    fn features_follow_the_images_kernel() {
        let decided = |release, tools| xfs_options(&kernel(release), tools, "U").1.join(" ");
        assert_eq!(
            decided("4.19.5-300.fc29.x86_64", Since(6, 1)),
            "crc=1 finobt=1 sparse=1 reflink=1 rmapbt=0 bigtime=0 inobtcount=0 nrext64=0"
        );
        assert_eq!(
            decided("6.1.0-21-amd64", Since(6, 1)),
            "crc=1 finobt=1 sparse=1 reflink=1 rmapbt=0 bigtime=1 inobtcount=1 nrext64=0"
        );
        assert_eq!(
            decided("6.1.0-21-amd64", Since(4, 20)),
            "crc=1 finobt=1 sparse=1 reflink=1 rmapbt=0"
        );
        let ext4 = |release| {
            let tree = Measure::default();
            ext4_options(&kernel(release), Since(1, 47), MIB, &tree, "U").1
        };
        assert!(ext4("6.1.0").contains(&String::from("metadata_csum")));
        assert!(!ext4("4.4.0").contains(&String::from("metadata_csum")));
    }

    #[test]
    fn identifiers_are_of_version_4() {
        let uuid = random_uuid().unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.chars().nth(14), Some('4'));
        assert!("89ab".contains(uuid.chars().nth(19).unwrap()));
        assert_ne!(uuid, random_uuid().unwrap());
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
}
