//! Which grains an overlay holds, in memory and in its file.
//!
//! The file is a header of one page, the durable map, a page with the id of the host's boot, and the
//! recent map; a map has one bit a grain.
//! - A bit of the durable map stands for data that are on the disk. Bits only ever go from 0 to 1, so
//!   a page of which only a part reached the disk is still true: it claims fewer grains, never one too
//!   many.
//! - A bit of the recent map stands for data that were given to the kernel. That outlives this process
//!   but not the host, so the map counts only in the boot of the host that wrote it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::block::backing::{Backing, write_zeros};

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
    2 * (PAGE as u64 + map_len(size))
}

/// Bytes of one of the two maps.
fn map_len(size: u64) -> u64 {
    let words = size.div_ceil(GRAIN).div_ceil(64);
    words.next_multiple_of(PAGE_WORDS as u64) * 8
}

/// Tells one boot of the host from all others: as long as it is the same, what was written is there to
/// be read, synced or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootId(pub(super) [u8; BOOT_ID_LEN]);

/// Bytes of a boot id, which is a UUID in letters.
const BOOT_ID_LEN: usize = 36;

impl BootId {
    /// The id of this boot. Without one, a recent map never counts.
    pub(super) fn of_this_host() -> Option<Self> {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        text.trim_ascii().try_into().ok().map(BootId)
    }
}

/// The bitmap of one overlay.
pub(super) struct Bitmap {
    file: Arc<dyn Backing>,
    size: u64,
    words: Vec<AtomicU64>,
    /// Pages that differ from the file's durable map.
    dirty: Vec<AtomicBool>,
    // Held for a write to the recent map (in the blocking pool, never across an await): words go to the
    // file in the order in which they change, or an older one would take bits back.
    recent: Mutex<()>,
}

impl Bitmap {
    /// Reads a bitmap from its file, in this boot of the host.
    pub(super) fn load(file: Arc<dyn Backing>, boot: Option<BootId>) -> io::Result<Self> {
        let mut head = [0; 24];
        file.read_at(&mut head, 0)?;
        let [magic, grain, size] = [0, 8, 16].map(|at| word(&head, at));
        if magic != u64::from_le_bytes(MAGIC) || grain != GRAIN || size == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this file is not the bitmap of an overlay, or one that this version cannot read",
            ));
        }
        let words = read_map(file.as_ref(), size, PAGE as u64)?;
        let bitmap = Bitmap {
            file,
            size,
            dirty: (0..words.len() / PAGE_WORDS)
                .map(|_| AtomicBool::new(false))
                .collect(),
            words: words.into_iter().map(AtomicU64::new).collect(),
            recent: Mutex::default(),
        };
        bitmap.recall(boot)?;
        Ok(bitmap)
    }

    /// Takes over the recent map where it was written in this boot, and begins a new one elsewhere.
    fn recall(&self, boot: Option<BootId>) -> io::Result<()> {
        let mut written = [0; BOOT_ID_LEN];
        self.file.read_at(&mut written, self.boot_offset())?;
        if boot == Some(BootId(written)) {
            let recent = read_map(self.file.as_ref(), self.size, self.recent_offset())?;
            for (index, bits) in recent.into_iter().enumerate() {
                self.set(index, bits);
            }
            return Ok(());
        }
        // In this order: should this be cut off, the bits of another boot still do not count.
        write_zeros(self.file.as_ref(), self.recent_offset(), map_len(self.size))?;
        let id = boot.map_or([0; BOOT_ID_LEN], |id| id.0);
        self.write_boot(id)
    }

    /// What was written since the last flush may be lost although the host goes on: whoever opens the
    /// overlay next is not to believe the recent map.
    pub(super) fn distrust(&self) -> io::Result<()> {
        self.write_boot([0; BOOT_ID_LEN])
    }

    fn write_boot(&self, id: [u8; BOOT_ID_LEN]) -> io::Result<()> {
        let id = Bytes::copy_from_slice(&id);
        self.file.write_at(&[id], self.boot_offset())
    }

    fn boot_offset(&self) -> u64 {
        PAGE as u64 + map_len(self.size)
    }

    fn recent_offset(&self) -> u64 {
        self.boot_offset() + PAGE as u64
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

    /// Notes that the overlay holds these grains, so that it is still known when this process is killed.
    /// Their data must have been written before. May block.
    pub(super) fn hold(&self, grains: Range<u64>) -> io::Result<()> {
        // Bits are set once they are in the file, so there is nothing to do for those that are.
        let held = |index: usize| Some(self.words.get(index)?.load(Ordering::Acquire));
        if masks(grains.clone()).all(|(index, mask)| held(index).is_none_or(|w| w & mask == mask)) {
            return Ok(());
        }
        let _recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let changed: Vec<_> = masks(grains)
            .filter_map(|(index, mask)| Some((index, held(index)? | mask)))
            .collect();
        if let Some((first, _)) = changed.first() {
            let bytes: Vec<u8> = changed.iter().flat_map(|(_, w)| w.to_le_bytes()).collect();
            let offset = self.recent_offset() + *first as u64 * 8;
            self.file.write_at(&[bytes.into()], offset)?;
        }
        for (index, word) in changed {
            self.set(index, word);
        }
        Ok(())
    }

    /// Sets bits of a word in memory.
    fn set(&self, index: usize, bits: u64) {
        if let Some(word) = self.words.get(index)
            && word.fetch_or(bits, Ordering::AcqRel) & bits != bits
            && let Some(dirty) = self.dirty.get(index / PAGE_WORDS)
        {
            // After the bit: a snapshot that takes the flag away sees the bit as well.
            dirty.store(true, Ordering::Release);
        }
    }

    /// What must be written to the durable map for it to tell what is held now.
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

/// The words that these grains lie in, each with the bits that stand for them.
fn masks(grains: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let mut at = grains.start;
    std::iter::from_fn(move || {
        if at >= grains.end {
            return None;
        }
        let end = ((at / 64 + 1) * 64).min(grains.end);
        let mask = (u64::MAX >> (64 - (end - at))) << (at % 64);
        let index = (at / 64) as usize;
        at = end;
        Some((index, mask))
    })
}

/// A map of a disk of `size` bytes, as it stands in the file at `offset`; what the file is too short for
/// is not held.
fn read_map(file: &dyn Backing, size: u64, offset: u64) -> io::Result<Vec<u64>> {
    let len = usize::try_from(map_len(size)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, offset)?;
    Ok((0..len / 8).map(|i| word(&bytes, i * 8)).collect())
}

/// The little-endian word at `at`, 0 where there is none.
fn word(bytes: &[u8], at: usize) -> u64 {
    let slice = bytes.get(at..at + 8).unwrap_or_default();
    slice.try_into().map_or(0, u64::from_le_bytes)
}
