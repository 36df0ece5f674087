//! Images whose disk is made with the tree in it, in one step.

use std::path::Path;

use super::BuildRequest;
use crate::build::plan::{Plan, Step};
use crate::build::source::Source;
use crate::build::version::KernelRelease;
use crate::build::{Excludes, FileSystem};

impl BuildRequest {
    /// Whether the disk is made with the tree in it.
    pub(super) fn packs(&self, excludes: &Excludes) -> bool {
        // mkfs.ext4 takes a tree whole, in the order that the directories have: that of a scratch
        // file system differs each time.
        let as_it_is = matches!(self.source, Source::Directory(_)) && !self.is_changed();
        self.filesystem.is_packed(self.date)
            && (!self.filesystem.is_writable() || as_it_is && excludes.is_empty())
    }
}

/// Why a build for a date does not come out the same every time.
pub(super) fn differs(request: &BuildRequest, excludes: &Excludes) -> Option<String> {
    if request.date.is_none() || request.packs(excludes) {
        return None;
    }
    let why = match (request.filesystem, &request.source) {
        (FileSystem::Ext4, Source::Directory(_)) if !request.is_changed() => {
            "its tools cannot leave anything out: remove it from the tree, or give --fs erofs"
        }
        (FileSystem::Ext4, _) => {
            "only a directory that is not changed can be packed: give one, or --fs erofs"
        }
        _ => "the kernel spreads the files over it: give --fs ext4 or --fs erofs",
    };
    let name = request.filesystem.name();
    Some(format!(
        "a date was given (SOURCE_DATE_EPOCH), but this {name} will differ from build to build, \
         since {why}"
    ))
}

/// What is done with the directory `dir`.
pub(super) fn packing(
    request: &BuildRequest,
    size: u64,
    kernel: &KernelRelease,
    dir: &Path,
    warnings: Vec<String>,
) -> Plan {
    let size = request.filesystem.is_writable().then_some(size);
    Plan {
        image: request.image.to_string(),
        steps: packing_steps(request, Some(dir), Some(kernel), size).into(),
        warnings,
    }
}

/// From a tree to a version, where the disk is made with the tree in it.
pub(super) fn packing_steps(
    request: &BuildRequest,
    dir: Option<&Path>,
    kernel: Option<&KernelRelease>,
    size: Option<u64>,
) -> [Step; 6] {
    [
        Step::View {
            source: dir.map(|dir| dir.display().to_string()),
        },
        Step::Pack {
            filesystem: request.filesystem.name(),
            kernel: kernel.map(KernelRelease::to_string),
            size,
        },
        Step::TakeBootFiles {
            check: request.check,
        },
        Step::Unmount,
        Step::Check,
        Step::Seal,
    ]
}
