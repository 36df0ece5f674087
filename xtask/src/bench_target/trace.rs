//! What a machine reads while it boots: lines of a first block and a number of blocks, in the order in
//! which they were asked for, and what others say about them behind `#`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::cdb::Direction;
use super::load::Io;
use super::pattern::{BLOCK, FRONT};
use super::place::SIZE;

/// Where the record lies, in the workspace.
pub(super) const FILE: &str = "tests/target/boot.trace";

/// Bytes that a client reads, at least. The record is of a bare system; a desktop reads more, in about
/// that way.
const WANTED: u64 = 200 << 20;

/// A boot as it is read again.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) all: Arc<Vec<Io>>,
    /// Bytes that all commands read.
    pub(super) bytes: u64,
    /// Bytes of the disk that they touch.
    pub(super) unique: u64,
}

/// Reads the record.
///
/// # Errors
/// When it is not there, or no record, or of more than there is on the disks here.
pub(super) fn load() -> Result<Trace> {
    let path = crate::workspace().join(FILE);
    let boot = read(&path).with_context(|| format!("reading {}", path.display()))?;
    boot.again_until(WANTED)
}

impl Trace {
    /// The same followed by itself, on blocks behind its own, until so many bytes are read.
    fn again_until(self, wanted: u64) -> Result<Self> {
        ensure!(self.bytes > 0, "nothing is read");
        let times = wanted.div_ceil(self.bytes).max(1);
        let ends = self.all.iter().map(|io| io.lba + u64::from(io.blocks));
        let blocks = ends.max().unwrap_or(FRONT).next_multiple_of(8) - FRONT;
        let end = FRONT + times * blocks;
        ensure!(
            end <= SIZE / BLOCK,
            "{times} times that are {} MiB",
            end >> 11
        );
        let again = |time: u64| {
            let moved = move |io: &Io| Io {
                lba: io.lba + time * blocks,
                ..*io
            };
            self.all.iter().map(moved)
        };
        Ok(Trace {
            all: Arc::new((0..times).flat_map(again).collect()),
            bytes: self.bytes * times,
            unique: self.unique * times,
        })
    }
}

fn read(path: &Path) -> Result<Trace> {
    let text = fs::read_to_string(path)?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let reads = lines.filter(|line| !line.is_empty()).map(|line| {
        let (lba, blocks) = line
            .split_once(' ')
            .with_context(|| format!("line {line:?}"))?;
        anyhow::Ok((lba.parse()?, blocks.trim().parse()?))
    });
    pack(&reads.collect::<Result<Vec<_>>>()?)
}

/// The same reads, of a smaller disk: what nobody read is taken out, and what lay together still does.
fn pack(reads: &[(u64, u32)]) -> Result<Trace> {
    // Runs of blocks that were read, by their first: their end, and where they begin here.
    let mut runs: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut sorted = reads.to_vec();
    sorted.sort_unstable();
    let mut last = 0;
    for (lba, blocks) in sorted {
        let end = lba + u64::from(blocks);
        match runs.get_mut(&last) {
            Some((run_end, _)) if lba <= *run_end => *run_end = end.max(*run_end),
            _ => {
                runs.insert(lba, (end, 0));
                last = lba;
            }
        }
    }
    let mut next = FRONT;
    for (lba, (end, here)) in &mut runs {
        // The first block keeps its place within 4 KiB: file systems read by that.
        *here = next + lba % 8;
        next = (*here + (*end - lba)).next_multiple_of(8);
    }
    ensure!(
        next <= SIZE / BLOCK,
        "it reads {} MiB of the disk",
        next >> 11
    );
    let all = reads.iter().map(|(lba, blocks)| {
        let (first, (_, here)) = runs.range(..=lba).next_back().context("a read of no run")?;
        Ok(Io {
            direction: Direction::Read,
            lba: here + (lba - first),
            blocks: *blocks,
        })
    });
    let all = Arc::new(all.collect::<Result<Vec<_>>>()?);
    let bytes = all.iter().map(|io| u64::from(io.bytes())).sum();
    let unique = runs.iter().map(|(lba, (end, _))| (end - lba) * BLOCK).sum();
    Ok(Trace { all, bytes, unique })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_read_is_taken_out() {
        let trace = pack(&[(1 << 30, 16), (8, 8), (12, 8), (9000, 3), (8, 8)]).unwrap();
        let places: Vec<_> = trace.all.iter().map(|io| (io.lba, io.blocks)).collect();
        assert_eq!(
            places,
            [(2072, 16), (2048, 8), (2052, 8), (2064, 3), (2048, 8)]
        );
        assert_eq!(trace.unique, (16 + 12 + 3) * 512);
        assert_eq!(trace.bytes, (16 + 8 + 8 + 3 + 8) * 512);
    }

    #[test]
    fn a_short_boot_goes_on_elsewhere() {
        let trace = pack(&[(8, 8), (9000, 3)]).unwrap();
        let trace = trace.again_until(11 * 512 + 1).unwrap();
        let places: Vec<_> = trace.all.iter().map(|io| (io.lba, io.blocks)).collect();
        assert_eq!(places, [(2048, 8), (2056, 3), (2064, 8), (2072, 3)]);
        assert_eq!((trace.bytes, trace.unique), (22 * 512, 22 * 512));
    }

    #[test]
    fn the_record_is_one() {
        let trace = load().unwrap();
        assert!(trace.bytes >= WANTED && trace.unique <= trace.bytes);
    }

    #[test]
    fn remarks_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        fs::write(&path, "# of a test\n8 8 # the first\n\n16 8\n").unwrap();
        assert_eq!(read(&path).unwrap().all.len(), 2);
        fs::write(&path, "eight\n").unwrap();
        assert!(read(&path).is_err());
    }
}
