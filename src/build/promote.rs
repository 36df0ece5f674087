//! `client promote`: a version from what a client made of its disk.
//!
//! The clone is held while it is copied, and never mounted itself. The copy is a stranger's disk: its
//! journal is replayed, it is checked, and read by no path that leads out of it.

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

use super::adopt::Foreign;
use super::diff::{Changes, changes_since};
use super::plan::{Plan, Step};
use super::recipe::Recipes;
use super::size::human;
use super::tree::Root;
use super::watch::{Timed, Watch};
use super::work::{Built, Keep, Work};
use super::{FileSystem, InitramfsCheck, Scrub, facts};
use crate::exec::{Cancel, in_private_mounts};
use crate::library::manifest::BootFrom;
use crate::library::{
    Actor, Client, CloneInfo, CloneKind, Event, ImageName, Library, LiveSession, MacAddr, Progress,
    Version, VersionFacts, VersionId,
};

/// What is to be promoted.
#[derive(Debug, Clone)]
pub struct PromoteRequest {
    /// The client whose disk it is.
    pub client: MacAddr,
    /// The image that gets the new version: that of the disk, or a new one.
    pub image: ImageName,
    /// What to do about an initramfs that cannot boot over iSCSI.
    pub check: InitramfsCheck,
    /// Whether what no two clients should share is taken out.
    pub scrub: Scrub,
    /// What becomes of a draft that failed.
    pub keep: Keep,
    /// Who wants it.
    pub by: Actor,
}

/// Who is asked while a disk is promoted.
pub trait Asked: Sync {
    /// The sessions that the client has now.
    ///
    /// # Errors
    /// When nobody knows.
    fn sessions(&self) -> Result<Vec<LiveSession>>;

    /// Whether to go on, before anything is sealed. `changes` are what the disk became since it was
    /// its version's, as far as it can be looked into.
    ///
    /// # Errors
    /// When not.
    fn agree(&self, changes: Option<&Changes>) -> Result<()>;
}

impl Work<'_> {
    /// Tells what became of a disk, and asks before anything is sealed.
    pub(super) fn agree(&mut self, version: &VersionId) -> Result<()> {
        let asked = self.asked.context("there is nobody to be asked")?;
        let changes = match &self.promoted {
            Some(parent) if self.is_mounted() => {
                self.watch.step(&format!("comparing with {version}"), None);
                let path = self.tree_path()?;
                let root = Root::open(path)?;
                let packages = facts::packages(&root, self.packages, path, self.cancel)?;
                let packages = packages.list.as_deref();
                let changes = changes_since(self.mounts, parent, &root, packages, self.cancel)?;
                Some(changes)
            }
            _ => None,
        };
        self.watch.pause();
        asked.agree(changes.as_ref())
    }
}

/// What [`promote`] would do. Nothing is touched.
///
/// # Errors
/// What [`promote`] would refuse before it writes, but for who is connected.
pub fn plan_promote(library: &Library, request: &PromoteRequest) -> Result<Plan> {
    plan(library, request, &Disk::of(library, &request.client)?)
}

