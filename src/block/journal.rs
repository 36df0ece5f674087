//! Writes that happen as a whole or not at all, whatever file they go to.
//!
//! No file system promises that a write of several pages survives a crash as a whole. So what is to be
//! written is made durable in a second file first, then written where it belongs, and then the second
//! file is emptied; whoever opens the disk after a crash writes again what stands in there. That is
//! safe since nothing else is written to the same range until the second file is durably empty.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use rustix::fs::FallocateFlags;
use sha2::{Digest, Sha256};

use super::backing::Backing;

/// Most bytes of one write: 256 blocks of 4 KiB.
pub(super) const MOST: u32 = 1024 * 1024;

/// Bytes before the data, in a page of their own: magic, offset, length, digest of both and the data.
const HEADER_LEN: usize = 4096;
const MAGIC: [u8; 8] = *b"NRJRNL01";
const DIGEST_LEN: usize = 32;

/// The second file of a disk.
pub(super) struct Journal {
    // Held for one write and its syncs, in the blocking pool, never across an await: there is room for
    // one write. Nothing once it is not known what it holds: what that is, the next to open the disk sees to.
    file: Mutex<Option<Box<dyn Backing>>>,
}

impl Journal {
    /// The journal at `path`, made if there is none, for the disk in `disk`: what a crash left in it is
    /// written first. Nobody else may use either file.
    pub(super) fn open(path: &Path, disk: &dyn Backing) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // It holds what the disk holds.
            .mode(0o600)
            .open(path)?;
        // Reserved now, so that a write of which the disk has the room does not fail for want of it
        // here. Some file systems cannot.
        let len = HEADER_LEN as u64 + u64::from(MOST);
        let _ = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len);
        file.sync_all()?;
        Self::over(Box::new(file), disk)
    }

    fn over(file: Box<dyn Backing>, disk: &dyn Backing) -> io::Result<Self> {
        if let Some((offset, data)) = recall(file.as_ref())? {
            disk.write_at(&[data], offset)?;
            disk.sync()?;
            clear(file.as_ref())?;
        }
        Ok(Journal {
            file: Mutex::new(Some(file)),
        })
    }

    /// Writes all of `data` durably, or nothing. May block.
    pub(super) fn write(
        &self,
        disk: &dyn Backing,
        data: &[Bytes],
        offset: u64,
    ) -> Result<(), Failure> {
        let data = Bytes::from(data.concat());
        self.with(|file| {
            let before = disk
                .read_bytes(offset, data.len())
                .map_err(Failure::passing)?;
            // From here on it is not known what the journal holds, until it is known to be empty.
            file.write_at(&[header(offset, &data), data.clone()], 0)
                .or_else(|error| {
                    clear(file)?;
                    Err(Failure::passing(error))
                })?;
            file.sync()?;
            if let Err(error) = disk.write_at(&[data], offset) {
                // What was there before takes no room that is not there.
                disk.write_at(&[before], offset)?;
                // Some of the new data may be stored, and only the journal can tell what was to be there.
                disk.sync()?;
                clear(file)?;
                return Err(Failure::passing(error));
            }
            disk.sync()?;
            Ok(clear(file)?)
        })
    }

    /// Overwrites what writes have left in it. May block.
    pub(super) fn scrub(&self) -> Result<(), Failure> {
        self.with(|file| {
            let zeros = super::zeros(HEADER_LEN + MOST as usize);
            file.write_at(&[zeros], 0).map_err(Failure::passing)?;
            Ok(file.sync()?)
        })
    }

    /// Does something with its file, unless it still holds a write that failed: that one is not to be
    /// overwritten.
    fn with(&self, work: impl FnOnce(&dyn Backing) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut place = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = place.as_deref() else {
            return Err(Failure::lasting(io::Error::other(
                "an earlier write of this disk failed, and is undone or completed when it is opened next",
            )));
        };
        let done = work(file);
        if done.as_ref().is_err_and(|failure| failure.lasting) {
            *place = None;
        }
        done
    }
}

/// A write that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    /// It is not known what is durable from now on: a sync failed, or the journal still holds a write
    /// that was not answered, which the next to open the disk completes.
    pub(super) lasting: bool,
}

