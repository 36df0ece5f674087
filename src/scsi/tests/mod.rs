//! Command blocks in, status and data out.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::block::{self, MemoryDisk};

mod aborts;
mod blocks;
mod live;
mod model;
mod parameters;
mod reservations;
mod sanitize;

const DISK: u16 = 1;
const BLOCKS: u64 = 2048;

fn device(disk: MemoryDisk) -> Arc<Device> {
    let lun = Lun::new(DISK).unwrap();
    Arc::new(Device::new("controller").with_disk(lun, "disk", Arc::new(disk), Options::default()))
}

/// A path from one initiator.
fn path() -> Path {
    path_of(1)
}

/// The path of the initiator with this number.
fn path_of(number: u8) -> Path {
    Path {
        initiator: TransportId::iscsi("iqn.2026-01.test:i", [0x80, 0, 0, 0, 0, number]),
        target: TargetPort {
            name: "iqn.2026-01.test:t,t,0x0001".into(),
            relative: 1,
        },
    }
}

/// A nexus that has been told of the power-on.
fn ready(device: &Arc<Device>) -> Nexus {
    ready_from(device, 1)
}

/// The same, of the initiator with this number.
fn ready_from(device: &Arc<Device>, number: u8) -> Nexus {
    let nexus = device.connect(path_of(number));
    for lun in [0, DISK] {
        run(&nexus, lun, &[0], b"");
    }
    nexus
}

fn nexus() -> Nexus {
    ready(&device(MemoryDisk::new(512, BLOCKS)))
}

/// What a command ends with: status, sense as key and code, data.
fn run(nexus: &Nexus, lun: u16, cdb: &[u8], data: &[u8]) -> (Status, Option<(u8, u16)>, Vec<u8>) {
    let mut block = [0; 16];
    block[..cdb.len()].copy_from_slice(cdb);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let answer = match nexus.start(Lun::new(lun), block) {
            Start::Done(answer) => answer,
            Start::Data(pending) => {
                let n = data.len().min(pending.len() as usize);
                pending.finish(vec![Bytes::copy_from_slice(&data[..n])])
            }
        };
        let response = answer.wait().await;
        let bytes = block::load(response.data).wait().await.unwrap();
        let sense = response.sense.map(|sense| (sense.key, sense.code));
        (response.status, sense, bytes.to_vec())
    })
}

fn good(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> Vec<u8> {
    let (status, sense, bytes) = run(nexus, DISK, cdb, data);
    assert_eq!((status, sense), (Status::Good, None), "{cdb:02x?}");
    bytes
}

fn refused(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> (u8, u16) {
    let (status, sense, bytes) = run(nexus, DISK, cdb, data);
    assert_eq!(status, Status::CheckCondition, "{cdb:02x?}");
    assert!(bytes.is_empty());
    sense.unwrap()
}

#[test]
fn every_size_of_read_and_write_reaches_the_same_blocks() {
    let writes: [&[u8]; 4] = [
        &[0x0a, 0, 0, 9, 2, 0],
        &[0x2a, 0, 0, 0, 0, 9, 0, 0, 2, 0],
        &[0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0],
        &[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0],
    ];
    for (i, write) in writes.iter().enumerate() {
        let nexus = nexus();
        let data = vec![i as u8 + 1; 1024];
        good(&nexus, write, &data);
        for read in &writes {
            let mut read = read.to_vec();
            read[0] -= 2;
            assert_eq!(good(&nexus, &read, b""), data);
        }
        assert_eq!(
            good(&nexus, &[0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0], b""),
            [0; 512]
        );
    }
}

#[test]
fn six_byte_reads_of_nothing_mean_256_blocks() {
    assert_eq!(good(&nexus(), &[0x08, 0, 0, 0, 0, 0], b"").len(), 256 * 512);
}

#[test]
fn blocks_beyond_the_end_are_refused() {
    let nexus = nexus();
    for cdb in [
        &[0x28, 0, 0, 0, 8, 0, 0, 0, 1, 0][..],
        &[0x28, 0, 0, 0, 7, 0xff, 0, 0, 2, 0],
        &[
            0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0,
        ],
        &[0x35, 0, 0, 0, 8, 0, 0, 0, 1, 0],
    ] {
        assert_eq!(refused(&nexus, cdb, b""), (5, 0x2100));
    }
}

#[test]
fn what_a_command_reads_is_known_before_it_starts() {
    let nexus = nexus();
    let reads = |lun: u16, cdb: &[u8]| {
        let mut block = [0; 16];
        block[..cdb.len()].copy_from_slice(cdb);
        nexus.reads(Lun::new(lun), block)
    };
    assert_eq!(reads(DISK, &[0x08, 0, 0, 0, 0, 0]), 256 * 512);
    assert_eq!(reads(DISK, &[0x28, 0, 0, 0, 0, 0, 0, 0, 9, 0]), 9 * 512);
    // VERIFY sends nothing, and reads all the same.
    assert_eq!(reads(DISK, &[0x2f, 0, 0, 0, 0, 0, 0, 0, 9, 0]), 9 * 512);
    assert_eq!(reads(DISK, &[0xa8, 0, 0, 0, 0, 0, 0xff, 0, 0, 0]), 8 << 20);
    assert_eq!(reads(DISK, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 9, 0]), 0);
    assert_eq!(reads(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 9, 0]), 0);
    assert_eq!(reads(7, &[0x28, 0, 0, 0, 0, 0, 0, 0, 9, 0]), 0);
}

