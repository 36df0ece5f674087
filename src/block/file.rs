//! A disk that is a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::backing::{self, Backing, blocking};
use super::flush::Flusher;
use super::{Answer, Disk, Error, Extent, Geometry, Result, Segment};

/// Storage behind a file is written in pages.
const PAGE: u32 = 4096;

/// A disk in a plain file or a block device.
pub struct FileDisk {
    file: Arc<File>,
    /// The shape, but for the number of blocks.
    shape: Geometry,
    blocks: AtomicU64,
    flusher: Arc<Flusher>,
}

impl FileDisk {
    /// A disk that nobody writes any more: reads yield ranges of the file itself.
    pub fn open_sealed(path: &Path, block_size: u32) -> io::Result<Self> {
        let file = File::open(path)?;
        Self::new(file, block_size, Access::Sealed)
    }

    /// A disk that is written in place.
    pub fn open_writable(path: &Path, block_size: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Self::new(file, block_size, Access::Writable)
    }

    fn new(file: File, block_size: u32, access: Access) -> io::Result<Self> {
        if !matches!(block_size, 512 | 4096) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a block of {block_size} bytes; 512 and 4096 are possible"),
            ));
        }
        let sealed = matches!(access, Access::Sealed);
        let blocks = size(&file)? / u64::from(block_size);
        Ok(FileDisk {
            file: Arc::new(file),
            shape: Geometry {
                block_size,
                physical_block_size: PAGE.max(block_size),
                blocks,
                read_only: sealed,
                thin: !sealed,
            },
            blocks: AtomicU64::new(blocks),
            flusher: Arc::default(),
        })
    }

    /// Runs a change in the blocking pool, unless the disk is sealed.
    fn change(
        &self,
        work: impl FnOnce(&File) -> io::Result<()> + Send + 'static,
    ) -> Answer<Result<()>> {
        if self.shape.read_only {
            return Answer::Now(Err(Error::ReadOnly));
        }
        let file = self.file.clone();
        Answer::Later(Box::pin(blocking(move || work(&file))))
    }
}

enum Access {
    Sealed,
    Writable,
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
        if self.shape.read_only {
            return Answer::Now(Ok(vec![Segment::File {
                file: self.file.clone(),
                offset: extent.offset(),
                len: extent.len(),
            }]));
        }
        backing::read(&self.file, extent.offset(), extent.len() as usize)
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.change(move |file| file.write_at(&data, extent.offset()))
    }

    fn flush(&self) -> Answer<Result<()>> {
        if self.shape.read_only {
            return Answer::Now(Ok(()));
        }
        let (file, flusher) = (self.file.clone(), self.flusher.clone());
        Answer::Later(Box::pin(async move {
            flusher.flush(|| blocking(move || file.sync())).await
        }))
    }

    fn unmap(&self, extent: Extent) -> Answer<Result<()>> {
        self.change(move |file| file.punch(extent.offset(), extent.len()))
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
    use std::io::Write;

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
    fn odd_block_sizes_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(FileDisk::open_writable(file.path(), 520).is_err());
    }

    proptest::proptest! {
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
