//! Which grains an overlay holds, in memory and in its file.
//!
//! The file is a header of one page and one bit a grain. Bits only ever go from 0 to 1, so a page of
//! which only a part reached the disk is still true: it claims fewer grains, never one too many.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::block::backing::Backing;

/// Bytes of a grain.
pub(super) const GRAIN: u64 = 4096;

/// Bytes of the header, and of the unit in which the bitmap is written.
const PAGE: usize = 4096;
/// Words of 64 grains in such a page.
const PAGE_WORDS: usize = PAGE / 8;

const MAGIC: [u8; 8] = *b"NROVLY01";

/// What the header tells: its magic, the grain and the size of the disk, as little-endian words.
pub(super) fn header(size: u64) -> Bytes {
    let mut page = BytesMut::zeroed(0);
    page.extend_from_slice(&MAGIC);
    page.extend_from_slice(&GRAIN.to_le_bytes());
    page.extend_from_slice(&size.to_le_bytes());
    page.resize(PAGE, 0);
    page.freeze()
}

/// Bytes of the file for a disk of `size` bytes.
pub(super) fn file_len(size: u64) -> u64 {
    let words = size.div_ceil(GRAIN).div_ceil(64);
    PAGE as u64 + words.next_multiple_of(PAGE_WORDS as u64) * 8
}

/// The bitmap of one overlay.
pub(super) struct Bitmap {
    file: Arc<dyn Backing>,
    size: u64,
    words: Vec<AtomicU64>,
    /// Pages that differ from the file.
    dirty: Vec<AtomicBool>,
}

impl Bitmap {
    /// Reads a bitmap from its file.
    pub(super) fn load(file: Arc<dyn Backing>) -> io::Result<Self> {
        let mut head = [0; 24];
        file.read_at(&mut head, 0)?;
        let [magic, grain, size] = [0, 8, 16].map(|at| word(&head, at));
        if magic != u64::from_le_bytes(MAGIC) || grain != GRAIN || size == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this file is not the bitmap of an overlay, or one that this version cannot read",
            ));
        }
        let len = usize::try_from(file_len(size) - PAGE as u64).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, PAGE as u64)?;
        let words: Vec<_> = (0..len / 8)
            .map(|i| AtomicU64::new(word(&bytes, i * 8)))
            .collect();
        let dirty = (0..words.len() / PAGE_WORDS)
            .map(|_| AtomicBool::new(false))
            .collect();
        Ok(Bitmap {
            file,
            size,
            words,
            dirty,
        })
    }

    /// Size of the disk in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the overlay holds this grain.
    pub(super) fn holds(&self, grain: u64) -> bool {
        self.words
            .get((grain / 64) as usize)
            .is_some_and(|word| word.load(Ordering::Acquire) & (1 << (grain % 64)) != 0)
    }

    /// Notes that the overlay holds these grains. Their data must have been written before.
    pub(super) fn hold(&self, grains: Range<u64>) {
        let mut at = grains.start;
        while at < grains.end {
            let end = ((at / 64 + 1) * 64).min(grains.end);
            let mask = (u64::MAX >> (64 - (end - at))) << (at % 64);
            let index = (at / 64) as usize;
            if let Some(word) = self.words.get(index)
                && word.fetch_or(mask, Ordering::AcqRel) & mask != mask
                && let Some(dirty) = self.dirty.get(index / PAGE_WORDS)
            {
                // After the bit: a snapshot that takes the flag away sees the bit as well.
                dirty.store(true, Ordering::Release);
            }
            at = end;
        }
    }

    /// What must be written to the file for it to tell what is held now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let pages = self
            .dirty
            .iter()
            .zip(self.words.chunks(PAGE_WORDS))
            .enumerate()
            .filter(|(_, (dirty, _))| dirty.swap(false, Ordering::AcqRel))
            .map(|(i, (_, words))| {
                let bytes: Vec<u8> = words
                    .iter()
                    .flat_map(|word| word.load(Ordering::Acquire).to_le_bytes())
                    .collect();
                (i, Bytes::from(bytes))
            })
            .collect();
        Snapshot(pages)
    }

    /// Writes a snapshot and makes it durable. The data of its grains must be durable already.
    pub(super) fn store(&self, snapshot: &Snapshot) -> io::Result<()> {
        if snapshot.0.is_empty() {
            return Ok(());
        }
        for (page, bytes) in &snapshot.0 {
            let offset = (PAGE * (page + 1)) as u64;
            self.file.write_at(std::slice::from_ref(bytes), offset)?;
        }
        self.file.sync()
    }
}

/// Pages of a bitmap as they were at one moment.
pub(super) struct Snapshot(Vec<(usize, Bytes)>);

/// The little-endian word at `at`, 0 where there is none.
fn word(bytes: &[u8], at: usize) -> u64 {
    let slice = bytes.get(at..at + 8).unwrap_or_default();
    slice.try_into().map_or(0, u64::from_le_bytes)
}