#[test]
fn a_command_is_no_larger_than_the_limit_that_is_told() {
    let nexus = ready(&device(MemoryDisk::new(512, 32768)));
    let limits = good(&nexus, &[0x12, 1, 0xb0, 0, 64, 0], b"");
    let most = u32::from_be_bytes(limits[8..12].try_into().unwrap());
    let mut read = vec![0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    read[10..14].copy_from_slice(&most.to_be_bytes());
    assert_eq!(good(&nexus, &read, b"").len(), most as usize * 512);
    read[10..14].copy_from_slice(&(most + 1).to_be_bytes());
    assert_eq!(refused(&nexus, &read, b""), (5, 0x2400));
}

#[test]
fn a_read_only_disk_refuses_every_change_before_it_takes_data() {
    let device = device(MemoryDisk::new(512, BLOCKS).sealed());
    let nexus = ready(&device);
    for cdb in [
        &[0x0a, 0, 0, 0, 1, 0][..],
        &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
        &[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    ] {
        let mut block = [0; 16];
        block[..cdb.len()].copy_from_slice(cdb);
        let Start::Done(block::Answer::Now(response)) = nexus.start(Lun::new(DISK), block) else {
            panic!("{cdb:02x?} was not refused at once");
        };
        assert_eq!(response.sense, Some(Sense::WRITE_PROTECTED));
    }
    // WP in both forms of MODE SENSE, and no write cache.
    assert_eq!(
        good(&nexus, &[0x1a, 0, 0x3f, 0, 192, 0], b"")[2] & 0x80,
        0x80
    );
    assert_eq!(
        good(&nexus, &[0x5a, 8, 0x08, 0, 0, 0, 0, 0, 192, 0], b"")[10] & 0x04,
        0
    );
}

#[test]
fn capacity_and_provisioning_agree() {
    for (disk, thin) in [
        (MemoryDisk::new(512, BLOCKS), true),
        (MemoryDisk::new(512, BLOCKS).sealed(), false),
    ] {
        let nexus = ready(&device(disk));
        let long = good(
            &nexus,
            &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
            b"",
        );
        assert_eq!(long[..8], (BLOCKS - 1).to_be_bytes());
        assert_eq!(long[8..12], 512u32.to_be_bytes());
        assert_eq!(long[13], 3, "4 KiB physical blocks");
        assert_eq!(long[14], if thin { 0xc0 } else { 0 });
        let page = good(&nexus, &[0x12, 1, 0xb2, 0, 64, 0], b"");
        assert_eq!(page[5], if thin { 0xe4 } else { 0 });
        let limits = good(&nexus, &[0x12, 1, 0xb0, 0, 64, 0], b"");
        assert_eq!(limits[20..24] != [0; 4], thin, "MAXIMUM UNMAP LBA COUNT");
        let short = good(&nexus, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], b"");
        assert_eq!(short, [&2047u32.to_be_bytes()[..], &[0, 0, 2, 0]].concat());
    }
}

#[test]
fn blocks_that_are_not_mapped_are_compared_as_zeros_and_this_is_told() {
    let nexus = nexus();
    let characteristics = good(&nexus, &[0x12, 1, 0xb1, 0, 64, 0], b"");
    assert_eq!(characteristics[8], 0x01, "VBULS");
    let unmap = [
        &[0, 22, 0, 16, 0, 0, 0, 0][..],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0],
    ];
    good(&nexus, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &unmap.concat());
    let verify = [0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1, 0];
    good(&nexus, &verify, &[0; 512]);
    assert_eq!(refused(&nexus, &verify, &[1; 512]), (0xe, 0x1d00));
}

