//! The partition table of a stick: a GPT with one EFI system partition (UEFI 2.10 §5).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use flate2::Crc;

/// Bytes of a sector, as nearly all sticks have them.
const SECTOR: u64 = 512;
/// Partitions begin and end at multiples of this, as every partitioner does it: flash is erased in
/// pieces that divide it.
const ALIGNED: u64 = 1 << 20;

const ENTRIES: usize = 128;
const ENTRY: usize = 128;
/// Sectors of all entries.
const TABLE: u64 = (ENTRIES * ENTRY) as u64 / SECTOR;
const HEADER: usize = 92;
const MAGIC: &[u8; 8] = b"EFI PART";
/// UEFI 2.10 §5.3.3, table 5.7: c12a7328-f81f-11d2-ba4b-00a0c93ec93b.
const SYSTEM_PARTITION: [u8; 16] =
    *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
const NAME: &str = "EFI system partition";

/// Bytes of a disk for a partition of `bytes`: the table before it, and its copy behind.
pub(super) fn disk_size(bytes: u64) -> u64 {
    ALIGNED + bytes.next_multiple_of(ALIGNED) + ALIGNED
}

/// Writes the table of a disk of `size` bytes, made by [`disk_size`]. Where its partition is, in bytes.
pub(super) fn write(disk: &File, size: u64) -> io::Result<Range<u64>> {
    let place = ALIGNED..size.saturating_sub(ALIGNED);
    let sectors = size / SECTOR;
    let last = sectors.saturating_sub(1);
    let mut entries = vec![0; ENTRIES * ENTRY];
    let (disk_id, own_id) = (drawn()?, drawn()?);
    let first = (place.start / SECTOR).to_le_bytes();
    let end = (place.end / SECTOR).saturating_sub(1).to_le_bytes();
    let name: Vec<u8> = NAME.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // §5.3.3: its type, itself, where it is, no attributes.
    put(
        &mut entries,
        &[&SYSTEM_PARTITION, &own_id, &first, &end, &[0; 8], &name],
    );
    let header = |own: u64, other: u64, table: u64| {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend([0, 0, 1, 0]);
        header.extend((HEADER as u32).to_le_bytes());
        header.extend([0; 8]); // its own checksum, and nothing
        let usable = (2 + TABLE, last.saturating_sub(1 + TABLE));
        for field in [own, other, usable.0, usable.1] {
            header.extend(field.to_le_bytes());
        }
        header.extend(disk_id);
        header.extend(table.to_le_bytes());
        for field in [ENTRIES as u32, ENTRY as u32, sum(&entries)] {
            header.extend(field.to_le_bytes());
        }
        let checksum = sum(&header).to_le_bytes();
        header.splice(16..20, checksum);
        header
    };
    let copy = last.saturating_sub(TABLE);
    disk.write_all_at(&protective(last), 0)?;
    disk.write_all_at(&header(1, last, 2), SECTOR)?;
    disk.write_all_at(&entries, 2 * SECTOR)?;
    disk.write_all_at(&entries, copy * SECTOR)?;
    disk.write_all_at(&header(last, 1, copy), last * SECTOR)?;
    Ok(place)
}

/// Where the EFI system partition of a disk is, in bytes; nothing on a disk without a GPT.
///
/// # Errors
/// When it cannot be read, or its table is damaged or has no such partition.
pub(super) fn find(disk: &File) -> io::Result<Option<Range<u64>>> {
    let mut header = [0; HEADER];
    match disk.read_exact_at(&mut header, SECTOR) {
        Ok(()) if header.starts_with(MAGIC) => {}
        Ok(()) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let damaged = || io::Error::other("its partition table (GPT) is damaged");
    let number = |at| word(&header, at).ok_or_else(damaged);
    let (count, size) = (number(80)?, number(84)?);
    let table = long(&header, 72).ok_or_else(damaged)?;
    // §5.3.2: an entry is of 128 bytes times a power of two; firmware takes no more than these.
    if count > 1024 || !matches!(size, 128 | 256 | 512) {
        return Err(damaged());
    }
    let size = size as usize;
    let mut entries = vec![0; count as usize * size];
    let start = table.checked_mul(SECTOR).ok_or_else(damaged)?;
    disk.read_exact_at(&mut entries, start)?;
    if number(88)? != sum(&entries) {
        return Err(damaged());
    }
    let mut found = entries.chunks_exact(size);
    let Some(entry) = found.find(|entry| entry.starts_with(&SYSTEM_PARTITION)) else {
        return Err(io::Error::other("it has no EFI system partition"));
    };
    let bytes = |at| long(entry, at).and_then(|sector| sector.checked_mul(SECTOR));
    match (
        bytes(32),
        bytes(40).and_then(|last| last.checked_add(SECTOR)),
    ) {
        (Some(start), Some(end)) if start < end => Ok(Some(start..end)),
        _ => Err(damaged()),
    }
}

/// §5.2.3: a partition over all that keeps tools away which know no GPT.
fn protective(last: u64) -> Vec<u8> {
    let mut mbr = vec![0; 446];
    let sectors = u32::try_from(last).unwrap_or(u32::MAX);
    mbr.extend([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    mbr.extend(sectors.to_le_bytes());
    mbr.resize(510, 0);
    mbr.extend([0x55, 0xaa]);
    mbr
}

/// A version 4 UUID, RFC 9562 §5.4.
fn drawn() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    // A GPT has the first three fields of an identifier in little endian (§5.3, appendix A).
    for (at, byte) in id.iter_mut().enumerate() {
        match at {
            7 => *byte = *byte & 0x0f | 0x40,
            8 => *byte = *byte & 0x3f | 0x80,
            _ => {}
        }
    }
    Ok(id)
}

fn put(into: &mut [u8], parts: &[&[u8]]) {
    let bytes = parts.iter().flat_map(|part| part.iter());
    into.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(part.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_again_and_damage_is_told() {
        let disk = tempfile::tempfile().unwrap();
        let size = disk_size(3 << 20);
        disk.set_len(size).unwrap();
        assert_eq!(find(&disk).unwrap(), None, "no table yet");
        let place = write(&disk, size).unwrap();
        assert_eq!(place, 1 << 20..4 << 20);
        assert_eq!(find(&disk).unwrap(), Some(place));
        disk.write_all_at(&[1], 2 * SECTOR + 60).unwrap();
        let damaged = find(&disk).unwrap_err().to_string();
        assert!(damaged.contains("damaged"), "{damaged}");
        assert_eq!(find(&tempfile::tempfile().unwrap()).unwrap(), None);
    }
}
