//! SANITIZE: what it leaves, what it waits for, and what a failure leaves.

use super::blocks::file;
use super::*;
use crate::block::{Disk, FileOptions};

struct Kept(std::sync::Mutex<Vec<u8>>);

impl ReservationStore for Kept {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(Some(self.0.lock().unwrap().clone()))
    }

    fn save(&self, state: &[u8]) -> std::io::Result<()> {
        *self.0.lock().unwrap() = state.to_vec();
        Ok(())
    }
}

#[test]
fn sanitize_leaves_what_was_asked_for() {
    let (_dir, nexus) = file(1 << 20, &FileOptions::new(512));
    good(&nexus, &[0x2a, 0, 0, 0, 0, 9, 0, 0, 8, 0], &[1; 4096]);
    let read = [0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0];
    let overwrite = [0x48, 1, 0, 0, 0, 0, 0, 0, 6, 0];
    good(&nexus, &overwrite, &[2, 0, 0, 2, 0xab, 0xcd]);
    assert_eq!(good(&nexus, &read, b""), [0xab, 0xcd].repeat(256));
    // Each pass is the complement of the one before, and the last leaves the pattern.
    for passes in [2, 3] {
        good(&nexus, &overwrite, &[0x80 | passes, 0, 0, 2, 0, 0xf0]);
        assert_eq!(good(&nexus, &read, b""), [0, 0xf0].repeat(256));
    }
    good(&nexus, &[0x48, 2, 0, 0, 0, 0, 0, 0, 0, 0], b"");
    assert_eq!(good(&nexus, &read, b""), [0; 512]);
    assert_eq!(refused(&nexus, &[0x48, 3], b""), (5, 0x2400));
    assert_eq!(
        refused(&nexus, &overwrite, &[0, 0, 0, 2, 1, 2]),
        (5, 0x2600)
    );
}

#[test]
fn sanitize_is_for_disks_whose_owner_allows_it() {
    assert_eq!(refused(&nexus(), &[0x48, 2], b""), (5, 0x2000));
}

#[test]
fn a_sanitization_that_was_cut_off_has_failed() {
    // As the server before this one has left it, with AUSE.
    let kept = Arc::new(Kept(std::sync::Mutex::new(vec![2])));
    let unit = |kept: &Arc<Kept>| {
        let options = Options {
            sanitize: true,
            sanitizing: Some(kept.clone()),
            ..Options::default()
        };
        let disk = Arc::new(MemoryDisk::new(512, 64));
        let lun = Lun::new(DISK).unwrap();
        ready(&Arc::new(
            Device::new("c").with_disk(lun, "d", disk, options),
        ))
    };
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let nexus = unit(&kept);
    assert_eq!(refused(&nexus, &read, b""), (3, 0x3103));
    good(&nexus, &[0x12, 0, 0, 0, 36, 0], b"");
    good(&nexus, &[0x48, 0x1f], b"");
    good(&nexus, &read, b"");
    good(&unit(&kept), &read, b"");
    // Without AUSE only another sanitization helps, and none that could be left.
    *kept.0.lock().unwrap() = vec![3];
    let nexus = unit(&kept);
    assert_eq!(refused(&nexus, &[0x48, 0x1f], b""), (5, 0x2400));
    assert_eq!(refused(&nexus, &[0x48, 0x22], b""), (5, 0x2400));
    assert_eq!(refused(&nexus, &read, b""), (3, 0x3103));
    good(&nexus, &[0x48, 2], b"");
    good(&nexus, &read, b"");
    assert!(kept.0.lock().unwrap().is_empty());
}

/// A disk of which the first half is a hole, and which knows how much is written to it.
struct Half(MemoryDisk, std::sync::atomic::AtomicU64);

impl Disk for Half {
    fn geometry(&self) -> block::Geometry {
        self.0.geometry()
    }
    fn read(&self, extent: block::Extent) -> block::Answer<block::Result<Vec<block::Segment>>> {
        self.0.read(extent)
    }
    fn write(&self, extent: block::Extent, data: Vec<Bytes>) -> block::Answer<block::Result<()>> {
        let order = std::sync::atomic::Ordering::SeqCst;
        self.1.fetch_add(extent.len(), order);
        self.0.write(extent, data)
    }
    fn flush(&self) -> block::Answer<block::Result<()>> {
        self.0.flush()
    }
    fn unmap(&self, extent: block::Extent) -> block::Answer<block::Result<()>> {
        self.0.unmap(extent)
    }
    fn mapping(
        &self,
        extent: block::Extent,
        _: usize,
    ) -> block::Answer<block::Result<Vec<block::Run>>> {
        let half = self.geometry().blocks * 512 / 2;
        let hole = extent.range().end.min(half).saturating_sub(extent.offset());
        let runs = [(hole, false), (extent.len() - hole, true)];
        let runs = runs.into_iter().filter(|(len, _)| *len > 0);
        block::Answer::Now(Ok(runs
            .map(|(len, mapped)| block::Run { len, mapped })
            .collect()))
    }
}

fn device_of(disk: Arc<dyn Disk>) -> Arc<Device> {
    let options = Options {
        sanitize: true,
        ..Options::default()
    };
    Arc::new(Device::new("c").with_disk(Lun::new(DISK).unwrap(), "d", disk, options))
}

#[test]
fn block_erase_fills_no_holes() {
    let disk = Arc::new(Half(MemoryDisk::new(512, 5000), Default::default()));
    let nexus = ready(&device_of(disk.clone()));
    let written = || disk.1.load(std::sync::atomic::Ordering::SeqCst);
    good(&nexus, &[0x48, 2], b"");
    assert_eq!(written(), 2500 * 512);
    // A pattern goes everywhere.
    good(&nexus, &[0x48, 1, 0, 0, 0, 0, 0, 0, 5, 0], &[1, 0, 0, 1, 9]);
    assert_eq!(written(), (2500 + 5000) * 512);
}

#[test]
fn a_write_that_waits_for_its_data_when_a_sanitization_begins_is_refused() {
    let device = device_of(Arc::new(MemoryDisk::new(512, BLOCKS)));
    let (one, two) = (ready(&device), ready(&device));
    let mut write = [0; 16];
    (write[0], write[8]) = (0x2a, 1);
    let Start::Data(pending) = one.start(Lun::new(DISK), write) else {
        panic!("a write needs data");
    };
    good(&two, &[0x48, 2], b"");
    let block::Answer::Now(response) = pending.finish(vec![Bytes::from(vec![1; 512])]) else {
        panic!("it is known at once");
    };
    assert_eq!(response.sense, Some(Sense::SANITIZING));
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(good(&one, &read, b""), [0; 512]);
    // What comes later is as before.
    good(&one, &write[..10], &[1; 512]);
}

#[test]
fn a_disk_that_is_opened_anew_is_still_being_sanitized() {
    let kept = Arc::new(Kept(std::sync::Mutex::new(vec![3])));
    let options = Options {
        sanitize: true,
        sanitizing: Some(kept),
        ..Options::default()
    };
    let lun = Lun::new(DISK).unwrap();
    let disk = || Arc::new(MemoryDisk::new(512, 64));
    let device = Arc::new(Device::new("c").with_disk(lun, "d", disk(), options));
    // Without a store it would know nothing of it.
    drop(device.add_disk(lun, "d", disk(), Options::default()));
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(refused(&ready(&device), &read, b""), (3, 0x3103));
    drop(device.add_disk(lun, "another", disk(), Options::default()));
    good(&ready(&device), &read, b"");
}