/// Makes a copy of a client's disk a version.
///
/// # Errors
/// When somebody uses the disk, the copy is damaged or cannot boot, somebody asks to stop: then there
/// is no new version, nothing is left of it, and the client's disk is as it was.
pub fn promote(
    library: &Library,
    request: &PromoteRequest,
    asked: &dyn Asked,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Built> {
    let disk = Disk::of(library, &request.client)?;
    let plan = plan(library, request, &disk)?;
    let recipes = Recipes::of(library)?;
    let parent = disk.version.manifest();
    let facts = VersionFacts {
        parent: Some(disk.version.id().clone()),
        source: format!("the disk of client {}", disk.client.name),
        promoted: Some(disk.client.name.clone()),
        filesystem: parent.facts.filesystem.clone(),
        kernel_version: parent.facts.kernel_version.clone(),
        recipe: parent.facts.recipe.clone(),
        ..VersionFacts::default()
    };
    let filesystem = disk.filesystem()?;
    // In this order: who is connected is asked when nobody can come in any more.
    let hold = library.hold_clone(&disk.client.mac)?;
    let held = hold.unless_connected(&asked.sessions()?)?;
    ensure!(
        *held.clone_info() == disk.clone,
        "the disk of client {} was reset in this moment: look again",
        disk.client.name
    );
    let timed = Timed::new(watch, cancel, &request.image);
    let built = in_private_mounts(|mounts| {
        let mut work = Work::new(mounts, filesystem, facts, cancel, &timed);
        work.foreign = Some(Foreign::Clone(Box::new(held)));
        work.asked = Some(asked);
        work.promoted = Some(disk.version.clone());
        work.recipes = Some(&recipes);
        work.check = request.check;
        work.keep = request.keep;
        work.perform(&plan, library)
    })??;
    let event = Event::new(&request.by, "client-promote").of(&disk.client.mac);
    // It is sealed, and does not fail because that cannot be written down.
    if let Err(error) = library.record(&event.with("version", built.version.to_string())) {
        watch.warn(&format!("the event could not be written: {error}"));
    }
    Ok(built)
}

/// A client's disk, as far as documents tell.
struct Disk {
    client: Client,
    clone: CloneInfo,
    version: Version,
}

impl Disk {
    fn of(library: &Library, mac: &MacAddr) -> Result<Self> {
        let client = library.client(mac)?;
        let clone = client.clone.clone().with_context(|| {
            format!(
                "promoting the disk of client {}: it has none of its own in mode {}, where what it \
                 writes stays in its RAM; assign it mode persistent, and change it then",
                client.name, client.mode
            )
        })?;
        let version = library.version(&clone.from)?;
        Ok(Self {
            client,
            clone,
            version,
        })
    }

    /// What its version had on its disk; nothing of it is used where that boots itself.
    fn filesystem(&self) -> Result<FileSystem> {
        let manifest = self.version.manifest();
        match &manifest.boot {
            BootFrom::Disk(_) => Ok(FileSystem::default()),
            BootFrom::Kernel { .. } => Ok(manifest.facts.filesystem.kind.parse()?),
        }
    }
}

fn plan(library: &Library, request: &PromoteRequest, disk: &Disk) -> Result<Plan> {
    let from = disk.version.id();
    let is_own = request.image == from.image;
    ensure!(
        is_own || library.image(&request.image).is_err(),
        "the image {} exists already, and the disk of client {} was made from {from}: promote it to \
         {}, or to a new name",
        request.image,
        disk.client.name,
        from.image
    );
    let mut warnings: Vec<String> = cost_of_copy(library, disk)?.into_iter().collect();
    let mut steps = vec![Step::CopyClone {
        client: disk.client.name.clone(),
        from: from.clone(),
    }];
    let manifest = disk.version.manifest();
    match &manifest.boot {
        BootFrom::Disk(table) => {
            warnings.push(String::from(
                "this disk is not looked into: identities in it (machine-id, SSH host keys) will be \
                 every client's",
            ));
            let table = table.clone();
            let version = from.clone();
            steps.extend([Step::KeepPartitions { table }, Step::Agree { version }]);
        }
        BootFrom::Kernel { .. } => {
            let check = request.check;
            let filesystem = manifest.facts.filesystem.kind.clone();
            let version = from.clone();
            steps.push(Step::Settle { filesystem });
            // After its journal was replayed, which needs the one that it was written with.
            let needs = disk.filesystem()?.needs_identifier();
            steps.extend(needs.then_some(Step::Identify));
            steps.extend([Step::Mount, Step::Recognize, Step::Agree { version }]);
            steps.extend((request.scrub == Scrub::ByRecipe).then_some(Step::ScrubRecognized));
            steps.extend([
                Step::Trim,
                Step::TakeBootFiles { check },
                Step::Unmount,
                Step::Check,
            ]);
        }
    }
    steps.push(Step::Seal);
    let plan = Plan {
        image: request.image.to_string(),
        steps,
        warnings,
    };
    Ok(plan.goes_by_way_of(library, &request.image, &disk.version)?)
}

/// What the copy costs where the library's file system cannot share blocks, if it has room for it.
fn cost_of_copy(library: &Library, disk: &Disk) -> Result<Option<String>> {
    if disk.clone.kind == CloneKind::Reflink {
        return Ok(None);
    }
    let whole = disk.version.manifest().disk.allocated;
    let cost = whole.saturating_add(library.clone_bytes(&disk.client.mac));
    let room = statvfs(library.root())
        .with_context(|| format!("looking for room in {}", library.root().display()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    let name = &disk.client.name;
    ensure!(
        free > cost,
        "the library {} has {} left, but a copy of the disk of client {name} takes up to {}: make \
         room, or move the library to XFS or btrfs, where a copy takes nothing",
        library.root().display(),
        human(free),
        human(cost)
    );
    Ok(Some(format!(
        "the library's file system cannot share blocks: the copy of the disk takes up to {}, and \
         {name} cannot boot while it is made",
        human(cost)
    )))
}
