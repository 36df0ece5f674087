//! Files under a disk: the few calls that disks make, and how their errors become outcomes.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::ReadWriteFlags;
use tokio::sync::Semaphore;

use super::{Answer, Error, Result, Run, Segment};

/// Slices given to one `pwritev`: the kernel's `UIO_MAXIOV`.
const MAX_SLICES: usize = 1024;

/// What a disk asks of the file that it lies in. All calls but [`read_cached`](Self::read_cached)
/// and [`write_cached`](Self::write_cached) may block, and therefore belong to the blocking pool.
///
/// A trait, so that a test can stand in for the file and lose what was not synced.
pub(crate) trait Backing: Send + Sync + 'static {
    /// Fills `buffer` from `offset`; what lies beyond the end of the file is zeros.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Bytes of a range that a disk has, in memory of its own. A file that ends before has lost some,
    /// and that is told: nobody takes what is gone for zeros.
    fn read_bytes(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        self.read_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }
    /// The bytes if they can be had without waiting for the storage.
    fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes>;
    /// Writes all of `data`, one slice after the other.
    fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()>;
    /// Writes all of `data` if that needs no waiting, and tells whether it did. Where it did not, some of it
    /// may be written. `Unsupported` where it never does. An error too where there was no room: a file system
    /// may have looked for some before it said so, and that does wait (XFS writes back all that it has).
    fn write_cached(&self, _data: &[Bytes], _offset: u64) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Writes all of `data`, durably when this returns.
    fn write_through(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
        self.write_at(data, offset)?;
        self.sync()
    }
    /// Which parts of a range hold data, from its start: at most `most` runs.
    fn runs(&self, offset: u64, len: u64, _most: usize) -> io::Result<Vec<Run>> {
        let _ = offset;
        Ok(vec![Run { len, mapped: true }])
    }
    /// Makes a range read as zeros, giving its space back where the file system can.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes everything written before durable.
    fn sync(&self) -> io::Result<()>;
}

/// Bytes given to ext4 with one call.
///
/// Since Linux 6.16 it keeps in one piece of memory (a folio) what was written with one call, up to 2 MiB, and
/// a later write into that looks at each block of it: measured 24 us for 4 KiB, and 5 us where the piece is of
/// this size. Large writes take no longer for being cut so.
const EXT4_AT_ONCE: usize = 128 * 1024;

/// Bytes of a write into the page cache that are best given to this file with one call.
fn at_once(file: &File, data: &[Bytes]) -> usize {
    let is_long = data.iter().map(Bytes::len).sum::<usize>() > EXT4_AT_ONCE;
    let is_ext4 = |found: rustix::fs::StatFs| found.f_type == libc::EXT4_SUPER_MAGIC;
    match is_long && rustix::fs::fstatfs(file).is_ok_and(is_ext4) {
        true => EXT4_AT_ONCE,
        false => usize::MAX,
    }
}

/// Writes all of `data` past the page cache, to whose ways nothing has to be fitted.
pub(super) fn write_whole(file: &File, data: &[Bytes], offset: u64) -> io::Result<()> {
    write_vectored(data, offset, usize::MAX, |slices, at| {
        rustix::io::pwritev(file, slices, at)
    })
}

