//! `image build`: a version from a directory or an archive.

mod options;
mod packed;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

use self::packed::{differs, packing, packing_steps};
use super::archive::Archive;
use super::custom::Custom;
use super::initramfs::Checked;
use super::plan::{Plan, Step};
use super::recipe::{Action, Recipe, Recipes};
use super::sections::{Known, Sections, in_order};
use super::shown::Shown;
use super::size::human;
use super::source::{Input, Source};
use super::tree::{Measure, Root, measure};
use super::version::KernelRelease;
use super::watch::{Timed, Watch};
use super::work::{Built, Keep, Work, judge};
use super::{Excludes, FileSystem, InitramfsCheck, Scrub, SizeSpec, SourceDate, facts, kernel};
use crate::exec::{Cancel, PrivateMounts, in_private_mounts};
use crate::library::{ImageName, Library, Progress, VersionFacts, caution_of_way};

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The image that gets a new version, or comes into being.
    pub image: ImageName,
    /// What it is made from.
    pub source: Source,
    /// By what recipe a directory or an archive is prepared; as it is if not given.
    pub recipe: Option<String>,
    /// Where a recipe gets packages from; from where it usually does if not given.
    pub mirror: Option<String>,
    /// Further packages.
    pub packages: Vec<String>,
    /// What else is changed.
    pub custom: Custom,
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
    /// Whether what no two clients should share is taken out of what a recipe made.
    pub scrub: Scrub,
    /// What becomes of a draft that failed.
    pub keep: Keep,
}

impl BuildRequest {
    /// An image of `source`, with nothing special about it.
    pub fn new(image: ImageName, source: Source) -> Self {
        Self {
            image,
            source,
            recipe: None,
            mirror: None,
            packages: Vec::new(),
            custom: Custom::default(),
            filesystem: FileSystem::default(),
            size: None,
            kernel: None,
            check: InitramfsCheck::default(),
            excludes: Excludes::default(),
            date: None,
            scrub: Scrub::default(),
            keep: Keep::default(),
        }
    }

    /// Whether the tree is changed on its way, so that it cannot be judged before.
    fn is_changed(&self) -> bool {
        self.recipe.is_some()
            || !self.packages.is_empty()
            || !self.custom.is_empty()
            || matches!(self.source, Source::Distribution { .. })
    }

    /// Whether the tree must be made before its disk.
    fn needs_scratch(&self) -> bool {
        self.is_changed() || !self.filesystem.is_writable()
    }
}

/// Everything that was found out before anything is written.
struct Prepared<'r> {
    plan: Plan,
    input: Option<Input>,
    excludes: Excludes,
    tree: Measure,
    kernel: Option<KernelRelease>,
    checked: Option<Checked>,
    recipe: &'r Recipe,
}

