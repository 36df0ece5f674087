//! btrfs.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::LABEL;
use crate::build::version::{KernelRelease, Since};
use crate::exec::{Cancel, Program};

/// A feature of btrfs.
struct Feature {
    name: &'static str,
    /// The first kernel whose support for it is called safe; none: never turned on.
    kernel: Option<Since>,
    /// The first mkfs.btrfs that knows the name.
    mkfs: Since,
    /// The first mkfs.btrfs that takes it by `-O`; older ones by `-R`.
    unified: Since,
}

const fn feature(
    name: &'static str,
    kernel: Option<Since>,
    mkfs: Since,
    unified: Since,
) -> Feature {
    Feature {
        name,
        kernel,
        mkfs,
        unified,
    }
}

/// block-group-tree shortens the mount of disks of many terabytes; kernels before 6.1 refuse it, and
/// so do the tools of distributions that have such a kernel. mkfs.btrfs turns it on since 6.19.
const FEATURES: &[Feature] = &[
    feature("extref", Some(Since(3, 12)), Since(3, 12), Since(3, 12)),
    feature(
        "skinny-metadata",
        Some(Since(3, 18)),
        Since(3, 12),
        Since(3, 12),
    ),
    feature("no-holes", Some(Since(4, 0)), Since(3, 14), Since(3, 14)),
    feature(
        "free-space-tree",
        Some(Since(4, 9)),
        Since(5, 8),
        Since(6, 3),
    ),
    feature("block-group-tree", None, Since(6, 3), Since(6, 3)),
];

/// Kernels that know a file system whose identifier was changed without writing all of it anew.
const LIGHT_IDENTIFIERS: Since = Since(5, 0);

/// `btrfs_super_block.incompat_flags`, and the bit in it that says that the identifier was changed so.
const INCOMPATIBLE: u64 = (64 << 10) + 0xbc;
const METADATA_UUID: u64 = 1 << 10;

/// The release of this host's mkfs.btrfs.
pub(super) fn tools(cancel: &Cancel) -> Result<Since> {
    let said = Program::new("mkfs.btrfs").arg("-V").cancel(cancel).run()?;
    let said = said.text();
    // `mkfs.btrfs, part of btrfs-progs v6.2`
    let words = said.split_whitespace();
    let version: String = words
        .map(|word| word.trim_start_matches('v'))
        .collect::<Vec<_>>()
        .join(" ");
    Since::find(&version).context("mkfs.btrfs -V does not tell its version")
}

/// Arguments of mkfs.btrfs, and the features as they were decided.
pub(super) fn options(
    kernel: &KernelRelease,
    tools: Since,
    uuid: &str,
) -> (Vec<OsString>, Vec<String>) {
    let (mut unified, mut runtime, mut decided) = (Vec::new(), Vec::new(), Vec::new());
    for feature in FEATURES.iter().filter(|feature| tools >= feature.mkfs) {
        let wanted = feature.kernel.is_some_and(|since| kernel.knows(since));
        let option = format!("{}{}", if wanted { "" } else { "^" }, feature.name);
        match tools >= feature.unified {
            true => unified.push(option),
            false => runtime.push(option),
        }
        decided.push(format!("{}={}", feature.name, u8::from(wanted)));
    }
    // One copy of the metadata: a second one on the same file saves nobody from the server's disk
    // failing, and every client would write it over the network.
    let fixed = [
        "-q", "-K", "-L", LABEL, "-U", uuid, "-s", "4096", "-n", "16384", "-d", "single", "-m",
        "single",
    ];
    let mut args: Vec<OsString> = fixed.into_iter().map(OsString::from).collect();
    for (flag, options) in [("-O", unified), ("-R", runtime)] {
        if !options.is_empty() {
            args.extend([flag.into(), options.join(",").into()]);
        }
    }
    (args, decided)
}

/// Gives the unmounted copy on `disk` the identifier `uuid`: the kernel takes disks of one
/// identifier for one disk, and would write to the wrong one.
pub(super) fn identify(
    disk: &Path,
    kernel: Option<&KernelRelease>,
    uuid: &str,
    cancel: &Cancel,
) -> Result<()> {
    // -U writes all metadata anew, which costs time, and the blocks that were shared with the
    // version: for old kernels only, or where nobody knows. What was changed the light way once
    // cannot be changed otherwise, and needs such a kernel already.
    let knows = kernel.is_some_and(|kernel| kernel.knows(LIGHT_IDENTIFIERS));
    let is_light = knows || incompatible_features(disk)? & METADATA_UUID != 0;
    Program::new("btrfstune")
        .args(["-f", if is_light { "-M" } else { "-U" }, uuid])
        .arg(disk)
        .cancel(cancel)
        .run()
        .with_context(|| format!("giving {} an identifier of its own", disk.display()))?;
    Ok(())
}

fn incompatible_features(disk: &Path) -> Result<u64> {
    let mut bytes = [0; 8];
    File::open(disk)
        .and_then(|file| file.read_exact_at(&mut bytes, INCOMPATIBLE))
        .with_context(|| format!("reading the superblock of {}", disk.display()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(release: &str, tools: Since) -> (String, String) {
        let kernel = KernelRelease::parse(release).unwrap();
        let (args, decided) = options(&kernel, tools, "U");
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        (args.join(" "), decided.join(" "))
    }

    #[test]
    fn features_follow_the_images_kernel() {
        let (args, features) = decided("6.1.0-21-amd64", Since(6, 2));
        assert!(
            args.ends_with("-O extref,skinny-metadata,no-holes -R free-space-tree"),
            "{args}"
        );
        assert_eq!(
            features,
            "extref=1 skinny-metadata=1 no-holes=1 free-space-tree=1"
        );
        let (args, _) = decided("3.16.0-4-amd64", Since(6, 19));
        assert!(
            args.ends_with(
                "-O extref,^skinny-metadata,^no-holes,^free-space-tree,^block-group-tree"
            ),
            "{args}"
        );
    }
}
