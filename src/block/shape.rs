//! What the storage behind a file or a block device likes: how large its pieces are, and where they
//! begin.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use super::Geometry;

/// Files are written in pages.
const PAGE: u32 = 4096;
/// Larger pieces than this are not told: initiators round what they write up to them.
const MOST: u32 = 1024 * 1024;

/// The shape of a disk of `size` bytes in `file`, as if it were written in place.
pub(super) fn of(file: &File, size: u64, block_size: u32) -> io::Result<Geometry> {
    let metadata = file.metadata()?;
    let geometry = Geometry {
        block_size,
        physical_block_size: PAGE.max(block_size),
        blocks: size / u64::from(block_size),
        read_only: false,
        thin: can_punch(file, size),
        aligned: 0,
        unmap_size: piece(metadata.blksize(), block_size),
        unmap_aligned: 0,
        atomic: 0,
    };
    if metadata.file_type().is_block_device() {
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let dir = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        return Ok(of_device(&dir, geometry));
    }
    Ok(geometry)
}

/// Whether the file system takes back parts of a file: where it does not, unmapping would write zeros,
/// and fill the holes of a sparse file. Beyond the end there is nothing to lose by trying.
fn can_punch(file: &File, size: u64) -> bool {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let beyond = size.next_multiple_of(u64::from(PAGE));
    // Of a file that is open for reading only it cannot be told, and nobody will unmap any of it.
    rustix::fs::fallocate(file, flags, beyond, u64::from(PAGE)) != Err(rustix::io::Errno::OPNOTSUPP)
}

/// The same for a block device, which the kernel describes in `dir` (Documentation/ABI/stable/sysfs-block).
fn of_device(dir: &Path, mut geometry: Geometry) -> Geometry {
    // A partition shares the queue of its disk.
    let queue = [dir.join("queue"), dir.join("../queue")]
        .into_iter()
        .find(|path| path.is_dir());
    let limit = |name: &str| queue.as_ref().and_then(|queue| number(&queue.join(name)));
    let block = u64::from(geometry.block_size);
    let blocks = |bytes: u64| u32::try_from(bytes / block).unwrap_or(0);
    let logical = limit("logical_block_size").unwrap_or(block);
    let physical = limit("physical_block_size").unwrap_or(block).max(logical);
    match number(&dir.join("alignment_offset")) {
        Some(offset) if offset < physical => {
            geometry.physical_block_size = piece(physical, geometry.block_size);
            geometry.aligned = blocks(offset);
        }
        // -1: stacked from parts that do not fit each other, so that nothing is aligned.
        _ => geometry.physical_block_size = geometry.block_size,
    }
    // Unmapped blocks must read as zeros. The kernel promises that where the device can write zeros
    // without being sent any, and discards where it can.
    let discards = limit("discard_max_bytes").unwrap_or(0) > 0;
    geometry.thin = discards && limit("write_zeroes_max_bytes").unwrap_or(0) > 0;
    geometry.unmap_size = piece(
        limit("discard_granularity").unwrap_or(0),
        geometry.block_size,
    );
    let aligned = number(&dir.join("discard_alignment")).unwrap_or(0);
    geometry.unmap_aligned = blocks(aligned % u64::from(geometry.unmap_size));
    geometry
}

/// Least alignment of offset, length and memory for a file that bypasses the page cache.
pub(super) fn direct_alignment(file: &File) -> io::Result<u32> {
    let metadata = file.metadata()?;
    let device = if metadata.file_type().is_block_device() {
        metadata.rdev()
    } else {
        metadata.dev()
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let dir = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let logical = ["queue/logical_block_size", "../queue/logical_block_size"]
        .into_iter()
        .find_map(|name| number(&dir.join(name)));
    // A file system that is on no one device: a page fits all.
    Ok(logical.and_then(|n| u32::try_from(n).ok()).unwrap_or(PAGE))
}

/// A size that can be told: a power of two of whole blocks.
fn piece(bytes: u64, block_size: u32) -> u32 {
    match u32::try_from(bytes) {
        Ok(n) if n.is_power_of_two() && n <= MOST => n.max(block_size),
        _ => PAGE.max(block_size),
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(limits: &[(&str, &str)]) -> Geometry {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("queue")).unwrap();
        for (name, value) in limits {
            fs::write(dir.path().join(name), format!("{value}\n")).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        let plain = of(&file, 1 << 20, 512).unwrap();
        of_device(dir.path(), plain)
    }

    #[test]
    fn a_device_is_described_as_the_kernel_describes_it() {
        let geometry = described(&[
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "4096"),
            ("alignment_offset", "3584"),
            ("queue/discard_max_bytes", "1048576"),
            ("queue/write_zeroes_max_bytes", "1048576"),
            ("queue/discard_granularity", "65536"),
            ("discard_alignment", "4096"),
        ]);
        assert_eq!(geometry.physical_block_size, 4096);
        assert_eq!(geometry.aligned, 7);
        assert!(geometry.thin);
        assert_eq!(geometry.unmap_size, 65536);
        assert_eq!(geometry.unmap_aligned, 8);
    }

    #[test]
    fn a_device_that_cannot_zero_without_data_is_not_thin() {
        let geometry = described(&[
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "512"),
            ("alignment_offset", "-1"),
            ("queue/discard_max_bytes", "1048576"),
            ("queue/write_zeroes_max_bytes", "0"),
        ]);
        assert!(!geometry.thin);
        assert_eq!((geometry.physical_block_size, geometry.aligned), (512, 0));
    }
}
