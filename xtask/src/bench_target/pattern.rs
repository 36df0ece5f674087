//! What stands on the disk: each block holds what its number says, so that a wrong byte is known for one
//! wherever it turns up.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 512;

/// Blocks in front that hold a partition table and are left alone: a disk needs one to be taken as it is.
pub(super) const FRONT: u64 = 2048;

/// Bytes of a word.
const WORD: usize = 8;

/// Who wrote a block last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    /// Whoever made the disk.
    Maker,
    /// A load that writes.
    Load,
}

/// Fills `bytes`, which begin at byte `at` of the disk.
pub(super) fn fill(hand: Hand, at: u64, bytes: &mut [u8]) {
    let (front, number) = unaligned(at);
    if front > 0 {
        let len = bytes.len();
        let mut whole = vec![0; front + len];
        fill(hand, at - front as u64, &mut whole);
        bytes.copy_from_slice(whole.get(front..).unwrap_or_default());
        return;
    }
    let (words, rest) = bytes.as_chunks_mut::<WORD>();
    let after = number + words.len() as u64;
    for (place, number) in words.iter_mut().zip(number..) {
        *place = word(hand, number).to_le_bytes();
    }
    for (place, byte) in rest.iter_mut().zip(word(hand, after).to_le_bytes()) {
        *place = byte;
    }
}

/// Whether `bytes` are what stands from byte `at` of the disk on.
pub(super) fn is_right(hand: Hand, at: u64, bytes: &[u8]) -> bool {
    let (front, number) = unaligned(at);
    if front > 0 {
        let mut expected = vec![0; bytes.len()];
        fill(hand, at, &mut expected);
        return expected == bytes;
    }
    let (words, rest) = bytes.as_chunks::<WORD>();
    let after = word(hand, number + words.len() as u64).to_le_bytes();
    words
        .iter()
        .zip(number..)
        .all(|(found, number)| *found == word(hand, number).to_le_bytes())
        && after.starts_with(rest)
}

/// How many bytes of its word lie before a byte of the disk, and the word's number. Pieces of the stream
/// that a socket gives end anywhere.
fn unaligned(at: u64) -> (usize, u64) {
    ((at % WORD as u64) as usize, at / WORD as u64)
}

