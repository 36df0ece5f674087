//! Commands that end before their time, and what their initiators are told of it (SAM-5 §5.6).

use std::sync::Mutex;

use super::*;

const TUR: [u8; 6] = [0; 6];
const CLEAR: Reset = Reset::Commands(Lun::ZERO);

/// A write of one block that waits for its data.
fn open_write(nexus: &Nexus) -> Pending {
    let mut write = [0; 16];
    (write[0], write[8]) = (0x2a, 1);
    match nexus.start(Lun::new(DISK), write) {
        Start::Data(pending) => pending,
        Start::Done(_) => panic!("a write needs data"),
    }
}

fn finish(pending: Pending) -> Status {
    match pending.finish(vec![Bytes::from(vec![1; 512])]) {
        block::Answer::Now(response) => response.status,
        block::Answer::Later(_) => panic!("memory answers at once"),
    }
}

/// Sets TAS, and takes away what the others are told of it.
fn told(nexus: &Nexus, others: &[&Nexus]) {
    let mut list = vec![0, 0, 0, 0];
    list.extend([0x0a, 10, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0]);
    good(nexus, &[0x15, 0x10, 0, 0, list.len() as u8, 0], &list);
    for other in others {
        assert_eq!(refused(other, &TUR, b""), (6, 0x2a01));
    }
}

fn reset(nexus: &Nexus, reset: Reset) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let reset = match reset {
        CLEAR => Reset::Commands(Lun::new(DISK).unwrap()),
        other => other,
    };
    runtime.block_on(nexus.reset(reset));
}

#[test]
fn with_tas_the_commands_of_others_end_with_a_status() {
    for scope in [CLEAR, Reset::Unit(Lun::new(DISK).unwrap()), Reset::Device] {
        let device = device(MemoryDisk::new(512, BLOCKS));
        let (one, two) = (ready(&device), ready(&device));
        told(&one, &[&two]);
        let (own, other) = (open_write(&one), open_write(&two));
        reset(&one, scope);
        // Who has asked for it needs no status of what it has aborted itself.
        assert_eq!(finish(own), Status::Silent, "{scope:?}");
        assert_eq!(finish(other), Status::TaskAborted, "{scope:?}");
        if scope == CLEAR {
            // The status has told all that there is to tell.
            good(&two, &TUR, b"");
            continue;
        }
        assert_eq!(refused(&two, &TUR, b""), (6, 0x2903));
        assert_eq!(refused(&one, &TUR, b""), (6, 0x2903));
        // The reset has brought TAS back to 0.
        let silent = open_write(&two);
        reset(&one, scope);
        assert_eq!(finish(silent), Status::Silent);
    }
}

#[test]
fn nothing_of_an_aborted_write_reaches_the_disk_whatever_its_initiator_is_told() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready(&device));
    told(&one, &[&two]);
    let write = open_write(&two);
    reset(&one, CLEAR);
    assert_eq!(finish(write), Status::TaskAborted);
    assert_eq!(
        good(&one, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], b""),
        [0; 512]
    );
}

/// A disk that asks for the end of a command as soon as something is written to it.
struct Interrupted(MemoryDisk, Mutex<Option<Stop>>);

impl block::Disk for Interrupted {
    fn geometry(&self) -> block::Geometry {
        self.0.geometry()
    }
    fn read(&self, extent: block::Extent) -> block::Answer<block::Result<Vec<block::Segment>>> {
        self.0.read(extent)
    }
    fn write(&self, extent: block::Extent, data: Vec<Bytes>) -> block::Answer<block::Result<()>> {
        if let Some(stop) = self.1.lock().unwrap().take() {
            stop.stop();
        }
        self.0.write(extent, data)
    }
    fn flush(&self) -> block::Answer<block::Result<()>> {
        self.0.flush()
    }
    fn unmap(&self, extent: block::Extent) -> block::Answer<block::Result<()>> {
        self.0.unmap(extent)
    }
}