impl Failure {
    pub(super) fn passing(error: io::Error) -> Self {
        Failure {
            error,
            lasting: false,
        }
    }

    fn lasting(error: io::Error) -> Self {
        Failure {
            error,
            lasting: true,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::lasting(error)
    }
}

fn header(offset: u64, data: &[u8]) -> Bytes {
    let len = data.len() as u64;
    let mut page = BytesMut::from(MAGIC.as_slice());
    page.extend_from_slice(&offset.to_le_bytes());
    page.extend_from_slice(&len.to_le_bytes());
    page.extend_from_slice(&digest(offset, data));
    page.resize(HEADER_LEN, 0);
    page.freeze()
}

fn digest(offset: u64, data: &[u8]) -> [u8; DIGEST_LEN] {
    let mut hash = Sha256::new();
    hash.update(offset.to_le_bytes());
    hash.update(data);
    hash.finalize().into()
}

/// The write that a journal holds completely.
fn recall(file: &dyn Backing) -> io::Result<Option<(u64, Bytes)>> {
    let mut head = [0; 24 + DIGEST_LEN];
    file.read_at(&mut head, 0)?;
    let [magic, offset, len] = [0, 8, 16].map(|at| {
        let bytes = head.get(at..at + 8).unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    });
    if magic != u64::from_le_bytes(MAGIC) || len > u64::from(MOST) {
        return Ok(None);
    }
    let mut data = vec![0; len as usize];
    file.read_at(&mut data, HEADER_LEN as u64)?;
    let whole = head.get(24..) == Some(digest(offset, &data).as_slice());
    Ok(whole.then(|| (offset, data.into())))
}

/// Durably without a write.
fn clear(file: &dyn Backing) -> io::Result<()> {
    file.write_at(&[super::zeros(MAGIC.len())], 0)?;
    file.sync()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

    use super::*;

    /// A file of a host that stops after so many writes and syncs: of the write at that moment the
    /// first half gets through, and nothing later.
    #[derive(Clone)]
    struct Stopping {
        bytes: Arc<Mutex<Vec<u8>>>,
        left: Arc<AtomicIsize>,
    }

    impl Stopping {
        fn new(len: usize, fill: u8, left: &Arc<AtomicIsize>) -> Self {
            Stopping {
                bytes: Arc::new(Mutex::new(vec![fill; len])),
                left: left.clone(),
            }
        }

        /// Steps that are left before this one.
        fn step(&self) -> isize {
            self.left.fetch_sub(1, Ordering::SeqCst)
        }
    }

    impl Backing for Stopping {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let bytes = self.bytes.lock().unwrap();
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }

        fn read_cached(&self, _: u64, _: usize) -> Option<Bytes> {
            None
        }

        fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
            let left = self.step();
            let data = data.concat();
            let n = match left {
                1.. => data.len(),
                0 => data.len() / 2,
                _ => 0,
            };
            self.bytes.lock().unwrap()[offset as usize..][..n].copy_from_slice(&data[..n]);
            let stopped = || io::Error::other("the host has stopped");
            (left > 0).then_some(()).ok_or_else(stopped)
        }

        fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
            self.write_at(&[super::super::zeros(len as usize)], offset)
        }

        fn sync(&self) -> io::Result<()> {
            let stopped = || io::Error::other("the host has stopped");
            (self.step() > 0).then_some(()).ok_or_else(stopped)
        }
    }

    #[test]
    fn a_host_that_stops_at_any_moment_leaves_all_of_a_write_or_nothing() {
        let (mut old, mut new) = (0, 0);
        for steps in 0..12 {
            let left = Arc::new(AtomicIsize::new(steps));
            let disk = Stopping::new(16384, 1, &left);
            let log = Stopping::new(HEADER_LEN + MOST as usize, 0, &left);
            let journal = Journal {
                file: Mutex::new(Some(Box::new(log.clone()))),
            };
            let answered = journal.write(&disk, &[Bytes::from(vec![2; 8192])], 4096);

            left.store(isize::MAX, Ordering::SeqCst);
            Journal::over(Box::new(log.clone()), &disk).unwrap();
            let bytes = disk.bytes.lock().unwrap();
            let (head, rest) = bytes.split_at(4096);
            let (middle, tail) = rest.split_at(8192);
            assert!(
                head.iter().chain(tail).all(|b| *b == 1),
                "after {steps} steps"
            );
            assert!(
                middle.iter().all(|b| *b == middle[0]),
                "a part after {steps} steps"
            );
            if answered.is_ok() {
                assert_eq!(middle[0], 2);
            }
            *(if middle[0] == 2 { &mut new } else { &mut old }) += 1;
            assert!(recall(&log).unwrap().is_none(), "nothing is written twice");
        }
        assert!(
            old > 0 && new > 1,
            "some end before the write, some behind it"
        );
    }

    /// A file whose writes the host keeps until they are synced, and of one has room for the first half only.
    struct Cached {
        written: Mutex<Vec<u8>>,
        synced: Mutex<Vec<u8>>,
        fails: AtomicBool,
    }

    impl Backing for Cached {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let bytes = self.written.lock().unwrap();
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }

        fn read_cached(&self, _: u64, _: usize) -> Option<Bytes> {
            None
        }

        fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
            let mut data = data.concat();
            let fails = self.fails.swap(false, Ordering::SeqCst);
            if fails {
                data.truncate(data.len() / 2);
            }
            let mut bytes = self.written.lock().unwrap();
            bytes[offset as usize..][..data.len()].copy_from_slice(&data);
            if fails {
                // Who keeps writes may store them whenever he wants.
                self.synced.lock().unwrap().clone_from(&bytes);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
            self.write_at(&[super::super::zeros(len as usize)], offset)
        }

        fn sync(&self) -> io::Result<()> {
            let bytes = self.written.lock().unwrap().clone();
            *self.synced.lock().unwrap() = bytes;
            Ok(())
        }
    }

    #[test]
    fn what_a_write_that_failed_has_stored_is_durably_undone_before_it_is_forgotten() {
        let disk = Cached {
            written: Mutex::new(vec![1; 16384]),
            synced: Mutex::new(vec![1; 16384]),
            fails: AtomicBool::new(true),
        };
        let left = Arc::new(AtomicIsize::new(isize::MAX));
        let log = Stopping::new(HEADER_LEN + MOST as usize, 0, &left);
        let journal = Journal::over(Box::new(log.clone()), &disk).unwrap();
        let write = |fill| journal.write(&disk, &[Bytes::from(vec![fill; 8192])], 4096);
        let failure = write(2).unwrap_err();
        assert!(!failure.lasting);
        assert!(recall(&log).unwrap().is_none());
        assert!(disk.synced.lock().unwrap().iter().all(|byte| *byte == 1));
        write(3).unwrap();
        assert_eq!(disk.synced.lock().unwrap()[4096..][..8192], [3; 8192]);
    }

    #[test]
    fn a_write_whose_sync_failed_is_not_overwritten_by_the_next() {
        // Two steps of the journal's, one of the disk's, and its sync fails.
        let left = Arc::new(AtomicIsize::new(3));
        let disk = Stopping::new(16384, 1, &left);
        let log = Stopping::new(HEADER_LEN + MOST as usize, 0, &left);
        let journal = Journal::over(Box::new(log.clone()), &disk).unwrap();
        let write = |fill, at| journal.write(&disk, &[Bytes::from(vec![fill; 4096])], at);
        assert!(write(2, 0).unwrap_err().lasting);
        left.store(isize::MAX, Ordering::SeqCst);
        assert!(write(3, 8192).unwrap_err().lasting);
        assert!(journal.scrub().unwrap_err().lasting);
        let (offset, data) = recall(&log).unwrap().unwrap();
        assert_eq!((offset, &data[..]), (0, &[2; 4096][..]));
    }

    #[test]
    fn nothing_is_left_of_writes_when_it_is_scrubbed() {
        let left = Arc::new(AtomicIsize::new(isize::MAX));
        let disk = Stopping::new(16384, 1, &left);
        let log = Stopping::new(HEADER_LEN + MOST as usize, 0, &left);
        let journal = Journal {
            file: Mutex::new(Some(Box::new(log.clone()))),
        };
        let data = Bytes::from(vec![2; 8192]);
        journal.write(&disk, &[data], 4096).unwrap();
        assert!(log.bytes.lock().unwrap().contains(&2));
        journal.scrub().unwrap();
        assert!(log.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
    }
}
