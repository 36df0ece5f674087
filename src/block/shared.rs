//! A disk in a file that began as a copy of a sealed one: what both still share is read from that.
//!
//! File systems share the blocks of such files, and not what they have cached of them: a block that is read
//! by way of fifty copies is read from the storage fifty times, and fifty times in memory. By way of the
//! original it is there once, for everybody; and as nobody writes the original, large parts of it go from
//! its file to a socket untouched.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;

use super::{Advice, Answer, Disk, Extent, Geometry, Result, Run, Segment, segment};

/// Bytes of which is known as a whole whether they are shared: 40 KiB of memory for a disk of 20 GiB, and
/// no more than this that is cached twice around a block that was written.
const PIECE: u64 = 64 * 1024;

/// A disk that shares some of its bytes with a sealed one.
pub struct SharedDisk {
    /// Has all of its bytes, and takes what is written.
    own: Arc<dyn Disk>,
    /// Has the shared ones, each at the same offset.
    base: Arc<dyn Disk>,
    shared: Pieces,
}

impl SharedDisk {
    /// A disk whose bytes `own` has; those in `ranges`, which do not overlap and are in order, are the
    /// same in `base`. Nobody else may write either of them.
    ///
    /// # Errors
    /// The first of the ranges.
    pub fn new(
        own: Arc<dyn Disk>,
        base: Arc<dyn Disk>,
        ranges: impl Iterator<Item = io::Result<Range<u64>>>,
    ) -> io::Result<Self> {
        Self::with_pieces(own, base, ranges, PIECE)
    }

    fn with_pieces(
        own: Arc<dyn Disk>,
        base: Arc<dyn Disk>,
        ranges: impl Iterator<Item = io::Result<Range<u64>>>,
        piece: u64,
    ) -> io::Result<Self> {
        let [one, other] = [&own, &base].map(|disk| {
            let shape = disk.geometry();
            shape.blocks * u64::from(shape.block_size)
        });
        let shared = Pieces::within(ranges, one.min(other), piece)?;
        Ok(SharedDisk { own, base, shared })
    }

    /// The disk to write `extent` to: before anything is written, all who begin to read read there.
    fn to_write(&self, extent: Extent) -> &Arc<dyn Disk> {
        self.shared.remove(extent.range());
        &self.own
    }

    /// The parts of `extent`, in order, each with the disk to read it from.
    fn parts(&self, extent: Extent) -> impl Iterator<Item = (&Arc<dyn Disk>, Extent)> {
        let mut at = 0;
        // Once at least: what has no bytes is asked for as well.
        let mut more = true;
        std::iter::from_fn(move || {
            if !more {
                return None;
            }
            let rest = extent.part(at, extent.len());
            let (shared, len) = self.shared.run(rest.range());
            at += len;
            more = at < extent.len();
            let disk = if shared { &self.base } else { &self.own };
            Some((disk, rest.part(0, len)))
        })
    }
}

impl Disk for SharedDisk {
    fn geometry(&self) -> Geometry {
        self.own.geometry()
    }

    fn read(&self, extent: Extent) -> Answer<Result<Vec<Segment>>> {
        segment::in_order(self.parts(extent).map(|(disk, part)| disk.read(part)))
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.to_write(extent).write(extent, data)
    }

    fn flush(&self) -> Answer<Result<()>> {
        self.own.flush()
    }

    fn unmap(&self, extent: Extent) -> Answer<Result<()>> {
        self.to_write(extent).unmap(extent)
    }

    fn write_through(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.to_write(extent).clone().write_through(extent, data)
    }

    fn write_atomic(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.to_write(extent).clone().write_atomic(extent, data)
    }

    fn scrub(&self) -> Answer<Result<()>> {
        self.own.scrub()
    }

    fn mapping(&self, extent: Extent, most: usize) -> Answer<Result<Vec<Run>>> {
        self.own.mapping(extent, most)
    }

    fn advise(&self, extent: Extent, advice: Advice) -> Answer<bool> {
        let parts = self.parts(extent);
        let mut answers: Vec<_> = parts
            .map(|(disk, part)| disk.advise(part, advice))
            .collect();
        match (answers.pop(), answers.is_empty()) {
            (Some(only), true) => only,
            (last, _) => Answer::Later(Box::pin(async move {
                answers.extend(last);
                let heard: Vec<_> = segment::waited(answers).collect().await;
                heard.contains(&true)
            })),
        }
    }

