//! Files with several names: copied once, linked for every further name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::root::open_dir;

/// Device and inode: two names with the same are one file.
pub(super) type Inode = (u64, u64);

/// Where the first name of each file with several was copied to.
#[derive(Default)]
pub(super) struct Links {
    // Held for a look-up only. Copying happens outside; who wants a second name meanwhile waits.
    known: Mutex<HashMap<Inode, Option<PathBuf>>>,
    changed: Condvar,
}

/// What to do with a name.
pub(super) enum Name {
    /// It is the first: copy the file, then tell [`Links::copied`].
    First,
    /// Link it to this copy.
    Further(PathBuf),
    /// The thread that copies the file has failed.
    Abandoned,
}

impl Links {
    /// Decides about one more name of a file.
    pub(super) fn name(&self, inode: Inode, has_failed: &dyn Fn() -> bool) -> Name {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match known.get(&inode) {
                None => {
                    known.insert(inode, None);
                    return Name::First;
                }
                Some(Some(copy)) => return Name::Further(copy.clone()),
                Some(None) if has_failed() => return Name::Abandoned,
                Some(None) => {
                    // Failure is told elsewhere, hence the look now and then.
                    let pause = Duration::from_millis(20);
                    let waited = self.changed.wait_timeout(known, pause);
                    known = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The first name of the file was copied to `copy`, a path below the target's root.
    pub(super) fn copied(&self, inode: Inode, copy: PathBuf) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(inode, Some(copy));
        drop(known);
        self.changed.notify_all();
    }
}

/// Gives the file at `copy` below `root` one more name. `copy` may be longer than `PATH_MAX`.
pub(super) fn link(root: &File, copy: &Path, dir: &File, name: &OsString) -> Result<()> {
    let old_name = copy.file_name().context("a file without a name")?;
    let old_dir = open_dir(root, copy.parent().unwrap_or(Path::new("")))?;
    let flags = nix::fcntl::AtFlags::empty();
    nix::unistd::linkat(&old_dir, old_name, dir, name.as_os_str(), flags)
        .with_context(|| format!("linking it to its other name {}", copy.display()))
}
