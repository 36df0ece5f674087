//! `image upgrade`: a version from another one, by a script that is run inside of it.

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, statfs};

use super::plan::{Plan, Step};
use super::script::Script;
use super::size::human;
use super::tree::Measure;
use super::watch::{Timed, Watch};
use super::work::{Built, Work};
use super::{Excludes, FileSystem, InitramfsCheck, SizeSpec};
use crate::exec::{Cancel, in_private_mounts};
use crate::library::{ImageName, Library, Version, VersionFacts, VersionSpec};

/// File systems on which copies of files share their blocks.
const CAN_SHARE: &[FsType] = &[XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];

/// What is to be upgraded.
#[derive(Debug, Clone)]
pub struct UpgradeRequest {
    /// The version that is copied; the current one if it names an image only.
    pub from: VersionSpec,
    /// The image that gets the new version: the same one, or another.
    pub to: ImageName,
    /// What is run inside of the copy.
    pub script: Script,
    /// The size of its disk, at least that of the version; a multiple is one of the version's.
    pub size: Option<SizeSpec>,
    /// The release of its kernel; the newest in the tree if not given.
    pub kernel: Option<String>,
    /// What to do about an initramfs that cannot boot over iSCSI.
    pub check: InitramfsCheck,
}

/// What [`upgrade`] would do. Nothing is touched.
///
/// # Errors
/// When there is no such version, or its disk cannot get that size.
pub fn plan_upgrade(library: &Library, request: &UpgradeRequest) -> Result<Plan> {
    let parent = library.resolve(&request.from)?;
    plan(library, request, &parent)
}

/// Copies a version, runs a script in the copy, and seals it as a new version.
///
/// # Errors
/// When the script fails, the result cannot boot, somebody asks to stop: then there is no new
/// version, and nothing is left of it.
pub fn upgrade(
    library: &Library,
    request: &UpgradeRequest,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Built> {
    let parent = library.resolve(&request.from)?;
    let plan = plan(library, request, &parent)?;
    let told = &parent.manifest().facts;
    let filesystem: FileSystem = told.filesystem.kind.parse()?;
    let facts = VersionFacts {
        parent: Some(parent.id().clone()),
        source: request.script.to_string(),
        filesystem: told.filesystem.clone(),
        ..VersionFacts::default()
    };
    let wanted = request.kernel.as_deref().map(|text| {
        super::version::KernelRelease::parse(text)
            .with_context(|| format!("`{text}` is not the release of a kernel"))
    });
    let kernel = wanted.transpose()?;
    let timed = Timed::new(watch, cancel, &request.to);
    in_private_mounts(|mounts| {
        let work = Work {
            mounts,
            mounted: None,
            draft: None,
            filesystem,
            date: None,
            kernel,
            input: None,
            excludes: Excludes::default(),
            tree: Measure::default(),
            parent: Some(parent),
            script: Some(request.script.clone()),
            check: request.check,
            checked: None,
            facts,
            warnings: Vec::new(),
            sealed: None,
            cancel,
            watch: &timed,
        };
        work.perform(&plan, library)
    })?
}

fn plan(library: &Library, request: &UpgradeRequest, parent: &Version) -> Result<Plan> {
    request.script.ensure_there()?;
    // Within one image this is an update; any other image that is there would get a version that
    // has nothing to do with its own.
    let is_own = request.to == parent.id().image;
    ensure!(
        is_own || library.image(&request.to).is_err(),
        "the image {} exists already: build or upgrade into a new name",
        request.to
    );
    let filesystem: FileSystem = parent.manifest().facts.filesystem.kind.parse()?;
    ensure!(
        filesystem.is_writable(),
        "{} is {}, which is read-only: build a new version from its source, or build the image as \
         xfs and make the read-only one from what comes out",
        parent.id(),
        filesystem.name()
    );
    let mut steps = vec![Step::CopyVersion {
        version: parent.id().to_string(),
    }];
    steps.extend(filesystem.needs_identifier().then_some(Step::Identify));
    let had = parent.manifest().disk.size;
    let size = request.size.map(|wanted| wanted.of(had));
    if let Some(size) = size {
        ensure!(
            size >= had,
            "the disk of {} has {}, and file systems cannot shrink: give a larger --size",
            parent.id(),
            human(had)
        );
    }
    let grown = size.filter(|&size| size > had);
    steps.extend(grown.map(|size| Step::Enlarge { size }));
    steps.push(Step::Mount);
    steps.extend(grown.map(|_| Step::Grow));
    steps.push(Step::Run {
        command: request.script.to_string(),
    });
    let check = request.check;
    steps.extend([
        Step::TakeBootFiles { check },
        Step::Unmount,
        Step::Check,
        Step::Seal,
    ]);
    Ok(Plan {
        image: request.to.to_string(),
        steps,
        warnings: cost_of_copy(library, parent)?.into_iter().collect(),
    })
}

/// What a copy costs where the library's file system cannot share blocks, if it has room for it.
fn cost_of_copy(library: &Library, parent: &Version) -> Result<Option<String>> {
    let about = || format!("looking at {}", library.root().display());
    let kind = statfs(library.root()).with_context(about)?;
    if CAN_SHARE.contains(&kind.filesystem_type()) {
        return Ok(None);
    }
    let cost = parent.manifest().disk.allocated;
    let block = u64::try_from(kind.block_size()).unwrap_or(0);
    let free = kind.blocks_available().saturating_mul(block);
    ensure!(
        free > cost,
        "the library {} has {} left, but a copy of {} takes {}: make room, or move the library to \
         XFS or btrfs, where a copy takes nothing",
        library.root().display(),
        human(free),
        parent.id(),
        human(cost)
    );
    Ok(Some(format!(
        "the library's file system cannot share blocks: the copy of {} takes {}",
        parent.id(),
        human(cost)
    )))
}