/// The value of a word of the disk: splitmix64 of its number, which no two share.
fn word(hand: Hand, number: u64) -> u64 {
    let salted = match hand {
        Hand::Maker => number,
        Hand::Load => !number,
    };
    let mut value = salted.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Makes a disk of `size` bytes.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_disk(path: &Path, size: u64) -> Result<()> {
    let making = || format!("making {}", path.display());
    let mut file = File::create(path).with_context(making)?;
    let mut chunk = vec![0; 1 << 20];
    for at in (0..size).step_by(chunk.len()) {
        fill(Hand::Maker, at, &mut chunk);
        if at == 0 {
            put_table(&mut chunk, size / BLOCK);
        }
        file.write_all(&chunk).with_context(making)?;
    }
    file.sync_all().with_context(making)
}

/// A master boot record with one partition behind the front, so that importers know a whole disk.
fn put_table(front: &mut [u8], blocks: u64) {
    front.fill(0);
    let start = (FRONT as u32).to_le_bytes();
    let number = u32::try_from(blocks - FRONT)
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let mut entry = [0; 16];
    // Active, of Linux; whoever reads goes by the last two fields and not by heads and cylinders.
    (entry[0], entry[4]) = (0x80, 0x83);
    entry[8..12].copy_from_slice(&start);
    entry[12..16].copy_from_slice(&number);
    for (at, bytes) in [(446, &entry[..]), (510, &[0x55, 0xaa])] {
        if let Some(place) = front.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The blocks of one disk that a load has written: who reads them back knows what to find.
#[derive(Debug)]
pub(super) struct Written(Vec<AtomicU64>);

impl Written {
    /// Nothing of a disk of so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        Self(
            (0..blocks.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        )
    }

    /// A write of these blocks has been answered.
    pub(super) fn add(&self, lba: u64, blocks: u32) {
        for block in lba..lba + u64::from(blocks) {
            if let Some(word) = self.0.get((block / 64) as usize) {
                word.fetch_or(1 << (block % 64), Ordering::Relaxed);
            }
        }
    }

    /// Who wrote a block.
    pub(super) fn hand(&self, block: u64) -> Hand {
        let word = self.0.get((block / 64) as usize);
        let is_written =
            word.is_some_and(|word| word.load(Ordering::Relaxed) >> (block % 64) & 1 == 1);
        if is_written { Hand::Load } else { Hand::Maker }
    }
}

/// What a load that reads must find.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// Bytes are not looked at.
    Anything,
    /// What either wrote: reads and writes of the same blocks are on their way together, and each block
    /// is one or the other.
    Either,
    /// Exactly what was written.
    Exactly(std::sync::Arc<Written>),
}

impl Expected {
    /// Whether bytes are looked at.
    pub(super) fn looks(&self) -> bool {
        !matches!(self, Expected::Anything)
    }

    /// Whether `bytes` may stand from byte `at` of the disk on.
    pub(super) fn allows(&self, at: u64, bytes: &[u8]) -> bool {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let len = ((BLOCK - at % BLOCK) as usize).min(rest.len());
            let Some((block, others)) = rest.split_at_checked(len) else {
                return false;
            };
            let is_fine = match self {
                Expected::Anything => true,
                Expected::Either => {
                    is_right(Hand::Maker, at, block) || is_right(Hand::Load, at, block)
                }
                Expected::Exactly(written) => is_right(written.hand(at / BLOCK), at, block),
            };
            if !is_fine {
                return false;
            }
            (at, rest) = (at + len as u64, others);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn any_part_of_the_disk_is_known() {
        let mut whole = vec![0; 4096];
        fill(Hand::Maker, 1 << 20, &mut whole);
        for (from, to) in [(0, 4096), (1, 2), (7, 9), (511, 1025), (3, 3)] {
            let mut part = vec![0xa5; to - from];
            fill(Hand::Maker, (1 << 20) + from as u64, &mut part);
            assert_eq!(part, whole[from..to], "{from}..{to}");
            assert!(is_right(Hand::Maker, (1 << 20) + from as u64, &part));
        }
    }

    #[test]
    fn a_wrong_byte_and_a_wrong_place_are_seen() {
        let mut bytes = vec![0; 1024];
        fill(Hand::Maker, 512, &mut bytes);
        assert!(!is_right(Hand::Maker, 1024, &bytes));
        assert!(!is_right(Hand::Load, 512, &bytes));
        bytes[1023] ^= 1;
        assert!(!is_right(Hand::Maker, 512, &bytes));
    }

    #[test]
    fn who_wrote_a_block_is_kept_block_by_block() {
        let written = Written::new(4096);
        written.add(63, 2);
        let hands = [62, 63, 64, 65].map(|block| written.hand(block));
        assert_eq!(hands, [Hand::Maker, Hand::Load, Hand::Load, Hand::Maker]);
        let mut bytes = vec![0; 2048];
        fill(Hand::Maker, 62 * BLOCK, &mut bytes);
        fill(Hand::Load, 63 * BLOCK, &mut bytes[512..1536]);
        assert!(Expected::Exactly(Arc::new(written)).allows(62 * BLOCK, &bytes));
        assert!(Expected::Either.allows(62 * BLOCK, &bytes));
        let untouched = Expected::Exactly(Arc::new(Written::new(4096)));
        assert!(!untouched.allows(62 * BLOCK, &bytes));
        assert!(untouched.allows(62 * BLOCK, &bytes[..512]));
    }

    #[test]
    fn a_disk_has_a_table_and_the_pattern_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        write_disk(&path, 3 << 20).unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes.len(), 3 << 20);
        assert_eq!(bytes[510..512], [0x55, 0xaa]);
        assert_eq!(bytes[454..462], [0, 8, 0, 0, 0, 16, 0, 0]);
        assert!(is_right(Hand::Maker, 1 << 20, &bytes[1 << 20..]));
    }
}
