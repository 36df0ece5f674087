//! What is seen to before and between the steps that change something.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use super::Work;
use crate::build::facts;
use crate::build::kernel;
use crate::build::size::human;
use crate::build::tree::Root;
use crate::build::version::KernelRelease;
use crate::library::Progress;

impl Work<'_> {
    /// A version that is not what was sealed is not made into another.
    pub(super) fn verify_parent(&self) -> Result<()> {
        let parent = self
            .parent
            .as_ref()
            .context("there is no version to copy")?;
        let library = self.draft()?.library();
        Ok(library.verify(parent.id(), self.watch)?)
    }

    /// Refuses a file system that is too full for what comes, before anything is changed in it.
    pub(super) fn ensure_room(&self, percent: u64) -> Result<()> {
        let point = self.mount_point()?;
        let room = statvfs(point).with_context(|| format!("looking at {}", point.display()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(room.fragment_size());
        let free = bytes(room.blocks_available());
        // File systems count what they keep for themselves as used, which is most of a small one.
        let parent = self
            .parent
            .as_ref()
            .context("there is no version to copy")?;
        let used = parent.manifest().facts.tree.bytes;
        let needed = used / 100 * percent;
        if free >= needed {
            return Ok(());
        }
        let has = self.draft()?.disk_path();
        let has =
            std::fs::metadata(&has).with_context(|| format!("looking at {}", has.display()))?;
        let enough = has.len() + (needed - free);
        bail!(
            "the file system of {} has {} left beside its files of {}, and this may take {}: grow it, \
             as by --size {}M, which takes no room until it is written",
            self.image_name()?,
            human(free),
            human(used),
            human(needed),
            // File systems keep something for themselves.
            (enough.next_multiple_of(256 << 20) >> 20) + 256,
        );
    }

    /// Whether a step failed because a copy has no room left. Programs tell that in many ways, and some
    /// remove what they could not finish.
    pub(in crate::build) fn is_for_want_of_room(&self, error: &anyhow::Error) -> bool {
        const LITTLE: u64 = 8 << 20;
        if format!("{error:#}").contains(Errno::ENOSPC.desc()) {
            return true;
        }
        let room = self.mounted.as_ref().map(|mounted| statvfs(mounted.path()));
        matches!(room, Some(Ok(room)) if room.blocks_available() * room.fragment_size() < LITTLE)
    }

    /// Goes no further where nothing is new: the same packages, the same kernel to boot, and a recipe
    /// whose other steps made the parent, too. Where packages are not listed, nobody knows.
    pub(super) fn ensure_news(&mut self) -> Result<()> {
        self.watch.step("looking for what is new", None);
        let parent = self
            .parent
            .as_ref()
            .context("there is no version to copy")?;
        let had = &parent.manifest().facts;
        if had.packages.is_none() || had.recipe != self.facts.recipe {
            return Ok(());
        }
        let root = Root::open(self.mount_point()?)?;
        let wanted = self.kernel.as_ref().map(KernelRelease::as_str);
        let release = kernel::release(&root, wanted, &self.places)?;
        self.idle =
            release.as_str() == had.kernel_version && self.packages_in(&root)?.list == had.packages;
        Ok(())
    }

    /// An upgrade that leaves the release what it was did not happen, whatever its steps said.
    pub(super) fn ensure_upgraded(&self) -> Result<()> {
        let root = Root::open(self.mount_point()?)?;
        let (Some(before), Some(after)) = (&self.before, facts::distribution(&root)?) else {
            return Ok(());
        };
        let told = |found: &crate::library::manifest::Distribution| {
            (
                found.id.clone(),
                found.release.clone(),
                found.codename.clone(),
            )
        };
        ensure!(
            told(before) != told(&after),
            "the steps of the upgrade are done, and the image still calls itself {after}: see what \
             its package manager said, and try them by hand in `netroot image shell --discard`"
        );
        Ok(())
    }
}
