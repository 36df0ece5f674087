//! `image upgrade`, `update`, `exec` and `shell`: a version from another one, changed in a copy.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, statfs};

use super::plan::{Plan, Step};
use super::recipe::{Action, Deed, Recipe, Recipes};
use super::script::Script;
use super::sections::{Known, Sections, in_order};
use super::size::human;
use super::watch::{Timed, Watch};
use super::work::{Built, Keep, Work};
use super::{FileSystem, InitramfsCheck, Scrub, SizeSpec};
use crate::exec::{Cancel, in_private_mounts};
use crate::library::manifest::BootFrom;
use crate::library::{ImageName, Library, Version, VersionFacts, VersionSpec};

/// File systems on which copies of files share their blocks.
const CAN_SHARE: &[FsType] = &[XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];

/// What is to be changed.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    /// The version that is copied; the current one if it names an image only.
    pub from: VersionSpec,
    /// The image that gets the new version: the same one, or another.
    pub to: ImageName,
    /// What is done in the copy, in this order.
    pub changes: Vec<Change>,
    /// Whose steps they are; by what the version was made with, or by its distribution, if not given.
    pub recipe: Option<String>,
    /// The size of its disk, at least that of the version; a multiple is one of the version's.
    pub size: Option<SizeSpec>,
    /// The release of its kernel; the newest in the tree if not given.
    pub kernel: Option<String>,
    /// What to do about an initramfs that cannot boot over iSCSI.
    pub check: InitramfsCheck,
    /// Whether what no two clients should share is taken out.
    pub scrub: Scrub,
    /// What becomes of a draft that failed.
    pub keep: Keep,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The recipe's upgrade to another release of the distribution.
    Upgrade {
        /// The release, as the distribution or its recipe calls it.
        release: String,
    },
    /// The recipe's update within the release.
    Update,
    /// A script or a command.
    Script(Script),
    /// What a person does in a shell.
    Shell,
}

impl ChangeRequest {
    /// A change of `from` for `to`, with nothing special about it.
    pub fn new(from: VersionSpec, to: ImageName, changes: Vec<Change>) -> Self {
        Self {
            from,
            to,
            changes,
            recipe: None,
            size: None,
            kernel: None,
            check: InitramfsCheck::default(),
            scrub: Scrub::default(),
            keep: Keep::default(),
        }
    }
}

/// What [`change`] would do. Nothing is touched.
///
/// # Errors
/// When there is no such version, or its disk cannot get that size.
pub fn plan_change(library: &Library, request: &ChangeRequest) -> Result<Plan> {
    planned(library, request, to_keep)
}

