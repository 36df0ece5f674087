//! A disk that is a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::Advice as Hint;

use super::backing::{self, Backing, Threads, blocking, outcome};
use super::direct::Direct;
use super::flush::Flusher;
use super::journal::{self, Failure, Journal};
use super::line::{Line, SHORT};
use super::{Advice, Answer, Disk, Error, Extent, Geometry, Result, Run, Segment, shape};

/// A disk in a plain file or a block device.
pub struct FileDisk {
    file: Arc<File>,
    /// The same file, read and written past the page cache if that was asked for.
    backing: Arc<dyn Backing>,
    /// The same, opened once more for what is made durable at once. The kernel tells each opened file of
    /// a failed write-back once: what such a write is told, the next flush must be told as well.
    durable: Arc<dyn Backing>,
    cache: Cache,
    at_once: Arc<AtOnce>,
    threads: Arc<Threads>,
    line: Arc<Line>,
    /// The shape, but for the number of blocks.
    shape: Geometry,
    blocks: AtomicU64,
    flusher: Arc<Flusher>,
    journal: Option<Arc<Journal>>,
}

/// How a disk in a file is opened, to be written in place.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// Bytes of a logical block: 512 or 4096.
    pub block_size: u32,
    /// Bytes that initiators are told to write at once, instead of what the storage seems to prefer: a
    /// power of two.
    pub physical_block_size: Option<u32>,
    /// What is kept in memory.
    pub cache: Cache,
    /// A file beside it, made if there is none, by which writes can be atomic.
    pub journal: Option<PathBuf>,
}

/// Whether to try a write that needs no waiting.
struct AtOnce {
    opened: Instant,
    /// Milliseconds after that, from which on it is tried.
    from: AtomicU64,
}

/// How long no write is tried at once after there was no room for one. A write that succeeds meanwhile says
/// nothing: what has its blocks already can be written to a full storage.
const WITHOUT_ROOM: Duration = Duration::from_secs(10);

impl AtOnce {
    fn new() -> Self {
        AtOnce {
            opened: Instant::now(),
            from: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_tried(&self) -> bool {
        match self.from.load(Ordering::Relaxed) {
            0 => true,
            from => from <= self.now(),
        }
    }

    /// Learns from a write that failed, here or where it may wait.
    fn failed(&self, error: &io::Error) {
        let from = match error.kind() {
            io::ErrorKind::Unsupported => u64::MAX,
            _ if backing::is_full(error) => self.now() + WITHOUT_ROOM.as_millis() as u64,
            _ => return,
        };
        self.from.fetch_max(from, Ordering::Relaxed);
    }
}

/// What is kept of a disk in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// What the system thinks good.
    System,
    /// Nothing: all goes to the storage and comes from there (O_DIRECT).
    None,
}

impl FileOptions {
    /// Blocks of this size, with the system's cache and without a journal.
    pub fn new(block_size: u32) -> Self {
        FileOptions {
            block_size,
            physical_block_size: None,
            cache: Cache::System,
            journal: None,
        }
    }
}

impl FileDisk {
    /// A disk that nobody writes any more: reads yield ranges of the file itself.
    pub fn open_sealed(path: &Path, block_size: u32) -> io::Result<Self> {
        Self::open_read_only(path, &FileOptions::new(block_size))
    }

    /// The same, opened as `options` say. Nothing is written, so a journal is not looked at.
    pub fn open_read_only(path: &Path, options: &FileOptions) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        open.read(true);
        let mut disk = Self::open_as(open, path, options)?;
        disk.shape.read_only = true;
        disk.shape.thin = false;
        Ok(disk)
    }

    /// A disk that is written in place.
    pub fn open_writable(path: &Path, block_size: u32) -> io::Result<Self> {
        Self::open(path, &FileOptions::new(block_size))
    }

