//! Units that come, grow and go while initiators are there.

use futures_util::FutureExt;

use super::*;

const TUR: [u8; 6] = [0; 6];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn lun(number: u16) -> Lun {
    Lun::new(number).unwrap()
}

fn luns(nexus: &Nexus) -> Vec<u8> {
    let cdb = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let (_, _, list) = run(nexus, 0, &cdb, b"");
    list[8..].chunks(8).map(|lun| lun[1]).collect()
}

fn add(device: &Device, number: u16, identity: &str) {
    let disk = Arc::new(MemoryDisk::new(512, 8));
    let settled = device.add_disk(lun(number), identity, disk, Options::default());
    assert!(settled.now_or_never().is_some());
}

#[test]
fn a_disk_that_comes_is_told_once_unless_the_units_are_listed_before() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready(&device));
    add(&device, 5, "another");
    for nexus in [&one, &two] {
        assert_eq!(refused(nexus, &TUR, b""), (6, 0x3f0e));
        assert_eq!(run(nexus, 5, &TUR, b"").1, Some((6, 0x2900)));
        assert_eq!(run(nexus, 5, &TUR, b"").1, None);
    }
    // Told by one unit, it is told for all.
    assert_eq!(run(&one, 0, &TUR, b"").1, None);
    // The list is as good an answer.
    add(&device, 6, "a third");
    assert_eq!(luns(&one), [0, 1, 5, 6]);
    good(&one, &TUR, b"");
    assert_eq!(refused(&two, &TUR, b""), (6, 0x3f0e));
}

#[test]
fn a_disk_that_goes_is_not_there_for_what_comes_later_or_waits_for_data() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let nexus = ready(&device);
    let mut block = [0; 16];
    block[..10].copy_from_slice(&WRITE);
    let Start::Data(pending) = nexus.start(Lun::new(DISK), block) else {
        panic!("a write needs data");
    };
    assert!(device.remove(lun(DISK)).now_or_never().is_some());
    let block::Answer::Now(response) = pending.finish(vec![Bytes::from(vec![1; 512])]) else {
        panic!("it is known at once");
    };
    assert_eq!(response.sense, Some(Sense::NO_UNIT));
    assert_eq!(refused(&nexus, &WRITE, &[1; 512]), (5, 0x2500));
    assert_eq!(run(&nexus, DISK, &[0x12, 0, 0, 0, 36, 0], b"").2[0], 0x7f);
    assert_eq!(run(&nexus, 0, &TUR, b"").1, Some((6, 0x3f0e)));
    assert_eq!(luns(&nexus), [0]);
    // What takes its place is another unit, with another identity.
    add(&device, DISK, "successor");
    assert_eq!(run(&nexus, 0, &TUR, b"").1, Some((6, 0x3f0e)));
    assert_eq!(refused(&nexus, &TUR, b""), (6, 0x2900));
    good(&nexus, &TUR, b"");
    assert_eq!(device.units().len(), 2);
}

#[tokio::test]
async fn a_disk_is_left_when_the_last_command_has_left_it() {
    /// Its flush ends when it is told to.
    struct Slow(Arc<tokio::sync::Notify>);
    impl block::Disk for Slow {
        fn geometry(&self) -> block::Geometry {
            MemoryDisk::new(512, 8).geometry()
        }
        fn read(&self, _: block::Extent) -> block::Answer<block::Result<Vec<block::Segment>>> {
            block::Answer::Now(Ok(Vec::new()))
        }
        fn write(&self, _: block::Extent, _: Vec<Bytes>) -> block::Answer<block::Result<()>> {
            block::Answer::Now(Ok(()))
        }
        fn flush(&self) -> block::Answer<block::Result<()>> {
            let told = self.0.clone();
            block::Answer::Later(Box::pin(async move {
                told.notified().await;
                Ok(())
            }))
        }
        fn unmap(&self, _: block::Extent) -> block::Answer<block::Result<()>> {
            block::Answer::Now(Ok(()))
        }
    }
    let told = Arc::new(tokio::sync::Notify::new());
    let disk = Arc::new(Slow(told.clone()));
    let device = Device::new("c").with_disk(lun(DISK), "slow", disk, Options::default());
    let device = Arc::new(device);
    let nexus = device.connect(path());
    let start = |cdb: [u8; 16]| nexus.start(Lun::new(DISK), cdb);
    assert!(matches!(start([0; 16]), Start::Done(block::Answer::Now(r)) if r.sense.is_some()));
    let mut flush = [0; 16];
    flush[0] = 0x35;
    let Start::Done(block::Answer::Later(mut answer)) = start(flush) else {
        panic!("the disk is slow");
    };
    let mut removed = Box::pin(device.remove(lun(DISK)));
    assert!(answer.as_mut().now_or_never().is_none());
    assert!(removed.as_mut().now_or_never().is_none());
    told.notify_one();
    // The disk has done it, and so it is told.
    assert_eq!(answer.await.status, Status::Good);
    removed.await;
}

#[test]
fn a_disk_that_grows_tells_everybody_once() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready(&device));
    device.capacity_changed(lun(DISK));
    device.capacity_changed(lun(DISK));
    device.capacity_changed(lun(9));
    for nexus in [&one, &two] {
        assert_eq!(refused(nexus, &TUR, b""), (6, 0x2a09));
        good(nexus, &TUR, b"");
        assert_eq!(run(nexus, 0, &TUR, b"").1, None);
    }
}
