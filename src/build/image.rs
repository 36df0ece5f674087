//! `image build`: a version from a directory or an archive.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statvfs::statvfs;

use super::archive::Archive;
use super::initramfs::Checked;
use super::plan::{Plan, Step};
use super::size::human;
use super::source::{Input, Source};
use super::tree::{Measure, Root, measure};
use super::version::KernelRelease;
use super::watch::{Timed, Watch};
use super::work::{Built, Work, judge};
use super::{Excludes, FileSystem, InitramfsCheck, SizeSpec, SourceDate, kernel};
use crate::exec::{Cancel, PrivateMounts, in_private_mounts};
use crate::library::{ImageName, Library, Progress, VersionFacts};

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The image that gets a new version, or comes into being.
    pub image: ImageName,
    /// What it is made from.
    pub source: Source,
    /// Its file system.
    pub filesystem: FileSystem,
    /// The size of its disk; twice the tree if not given.
    pub size: Option<SizeSpec>,
    /// The release of its kernel; the newest in the tree if not given.
    pub kernel: Option<String>,
    /// What to do about an initramfs that cannot boot over iSCSI.
    pub check: InitramfsCheck,
    /// What of the source is left out.
    pub excludes: Excludes,
    /// The date that the build claims: with it, ext4 and erofs come out the same every time.
    pub date: Option<SourceDate>,
}

/// Everything that was found out before anything is written.
struct Prepared {
    plan: Plan,
    input: Input,
    excludes: Excludes,
    tree: Measure,
    kernel: KernelRelease,
    checked: Option<Checked>,
}

/// What [`image`] would do. Nothing is touched.
///
/// # Errors
/// What [`image`] would refuse before it writes.
pub fn plan_image(library: &Library, request: &BuildRequest, cancel: &Cancel) -> Result<Plan> {
    in_private_mounts(|mounts| {
        let prepared = prepare(mounts, library, request, cancel)?;
        Ok(prepared.plan)
    })?
}