    /// A disk that is written in place, opened as `options` say. What a crash left in the journal is
    /// written first.
    ///
    /// # Errors
    /// When a file cannot be opened, when the block size is not 512 or 4096, or is too small for storage
    /// that is to be used without a cache.
    pub fn open(path: &Path, options: &FileOptions) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        open.read(true).write(true);
        let mut disk = Self::open_as(open, path, options)?;
        if let Some(path) = &options.journal {
            let journal = Journal::open(path, disk.durable.as_ref())?;
            disk.journal = Some(Arc::new(journal));
            disk.shape.atomic = journal::MOST;
        }
        Ok(disk)
    }

    fn open_as(mut open: OpenOptions, path: &Path, options: &FileOptions) -> io::Result<Self> {
        match options.cache {
            Cache::System => {
                let file = Arc::new(open.open(path)?);
                let again = Arc::new(reopened(&open, &file)?);
                Self::new(file.clone(), [file, again], options)
            }
            Cache::None => {
                open.custom_flags(libc::O_DIRECT);
                let file = open.open(path)?;
                let least = shape::direct_alignment(&file)?;
                if options.block_size < least {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!(
                            "the storage takes no less than {least} bytes at a time without a cache: use blocks of that size, or the cache"
                        ),
                    ));
                }
                let direct = Arc::new(Direct::new(file.try_clone()?));
                let again = Arc::new(Direct::new(reopened(&open, &file)?));
                Self::new(Arc::new(file), [direct, again], options)
            }
        }
    }

    fn new(
        file: Arc<File>,
        [backing, durable]: [Arc<dyn Backing>; 2],
        options: &FileOptions,
    ) -> io::Result<Self> {
        let block_size = options.block_size;
        if !matches!(block_size, 512 | 4096) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a block of {block_size} bytes; 512 and 4096 are possible"),
            ));
        }
        let mut shape = shape::of(&file, size(&file)?, block_size)?;
        if let Some(physical) = options.physical_block_size {
            if !physical.is_power_of_two() || physical < block_size {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "a physical block of {physical} bytes; powers of two from {block_size} on are possible"
                    ),
                ));
            }
            shape.physical_block_size = physical;
            shape.aligned = 0;
        }
        let threads = Arc::default();
        Ok(FileDisk {
            file,
            backing,
            durable,
            cache: options.cache,
            at_once: Arc::new(AtOnce::new()),
            line: Line::of(&threads),
            threads,
            shape,
            blocks: AtomicU64::new(shape.blocks),
            flusher: Arc::default(),
            journal: None,
        })
    }

    /// Writes if that needs no waiting: to ask another thread takes longer. Tells whether it did; where it
    /// did not, all is to be written again.
    fn write_at_once(&self, extent: Extent, data: &[Bytes]) -> bool {
        if extent.len() > SHORT || !self.at_once.is_tried() {
            return false;
        }
        let written = self.backing.write_cached(data, extent.offset());
        written.unwrap_or_else(|error| {
            self.at_once.failed(&error);
            false
        })
    }

    /// Runs a change in the blocking pool, unless the disk is sealed.
    fn change(
        &self,
        work: impl FnOnce(&dyn Backing) -> io::Result<()> + Send + 'static,
    ) -> Answer<Result<()>> {
        if self.shape.read_only {
            return Answer::Now(Err(Error::ReadOnly));
        }
        let (backing, threads) = (self.backing.clone(), self.threads.clone());
        let work = move || work(backing.as_ref());
        Answer::Later(Box::pin(threads.blocking(work)))
    }

    /// A change that syncs: if that fails, what others have written is no longer known to be safe; and once
    /// it is not, nothing is said to be durable. What the journal still holds of a write whose sync failed is
    /// written when the disk is opened next, over whatever came after it.
    fn change_durably(
        &self,
        work: impl FnOnce(&dyn Backing) -> std::result::Result<(), Failure> + Send + 'static,
    ) -> Answer<Result<()>> {
        if self.shape.read_only {
            return Answer::Now(Err(Error::ReadOnly));
        }
        let (backing, flusher) = (self.durable.clone(), self.flusher.clone());
        let threads = self.threads.clone();
        Answer::Later(Box::pin(async move {
            flusher.check()?;
            let work = move || Ok(work(backing.as_ref()));
            match threads.blocking(work).await? {
                Ok(()) => Ok(()),
                Err(Failure { error, lasting }) => {
                    if lasting {
                        flusher.fail();
                    }
                    Err(outcome(error))
                }
            }
        }))
    }
}