/// Writes slice after slice, at most so many bytes with one call, which may take a part of them only.
fn write_vectored(
    data: &[Bytes],
    offset: u64,
    most: usize,
    call: impl Fn(&[IoSlice<'_>], u64) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    let mut at = offset;
    for group in data.chunks(MAX_SLICES) {
        let mut slices: Vec<_> = group.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while let Some(first) = rest.first() {
            let mut room = most;
            let fits = rest.iter().take_while(|slice| {
                let fits = slice.len() <= room;
                room = room.saturating_sub(slice.len());
                fits
            });
            let part = [IoSlice::new(first.get(..most).unwrap_or(first))];
            let cut = match fits.count() {
                0 => &part,
                fitting => rest.get(..fitting).unwrap_or_default(),
            };
            match call(cut, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    IoSlice::advance_slices(&mut rest, n);
                    at += n as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// Where data or a hole begin next; nothing where that is never (lseek(2)). The position that this
/// moves is nobody's: all else is read and written at given offsets.
fn seek(file: &File, to: SeekFrom) -> rustix::io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What an error says of a write that was not to wait.
fn not_at_once(errno: rustix::io::Errno) -> io::Result<bool> {
    match errno {
        // The file system cannot tell (ext4).
        rustix::io::Errno::OPNOTSUPP => Err(io::ErrorKind::Unsupported.into()),
        rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => Err(errno.into()),
        // No page to be had at once, or too much that waits for the storage already; any other error is for
        // the one who waits.
        _ => Ok(false),
    }
}

impl Backing for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            match FileExt::read_at(self, rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(n) => {
                    rest = rest.split_at_mut(n).1;
                    at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read_bytes(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        FileExt::read_exact_at(self, &mut buffer, offset)?;
        Ok(buffer.into())
    }

    fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        let mut buffer = vec![0; len];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        match rustix::io::preadv2(self, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(n) if n == len => Some(buffer.into()),
            // A part only, nothing cached, or a file system that cannot tell.
            Ok(_) | Err(_) => None,
        }
    }

    fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
        write_vectored(data, offset, at_once(self, data), |slices, at| {
            rustix::io::pwritev(self, slices, at)
        })
    }

    fn write_cached(&self, data: &[Bytes], offset: u64) -> io::Result<bool> {
        if data.len() > MAX_SLICES {
            return Ok(false);
        }
        let slices: Vec<_> = data.iter().map(|bytes| IoSlice::new(bytes)).collect();
        match rustix::io::pwritev2(self, &slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(written) => Ok(written == data.iter().map(Bytes::len).sum::<usize>()),
            Err(errno) => not_at_once(errno),
        }
    }

    /// One call writes and syncs just this range, as O_DSYNC does (pwritev2(2)): what others have
    /// written does not hold it up.
    fn write_through(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
        write_vectored(data, offset, usize::MAX, |slices, at| {
            rustix::io::pwritev2(self, slices, at, ReadWriteFlags::DSYNC)
        })
    }

    fn runs(&self, offset: u64, len: u64, most: usize) -> io::Result<Vec<Run>> {
        let (mut at, end) = (offset, offset + len);
        let mut runs = Vec::new();
        while at < end && runs.len() < most {
            let data = match seek(self, SeekFrom::Data(at)) {
                Ok(found) => found.unwrap_or(end).min(end),
                // A block device, or a file system, that does not tell: nothing is known to be a hole.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => at,
                Err(error) => return Err(error.into()),
            };
            let (next, mapped) = if data > at {
                (data, false)
            } else {
                let hole = match seek(self, SeekFrom::Hole(at)) {
                    Ok(found) => found.unwrap_or(end).min(end),
                    Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => end,
                    Err(error) => return Err(error.into()),
                };
                (hole, true)
            };
            runs.push(Run {
                len: next - at,
                mapped,
            });
            at = next;
        }
        Ok(runs)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.punch_only(offset, len) {
            Err(e) if cannot_punch(&e) => write_zeros(self, offset, len),
            result => result,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Whether zeros have to be written instead: the storage takes nothing back, or no such piece of it (a
/// block device only whole sectors of its own).
pub(super) fn cannot_punch(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
    )
}

/// A file whose storage may be able to take a range back.
pub(crate) trait Punch {
    /// Makes a range read as zeros, or fails as [`cannot_punch`] knows. For a block device the kernel has
    /// it write zeros without sending any, and discard what it can by that.
    fn punch_only(&self, offset: u64, len: u64) -> io::Result<()>;
}

impl Punch for File {
    fn punch_only(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(self, flags, offset, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            Err(rustix::io::Errno::INVAL) => Err(io::ErrorKind::InvalidInput.into()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Writes `len` zeros, for file systems that cannot punch holes and for parts of a grain.
pub(crate) fn write_zeros<B: Backing + ?Sized>(file: &B, offset: u64, len: u64) -> io::Result<()> {
    for (at, n) in pieces(offset, len) {
        file.write_at(&[zeros(n)], at)?;
    }
    Ok(())
}

/// `len` zero bytes, without an allocation where there are few.
pub fn zeros(len: usize) -> Bytes {
    static PAGE: [u8; ZEROS] = [0; ZEROS];
    match PAGE.get(..len) {
        Some(zeros) => Bytes::from_static(zeros),
        None => vec![0; len].into(),
    }
}

/// Bytes of zeros that are always at hand.
const ZEROS: usize = 64 * 1024;

/// A range cut into parts no longer than [`ZEROS`].
pub(crate) fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..len.div_ceil(ZEROS as u64)).map(move |i| {
        let start = i * ZEROS as u64;
        (offset + start, (len - start).min(ZEROS as u64) as usize)
    })
}

/// Reads a range: at once where it is cached, else on one of the disk's threads.
pub(crate) fn read<B: Backing + ?Sized>(
    file: &Arc<B>,
    threads: &Arc<Threads>,
    offset: u64,
    len: usize,
) -> Answer<Result<Vec<Segment>>> {
    if let Some(bytes) = file.read_cached(offset, len) {
        return Answer::Now(Ok(vec![Segment::Bytes(bytes)]));
    }
    let file = file.clone();
    let read = move || Ok(vec![Segment::Bytes(file.read_bytes(offset, len)?)]);
    Answer::Later(Box::pin(threads.clone().blocking(read)))
}

/// Threads of the blocking pool that reads and writes of one disk may hold at a time: as many as most storage
/// can do at a time.
pub(crate) const THREADS_OF_A_DISK: usize = 64;

/// These threads of one disk: one whose storage does not answer leaves the others theirs.
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    /// Runs `work` on one of them, as [`blocking`] does.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.0.clone().acquire_owned().await;
        blocking(move || {
            // Here, so that it is held until the work is done, should the caller stop waiting.
            let _place = place;
            work()
        })
        .await
    }
}

impl Default for Threads {
    fn default() -> Self {
        Threads(Arc::new(Semaphore::new(THREADS_OF_A_DISK)))
    }
}

/// Runs `work` where it may block, and turns its error into an outcome.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(outcome),
        Err(e) => Err(Error::Failed(io::Error::other(e))),
    }
}

/// Whether there was no room to write.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The outcome that an error of a file stands for.
pub(crate) fn outcome(error: io::Error) -> Error {
    match error.kind() {
        _ if is_full(&error) => Error::OutOfSpace,
        io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly,
        _ => Error::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_storage_are_told_apart() {
        let outcome = |errno| outcome(io::Error::from_raw_os_error(errno));
        for full in [libc::ENOSPC, libc::EDQUOT] {
            assert!(matches!(outcome(full), Error::OutOfSpace), "{full}");
        }
        assert!(matches!(outcome(libc::EROFS), Error::ReadOnly));
        for broken in [libc::EIO, libc::EFBIG, libc::ESTALE, libc::ENODEV] {
            assert!(matches!(outcome(broken), Error::Failed(_)), "{broken}");
        }
    }

    #[test]
    fn a_write_that_is_not_to_wait_tells_of_a_storage_without_room() {
        use rustix::io::Errno;
        for full in [Errno::NOSPC, Errno::DQUOT] {
            assert!(is_full(&not_at_once(full).unwrap_err()), "{full}");
        }
        let never = not_at_once(Errno::OPNOTSUPP).unwrap_err();
        assert_eq!(never.kind(), io::ErrorKind::Unsupported);
        for other in [Errno::AGAIN, Errno::IO] {
            assert!(!not_at_once(other).unwrap(), "{other}");
        }
    }

    #[test]
    fn a_write_goes_in_parts_whatever_its_slices_are() {
        let data: Vec<u8> = (0..100).collect();
        for lens in [
            &[100][..],
            &[1, 9, 0, 10, 80],
            &[40, 40, 20],
            &[10; 10],
            &[3, 97],
        ] {
            let mut rest = Bytes::copy_from_slice(&data);
            let slices: Vec<_> = lens.iter().map(|&len| rest.split_to(len)).collect();
            for (most, taken) in [(10, 10), (10, 7), (64, 64), (usize::MAX, 33)] {
                let written = std::cell::RefCell::new(Vec::new());
                let call = |slices: &[IoSlice<'_>], at| {
                    let mut written = written.borrow_mut();
                    assert_eq!(at, 5 + written.len() as u64);
                    let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                    assert!(!all.is_empty() && all.len() <= most);
                    let part = all.len().min(taken);
                    written.extend_from_slice(&all[..part]);
                    Ok(part)
                };
                write_vectored(&slices, 5, most, call).unwrap();
                assert_eq!(*written.borrow(), data, "{lens:?} {most}");
            }
        }
    }

    #[test]
    fn what_a_file_has_lost_is_not_taken_for_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(file.read_bytes(0, 4096).unwrap().len(), 4096);
        file.set_len(1024).unwrap();
        assert!(file.read_bytes(0, 4096).is_err());
        assert!(file.read_bytes(512, 512).is_ok());
    }
}
