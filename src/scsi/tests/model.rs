//! Any sequence of commands on blocks leaves a disk as it leaves an array of bytes.

use proptest::prelude::*;

use super::*;
use crate::block::{Disk, FileDisk, FileOptions, OverlayDisk};

/// Blocks of the disks, not a multiple of a page.
const BLOCKS: u64 = 67;
const SIZE: usize = BLOCKS as usize * 512;

/// One command, in blocks.
#[derive(Debug, Clone)]
enum Op {
    Read(u64, u64),
    Write(u64, u64, u8, bool),
    WriteAndVerify(u64, u64, u8),
    Atomic(u64, u64, u8),
    /// Whether what is expected is what is there.
    CompareAndWrite(u64, u64, u8, bool),
    OrWrite(u64, u64, u8),
    Verify(u64, u64, bool),
    Unmap(u64, u64),
    WriteSame(u64, u64, u8),
    Copy(u64, u64, u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let extent = (0..BLOCKS).prop_flat_map(|lba| (Just(lba), 1..=(BLOCKS - lba).min(20)));
    let data = (extent.clone(), 1u8..);
    let op = prop_oneof![
        extent.clone().prop_map(|(lba, n)| Op::Read(lba, n)),
        (data.clone(), any::<bool>()).prop_map(|(((l, n), b), fua)| Op::Write(l, n, b, fua)),
        data.clone()
            .prop_map(|((l, n), b)| Op::WriteAndVerify(l, n, b)),
        data.clone().prop_map(|((l, n), b)| Op::Atomic(l, n, b)),
        (data.clone(), any::<bool>())
            .prop_map(|(((l, n), b), same)| Op::CompareAndWrite(l, n, b, same)),
        data.clone().prop_map(|((l, n), b)| Op::OrWrite(l, n, b)),
        (extent.clone(), any::<bool>()).prop_map(|((l, n), same)| Op::Verify(l, n, same)),
        extent.clone().prop_map(|(l, n)| Op::Unmap(l, n)),
        (extent.clone(), 0u8..4).prop_map(|((l, n), b)| Op::WriteSame(l, n, b)),
        (extent, 0..BLOCKS).prop_map(|((l, n), to)| Op::Copy(l, n, to.min(BLOCKS - n))),
    ];
    proptest::collection::vec(op, 1..24)
}

/// A command of 16 bytes on blocks.
fn cdb(opcode: u8, flags: u8, lba: u64, blocks: u64) -> Vec<u8> {
    let mut cdb = vec![opcode, flags];
    cdb.extend(lba.to_be_bytes());
    cdb.extend((blocks as u32).to_be_bytes());
    cdb.extend([0, 0]);
    cdb
}

/// Data that differ from block to block.
fn bytes(blocks: u64, seed: u8) -> Vec<u8> {
    (0..blocks * 512)
        .map(|i| seed.wrapping_add((i / 512) as u8).max(1))
        .collect()
}

/// The parameter list that copies within one unit.
pub(super) fn copy_list(naa: &[u8], from: u64, blocks: u16, to: u64) -> Vec<u8> {
    let mut list = vec![1, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    list.extend([0xe4, 0, 0, 0, 1, 3, 0, naa.len() as u8]);
    list.extend(naa);
    list.resize(48, 0);
    list.extend([2, 0, 0, 24, 0, 0, 0, 0, 0, 0]);
    list.extend(blocks.to_be_bytes());
    list.extend(from.to_be_bytes());
    list.extend(to.to_be_bytes());
    list
}

/// The NAA designator of the disk.
pub(super) fn naa(nexus: &Nexus) -> Vec<u8> {
    good(nexus, &[0x12, 1, 0x83, 0, 255, 0], b"")[8..16].to_vec()
}

fn apply(nexus: &Nexus, model: &mut [u8], atomic: bool, op: Op) {
    let range = |lba: u64, n: u64| (lba * 512) as usize..((lba + n) * 512) as usize;
    match op {
        Op::Read(lba, n) => {
            assert!(good(nexus, &cdb(0x88, 0, lba, n), b"") == model[range(lba, n)]);
        }
        Op::Write(lba, n, seed, fua) => {
            let data = bytes(n, seed);
            good(nexus, &cdb(0x8a, if fua { 0x08 } else { 0 }, lba, n), &data);
            model[range(lba, n)].copy_from_slice(&data);
        }
        Op::WriteAndVerify(lba, n, seed) => {
            let data = bytes(n, seed);
            good(nexus, &cdb(0x8e, 0x02, lba, n), &data);
            model[range(lba, n)].copy_from_slice(&data);
        }
        Op::Atomic(lba, n, seed) => {
            let data = bytes(n, seed);
            if atomic {
                good(nexus, &cdb(0x9c, 0, lba, n), &data);
                model[range(lba, n)].copy_from_slice(&data);
            } else {
                assert_eq!(refused(nexus, &cdb(0x9c, 0, lba, n), &data), (5, 0x2000));
            }
        }
        Op::CompareAndWrite(lba, n, seed, same) => {
            let new = bytes(n, seed);
            let mut data = model[range(lba, n)].to_vec();
            if !same {
                let last = data.len() - 1;
                data[last] ^= 0x40;
            }
            data.extend(&new);
            let cdb = cdb(0x89, 0, lba, n);
            if same {
                good(nexus, &cdb, &data);
                model[range(lba, n)].copy_from_slice(&new);
            } else {
                assert_eq!(refused(nexus, &cdb, &data), (0xe, 0x1d00));
            }
        }
        Op::OrWrite(lba, n, seed) => {
            let data = bytes(n, seed);
            good(nexus, &cdb(0x8b, 0, lba, n), &data);
            for (byte, bits) in model[range(lba, n)].iter_mut().zip(data) {
                *byte |= bits;
            }
        }
        Op::Verify(lba, n, same) => {
            let mut data = model[range(lba, n)].to_vec();
            let cdb = cdb(0x8f, 0x02, lba, n);
            if same {
                good(nexus, &cdb, &data);
            } else {
                data[17] ^= 1;
                assert_eq!(refused(nexus, &cdb, &data), (0xe, 0x1d00));
            }
        }
        Op::Unmap(lba, n) => {
            let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
            list.extend(lba.to_be_bytes());
            list.extend((n as u32).to_be_bytes());
            list.extend([0; 4]);
            good(nexus, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list);
            model[range(lba, n)].fill(0);
        }
        Op::WriteSame(lba, n, byte) => {
            good(nexus, &cdb(0x93, 0x08, lba, n), &[byte; 512]);
            model[range(lba, n)].fill(byte);
        }
        Op::Copy(lba, n, to) => {
            let list = copy_list(&naa(nexus), lba, n as u16, to);
            let len = list.len() as u8;
            good(
                nexus,
                &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0],
                &list,
            );
            model.copy_within(range(lba, n), (to * 512) as usize);
        }
    }
}

fn check(disk: Arc<dyn Disk>, mut model: Vec<u8>, ops: Vec<Op>) {
    let atomic = disk.geometry().atomic > 0;
    let lun = Lun::new(DISK).unwrap();
    let device = Device::new("c").with_disk(lun, "disk", disk, Options::default());
    let nexus = ready(&Arc::new(device));
    for op in ops {
        apply(&nexus, &mut model, atomic, op);
    }
    apply(&nexus, &mut model, atomic, Op::Read(0, BLOCKS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_disk_in_memory_behaves_as_a_byte_array(ops in ops()) {
        check(Arc::new(MemoryDisk::new(512, BLOCKS)), vec![0; SIZE], ops);
    }

    #[test]
    fn a_file_and_its_clone_behave_as_byte_arrays(ops in ops(), later in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let (file, clone) = (dir.path().join("file"), dir.path().join("clone"));
        std::fs::write(&file, bytes(BLOCKS, 9)).unwrap();
        reflink_copy::reflink_or_copy(&file, &clone).unwrap();
        let options = FileOptions {
            journal: Some(dir.path().join("journal")),
            ..FileOptions::new(512)
        };
        check(Arc::new(FileDisk::open(&file, &options).unwrap()), bytes(BLOCKS, 9), ops);
        // What was done to the one has not touched the other.
        check(Arc::new(FileDisk::open_writable(&clone, 512).unwrap()), bytes(BLOCKS, 9), later);
    }

    #[test]
    fn an_overlay_behaves_as_a_byte_array(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("base"), bytes(BLOCKS, 9)).unwrap();
        OverlayDisk::create(&path("data"), &path("map"), SIZE as u64).unwrap();
        let base = Arc::new(FileDisk::open_sealed(&path("base"), 512).unwrap());
        let disk = OverlayDisk::open(&path("data"), &path("map"), base).unwrap();
        check(Arc::new(disk), bytes(BLOCKS, 9), ops);
    }
}
