//! A copy-on-write disk for file systems without reflinks: a sparse file of grains of 4 KiB, a
//! bitmap that tells which of them it holds, and a base from which everything else is read.
//!
//! What keeps it true across a crash:
//! - a bit is set once the grain's data are written, and reaches the durable map only in a flush, after
//!   those data are durable; so such a bit on the disk never stands for data that are not there;
//! - before a write is answered its bits stand in a second, recent map, which nobody syncs: it tells a
//!   server that was killed what its clients were promised, and is ignored after a boot of the host;
//! - a write smaller than a grain first takes the rest of the grain from the base;
//! - UNMAP punches a hole and sets the bit: a held grain without data reads as zeros.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use self::bitmap::{Bitmap, BootId, GRAIN};
use self::busy::{Busy, Claim};
use super::backing::{self, Backing, Threads, blocking};
use super::flush::Flusher;
use super::line::Line;
use super::{Advice, Answer, Disk, Extent, Geometry, Result, Run, Segment, segment};

mod bitmap;
mod busy;
mod section;
#[cfg(test)]
mod tests;

/// A writable disk over a base that is only read.
pub struct OverlayDisk {
    parts: Arc<Parts>,
    /// The shape, but for the number of blocks.
    shape: Geometry,
}

struct Parts {
    base: Arc<dyn Disk>,
    data: Arc<dyn Backing>,
    bitmap: Bitmap,
    busy: Arc<Busy>,
    flusher: Flusher,
    threads: Arc<Threads>,
    line: Arc<Line>,
}

impl OverlayDisk {
    /// Makes the two files of an empty overlay of `size` bytes, durable but for their directory
    /// entries. Neither file may exist.
    pub fn create(data: &Path, bitmap: &Path, size: u64) -> io::Result<()> {
        let new = |path| OpenOptions::new().write(true).create_new(true).open(path);
        let data = new(data)?;
        data.set_len(size)?;
        data.sync_all()?;
        let file = new(bitmap)?;
        let len = bitmap::file_len(size);
        file.set_len(len)?;
        // Reserved now, so that a flush does not fail for want of room. Some file systems cannot.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len);
        file.write_at(&[bitmap::header(size)], 0)?;
        file.sync_all()
    }

    /// Opens the overlay that [`create`](Self::create) made, over `base`. An overlay larger than its
    /// base reads zeros beyond it.
    pub fn open(data: &Path, bitmap: &Path, base: Arc<dyn Disk>) -> io::Result<Self> {
        let both =
            |path| -> io::Result<File> { OpenOptions::new().read(true).write(true).open(path) };
        let (data, bitmap) = (Arc::new(both(data)?), Arc::new(both(bitmap)?));
        Self::over(data, bitmap, base, BootId::of_this_host())
    }

    /// Makes an overlay's files longer, durably, for a disk of `size` bytes; never shorter. Whoever has the
    /// disk open finds what came with it by [`refresh`](Disk::refresh).
    pub fn grow(data: &Path, bitmap: &Path, size: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(data)?;
        if file.metadata()?.len() < size {
            file.set_len(size)?;
            file.sync_all()?;
        }
        let file = OpenOptions::new().read(true).write(true).open(bitmap)?;
        bitmap::grow(&file, size)
    }

    /// Makes durable what an overlay holds that nobody has open: afterwards copies of its files are copies
    /// of the disk, whatever becomes of this host. Blocks.
    pub fn make_durable(data: &Path, bitmap: &Path) -> io::Result<()> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let data: File = open(data)?;
        let bitmap = Bitmap::load(Arc::new(open(bitmap)?), BootId::of_this_host())?;
        let snapshot = bitmap.snapshot();
        data.sync_all()?;
        bitmap.store(&snapshot)
    }

    /// The whole disk in parts: ranges of bytes, and whether the overlay holds them. The others are
    /// the base's.
    pub fn parts(&self) -> impl Iterator<Item = (Range<u64>, bool)> {
        self.parts.runs(0..self.parts.bitmap.size())
    }

    fn over(
        data: Arc<dyn Backing>,
        bitmap: Arc<dyn Backing>,
        base: Arc<dyn Disk>,
        boot: Option<BootId>,
    ) -> io::Result<Self> {
        let bitmap = Bitmap::load(bitmap, boot)?;
        let block_size = base.geometry().block_size;
        let threads = Arc::default();
        Ok(OverlayDisk {
            shape: Geometry {
                block_size,
                physical_block_size: GRAIN as u32,
                blocks: bitmap.size() / u64::from(block_size),
                read_only: false,
                thin: true,
                aligned: 0,
                unmap_size: GRAIN as u32,
                unmap_aligned: 0,
                atomic: 0,
            },
            parts: Arc::new(Parts {
                base,
                data,
                bitmap,
                busy: Arc::default(),
                flusher: Flusher::default(),
                line: Line::of(&threads),
                threads,
            }),
        })
    }
}

