//! What of a clone is its own: what its client has written beyond the version.
//!
//! A reflink's are the blocks that differ from the version's at the same place, whoever else has them: a
//! snapshot that shares them takes nothing from what the client holds. An overlay's are those of its
//! file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

use super::extents::{Unplaced, bytes_beyond};
use super::{CloneKind, DISK, clone};
use crate::block::Own;
use crate::library::error::{Doing, Result};
use crate::library::store::clone::CloneInfo;
use crate::library::{Library, MacAddr};

/// File systems give out their storage in pieces of this size.
const PIECE: u64 = 4096;

/// Knows what of a clone is its own.
pub(super) enum OwnBytes {
    /// Of a file that began as a copy of its version's.
    Reflink { file: File, base: File },
    /// Of a file that began empty.
    Overlay { file: File },
}

impl Library {
    /// Bytes that a client's disk holds beyond the version that it was made from; nothing where the file
    /// system does not tell, and where there is no such disk.
    pub fn own_bytes(&self, mac: &MacAddr) -> Result<Option<u64>> {
        let client = self.client(mac)?;
        let Some(info) = &client.clone else {
            return Ok(None);
        };
        let (path, _) = clone::paths(self.places(), &client.mac);
        let own = self.own_of(&path, info)?;
        let held = own.held(Unplaced::Ignored);
        held.doing("asking for the extents of", &path)
    }

    /// What measures a clone whose disk is at `path`.
    pub(super) fn own_of(&self, path: &Path, info: &CloneInfo) -> Result<OwnBytes> {
        let file = File::open(path).doing("opening", path)?;
        Ok(match info.kind {
            CloneKind::Overlay => OwnBytes::Overlay { file },
            CloneKind::Reflink => {
                let base = self.places().version(&info.from).join(DISK);
                let base = File::open(&base).doing("opening", &base)?;
                OwnBytes::Reflink { file, base }
            }
        })
    }
}

impl OwnBytes {
    fn held(&self, unplaced: Unplaced) -> io::Result<Option<u64>> {
        match self {
            OwnBytes::Reflink { file, base } => bytes_beyond(file, base, &(0..u64::MAX), unplaced),
            // Those included that the file system has only promised so far.
            OwnBytes::Overlay { file } => Ok(Some(file.metadata()?.blocks() * 512)),
        }
    }
}

impl Own for OwnBytes {
    fn all(&self) -> io::Result<u64> {
        self.held(Unplaced::Written)?.ok_or_else(unsupported)
    }

    fn added_by(&self, range: Range<u64>) -> io::Result<u64> {
        let range = range.start / PIECE * PIECE..range.end.next_multiple_of(PIECE);
        let len = range.end - range.start;
        let held = match self {
            OwnBytes::Reflink { file, base } => {
                bytes_beyond(file, base, &range, Unplaced::Ignored)?.ok_or_else(unsupported)?
            }
            OwnBytes::Overlay { file } => stored(file, &range)?,
        };
        Ok(len.saturating_sub(held))
    }
}

/// Bytes of a range that are no hole.
fn stored(file: &File, range: &Range<u64>) -> io::Result<u64> {
    let end = i64::try_from(range.end).map_err(io::Error::other)?;
    let mut at = i64::try_from(range.start).map_err(io::Error::other)?;
    let mut stored = 0;
    while at < end {
        let data = match lseek64(file, at, Whence::SeekData) {
            Ok(data) => data.min(end),
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = match lseek64(file, data, Whence::SeekHole) {
            Ok(hole) => hole.min(end),
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        stored += hole - data;
        at = hole;
    }
    u64::try_from(stored).map_err(io::Error::other)
}

fn unsupported() -> io::Error {
    io::ErrorKind::Unsupported.into()
}
