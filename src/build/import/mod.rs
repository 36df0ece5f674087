//! `image import`: a version from a disk that was made elsewhere.
//!
//! A disk with partitions is taken as it is, and boots by itself. From a bare file system kernel and
//! initramfs are taken out, as from any tree.
//!
//! `format` (what the file is, and qemu-img), `content` and `table` (what the disk in it is).

mod bytes;
mod content;
mod format;
mod table;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

use super::adopt::Foreign;
use super::image::wanted_kernel;
use super::plan::{Plan, Step};
use super::recipe::{Recipe, Recipes};
use super::size::human;
use super::usage::WrongUsage;
use super::watch::{Timed, Watch};
use super::work::{Built, Keep, Work};
use super::{FileSystem, InitramfsCheck, Scrub};
use crate::exec::{Cancel, in_private_mounts};
use crate::library::manifest::TableFacts;
use crate::library::{ImageName, Library, Progress, VersionFacts};

pub use format::{DiskFormat, UnknownFormat};

pub(super) use content::{Content, HEAD, look};
pub(super) use format::Container;

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The image that gets a new version, or comes into being.
    pub image: ImageName,
    /// The file with the disk.
    pub file: PathBuf,
    /// What it is; told from its first bytes if not given.
    pub format: Option<DiskFormat>,
    /// The release of the kernel of a bare file system; the newest in it if not given.
    pub kernel: Option<String>,
    /// The recipe that a bare file system goes by; the one for its distribution if not given.
    pub recipe: Option<String>,
    /// What to do about an initramfs that cannot boot over iSCSI.
    pub check: InitramfsCheck,
    /// Whether what no two clients should share is taken out of a bare file system.
    pub scrub: Scrub,
    /// What becomes of a draft that failed.
    pub keep: Keep,
}

impl ImportRequest {
    /// The disk in a file, with nothing special about it.
    pub fn new(image: ImageName, file: PathBuf) -> Self {
        Self {
            image,
            file,
            format: None,
            kernel: None,
            recipe: None,
            check: InitramfsCheck::default(),
            scrub: Scrub::default(),
            keep: Keep::default(),
        }
    }
}

/// What [`import`] would do. Nothing is touched.
///
/// # Errors
/// What [`import`] would refuse before it writes.
pub fn plan_import(library: &Library, request: &ImportRequest, cancel: &Cancel) -> Result<Plan> {
    let file = open(&request.file)?;
    let (container, content) = inspect(request, &file, cancel)?;
    wanted_kernel(request.kernel.as_deref())?;
    recipe(request, &Recipes::of(library)?)?;
    plan(library, request, &container, &content)
}

/// Makes a new version of an image from a disk that was made elsewhere.
///
/// # Errors
/// When the file is unfit or names other files, when what is on the disk cannot boot, when there is
/// no room, or somebody asks to stop: then there is no new version, and nothing is left of it.
pub fn import(
    library: &Library,
    request: &ImportRequest,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Built> {
    let timed = Timed::new(watch, cancel, &request.image);
    timed.step(&format!("reading {}", request.file.display()), None);
    let file = open(&request.file)?;
    let (container, content) = inspect(request, &file, cancel)?;
    let plan = plan(library, request, &container, &content)?;
    let kernel = wanted_kernel(request.kernel.as_deref())?;
    let recipes = Recipes::of(library)?;
    let mut facts = VersionFacts {
        source: request.file.display().to_string(),
        recipe: recipe(request, &recipes)?.map(Recipe::facts),
        ..VersionFacts::default()
    };
    let mut filesystem = FileSystem::default();
    if let Content::FileSystem(found) = content {
        filesystem = found.kind.parse()?;
        facts.filesystem = found;
    }
    in_private_mounts(|mounts| {
        let mut work = Work::new(mounts, filesystem, facts, cancel, &timed);
        work.foreign = Some(Foreign::File(container));
        work.recipes = Some(&recipes);
        work.kernel = kernel;
        work.check = request.check;
        work.keep = request.keep;
        work.perform(&plan, library)
    })?
}

/// The recipe that a person asked for.
fn recipe<'a>(request: &ImportRequest, recipes: &'a Recipes) -> Result<Option<&'a Recipe>> {
    let name = request.recipe.as_deref();
    name.map(|name| recipes.named(name)).transpose()
}

