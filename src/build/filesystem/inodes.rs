//! The inodes of a new ext4, made to say the same every time.
//!
//! mkfs.ext4 copies when a file of the tree was read and when its inode was changed last. Neither
//! can be set in a tree, so two builds would never be the same. It also leaves the root directory
//! with its own idea of owner and mode. The file system is not mounted for this: that would write
//! times of its own.
//!
//! The layout is that of the kernel's Documentation/filesystems/ext4; only file systems that
//! [`super::ext4::options`] asks for are read.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::stat::fstat;

use super::SourceDate;
use crate::build::tree::Root;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const BLOCK: u64 = 4096;
const INODE: usize = 256;
const DESCRIPTOR: u64 = 64;
const ROOT: u32 = 2;
const METADATA_CSUM: u32 = 0x400;
/// The inode table of a group was never written.
const INODE_UNINIT: u16 = 1;

/// Offsets in an inode.
mod at {
    pub(super) const MODE: usize = 0x00;
    pub(super) const UID: usize = 0x02;
    pub(super) const ATIME: usize = 0x08;
    pub(super) const CTIME: usize = 0x0c;
    pub(super) const MTIME: usize = 0x10;
    pub(super) const GID: usize = 0x18;
    pub(super) const GENERATION: usize = 0x64;
    pub(super) const UID_HIGH: usize = 0x78;
    pub(super) const GID_HIGH: usize = 0x7a;
    pub(super) const CHECKSUM_LOW: usize = 0x7c;
    pub(super) const CHECKSUM_HIGH: usize = 0x82;
    pub(super) const CTIME_EXTRA: usize = 0x84;
    pub(super) const MTIME_EXTRA: usize = 0x88;
    pub(super) const ATIME_EXTRA: usize = 0x8c;
    pub(super) const CRTIME: usize = 0x90;
    pub(super) const CRTIME_EXTRA: usize = 0x94;
}

/// Sets all times of each file to that of its modification, at most `date`, and owner and mode of
/// the root directory to those of `tree`.
pub(super) fn settle(disk: &Path, tree: &Root, date: SourceDate) -> Result<()> {
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .open(disk)
        .context("opening it")?;
    let shape = Shape::read(&disk)?;
    let owner = fstat(tree.dir()).context("looking at the tree")?;
    for group in 0..shape.groups {
        let Some(table) = shape.table(&disk, group)? else {
            continue;
        };
        let mut inodes = vec![0; shape.inodes_per_group as usize * INODE];
        disk.read_exact_at(&mut inodes, table)?;
        let first = group * shape.inodes_per_group + 1;
        for (number, bytes) in (first..).zip(inodes.chunks_exact_mut(INODE)) {
            let mut inode = Fields(bytes);
            if inode.u16(at::MODE)? == 0 {
                continue;
            }
            if number == ROOT {
                inode.own(owner.st_mode, owner.st_uid, owner.st_gid)?;
            }
            inode.settle(date)?;
            if let Some(seed) = shape.seed {
                inode.seal(seed, number)?;
            }
        }
        disk.write_all_at(&inodes, table)?;
    }
    Ok(())
}

/// What of the superblock is needed.
struct Shape {
    groups: u32,
    inodes_per_group: u32,
    /// What checksums begin with, where there are any.
    seed: Option<u32>,
}

impl Shape {
    fn read(disk: &File) -> Result<Self> {
        let mut bytes = [0; 1024];
        disk.read_exact_at(&mut bytes, SUPERBLOCK)?;
        let block = Fields(&mut bytes);
        ensure!(
            block.u16(0x38)? == MAGIC
                && block.u32(0x18)? == 2
                && usize::from(block.u16(0x58)?) == INODE
                && u64::from(block.u16(0xfe)?) == DESCRIPTOR,
            "it is not the ext4 that was asked for"
        );
        let per_group = block.u32(0x28)?;
        let inodes = block.u32(0x00)?;
        let checked = block.u32(0x64)? & METADATA_CSUM != 0;
        let uuid = block.bytes(0x68, 16)?;
        Ok(Self {
            groups: inodes.checked_div(per_group).context("no inodes")?,
            inodes_per_group: per_group,
            seed: checked.then(|| crc(!0, uuid)),
        })
    }

    /// Where the inodes of a group begin, if any of them is in use.
    fn table(&self, disk: &File, group: u32) -> Result<Option<u64>> {
        let mut bytes = [0; DESCRIPTOR as usize];
        disk.read_exact_at(&mut bytes, BLOCK + u64::from(group) * DESCRIPTOR)?;
        let descriptor = Fields(&mut bytes);
        if descriptor.u16(0x12)? & INODE_UNINIT != 0 {
            return Ok(None);
        }
        let block = u64::from(descriptor.u32(0x28)?) << 32 | u64::from(descriptor.u32(0x08)?);
        Ok(Some(block * BLOCK))
    }
}

