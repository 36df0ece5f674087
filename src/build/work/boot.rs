//! What is taken out of the tree for its manifest, and to boot it.

use std::fs;

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use super::Work;
use crate::build::initramfs::{self, Checked};
use crate::build::shown::Shown;
use crate::build::tree::{Measure, Root, measure};
use crate::build::version::KernelRelease;
use crate::build::{Excludes, FileSystem, InitramfsCheck, facts, identity, kernel, reconnect};
use crate::library::manifest::TreeFacts;
use crate::library::{Progress, caution_of_way};

/// Where the list of packages is read, beside its disk.
const LISTING: &str = "packages";

impl Work<'_> {
    /// Kernel and initramfs go beside the disk; the rest of what the manifest tells is written down.
    pub(super) fn take_boot_files(&mut self) -> Result<()> {
        self.watch.step("taking out kernel and initramfs", None);
        let path = self.mount_point()?.to_owned();
        let root = Root::open(&path)?;
        let release = match &self.kernel {
            // It was looked for before the tree was copied.
            Some(release) if self.parent.is_none() => release.clone(),
            wanted => {
                let wanted = wanted.as_ref().map(KernelRelease::as_str);
                kernel::release(&root, wanted, &self.places)?
            }
        };
        let mut files = kernel::boot_files(&root, release, &self.places)?;
        let checked = match self.checked.take() {
            Some(checked) => checked,
            None => {
                let shown = Shown::Image(self.draft()?.image().to_string());
                judge(self.check, &root, &shown, &files, self.filesystem)?
            }
        };
        self.facts.kernel_version = files.release.to_string();
        self.facts.early = checked.facts;
        self.warn(checked.warnings);
        self.warn_of_way()?;
        let draft = self.draft.as_mut().context("the version is sealed")?;
        draft.add_kernel(&mut files.kernel.file)?;
        draft.add_initramfs(&mut files.initramfs.file)?;
        self.facts.distribution = facts::distribution(&root)?;
        self.list_packages(&root)?;
        if self.tree == Measure::default() {
            self.tree = measure(&root, &Excludes::default(), self.cancel)?;
        }
        self.facts.tree = TreeFacts {
            bytes: self.tree.allocated,
            entries: self.tree.entries,
        };
        Ok(())
    }

    /// Tells while something can be done about it that the way of its image does not boot it.
    fn warn_of_way(&mut self) -> Result<()> {
        let draft = self.draft()?;
        let kind = self.facts.early.kind;
        let caution = caution_of_way(draft.image(), draft.way()?, kind);
        self.warn_once(caution);
        Ok(())
    }

    /// Writes down what is installed.
    fn list_packages(&mut self, root: &Root) -> Result<()> {
        let packages = self.packages_in(root)?;
        self.facts.packages = packages.list;
        self.warn(packages.warning);
        Ok(())
    }

    /// What is installed. What programs of this host need to read that is in memory, and gone when
    /// this process is.
    pub(super) fn packages_in(&self, root: &Root) -> Result<facts::Packages> {
        let point = self.draft()?.disk_path().with_file_name(LISTING);
        fs::create_dir(&point).with_context(|| format!("creating {}", point.display()))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let memory = self.mounts.kernel_fs("tmpfs", &point, flags, "mode=700")?;
        let packages = facts::packages(root, self.packages, &point, self.cancel)?;
        memory.unmount()?;
        fs::remove_dir(&point).with_context(|| format!("removing {}", point.display()))?;
        Ok(packages)
    }
}

/// Reads the initramfs in `files`, of the tree that is called `shown`, and decides about it.
pub(in crate::build) fn judge(
    check: InitramfsCheck,
    root: &Root,
    shown: &Shown,
    files: &kernel::BootFiles,
    filesystem: FileSystem,
) -> Result<Checked> {
    let path = &files.initramfs.path;
    let stream = root
        .file(path)?
        .with_context(|| format!("{path} is gone"))?;
    let size = stream
        .metadata()
        .with_context(|| format!("looking at {path}"))?
        .len();
    let mut checked = match check {
        InitramfsCheck::Refuse => initramfs::check(stream, size, &files.release, filesystem.name())
            .with_context(|| format!("the initramfs {path} of {shown} is refused"))?,
        InitramfsCheck::Skip => Checked {
            // An initramfs that cannot even be read is of unknown kind, which is all that is told.
            facts: initramfs::look(stream).unwrap_or_else(|_| initramfs::unknown()),
            warnings: vec![String::from("the initramfs was not checked, as asked")],
        },
    };
    let more = reconnect::warnings(root, checked.facts.kind, shown)?;
    checked.warnings.extend(more);
    checked.warnings.extend(identity::warnings(root, shown)?);
    Ok(checked)
}
