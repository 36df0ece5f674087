//! What a disk holds, told from its first bytes: a partition table, a file system, or neither.
//!
//! The disk may be anybody's, so nothing here trusts a number that it reads.

use anyhow::{Result, bail, ensure};

use super::bytes::{be32, be64, le16, le32, le64, part};
use super::table;
use crate::build::size::human;
use crate::library::manifest::{FileSystemFacts, TableFacts};

/// How much of a disk has to be read to know what it holds.
pub(crate) const HEAD: usize = 128 << 10;

/// What a disk holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Partitions: it boots by itself.
    Table(TableFacts),
    /// A file system, from the first block to the last.
    FileSystem(FileSystemFacts),
}

/// What else a disk may hold: where a magic number is, what it is, and what it belongs to.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"LUKS\xba\xbe",
        "a LUKS volume: open it and import what is inside",
    ),
    (
        512,
        b"LABELONE",
        "an LVM physical volume: import the root's logical volume",
    ),
    (4086, b"SWAPSPACE2", "swap space"),
    (
        0,
        b"hsqs",
        "SquashFS: unpack it and build an image from the directory",
    ),
    (3, b"NTFS    ", "NTFS without a partition table"),
    (54, b"FAT1", "FAT without a partition table"),
    (82, b"FAT32", "FAT without a partition table"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (32769, b"CD001", "an ISO image without a partition table"),
    (
        257,
        b"ustar",
        "a tar archive: `image build --from` takes it",
    ),
    (
        0,
        b"\x1f\x8b",
        "something compressed by gzip: unpack it first",
    ),
    (
        0,
        b"\xfd7zXZ\0",
        "something compressed by xz: unpack it first",
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "something compressed by zstd: unpack it first",
    ),
    (0, b"BZh", "something compressed by bzip2: unpack it first"),
    (
        0,
        b"PK\x03\x04",
        "a zip archive, or an appliance (.ova): unpack it first",
    ),
];

/// What is on a disk of `size` bytes that begins with `head`.
pub(crate) fn look(head: &[u8], size: u64) -> Result<Content> {
    // A table first: below one the remains of a file system that was there before may well be
    // left, but every mkfs clears the place of the table.
    if let Some(table) = table::read(head, size)? {
        return Ok(Content::Table(table));
    }
    let found = [xfs(head), ext(head), btrfs(head), erofs(head)];
    if let Some(Found { facts, bytes }) = found.into_iter().flatten().next() {
        ensure!(
            bytes <= size,
            "it is cut off: its {} has {}, and there are {} of them",
            facts.kind,
            human(bytes),
            human(size)
        );
        return Ok(Content::FileSystem(facts));
    }
    let other = OTHERS
        .iter()
        .find(|(at, magic, _)| part(head, *at, magic.len()) == Some(magic));
    let taken = "a disk with a partition table (MBR or GPT) is taken, and a bare file system: xfs, \
                 ext4, btrfs or erofs";
    match other {
        Some((.., what)) => bail!("it is {what}; {taken}"),
        None if head.iter().all(|&byte| byte == 0) => bail!("it begins with zeros only; {taken}"),
        None => bail!("nobody knows what is on it; {taken}"),
    }
}

/// A file system and the bytes that it claims.
struct Found {
    facts: FileSystemFacts,
    bytes: u64,
}

/// The superblock at the beginning (xfs_dsb).
fn xfs(head: &[u8]) -> Option<Found> {
    (part(head, 0, 4)? == b"XFSB").then_some(())?;
    Some(Found {
        facts: facts("xfs", part(head, 108, 12)?, part(head, 32, 16)?),
        bytes: u64::from(be32(head, 4)?).saturating_mul(be64(head, 8)?),
    })
}

