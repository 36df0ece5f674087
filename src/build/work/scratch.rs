//! The file system that a distribution is bootstrapped on, before its size is known.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;

use super::Work;
use crate::build::FileSystem;
use crate::build::apply::{make_scratch, scratch_point};
use crate::build::source::Input;
use crate::build::tree::Root;
use crate::library::Progress;

impl Work<'_> {
    pub(super) fn create_scratch(&mut self) -> Result<()> {
        self.watch.step("making a scratch file system", None);
        let file = self.draft()?.scratch_path();
        let home = file.parent().context("a draft is somewhere")?;
        let room = statvfs(home).with_context(|| format!("looking at {}", home.display()))?;
        let free = room.blocks_available().saturating_mul(room.fragment_size());
        make_scratch(&file, free, self.cancel)?;
        let point = scratch_point(&file);
        fs::create_dir(&point).with_context(|| format!("creating {}", point.display()))?;
        let options = FileSystem::Xfs.draft_options();
        let mounted = self
            .mounts
            .executable_image(&file, "xfs", options, &point, self.cancel)
            .context("mounting the scratch file system")?;
        self.scratch = Some(mounted);
        Ok(())
    }

    pub(super) fn copy_scratch(&mut self) -> Result<()> {
        let scratch = self.scratch()?.path();
        let root = Root::from_dir(self.mounts.view(scratch)?, scratch);
        self.input = Some(Input::Tree(root));
        let bytes = self.tree.data;
        self.copy_tree("the tree", bytes)?;
        // The view holds the file system.
        self.input = None;
        self.give_up_scratch()
    }

    pub(super) fn give_up_scratch(&mut self) -> Result<()> {
        let Some(mounted) = self.scratch.take() else {
            return Ok(());
        };
        let scratch = mounted.path().to_owned();
        mounted.unmount()?;
        fs::remove_dir(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
        let file = self.draft()?.scratch_path();
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }
}