/// Copies a version, changes the copy, and seals it as a new version. Nothing comes out of an update
/// that found nothing to do.
///
/// # Errors
/// When a change fails, the result cannot boot, somebody asks to stop: then there is no new
/// version, and nothing is left of it.
pub fn change(
    library: &Library,
    request: &ChangeRequest,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Option<Built>> {
    with_work(library, request, to_keep, cancel, watch, &|work, plan| {
        work.perform_if_news(plan, library)
    })
}

/// Copies a version, changes the copy, and throws it away.
///
/// # Errors
/// As [`change`].
pub fn try_change(
    library: &Library,
    request: &ChangeRequest,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<()> {
    with_work(library, request, to_drop, cancel, watch, &|work, plan| {
        work.try_out(plan, library)
    })
}

/// What [`try_change`] would do. Nothing is touched.
///
/// # Errors
/// As [`plan_change`].
pub fn plan_try(library: &Library, request: &ChangeRequest) -> Result<Plan> {
    planned(library, request, to_drop)
}

/// What is done with a copy of a parent, by a recipe.
type Planned = fn(&Library, &ChangeRequest, &Version, &Recipe) -> Result<Plan>;

fn planned(library: &Library, request: &ChangeRequest, plan: Planned) -> Result<Plan> {
    let parent = library.resolve(&request.from)?;
    let recipes = Recipes::of(library)?;
    let recipe = recipe(&recipes, request, &parent)?;
    plan(library, request, &parent, recipe)
}

/// The copy becomes a version.
fn to_keep(
    library: &Library,
    request: &ChangeRequest,
    parent: &Version,
    recipe: &Recipe,
) -> Result<Plan> {
    let plan = plan(library, request, parent, recipe)?;
    Ok(plan.goes_by_way_of(library, &request.to, parent)?)
}

/// The copy is changed, and nothing is kept of that.
fn to_drop(
    library: &Library,
    request: &ChangeRequest,
    parent: &Version,
    recipe: &Recipe,
) -> Result<Plan> {
    let mut plan = plan(library, request, parent, recipe)?;
    let sealing = plan.steps.iter().position(|step| *step == Step::Trim);
    plan.steps.truncate(sealing.unwrap_or(plan.steps.len()));
    plan.steps.push(Step::Unmount);
    Ok(plan)
}

fn with_work<T: Send>(
    library: &Library,
    request: &ChangeRequest,
    plan: Planned,
    cancel: &Cancel,
    watch: &dyn Watch,
    act: &(dyn Fn(Work<'_>, &Plan) -> Result<T> + Sync),
) -> Result<T> {
    let parent = library.resolve(&request.from)?;
    let recipes = Recipes::of(library)?;
    let recipe = recipe(&recipes, request, &parent)?;
    let plan = plan(library, request, &parent, recipe)?;
    let told = &parent.manifest().facts;
    let filesystem = filesystem(&parent)?;
    let facts = VersionFacts {
        parent: Some(parent.id().clone()),
        source: described(&request.changes),
        filesystem: told.filesystem.clone(),
        kernel_version: told.kernel_version.clone(),
        recipe: Some(recipe.facts()),
        ..VersionFacts::default()
    };
    let kernel = super::image::wanted_kernel(request.kernel.as_deref())?;
    let timed = Timed::new(watch, cancel, &request.to);
    in_private_mounts(|mounts| {
        let mut work = Work::new(mounts, filesystem, facts, cancel, &timed);
        work.kernel = kernel;
        work.parent = Some(parent);
        work.check = request.check;
        work.places = recipe.places().clone();
        work.packages = recipe.packages();
        work.keep = request.keep;
        act(work, &plan)
    })?
}

fn filesystem(version: &Version) -> Result<FileSystem> {
    let kind = &version.manifest().facts.filesystem.kind;
    let about = || format!("reading what {} is", version.id());
    kind.parse().with_context(about)
}

/// The recipe that changes of `parent` go by.
fn recipe<'a>(
    recipes: &'a Recipes,
    request: &ChangeRequest,
    parent: &Version,
) -> Result<&'a Recipe> {
    if let Some(name) = &request.recipe {
        return recipes.named(name);
    }
    let facts = &parent.manifest().facts;
    match facts
        .recipe
        .as_ref()
        .map(|recipe| recipes.named(&recipe.name))
    {
        Some(Ok(recipe)) => Ok(recipe),
        // It was made by a recipe that is not there any more, or by none.
        _ => recipes.for_tree(facts.distribution.as_ref()),
    }
}

fn plan(
    library: &Library,
    request: &ChangeRequest,
    parent: &Version,
    recipe: &Recipe,
) -> Result<Plan> {
    if let BootFrom::Disk(table) = &parent.manifest().boot {
        bail!(
            "{} boots from its own disk ({table}), and nobody looks into that here: change it on a \
             client of it, and make a version of that by `netroot client promote`",
            parent.id()
        );
    }
    // Within one image this is an update; any other image that is there would get a version that
    // has nothing to do with its own.
    let is_own = request.to == parent.id().image;
    ensure!(
        is_own || library.image(&request.to).is_err(),
        "the image {} exists already: build or upgrade into a new name",
        request.to
    );
    let filesystem = filesystem(parent)?;
    ensure!(
        filesystem.is_writable(),
        "{} is {}, which is read-only: build a new version from its source, or keep the image as \
         xfs and build the read-only one from what comes out",
        parent.id(),
        filesystem.name()
    );
    let version = parent.id().to_string();
    let mut steps = Vec::new();
    if !is_own || request.changes.iter().any(Change::is_by_recipe) {
        steps.push(Step::Verify {
            version: version.clone(),
        });
    }
    steps.push(Step::CopyVersion { version });
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
    let percent = request.changes.iter().map(Change::room).max().unwrap_or(0);
    steps.extend((percent > 0).then_some(Step::EnsureRoom { percent }));
    steps.extend(changing(request, parent, recipe)?);
    if request.scrub == Scrub::ByRecipe {
        let known = Known::default();
        let scrubs = Sections::new(recipe, &known).actions("scrub")?;
        steps.extend(scrubs.into_iter().map(|action| Step::Scrub { action }));
    }
    let check = request.check;
    steps.extend([
        Step::Trim,
        Step::TakeBootFiles { check },
        Step::Unmount,
        Step::Check,
        Step::Seal,
    ]);
    Ok(Plan {
        image: request.to.to_string(),
        steps,
        warnings: cost(library, request, parent)?.into_iter().collect(),
    })
}

/// The steps that change something in the copy.
fn changing(request: &ChangeRequest, parent: &Version, recipe: &Recipe) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut actions = Vec::new();
    let before = parent.manifest().facts.distribution.as_ref();
    let known = Known {
        // What is no release is told when it is needed.
        current: before.and_then(|found| super::apply::current(found).ok()),
        ..Known::default()
    };
    for change in &request.changes {
        match change {
            Change::Upgrade { release } => {
                let known = Known {
                    release: Some(recipe.release(release).to_owned()),
                    ..known.clone()
                };
                ensure_another(parent, release, recipe.release(release))?;
                let sections = Sections::new(recipe, &known);
                actions.extend(sections.needed("upgrade")?);
                steps.extend(in_order(Vec::new(), std::mem::take(&mut actions)));
                steps.push(Step::EnsureUpgraded);
                actions.extend(sections.actions("initramfs")?);
            }
            Change::Update => {
                let sections = Sections::new(recipe, &known);
                actions.extend(sections.needed("update")?);
                // Whatever else was asked for is done in any case.
                if request.changes.len() == 1 && request.size.is_none() {
                    steps.extend(in_order(Vec::new(), std::mem::take(&mut actions)));
                    steps.push(Step::EnsureNews);
                }
                actions.extend(sections.actions("initramfs")?);
            }
            Change::Script(script) => {
                script.ensure_there()?;
                let script = script.clone();
                let say = format!("run `{script}` in it");
                actions.push(Action::new(say, Deed::Script { script }));
            }
            Change::Shell => actions.push(Action::new("open a shell in it", Deed::Shell)),
        }
    }
    // A person's own commands leave package lists and caches, too.
    if request.scrub == Scrub::ByRecipe {
        actions.extend(Sections::new(recipe, &known).actions("clean")?);
    }
    steps.extend(in_order(Vec::new(), actions));
    Ok(steps)
}

/// An upgrade goes to another release. `asked` is what the person calls it, `release` the recipe.
fn ensure_another(parent: &Version, asked: &str, release: &str) -> Result<()> {
    let Some(has) = &parent.manifest().facts.distribution else {
        return Ok(());
    };
    let is = |name: &Option<String>| {
        name.as_deref()
            .is_some_and(|name| [asked, release].contains(&name))
    };
    ensure!(
        !is(&has.release) && !is(&has.codename),
        "{} is {has} already: bring it up to date by `netroot image update {}`, or name another \
         --release",
        parent.id(),
        parent.id().image
    );
    Ok(())
}

impl Change {
    /// Whether the recipe knows what is to be done.
    fn is_by_recipe(&self) -> bool {
        matches!(self, Change::Upgrade { .. } | Change::Update)
    }

    /// What has to be free inside, in hundredths of what is used there: a package manager downloads
    /// everything first and keeps old files until the new ones are in their places. From Debian 12
    /// to 13 a small image needs more than 85 shortly before the end; its update writes some 20
    /// of package lists alone. What a person does needs what it needs.
    pub(super) fn room(&self) -> u64 {
        match self {
            Change::Upgrade { .. } => 100,
            Change::Update => 25,
            Change::Script(_) | Change::Shell => 0,
        }
    }
}

/// What manifests say that a version came from.
fn described(changes: &[Change]) -> String {
    let parts: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Upgrade { release } => format!("upgrade to {release}"),
            Change::Update => String::from("update"),
            Change::Script(script) => script.named(),
            Change::Shell => String::from("shell"),
        })
        .collect();
    parts.join(", ")
}

