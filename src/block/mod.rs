//! Numbered blocks: what a disk can do, whoever asks and wherever the bytes are.
//!
//! This floor knows no SCSI, no iSCSI and no image. A [`Disk`] answers reads with [`Segment`]s, so
//! that what lies unchanged in a file can go from the file to a socket without being touched, and
//! it answers at once or later ([`Answer`]), so that page-cache hits cost no task switch and a
//! networked disk fits behind the same trait.

use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use self::backing::zeros;
pub use self::file::FileDisk;
pub use self::memory::MemoryDisk;
pub use self::overlay::OverlayDisk;
pub use self::segment::{is_cached, load, total};

mod backing;
mod file;
mod flush;
mod memory;
#[cfg(test)]
mod model;
mod overlay;
mod segment;

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
/// Requests may run at the same time; each sees whole blocks. A write is visible to every read that
/// starts after it was answered, and durable once a [`flush`](Disk::flush) that started after that
/// was answered.
pub trait Disk: Send + Sync {
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

    /// The same answer, changed by `f`, without waiting.
    pub fn map<U: 'static>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Answer<U> {
        match self {
            Answer::Now(value) => Answer::Now(f(value)),
            Answer::Later(future) => Answer::Later(Box::pin(async move { f(future.await) })),
        }
    }
}