    fn file(&self) -> Option<Arc<File>> {
        self.own.file()
    }

    fn file_to_write(&self, extent: Extent) -> Option<Arc<File>> {
        self.to_write(extent).file_to_write(extent)
    }

    fn refresh(&self) -> io::Result<Geometry> {
        self.own.refresh()
    }
}

/// Which pieces of a disk are shared: a bit for each, which goes and never comes back.
struct Pieces {
    piece: u64,
    bits: Box<[AtomicU64]>,
}

impl Pieces {
    /// The pieces of this size, of `len` bytes, that lie within one of `ranges` as a whole.
    fn within(
        ranges: impl Iterator<Item = io::Result<Range<u64>>>,
        len: u64,
        piece: u64,
    ) -> io::Result<Self> {
        let words = (len / piece).div_ceil(64);
        let mut bits = vec![0_u64; usize::try_from(words).map_err(io::Error::other)?];
        for range in whole(ranges) {
            let range = range?;
            for (word, mask) in masks(range.start.div_ceil(piece)..range.end / piece) {
                if let Some(bits) = bits.get_mut(word) {
                    *bits |= mask;
                }
            }
        }
        let bits = bits.into_iter().map(AtomicU64::new).collect();
        Ok(Pieces { piece, bits })
    }

    fn has(&self, piece: u64) -> bool {
        let word = usize::try_from(piece / 64).ok();
        let bits = word.and_then(|word| self.bits.get(word));
        bits.is_some_and(|bits| bits.load(Ordering::Acquire) >> (piece % 64) & 1 == 1)
    }

    /// Takes out every piece that a range touches.
    fn remove(&self, range: Range<u64>) {
        let pieces = range.start / self.piece..range.end.div_ceil(self.piece);
        for (word, mask) in masks(pieces) {
            let Some(bits) = self.bits.get(word) else {
                // Nothing behind the last shared piece is.
                return;
            };
            // What is written again and again is not shared any more, and costs no more than a look.
            if bits.load(Ordering::Acquire) & mask != 0 {
                bits.fetch_and(!mask, Ordering::AcqRel);
            }
        }
    }

    /// Whether the bytes from the start of a range on are shared, and for how many of it that holds.
    fn run(&self, range: Range<u64>) -> (bool, u64) {
        let first = range.start / self.piece;
        let shared = self.has(first);
        let mut end = (first + 1) * self.piece;
        while end < range.end && self.has(end / self.piece) == shared {
            end += self.piece;
        }
        (shared, end.min(range.end) - range.start)
    }
}

/// Ranges that touch each other, as one.
fn whole(
    ranges: impl Iterator<Item = io::Result<Range<u64>>>,
) -> impl Iterator<Item = io::Result<Range<u64>>> {
    let mut rest = ranges.peekable();
    std::iter::from_fn(move || {
        let mut one = match rest.next()? {
            Ok(one) => one,
            error => return Some(error),
        };
        while let Some(Ok(next)) = rest.peek()
            && next.start == one.end
        {
            one.end = next.end;
            rest.next();
        }
        Some(Ok(one))
    })
}