/// What [`image`] would do. Nothing is touched.
///
/// # Errors
/// What [`image`] would refuse before it writes.
pub fn plan_image(library: &Library, request: &BuildRequest, cancel: &Cancel) -> Result<Plan> {
    let recipes = Recipes::of(library)?;
    in_private_mounts(|mounts| {
        let prepared = prepare(mounts, library, request, &recipes, cancel)?;
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
    let recipes = Recipes::of(library)?;
    let timed = Timed::new(watch, cancel, &request.image);
    in_private_mounts(|mounts| {
        timed.step(&format!("reading {}", request.source), None);
        let prepared = prepare(mounts, library, request, &recipes, cancel)?;
        let facts = VersionFacts {
            source: request.source.to_string(),
            recipe: request.is_changed().then(|| prepared.recipe.facts()),
            ..VersionFacts::default()
        };
        let mut work = Work::new(mounts, request.filesystem, facts, cancel, &timed);
        work.date = request.date;
        work.size = request.size;
        work.kernel = prepared.kernel;
        work.places = prepared.recipe.places().clone();
        work.packages = prepared.recipe.packages();
        work.input = prepared.input;
        work.excludes = prepared.excludes;
        work.tree = prepared.tree;
        work.check = request.check;
        work.checked = prepared.checked;
        work.keep = request.keep;
        work.perform(&prepared.plan, library)
    })?
}

/// The release of a kernel that a person asked for.
pub(super) fn wanted_kernel(text: Option<&str>) -> Result<Option<KernelRelease>> {
    let parse = |text: &str| {
        KernelRelease::parse(text)
            .with_context(|| format!("`{text}` is not the release of a kernel"))
    };
    text.map(parse).transpose()
}

fn prepare<'r>(
    mounts: &PrivateMounts,
    library: &Library,
    request: &BuildRequest,
    recipes: &'r Recipes,
    cancel: &Cancel,
) -> Result<Prepared<'r>> {
    request.ensure_meant()?;
    if !request.filesystem.is_writable() {
        library.ensure_only_shared(&request.image)?;
    }
    match &request.source {
        Source::Directory(dir) => prepare_tree(mounts, library, request, recipes, dir, cancel),
        Source::Distribution { name, release } => {
            let recipe = match &request.recipe {
                Some(recipe) => recipes.named(recipe)?,
                None => recipes.to_bootstrap(name)?,
            };
            let known = Known {
                release: Some(recipe.release(release).to_owned()),
                distribution: Some(name.clone()),
                mirror: request.mirror.clone(),
                packages: request.packages.clone(),
                ..Known::default()
            };
            let steps = |known: &Known| {
                let bootstrap = Sections::new(recipe, known).needed("bootstrap")?;
                changed_steps(request, recipe, known, None, bootstrap)
            };
            request.ensure_mirror_is_used(recipe, &known, &steps)?;
            let steps = steps(&known)?;
            prepared_later(request, recipe, steps, None)
        }
        Source::Archive(path) if request.needs_scratch() => {
            let archive = Archive::open(path)?;
            unpacked_and_changed(request, recipes, archive)
        }
        Source::Archive(path) => {
            let survey = Archive::survey(path, request.kernel.as_deref(), cancel)
                .with_context(|| format!("reading {}", path.display()))?;
            let archive = Archive::open(path)?;
            prepare_archive(
                library,
                request,
                recipes,
                archive,
                survey.tree,
                survey.kernel,
            )
        }
        Source::StandardInput if request.needs_scratch() => {
            unpacked_and_changed(request, recipes, Archive::stdin()?)
        }
        Source::StandardInput => {
            let kernel = wanted_kernel(request.kernel.as_deref())?;
            let kernel = kernel.context("the kernel is not known")?;
            let archive = Archive::stdin()?;
            prepare_archive(
                library,
                request,
                recipes,
                archive,
                Measure::default(),
                kernel,
            )
        }
    }
}

fn unpacked_and_changed<'r>(
    request: &BuildRequest,
    recipes: &'r Recipes,
    archive: Archive,
) -> Result<Prepared<'r>> {
    let recipe = match &request.recipe {
        Some(name) => recipes.named(name)?,
        // What an archive holds is seen too late to choose by it.
        None => recipes.for_tree(None)?,
    };
    let known = Known {
        packages: request.packages.clone(),
        ..Known::default()
    };
    let source = Step::Unpack {
        source: request.source.to_string(),
        holds: None,
    };
    let steps = changed_steps(request, recipe, &known, Some(source), Vec::new())?;
    prepared_later(request, recipe, steps, Some(Input::Archive(archive)))
}

/// A tree that is changed is made on a scratch file system: only what comes out of it tells how large
/// its disk must be, and for which kernel.
fn changed_steps(
    request: &BuildRequest,
    recipe: &Recipe,
    known: &Known,
    source: Option<Step>,
    bootstrap: Vec<Action>,
) -> Result<Vec<Step>> {
    let sections = Sections::new(recipe, known);
    let mut inside: Vec<Action> = Vec::new();
    if request.recipe.is_some() || matches!(request.source, Source::Distribution { .. }) {
        inside.extend(sections.actions("prepare")?);
    }
    if !request.packages.is_empty() {
        inside.extend(sections.needed("install")?);
    }
    inside.extend(request.custom.actions()?);
    if request.recipe.is_some()
        || !request.packages.is_empty()
        || matches!(request.source, Source::Distribution { .. })
    {
        inside.extend(sections.actions("initramfs")?);
        inside.extend(sections.actions("clean")?);
    }
    let mut steps = vec![Step::CreateScratch];
    steps.extend(source);
    steps.extend(in_order(bootstrap, inside));
    if request.scrub == Scrub::ByRecipe {
        let scrubs = sections.actions("scrub")?;
        steps.extend(scrubs.into_iter().map(|action| Step::Scrub { action }));
    }
    Ok(steps)
}

