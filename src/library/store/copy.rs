//! Copies of disks: sharing blocks where the file system can, else without what is not there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::clone::cannot_share;
use super::hash::Stopped;
use crate::library::progress::Progress;

/// How a disk was copied into a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyKind {
    /// Blocks are shared with the version until they are written.
    Reflink,
    /// Data was copied, holes were not.
    Sparse,
}

type Copied<T> = std::result::Result<T, Stopped>;

/// Often enough to notice Ctrl-C at once.
const STEP: i64 = 16 << 20;

/// Zeros are left out in pieces of this size, which is that of most file systems' blocks.
const GRAIN: usize = 4096;

/// Makes `target`, which is empty, a copy of a disk of the library. `what` is told where it takes
/// its time.
pub(super) fn copy_disk(
    source: &File,
    target: &File,
    what: &str,
    progress: &dyn Progress,
) -> Copied<CopyKind> {
    share_or(source, target, what, progress, move_range)
}

/// As [`copy_disk`], for a file that is not the library's: what it stores of zeros is left out too.
pub(super) fn copy_foreign(
    source: &File,
    target: &File,
    what: &str,
    progress: &dyn Progress,
) -> Copied<CopyKind> {
    share_or(source, target, what, progress, copy_nonzero)
}

/// The same, and it is not stopped by anything but a failure.
pub(crate) fn copy_file(source: &File, target: &File, progress: &dyn Progress) -> io::Result<()> {
    match copy_foreign(source, target, "", progress) {
        Ok(_) => Ok(()),
        Err(Stopped::Failed(error)) => Err(error),
        Err(Stopped::Cancelled) => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Copies the bytes between two offsets, and tells of each piece.
type CopyRange = fn(&File, &File, i64, i64, &dyn Progress) -> Copied<()>;

fn share_or(
    source: &File,
    target: &File,
    what: &str,
    progress: &dyn Progress,
    copy: CopyRange,
) -> Copied<CopyKind> {
    match reflink_copy::reflink_file(source, target) {
        Ok(()) => return Ok(CopyKind::Reflink),
        Err(error) if cannot_share(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let size = source.metadata()?.len();
    progress.step(what, Some(size));
    target.set_len(size)?;
    each_extent(source, 0..size, progress, |from, to| {
        copy(source, target, from, to, progress)
    })?;
    Ok(CopyKind::Sparse)
}

/// Makes `target`, which is empty, the disk that an overlay and its base are together: each of
/// `parts` is taken from `data` where the overlay holds it, else from `base`.
pub(super) fn flatten(
    base: &File,
    data: &File,
    parts: impl Iterator<Item = (Range<u64>, bool)>,
    target: &File,
    progress: &dyn Progress,
) -> Copied<()> {
    let of_base = base.metadata()?.len();
    for (part, held) in parts {
        // An overlay may be larger than its base, and reads zeros beyond it.
        let (source, end) = match held {
            true => (data, part.end),
            false => (base, part.end.min(of_base)),
        };
        each_extent(source, part.start..end, progress, |from, to| {
            copy_nonzero(source, target, from, to, progress)
        })?;
        progress.advance(part.end - end.clamp(part.start, part.end));
    }
    Ok(())
}

/// Calls `copy` for each part of a range of a file that is not a hole; holes are told as done.
fn each_extent(
    source: &File,
    range: Range<u64>,
    progress: &dyn Progress,
    mut copy: impl FnMut(i64, i64) -> Copied<()>,
) -> Copied<()> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek64};
    let end = i64::try_from(range.end).map_err(io::Error::other)?;
    let mut at = i64::try_from(range.start).map_err(io::Error::other)?;
    while at < end {
        let data = match lseek64(source, at, Whence::SeekData) {
            Ok(data) => data.min(end),
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let hole = lseek64(source, data, Whence::SeekHole).map_err(io::Error::from)?;
        let hole = hole.min(end);
        progress.advance(u64::try_from(data - at).unwrap_or(0));
        copy(data, hole)?;
        at = hole;
    }
    progress.advance(u64::try_from(end - at).unwrap_or(0));
    Ok(())
}

/// Lets the kernel move the bytes.
fn move_range(
    source: &File,
    target: &File,
    from: i64,
    to: i64,
    progress: &dyn Progress,
) -> Copied<()> {
    let (mut read, mut write) = (from, from);
    while read < to {
        if progress.cancelled() {
            return Err(Stopped::Cancelled);
        }
        let len = usize::try_from(STEP.min(to - read)).map_err(io::Error::other)?;
        let done =
            nix::fcntl::copy_file_range(source, Some(&mut read), target, Some(&mut write), len)
                .map_err(io::Error::from)?;
        if done == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        progress.advance(done as u64);
    }
    Ok(())
}

/// Reads the bytes and writes those that are not zeros: it also works between file systems, where
/// copy_file_range(2) refuses.
fn copy_nonzero(
    source: &File,
    target: &File,
    from: i64,
    to: i64,
    progress: &dyn Progress,
) -> Copied<()> {
    let mut buffer = vec![0; 1 << 20];
    let (mut at, end) = (offset(from)?, offset(to)?);
    while at < end {
        if progress.cancelled() {
            return Err(Stopped::Cancelled);
        }
        let want = usize::try_from(end - at).unwrap_or(usize::MAX);
        let len = want.min(buffer.len());
        let Some(piece) = buffer.get_mut(..len) else {
            break;
        };
        source.read_exact_at(piece, at)?;
        write_nonzero(target, piece, at)?;
        at += len as u64;
        progress.advance(len as u64);
    }
    Ok(())
}

/// Writes what is not zeros of `bytes` at its place in a file that has zeros everywhere.
fn write_nonzero(target: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let is_zero = |grain: &[u8]| grain.iter().all(|&byte| byte == 0);
    let mut begin = 0;
    // Runs of grains go out in one write.
    for run in bytes
        .chunks(GRAIN)
        .collect::<Vec<_>>()
        .chunk_by(|a, b| is_zero(a) == is_zero(b))
    {
        let len: usize = run.iter().map(|grain| grain.len()).sum();
        let written = bytes.get(begin..begin + len).unwrap_or_default();
        if run.first().is_some_and(|grain| !is_zero(grain)) {
            target.write_all_at(written, at + begin as u64)?;
        }
        begin += len;
    }
    Ok(())
}

fn offset(at: i64) -> io::Result<u64> {
    u64::try_from(at).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::library::progress::Quiet;

    #[test]
    fn stored_zeros_take_no_room_in_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(dir.path().join(name)).unwrap()
        };
        let (source, target) = (open("source"), open("target"));
        let mut bytes = vec![0u8; 3 << 20];
        bytes[5000] = 1;
        bytes[(2 << 20) + 1] = 2;
        *bytes.last_mut().unwrap() = 3;
        source.write_all_at(&bytes, 0).unwrap();
        target.set_len(3 << 20).unwrap();
        copy_nonzero(&source, &target, 0, 3 << 20, &Quiet).unwrap();
        assert_eq!(std::fs::read(dir.path().join("target")).unwrap(), bytes);
        target.sync_all().unwrap();
        assert!(target.metadata().unwrap().blocks() * 512 <= 64 << 10);
    }
}
