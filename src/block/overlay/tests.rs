//! Overlays against a byte array, under concurrent writers, and through crashes.

use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;

use super::super::{MemoryDisk, model};
use super::*;
use prefixes::{Entry, Log};

mod prefixes;

const SIZE: usize = model::BLOCKS as usize * 512;

/// Two boots of a host.
const BOOT: Option<BootId> = Some(BootId([b'1'; 36]));
const NEXT_BOOT: Option<BootId> = Some(BootId([b'2'; 36]));

/// A base of which every block differs, shorter than the overlay.
fn base() -> (Arc<dyn Disk>, Vec<u8>) {
    let blocks = model::BLOCKS - 10;
    let disk = MemoryDisk::new(512, blocks);
    let mut bytes = model::pattern(blocks, 100);
    let extent = disk.geometry().extent(0, blocks).unwrap();
    let Answer::Now(Ok(())) = disk.write(extent, vec![Bytes::from(bytes.clone())]) else {
        panic!("memory disks answer at once");
    };
    bytes.resize(SIZE, 0);
    (Arc::new(disk.sealed()), bytes)
}

/// A file that remembers what was done to it, so that a crash can be played.
struct Recorded {
    state: Mutex<State>,
    /// What was done to this file and its neighbours, in order, and which of them this one is.
    log: Option<(Arc<Log>, u8)>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// What a crash is sure to leave.
    durable: Vec<u8>,
    /// Changes since the last sync, any of which may be lost.
    pending: Vec<(usize, Vec<u8>)>,
    /// The storage takes nothing more.
    broken: bool,
}

