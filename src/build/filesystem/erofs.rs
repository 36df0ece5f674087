//! EROFS: read-only and compressed, packed in one go from a tree.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::inodes::crc;
use super::{LABEL, SourceDate};
use crate::build::tree::{Excludes, Root};
use crate::build::version::{KernelRelease, Since};
use crate::exec::{Cancel, Program};

/// The first kernel that has it outside of `staging`.
pub(super) const FIRST_KERNEL: Since = Since(5, 4);

/// Kernels that read what was compressed in pieces larger than a block.
const LARGE_PIECES: Since = Since(5, 13);

/// Tools that would otherwise make blocks of the size of this host's pages.
const BLOCK_OPTION: Since = Since(1, 7);

const MIB: u64 = 1024 * 1024;

const SUPERBLOCK: u64 = 1024;
const BLOCK: usize = 4096;
const MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
const HAS_CHECKSUM: u8 = 1;

/// Offsets in the superblock (the kernel's fs/erofs/erofs_fs.h).
mod at {
    use std::ops::Range;
    pub(super) const MAGIC: Range<usize> = 0..4;
    pub(super) const CHECKSUM: Range<usize> = 4..8;
    pub(super) const COMPATIBLE: usize = 8;
    pub(super) const BLOCK_BITS: usize = 12;
    pub(super) const NAME: Range<usize> = 64..80;
}

/// How the files of an image for `kernel` are compressed: arguments of mkfs.erofs, and the features
/// as they were decided.
///
/// LZ4 is what every kernel with EROFS reads, and the quickest for clients; zstd and LZMA make
/// smaller disks, but older kernels and many configurations lack them.
fn options(kernel: &KernelRelease, tools: Since, uuid: &str) -> (Vec<OsString>, Vec<String>) {
    let mut args = vec!["--quiet", "-zlz4hc", "-U", uuid];
    let mut decided = vec!["lz4hc"];
    if kernel.knows(LARGE_PIECES) {
        args.push("-C65536");
        decided.push("big_pcluster");
    }
    if tools >= BLOCK_OPTION {
        args.push("-b4096");
    }
    (
        args.into_iter().map(OsString::from).collect(),
        decided.into_iter().map(str::to_owned).collect(),
    )
}

/// Packs `tree` into the empty file `disk`, which gets whole mebibytes. Tells the features.
pub(super) fn pack(
    disk: &Path,
    kernel: &KernelRelease,
    tree: &Root,
    excludes: &Excludes,
    uuid: &str,
    date: Option<SourceDate>,
    cancel: &Cancel,
) -> Result<Vec<String>> {
    let (args, features) = options(kernel, tools(cancel)?, uuid);
    let left_out = excludes.expressions().into_iter().map(|expression| {
        let mut arg = OsString::from("--exclude-regex=");
        arg.push(expression);
        arg
    });
    let mut program = Program::new("mkfs.erofs").args(args).args(left_out);
    if let Some(date) = date {
        program = program.env("SOURCE_DATE_EPOCH", date.to_string());
    }
    program
        .arg(disk)
        .arg(tree.path())
        .cancel(cancel)
        .run()
        .context(
            "packing the tree: mkfs.erofs takes no path longer than 4095 bytes, and some releases \
             no name of 255; with --fs xfs both fit",
        )?;
    finish(disk).with_context(|| format!("labelling {}", disk.display()))?;
    Ok(features)
}

/// The release of this host's erofs-utils.
fn tools(cancel: &Cancel) -> Result<Since> {
    // Older releases of mkfs.erofs do not tell theirs; both come in one package.
    let said = Program::new("fsck.erofs").arg("-V").cancel(cancel).run()?;
    let said = said.text() + &String::from_utf8_lossy(&said.stderr);
    Since::find(&said).context("fsck.erofs -V does not tell its version")
}

/// Writes the label, which the mkfs.erofs of many distributions cannot, and fills the last mebibyte.
fn finish(disk: &Path) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(disk)?;
    let mut block = [0; BLOCK - SUPERBLOCK as usize];
    file.read_exact_at(&mut block, SUPERBLOCK)?;
    label(&mut block)?;
    file.write_all_at(&block, SUPERBLOCK)?;
    let size = file.metadata()?.len();
    file.set_len(size.next_multiple_of(MIB))?;
    Ok(())
}

/// Puts [`LABEL`] into a superblock, with the rest of the block that its checksum covers.
fn label(block: &mut [u8]) -> Result<()> {
    let has =
        |block: &[u8], range, bytes: &[u8]| block.get::<std::ops::Range<_>>(range) == Some(bytes);
    ensure!(
        has(block, at::MAGIC, &MAGIC) && block.get(at::BLOCK_BITS) == Some(&12),
        "it is not the EROFS that was asked for"
    );
    let checked = block
        .get(at::COMPATIBLE)
        .is_some_and(|bits| bits & HAS_CHECKSUM != 0);
    let mut put = |range, bytes: &[u8]| -> Result<()> {
        let place = block.get_mut::<std::ops::Range<usize>>(range);
        place.context("it is too short")?.copy_from_slice(bytes);
        Ok(())
    };
    let mut name = [0; 16];
    name.iter_mut()
        .zip(LABEL.bytes())
        .for_each(|(to, from)| *to = from);
    put(at::NAME, &name)?;
    if checked {
        put(at::CHECKSUM, &[0; 4])?;
        let sum = crc(!0, block).to_le_bytes();
        block
            .get_mut(at::CHECKSUM)
            .context("it is too short")?
            .copy_from_slice(&sum);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_follows_the_images_kernel() {
        let decided = |release, tools| {
            let kernel = KernelRelease::parse(release).unwrap();
            let (args, features) = options(&kernel, tools, "U");
            let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
            (args.join(" "), features.join(" "))
        };
        let (args, features) = decided("5.4.0-1", Since(1, 5));
        assert_eq!(args, "--quiet -zlz4hc -U U");
        assert_eq!(features, "lz4hc");
        let (args, features) = decided("6.1.0-21-amd64", Since(1, 8));
        assert_eq!(args, "--quiet -zlz4hc -U U -C65536 -b4096");
        assert_eq!(features, "lz4hc big_pcluster");
    }

    #[test]
    fn only_a_superblock_is_labelled() {
        let mut block = vec![0; 3072];
        assert!(label(&mut block).is_err());
        block[..4].copy_from_slice(&MAGIC);
        block[12] = 12;
        label(&mut block).unwrap();
        assert_eq!(&block[64..80], b"NETROOT\0\0\0\0\0\0\0\0\0");
        // Without checksums none is written.
        assert_eq!(&block[4..8], [0; 4]);
        assert!(label(&mut block[..8]).is_err());
    }
}