#[test]
fn every_listed_page_can_be_read_and_says_how_long_it_is() {
    let nexus = nexus();
    for lun in [0, DISK] {
        let (_, _, list) = run(&nexus, lun, &[0x12, 1, 0, 0, 255, 0], b"");
        for code in &list[4..] {
            let (status, _, page) = run(&nexus, lun, &[0x12, 1, *code, 0, 255, 0], b"");
            assert_eq!(status, Status::Good);
            assert_eq!(page[1], *code);
            assert_eq!(
                page.len() - 4,
                usize::from(u16::from_be_bytes([page[2], page[3]]))
            );
        }
    }
    assert_eq!(
        refused(&nexus, &[0x12, 1, 0xb9, 0, 255, 0], b""),
        (5, 0x2400)
    );
    assert_eq!(
        refused(&nexus, &[0x12, 0, 0x80, 0, 255, 0], b""),
        (5, 0x2400)
    );
}

#[test]
fn identity_is_stable_and_differs_from_disk_to_disk() {
    let identify = |name: &str| {
        let device = Device::new("c").with_disk(
            Lun::new(DISK).unwrap(),
            name,
            Arc::new(MemoryDisk::new(512, 8)),
            Options::default(),
        );
        good(&ready(&Arc::new(device)), &[0x12, 1, 0x83, 0, 255, 0], b"")
    };
    let page = identify("fc28@3");
    assert_eq!(page, identify("fc28@3"));
    assert_ne!(page, identify("fc28@4"));
    // A binary NAA designator of the logical unit, locally assigned.
    assert_eq!(page[4..8], [0x01, 0x03, 0, 8]);
    assert_eq!(page[8] >> 4, 3);
}

#[test]
fn allocation_lengths_cut_exactly() {
    let nexus = nexus();
    for n in 0..=96u8 {
        assert_eq!(
            good(&nexus, &[0x12, 0, 0, 0, n, 0], b"").len(),
            usize::from(n)
        );
    }
    assert_eq!(
        good(&nexus, &[0x12, 0, 0, 1, 0, 0], b"").len(),
        96,
        "no more than there is"
    );
    for n in [4, 8, 192u8] {
        let all = good(&nexus, &[0x1a, 0, 0x3f, 0, n, 0], b"");
        assert!(all.len() <= usize::from(n));
        assert_eq!(
            all[0],
            3 + 8 + 12 + 16 + 20 + 12 + 12,
            "MODE DATA LENGTH is uncut"
        );
    }
}

#[test]
fn units_that_are_not_there_say_so() {
    let nexus = nexus();
    assert_eq!(run(&nexus, 7, &[0x12, 0, 0, 0, 36, 0], b"").2[0], 0x7f);
    assert_eq!(run(&nexus, 7, &[0], b"").1, Some((5, 0x2500)));
    let sense = run(&nexus, 7, &[0x03, 0, 0, 0, 18, 0], b"").2;
    assert_eq!((sense[2], sense[12]), (5, 0x25));
    for lun in [0, 1, 7] {
        let (_, _, luns) = run(&nexus, lun, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], b"");
        assert_eq!(luns[..4], 16u32.to_be_bytes());
        assert_eq!(luns[16 + 1], 1);
    }
}

