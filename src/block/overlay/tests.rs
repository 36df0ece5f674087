//! Overlays against a byte array, under concurrent writers, and through crashes.

use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;

use super::super::{MemoryDisk, model};
use super::*;

const SIZE: usize = model::BLOCKS as usize * 512;

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
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// What a crash is sure to leave.
    durable: Vec<u8>,
    /// Changes since the last sync, any of which may be lost.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Recorded {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Recorded {
            state: Mutex::new(State {
                durable: bytes.clone(),
                bytes,
                pending: Vec::new(),
            }),
        })
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
        state.durable = state.bytes.clone();
        state.pending.clear();
        Ok(())
    }
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

    /// After a crash at any moment each block is what it was at the last flush, or what one of the
    /// later changes made of it.
    #[test]
    fn a_crash_keeps_what_a_flush_acknowledged(ops in model::ops(model::BLOCKS), luck: u64) {
        let (base, bytes) = base();
        let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let disk = OverlayDisk::over(data.clone(), map.clone(), base.clone()).unwrap();
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

            let after = OverlayDisk::over(
                data.crashed(&mut keeps),
                map.crashed(&mut keeps),
                base.clone(),
            ).unwrap();
            let all = after.geometry().extent(0, model::BLOCKS).unwrap();
            let read = runtime.block_on(async {
                segment::load(after.read(all).wait().await.unwrap()).wait().await.unwrap()
            });
            for (i, block) in read.chunks(512).enumerate() {
                let at = i * 512;
                prop_assert!(
                    allowed.iter().any(|state| &state[at..at + 512] == block),
                    "block {} is neither what was flushed nor what was written since", i
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_grain_do_not_undo_each_other() {
    for _ in 0..50 {
        let (base, mut expected) = base();
        let (data, map) = (Recorded::new(vec![0; SIZE]), empty_bitmap());
        let disk = Arc::new(OverlayDisk::over(data, map, base).unwrap());
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

#[test]
fn a_foreign_file_is_no_bitmap() {
    let (base, _) = base();
    let (data, map) = (Recorded::new(vec![0; SIZE]), Recorded::new(vec![3; 8192]));
    let Err(error) = OverlayDisk::over(data, map, base) else {
        panic!("a file of threes was taken for a bitmap");
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
