//! Clones that share blocks with their version: they are the bytes that were written, wherever these are
//! read from.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use netroot::block::{self, Disk, Segment};
use netroot::exec::Program;
use netroot::library::{Act, ByteSize, Mode, NewSize, Quiet, VersionId, When};
use tokio::runtime::Runtime;

use crate::lab::{Lab, MIB, on, on_xfs};

const MAC: &str = "52:54:00:12:34:56";
/// Bytes of its disk. They end within a block of the file system, the last of a piece that would be shared
/// as a whole.
const SIZE: u64 = 5 * MIB - 3584;
/// What it grows to.
const GROWN: u64 = 8 * MIB;

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
    mixed + &"x".repeat((SIZE - 3 * MIB) as usize)
}

fn read(runtime: &Runtime, disk: &dyn Disk, lba: u64, blocks: u64) -> Vec<Segment> {
    let extent = disk.geometry().extent(lba, blocks).unwrap();
    runtime.block_on(disk.read(extent).wait()).unwrap()
}

fn bytes(runtime: &Runtime, segments: Vec<Segment>) -> Bytes {
    runtime.block_on(block::load(segments).wait()).unwrap()
}

/// Bytes of segments that lie in a file.
fn from_file(segments: &[Segment], inode: u64) -> u64 {
    let is_there = |segment: &&Segment| match segment {
        Segment::File { file, .. } => file.metadata().unwrap().ino() == inode,
        _ => false,
    };
    segments.iter().filter(is_there).map(Segment::len).sum()
}

fn inode(lab: &Lab, version: &VersionId) -> u64 {
    let path = lab.lib.version(version).unwrap().disk_path();
    std::fs::metadata(path).unwrap().ino()
}

/// A client works on its disk, leaves, and comes back, again and again; every other time its server is
/// killed, and nothing was synced.
fn behaves_as_a_byte_array(lab: Lab, always_shares: bool) {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let text = text();
    let version = lab.seal_sized("fc28", &text, SIZE);
    let inode = inode(&lab, &version);
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let mut model = text.into_bytes();
    let mut drawn = Drawn(2);
    let range = |lba: u64, n: u64| (lba * 512) as usize..((lba + n) * 512) as usize;
    for round in 0..8 {
        let disk: Arc<dyn Disk> = lab.lib.open_clone(&mac).unwrap();
        let segments = read(&runtime, disk.as_ref(), 0, model.len() as u64 / 512);
        let shared = from_file(&segments, inode);
        assert!(
            !always_shares || shared > 0,
            "nothing is shared in round {round}"
        );
        assert!(bytes(&runtime, segments)[..] == model[..], "round {round}");
        if round == 4 {
            let size = NewSize {
                size: ByteSize::new(GROWN),
            };
            lab.act(&mac, Act::Resize(size), When::Now).unwrap();
            disk.refresh().unwrap();
            model.resize(GROWN as usize, 0);
        }
        let all = model.len() as u64 / 512;
        let extent = |lba, n| disk.geometry().extent(lba, n).unwrap();
        for _ in 0..40 {
            let n = 1 + drawn.below(200);
            let lba = drawn.below(all - n);
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
                    let onto = drawn.below((all - n) / 8) * 8;
                    let lba = lba.min((all - n) / 8 * 8);
                    model.copy_within(range(lba, n), range(onto, n).start);
                    let copied =
                        block::copy(disk.clone(), extent(lba, n), disk.clone(), extent(onto, n));
                    runtime.block_on(copied.wait()).unwrap();
                }
            }
        }
        if round % 2 == 0 {
            runtime.block_on(disk.flush().wait()).unwrap();
        }
        let found = bytes(&runtime, read(&runtime, disk.as_ref(), 0, all));
        assert!(found[..] == model[..], "round {round}");
    }
    lab.lib.verify(&version, &Quiet).unwrap();
}

