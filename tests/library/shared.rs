//! Clones that share blocks with their version: they are the bytes that were written, wherever these are
//! read from.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use netroot::block::{self, Disk, Segment};
use netroot::library::{Mode, Quiet};
use tokio::runtime::Runtime;

use crate::lab::{Lab, MIB, on, on_xfs};

const MAC: &str = "52:54:00:12:34:56";
/// Blocks of its disk.
const BLOCKS: u64 = 8 * MIB / 512;

/// Numbers that look drawn, and are the same each time.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's multiplier (MMIX); the upper bits are the better ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a version begins with: something that can be compressed beside something that cannot.
fn text() -> String {
    let mut drawn = Drawn(1);
    let mut letter = |_| char::from(b'a' + drawn.below(26) as u8);
    let mixed: String = (0..3 * MIB).map(&mut letter).collect();
    mixed + &"x".repeat(2 << 20)
}

fn read(runtime: &Runtime, disk: &dyn Disk, lba: u64, blocks: u64) -> Vec<Segment> {
    let extent = disk.geometry().extent(lba, blocks).unwrap();
    runtime.block_on(disk.read(extent).wait()).unwrap()
}

fn bytes(runtime: &Runtime, segments: Vec<Segment>) -> Bytes {
    runtime.block_on(block::load(segments).wait()).unwrap()
}

/// A client works on its disk, leaves, and comes back, again and again.
fn behaves_as_a_byte_array(lab: Lab) {
    let runtime = Runtime::new().unwrap();
    let text = text();
    let version = lab.seal("fc28", &text);
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let mut model = vec![0; 8 * MIB as usize];
    model[..text.len()].copy_from_slice(text.as_bytes());
    let mut drawn = Drawn(2);
    let range = |lba: u64, n: u64| (lba * 512) as usize..((lba + n) * 512) as usize;
    for _ in 0..6 {
        let disk: Arc<dyn Disk> = lab.lib.open_clone(&mac).unwrap();
        let extent = |lba, n| disk.geometry().extent(lba, n).unwrap();
        for _ in 0..60 {
            let n = 1 + drawn.below(400);
            let lba = drawn.below(BLOCKS - n);
            match drawn.below(8) {
                0..3 => {
                    let found = bytes(&runtime, read(&runtime, disk.as_ref(), lba, n));
                    assert!(found[..] == model[range(lba, n)], "{n} blocks at {lba}");
                }
                3..6 => {
                    let data = vec![drawn.below(256) as u8; (n * 512) as usize];
                    model[range(lba, n)].copy_from_slice(&data);
                    let data = vec![Bytes::from(data)];
                    runtime
                        .block_on(disk.write(extent(lba, n), data).wait())
                        .unwrap();
                }
                6 => {
                    model[range(lba, n)].fill(0);
                    runtime.block_on(disk.unmap(extent(lba, n)).wait()).unwrap();
                }
                _ => {
                    // Whole blocks of the file system, so that it can share them.
                    let (n, lba) = (n.next_multiple_of(8), lba / 8 * 8);
                    let onto = drawn.below((BLOCKS - n) / 8) * 8;
                    let lba = lba.min(BLOCKS - n);
                    model.copy_within(range(lba, n), range(onto, n).start);
                    let copied =
                        block::copy(disk.clone(), extent(lba, n), disk.clone(), extent(onto, n));
                    runtime.block_on(copied.wait()).unwrap();
                }
            }
        }
        runtime.block_on(disk.flush().wait()).unwrap();
        let all = bytes(&runtime, read(&runtime, disk.as_ref(), 0, BLOCKS));
        assert!(all[..] == model[..]);
    }
    lab.lib.verify(&version, &Quiet).unwrap();
}

#[test]
fn a_clone_is_what_was_written_to_it() {
    on_xfs(behaves_as_a_byte_array);
    on("btrfs", &["compress-force=zstd"], behaves_as_a_byte_array);
}

/// The cache of the version is everybody's, a clone's its own.
#[test]
fn what_a_clone_shares_is_read_from_its_version() {
    on_xfs(|lab| {
        let runtime = Runtime::new().unwrap();
        let version = lab.seal("fc28", &text());
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let path = lab.lib.version(&version).unwrap().disk_path();
        let inode = std::fs::metadata(path).unwrap().ino();
        let from_version = |segments: &[Segment]| {
            let is_there = |segment: &&Segment| match segment {
                Segment::File { file, .. } => file.metadata().unwrap().ino() == inode,
                _ => false,
            };
            segments
                .iter()
                .filter(is_there)
                .map(Segment::len)
                .sum::<u64>()
        };
        let disk = lab.lib.open_clone(&mac).unwrap();
        let blocks = 4 * MIB / 512;
        let segments = read(&runtime, disk.as_ref(), 0, blocks);
        assert_eq!(from_version(&segments), 4 * MIB);
        let extent = disk.geometry().extent(1000, 1).unwrap();
        let data = vec![Bytes::from(vec![7; 512])];
        runtime.block_on(disk.write(extent, data).wait()).unwrap();
        let segments = read(&runtime, disk.as_ref(), 0, blocks);
        assert_eq!(from_version(&segments), 4 * MIB - 65536);
        // The next one to open it finds the same by itself.
        runtime.block_on(disk.flush().wait()).unwrap();
        let again = lab.lib.open_clone(&mac).unwrap();
        let segments = read(&runtime, again.as_ref(), 0, blocks);
        assert_eq!(from_version(&segments), 4 * MIB - 65536);
    });
}
