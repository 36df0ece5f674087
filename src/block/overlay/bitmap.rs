//! Which grains an overlay holds, in memory and in its file.
//!
//! The file is a header of one page, the durable map, a page with the id of the host's boot, and the
//! recent map; a map has one bit a grain. Where the disk has grown, the header tells each size that it
//! had, and behind the rest stand a durable and a recent map for what came with each.
//! - A bit of the durable map stands for data that are on the disk. Bits only ever go from 0 to 1, so
//!   a page of which only a part reached the disk is still true: it claims fewer grains, never one too
//!   many.
//! - A bit of the recent map stands for data that were given to the kernel. That outlives this process
//!   but not the host, so the map counts only in the boot of the host that wrote it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};

use super::section::{Place, Section};
use crate::block::backing::{Backing, write_zeros};

/// Bytes of a grain.
pub(super) const GRAIN: u64 = 4096;

/// Bytes of the header, and of the unit in which the bitmap is written.
pub(super) const PAGE: usize = 4096;

const MAGIC: [u8; 8] = *b"NROVLY01";

/// Where the header tells the first size; those that the disk has grown to follow, up to a 0.
const SIZES: usize = 16;

/// What the header tells: its magic, the grain and the size of the disk, as little-endian words.
pub(super) fn header(size: u64) -> Bytes {
    let mut page = BytesMut::zeroed(0);
    page.extend_from_slice(&MAGIC);
    page.extend_from_slice(&GRAIN.to_le_bytes());
    page.extend_from_slice(&size.to_le_bytes());
    page.resize(PAGE, 0);
    page.freeze()
}

/// Bytes of the file for a disk that is made with `size` bytes.
pub(super) fn file_len(size: u64) -> u64 {
    2 * (PAGE as u64 + map_len(size.div_ceil(GRAIN)))
}

/// Bytes of one map of so many grains.
pub(super) fn map_len(grains: u64) -> u64 {
    grains.div_ceil(64).next_multiple_of(PAGE as u64 / 8) * 8
}

/// Makes room in the file of a bitmap for a disk of `size` bytes, durably. Whoever has it open finds it
/// by [`Bitmap::refresh`]. Nothing is done where it has as much already.
pub(super) fn grow(file: &File, size: u64) -> io::Result<()> {
    let sizes = sizes(file)?;
    let now = sizes.last().copied().unwrap_or(0);
    if size <= now {
        return Ok(());
    }
    let slot = (SIZES + sizes.len() * 8) as u64;
    if slot + 16 > PAGE as u64 {
        return Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            "this overlay has grown as often as it can: reset its client, or grow it in larger steps",
        ));
    }
    let first = now.div_ceil(GRAIN);
    let grains = size.div_ceil(GRAIN) - first;
    let end = layout(&sizes).1;
    // Zeros, wherever an earlier attempt was cut off: nobody writes behind the end before the header
    // tells of it.
    file.set_len(end)?;
    file.set_len(end + 2 * map_len(grains))?;
    file.sync_all()?;
    file.write_at(&[Bytes::copy_from_slice(&size.to_le_bytes())], slot)?;
    file.sync_all()
}

/// Tells one boot of the host from all others: as long as it is the same, what was written is there to
/// be read, synced or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootId(pub(super) [u8; BOOT_ID_LEN]);

/// Bytes of a boot id, which is a UUID in letters.
const BOOT_ID_LEN: usize = 36;

impl BootId {
    /// The id of this boot. Without one, a recent map never counts.
    pub(super) fn of_this_host() -> Option<Self> {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        text.trim_ascii().try_into().ok().map(BootId)
    }
}

/// The bitmap of one overlay.
pub(super) struct Bitmap {
    file: Arc<dyn Backing>,
    size: AtomicU64,
    boot_at: u64,
    first: Link,
    // Held for a write to the recent map (in the blocking pool, never across an await): words go to the
    // file in the order in which they change, or an older one would take bits back.
    recent: Mutex<()>,
}

/// A section, and the one that came with the next growth: found without a lock, and never moved.
struct Link {
    section: Section,
    next: OnceLock<Box<Link>>,
}

impl Bitmap {
    /// Reads a bitmap from its file, in this boot of the host.
    pub(super) fn load(file: Arc<dyn Backing>, boot: Option<BootId>) -> io::Result<Self> {
        let sizes = sizes(file.as_ref())?;
        let (places, _) = layout(&sizes);
        let mut links = Vec::new();
        for (range, place) in places {
            links.push(Section::load(file.as_ref(), range, place)?);
        }
        let mut chain: Option<Link> = None;
        for section in links.into_iter().rev() {
            let next = chain.map_or_else(OnceLock::new, |link| OnceLock::from(Box::new(link)));
            chain = Some(Link { section, next });
        }
        let (Some(first), [made, ..]) = (chain, sizes.as_slice()) else {
            return Err(no_bitmap());
        };
        let bitmap = Bitmap {
            file,
            size: AtomicU64::new(sizes.last().copied().unwrap_or(0)),
            boot_at: PAGE as u64 + map_len(made.div_ceil(GRAIN)),
            first,
            recent: Mutex::default(),
        };
        bitmap.recall(boot)?;
        Ok(bitmap)
    }