#[test]
fn a_clone_is_what_was_written_to_it() {
    on_xfs(|lab| behaves_as_a_byte_array(lab, true));
    on("btrfs", &[], |lab| behaves_as_a_byte_array(lab, true));
    // What is compressed is not where its extent says, and never counts as shared.
    on("btrfs", &["compress-force=zstd"], |lab| {
        behaves_as_a_byte_array(lab, false);
    });
}

/// The room for clones has run out, and they were moved to a storage of their own: what lies at the same
/// place there is something else.
#[test]
fn a_clone_on_another_storage_shares_nothing() {
    on_xfs(|lab| {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let text = text();
        lab.seal_sized("fc28", &text, SIZE);
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let mounted = lab.home().parent().unwrap();
        let dir = mounted.parent().unwrap();
        let run = |program: &str, args: &[&Path]| {
            Program::new(program).args(args).run().unwrap();
        };
        let (image, copy) = (dir.join("library.img"), dir.join("copy.img"));
        run("fsfreeze", &[Path::new("-f"), mounted]);
        std::fs::copy(&image, &copy).unwrap();
        run("fsfreeze", &[Path::new("-u"), mounted]);
        // All there is where it is on the other one, and what the client has is not what it was.
        let whole = std::fs::read(&copy).unwrap();
        let first = &text.as_bytes()[..4096];
        let at = whole.chunks(4096).position(|block| block == first).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[b'Z'; 4096], at as u64 * 4096).unwrap();
        file.sync_all().unwrap();
        let other = dir.join("other");
        std::fs::create_dir(&other).unwrap();
        run("mount", &[Path::new("-oloop,nouuid"), &copy, &other]);
        let clones = lab.home().join("clones");
        run(
            "mount",
            &[Path::new("--bind"), &other.join("library/clones"), &clones],
        );
        let disk = lab.lib.open_clone(&mac).unwrap();
        let found = bytes(&runtime, read(&runtime, disk.as_ref(), 0, 8));
        drop(disk);
        run("umount", &[&clones]);
        run("umount", &[&other]);
        assert!(found[..] == [b'Z'; 4096]);
    });
}

/// The cache of the version is everybody's, a clone's its own.
#[test]
fn what_a_clone_shares_is_read_from_its_version() {
    on_xfs(|lab| {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let version = lab.seal("fc28", &text());
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let inode = inode(&lab, &version);
        let from_version = |segments: &[Segment]| from_file(segments, inode);
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

/// More extents than the kernel tells of at once.
#[test]
fn what_a_clone_shares_is_found_behind_many_small_writes() {
    on_xfs(|lab| {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        let version = lab.seal("fc28", &text());
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let disk = lab.lib.open_clone(&mac).unwrap();
        let small = 2 * MIB / 8192;
        for n in 0..small {
            let extent = disk.geometry().extent(n * 16, 8).unwrap();
            let data = vec![Bytes::from(vec![7; 4096])];
            runtime.block_on(disk.write(extent, data).wait()).unwrap();
        }
        runtime.block_on(disk.flush().wait()).unwrap();
        drop(disk);
        let again = lab.lib.open_clone(&mac).unwrap();
        let segments = read(&runtime, again.as_ref(), 0, 4 * MIB / 512);
        assert_eq!(from_file(&segments, inode(&lab, &version)), 2 * MIB);
        let own = lab.lib.own_bytes(&mac).unwrap();
        assert_eq!(own, Some(small * 4096));
    });
}

/// The version's file ends within a block of the file system, which the clone goes on to fill.
#[test]
fn what_lies_behind_the_end_of_a_version_is_its_clones_own() {
    on_xfs(|lab| {
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        lab.seal_sized("fc28", &text(), SIZE);
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let disk = lab.lib.open_clone(&mac).unwrap();
        let size = NewSize {
            size: ByteSize::new(GROWN),
        };
        lab.act(&mac, Act::Resize(size), When::Now).unwrap();
        disk.refresh().unwrap();
        let found = bytes(&runtime, read(&runtime, disk.as_ref(), SIZE / 512 - 1, 2));
        assert!(found[..512] == [b'x'; 512] && found[512..] == [0; 512]);
    });
}
