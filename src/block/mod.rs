//! Numbered blocks: what a disk can do, whoever asks and wherever the bytes are.
//!
//! This floor knows no SCSI, no iSCSI and no image. A [`Disk`] answers reads with [`Segment`]s, so
//! that what lies unchanged in a file can go from the file to a socket without being touched, and
//! it answers at once or later ([`Answer`]), so that page-cache hits cost no task switch and a
//! networked disk fits behind the same trait.
//!
//! Disks are `file` (a file or block device; `direct` past the cache, `journal` for writes that are atomic,
//! `shape` for what its storage likes), `shared` (such a file that has much in common with a sealed one),
//! `overlay` and `memory`; `quota` holds one of them to so many bytes of its own. They share `backing` (the few calls to a
//! file), `flush` (flushes that arrive together), `line` (short writes that need a thread) and `copy` (from
//! one disk to another).

use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::backing::THREADS_OF_A_DISK;
pub use self::backing::zeros;
pub use self::copy::copy;
pub use self::file::{Cache, FileDisk, FileOptions};
pub use self::memory::MemoryDisk;
pub use self::overlay::OverlayDisk;
pub use self::quota::{Own, Quota, QuotaDisk};
pub use self::segment::{is_cached, load, total};
pub use self::shared::SharedDisk;

mod backing;
mod copy;
mod direct;
mod file;
mod flush;
mod journal;
mod line;
mod memory;
#[cfg(test)]
mod model;
mod overlay;
mod quota;
mod segment;
mod shape;
mod shared;

/// The shape of a disk. Sizes are in bytes unless the name says blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical block: 512 or 4096.
    pub block_size: u32,
    /// Bytes that the storage behind prefers to write at once; a multiple of `block_size`.
    pub physical_block_size: u32,
    /// Number of logical blocks.
    pub blocks: u64,
    /// Nobody may write.
    pub read_only: bool,
    /// Unmapped blocks give their space back and read as zeros.
    pub thin: bool,
    /// The first block that begins where the storage behind begins one of its own.
    pub aligned: u32,
    /// Bytes in which space is given back; a multiple of `block_size`.
    pub unmap_size: u32,
    /// The first block at which such a piece begins.
    pub unmap_aligned: u32,
    /// Most bytes of one [`write_atomic`](Disk::write_atomic); 0 where there is none.
    pub atomic: u32,
}

/// A part of a disk in which all blocks are mapped, or none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Bytes of it, whole blocks.
    pub len: u64,
    /// Space is taken by it. What is not mapped reads as zeros.
    pub mapped: bool,
}

/// What a disk may know about reads to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// They come soon.
    Soon,
    /// The next one is to see what the storage holds, not what is cached.
    Reread,
}

/// A part of a disk that is known to lie within it, at block boundaries.
///
/// Only [`Geometry::extent`] makes one, so nothing behind it checks bounds again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    offset: u64,
    len: u64,
}

/// What a read yields, in order; the lengths add up to the extent's.
#[derive(Debug, Clone)]
pub enum Segment {
    /// `len` bytes at `offset` of a file that nobody writes any more.
    File {
        /// The file, open for reading.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The bytes themselves.
    Bytes(Bytes),
    /// This many zero bytes.
    Zeros(u64),
}

/// Why a disk did not do what it was asked. With `Ok`, the four outcomes of every request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room to write; there may be later.
    #[error("no space left for the disk")]
    OutOfSpace,
    /// This disk is never written.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The storage behind failed.
    #[error("the disk's storage failed")]
    Failed(#[source] io::Error),
}

/// Result of a request to a disk.
pub type Result<T> = std::result::Result<T, Error>;

/// An answer that is there already, or comes later.
pub enum Answer<T> {
    /// Known at once: the caller goes on without a task switch.
    Now(T),
    /// Resolves when the storage has answered.
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

/// A disk: blocks that can be read, and perhaps written.
///
/// Requests are made within a Tokio runtime, may begin before anybody waits for them, and may run at the
/// same time; each sees whole blocks. A write is visible to every read that
/// starts after it was answered, and durable once a [`flush`](Disk::flush) that started after that
/// was answered.
pub trait Disk: Send + Sync + 'static {
    /// The shape of the disk now. It may grow while it is in use, never shrink.
    fn geometry(&self) -> Geometry;
    /// Reads `extent`.
    fn read(&self, extent: Extent) -> Answer<Result<Vec<Segment>>>;
    /// Writes `data`, whose lengths add up to the extent's, over `extent`.
    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>>;
    /// Makes what was answered before durable.
    fn flush(&self) -> Answer<Result<()>>;
    /// Makes `extent` read as zeros and gives its space back where the storage can.
    fn unmap(&self, extent: Extent) -> Answer<Result<()>>;