fn prepared_later<'r>(
    request: &BuildRequest,
    recipe: &'r Recipe,
    mut steps: Vec<Step>,
    input: Option<Input>,
) -> Result<Prepared<'r>> {
    match request.filesystem.is_writable() {
        true => {
            steps.push(Step::CreateDisk { size: None });
            steps.extend(disk_steps(request, None, Step::CopyScratch));
        }
        false => steps.extend(packing_steps(request, None, None, None)),
    }
    Ok(Prepared {
        plan: Plan {
            image: request.image.to_string(),
            steps,
            warnings: differs(request, &request.excludes).into_iter().collect(),
        },
        input,
        excludes: request.excludes.clone(),
        tree: Measure::default(),
        kernel: wanted_kernel(request.kernel.as_deref())?,
        checked: None,
        recipe,
    })
}

fn prepare_tree<'r>(
    mounts: &PrivateMounts,
    library: &Library,
    request: &BuildRequest,
    recipes: &'r Recipes,
    dir: &Path,
    cancel: &Cancel,
) -> Result<Prepared<'r>> {
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
    let distribution = facts::distribution(&root)?;
    let recipe = match &request.recipe {
        Some(name) => recipes.named(name)?,
        None => recipes.for_tree(distribution.as_ref())?,
    };
    if request.is_changed() {
        let known = Known {
            packages: request.packages.clone(),
            distribution: distribution.map(|found| found.id),
            ..Known::default()
        };
        let tree = measure(&root, &excludes, cancel)?;
        let source = copy_step(&dir, &tree);
        let steps = changed_steps(request, recipe, &known, Some(source), Vec::new())?;
        let mut prepared = prepared_later(request, recipe, steps, Some(Input::Tree(root)))?;
        prepared.plan.warnings.extend(warnings);
        prepared.excludes = excludes;
        return Ok(prepared);
    }
    let places = recipe.places();
    let release = kernel::release(&root, request.kernel.as_deref(), places)
        .with_context(|| format!("looking for a kernel in {}", dir.display()))?;
    request.filesystem.ensure_kernel(&release)?;
    let files = kernel::boot_files(&root, release, places)?;
    let (checked, tree) = judge_and_measure(request, &root, &files, &excludes, cancel)?;
    let size = disk_size(library, request, &tree)?;
    warnings.extend(differs(request, &excludes));
    warnings.extend(checked.warnings.iter().cloned());
    let way = library.way_of_image(&request.image)?;
    warnings.extend(caution_of_way(&request.image, way, checked.facts.kind));
    let plan = match request.packs(&excludes) {
        true => packing(request, size, &files.release, &dir, warnings),
        false => plan(
            request,
            size,
            &files.release,
            copy_step(&dir, &tree),
            warnings,
        ),
    };
    Ok(Prepared {
        plan,
        input: Some(Input::Tree(root)),
        excludes,
        tree,
        kernel: Some(files.release),
        checked: Some(Checked {
            warnings: Vec::new(),
            ..checked
        }),
        recipe,
    })
}

fn copy_step(dir: &Path, tree: &Measure) -> Step {
    Step::CopyTree {
        source: dir.display().to_string(),
        entries: tree.entries,
        bytes: tree.data,
    }
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
        let shown = Shown::Directory(root.path().to_owned());
        let judged =
            scope.spawn(move || judge(request.check, root, &shown, files, request.filesystem));
        let tree = measure(root, excludes, cancel);
        let checked = match judged.join() {
            Ok(checked) => checked?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((checked, tree?))
    })
}

fn prepare_archive<'r>(
    library: &Library,
    request: &BuildRequest,
    recipes: &'r Recipes,
    archive: Archive,
    tree: Measure,
    kernel: KernelRelease,
) -> Result<Prepared<'r>> {
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
        input: Some(Input::Archive(archive)),
        excludes: request.excludes.clone(),
        tree,
        kernel: Some(kernel),
        checked: None,
        recipe: recipes.for_tree(None)?,
    })
}

/// The size of the disk, if the tree fits on it and the library has room for the tree.
fn disk_size(library: &Library, request: &BuildRequest, tree: &Measure) -> Result<u64> {
    let size = request.filesystem.disk_size(request.size, tree);
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
    let mut steps = vec![Step::CreateDisk { size: Some(size) }];
    steps.extend(disk_steps(request, Some(kernel), source));
    Plan {
        image: request.image.to_string(),
        steps,
        warnings,
    }
}

/// From an empty disk to a version.
fn disk_steps(request: &BuildRequest, kernel: Option<&KernelRelease>, source: Step) -> [Step; 7] {
    [
        Step::MakeFileSystem {
            filesystem: request.filesystem.name(),
            kernel: kernel.map(KernelRelease::to_string),
        },
        Step::Mount,
        source,
        Step::TakeBootFiles {
            check: request.check,
        },
        Step::Unmount,
        Step::Check,
        Step::Seal,
    ]
}
