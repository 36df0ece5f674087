//! Steps about the file system of the disk: made empty, packed from a tree, told from its copy.

use anyhow::{Context, Result, bail};

use super::Work;
use crate::build::filesystem::{LABEL, Made, Wanted, identifier};
use crate::build::kernel;
use crate::build::source::Input;
use crate::build::tree::{Root, measure};
use crate::build::version::KernelRelease;
use crate::library::Progress;
use crate::library::manifest::FileSystemFacts;

impl Work<'_> {
    pub(super) fn make_file_system(&mut self) -> Result<()> {
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

    pub(super) fn identify(&mut self) -> Result<()> {
        self.watch.step("giving the copy an identifier", None);
        // That of the version it was copied from, until the tree has told its own.
        let kernel = KernelRelease::parse(&self.facts.kernel_version);
        let disk = self.draft()?.disk_path();
        let own = self
            .filesystem
            .identify(&disk, kernel.as_ref(), self.cancel)?;
        if own.is_some() {
            self.facts.filesystem.uuid = own;
        }
        Ok(())
    }

    /// Finds out what the tree that came out needs.
    pub(super) fn survey(&mut self) -> Result<()> {
        let root = Root::open(self.tree_path()?)?;
        self.tree = measure(&root, &self.excludes, self.cancel)?;
        let wanted = self.kernel.as_ref().map(KernelRelease::as_str);
        let release = kernel::release(&root, wanted, &self.places)?;
        self.filesystem.ensure_kernel(&release)?;
        self.kernel = Some(release);
        Ok(())
    }

    /// Mounts the tree where the disk would be: what follows finds it there.
    pub(super) fn view(&mut self) -> Result<()> {
        self.watch.step("mounting the tree", None);
        let source = match (&self.input, &self.scratch) {
            (Some(Input::Tree(tree)), None) => tree.path().to_owned(),
            (_, Some(scratch)) => {
                let path = scratch.path().to_owned();
                self.survey()?;
                path
            }
            _ => bail!("there is no tree to look at"),
        };
        let point = self.new_mount_point()?;
        self.mounted = Some(self.mounts.view_on(&source, &point)?);
        Ok(())
    }

    pub(super) fn pack(&mut self, size: Option<u64>) -> Result<()> {
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
}
