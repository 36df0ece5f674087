//! A part of an overlay's bitmap: that of the disk as it was made, or what came with one growth of it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::bitmap::{GRAIN, PAGE, map_len, word};
use crate::block::backing::Backing;

/// Words of 64 grains in a page.
const PAGE_WORDS: usize = PAGE / 8;

/// The maps of some grains, in memory and where they stand in the file.
pub(super) struct Section {
    grains: Range<u64>,
    durable: u64,
    recent: u64,
    words: Vec<AtomicU64>,
    /// Pages that differ from the file's durable map.
    dirty: Vec<AtomicBool>,
}

/// Where the maps of some bytes of a disk stand in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) durable: u64,
    pub(super) recent: u64,
}

impl Section {
    /// Reads the durable map of the bytes of `range` of the disk. Of its first grain a part may belong to
    /// the section before.
    pub(super) fn load(file: &dyn Backing, range: Range<u64>, place: Place) -> io::Result<Self> {
        let grains = range.start.div_ceil(GRAIN)..range.end.div_ceil(GRAIN);
        let words = read_map(file, &grains, place.durable)?;
        Ok(Section {
            grains,
            durable: place.durable,
            recent: place.recent,
            dirty: (0..words.len() / PAGE_WORDS)
                .map(|_| AtomicBool::new(false))
                .collect(),
            words: words.into_iter().map(AtomicU64::new).collect(),
        })
    }

    /// Takes over what the recent map says.
    pub(super) fn recall(&self, file: &dyn Backing) -> io::Result<()> {
        let recent = read_map(file, &self.grains, self.recent)?;
        for (index, bits) in recent.into_iter().enumerate() {
            self.set(index, bits);
        }
        Ok(())
    }

    /// Where its recent map begins, and how long it is.
    pub(super) fn recent(&self) -> (u64, u64) {
        (self.recent, map_len(self.grains.end - self.grains.start))
    }

    /// Whether this grain is held; nothing where it is behind this section.
    pub(super) fn holds(&self, grain: u64) -> Option<bool> {
        if grain >= self.grains.end {
            return None;
        }
        let at = grain.checked_sub(self.grains.start)?;
        let word = self.words.get((at / 64) as usize)?;
        Some(word.load(Ordering::Acquire) & (1 << (at % 64)) != 0)
    }

    /// Those of `grains` that are of this section.
    pub(super) fn part_of(&self, grains: &Range<u64>) -> Range<u64> {
        let start = grains.start.max(self.grains.start);
        start..grains.end.min(self.grains.end).max(start)
    }

    /// Whether all of these grains, which are of this section, are held.
    pub(super) fn holds_all(&self, grains: Range<u64>) -> bool {
        self.masks(grains)
            .all(|(index, mask)| self.word(index).is_none_or(|word| word & mask == mask))
    }

    /// Notes in the recent map, and then in memory, that these grains of this section are held. Nobody
    /// else may write the recent map meanwhile.
    pub(super) fn hold(&self, file: &dyn Backing, grains: Range<u64>) -> io::Result<()> {
        let changed: Vec<_> = self
            .masks(grains)
            .filter_map(|(index, mask)| Some((index, self.word(index)? | mask)))
            .collect();
        if let Some((first, _)) = changed.first() {
            let bytes: Vec<u8> = changed.iter().flat_map(|(_, w)| w.to_le_bytes()).collect();
            file.write_at(&[bytes.into()], self.recent + *first as u64 * 8)?;
        }
        for (index, word) in changed {
            self.set(index, word);
        }
        Ok(())
    }

    /// Pages that the durable map must get to tell what is held now, each with its place in the file.
    pub(super) fn snapshot(&self, pages: &mut Vec<(u64, Bytes)>) {
        let words = self.words.chunks(PAGE_WORDS);
        for (i, (dirty, words)) in self.dirty.iter().zip(words).enumerate() {
            if dirty.swap(false, Ordering::AcqRel) {
                let bytes: Vec<u8> = words
                    .iter()
                    .flat_map(|word| word.load(Ordering::Acquire).to_le_bytes())
                    .collect();
                pages.push((self.durable + (i * PAGE) as u64, bytes.into()));
            }
        }
    }

    fn word(&self, index: usize) -> Option<u64> {
        Some(self.words.get(index)?.load(Ordering::Acquire))
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

    /// The words that these grains lie in, each with the bits that stand for them.
    fn masks(&self, grains: Range<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
        let first = self.grains.start;
        let mut at = grains.start.saturating_sub(first);
        let until = grains.end.saturating_sub(first);
        std::iter::from_fn(move || {
            if at >= until {
                return None;
            }
            let end = ((at / 64 + 1) * 64).min(until);
            let mask = (u64::MAX >> (64 - (end - at))) << (at % 64);
            let index = (at / 64) as usize;
            at = end;
            Some((index, mask))
        })
    }
}

/// A map of so many grains, as it stands in the file at `offset`; what the file is too short for is not
/// held.
fn read_map(file: &dyn Backing, grains: &Range<u64>, offset: u64) -> io::Result<Vec<u64>> {
    let len = map_len(grains.end - grains.start);
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, offset)?;
    Ok((0..len / 8).map(|i| word(&bytes, i * 8)).collect())
}
