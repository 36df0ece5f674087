//! What fatfs 0.3 leaves to be put right: it gives the entries `.` and `..` of a directory long names, in
//! slots before each, and has `..` name the root by its cluster. They have to be the first two slots, and
//! the root is 0 there (Microsoft's FAT specification 1.03, "FAT Directory Structure"), or fsck.fat
//! repairs them.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// Bytes of a slot of a directory.
const SLOT: usize = 32;
const LONG_NAME: u8 = 0x0f;
const DIRECTORY: u8 = 0x10;
const DELETED: u8 = 0xe5;
/// Directories in each other; our own are two deep.
const DEPTH: u32 = 8;

/// Where clusters are.
struct Layout {
    data: u64,
    cluster: usize,
    root: u32,
}

/// Puts the directories of a FAT32 right that was just made by fatfs.
pub(super) fn straightened<D: Read + Write + Seek>(disk: &mut D) -> io::Result<()> {
    let mut boot = [0; 512];
    disk.seek(SeekFrom::Start(0))?;
    disk.read_exact(&mut boot)?;
    // "BPB structure": bytes a sector, sectors a cluster, sectors before the tables, how many tables,
    // sectors of one, the cluster of the root.
    let field = |at: usize, bytes: usize| {
        let part = boot.get(at..at + bytes).unwrap_or_default();
        let digits = part.iter().rev();
        digits.fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
    };
    let sector = field(11, 2);
    let layout = Layout {
        data: (field(14, 2) + field(16, 1) * field(36, 4)) * sector,
        cluster: usize::try_from(field(13, 1) * sector).unwrap_or_default(),
        root: u32::try_from(field(44, 4)).unwrap_or_default(),
    };
    layout.straighten(disk, layout.root, DEPTH)
}

impl Layout {
    /// Only the first cluster is looked into: there are few directories, and they are made first.
    fn straighten<D: Read + Write + Seek>(
        &self,
        disk: &mut D,
        number: u32,
        depth: u32,
    ) -> io::Result<()> {
        let behind = u64::from(number.saturating_sub(2)) * self.cluster as u64;
        let place = SeekFrom::Start(self.data + behind);
        let mut slots = vec![0; self.cluster];
        disk.seek(place)?;
        disk.read_exact(&mut slots)?;
        if with_dots_first(&mut slots, self.root) {
            disk.seek(place)?;
            disk.write_all(&slots)?;
        }
        let Some(deeper) = depth.checked_sub(1) else {
            return Ok(());
        };
        for slot in slots.chunks_exact(SLOT) {
            if let Some(number) = directory(slot) {
                self.straighten(disk, number, deeper)?;
            }
        }
        Ok(())
    }
}

/// Moves `.` and `..` to where they belong; whether anything has changed.
fn with_dots_first(slots: &mut [u8], root: u32) -> bool {
    let Some(head) = slots.get_mut(..4 * SLOT) else {
        return false;
    };
    let old = head.to_vec();
    let mut all = old.chunks_exact(SLOT);
    let (Some(one), Some(dot), Some(two), Some(dots)) =
        (all.next(), all.next(), all.next(), all.next())
    else {
        return false;
    };
    let is_long = |slot: &[u8]| slot.get(11) == Some(&LONG_NAME);
    let named = |slot: &[u8], name: &[u8; 11]| slot.starts_with(name);
    if !is_long(one) || !is_long(two) || !named(dot, b".          ") || !named(dots, b"..         ")
    {
        return false;
    }
    let mut free = [0; SLOT];
    free[0] = DELETED;
    let mut dots = dots.to_vec();
    if cluster(&dots) == Some(root) {
        for (at, byte) in dots.iter_mut().enumerate() {
            if matches!(at, 20 | 21 | 26 | 27) {
                *byte = 0;
            }
        }
    }
    let new = [dot, &dots, &free, &free].concat();
    head.copy_from_slice(&new);
    true
}

/// The first cluster of the directory that a slot names, if it names one besides `.` and `..`.
fn directory(slot: &[u8]) -> Option<u32> {
    let is_one = *slot.get(11)? == DIRECTORY && !matches!(*slot.first()?, 0 | b'.' | DELETED);
    cluster(slot).filter(|_| is_one)
}

/// The first cluster of what a slot names.
fn cluster(slot: &[u8]) -> Option<u32> {
    let part = |at: usize| Some(u16::from_le_bytes(slot.get(at..at + 2)?.try_into().ok()?));
    Some(u32::from(part(20)?) << 16 | u32::from(part(26)?))
}