/// What the copy and its changes cost the library, if it has room for them. What is changed in a copy
/// that shares its blocks takes blocks of its own.
fn cost(library: &Library, request: &ChangeRequest, parent: &Version) -> Result<Option<String>> {
    /// Mounting, checking and sealing write even where little changes.
    const LEAST: u64 = 16 << 20;
    let about = || format!("looking at {}", library.root().display());
    let kind = statfs(library.root()).with_context(about)?;
    let disk = parent.manifest().disk.allocated;
    let shares = CAN_SHARE.contains(&kind.filesystem_type());
    let copy = if shares { 0 } else { disk };
    let percent = request.changes.iter().map(Change::room).max().unwrap_or(0);
    // Kernel and initramfs are taken out beside the disk, and are about what they were.
    let beside = match &parent.manifest().boot {
        BootFrom::Kernel { kernel, initramfs } => kernel.size + initramfs.size,
        BootFrom::Disk(_) => 0,
    };
    let needed = copy + beside + (disk / 100 * percent).max(LEAST);
    let block = u64::try_from(kind.block_size()).unwrap_or(0);
    let free = kind.blocks_available().saturating_mul(block);
    let way_out = match shares {
        true => "make room (`netroot image prune` removes old versions that nobody uses)",
        false => "make room, or move the library to XFS or btrfs, where a copy takes nothing",
    };
    ensure!(
        free > needed,
        "the library {} has {} left, and a changed copy of {} may take {}: {way_out}",
        library.root().display(),
        human(free),
        parent.id(),
        human(needed)
    );
    Ok((!shares).then(|| {
        format!(
            "the library's file system cannot share blocks: the copy of {} takes {}",
            parent.id(),
            human(copy)
        )
    }))
}