impl Disk for OverlayDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            blocks: self.parts.bitmap.size() / u64::from(self.shape.block_size),
            ..self.shape
        }
    }

    fn read(&self, extent: Extent) -> Answer<Result<Vec<Segment>>> {
        let parts = &self.parts;
        segment::in_order(parts.runs(extent.range()).map(|(part, held)| match held {
            true => {
                let len = (part.end - part.start) as usize;
                backing::read(&parts.data, &parts.threads, part.start, len)
            }
            false => parts.read_base(part),
        }))
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.parts.write(extent.range(), data)
    }

    fn flush(&self) -> Answer<Result<()>> {
        let parts = self.parts.clone();
        Answer::Later(Box::pin(async move {
            let work = parts.clone();
            let sync = move || {
                // Before the data are synced: what is held later may not be durable by then.
                let snapshot = work.bitmap.snapshot();
                work.data.sync().inspect_err(|_| {
                    // The kernel drops what it could not write, and no sync tells of it twice. If this
                    // fails as well, the error of the sync is the one to tell.
                    let _ = work.bitmap.distrust();
                })?;
                work.bitmap.store(&snapshot)
            };
            parts.flusher.flush(|| blocking(sync)).await
        }))
    }

    fn unmap(&self, extent: Extent) -> Answer<Result<()>> {
        let parts = self.parts.clone();
        let range = extent.offset()..extent.offset() + extent.len();
        let disk_end = parts.bitmap.size();
        // A last grain that is cut short by the end of the disk counts as whole.
        let whole_end = if range.end == disk_end {
            disk_end
        } else {
            range.end / GRAIN * GRAIN
        };
        let whole = range.start.next_multiple_of(GRAIN)..whole_end;
        Answer::Later(Box::pin(async move {
            if whole.start >= whole.end {
                return parts.write_zeros(range).await;
            }
            parts.write_zeros(range.start..whole.start).await?;
            parts.write_zeros(whole.end..range.end).await?;
            parts.punch(whole).await
        }))
    }

    fn mapping(&self, extent: Extent, most: usize) -> Answer<Result<Vec<Run>>> {
        let (parts, block) = (self.parts.clone(), u64::from(self.shape.block_size));
        Answer::Later(Box::pin(async move {
            let mut runs = Vec::new();
            let owned: Vec<_> = parts.runs(extent.range()).take(most).collect();
            for (range, held) in owned {
                let left = most.saturating_sub(runs.len());
                if left == 0 {
                    break;
                }
                let len = range.end - range.start;
                let found = if held {
                    let data = parts.data.clone();
                    blocking(move || data.runs(range.start, len, left)).await?
                } else {
                    parts.base_runs(range, left).await?
                };
                let covered: u64 = found.iter().map(|run| run.len).sum();
                runs.extend(found);
                if covered < len {
                    break;
                }
            }
            Ok(segment::whole_blocks(runs, block))
        }))
    }

    fn advise(&self, extent: Extent, advice: Advice) -> Answer<bool> {
        let parts = self.parts.clone();
        Answer::Later(Box::pin(async move {
            // What is held is recent, and often cached; the base is what comes from far away.
            let all: Vec<_> = parts.runs(extent.range()).take(MOST_ADVISED).collect();
            let others = all.into_iter().filter(|(_, held)| !held);
            for extent in others.filter_map(|(range, _)| parts.base_extent(&range)) {
                parts.base.advise(extent, advice).wait().await;
            }
            true
        }))
    }

    fn refresh(&self) -> io::Result<Geometry> {
        self.parts.bitmap.refresh()?;
        Ok(self.geometry())
    }
}

/// Parts of an extent that the base is told of.
const MOST_ADVISED: usize = 64;