impl Recorded {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Recorded {
            state: Mutex::new(State {
                durable: bytes.clone(),
                bytes,
                pending: Vec::new(),
                broken: false,
            }),
            log: None,
        })
    }

    /// The same file, from here on with its changes in `log`.
    fn logged(&self, log: &Arc<Log>, file: u8) -> Arc<Self> {
        let mut recorded = Recorded {
            state: Mutex::default(),
            log: Some((log.clone(), file)),
        };
        let bytes = self.state().bytes.clone();
        *recorded.state.get_mut().unwrap() = State {
            durable: bytes.clone(),
            bytes,
            ..State::default()
        };
        Arc::new(recorded)
    }

    fn tell(&self, entry: impl FnOnce(u8) -> Entry) {
        if let Some((log, file)) = &self.log {
            log.push(entry(*file));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The file after a crash that kept only those unsynced changes that `keeps` says, in parts of
    /// a sector.
    fn crashed(&self, keeps: &mut impl FnMut() -> bool) -> Arc<Self> {
        let state = self.state();
        let mut bytes = state.durable.clone();
        for (offset, change) in &state.pending {
            for (i, sector) in change.chunks(512).enumerate() {
                if keeps() {
                    let at = offset + i * 512;
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        Recorded::new(bytes)
    }
}

impl Backing for Recorded {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        buffer.copy_from_slice(&self.state().bytes[at..at + buffer.len()]);
        Ok(())
    }

    fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        let at = offset as usize;
        Some(Bytes::copy_from_slice(&self.state().bytes[at..at + len]))
    }

    fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
        let data = data.concat();
        let at = offset as usize;
        self.tell(|file| Entry::Change(file, at, data.clone()));
        let mut state = self.state();
        state.bytes[at..at + data.len()].copy_from_slice(&data);
        state.pending.push((at, data));
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(&[Bytes::from(vec![0; len as usize])], offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.broken {
            return Err(io::Error::other("the storage is broken"));
        }
        state.durable = state.bytes.clone();
        state.pending.clear();
        drop(state);
        self.tell(Entry::Synced);
        Ok(())
    }
}

/// Everything that is on the disk.
async fn contents(disk: &OverlayDisk) -> Vec<u8> {
    let all = disk.geometry().extent(0, model::BLOCKS).unwrap();
    let segments = disk.read(all).wait().await.unwrap();
    segment::load(segments).wait().await.unwrap().to_vec()
}

fn empty_bitmap() -> Arc<Recorded> {
    let mut bytes = bitmap::header(SIZE as u64).to_vec();
    bytes.resize(bitmap::file_len(SIZE as u64) as usize, 0);
    Recorded::new(bytes)
}

proptest! {
    #[test]
    fn behaves_as_a_byte_array(ops in model::ops(model::BLOCKS)) {
        let dir = tempfile::tempdir().unwrap();
        let (data, bitmap) = (dir.path().join("data"), dir.path().join("bitmap"));
        OverlayDisk::create(&data, &bitmap, SIZE as u64).unwrap();
        let (base, bytes) = base();
        let disk = OverlayDisk::open(&data, &bitmap, base.clone()).unwrap();
        model::check(&disk, bytes.clone(), ops.clone());
        drop(disk);

        // Whatever was flushed is there again after it is opened once more.
        let disk = OverlayDisk::open(&data, &bitmap, base).unwrap();
        let flushed = ops.iter().rposition(|op| matches!(op, model::Op::Flush)).map_or(0, |i| i + 1);
        if flushed == ops.len() {
            let memory = MemoryDisk::new(512, model::BLOCKS);
            let all = memory.geometry().extent(0, model::BLOCKS).unwrap();
            let Answer::Now(Ok(())) = memory.write(all, vec![Bytes::from(bytes.clone())]) else {
                panic!("memory disks answer at once");
            };
            model::check(&memory, bytes, ops);
            model::check(&disk, memory.contents(), vec![]);
        }
    }

    /// After a crash of the host at any moment each block is what it was at the last flush, or what one
    /// of the later changes made of it; whatever became of the recent map, and also of what a server
    /// that was killed has left to the next.
    #[test]
    fn a_crash_keeps_what_a_flush_acknowledged(ops in model::ops(model::BLOCKS), luck: u64) {
        let (base, bytes) = base();
        let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), BOOT).unwrap();
        let mut now = bytes.clone();
        let mut allowed = vec![bytes];
        let mut luck = luck | 1;
        let mut keeps = move || {
            luck ^= luck << 13;
            luck ^= luck >> 7;
            luck ^= luck << 17;
            luck & 1 == 1
        };
        for op in ops {
            let flush = matches!(op, model::Op::Flush);
            runtime.block_on(model::run(&disk, &mut now, op));
            if flush {
                allowed.clear();
            }
            allowed.push(now.clone());

            let left = map.crashed(&mut keeps);
            if keeps() {
                let recent = bitmap::file_len(SIZE as u64) as usize / 2 + 4096;
                left.state().bytes[recent..].fill(0xff);
            }
            let after =
                OverlayDisk::over(data.crashed(&mut keeps), left, base.clone(), NEXT_BOOT).unwrap();
            let read = runtime.block_on(contents(&after));
            for (i, block) in read.chunks(512).enumerate() {
                let at = i * 512;
                prop_assert!(
                    allowed.iter().any(|state| &state[at..at + 512] == block),
                    "block {} is neither what was flushed nor what was written since", i
                );
            }
            if keeps() {
                disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), BOOT).unwrap();
            }
        }
    }

    /// A server that is killed at any moment leaves every change that it has answered.
    #[test]
    fn a_kill_keeps_what_was_answered(ops in model::ops(model::BLOCKS)) {
        let (base, mut now) = base();
        let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), BOOT).unwrap();
        for op in ops {
            runtime.block_on(model::run(&disk, &mut now, op));
            disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), BOOT).unwrap();
            prop_assert!(runtime.block_on(contents(&disk)) == now);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_grain_do_not_undo_each_other() {
    for _ in 0..50 {
        let (base, mut expected) = base();
        let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
        let disk = Arc::new(OverlayDisk::over(data, map, base, BOOT).unwrap());
        let tasks: Vec<_> = (0..16u64)
            .map(|lba| {
                let disk = disk.clone();
                tokio::spawn(async move {
                    let extent = disk.geometry().extent(lba, 1).unwrap();
                    let data = vec![Bytes::from(vec![lba as u8; 512])];
                    disk.write(extent, data).wait().await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        for lba in 0..16 {
            expected[lba * 512..(lba + 1) * 512].fill(lba as u8);
        }
        model::run(
            disk.as_ref(),
            &mut expected,
            model::Op::Read(0, model::BLOCKS),
        )
        .await;
    }
}

/// As above, but with the files and the boot id of this host.
#[tokio::test]
async fn what_was_answered_is_there_when_the_files_are_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, bitmap) = (dir.path().join("data"), dir.path().join("bitmap"));
    OverlayDisk::create(&data, &bitmap, SIZE as u64).unwrap();
    let (base, mut expected) = base();
    for op in [
        model::Op::Write(3, 20, 9),
        model::Op::Unmap(30, 17),
        model::Op::Write(66, 1, 4),
    ] {
        let disk = OverlayDisk::open(&data, &bitmap, base.clone()).unwrap();
        model::run(&disk, &mut expected, op).await;
    }
    let disk = OverlayDisk::open(&data, &bitmap, base).unwrap();
    assert!(contents(&disk).await == expected);
    let len = std::fs::metadata(&bitmap).unwrap().len();
    assert_eq!(len, bitmap::file_len(SIZE as u64));
}

/// An overlay of which a part is written grows under its users, once from within a grain.
#[tokio::test]
async fn an_overlay_grows_while_it_is_in_use_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let (data, bitmap) = (dir.path().join("data"), dir.path().join("bitmap"));
    OverlayDisk::create(&data, &bitmap, SIZE as u64).unwrap();
    let (base, mut expected) = base();
    let disk = OverlayDisk::open(&data, &bitmap, base.clone()).unwrap();
    model::run(&disk, &mut expected, model::Op::Write(60, 7, 9)).await;
    let mut blocks = model::BLOCKS;
    for more in [1, 200_000, 8] {
        let size = (blocks + more) * 512;
        OverlayDisk::grow(&data, &bitmap, size).unwrap();
        OverlayDisk::grow(&data, &bitmap, 512).unwrap();
        assert_eq!(disk.geometry().blocks, blocks, "nobody has looked yet");
        disk.refresh().unwrap();
        disk.refresh().unwrap();
        assert_eq!(disk.geometry().blocks, blocks + more);
        expected.resize(size as usize, 0);
        let new = (blocks + more - 3, 3);
        for op in [
            model::Op::Read(0, blocks + more),
            model::Op::Write(blocks - 2, 3.min(more + 2), 5),
            model::Op::Write(new.0, new.1, 6),
            model::Op::Unmap(new.0, 1),
            model::Op::Read(0, blocks + more),
        ] {
            model::run(&disk, &mut expected, op).await;
        }
        blocks += more;
        // What nobody has flushed is there for the next server, and what was flushed for the next boot.
        let again = OverlayDisk::open(&data, &bitmap, base.clone()).unwrap();
        assert_eq!(again.geometry().blocks, blocks);
        model::run(&again, &mut expected, model::Op::Read(0, blocks)).await;
    }
    disk.flush().wait().await.unwrap();
    let open = |path| Arc::new(File::options().read(true).write(true).open(path).unwrap());
    let next = OverlayDisk::over(open(&data), open(&bitmap), base, NEXT_BOOT).unwrap();
    model::run(&next, &mut expected, model::Op::Read(0, blocks)).await;
}

#[tokio::test]
async fn what_another_boot_wrote_last_is_forgotten_for_good() {
    for boot in [NEXT_BOOT, None] {
        let (base, pristine) = base();
        let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
        let disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), BOOT).unwrap();
        let mut lost = pristine.clone();
        model::run(&disk, &mut lost, model::Op::Write(0, 40, 1)).await;
        // The power fails: the bitmap gets through, the data do not.
        let data = data.crashed(&mut || false);
        let map = map.crashed(&mut || true);
        for boot in [boot, boot, BOOT] {
            let disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), boot).unwrap();
            assert!(contents(&disk).await == pristine);
        }
    }
}

#[tokio::test]
async fn after_a_flush_that_failed_only_earlier_flushes_count() {
    let (base, mut expected) = base();
    let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
    let disk = OverlayDisk::over(data.clone(), map.clone(), base.clone(), BOOT).unwrap();
    model::run(&disk, &mut expected, model::Op::Write(0, 8, 1)).await;
    disk.flush().wait().await.unwrap();
    model::run(&disk, &mut expected.clone(), model::Op::Write(16, 8, 2)).await;
    data.state().broken = true;
    disk.flush().wait().await.unwrap_err();
    model::run(&disk, &mut expected.clone(), model::Op::Write(32, 8, 3)).await;

    let disk = OverlayDisk::over(data, map, base, BOOT).unwrap();
    assert!(contents(&disk).await == expected);
}

#[test]
fn a_foreign_file_is_no_bitmap() {
    let (base, _) = base();
    let (data, map) = (Recorded::new(vec![0; SIZE]), Recorded::new(vec![3; 8192]));
    let Err(error) = OverlayDisk::over(data, map, base, BOOT) else {
        panic!("a file of threes was taken for a bitmap");
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