#[test]
fn unknown_commands_are_illegal_and_known_ones_report_themselves() {
    let nexus = nexus();
    let all = good(&nexus, &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0], b"");
    let known: Vec<u8> = all[4..].chunks(8).map(|entry| entry[0]).collect();
    let with_actions = |opcode: u8| {
        let mut entries = all[4..].chunks(8).filter(|entry| entry[0] == opcode);
        entries.any(|entry| entry[5] & 0x01 != 0)
    };
    for opcode in 0..=255u8 {
        let one = good(
            &nexus,
            &[0xa3, 0x0c, 3, opcode, 0, 0, 0, 0, 1, 0, 0, 0],
            b"",
        );
        if known.contains(&opcode) {
            if !with_actions(opcode) {
                assert_eq!((one[1], one[4]), (3, opcode));
            }
        } else {
            assert_eq!(one[1], 1);
            assert_eq!(refused(&nexus, &[opcode], b""), (5, 0x2000), "{opcode:#x}");
        }
    }
    // The controller has no medium.
    assert_eq!(
        run(&nexus, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], b"").1,
        Some((5, 0x2000))
    );
}

#[test]
fn a_new_nexus_is_told_of_the_power_on_once() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let nexus = device.connect(path());
    good(&nexus, &[0x12, 0, 0, 0, 36, 0], b"");
    good(&nexus, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], b"");
    assert_eq!(refused(&nexus, &[0], b""), (6, 0x2900));
    good(&nexus, &[0], b"");

    let nexus = device.connect(path());
    let sense = good(&nexus, &[0x03, 0, 0, 0, 18, 0], b"");
    assert_eq!((sense[2], sense[12]), (6, 0x29));
    good(&nexus, &[0], b"");
}

#[test]
fn a_reset_is_told_to_everybody_and_cleared_commands_to_the_others() {
    let lun = Lun::new(DISK).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for reset in [Reset::Unit(lun), Reset::Device] {
        let device = device(MemoryDisk::new(512, BLOCKS));
        let (one, two) = (ready(&device), ready(&device));
        runtime.block_on(one.reset(reset));
        for nexus in [&one, &two] {
            assert_eq!(refused(nexus, &[0], b""), (6, 0x2903));
            good(nexus, &[0], b"");
        }
    }
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two, idle) = (ready(&device), ready(&device), ready(&device));
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let open = [&one, &two].map(|nexus| nexus.start(Some(lun), write));
    runtime.block_on(one.reset(Reset::Commands(lun)));
    // Who had no command has lost none.
    good(&one, &[0], b"");
    good(&idle, &[0], b"");
    assert_eq!(refused(&two, &[0], b""), (6, 0x2f00));
    drop(open);
}

#[test]
fn a_reset_silences_what_waits_for_data() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready(&device));
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let Start::Data(pending) = one.start(Lun::new(DISK), write) else {
        panic!("a write needs data");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(two.reset(Reset::Device));
    assert_eq!(refused(&two, &[0], b""), (6, 0x2903));
    let block::Answer::Now(response) = pending.finish(vec![Bytes::from(vec![1; 512])]) else {
        panic!("memory answers at once");
    };
    assert_eq!(response.status, Status::Silent);
    assert_eq!(
        good(&two, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], b""),
        [0; 512]
    );
}

#[test]
fn verify_compares() {
    let nexus = nexus();
    good(&nexus, &[0x2a, 0, 0, 0, 0, 4, 0, 0, 2, 0], &[5; 1024]);
    let verify = |bytchk: u8| [0x2f, bytchk << 1, 0, 0, 0, 4, 0, 0, 2, 0];
    good(&nexus, &verify(0), b"");
    good(&nexus, &verify(1), &[5; 1024]);
    good(&nexus, &verify(3), &[5; 512]);
    let mut other = [5; 1024];
    other[700] = 6;
    assert_eq!(refused(&nexus, &verify(1), &other), (0xe, 0x1d00));
}

