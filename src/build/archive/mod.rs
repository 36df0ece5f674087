//! Tar archives as sources: streamed into the draft, never unpacked to a second place.
//!
//! What an archive says is not trusted: a member that would land outside of the tree, or anywhere
//! through a symlink, ends the build.

mod acl;
mod extract;
mod members;
mod pax;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use self::members::{Kind, Members};
use super::compressed::{sniff, uncompressed};
use super::kernel;
use super::tree::{Excludes, Measure, Root};
use super::version::KernelRelease;
use crate::exec::Cancel;

/// An archive that is open.
pub(super) struct Archive {
    stream: Box<dyn Read>,
    packed: Option<u64>,
    /// Bytes of the archive file that were read so far.
    read: Arc<AtomicU64>,
}

/// What a first reading of an archive tells.
pub(super) struct Survey {
    pub(super) tree: Measure,
    pub(super) kernel: KernelRelease,
}

/// What a file or directory occupies is a multiple of this.
const BLOCK: u64 = 4096;

/// More kernels than any tree has.
const MOST_KERNELS: usize = 10_000;

impl Archive {
    /// The archive in the file at `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let about = || format!("opening {}", path.display());
        let file = File::open(path).with_context(about)?;
        let packed = file.metadata().with_context(about)?.len();
        Self::of(file, Some(packed)).with_context(about)
    }

    /// The archive on the standard input.
    pub(super) fn stdin() -> Result<Self> {
        Self::of(io::stdin(), None).context("reading the standard input")
    }

    fn of(file: impl Read + 'static, packed: Option<u64>) -> Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            stream: file,
            read: Arc::clone(&read),
        };
        let (compression, stream) = sniff(counted)?;
        Ok(Self {
            stream: uncompressed(compression, stream)?,
            packed,
            read,
        })
    }

    /// Bytes of the archive file, if that is known.
    pub(super) fn packed_size(&self) -> Option<u64> {
        self.packed
    }

    /// Reads all headers of the archive at `path`: how much is in it, and which kernel.
    pub(super) fn survey(path: &Path, wanted: Option<&str>, cancel: &Cancel) -> Result<Survey> {
        let mut members = Members::new(Self::open(path)?.stream);
        let mut tree = Measure::default();
        // Only what may be a kernel is kept: an archive may have more names than fit into memory.
        let mut releases = BTreeSet::new();
        let mut kernels = HashSet::new();
        while let Some(member) = members.next()? {
            cancel.check()?;
            let path = member.path.to_string_lossy().into_owned();
            let path = path.trim_start_matches("./");
            tree.entries += 1;
            match member.kind {
                Kind::File => {
                    tree.data += member.data_size();
                    tree.allocated += member.data_size().div_ceil(BLOCK) * BLOCK;
                }
                Kind::Directory => tree.allocated += BLOCK,
                _ => {}
            }
            if let Some(release) = kernel::release_in(path)
                && releases.len() < MOST_KERNELS
            {
                releases.insert(release.to_owned());
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            let is_kernel = name.starts_with("vmlinu") && member.kind != Kind::Directory;
            if is_kernel && kernels.len() < MOST_KERNELS {
                kernels.insert(path.to_owned());
            }
        }
        let has_kernel = |release: &KernelRelease| {
            Ok(kernels.iter().any(|path| kernel::is_kernel(path, release)))
        };
        anyhow::ensure!(
            tree.entries > 0,
            "this is not a tar archive: there is nothing in it"
        );
        let releases: Vec<String> = releases.into_iter().collect();
        let kernel = kernel::newest(&releases, wanted, &has_kernel)?;
        Ok(Survey { tree, kernel })
    }

    /// Unpacks all into `target`; `done` is told how many bytes of the archive file were used.
    pub(super) fn unpack(
        self,
        target: &Root,
        excludes: &Excludes,
        cancel: &Cancel,
        done: &dyn Fn(u64),
    ) -> Result<()> {
        let mut told = 0;
        let read = self.read;
        let mut progress = || {
            let now = read.load(Ordering::Relaxed);
            done(now - told);
            told = now;
        };
        extract::unpack(self.stream, target, excludes, cancel, &mut progress)
    }
}

/// Counts what is read.
struct Counted<R> {
    stream: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(into)?;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}