/// Bits of a bitmap, as the words that hold them and which bits of each.
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = bits.start / 64..bits.end.div_ceil(64).max(bits.start / 64);
    words.filter_map(move |word| {
        let from = bits.start.saturating_sub(word * 64).min(64);
        let to = bits.end.saturating_sub(word * 64).min(64);
        let below = |bit: u64| u64::MAX.checked_shr(64 - bit as u32).unwrap_or(0);
        Some((usize::try_from(word).ok()?, below(to) & !below(from)))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::{FileDisk, copy, load, model};
    use super::*;

    /// Smaller pieces than real ones: eight of them, and a part of one.
    const SMALL: u64 = 4096;

    /// A disk that shares these ranges with a base, and the bytes that it has.
    fn disk(ranges: &[Range<u64>]) -> (SharedDisk, Vec<u8>, [tempfile::NamedTempFile; 2]) {
        let bytes = model::pattern(model::BLOCKS, 3);
        let mut files = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        files[0].write_all(&bytes).unwrap();
        // What is not shared is another's: to be read there would show.
        let mut theirs = vec![0xee; bytes.len()];
        for range in ranges {
            let range = range.start as usize..range.end as usize;
            theirs[range.clone()].copy_from_slice(&bytes[range]);
        }
        files[1].write_all(&theirs).unwrap();
        let own = FileDisk::open_writable(files[0].path(), 512).unwrap();
        let base = FileDisk::open_sealed(files[1].path(), 512).unwrap();
        let ranges = ranges.iter().cloned().map(Ok);
        let disk = SharedDisk::with_pieces(Arc::new(own), Arc::new(base), ranges, SMALL);
        (disk.unwrap(), bytes, files)
    }

    fn blocks(range: Range<u64>) -> Range<u64> {
        range.start * 512..range.end * 512
    }

    proptest! {
        #[test]
        fn behaves_as_a_byte_array(
            ops in model::ops(model::BLOCKS),
            cuts in proptest::collection::btree_set(0..=model::BLOCKS, 0..8),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let ranges: Vec<_> = cuts.chunks_exact(2).map(|two| blocks(two[0]..two[1])).collect();
            let (disk, bytes, files) = disk(&ranges);
            let sealed = std::fs::read(files[1].path()).unwrap();
            model::check(&disk, bytes, ops);
            prop_assert!(std::fs::read(files[1].path()).unwrap() == sealed);
        }

        #[test]
        fn masks_are_the_bits(start in 0_u64..300, len in 0_u64..300) {
            let mut bits = Vec::new();
            for (word, mask) in masks(start..start + len) {
                bits.extend((0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| word as u64 * 64 + bit));
            }
            prop_assert_eq!(bits, (start..start + len).collect::<Vec<_>>());
        }
    }

    /// Where each run of segments comes from: true for the base.
    async fn sources(disk: &SharedDisk, from: u64, blocks: u64) -> Vec<(bool, u64)> {
        let extent = disk.geometry().extent(from, blocks).unwrap();
        let segments = disk.read(extent).wait().await.unwrap();
        let source =
            |segment: &Segment| (matches!(segment, Segment::File { .. }), segment.len() / 512);
        segments.iter().map(source).collect()
    }

    #[tokio::test]
    async fn shared_bytes_are_read_from_the_base_until_they_are_written() {
        // Pieces 0 to 3 as two ranges that touch, and half of piece 4.
        let (disk, ..) = disk(&[blocks(0..20), blocks(20..36)]);
        assert_eq!(sources(&disk, 0, 40).await, [(true, 32), (false, 8)]);
        let extent = disk.geometry().extent(9, 1).unwrap();
        let data = vec![Bytes::from(vec![1; 512])];
        disk.write(extent, data).wait().await.unwrap();
        let expected = [(true, 8), (false, 8), (true, 16), (false, 8)];
        assert_eq!(sources(&disk, 0, 40).await, expected);
        let extent = disk.geometry().extent(16, 8).unwrap();
        disk.unmap(extent).wait().await.unwrap();
        assert_eq!(sources(&disk, 16, 8).await, [(false, 8)]);
    }

    #[tokio::test]
    async fn what_a_system_call_copies_is_read_where_it_went() {
        let (disk, bytes, _files) = disk(&[blocks(0..64)]);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let part = |from| disk.geometry().extent(from, 8).unwrap();
        copy(disk.clone(), part(0), disk.clone(), part(24))
            .wait()
            .await
            .unwrap();
        let segments = disk.read(part(24)).wait().await.unwrap();
        assert_eq!(load(segments).wait().await.unwrap()[..], bytes[..8 * 512]);
        let through = vec![Bytes::from(vec![9; 8 * 512])];
        disk.clone()
            .write_through(part(40), through)
            .wait()
            .await
            .unwrap();
        let segments = disk.read(part(40)).wait().await.unwrap();
        assert_eq!(load(segments).wait().await.unwrap()[..], [9; 8 * 512]);
    }
}
