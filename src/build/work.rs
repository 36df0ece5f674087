//! Doing what a plan says.
//!
//! Whatever is made on the way is held by a guard here: a step that fails, a request to stop and a
//! panic all leave nothing. What a killed process leaves (a draft that nobody holds) is removed by
//! the next command; mounts and loop devices are gone with its namespace.
//!
//! `checks` (before and between the changes), `scratch` and `disk` (file systems), `boot` (what is
//! taken out), `kept` (a draft that failed).

mod boot;
mod checks;
mod disk;
mod kept;
mod scratch;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::adopt::Foreign;
use super::filesystem::{FileSystem, SourceDate};
use super::initramfs::Checked;
use super::inside::Inside;
use super::plan::{Plan, Step};
use super::promote::Asked;
use super::recipe::{PackageList, Places, Recipe, Recipes};
use super::source::Input;
use super::tree::{Measure, Root, copy, written_back};
use super::version::KernelRelease;
use super::watch::{Phase, Timed, Watch};
use super::{Excludes, InitramfsCheck, SizeSpec, facts};
use crate::exec::{Cancel, Mount, PrivateMounts, Program};
use crate::library::manifest::Distribution;
use crate::library::{
    Draft, Error, Library, Progress, Usage, Version, VersionFacts, VersionId, Way,
};

pub(super) use boot::judge;

/// What came out of a build.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// The new version, such as `fc28@1`.
    pub version: VersionId,
    /// What it takes, and what of that it shares with nobody.
    pub usage: Usage,
    /// What may hinder a client.
    pub warnings: Vec<String>,
    /// How long each part took.
    pub phases: Vec<Phase>,
}

/// What becomes of a draft that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// It is removed.
    #[default]
    Nothing,
    /// It stays, for a person to look into.
    Failed,
}

/// Where the mount point of a draft is, beside its disk.
const MOUNT_POINT: &str = "root";

/// A version on its way. The order of the first fields is the order in which they are given up.
pub(super) struct Work<'a> {
    inside: Option<Inside<'a>>,
    mounted: Option<Mount>,
    scratch: Option<Mount>,
    pub(super) draft: Option<Draft<'a>>,
    pub(super) mounts: &'a PrivateMounts,
    pub(super) filesystem: FileSystem,
    /// The date that the build claims.
    pub(super) date: Option<SourceDate>,
    /// The size of the disk, where it waits for the tree.
    pub(super) size: Option<SizeSpec>,
    pub(super) kernel: Option<KernelRelease>,
    /// Where kernel and initramfs may be, besides the usual places.
    pub(super) places: Places,
    pub(super) packages: PackageList,
    /// What is copied or unpacked.
    pub(super) input: Option<Input>,
    /// What of it is left out. That is done once, on the first way from there: what later steps make
    /// by the same name stays.
    pub(super) excludes: Excludes,
    pub(super) tree: Measure,
    /// The version that is copied.
    pub(super) parent: Option<Version>,
    /// The disk that is taken over.
    pub(super) foreign: Option<Foreign<'a>>,
    /// The version that a client's disk was made from.
    pub(super) promoted: Option<Version>,
    /// Who is asked before it is sealed.
    pub(super) asked: Option<&'a dyn Asked>,
    /// Recipes to choose from once it is seen what is on it, and the one that was chosen.
    pub(super) recipes: Option<&'a Recipes>,
    pub(super) recipe: Option<&'a Recipe>,
    /// What the tree was before anything in it was changed.
    pub(super) before: Option<Distribution>,
    pub(super) check: InitramfsCheck,
    /// The verdict on the initramfs, where it was read before anything was written.
    pub(super) checked: Option<Checked>,
    pub(super) keep: Keep,
    pub(super) facts: VersionFacts,
    warnings: Vec<String>,
    /// There is nothing in it that its parent has not.
    idle: bool,
    sealed: Option<Version>,
    pub(super) cancel: &'a Cancel,
    pub(super) watch: &'a Timed<'a>,
}