/// The same file, opened once more, whatever its path leads to meanwhile.
fn reopened(open: &OpenOptions, file: &File) -> io::Result<File> {
    open.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The end of a block device is found by seeking; its metadata do not tell it.
fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

impl Disk for FileDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            blocks: self.blocks.load(Ordering::Relaxed),
            ..self.shape
        }
    }

    fn read(&self, extent: Extent) -> Answer<Result<Vec<Segment>>> {
        // Whoever sends a range of the file itself reads it through the cache.
        if self.shape.read_only && self.cache == Cache::System {
            return Answer::Now(Ok(vec![Segment::File {
                file: self.file.clone(),
                offset: extent.offset(),
                len: extent.len(),
            }]));
        }
        let len = extent.len() as usize;
        backing::read(&self.backing, &self.threads, extent.offset(), len)
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        if self.shape.read_only {
            return Answer::Now(Err(Error::ReadOnly));
        }
        if self.write_at_once(extent, &data) {
            return Answer::Now(Ok(()));
        }
        let (backing, at_once) = (self.backing.clone(), self.at_once.clone());
        let work = move || {
            let written = backing.write_at(&data, extent.offset());
            written.inspect_err(|error| at_once.failed(error))
        };
        match self.cache {
            Cache::System => self.line.write(extent.range(), work),
            // Each waits for the storage, which does many at a time.
            Cache::None => Answer::Later(Box::pin(self.threads.clone().blocking(work))),
        }
    }

    fn flush(&self) -> Answer<Result<()>> {
        if self.shape.read_only {
            return Answer::Now(Ok(()));
        }
        let (backing, flusher) = (self.backing.clone(), self.flusher.clone());
        Answer::Later(Box::pin(async move {
            flusher.flush(|| blocking(move || backing.sync())).await
        }))
    }

    fn unmap(&self, extent: Extent) -> Answer<Result<()>> {
        self.change(move |file| file.punch(extent.offset(), extent.len()))
    }

    fn write_through(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.change_durably(move |file| {
            let offset = extent.offset();
            file.write_through(&data, offset).map_err(|error| {
                // Where a write without a sync has no room either, it was not the sync that failed.
                let full = matches!(outcome(error.kind().into()), Error::OutOfSpace);
                let lasting = !full || file.write_at(&data, offset).is_ok();
                Failure { error, lasting }
            })
        })
    }

    fn write_atomic(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        let Some(journal) = self.journal.clone() else {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Answer::Now(Err(Error::Failed(error)));
        };
        self.change_durably(move |file| journal.write(file, &data, extent.offset()))
    }

    fn scrub(&self) -> Answer<Result<()>> {
        match self.journal.clone() {
            Some(journal) => self.change_durably(move |_| journal.scrub()),
            None => Answer::Now(Ok(())),
        }
    }

    fn mapping(&self, extent: Extent, most: usize) -> Answer<Result<Vec<Run>>> {
        let (file, block) = (self.backing.clone(), u64::from(self.shape.block_size));
        Answer::Later(Box::pin(self.threads.clone().blocking(move || {
            let runs = file.runs(extent.offset(), extent.len(), most)?;
            Ok(super::segment::whole_blocks(runs, block))
        })))
    }

    fn advise(&self, extent: Extent, advice: Advice) -> Answer<bool> {
        let hint = match advice {
            Advice::Soon => Hint::WillNeed,
            // What others have cached of a disk that they share stays.
            Advice::Reread if self.shape.read_only => return Answer::Now(false),
            Advice::Reread => Hint::DontNeed,
        };
        if self.cache == Cache::None {
            return Answer::Now(false);
        }
        let file = self.file.clone();
        let len = std::num::NonZeroU64::new(extent.len());
        let advise = move || Ok(rustix::fs::fadvise(&*file, extent.offset(), len, hint).is_ok());
        Answer::Later(Box::pin(
            async move { blocking(advise).await.unwrap_or(false) },
        ))
    }

    fn file(&self) -> Option<Arc<File>> {
        (self.cache == Cache::System).then(|| self.file.clone())
    }

    fn file_to_write(&self, _: Extent) -> Option<Arc<File>> {
        self.file()
    }

    fn refresh(&self) -> io::Result<Geometry> {
        let blocks = size(&self.file)? / u64::from(self.shape.block_size);
        // A disk never shrinks under those who use it.
        self.blocks.fetch_max(blocks, Ordering::Relaxed);
        Ok(self.geometry())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model;
    use super::*;
    use crate::block::THREADS_OF_A_DISK;
    use std::io::Write;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_sealed_file_yields_itself_and_refuses_writes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let disk = FileDisk::open_sealed(file.path(), 512).unwrap();
        let extent = disk.geometry().extent(3, 2).unwrap();
        let segments = disk.read(extent).wait().await.unwrap();
        assert!(matches!(
            segments[..],
            [Segment::File {
                offset: 1536,
                len: 1024,
                ..
            }]
        ));
        let data = vec![Bytes::from(vec![1; 1024])];
        assert!(matches!(
            disk.write(extent, data).wait().await,
            Err(Error::ReadOnly)
        ));
        assert!(matches!(
            disk.unmap(extent).wait().await,
            Err(Error::ReadOnly)
        ));
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 8192]);
    }

    #[test]
    fn physical_blocks_are_told_as_it_is_wished() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = |physical| {
            let options = FileOptions {
                physical_block_size: physical,
                ..FileOptions::new(512)
            };
            let written = FileDisk::open(file.path(), &options).ok()?.geometry();
            let read = FileDisk::open_read_only(file.path(), &options).ok()?;
            assert_eq!(
                read.geometry().physical_block_size,
                written.physical_block_size
            );
            Some(written.physical_block_size)
        };
        assert_eq!(told(None), Some(4096));
        assert_eq!(told(Some(512)), Some(512));
        assert_eq!(told(Some(256)), None);
        assert_eq!(told(Some(3000)), None);
    }

    #[test]
    fn odd_block_sizes_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(FileDisk::open_writable(file.path(), 520).is_err());
    }

    /// A file whose writes need no waiting, or do, or are cut short by that, in turn; it counts what it was
    /// asked for.
    struct Moody {
        file: Arc<File>,
        asked: AtomicUsize,
        synced: AtomicBool,
        /// Held while no write may come to its end.
        gate: Mutex<()>,
        /// Most writes at the same time, and those now.
        most: [AtomicUsize; 2],
        /// There is no room for any write.
        full: AtomicBool,
        /// No sync succeeds.
        broken: AtomicBool,
        /// How the writes turn out: none of it, all of it, or only the first slice.
        moods: Vec<u8>,
    }

    impl Moody {
        fn has_room(&self) -> io::Result<()> {
            match self.full.load(Ordering::SeqCst) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl Backing for Moody {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            Backing::read_at(self.file.as_ref(), buffer, offset)
        }

        fn read_cached(&self, _: u64, _: usize) -> Option<Bytes> {
            None
        }

        fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
            self.has_room()?;
            let [most, now] = &self.most;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            drop(self.gate.lock());
            now.fetch_sub(1, Ordering::SeqCst);
            Backing::write_at(self.file.as_ref(), data, offset)
        }

        fn write_cached(&self, data: &[Bytes], offset: u64) -> io::Result<bool> {
            let turn = self.asked.fetch_add(1, Ordering::SeqCst);
            self.has_room()?;
            let Some(mood) = self.moods.get(turn % self.moods.len().max(1)) else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let written = match mood % 3 {
                0 => 0,
                1 => data.len(),
                _ => 1,
            };
            Backing::write_at(self.file.as_ref(), &data[..written.min(data.len())], offset)?;
            Ok(written >= data.len())
        }

        fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
            self.file.punch(offset, len)
        }

        fn sync(&self) -> io::Result<()> {
            self.synced.store(true, Ordering::SeqCst);
            match self.broken.load(Ordering::SeqCst) {
                true => Err(io::Error::other("a broken sync")),
                false => self.file.sync(),
            }
        }
    }

    fn moody(blocks: u64, moods: Vec<u8>) -> (FileDisk, Arc<Moody>) {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(blocks * 512).unwrap();
        let backing = Arc::new(Moody {
            file: file.clone(),
            asked: 0.into(),
            synced: false.into(),
            gate: Mutex::default(),
            most: Default::default(),
            full: false.into(),
            broken: false.into(),
            moods,
        });
        let options = FileOptions::new(512);
        let disk = FileDisk::new(file.clone(), [backing.clone(), file], &options).unwrap();
        (disk, backing)
    }

    #[tokio::test]
    async fn writes_are_tried_at_once_where_they_are_small_and_that_is_known() {
        let zeros = |len: u64| vec![backing::zeros(len as usize)];
        let most = SHORT / 512;
        let (disk, file) = moody(2 * most, vec![1]);
        let extent = |n| disk.geometry().extent(0, n).unwrap();
        assert!(disk.write(extent(most), zeros(SHORT)).is_there());
        assert!(!disk.write(extent(most + 1), zeros(SHORT + 512)).is_there());
        assert_eq!(file.asked.load(Ordering::SeqCst), 1);
        disk.flush().wait().await.unwrap();
        assert!(file.synced.load(Ordering::SeqCst));
        // One that never can is asked once.
        let (disk, file) = moody(8, Vec::new());
        let extent = disk.geometry().extent(0, 1).unwrap();
        for _ in 0..3 {
            disk.write(extent, zeros(512)).wait().await.unwrap();
        }
        assert_eq!(file.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn short_writes_that_cannot_be_done_at_once_share_a_thread() {
        let (disk, file) = moody(256, Vec::new());
        let writes = {
            let _closed = file.gate.lock();
            let writes = (0..32).map(|n| {
                let extent = disk.geometry().extent(n * 8, 8).unwrap();
                disk.write(extent, vec![backing::zeros(4096)]).wait()
            });
            let mut writes = futures_util::future::join_all(writes);
            assert!((&mut writes).now_or_never().is_none());
            writes
        };
        let written = writes.await;
        assert!(written.iter().all(Result::is_ok));
        assert_eq!(file.most[0].load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_disk_that_does_not_answer_leaves_the_others_their_threads() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(100).build().unwrap();
        runtime.block_on(async {
            let (hung, file) = moody(4096, Vec::new());
            let (other, _) = moody(8, Vec::new());
            let all = |disk: &FileDisk, blocks| disk.geometry().extent(0, blocks).unwrap();
            let closed = file.gate.lock();
            // None of these is short, so that each wants a thread.
            let zeros = vec![backing::zeros(4096 * 512)];
            let write = |_| tokio::spawn(hung.write(all(&hung, 4096), zeros.clone()).wait());
            let writes: Vec<_> = (0..200).map(write).collect();
            while file.most[1].load(Ordering::SeqCst) < THREADS_OF_A_DISK {
                tokio::task::yield_now().await;
            }
            other.read(all(&other, 8)).wait().await.unwrap();
            other.flush().wait().await.unwrap();
            drop(closed);
            for write in writes {
                write.await.unwrap().unwrap();
            }
            assert_eq!(file.most[0].load(Ordering::SeqCst), THREADS_OF_A_DISK);
        });
    }

    #[tokio::test]
    async fn once_a_flush_has_failed_nothing_is_said_to_be_durable() {
        let (disk, file) = moody(8, vec![1]);
        let disk = Arc::new(disk);
        let extent = disk.geometry().extent(0, 1).unwrap();
        let through = || {
            disk.clone()
                .write_through(extent, vec![backing::zeros(512)])
        };
        through().wait().await.unwrap();
        file.broken.store(true, Ordering::SeqCst);
        assert!(disk.flush().wait().await.is_err());
        file.broken.store(false, Ordering::SeqCst);
        assert!(disk.flush().wait().await.is_err());
        assert!(through().wait().await.is_err());
    }

    #[tokio::test]
    async fn without_room_nothing_is_tried_at_once_for_a_while() {
        let zeros = |blocks: u64| vec![backing::zeros(blocks as usize * 512)];
        let many = SHORT / 512 + 1;
        // Who finds that there is no room: the short write that was tried at once, or a long one.
        for (first, tried) in [(1, 1), (many, 0)] {
            let (disk, file) = moody(many, vec![1]);
            let write = async |blocks| {
                let extent = disk.geometry().extent(0, blocks).unwrap();
                disk.write(extent, zeros(blocks)).wait().await
            };
            let asked = || file.asked.load(Ordering::SeqCst);
            file.full.store(true, Ordering::SeqCst);
            for blocks in [first, 1, 1] {
                assert!(matches!(write(blocks).await, Err(Error::OutOfSpace)));
            }
            assert_eq!(asked(), tried);
            // One that finds its blocks there already tells nothing of room.
            file.full.store(false, Ordering::SeqCst);
            write(1).await.unwrap();
            write(1).await.unwrap();
            assert_eq!(asked(), tried);
            let from = &disk.at_once.from;
            let now = disk.at_once.now();
            assert!((now + 1..=now + 10_000).contains(&from.load(Ordering::SeqCst)));
            from.store(now, Ordering::SeqCst);
            write(1).await.unwrap();
            assert_eq!(asked(), tried + 1);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_write_that_was_cut_short_is_written_again(
            ops in model::ops(model::BLOCKS),
            moods in proptest::collection::vec(0_u8..3, 1..8),
        ) {
            let (disk, _) = moody(model::BLOCKS, moods);
            model::check(&disk, vec![0; model::BLOCKS as usize * 512], ops);
        }

        #[test]
        fn behaves_as_a_byte_array(ops in model::ops(model::BLOCKS)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(model::BLOCKS * 512).unwrap();
            let disk = FileDisk::open_writable(file.path(), 512).unwrap();
            let expected = vec![0; model::BLOCKS as usize * 512];
            model::check(&disk, expected, ops);
        }
    }
}
