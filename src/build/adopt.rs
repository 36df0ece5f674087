//! Disks that somebody else wrote: taken over, made clean, checked, and told what is on them.
//!
//! Such a disk may come from a machine that was cut off, so its journal may hold changes, and from
//! anybody, so it is checked before the kernel mounts it wherever that can be done.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::FileSystem;
use super::facts;
use super::import::{Container, Content, HEAD, look};
use super::sections::{Known, Sections};
use super::tree::Root;
use super::work::{Work, beside};
use crate::exec::{self, Cancel, PrivateMounts, Program};
use crate::library::manifest::FileSystemFacts;
use crate::library::{HeldClone, Progress};

/// A disk that is taken over.
pub(super) enum Foreign<'a> {
    /// The one in a file.
    File(Container<'a>),
    /// A client's, held until it is copied.
    Clone(Box<HeldClone<'a>>),
}

impl Work<'_> {
    /// Makes the draft's disk a copy of it.
    pub(super) fn take_over(&mut self) -> Result<()> {
        let draft = self.draft()?;
        match self.foreign.as_ref().context("there is no disk to copy")? {
            Foreign::File(container) => {
                container.copy_to(draft, self.cancel, self.watch)?;
                container.ensure_unchanged()?;
            }
            Foreign::Clone(held) => {
                draft.copy_clone(held, self.watch)?;
            }
        }
        // From here on the client may boot.
        self.foreign = None;
        Ok(())
    }

    /// Says that the disk boots by itself.
    pub(super) fn keep_partitions(&mut self) -> Result<()> {
        match self.content()? {
            Content::Table(table) => {
                let draft = self
                    .draft
                    .as_mut()
                    .context("the version is sealed already")?;
                draft.boots_itself(table);
                Ok(())
            }
            Content::FileSystem(_) => bail!("the disk has no partition table any more"),
        }
    }

    /// Replays the journal of the file system on the disk, and checks it.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.watch.step("checking the file system", None);
        let kind = self.filesystem.name();
        match self.content()? {
            Content::FileSystem(found) if found.kind == kind => {
                let features = std::mem::take(&mut self.facts.filesystem.features);
                self.facts.filesystem = FileSystemFacts { features, ..found };
            }
            Content::FileSystem(found) => {
                bail!("the disk has {} on it now, and not {kind}", found.kind)
            }
            Content::Table(table) => bail!("the disk has partitions on it now ({table})"),
        }
        let disk = self.draft()?.disk_path();
        let replayed = replay(self.mounts, self.filesystem, &disk, self.cancel)?;
        self.filesystem.check(&disk, self.cancel)?;
        self.warn(replayed.then(|| {
            String::from(
                "its file system was not unmounted in order: what its journal held was brought to \
                 its place, and what was not written by then is missing",
            )
        }));
        Ok(())
    }

    /// What is on the draft's disk. What was known of it before may not be so any more: a client may
    /// have done anything to its own.
    fn content(&self) -> Result<Content> {
        content_of(&self.draft()?.disk_path())
    }

    /// Chooses the recipe that the tree goes by.
    pub(super) fn recognize(&mut self) -> Result<()> {
        let root = Root::open(self.tree_path()?)?;
        let recipes = self
            .recipes
            .context("there are no recipes to choose from")?;
        let made_by = self.facts.recipe.as_ref();
        let recipe = match made_by.map(|recipe| recipes.named(&recipe.name)) {
            Some(Ok(recipe)) => recipe,
            // It was made by a recipe that is not there any more, or by none.
            _ => recipes.for_tree(facts::distribution(&root)?.as_ref())?,
        };
        self.places = recipe.places().clone();
        self.packages = recipe.packages();
        self.recipe = Some(recipe);
        Ok(())
    }

    /// Takes out what no two clients should share.
    pub(super) fn scrub_recognized(&mut self) -> Result<()> {
        let recipe = self.recipe.context("nobody has seen which recipe it is")?;
        let known = Known::default();
        for action in Sections::new(recipe, &known).actions("scrub")? {
            self.scrub(&action)?;
        }
        Ok(())
    }
}

/// What is on a disk, told from its first bytes.
pub(super) fn content_of(disk: &Path) -> Result<Content> {
    let about = || format!("reading {}", disk.display());
    let file = File::open(disk).with_context(about)?;
    let size = file.metadata().with_context(about)?.len();
    let mut head = vec![0; usize::try_from(size.min(HEAD as u64))?];
    file.read_exact_at(&mut head, 0).with_context(about)?;
    look(&head, size)
}

/// Brings the changes in a journal to their places, where there are any. Tells whether there were.
fn replay(
    mounts: &PrivateMounts,
    filesystem: FileSystem,
    disk: &Path,
    cancel: &Cancel,
) -> Result<bool> {
    if !is_dirty(filesystem, disk, cancel)? {
        return Ok(false);
    }
    let kind = filesystem.name();
    let about = || format!("replaying the journal of the {kind} on the disk");
    if kind == "ext4" {
        // e2fsck knows the journal, so nobody has to mount what was not checked.
        preen(disk, cancel).with_context(about)?;
        return Ok(true);
    }
    // Only the kernel replays these logs. What it leaves wrong is found by the check.
    let point = beside(disk);
    fs::create_dir(&point).with_context(|| format!("creating {}", point.display()))?;
    mounts
        .image(disk, kind, filesystem.draft_options(), &point, cancel)
        .and_then(|mounted| mounted.unmount())
        .with_context(about)?;
    fs::remove_dir(&point).with_context(|| format!("removing {}", point.display()))?;
    Ok(true)
}

fn is_dirty(filesystem: FileSystem, disk: &Path, cancel: &Cancel) -> Result<bool> {
    match filesystem.name() {
        // ext4_super_block.s_feature_incompat, EXT4_FEATURE_INCOMPAT_RECOVER.
        "ext4" => Ok(u32::from_le_bytes(bytes_at(disk, 1024 + 0x60)?) & 0x4 != 0),
        // btrfs_super_block.log_root: a log tree is there.
        "btrfs" => Ok(bytes_at(disk, (64 << 10) + 0x60)? != [0; 8]),
        "xfs" => {
            let print = Program::new("xfs_logprint").arg("-t").arg(disk);
            let said = print.cancel(cancel).run()?.text();
            match (said.contains("<CLEAN>"), said.contains("<DIRTY>")) {
                (true, false) => Ok(false),
                (false, true) => Ok(true),
                _ => bail!(
                    "xfs_logprint does not tell whether the log is clean: {}",
                    said.trim()
                ),
            }
        }
        _ => Ok(false),
    }
}

fn bytes_at<const N: usize>(disk: &Path, at: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open(disk)
        .and_then(|file| file.read_exact_at(&mut bytes, at))
        .with_context(|| format!("reading {}", disk.display()))?;
    Ok(bytes)
}

/// e2fsck(8): replays the journal, clears the list of orphans, and mends only what is safe to mend.
fn preen(disk: &Path, cancel: &Cancel) -> Result<()> {
    let program = Program::new("e2fsck").arg("-p").arg(disk).cancel(cancel);
    match program.run() {
        // 1: it has changed something, which is what it was run for.
        Err(exec::Error::Failed { status, .. }) if status.code() == Some(1) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