impl<'a> Work<'a> {
    /// Nothing done yet.
    pub(super) fn new(
        mounts: &'a PrivateMounts,
        filesystem: FileSystem,
        facts: VersionFacts,
        cancel: &'a Cancel,
        watch: &'a Timed<'a>,
    ) -> Self {
        Self {
            inside: None,
            mounted: None,
            scratch: None,
            draft: None,
            mounts,
            filesystem,
            date: None,
            size: None,
            kernel: None,
            places: Places::default(),
            packages: PackageList::default(),
            input: None,
            excludes: Excludes::default(),
            tree: Measure::default(),
            parent: None,
            foreign: None,
            promoted: None,
            asked: None,
            recipes: None,
            recipe: None,
            before: None,
            check: InitramfsCheck::default(),
            checked: None,
            keep: Keep::default(),
            facts,
            warnings: Vec::new(),
            idle: false,
            sealed: None,
            cancel,
            watch,
        }
    }

    /// Does all steps of `plan` for `library`.
    pub(super) fn perform(self, plan: &Plan, library: &'a Library) -> Result<Built> {
        let built = self.perform_if_news(plan, library)?;
        built.context("the plan does not seal anything")
    }

    /// The same, where it may turn out that there is nothing to seal.
    pub(super) fn perform_if_news(
        mut self,
        plan: &Plan,
        library: &'a Library,
    ) -> Result<Option<Built>> {
        self.do_all(plan, library)?;
        let Some(version) = self.sealed else {
            return Ok(None);
        };
        Ok(Some(Built {
            version: version.id().clone(),
            usage: library.usage(version.id())?,
            warnings: self.warnings,
            phases: self.watch.phases(),
        }))
    }

    /// Does all steps of a `plan` that seals nothing, and leaves nothing.
    pub(super) fn try_out(mut self, plan: &Plan, library: &'a Library) -> Result<()> {
        self.do_all(plan, library)
    }

    fn do_all(&mut self, plan: &Plan, library: &'a Library) -> Result<()> {
        let image = plan.image.parse()?;
        self.warn(plan.warnings.iter().cloned());
        let mut draft = library.draft(&image)?;
        // What is made of another image's version begins an image: asked before, and true at the end.
        let parent = self.facts.parent.as_ref();
        if parent.is_some_and(|parent| parent.image != image) {
            draft.only_as_first();
        }
        self.draft = Some(draft);
        let done = self.all(&plan.steps);
        if done.is_err() && self.keep == Keep::Failed {
            self.keep_draft();
        }
        done
    }

