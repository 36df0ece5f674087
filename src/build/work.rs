//! Doing what a plan says.
//!
//! Whatever is made on the way is held by a guard here: a step that fails, a request to stop and a
//! panic all leave nothing. What a killed process leaves (a draft that nobody holds) is removed by
//! the next command; mounts and loop devices are gone with its namespace.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::filesystem::{FileSystem, LABEL, Made, SourceDate, Wanted, identifier};
use super::initramfs::{self, Checked};
use super::plan::{Plan, Step};
use super::script::Script;
use super::source::Input;
use super::tree::{Measure, Root, copy, measure, written_back};
use super::version::KernelRelease;
use super::watch::{Phase, Timed, Watch};
use super::{Excludes, InitramfsCheck, facts, kernel, reconnect};
use crate::exec::{Cancel, Mount, PrivateMounts};
use crate::library::manifest::{FileSystemFacts, TreeFacts};
use crate::library::{Draft, Library, Progress, Version, VersionFacts, VersionId};

/// What came out of a build.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// The new version, such as `fc28@1`.
    pub version: VersionId,
    /// What may hinder a client.
    pub warnings: Vec<String>,
    /// How long each part took.
    pub phases: Vec<Phase>,
}

/// Where the mount point of a draft is, beside its disk.
const MOUNT_POINT: &str = "root";

/// A version on its way. The order of the fields is the order in which they are given up.
pub(super) struct Work<'a> {
    pub(super) mounts: &'a PrivateMounts,
    pub(super) mounted: Option<Mount>,
    pub(super) draft: Option<Draft<'a>>,
    pub(super) filesystem: FileSystem,
    /// The date that the build claims.
    pub(super) date: Option<SourceDate>,
    pub(super) kernel: Option<KernelRelease>,
    /// What is copied or unpacked.
    pub(super) input: Option<Input>,
    pub(super) excludes: Excludes,
    pub(super) tree: Measure,
    /// The version that is copied.
    pub(super) parent: Option<Version>,
    pub(super) script: Option<Script>,
    pub(super) check: InitramfsCheck,
    /// The verdict on the initramfs, where it was read before anything was written.
    pub(super) checked: Option<Checked>,
    pub(super) facts: VersionFacts,
    pub(super) warnings: Vec<String>,
    pub(super) sealed: Option<Version>,
    pub(super) cancel: &'a Cancel,
    pub(super) watch: &'a Timed<'a>,
}