    /// Takes over the recent map where it was written in this boot, and begins a new one elsewhere.
    fn recall(&self, boot: Option<BootId>) -> io::Result<()> {
        let mut written = [0; BOOT_ID_LEN];
        self.file.read_at(&mut written, self.boot_at)?;
        if boot == Some(BootId(written)) {
            return self
                .sections()
                .try_for_each(|section| section.recall(self.file.as_ref()));
        }
        // In this order: should this be cut off, the bits of another boot still do not count.
        for section in self.sections() {
            let (at, len) = section.recent();
            write_zeros(self.file.as_ref(), at, len)?;
        }
        let id = boot.map_or([0; BOOT_ID_LEN], |id| id.0);
        self.write_boot(id)
    }

    /// Takes over what [`grow`] has written since. Tells how large the disk is.
    pub(super) fn refresh(&self) -> io::Result<u64> {
        // Nobody else adds sections meanwhile.
        let _recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes = sizes(self.file.as_ref())?;
        let known = self.sections().count();
        for (range, place) in layout(&sizes).0.into_iter().skip(known) {
            let size = range.end;
            let section = Section::load(self.file.as_ref(), range, place)?;
            let mut link = &self.first;
            while let Some(next) = link.next.get() {
                link = next;
            }
            let next = OnceLock::new();
            // The lock is held, so the last one has no next yet.
            let _ = link.next.set(Box::new(Link { section, next }));
            self.size.store(size, Ordering::Release);
        }
        Ok(self.size())
    }

    /// What was written since the last flush may be lost although the host goes on: whoever opens the
    /// overlay next is not to believe the recent map.
    pub(super) fn distrust(&self) -> io::Result<()> {
        self.write_boot([0; BOOT_ID_LEN])
    }

    fn write_boot(&self, id: [u8; BOOT_ID_LEN]) -> io::Result<()> {
        let id = Bytes::copy_from_slice(&id);
        self.file.write_at(&[id], self.boot_at)
    }

    /// Size of the disk in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Whether the overlay holds this grain.
    pub(super) fn holds(&self, grain: u64) -> bool {
        self.sections()
            .find_map(|section| section.holds(grain))
            .unwrap_or(false)
    }

    /// Notes that the overlay holds these grains, so that it is still known when this process is killed.
    /// Their data must have been written before. May block.
    pub(super) fn hold(&self, grains: Range<u64>) -> io::Result<()> {
        // Bits are set once they are in the file, so there is nothing to do for those that are.
        if self
            .sections()
            .all(|section| section.holds_all(section.part_of(&grains)))
        {
            return Ok(());
        }
        let _recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        self.sections()
            .try_for_each(|section| section.hold(self.file.as_ref(), section.part_of(&grains)))
    }

    /// What must be written to the durable map for it to tell what is held now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut pages = Vec::new();
        self.sections()
            .for_each(|section| section.snapshot(&mut pages));
        Snapshot(pages)
    }

    /// Writes a snapshot and makes it durable. The data of its grains must be durable already.
    pub(super) fn store(&self, snapshot: &Snapshot) -> io::Result<()> {
        if snapshot.0.is_empty() {
            return Ok(());
        }
        for (at, bytes) in &snapshot.0 {
            self.file.write_at(std::slice::from_ref(bytes), *at)?;
        }
        self.file.sync()
    }

    fn sections(&self) -> impl Iterator<Item = &Section> {
        let links =
            std::iter::successors(Some(&self.first), |link| link.next.get().map(Box::as_ref));
        links.map(|link| &link.section)
    }
}

/// Pages of a bitmap as they were at one moment, each with its place in the file.
pub(super) struct Snapshot(Vec<(u64, Bytes)>);

/// The size that the disk was made with, and those that it has grown to, from its header.
fn sizes(file: &dyn Backing) -> io::Result<Vec<u64>> {
    let mut head = [0; PAGE];
    file.read_at(&mut head, 0)?;
    if word(&head, 0) != u64::from_le_bytes(MAGIC) || word(&head, 8) != GRAIN {
        return Err(no_bitmap());
    }
    let words = (SIZES..PAGE).step_by(8).map(|at| word(&head, at));
    let sizes: Vec<u64> = words.take_while(|size| *size != 0).collect();
    match !sizes.is_empty() && sizes.is_sorted() {
        true => Ok(sizes),
        false => Err(no_bitmap()),
    }
}

/// The part of the disk that each size has brought, with the place of its maps; and where all end.
fn layout(sizes: &[u64]) -> (Vec<(Range<u64>, Place)>, u64) {
    let mut places = Vec::new();
    let (mut from, mut end) = (0, 0);
    for &size in sizes {
        // The first has a page before each of its maps: the header, and the id of the host's boot.
        let page = if from == 0 { PAGE as u64 } else { 0 };
        let len = map_len(size.div_ceil(GRAIN) - u64::div_ceil(from, GRAIN));
        let durable = end + page;
        let recent = durable + len + page;
        places.push((from..size, Place { durable, recent }));
        (from, end) = (size, recent + len);
    }
    (places, end)
}

fn no_bitmap() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "this file is not the bitmap of an overlay, or one that this version cannot read",
    )
}

/// The little-endian word at `at`, 0 where there is none.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    let slice = bytes.get(at..at + 8).unwrap_or_default();
    slice.try_into().map_or(0, u64::from_le_bytes)
}