fn open(path: &Path) -> Result<File> {
    // A fifo or a device in the place of a file must not stop us.
    let found = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    ensure!(
        found.is_file(),
        "{} is not a file: copy the disk into one, and import that",
        path.display()
    );
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

/// What the file is, and what is on the disk in it.
fn inspect<'a>(
    request: &'a ImportRequest,
    file: &'a File,
    cancel: &Cancel,
) -> Result<(Container<'a>, Content)> {
    let about = || format!("{} cannot be imported", request.file.display());
    let container =
        Container::open(&request.file, file, request.format, cancel).with_context(about)?;
    let head = container.disk_head(cancel).with_context(about)?;
    let content = look(&head, container.size).with_context(about)?;
    if let Content::FileSystem(found) = &content {
        found.kind.parse::<FileSystem>().with_context(about)?;
    }
    Ok((container, content))
}

fn plan(
    library: &Library,
    request: &ImportRequest,
    container: &Container<'_>,
    content: &Content,
) -> Result<Plan> {
    let room = statvfs(library.root())
        .with_context(|| format!("looking for room in {}", library.root().display()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    ensure!(
        free > container.allocated,
        "the library {} has {} left, but {} takes {}: make room, or move the library",
        library.root().display(),
        human(free),
        request.file.display(),
        human(container.allocated)
    );
    let mut warnings = Vec::new();
    let mut steps = vec![Step::ReadDisk {
        source: request.file.display().to_string(),
        format: container.format,
        size: container.size,
    }];
    match content {
        Content::Table(table) => {
            ensure_not_looked_into(request)?;
            warnings.extend(warnings_of(table));
            steps.push(Step::KeepPartitions {
                table: table.clone(),
            });
        }
        Content::FileSystem(found) => {
            let check = request.check;
            let filesystem = found.kind.clone();
            let kind: FileSystem = filesystem.parse()?;
            let scrubs = kind.is_writable() && request.scrub == Scrub::ByRecipe;
            if !kind.is_writable() {
                library.ensure_only_shared(&request.image)?;
                warnings.push(format!(
                    "{filesystem} cannot be scrubbed: identities in it (machine-id, SSH host keys) \
                     are every client's"
                ));
            }
            steps.push(Step::Settle { filesystem });
            steps.extend(kind.needs_identifier().then_some(Step::Identify));
            steps.extend([Step::Mount, Step::Recognize]);
            steps.extend(scrubs.then_some(Step::ScrubRecognized));
            steps.extend([Step::TakeBootFiles { check }, Step::Unmount, Step::Check]);
        }
    }
    steps.push(Step::Seal);
    Ok(Plan {
        image: request.image.to_string(),
        steps,
        warnings,
    })
}

/// A disk with partitions is taken as it is, so nothing can be asked for that is in one of them.
fn ensure_not_looked_into(request: &ImportRequest) -> Result<(), WrongUsage> {
    let given = [
        ("--kernel", request.kernel.is_some()),
        ("--recipe", request.recipe.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(WrongUsage::of(
            option,
            format!(
                "is for a bare file system: {} has a partition table, so it is taken as it is and \
                 boots by itself",
                request.file.display()
            ),
        )),
        None => Ok(()),
    }
}

/// What whoever boots such a disk should know.
fn warnings_of(table: &TableFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if !table.bios && !table.efi {
        warnings.push(String::from(
            "there is neither boot code nor an EFI system partition on this disk: nothing on it \
             would start",
        ));
    }
    warnings.push(String::from(
        "this disk is not looked into: the system on it must be able to run from an iSCSI disk that \
         the firmware attached, and identities in it (machine-id, SSH host keys) are every client's",
    ));
    warnings
}
