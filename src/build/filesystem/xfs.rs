//! XFS.

use std::ffi::OsString;

use anyhow::{Context, Result};

use super::LABEL;
use crate::build::version::{KernelRelease, Since};
use crate::exec::{Cancel, Program};

/// A feature of XFS.
struct Feature {
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
) -> Feature {
    Feature {
        option,
        name,
        kernel,
        mkfs,
    }
}

/// rmapbt and parent serve online repair, which clients do not do, and cost every write; metadir
/// serves quota and realtime devices, exchange programs that do not exist yet. nrext64 is for files
/// with more than two thousand million extents.
const FEATURES: &[Feature] = &[
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

/// The release of this host's mkfs.xfs.
pub(super) fn tools(cancel: &Cancel) -> Result<Since> {
    let said = Program::new("mkfs.xfs").arg("-V").cancel(cancel).run()?;
    Since::find(&said.text()).context("mkfs.xfs -V does not tell its version")
}

/// Arguments of mkfs.xfs, and the features as they were decided.
pub(super) fn options(
    kernel: &KernelRelease,
    tools: Since,
    uuid: &str,
) -> (Vec<OsString>, Vec<String>) {
    let mut decided = Vec::new();
    let mut groups = [
        ("-m", vec![format!("uuid={uuid}")]),
        ("-i", vec![]),
        ("-n", vec![]),
    ];
    for feature in FEATURES.iter().filter(|feature| tools >= feature.mkfs) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_follow_the_images_kernel() {
        let decided = |release, tools| {
            let kernel = KernelRelease::parse(release).unwrap();
            options(&kernel, tools, "U").1.join(" ")
        };
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
    }
}
