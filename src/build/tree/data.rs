//! The contents of a file, copied so that holes stay holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::unistd::{Whence, lseek};

use crate::exec::Cancel;

/// Bytes that are read and written at once: large enough that the calls cost nothing, small enough
/// to stay in a processor's cache.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Copies what `stat` says is in `source` into the empty file `target`; `done` is told each piece.
pub(super) fn copy(
    source: &File,
    target: &File,
    stat: &FileStat,
    buffer: &mut [u8],
    cancel: &Cancel,
    done: &dyn Fn(u64),
) -> Result<()> {
    let size = u64::try_from(stat.st_size).context("its size is negative")?;
    let allocated = u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512);
    let mut piece = |from, to| copy_range(source, target, from, to, buffer, cancel, done);
    if allocated >= size {
        return piece(0, size);
    }
    // Fewer blocks than bytes: a sparse file, or one that the file system compresses or keeps in
    // its inode; the last two look like one piece of data here. The size comes first: XFS gives a
    // file that grows more blocks than it asked for.
    target.set_len(size).context("setting its size")?;
    let mut at = 0;
    while let Some((from, to)) = next_data(source, at, size)? {
        piece(from, to)?;
        at = to;
    }
    Ok(())
}

/// The next range of data from `at` on, as far as `size`.
pub(crate) fn next_data(file: &File, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let seek = |from: u64, whence| -> nix::Result<u64> {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        let found = lseek(file, from, whence)?;
        u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    };
    match seek(at, Whence::SeekData) {
        Ok(from) if from >= size => Ok(None),
        Ok(from) => {
            let to = seek(from, Whence::SeekHole).context("looking for its holes")?;
            Ok(Some((from, to.min(size))))
        }
        // Only a hole is left.
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e).context("looking for its data"),
    }
}

fn copy_range(
    source: &File,
    target: &File,
    mut at: u64,
    to: u64,
    buffer: &mut [u8],
    cancel: &Cancel,
    done: &dyn Fn(u64),
) -> Result<()> {
    while at < to {
        let want = usize::try_from(to - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = buffer.get_mut(..want).unwrap_or_default();
        let got = source.read_at(part, at).context("reading it")?;
        if got == 0 {
            bail!("it became shorter while it was read; stop what changes the tree and try again");
        }
        let part = buffer.get(..got).unwrap_or_default();
        target.write_all_at(part, at).context("writing its copy")?;
        at += got as u64;
        done(got as u64);
        cancel.check()?;
    }
    Ok(())
}
