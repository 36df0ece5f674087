//! Commands on blocks, each by what an initiator sees of it.

use super::model::{copy_list, naa};
use super::*;
use crate::block::{FileDisk, FileOptions};

/// A unit with a file of so many bytes, which goes with the directory.
pub(super) fn file(size: u64, options: &FileOptions) -> (tempfile::TempDir, Nexus) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let disk = FileDisk::open(&path, options).unwrap();
    let options = Options {
        sanitize: true,
        ..Options::default()
    };
    let lun = Lun::new(DISK).unwrap();
    let device = Device::new("c").with_disk(lun, "d", Arc::new(disk), options);
    (dir, ready(&Arc::new(device)))
}

#[test]
fn a_miscompare_tells_where() {
    let nexus = nexus();
    let mut data = vec![0; 2048];
    data[700] = 1;
    data[1024..].fill(7);
    let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0];
    let Start::Data(pending) = nexus.start(Lun::new(DISK), cdb) else {
        panic!("it needs data");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let response = runtime.block_on(pending.finish(vec![data.clone().into()]).wait());
    assert_eq!(response.sense.unwrap().information, Some(700));
    data[700] = 0;
    good(&nexus, &cdb, &data);
    let read = [0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0];
    assert_eq!(good(&nexus, &read, b""), [7; 1024]);
    // A part of the data decides nothing.
    assert_eq!(refused(&nexus, &cdb, &data[..1024]), (5, 0x2400));
}

#[test]
fn concurrent_increments_by_compare_and_write_are_all_counted() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let increment = |nexus: &Nexus| loop {
        let old = good(nexus, &[0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0], b"");
        let count = u32::from_be_bytes(old[..4].try_into().unwrap()) + 1;
        let mut data = old.clone();
        data.extend(count.to_be_bytes());
        data.extend([0; 508]);
        let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0];
        match run(nexus, DISK, &cdb, &data) {
            (Status::Good, ..) => return,
            (_, sense, _) => assert_eq!(sense, Some((0xe, 0x1d00))),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let nexus = ready(&device);
                (0..100).for_each(|_| increment(&nexus));
            });
        }
    });
    let count = good(&ready(&device), &[0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0], b"");
    assert_eq!(count[..4], 400u32.to_be_bytes());
}

#[test]
fn holes_of_a_file_are_told_as_deallocated() {
    let (_dir, nexus) = file(1 << 20, &FileOptions::new(512));
    good(&nexus, &[0x2a, 0, 0, 0, 0, 64, 0, 0, 8, 0], &[1; 4096]);
    let status = [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let data = good(&nexus, &status, b"");
    let runs: Vec<_> = data[8..]
        .chunks(16)
        .map(|d| {
            (
                d[7],
                u32::from_be_bytes(d[8..12].try_into().unwrap()),
                d[12],
            )
        })
        .collect();
    assert_eq!(runs, [(0, 64, 1), (64, 8, 0), (72, 2048 - 72, 1)]);
    assert_eq!(data[..4], (4 + 3 * 16u32).to_be_bytes());
}

#[test]
fn prefetch_says_whether_all_fits() {
    let (_dir, nexus) = file(64 << 20, &FileOptions::new(512));
    let some = [0x34, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    assert_eq!(run(&nexus, DISK, &some, b"").0, Status::ConditionMet);
    let all = [0x34, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(run(&nexus, DISK, &all, b"").0, Status::Good);
    let beyond = [0x34, 0, 0, 2, 0, 0, 0, 0, 8, 0];
    assert_eq!(refused(&nexus, &beyond, b""), (5, 0x2100));
}

#[test]
fn copies_reach_no_unit_but_the_initiators_own() {
    let nexus = nexus();
    good(&nexus, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], &[3; 4096]);
    let cdb = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 76, 0, 0];
    let own = naa(&nexus);
    good(&nexus, &cdb, &copy_list(&own, 0, 8, 100));
    let read = [0x28, 0, 0, 0, 0, 100, 0, 0, 8, 0];
    assert_eq!(good(&nexus, &read, b""), [3; 4096]);
    // What became of it is told by its identifier.
    let results = [0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    let told = good(&nexus, &results, b"");
    assert_eq!(told, [0, 0, 0, 8, 1, 0, 1, 1, 0, 0, 0, 4]);

    let foreign: Vec<u8> = own.iter().map(|byte| byte ^ 1).collect();
    let list = copy_list(&foreign, 0, 8, 200);
    assert_eq!(refused(&nexus, &cdb, &list), (0xa, 0x0d02));
    let list = copy_list(&own, BLOCKS - 1, 8, 0);
    assert_eq!(refused(&nexus, &cdb, &list), (0xa, 0));
    for cut in 0..76 {
        let list = copy_list(&own, 0, 8, 100);
        assert_eq!(refused(&nexus, &cdb, &list[..cut]), (5, 0x1a00), "{cut}");
    }
}
