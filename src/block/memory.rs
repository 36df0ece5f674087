//! A disk in memory, for tests and for scratch.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::{Advice, Answer, Disk, Error, Extent, Geometry, Result, Run, Segment};

/// Most bytes of an atomic write.
const ATOMIC: u32 = 1024 * 1024;

/// A disk whose bytes are gone when it is dropped.
pub struct MemoryDisk {
    geometry: Geometry,
    // Held for the time of a copy, never across an await.
    bytes: RwLock<Vec<u8>>,
}

impl MemoryDisk {
    /// A disk of `blocks` zero blocks of `block_size` bytes.
    pub fn new(block_size: u32, blocks: u64) -> Self {
        let size = u64::from(block_size) * blocks;
        MemoryDisk {
            geometry: Geometry {
                block_size,
                physical_block_size: block_size.max(4096),
                blocks,
                read_only: false,
                thin: true,
                aligned: 0,
                unmap_size: block_size.max(4096),
                unmap_aligned: 0,
                // A crash leaves nothing of it, and no part either.
                atomic: ATOMIC,
            },
            bytes: RwLock::new(vec![0; size as usize]),
        }
    }

    /// The same disk, refusing writes from now on.
    pub fn sealed(mut self) -> Self {
        self.geometry.read_only = true;
        self.geometry.thin = false;
        self
    }

    /// Everything that is on it.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, extent: Extent, fill: impl FnOnce(&mut [u8])) -> Answer<Result<()>> {
        if self.geometry.read_only {
            return Answer::Now(Err(Error::ReadOnly));
        }
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let (start, len) = (extent.offset() as usize, extent.len() as usize);
        if let Some(range) = bytes.get_mut(start..start + len) {
            fill(range);
        }
        Answer::Now(Ok(()))
    }
}

impl Disk for MemoryDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, extent: Extent) -> Answer<Result<Vec<Segment>>> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let (start, len) = (extent.offset() as usize, extent.len() as usize);
        let range = bytes.get(start..start + len).unwrap_or_default();
        Answer::Now(Ok(vec![Segment::Bytes(Bytes::copy_from_slice(range))]))
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.change(extent, |mut range| {
            for part in data {
                let n = part.len().min(range.len());
                let (head, tail) = range.split_at_mut(n);
                head.copy_from_slice(part.get(..n).unwrap_or_default());
                range = tail;
            }
        })
    }

    fn flush(&self) -> Answer<Result<()>> {
        Answer::Now(Ok(()))
    }

    fn unmap(&self, extent: Extent) -> Answer<Result<()>> {
        self.change(extent, |range| range.fill(0))
    }

    fn write_atomic(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.write(extent, data)
    }

    fn mapping(&self, extent: Extent, most: usize) -> Answer<Result<Vec<Run>>> {
        let block = self.geometry.block_size as usize;
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let (start, len) = (extent.offset() as usize, extent.len() as usize);
        let range = bytes.get(start..start + len).unwrap_or_default();
        let mut runs: Vec<Run> = Vec::new();
        for block in range.chunks(block) {
            // Blocks of zeros are no more than unmapped ones here.
            let mapped = block.iter().any(|byte| *byte != 0);
            let full = runs.len() >= most;
            let len = block.len() as u64;
            match runs.last_mut() {
                Some(last) if last.mapped == mapped => last.len += len,
                Some(_) if full => break,
                _ => runs.push(Run { len, mapped }),
            }
        }
        Answer::Now(Ok(runs))
    }

    /// All of it is.
    fn advise(&self, _: Extent, _: Advice) -> Answer<bool> {
        Answer::Now(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model;
    use super::*;

    proptest::proptest! {
        #[test]
        fn behaves_as_a_byte_array(ops in model::ops(model::BLOCKS)) {
            let disk = MemoryDisk::new(512, model::BLOCKS);
            model::check(&disk, vec![0; model::BLOCKS as usize * 512], ops);
            assert_eq!(disk.contents().len() as u64, model::BLOCKS * 512);
        }
    }
}
