//! Partition tables: the PC's (MBR) and EFI's (GPT).

use anyhow::{Result, bail, ensure};
use flate2::Crc;

use super::bytes::{le32, le64, part};
use crate::library::manifest::{TableFacts, TableKind};

/// Bytes of a sector, as every client of the library sees its disk.
const SECTOR: u64 = crate::library::BLOCK_SIZE as u64;

/// What the PC's firmware runs comes before this, and before the disk's signature.
const BOOT_CODE: usize = 440;

/// The four entries of an MBR.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;

/// Types of an MBR's partitions: EFI's system partition, and what protects a GPT.
const TYPE_EFI: u8 = 0xef;
const TYPE_GPT: u8 = 0xee;

/// UEFI 2.10 §5.3.3: an EFI system partition. GRUB's manual: a BIOS boot partition.
const GUID_EFI: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
const GUID_BIOS: [u8; 16] = *b"\x48\x61\x68\x21\x49\x64\x6f\x6e\x74\x4e\x65\x65\x64\x45\x46\x49";

/// An entry of a GPT that a BIOS's loader may start (UEFI 2.10 §5.3.3, attribute bit 2).
const LEGACY_BOOTABLE: u64 = 1 << 2;

/// The table on a disk of `size` bytes that begins with `head`; nothing if there is none.
///
/// # Errors
/// When there is one and it is damaged, or is not for a disk of this size.
pub(super) fn read(head: &[u8], size: u64) -> Result<Option<TableFacts>> {
    let sectors = size / SECTOR;
    let Some(mbr) = Mbr::parse(head) else {
        return Ok(None);
    };
    let has_code = part(head, 0, BOOT_CODE).is_some_and(|code| code.iter().any(|&b| b != 0));
    if mbr.partitions().any(|found| found.kind == TYPE_GPT) {
        let hybrid = mbr.partitions().any(|found| found.kind != TYPE_GPT);
        let gpt = read_gpt(head, sectors)?;
        return Ok(Some(TableFacts {
            kind: TableKind::Gpt,
            partitions: gpt.partitions,
            bios: has_code && (gpt.bios || hybrid),
            efi: gpt.efi,
        }));
    }
    let mut partitions = 0;
    for found in mbr.partitions() {
        partitions += 1;
        let end = u64::from(found.first) + u64::from(found.sectors);
        ensure!(
            end <= sectors,
            "it is cut off: partition {} ends at sector {end}, and there are {sectors}",
            found.number
        );
    }
    Ok((partitions > 0).then(|| TableFacts {
        kind: TableKind::Mbr,
        partitions,
        bios: has_code,
        efi: mbr.partitions().any(|found| found.kind == TYPE_EFI),
    }))
}

/// One of the four partitions of an MBR.
#[derive(Debug, Clone, Copy)]
struct Primary {
    number: usize,
    kind: u8,
    first: u32,
    sectors: u32,
}

struct Mbr([Option<Primary>; 4]);

impl Mbr {
    /// Nothing where the first sector is none: the boot sectors of file systems have its signature
    /// too, and code in the place of its entries.
    fn parse(head: &[u8]) -> Option<Self> {
        (part(head, 510, 2)? == [0x55, 0xaa]).then_some(())?;
        let mut found = [None; 4];
        for (at, slot) in found.iter_mut().enumerate() {
            let entry = part(head, ENTRIES + at * ENTRY, ENTRY)?;
            let (active, kind) = (*entry.first()?, *entry.get(4)?);
            if !matches!(active, 0 | 0x80) {
                return None;
            }
            let (first, sectors) = (le32(entry, 8)?, le32(entry, 12)?);
            if kind != 0 && sectors > 0 {
                *slot = Some(Primary {
                    number: at + 1,
                    kind,
                    first,
                    sectors,
                });
            }
        }
        Some(Self(found))
    }

    fn partitions(&self) -> impl Iterator<Item = Primary> {
        self.0.iter().flatten().copied()
    }
}

/// What a GPT tells.
#[derive(Debug, Default)]
struct Gpt {
    partitions: u32,
    bios: bool,
    efi: bool,
}

/// UEFI 2.10 §5.3: the header in the second sector, and the entries that it points to.
fn read_gpt(head: &[u8], sectors: u64) -> Result<Gpt> {
    const MAGIC: &[u8] = b"EFI PART";
    const DAMAGED: &str = "its GPT is damaged; repair it (`sgdisk --verify` tells what is wrong) \
                           before it is imported";
    let at = SECTOR as usize;
    if part(head, at, 8) != Some(MAGIC) {
        ensure!(
            part(head, 4096, 8) != Some(MAGIC),
            "it is partitioned for sectors of 4096 bytes, and clients see sectors of {SECTOR}"
        );
        bail!(DAMAGED);
    }
    let Some(header) = Header::parse(head.get(at..).unwrap_or_default()) else {
        bail!(DAMAGED);
    };
    ensure!(
        header.last_usable < sectors,
        "it is cut off: its GPT is for {} sectors, and there are {sectors}",
        header.last_usable.saturating_add(1)
    );
    let Some(entries) = header.entries(head) else {
        bail!(DAMAGED);
    };
    let mut gpt = Gpt::default();
    for entry in entries.chunks_exact(header.entry_size) {
        let Some(kind) = part(entry, 0, 16).filter(|kind| kind.iter().any(|&b| b != 0)) else {
            continue;
        };
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        gpt.partitions += 1;
        ensure!(
            first.is_some() && first <= last && last <= Some(header.last_usable),
            "its GPT is damaged: partition {} is not within the disk",
            gpt.partitions
        );
        gpt.efi |= kind == GUID_EFI;
        gpt.bios |= kind == GUID_BIOS;
        gpt.bios |= le64(entry, 48).is_some_and(|bits| bits & LEGACY_BOOTABLE != 0);
    }
    ensure!(gpt.partitions > 0, "its GPT has no partitions");
    Ok(gpt)
}