/// A structure of the disk: little-endian numbers at offsets.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn bytes(&self, at: usize, length: usize) -> Result<&[u8]> {
        self.0.get(at..at + length).context("beyond its end")
    }

    fn u16(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.bytes(at, 2)?.try_into()?))
    }

    fn u32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(at, 4)?.try_into()?))
    }

    fn set(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let place = self.0.get_mut(at..at + bytes.len());
        place.context("beyond its end")?.copy_from_slice(bytes);
        Ok(())
    }

    fn own(&mut self, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let kind = self.u16(at::MODE)? & 0o170_000;
        let [mode_low, mode_high, ..] = (mode & 0o7777 | u32::from(kind)).to_le_bytes();
        self.set(at::MODE, &[mode_low, mode_high])?;
        for (id, low, high) in [(uid, at::UID, at::UID_HIGH), (gid, at::GID, at::GID_HIGH)] {
            let [a, b, c, d] = id.to_le_bytes();
            self.set(low, &[a, b])?;
            self.set(high, &[c, d])?;
        }
        Ok(())
    }

    fn settle(&mut self, date: SourceDate) -> Result<()> {
        // Two bits of the other word extend the seconds, which are signed without them.
        let low = i64::from(self.u32(at::MTIME)?.cast_signed());
        let high = i64::from(self.u32(at::MTIME_EXTRA)? & 3) << 32;
        let seconds = (low + high).min(i64::from(date.0));
        let low = i64::from((seconds & 0xffff_ffff) as u32 as i32);
        let high = (seconds - low) >> 32 & 3;
        for (time, extra) in [
            (at::ATIME, at::ATIME_EXTRA),
            (at::CTIME, at::CTIME_EXTRA),
            (at::MTIME, at::MTIME_EXTRA),
            (at::CRTIME, at::CRTIME_EXTRA),
        ] {
            let low = low.to_le_bytes();
            self.set(time, low.get(..4).unwrap_or_default())?;
            let high = high.to_le_bytes();
            self.set(extra, high.get(..4).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Its checksum, anew.
    fn seal(&mut self, seed: u32, number: u32) -> Result<()> {
        self.set(at::CHECKSUM_LOW, &[0, 0])?;
        self.set(at::CHECKSUM_HIGH, &[0, 0])?;
        let seed = crc(seed, &number.to_le_bytes());
        let seed = crc(seed, self.bytes(at::GENERATION, 4)?);
        let [a, b, c, d] = crc(seed, self.0).to_le_bytes();
        self.set(at::CHECKSUM_LOW, &[a, b])?;
        self.set(at::CHECKSUM_HIGH, &[c, d])
    }
}

/// CRC-32C as file systems keep it: not inverted, neither before nor after.
pub(super) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(seconds: i64, date: u32) -> i64 {
        let mut bytes = [0; INODE];
        let low = (seconds & 0xffff_ffff) as u32;
        let high = (seconds - i64::from(low.cast_signed())) >> 32;
        let mut inode = Fields(&mut bytes);
        inode.set(at::MTIME, &low.to_le_bytes()).unwrap();
        inode.set(at::MTIME_EXTRA, &[high as u8, 0, 0, 0]).unwrap();
        inode.settle(SourceDate(date)).unwrap();
        let low = i64::from(inode.u32(at::ATIME).unwrap().cast_signed());
        low + (i64::from(inode.u32(at::ATIME_EXTRA).unwrap()) << 32)
    }

    #[test]
    fn times_are_those_of_modification_and_never_after_the_date() {
        for (seconds, date, expected) in [
            (1_234_567_890, 1_700_000_000, 1_234_567_890),
            (1_800_000_000, 1_700_000_000, 1_700_000_000),
            (-86_400, 1_700_000_000, -86_400),
            (0x8000_0000, 0xffff_ffff, 0x8000_0000),
            (0x1_2345_6789, 0xffff_ffff, 0xffff_ffff),
        ] {
            assert_eq!(settled(seconds, date), expected, "{seconds} {date}");
        }
    }

    #[test]
    fn a_checksum_is_that_of_the_kernel() {
        // The catalogued CRC-32C of "123456789" is e3069283, inverted at its end.
        assert_eq!(crc(!0, b"123456789"), !0xe306_9283);
    }
}