#[test]
fn a_copy_ends_after_the_segment_in_which_its_end_is_asked_for() {
    let disk = Arc::new(Interrupted(MemoryDisk::new(512, 64), Mutex::new(None)));
    let lun = Lun::new(DISK).unwrap();
    let device = Device::new("c").with_disk(lun, "d", disk.clone(), Options::default());
    let nexus = ready(&Arc::new(device));
    good(&nexus, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[7; 512]);
    // Two segments: block 0 to block 10, and to block 20.
    let mut list = model::copy_list(&model::naa(&nexus), 0, 1, 10);
    let mut second = list[list.len() - 28..].to_vec();
    second[27] = 20;
    list.extend(second);
    list[11] = 56;
    let mut cdb = [0; 16];
    (cdb[0], cdb[13]) = (0x83, list.len() as u8);
    let Start::Data(pending) = nexus.start(Some(lun), cdb) else {
        panic!("a copy has a list");
    };
    *disk.1.lock().unwrap() = Some(pending.stop().expect("a copy takes long"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let response = runtime.block_on(pending.finish(vec![list.into()]).wait());
    assert_eq!(response.sense.map(|sense| sense.key), Some(0xa));
    let block = |lba: u8| good(&nexus, &[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0], b"");
    assert_eq!(block(10), [7; 512]);
    assert_eq!(block(20), [0; 512]);
}

/// A disk whose reads wait until they may.
struct Waiting(MemoryDisk, Arc<tokio::sync::Notify>);

impl block::Disk for Waiting {
    fn geometry(&self) -> block::Geometry {
        self.0.geometry()
    }
    fn read(&self, extent: block::Extent) -> block::Answer<block::Result<Vec<block::Segment>>> {
        let (may, answer) = (self.1.clone(), self.0.read(extent));
        block::Answer::Later(Box::pin(async move {
            may.notified().await;
            answer.wait().await
        }))
    }
    fn write(&self, extent: block::Extent, data: Vec<Bytes>) -> block::Answer<block::Result<()>> {
        self.0.write(extent, data)
    }
    fn flush(&self) -> block::Answer<block::Result<()>> {
        self.0.flush()
    }
    fn unmap(&self, extent: block::Extent) -> block::Answer<block::Result<()>> {
        self.0.unmap(extent)
    }
}

#[test]
fn a_copy_under_way_is_told_as_such_and_has_its_identifier_alone() {
    let may = Arc::new(tokio::sync::Notify::new());
    let disk = Arc::new(Waiting(MemoryDisk::new(512, 64), may.clone()));
    let lun = Lun::new(DISK).unwrap();
    let device = Device::new("c").with_disk(lun, "d", disk, Options::default());
    let nexus = ready(&Arc::new(device));
    let list = model::copy_list(&model::naa(&nexus), 0, 1, 10);
    let mut cdb = [0; 16];
    (cdb[0], cdb[13]) = (0x83, list.len() as u8);
    let start = || match nexus.start(Some(lun), cdb) {
        Start::Data(pending) => pending.finish(vec![list.clone().into()]),
        Start::Done(_) => panic!("a copy has a list"),
    };
    let block::Answer::Later(mut copy) = start() else {
        panic!("the disk is slow");
    };
    assert!(futures_util::FutureExt::now_or_never(copy.as_mut()).is_none());
    let status = [0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert_eq!(good(&nexus, &status, b"")[4], 0);
    let details = [0x84, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert_eq!(refused(&nexus, &details, b""), (5, 0x2400));
    assert_eq!(refused(&nexus, &cdb, &list), (5, 0x0016));
    may.notify_one();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(copy).status, Status::Good);
    assert_eq!(good(&nexus, &status, b"")[4], 1);
}

#[test]
fn a_reset_is_for_commands_that_have_come_and_not_begun() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready(&device));
    let lun = Lun::new(DISK);
    let (before, after) = (two.enlist(lun), two.enlist(lun));
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert!(matches!(
        two.start_enlisted(before, lun, read),
        Start::Done(block::Answer::Now(response)) if response.status == Status::Good
    ));
    reset(&one, Reset::Unit(lun.unwrap()));
    assert!(matches!(
        two.start_enlisted(after, lun, read),
        Start::Done(block::Answer::Now(response)) if response.status == Status::Silent
    ));
    assert_eq!(refused(&two, &TUR, b""), (6, 0x2903));
}

#[test]
fn what_waits_while_its_disk_is_opened_anew_is_told_to_come_again() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let nexus = ready(&device);
    let lun = Lun::new(DISK);
    let (write, enlisted) = (open_write(&nexus), nexus.enlist(lun));
    let disk = Arc::new(MemoryDisk::new(512, BLOCKS));
    drop(device.add_disk(lun.unwrap(), "disk", disk, Options::default()));
    let block::Answer::Now(response) = write.finish(vec![Bytes::from(vec![1; 512])]) else {
        panic!("it is known at once");
    };
    assert_eq!(response.sense, Some(Sense::POWER_ON));
    let Start::Done(block::Answer::Now(response)) = nexus.start_enlisted(enlisted, lun, [0; 16])
    else {
        panic!("it is known at once");
    };
    assert_eq!(response.sense, Some(Sense::POWER_ON));
}
