//! ext4: mounted and filled, or packed in one go so that it comes out the same every time.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};

use super::inodes;
use super::{LABEL, SourceDate};
use crate::build::tree::{Measure, Root};
use crate::build::version::{KernelRelease, Since};
use crate::exec::{Cancel, Program};

/// Features that every kernel since 3.10 and every e2fsck since 1.42 knows.
const ALWAYS: &[&str] = &[
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
const CHECKSUMS: Since = Since(4, 9);

/// The release of this host's mkfs.ext4.
pub(super) fn tools(cancel: &Cancel) -> Result<Since> {
    let said = Program::new("mkfs.ext4").arg("-V").cancel(cancel).run()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    Since::find(&said).context("mkfs.ext4 -V does not tell its version")
}

/// Arguments of mkfs.ext4, and the features as they were decided.
pub(super) fn options(
    kernel: &KernelRelease,
    tools: Since,
    size: u64,
    tree: &Measure,
    uuid: &str,
) -> (Vec<OsString>, Vec<String>) {
    let mut features: Vec<String> = ALWAYS.iter().map(|&name| name.to_owned()).collect();
    if kernel.knows(CHECKSUMS) {
        features.push(String::from("metadata_csum"));
    }
    // The inode tables of a new sparse file are zeros already; without the promise the first
    // client would write them all.
    let extended = if tools >= Since(1, 47) {
        "nodiscard,assume_storage_prezeroed=1"
    } else {
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    };
    // Names are hashed by the identifier too: a seed that is drawn would differ each time.
    let extended = format!("{extended},hash_seed={uuid}");
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

/// Makes the file system on `disk` with the whole of `tree` in it: the same bytes from the same
/// tree, whenever it is done. `args` are those of [`options`].
///
/// mkfs.ext4 keeps times to the second only. What a tree cannot be given back with, when a file was
/// read and when its inode was changed, becomes the time of its modification.
pub(super) fn pack(
    disk: &Path,
    args: Vec<OsString>,
    tree: &Root,
    date: SourceDate,
    cancel: &Cancel,
) -> Result<()> {
    Program::new("mkfs.ext4")
        .env("SOURCE_DATE_EPOCH", date.to_string())
        // Releases before 1.47.1 know this one only.
        .env("E2FSPROGS_FAKE_TIME", date.to_string())
        .args(args)
        .arg("-d")
        .arg(tree.path())
        .arg(disk)
        .cancel(cancel)
        .run()
        .with_context(|| format!("packing the tree into {}", disk.display()))?;
    inodes::settle(disk, tree, date)
        .with_context(|| format!("settling the times in {}", disk.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_follow_the_images_kernel() {
        let decided = |release| {
            let (kernel, tree) = (KernelRelease::parse(release).unwrap(), Measure::default());
            options(&kernel, Since(1, 47), 1 << 20, &tree, "U").1
        };
        assert!(decided("6.1.0").contains(&String::from("metadata_csum")));
        assert!(!decided("4.4.0").contains(&String::from("metadata_csum")));
    }
}
