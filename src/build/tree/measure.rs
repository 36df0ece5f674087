//! How much there is in a tree.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use nix::sys::stat::{FileStat, SFlag};

use super::exclude::Excludes;
use super::pool::{Pool, in_parallel};
use super::root::Root;
use super::{about, enter, entries, kind_of, stat_at, workers};
use crate::exec::Cancel;

/// What a copy of the tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Bytes that its files and directories occupy, as `du -s` counts them.
    pub(crate) allocated: u64,
    /// Bytes of the data to be copied, without holes: what progress is counted in.
    pub(crate) data: u64,
    /// Files, directories and everything else, each once.
    pub(crate) entries: u64,
}

struct Counts {
    allocated: AtomicU64,
    data: AtomicU64,
    entries: AtomicU64,
    /// Files with several names that were counted. Held for a look-up only.
    linked: Mutex<HashSet<(u64, u64)>>,
}

struct Dir {
    dir: File,
    path: PathBuf,
}

/// A directory that is still to be visited.
type Task = (Arc<Dir>, OsString);

/// Measures the tree at `root`, as far as its own file system goes.
pub(crate) fn measure(root: &Root, excludes: &Excludes, cancel: &Cancel) -> Result<Measure> {
    let counts = Counts {
        allocated: AtomicU64::new(0),
        data: AtomicU64::new(0),
        entries: AtomicU64::new(0),
        linked: Mutex::default(),
    };
    let above = Arc::new(Dir {
        dir: root.dir().try_clone()?,
        path: PathBuf::new(),
    });
    counts.add(&stat_at(root.dir(), ".".as_ref())?);
    let visit = |(parent, name): Task, pool: &Pool<Task>| {
        let path = parent.path.join(&name);
        let opened = about(enter(&parent.dir, &name), "reading", || path.clone())?;
        let Some(dir) = opened else {
            return Ok(());
        };
        let here = Arc::new(Dir { dir, path });
        let found = about(entries(&here.dir), "reading", || here.path.clone())?;
        let mut below = Vec::new();
        for entry in found {
            let path = || here.path.join(&entry.name);
            if excludes.leave_out(&path()) {
                continue;
            }
            let stat = about(stat_at(&here.dir, &entry.name), "reading", path)?;
            counts.add(&stat);
            if kind_of(&stat) == SFlag::S_IFDIR {
                below.push((Arc::clone(&here), entry.name));
            }
        }
        pool.add(below);
        Ok(())
    };
    let first = (above, OsString::from("."));
    in_parallel(first, workers(), cancel, || Ok(visit))?;
    Ok(Measure {
        allocated: counts.allocated.into_inner(),
        data: counts.data.into_inner(),
        entries: counts.entries.into_inner(),
    })
}

impl Counts {
    fn add(&self, stat: &FileStat) {
        let is_file = kind_of(stat) == SFlag::S_IFREG;
        if is_file && stat.st_nlink > 1 {
            let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
            if !linked.insert((stat.st_dev, stat.st_ino)) {
                return;
            }
        }
        let allocated = u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512);
        self.allocated.fetch_add(allocated, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        if is_file {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            // A compressed file has fewer blocks than bytes and yet no holes; then the bar ends a
            // little late.
            self.data.fetch_add(size.min(allocated), Ordering::Relaxed);
        }
    }
}