struct Header {
    last_usable: u64,
    entries_at: u64,
    entry_size: usize,
    entries_len: usize,
    entries_crc: u32,
}

impl Header {
    /// Nothing where it is not what was written: its checksum, or a number that no GPT has.
    fn parse(sector: &[u8]) -> Option<Self> {
        let len = usize::try_from(le32(sector, 12)?).ok()?;
        if !(92..=SECTOR as usize).contains(&len) {
            return None;
        }
        let mut header = part(sector, 0, len)?.to_vec();
        // The checksum is over the header with zeros in its own place.
        header.get_mut(16..20)?.fill(0);
        if crc(&header) != le32(sector, 16)? || le64(sector, 24)? != 1 {
            return None;
        }
        let entry_size = usize::try_from(le32(sector, 84)?).ok()?;
        let count = usize::try_from(le32(sector, 80)?).ok()?;
        let sound = (128..=4096).contains(&entry_size) && entry_size.is_power_of_two();
        (sound && count <= 1024).then_some(())?;
        Some(Self {
            last_usable: le64(sector, 48)?,
            entries_at: le64(sector, 72)?,
            entry_size,
            entries_len: count * entry_size,
            entries_crc: le32(sector, 88)?,
        })
    }

    fn entries<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        let at = usize::try_from(self.entries_at.checked_mul(SECTOR)?).ok()?;
        let entries = part(head, at, self.entries_len)?;
        (crc(entries) == self.entries_crc).then_some(entries)
    }
}

/// The CRC-32 of Ethernet and gzip, as GPT has it.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::super::content::HEAD;
    use super::*;
    use crate::exec::Program;

    const SIZE: u64 = 8 << 20;

    /// A disk that sfdisk partitioned.
    fn partitioned(script: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
        let sfdisk = Program::new("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]);
        sfdisk.arg(&path).input(script).run().unwrap();
        let mut head = std::fs::read(&path).unwrap();
        head.truncate(HEAD);
        head
    }

    fn refused(head: &[u8], size: u64, why: &str) {
        let error = read(head, size).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn an_mbr_tells_its_partitions_and_whether_there_is_code() {
        let mut head = partitioned("label: dos\n,2M,L,*\n,,U\n");
        let found = read(&head, SIZE).unwrap().unwrap();
        assert_eq!(found.to_string(), "MBR with 2 partitions, for EFI");
        head[0] = 0xeb;
        let found = read(&head, SIZE).unwrap().unwrap();
        assert_eq!(
            (found.kind, found.bios, found.efi),
            (TableKind::Mbr, true, true)
        );
        refused(
            &head,
            SIZE / 2,
            "it is cut off: partition 2 ends at sector 16384",
        );
    }

    #[test]
    fn a_gpt_tells_who_can_boot_it() {
        let script = "label: gpt\n,1M,21686148-6449-6E6F-744E-656564454649\n,1M,U\n,,L\n";
        let mut head = partitioned(script);
        let found = read(&head, SIZE).unwrap().unwrap();
        assert_eq!(found.to_string(), "GPT with 3 partitions, for EFI");
        head[0] = 0xeb;
        let found = read(&head, SIZE).unwrap().unwrap();
        assert_eq!(found.to_string(), "GPT with 3 partitions, for BIOS and EFI");
        refused(&head, SIZE / 2, "it is cut off: its GPT is for");
        for damaged in [512 + 8, 512 + 72, 1024] {
            let mut head = head.clone();
            head[damaged] ^= 1;
            refused(&head, SIZE, "its GPT is damaged");
        }
        // Its sectors are not ours.
        let mut large = head.clone();
        large.copy_within(512..1024, 4096);
        large[512..1024].fill(0);
        refused(&large, SIZE, "sectors of 4096 bytes");
    }

    #[test]
    fn what_is_no_table_is_none() {
        assert_eq!(read(&[], 0).unwrap(), None);
        assert_eq!(read(&[0; 512], SIZE).unwrap(), None);
        // A signature alone, as on a file system's boot sector.
        let mut head = vec![0; HEAD];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(read(&head, SIZE).unwrap(), None);
        head[ENTRIES] = 0x33;
        assert_eq!(read(&head, SIZE).unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            mut head in proptest::collection::vec(proptest::num::u8::ANY, 0..4096),
            size in 0..SIZE,
        ) {
            let _ = read(&head, size);
            // As far as the entries, which chance would never reach.
            if let Some(signature) = head.get_mut(510..512) {
                signature.copy_from_slice(&[0x55, 0xaa]);
            }
            for at in 0..4 {
                if let Some(active) = head.get_mut(ENTRIES + at * ENTRY) {
                    *active = 0;
                }
            }
            if let Some(kind) = head.get_mut(ENTRIES + 4) {
                *kind = TYPE_GPT;
            }
            if let Some(magic) = head.get_mut(512..520) {
                magic.copy_from_slice(b"EFI PART");
            }
            let _ = read(&head, size);
        }
    }
}