    /// Writes as [`write`](Disk::write) does, and answers when that is durable.
    fn write_through(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        Answer::Later(Box::pin(async move {
            self.write(extent, data).wait().await?;
            self.flush().wait().await
        }))
    }

    /// Writes all of `data` durably, or nothing, whatever happens meanwhile: no crash of this process
    /// or of its host leaves a part. At most [`Geometry::atomic`] bytes, and nothing else may write to
    /// the extent before this is answered.
    fn write_atomic(self: Arc<Self>, _: Extent, _: Vec<Bytes>) -> Answer<Result<()>> {
        let error = io::Error::from(io::ErrorKind::Unsupported);
        Answer::Now(Err(Error::Failed(error)))
    }

    /// Destroys what the storage keeps of earlier writes besides the blocks themselves.
    fn scrub(&self) -> Answer<Result<()>> {
        Answer::Now(Ok(()))
    }

    /// Which parts of `extent` are mapped, from its start: at most `most` runs, which may be fewer than
    /// the whole extent needs.
    fn mapping(&self, extent: Extent, _most: usize) -> Answer<Result<Vec<Run>>> {
        Answer::Now(Ok(vec![Run {
            len: extent.len(),
            mapped: true,
        }]))
    }

    /// Tells of reads to come. Whether that was of use: a disk without a cache has none for it.
    fn advise(&self, _: Extent, _: Advice) -> Answer<bool> {
        Answer::Now(false)
    }

    /// The file that holds the disk's bytes, each at its own offset, where a system call may copy from
    /// it.
    fn file(&self) -> Option<Arc<File>> {
        None
    }

    /// The same, for a system call that writes over `extent` of it and of nothing else.
    fn file_to_write(&self, _: Extent) -> Option<Arc<File>> {
        None
    }

    /// Looks how large the storage has become, and what the disk's shape is from now on.
    ///
    /// # Errors
    /// When the storage cannot tell.
    fn refresh(&self) -> io::Result<Geometry> {
        Ok(self.geometry())
    }
}

impl Geometry {
    /// `blocks` blocks from `lba`, or nothing where that is not within the disk.
    pub fn extent(&self, lba: u64, blocks: u64) -> Option<Extent> {
        let end = lba.checked_add(blocks)?;
        if end > self.blocks {
            return None;
        }
        let size = u64::from(self.block_size);
        Some(Extent {
            offset: lba.checked_mul(size)?,
            len: blocks.checked_mul(size)?,
        })
    }
}

impl Extent {
    /// The part of this extent from `start` on, up to `len` bytes; both are multiples of the block.
    pub(crate) fn part(&self, start: u64, len: u64) -> Extent {
        let start = start.min(self.len);
        Extent {
            offset: self.offset + start,
            len: len.min(self.len - start),
        }
    }

    /// Both as a range of bytes.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + self.len
    }

    /// First byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Send + 'static> Answer<T> {
    /// The answer, waited for if need be.
    pub async fn wait(self) -> T {
        match self {
            Answer::Now(value) => value,
            Answer::Later(future) => future.await,
        }
    }

    /// Whether it is known already.
    fn is_there(&self) -> bool {
        matches!(self, Answer::Now(_))
    }

    /// The answer, if it is known already.
    fn there(self) -> Option<T> {
        match self {
            Answer::Now(value) => Some(value),
            Answer::Later(_) => None,
        }
    }

    /// The same answer, changed by `f`, without waiting.
    pub fn map<U: 'static>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Answer<U> {
        match self {
            Answer::Now(value) => Answer::Now(f(value)),
            Answer::Later(future) => Answer::Later(Box::pin(async move { f(future.await) })),
        }
    }
}