/// The superblock at 1024 (ext4_super_block).
fn ext(head: &[u8]) -> Option<Found> {
    const INCOMPAT_64BIT: u32 = 0x80;
    let sb = head.get(1024..)?;
    (le16(sb, 0x38)? == 0xef53).then_some(())?;
    let high = match le32(sb, 0x60)? & INCOMPAT_64BIT {
        0 => 0,
        _ => u64::from(le32(sb, 0x150)?),
    };
    let blocks = u64::from(le32(sb, 4)?) | high << 32;
    let block = 1024u64.checked_shl(le32(sb, 0x18)?)?;
    Some(Found {
        facts: facts("ext4", part(sb, 0x78, 16)?, part(sb, 0x68, 16)?),
        bytes: blocks.saturating_mul(block),
    })
}

/// The superblock at 64 KiB (btrfs_super_block).
fn btrfs(head: &[u8]) -> Option<Found> {
    let sb = head.get(64 << 10..)?;
    (part(sb, 0x40, 8)? == b"_BHRfS_M").then_some(())?;
    Some(Found {
        facts: facts("btrfs", part(sb, 0x12b, 256)?, part(sb, 0x20, 16)?),
        bytes: le64(sb, 0x70)?,
    })
}

/// The superblock at 1024 (erofs_super_block).
fn erofs(head: &[u8]) -> Option<Found> {
    let sb = head.get(1024..)?;
    (le32(sb, 0)? == 0xe0f5_e1e2).then_some(())?;
    let shift = u32::from(*sb.get(12)?);
    Some(Found {
        facts: facts("erofs", part(sb, 64, 16)?, part(sb, 48, 16)?),
        bytes: u64::from(le32(sb, 36)?).saturating_mul(1u64.checked_shl(shift)?),
    })
}

fn facts(kind: &str, label: &[u8], uuid: &[u8]) -> FileSystemFacts {
    let end = label.iter().position(|&byte| byte == 0);
    let label = label.get(..end.unwrap_or(label.len())).unwrap_or_default();
    let mut text = String::new();
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    FileSystemFacts {
        kind: kind.to_owned(),
        label: String::from_utf8_lossy(label).into_owned(),
        uuid: Some(text),
        features: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Program;

    /// The first bytes of a file system that its mkfs made, and its size.
    fn made(mkfs: &[&str]) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let size = 320 << 20;
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        let (program, args) = mkfs.split_first().unwrap();
        let program = Program::new(*program).args(args.iter().copied());
        program.arg(&path).run().unwrap();
        let mut head = vec![0; HEAD];
        let file = std::fs::File::open(&path).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0).unwrap();
        (head, size)
    }

    #[test]
    fn file_systems_are_told_with_label_and_identifier() {
        const UUID: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";
        let uuid = format!("uuid={UUID}");
        for mkfs in [
            vec!["mkfs.xfs", "-q", "-L", "ROOTFS", "-m", &uuid],
            vec!["mkfs.ext4", "-q", "-F", "-L", "ROOTFS", "-U", UUID],
        ] {
            let (head, size) = made(&mkfs);
            let Content::FileSystem(found) = look(&head, size).unwrap() else {
                panic!("{mkfs:?} is no partition table");
            };
            assert!(mkfs[0].ends_with(&found.kind), "{}", found.kind);
            assert_eq!(
                (&*found.label, found.uuid.as_deref()),
                ("ROOTFS", Some(UUID))
            );
            let error = look(&head, size - 4096).unwrap_err().to_string();
            assert!(error.contains("it is cut off"), "{error}");
        }
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let refused = |at: usize, magic: &[u8], why: &str| {
            let mut head = vec![0; HEAD];
            head[at..at + magic.len()].copy_from_slice(magic);
            let error = look(&head, HEAD as u64).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(0, b"", "zeros only");
        refused(0, b"hello", "nobody knows");
        refused(512, b"LABELONE", "LVM");
        refused(0, b"LUKS\xba\xbe", "LUKS");
        refused(32769, b"CD001", "ISO image");
        // Shorter than any superblock.
        assert!(look(b"XFSB", 4).is_err());
        assert!(look(b"", 0).is_err());
    }
}