#[test]
fn unmapped_blocks_read_as_zeros() {
    let nexus = nexus();
    good(&nexus, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 32, 0], &[9; 16384]);
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend(3u64.to_be_bytes());
    list.extend(17u32.to_be_bytes());
    list.extend([0; 4]);
    good(&nexus, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list);
    let all = good(&nexus, &[0x28, 0, 0, 0, 0, 0, 0, 0, 32, 0], b"");
    for (lba, block) in all.chunks(512).enumerate() {
        let expected = if (3..20).contains(&lba) { 0 } else { 9 };
        assert_eq!(block, [expected; 512]);
    }
}

#[test]
fn lists_of_blocks_to_unmap_are_checked_before_any_is_unmapped() {
    let nexus = nexus();
    good(&nexus, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[9; 512]);
    let descriptor = |lba: u64, n: u32| {
        let mut d = lba.to_be_bytes().to_vec();
        d.extend(n.to_be_bytes());
        d.extend([0; 4]);
        d
    };
    let cdb = |len: u8| [0x42, 0, 0, 0, 0, 0, 0, 0, len, 0];
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    list.extend(descriptor(0, 1));
    list.extend(descriptor(BLOCKS, 1));
    assert_eq!(refused(&nexus, &cdb(40), &list), (5, 0x2100));
    assert_eq!(refused(&nexus, &cdb(4), b"1234"), (5, 0x1a00));
    // A length that points beyond the list (CVE-2020-1711's kind) reaches no further than the list.
    let mut liar = vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    liar.extend(descriptor(u64::MAX, u32::MAX));
    assert_eq!(refused(&nexus, &cdb(24), &liar).0, 5);
    assert_eq!(
        good(&nexus, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], b""),
        [9; 512]
    );
}

#[test]
fn write_same_fills() {
    let nexus = nexus();
    let read = |lba: u8, n: u8| good(&nexus, &[0x28, 0, 0, 0, 0, lba, 0, 0, n, 0], b"");
    good(
        &nexus,
        &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0],
        &[7; 512],
    );
    assert_eq!(read(0, 200), vec![7; 200 * 512]);
    good(&nexus, &[0x41, 0x08, 0, 0, 0, 10, 0, 0, 5, 0], &[0; 512]);
    assert_eq!(read(9, 2), [[7; 512], [0; 512]].concat());
    good(
        &nexus,
        &[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 1, 0, 0],
        b"",
    );
    assert_eq!(read(100, 2), [[0; 512], [7; 512]].concat());
    let nothing = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(&nexus, &nothing, b""), (5, 0x2400));
}

#[test]
fn a_disk_that_is_full_says_so() {
    struct Full;
    impl block::Disk for Full {
        fn geometry(&self) -> block::Geometry {
            MemoryDisk::new(512, 8).geometry()
        }
        fn read(&self, _: block::Extent) -> block::Answer<block::Result<Vec<block::Segment>>> {
            block::Answer::Now(Err(block::Error::Failed(std::io::Error::other("worn out"))))
        }
        fn write(&self, _: block::Extent, _: Vec<Bytes>) -> block::Answer<block::Result<()>> {
            block::Answer::Now(Err(block::Error::OutOfSpace))
        }
        fn flush(&self) -> block::Answer<block::Result<()>> {
            block::Answer::Now(Ok(()))
        }
        fn unmap(&self, _: block::Extent) -> block::Answer<block::Result<()>> {
            block::Answer::Now(Ok(()))
        }
    }
    let device = Device::new("c").with_disk(
        Lun::new(DISK).unwrap(),
        "d",
        Arc::new(Full),
        Options::default(),
    );
    let nexus = ready(&Arc::new(device));
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(refused(&nexus, &write, &[1; 512]), (7, 0x2707));
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(refused(&nexus, &read, b""), (3, 0x1100));
}
