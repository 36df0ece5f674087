//! A crash of the host after every single change of the two files, also in the midst of a request.

use super::*;

/// The files of an overlay, as entries name them.
const DATA: u8 = 0;
const MAP: u8 = 1;

/// Everything that was done to the files of an overlay, in order.
#[derive(Default)]
pub(super) struct Log(Mutex<Vec<Entry>>);

/// One thing that was done.
pub(super) enum Entry {
    /// These bytes were written to a file at that offset.
    Change(u8, usize, Vec<u8>),
    /// A file was synced.
    Synced(u8),
    /// A request begins; when it is through, the disk's contents are those.
    Begins(Vec<u8>),
    /// A flush was answered.
    Flushed,
}

impl Log {
    pub(super) fn push(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

/// Which unsynced changes a crash leaves.
enum Leaves {
    Nothing,
    Everything,
    /// Some sectors of some of them.
    Some,
}

/// The files as they are after a prefix of the log.
struct Replay {
    files: [Arc<Recorded>; 2],
    /// What the disk may hold after a crash: its contents at the last flush that was answered, and what
    /// each later request makes of them.
    allowed: Vec<Vec<u8>>,
}

impl Replay {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Change(file, at, bytes) => {
                let data = [Bytes::from(bytes.clone())];
                let file = &self.files[usize::from(*file)];
                file.write_at(&data, *at as u64).unwrap();
            }
            Entry::Synced(file) => self.files[usize::from(*file)].sync().unwrap(),
            Entry::Begins(contents) => self.allowed.push(contents.clone()),
            Entry::Flushed => drop(self.allowed.drain(..self.allowed.len() - 1)),
        }
    }

    /// What the disk holds after a crash here.
    fn crash(&self, base: &Arc<dyn Disk>, leaves: &Leaves, luck: &mut u64) -> OverlayDisk {
        let mut keeps = || match leaves {
            Leaves::Nothing => false,
            Leaves::Everything => true,
            Leaves::Some => {
                *luck = luck.wrapping_mul(6364136223846793005).wrapping_add(1);
                *luck >> 63 == 1
            }
        };
        let [data, map] = self.files.each_ref().map(|file| file.crashed(&mut keeps));
        OverlayDisk::over(data, map, base.clone(), NEXT_BOOT).unwrap()
    }
}

proptest! {
    /// Whatever prefix of the changes the crash cuts off, and whatever it leaves of those that were not
    /// synced: each block is what it was at the last flush that was answered, or what a later request
    /// makes of it.
    #[test]
    fn every_prefix_keeps_what_a_flush_acknowledged(
        ops in model::ops(model::BLOCKS),
        mut luck: u64,
    ) {
        let (base, mut now) = base();
        let log = Arc::new(Log::default());
        let empty = [Recorded::new(vec![0; SIZE]), empty_bitmap()];
        let mut replay = Replay { files: empty.clone(), allowed: vec![now.clone()] };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();

        let [data, map] = [DATA, MAP].map(|file| empty[usize::from(file)].logged(&log, file));
        let disk = OverlayDisk::over(data, map, base.clone(), BOOT).unwrap();
        for op in ops {
            let mut after = now.clone();
            let flush = matches!(op, model::Op::Flush);
            model::foretell(&mut after, &op);
            log.push(Entry::Begins(after));
            runtime.block_on(model::run(&disk, &mut now, op));
            if flush {
                log.push(Entry::Flushed);
            }
        }

        let entries = std::mem::take(&mut *log.0.lock().unwrap());
        for (i, entry) in entries.iter().enumerate() {
            replay.apply(entry);
            for leaves in [Leaves::Nothing, Leaves::Everything, Leaves::Some] {
                let disk = replay.crash(&base, &leaves, &mut luck);
                let read = runtime.block_on(contents(&disk));
                for (block, bytes) in read.chunks(512).enumerate() {
                    let at = block * 512;
                    prop_assert!(
                        replay.allowed.iter().any(|state| &state[at..at + 512] == bytes),
                        "after {} changes block {} is neither what was flushed nor written since",
                        i + 1,
                        block
                    );
                }
            }
        }
    }
}