impl<'a> Work<'a> {
    /// Does all steps of `plan` for `library`.
    pub(super) fn perform(mut self, plan: &Plan, library: &'a Library) -> Result<Built> {
        let image = plan.image.parse()?;
        self.warn(plan.warnings.iter().cloned());
        self.draft = Some(library.draft(&image)?);
        for (at, step) in plan.steps.iter().enumerate() {
            self.cancel.check()?;
            stop_here(at);
            self.step(step)?;
        }
        stop_here(plan.steps.len());
        let version = self.sealed.context("the plan does not seal anything")?;
        Ok(Built {
            version: version.id().clone(),
            warnings: self.warnings,
            phases: self.watch.phases(),
        })
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::CreateDisk { size } => {
                self.watch.step("creating the disk", None);
                Ok(self.draft()?.create_sparse(*size)?)
            }
            Step::CopyVersion { .. } => self.copy_version(),
            Step::Identify => self.identify(),
            Step::Enlarge { size } => self.enlarge(*size),
            Step::MakeFileSystem { .. } => self.make_file_system(),
            Step::Mount => self.mount(),
            Step::Grow => {
                self.watch.step("growing the file system", None);
                self.filesystem.grow(self.mount_point()?, self.cancel)
            }
            Step::CopyTree { source, bytes, .. } => self.copy_tree(source, *bytes),
            Step::View { source } => self.view(source),
            Step::Pack { size, .. } => self.pack(*size),
            Step::Unpack { source, .. } => self.unpack(source),
            Step::Run { command } => self.run(command),
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
    fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.watch.warn(&warning);
            self.warnings.push(warning);
        }
    }

    fn draft(&self) -> Result<&Draft<'a>> {
        self.draft.as_ref().context("the version is sealed already")
    }

    fn mount_point(&self) -> Result<&std::path::Path> {
        let mounted = self.mounted.as_ref().context("the disk is not mounted")?;
        Ok(mounted.path())
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

    fn make_file_system(&mut self) -> Result<()> {
        self.watch.step("making the file system", None);
        let kernel = self.kernel.as_ref().context("the kernel is not known")?;
        let wanted = Wanted {
            kernel,
            tree: &self.tree,
            uuid: &identifier(self.draft()?.image().as_str(), None)?,
        };
        let disk = self.draft()?.disk_path();
        let made = self.filesystem.make(&disk, wanted, self.cancel)?;
        self.note(made);
        Ok(())
    }

    /// Writes down what file system was made.
    fn note(&mut self, made: Made) {
        self.facts.filesystem = FileSystemFacts {
            kind: self.filesystem.name().to_owned(),
            label: LABEL.to_owned(),
            uuid: Some(made.uuid),
            features: made.features,
        };
    }

    fn identify(&mut self) -> Result<()> {
        self.watch.step("giving the copy an identifier", None);
        let parent = self.parent.as_ref().context("there is no version")?;
        let kernel = &parent.manifest().facts.kernel_version;
        let kernel = KernelRelease::parse(kernel)
            .with_context(|| format!("`{kernel}` of {} is not a kernel", parent.id()))?;
        let disk = self.draft()?.disk_path();
        let own = self.filesystem.identify(&disk, &kernel, self.cancel)?;
        if own.is_some() {
            self.facts.filesystem.uuid = own;
        }
        Ok(())
    }

    fn mount(&mut self) -> Result<()> {
        self.watch.step("mounting", None);
        let (disk, point) = (self.draft()?.disk_path(), self.new_mount_point()?);
        let (name, options) = (self.filesystem.name(), self.filesystem.draft_options());
        let mounted = if self.script.is_some() {
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

    /// Mounts the source where the disk would be: from here on it is the tree of the image.
    fn view(&mut self, source: &str) -> Result<()> {
        self.watch.step(&format!("mounting {source}"), None);
        let point = self.new_mount_point()?;
        let Some(Input::Tree(tree)) = &self.input else {
            bail!("there is no tree to look at");
        };
        self.mounted = Some(self.mounts.view_on(tree.path(), &point)?);
        Ok(())
    }

    fn pack(&mut self, size: Option<u64>) -> Result<()> {
        self.watch.step("packing the tree", None);
        let tree = Root::open(self.mount_point()?)?;
        let (filesystem, date) = (self.filesystem, self.date);
        let draft = self.draft()?;
        draft.create_sparse(size.unwrap_or(0))?;
        let wanted = Wanted {
            kernel: self.kernel.as_ref().context("the kernel is not known")?,
            tree: &self.tree,
            uuid: &identifier(draft.image().as_str(), date)?,
        };
        let disk = draft.disk_path();
        let made = filesystem.pack(&disk, wanted, &tree, &self.excludes, date, self.cancel)?;
        self.note(made);
        Ok(())
    }

    fn copy_tree(&mut self, source: &str, bytes: u64) -> Result<()> {
        self.watch.step(&format!("copying {source}"), Some(bytes));
        let Some(Input::Tree(from)) = &self.input else {
            bail!("there is no tree to copy");
        };
        let target = Root::open(self.mount_point()?)?;
        let copied = written_back(target.dir(), |written| {
            let done = |bytes| {
                written(bytes);
                self.watch.advance(bytes);
            };
            copy(from, &target, &self.excludes, self.cancel, &done)
        });
        copied.with_context(|| format!("copying the tree {source}"))
    }

    fn unpack(&mut self, source: &str) -> Result<()> {
        let Some(Input::Archive(archive)) = self.input.take() else {
            bail!("there is no archive to unpack");
        };
        let total = archive.packed_size();
        self.watch.step(&format!("unpacking {source}"), total);
        let target = Root::open(self.mount_point()?)?;
        let unpacked = written_back(target.dir(), |written| {
            let done = |bytes| {
                written(bytes);
                self.watch.advance(bytes);
            };
            archive.unpack(&target, &self.excludes, self.cancel, &done)
        });
        unpacked.with_context(|| format!("unpacking {source}"))
    }

    fn run(&mut self, command: &str) -> Result<()> {
        self.watch.step(&format!("running {command}"), None);
        let root = self.mount_point()?;
        let script = self.script.as_ref().context("there is nothing to run")?;
        script
            .run(self.mounts, root, self.cancel, self.watch)
            .with_context(|| format!("running {command} in the image"))?;
        if script.forget_history(root)? {
            self.facts
                .scrubbed
                .push(String::from("/root/.bash_history"));
        }
        Ok(())
    }

    /// Kernel and initramfs go beside the disk; the rest of what the manifest tells is written down.
    fn take_boot_files(&mut self) -> Result<()> {
        self.watch.step("taking out kernel and initramfs", None);
        let path = self.mount_point()?.to_owned();
        let root = Root::open(&path)?;
        let release = match &self.kernel {
            Some(release) if self.script.is_none() => release.clone(),
            wanted => kernel::release(&root, wanted.as_ref().map(KernelRelease::as_str))?,
        };
        let mut files = kernel::boot_files(&root, release)?;
        let checked = match self.checked.take() {
            Some(checked) => checked,
            None => judge(self.check, &root, &files, self.filesystem)?,
        };
        self.facts.kernel_version = files.release.to_string();
        self.facts.early = checked.facts;
        self.warn(checked.warnings);
        let draft = self.draft.as_mut().context("the version is sealed")?;
        draft.add_kernel(&mut files.kernel.file)?;
        draft.add_initramfs(&mut files.initramfs.file)?;
        self.facts.distribution = facts::distribution(&root)?;
        self.facts.packages = facts::packages(&root, &path, self.cancel)?;
        if self.tree == Measure::default() {
            self.tree = measure(&root, &Excludes::default(), self.cancel)?;
        }
        self.facts.tree = TreeFacts {
            bytes: self.tree.allocated,
            entries: self.tree.entries,
        };
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        self.watch.step("unmounting", None);
        let mounted = self.mounted.take().context("the disk is not mounted")?;
        let point = mounted.path().to_owned();
        mounted.unmount()?;
        fs::remove_dir(&point).with_context(|| format!("removing {}", point.display()))
    }

    fn seal(&mut self) -> Result<()> {
        self.watch.step("syncing", None);
        let draft = self.draft.take().context("the version is sealed already")?;
        let facts = std::mem::take(&mut self.facts);
        self.sealed = Some(draft.seal(facts, self.watch)?);
        Ok(())
    }
}

/// Reads the initramfs in `files` and decides about it.
pub(super) fn judge(
    check: InitramfsCheck,
    root: &Root,
    files: &kernel::BootFiles,
    filesystem: FileSystem,
) -> Result<Checked> {
    let path = &files.initramfs.path;
    let stream = root
        .file(path)?
        .with_context(|| format!("{path} is gone"))?;
    let mut checked = match check {
        InitramfsCheck::Refuse => initramfs::check(stream, &files.release, filesystem.name())
            .with_context(|| {
                let tree = root.path().display();
                format!("the initramfs {path} of {tree} is refused")
            })?,
        InitramfsCheck::Skip => Checked {
            // An initramfs that cannot even be read is of unknown kind, which is all that is told.
            facts: initramfs::look(stream).unwrap_or_else(|_| initramfs::unknown()),
            warnings: vec![String::from("the initramfs was not checked, as asked")],
        },
    };
    let more = reconnect::warnings(root, checked.facts.kind)?;
    checked.warnings.extend(more);
    Ok(checked)
}

fn beside(disk: &std::path::Path) -> PathBuf {
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