impl Parts {
    /// The parts of `range` that are held, or not, in turn.
    fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, bool)> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let start = at;
            let held = self.bitmap.holds(at / GRAIN);
            while at < range.end && self.bitmap.holds(at / GRAIN) == held {
                at = (at / GRAIN + 1) * GRAIN;
            }
            at = at.min(range.end);
            Some((start..at, held))
        })
    }

    /// The part of a range that lies within the base; nothing where all is beyond its end.
    fn base_extent(&self, range: &Range<u64>) -> Option<Extent> {
        let geometry = self.base.geometry();
        let block = u64::from(geometry.block_size);
        let within = (geometry.blocks * block).clamp(range.start, range.end) - range.start;
        geometry.extent(range.start / block, within / block)
    }

    /// What of a range is mapped in the base. Nothing is beyond its end.
    async fn base_runs(&self, range: Range<u64>, most: usize) -> Result<Vec<Run>> {
        let len = range.end - range.start;
        let mut runs = Vec::new();
        let mut within = 0;
        if let Some(extent) = self.base_extent(&range) {
            within = extent.len();
            runs = self.base.mapping(extent, most).wait().await?;
        }
        let covered: u64 = runs.iter().map(|run| run.len).sum();
        if covered >= within && len > covered {
            runs.push(Run {
                len: len - covered,
                mapped: false,
            });
        }
        Ok(runs)
    }

    /// Reads from the base, and zeros beyond its end.
    fn read_base(&self, range: Range<u64>) -> Answer<Result<Vec<Segment>>> {
        let len = range.end - range.start;
        let Some(extent) = self.base_extent(&range) else {
            return Answer::Now(Ok(vec![Segment::Zeros(len)]));
        };
        let beyond = len - extent.len();
        if beyond == 0 {
            return self.base.read(extent);
        }
        self.base.read(extent).map(move |segments| {
            let mut segments = segments?;
            segments.push(Segment::Zeros(beyond));
            Ok(segments)
        })
    }

    /// Writes `data` over `range`, together with what is missing of its first and last grain.
    fn write(self: &Arc<Self>, range: Range<u64>, data: Vec<Bytes>) -> Answer<Result<()>> {
        if range.is_empty() {
            return Answer::Now(Ok(()));
        }
        let grains = range.start / GRAIN..range.end.div_ceil(GRAIN);
        let [before, after] = self.missing(&range);
        // Most writes are of whole grains that nobody else changes: those begin before anybody waits for them.
        if before.is_empty()
            && after.is_empty()
            && let Some(claim) = self.busy.try_claim(&grains)
        {
            return self.put(claim, grains, range, data);
        }
        let parts = self.clone();
        Answer::Later(Box::pin(async move {
            let claim = parts.busy.claim(&grains).await;
            let (mut range, mut data) = (range, data);
            let [before, after] = parts.missing(&range);
            if !before.is_empty() {
                range.start = before.start;
                data.insert(0, parts.fill(before).await?);
            }
            if !after.is_empty() {
                range.end = after.end;
                data.push(parts.fill(after).await?);
            }
            parts.put(claim, grains, range, data).wait().await
        }))
    }

    /// What has to come from the base before a write of `range`, and behind it, to make its grains whole.
    fn missing(&self, range: &Range<u64>) -> [Range<u64>; 2] {
        let first = range.start / GRAIN;
        let last = (range.end - 1) / GRAIN;
        let end = ((last + 1) * GRAIN).min(self.bitmap.size());
        // One that is held has its own bytes, and is held for ever.
        let from_base =
            |grain, range: Range<u64>| match range.is_empty() || self.bitmap.holds(grain) {
                true => range.end..range.end,
                false => range,
            };
        [
            from_base(first, first * GRAIN..range.start),
            from_base(last, range.end..end),
        ]
    }

    /// Writes `data` over `range`, which makes whole what of `grains` was not held.
    fn put(
        self: &Arc<Self>,
        claim: Claim,
        grains: Range<u64>,
        range: Range<u64>,
        data: Vec<Bytes>,
    ) -> Answer<Result<()>> {
        let (parts, start) = (self.clone(), range.start);
        self.line.write(range, move || {
            // Here, so that the grains stay claimed should the caller stop waiting.
            let _claim = claim;
            parts.data.write_at(&data, start)?;
            parts.bitmap.hold(grains)
        })
    }

    /// The base's bytes, to complete a grain.
    async fn fill(&self, range: Range<u64>) -> Result<Bytes> {
        let segments = self.read_base(range).wait().await?;
        segment::load(segments).wait().await
    }

    async fn write_zeros(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        let zeros = backing::zeros((range.end - range.start) as usize);
        self.write(range, vec![zeros]).wait().await
    }

    /// Makes whole grains read as zeros.
    async fn punch(self: Arc<Self>, range: Range<u64>) -> Result<()> {
        let grains = range.start / GRAIN..range.end.div_ceil(GRAIN);
        let claim = self.busy.claim(&grains).await;
        let threads = self.threads.clone();
        let work = move || {
            let _claim = claim;
            self.data.punch(range.start, range.end - range.start)?;
            self.bitmap.hold(grains)
        };
        threads.blocking(work).await
    }
}