    fn all(&mut self, steps: &[Step]) -> Result<()> {
        for (at, step) in steps.iter().enumerate() {
            self.cancel.check()?;
            stop_here(at);
            self.step(step)?;
            if self.idle {
                break;
            }
        }
        stop_here(steps.len());
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::CreateScratch => self.create_scratch(),
            Step::CreateDisk { size } => self.create_disk(*size),
            Step::Inherit { way, .. } => self.inherit(*way),
            Step::Verify { .. } => self.verify_parent(),
            Step::EnsureRoom { percent } => self.ensure_room(*percent),
            Step::EnsureNews => self.ensure_news(),
            Step::EnsureUpgraded => self.ensure_upgraded(),
            Step::CopyVersion { .. } => self.copy_version(),
            Step::Identify => self.identify(),
            Step::ReadDisk { .. } | Step::CopyClone { .. } => self.take_over(),
            Step::KeepPartitions { .. } => self.keep_partitions(),
            Step::Settle { .. } => self.settle(),
            Step::Agree { version } => self.agree(version),
            Step::Recognize => self.recognize(),
            Step::ScrubRecognized => self.scrub_recognized(),
            Step::Enlarge { size } => self.enlarge(*size),
            Step::MakeFileSystem { .. } => self.make_file_system(),
            Step::Mount => self.mount(),
            Step::Grow => {
                self.watch.step("growing the file system", None);
                self.filesystem.grow(self.mount_point()?, self.cancel)
            }
            Step::CopyTree { source, bytes, .. } => self.copy_tree(source, *bytes),
            Step::View { .. } => self.view(),
            Step::Pack { size, .. } => self.pack(*size),
            Step::Unpack { source, .. } => self.unpack(source),
            Step::CopyScratch => self.copy_scratch(),
            Step::Enter => self.enter(),
            Step::Apply { action } => self.apply(action),
            Step::Leave => self.leave(),
            Step::Scrub { action } => self.scrub(action),
            Step::Trim => self.trim(),
            Step::TakeBootFiles { .. } => self.take_boot_files(),
            Step::Unmount => self.unmount(),
            Step::Check => {
                self.watch.step("checking the file system", None);
                let disk = self.draft()?.disk_path();
                self.filesystem.check(&disk, self.cancel)
            }
            Step::Seal => self.seal(),
        }
    }

    /// Tells a person now, and the caller at the end.
    pub(super) fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.watch.warn(&warning);
            self.warnings.push(warning);
        }
    }

    /// The same, unless its plan has told it.
    pub(super) fn warn_once(&mut self, warning: Option<String>) {
        let is_news = |warning: &String| !self.warnings.contains(warning);
        let news = warning.filter(is_news);
        self.warn(news);
    }

    pub(super) fn draft(&self) -> Result<&Draft<'a>> {
        self.draft.as_ref().context("the version is sealed already")
    }

    fn mount_point(&self) -> Result<&Path> {
        let mounted = self.mounted.as_ref().context("the disk is not mounted")?;
        Ok(mounted.path())
    }

    /// The tree that is being made: on its disk, or on the scratch file system before that.
    pub(super) fn tree_path(&self) -> Result<&Path> {
        let mounted = self.mounted.as_ref().or(self.scratch.as_ref());
        Ok(mounted.context("nothing is mounted")?.path())
    }

    pub(super) fn is_mounted(&self) -> bool {
        self.mounted.is_some()
    }

    pub(super) fn scratch(&self) -> Result<&Mount> {
        self.scratch
            .as_ref()
            .context("there is no scratch file system")
    }

    pub(super) fn inside(&mut self) -> Result<&mut Inside<'a>> {
        self.inside.as_mut().context("nobody is in the image")
    }

    /// What the image is called that is being made or changed.
    pub(super) fn image_name(&self) -> Result<String> {
        let from = self
            .parent
            .as_ref()
            .map(|parent| parent.id().image.to_string());
        Ok(from.unwrap_or(self.draft()?.image().to_string()))
    }

    fn create_disk(&mut self, size: Option<u64>) -> Result<()> {
        self.watch.step("creating the disk", None);
        let size = match size {
            Some(size) => size,
            None => {
                self.survey()?;
                let size = self.filesystem.disk_size(self.size, &self.tree);
                self.filesystem.ensure_fit(size, &self.tree)?;
                size
            }
        };
        Ok(self.draft()?.create_sparse(size)?)
    }

    fn inherit(&mut self, way: Way) -> Result<()> {
        let draft = self.draft.as_mut().context("the version is sealed")?;
        draft.begin_with(way);
        Ok(())
    }

    pub(super) fn enter(&mut self) -> Result<()> {
        let path = self.tree_path()?.to_owned();
        // It may be entered again after that has changed.
        if self.before.is_none() {
            self.before = facts::distribution(&Root::open(&path)?)?;
        }
        self.inside = Some(Inside::enter(self.mounts, &path)?);
        Ok(())
    }

    pub(super) fn leave(&mut self) -> Result<()> {
        match self.inside.take() {
            Some(inside) => inside.leave(),
            None => Ok(()),
        }
    }

    fn trim(&mut self) -> Result<()> {
        self.watch.step("giving back free blocks", None);
        let fstrim = Program::new("fstrim").arg(self.mount_point()?);
        fstrim.cancel(self.cancel).run()?;
        Ok(())
    }

    fn copy_version(&mut self) -> Result<()> {
        let parent = self
            .parent
            .as_ref()
            .context("there is no version to copy")?;
        self.draft()?.copy_from(parent, self.watch)?;
        Ok(())
    }

    fn enlarge(&mut self, size: u64) -> Result<()> {
        let disk = self.draft()?.disk_path();
        fs::OpenOptions::new()
            .write(true)
            .open(&disk)
            .and_then(|file| file.set_len(size))
            .with_context(|| format!("enlarging {}", disk.display()))
    }

    fn mount(&mut self) -> Result<()> {
        self.watch.step("mounting", None);
        let (disk, point) = (self.draft()?.disk_path(), self.new_mount_point()?);
        let (name, options) = (self.filesystem.name(), self.filesystem.draft_options());
        // Programs of it are run where it is changed, and never where it is only filled.
        let mounted = if self.parent.is_some() {
            self.mounts
                .executable_image(&disk, name, options, &point, self.cancel)
        } else {
            self.mounts.image(&disk, name, options, &point, self.cancel)
        };
        self.mounted = Some(mounted.context("mounting the draft")?);
        Ok(())
    }

    fn new_mount_point(&self) -> Result<PathBuf> {
        let point = beside(&self.draft()?.disk_path());
        if !point.exists() {
            fs::create_dir(&point).with_context(|| format!("creating {}", point.display()))?;
        }
        Ok(point)
    }

    fn copy_tree(&mut self, source: &str, bytes: u64) -> Result<()> {
        self.watch.step(&format!("copying {source}"), Some(bytes));
        let Some(Input::Tree(from)) = &self.input else {
            bail!("there is no tree to copy");
        };
        let target = Root::open(self.tree_path()?)?;
        let copied = written_back(target.dir(), |written| {
            let done = |bytes| {
                written(bytes);
                self.watch.advance(bytes);
            };
            copy(from, &target, &self.excludes, self.cancel, &done)
        });
        copied.with_context(|| format!("copying the tree {source}"))?;
        self.excludes = Excludes::default();
        Ok(())
    }

    fn unpack(&mut self, source: &str) -> Result<()> {
        let Some(Input::Archive(archive)) = self.input.take() else {
            bail!("there is no archive to unpack");
        };
        let total = archive.packed_size();
        self.watch.step(&format!("unpacking {source}"), total);
        let target = Root::open(self.tree_path()?)?;
        let unpacked = written_back(target.dir(), |written| {
            let done = |bytes| {
                written(bytes);
                self.watch.advance(bytes);
            };
            archive.unpack(&target, &self.excludes, self.cancel, &done)
        });
        unpacked.with_context(|| format!("unpacking {source}"))?;
        self.excludes = Excludes::default();
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        self.watch.step("unmounting", None);
        let mounted = self.mounted.take().context("the disk is not mounted")?;
        let point = mounted.path().to_owned();
        mounted.unmount()?;
        fs::remove_dir(&point).with_context(|| format!("removing {}", point.display()))?;
        // It was still needed where the tree was packed from there.
        self.give_up_scratch()
    }

    fn seal(&mut self) -> Result<()> {
        self.watch.step("syncing", None);
        let draft = self.draft.take().context("the version is sealed already")?;
        let facts = std::mem::take(&mut self.facts);
        let library = draft.library();
        let version = draft.seal(facts, self.watch)?;
        let id = version.id().clone();
        if library.image(&id.image)?.current != Some(id.number) {
            let why = match library.plan_rollback(&id.clone().into()) {
                Err(Error::Refused { why, instead, .. }) => format!("{why}; {instead}"),
                _ => format!(
                    "another version of {} became current while it was made; `netroot image rollback {id}` \
                     gives it to clients",
                    id.image
                ),
            };
            self.warn([format!("{id} is sealed, and not current: {why}")]);
        }
        self.sealed = Some(version);
        Ok(())
    }
}

pub(super) fn beside(disk: &std::path::Path) -> PathBuf {
    disk.with_file_name(MOUNT_POINT)
}

/// Lets a test kill this process before a step, in builds for tests only.
fn stop_here(step: usize) {
    if cfg!(debug_assertions)
        && let Ok(wanted) = std::env::var("NETROOT_TEST_KILL_BEFORE_STEP")
        && wanted == step.to_string()
    {
        // There is nothing to do about a signal that cannot be sent to oneself.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