/// Makes a new version of an image.
///
/// # Errors
/// When the source is unfit, a file of it cannot be read, there is no room, somebody asks to stop:
/// then there is no new version, and nothing is left of it.
pub fn image(
    library: &Library,
    request: &BuildRequest,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Built> {
    let timed = Timed::new(watch, cancel, &request.image);
    in_private_mounts(|mounts| {
        timed.step(&format!("reading {}", request.source), None);
        let prepared = prepare(mounts, library, request, cancel)?;
        let plan = prepared.plan;
        let work = Work {
            mounts,
            mounted: None,
            draft: None,
            filesystem: request.filesystem,
            date: request.date,
            kernel: Some(prepared.kernel),
            input: Some(prepared.input),
            excludes: prepared.excludes,
            tree: prepared.tree,
            parent: None,
            script: None,
            check: request.check,
            checked: prepared.checked,
            facts: VersionFacts {
                source: request.source.to_string(),
                ..VersionFacts::default()
            },
            warnings: Vec::new(),
            sealed: None,
            cancel,
            watch: &timed,
        };
        work.perform(&plan, library)
    })?
}

fn prepare(
    mounts: &PrivateMounts,
    library: &Library,
    request: &BuildRequest,
    cancel: &Cancel,
) -> Result<Prepared> {
    if !request.filesystem.is_writable() {
        library.ensure_only_shared(&request.image)?;
    }
    match &request.source {
        Source::Directory(dir) => prepare_tree(mounts, library, request, dir, cancel),
        Source::Archive(path) => {
            let survey = Archive::survey(path, request.kernel.as_deref(), cancel)
                .with_context(|| format!("reading {}", path.display()))?;
            let archive = Archive::open(path)?;
            prepare_archive(library, request, archive, survey.tree, survey.kernel)
        }
        Source::StandardInput => {
            // It can be read once only, so what a first reading would tell must be given.
            let why = "the archive on the standard input can be read only once: give --size and \
                       --kernel";
            match request.size {
                Some(SizeSpec::Bytes(_)) => {}
                Some(SizeSpec::Hundredths(_)) => bail!(
                    "the archive on the standard input can be read only once, so nobody knows \
                     what a multiple of its size is: give --size in bytes, such as 20G"
                ),
                None => bail!(why),
            }
            let kernel = request.kernel.as_deref().and_then(KernelRelease::parse);
            let kernel = kernel.context(why)?;
            prepare_archive(
                library,
                request,
                Archive::stdin()?,
                Measure::default(),
                kernel,
            )
        }
    }
}

fn prepare_tree(
    mounts: &PrivateMounts,
    library: &Library,
    request: &BuildRequest,
    dir: &Path,
    cancel: &Cancel,
) -> Result<Prepared> {
    let dir = fs::canonicalize(dir).with_context(|| format!("looking for {}", dir.display()))?;
    let mut excludes = request.excludes.clone();
    let mut warnings = Vec::new();
    if let Ok(inside) = library.root().strip_prefix(&dir) {
        // The copy would contain itself.
        excludes.add(inside);
        warnings.push(format!(
            "the library lies inside of the tree and is left out: {}",
            library.root().display()
        ));
    }
    let root = Root::from_dir(mounts.view(&dir)?, &dir);
    let release = kernel::release(&root, request.kernel.as_deref())
        .with_context(|| format!("looking for a kernel in {}", dir.display()))?;
    request.filesystem.ensure_kernel(&release)?;
    let files = kernel::boot_files(&root, release)?;
    let (checked, tree) = judge_and_measure(request, &root, &files, &excludes, cancel)?;
    let size = disk_size(library, request, &tree)?;
    warnings.extend(differs(request, &excludes));
    warnings.extend(checked.warnings.iter().cloned());
    let source = Step::CopyTree {
        source: dir.display().to_string(),
        entries: tree.entries,
        bytes: tree.data,
    };
    Ok(Prepared {
        plan: match packs(request, &excludes) {
            true => packing(request, size, &files.release, &dir, &tree, warnings),
            false => plan(request, size, &files.release, source, warnings),
        },
        input: Input::Tree(root),
        excludes,
        tree,
        kernel: files.release,
        checked: Some(Checked {
            warnings: Vec::new(),
            ..checked
        }),
    })
}

/// Unpacking an initramfs takes about as long as walking a tree: both at once.
fn judge_and_measure(
    request: &BuildRequest,
    root: &Root,
    files: &kernel::BootFiles,
    excludes: &Excludes,
    cancel: &Cancel,
) -> Result<(Checked, Measure)> {
    std::thread::scope(|scope| {
        let judged = scope.spawn(|| judge(request.check, root, files, request.filesystem));
        let tree = measure(root, excludes, cancel);
        let checked = match judged.join() {
            Ok(checked) => checked?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((checked, tree?))
    })
}

fn prepare_archive(
    library: &Library,
    request: &BuildRequest,
    archive: Archive,
    tree: Measure,
    kernel: KernelRelease,
) -> Result<Prepared> {
    ensure!(
        request.filesystem != FileSystem::Erofs,
        "an erofs is packed from a directory: unpack the archive into one, and give that as --from"
    );
    let size = disk_size(library, request, &tree)?;
    let source = Step::Unpack {
        source: request.source.to_string(),
        holds: (tree != Measure::default()).then_some((tree.entries, tree.data)),
    };
    Ok(Prepared {
        plan: plan(
            request,
            size,
            &kernel,
            source,
            differs(request, &request.excludes).into_iter().collect(),
        ),
        input: Input::Archive(archive),
        excludes: request.excludes.clone(),
        tree,
        kernel,
        checked: None,
    })
}

/// Whether the disk is made with the tree in it.
fn packs(request: &BuildRequest, excludes: &Excludes) -> bool {
    // mkfs.ext4 takes a tree whole.
    let whole = request.filesystem == FileSystem::Erofs || excludes.is_empty();
    let is_tree = matches!(request.source, Source::Directory(_));
    request.filesystem.is_packed(request.date) && whole && is_tree
}

/// Why a build for a date does not come out the same every time.
fn differs(request: &BuildRequest, excludes: &Excludes) -> Option<String> {
    if request.date.is_none() || packs(request, excludes) {
        return None;
    }
    let why = match (request.filesystem, &request.source) {
        (FileSystem::Ext4, Source::Directory(_)) => {
            "its tools cannot leave anything out: remove it from the tree, or give --fs erofs"
        }
        (FileSystem::Ext4, _) => "only a directory can be packed: unpack the archive into one",
        _ => "the kernel spreads the files over it: give --fs ext4 or --fs erofs",
    };
    let name = request.filesystem.name();
    Some(format!(
        "a date was given (SOURCE_DATE_EPOCH), but this {name} will differ from build to build, \
         since {why}"
    ))
}

/// The size of the disk, if the tree fits on it and the library has room for the tree.
fn disk_size(library: &Library, request: &BuildRequest, tree: &Measure) -> Result<u64> {
    ensure!(
        request.size.is_none() || request.filesystem.is_writable(),
        "an erofs has the size that its files need: leave --size out"
    );
    let size = match request.size {
        Some(wanted) => wanted.of(tree.allocated),
        // Nobody asked for a certain size: a very small tree gets what its file system needs.
        None => SizeSpec::default()
            .of(tree.allocated)
            .max(request.filesystem.least(tree)),
    };
    request.filesystem.ensure_fit(size, tree)?;
    let room = statvfs(library.root())
        .with_context(|| format!("looking for room in {}", library.root().display()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    ensure!(
        free > tree.allocated,
        "the library {} has {} left, but the tree takes {}: make room, or move the library",
        library.root().display(),
        human(free),
        human(tree.allocated)
    );
    Ok(size)
}

fn plan(
    request: &BuildRequest,
    size: u64,
    kernel: &KernelRelease,
    source: Step,
    warnings: Vec<String>,
) -> Plan {
    Plan {
        image: request.image.to_string(),
        steps: vec![
            Step::CreateDisk { size },
            Step::MakeFileSystem {
                filesystem: request.filesystem.name(),
                kernel: kernel.to_string(),
            },
            Step::Mount,
            source,
            Step::TakeBootFiles {
                check: request.check,
            },
            Step::Unmount,
            Step::Check,
            Step::Seal,
        ],
        warnings,
    }
}

/// The plan where the disk is made with the tree in it.
fn packing(
    request: &BuildRequest,
    size: u64,
    kernel: &KernelRelease,
    dir: &Path,
    tree: &Measure,
    warnings: Vec<String>,
) -> Plan {
    Plan {
        image: request.image.to_string(),
        steps: vec![
            Step::View {
                source: dir.display().to_string(),
            },
            Step::Pack {
                filesystem: request.filesystem.name(),
                kernel: kernel.to_string(),
                size: request.filesystem.is_writable().then_some(size),
                entries: tree.entries,
                bytes: tree.data,
            },
            Step::TakeBootFiles {
                check: request.check,
            },
            Step::Unmount,
            Step::Check,
            Step::Seal,
        ],
        warnings,
    }
}
