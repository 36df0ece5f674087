//! Which bytes of a file it shares with others, as the file system tells it (FIEMAP).
#![allow(unsafe_code)] // Two ioctls that no crate of ours wraps; each fills the structure that it is given.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};

/// Extents that are asked for at once: 14 KiB of answer.
const AT_ONCE: usize = 256;

/// Linux, include/uapi/linux/fiemap.h: `struct fiemap` without its array.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
}

/// The same header's `struct fiemap_extent`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

const LAST: u32 = 0x1;
const UNKNOWN: u32 = 0x2;
const SHARED: u32 = 0x2000;
/// Bytes that are not where the extent says, as they stand there: not allocated yet (0x4), compressed or
/// encrypted (0x8, 0x80), not aligned or in the metadata (0x100, 0x200, 0x400), or zeros whatever lies
/// there (0x800).
const ELSEWHERE: u32 = UNKNOWN | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800;

/// FIEMAP_FLAG_SYNC: what is on its way gets its place first.
const SYNC: u32 = 0x1;

#[repr(C)]
struct Request {
    head: Head,
    extents: [Extent; AT_ONCE],
}

/// Linux, include/uapi/linux/btrfs.h: `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
pub(super) struct FileSystemInfo {
    devices: [u64; 2],
    uuid: [u8; 16],
    rest: [u64; 124],
}

mod ioctl {
    nix::ioctl_readwrite!(fiemap, b'f', 11, super::Head);
    nix::ioctl_read!(btrfs_info, 0x94, 31, super::FileSystemInfo);
}

/// The storage whose places the extents of a file are: the same number means the same block only in one of
/// these.
#[derive(Debug, PartialEq, Eq)]
enum Storage {
    /// A file system with places of its own, whichever devices and subvolumes it has.
    Btrfs([u8; 16]),
    /// A device.
    Xfs(u64),
    /// A device, or one of several: the file system's extents do not say.
    Other(u64),
}

impl Storage {
    fn of(file: &File) -> io::Result<Self> {
        let device = file.metadata()?.dev();
        match fstatfs(file)?.filesystem_type() {
            XFS_SUPER_MAGIC => Ok(Storage::Xfs(device)),
            BTRFS_SUPER_MAGIC => {
                let mut info = FileSystemInfo {
                    devices: [0; 2],
                    uuid: [0; 16],
                    rest: [0; 124],
                };
                // SAFETY: the descriptor is open for the whole call, which fills no more than it is given.
                unsafe { ioctl::btrfs_info(file.as_raw_fd(), &raw mut info) }?;
                Ok(Storage::Btrfs(info.uuid))
            }
            _ => Ok(Storage::Other(device)),
        }
    }
}

/// What to do about data that have no place on the storage yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unplaced {
    /// They are written first, which may take its time.
    Written,
    /// They count as what was there before.
    Ignored,
}

/// Bytes of `file` whose blocks another file has as well; nothing where the file system does not tell.
///
/// What was written and not synced yet has no place so far and shares with nobody.
pub(super) fn shared_bytes(file: &File) -> io::Result<Option<u64>> {
    let extents = extents(file, &(0..u64::MAX), Unplaced::Ignored)?;
    let shared = |extents: Vec<Extent>| {
        let shared = extents.iter().filter(|extent| extent.is(SHARED));
        shared.fold(0, |sum: u64, extent| sum.saturating_add(extent.length))
    };
    Ok(extents.map(shared))
}

/// Bytes of a range of `file` that have blocks, and others than those of `base` at the same place;
/// nothing where the file system does not tell.
pub(super) fn bytes_beyond(
    file: &File,
    base: &File,
    range: &Range<u64>,
    unplaced: Unplaced,
) -> io::Result<Option<u64>> {
    let Some(mut ours) = extents(file, range, unplaced)? else {
        return Ok(None);
    };
    ours.iter_mut().for_each(|extent| extent.cut(range));
    // Who shares with nobody, or is elsewhere, does not share with the base.
    let shares = ours.iter().any(|extent| extent.is(SHARED));
    let theirs = match shares && Storage::of(file)? == Storage::of(base)? {
        true => extents(base, range, Unplaced::Ignored)?.unwrap_or_default(),
        false => Vec::new(),
    };
    let length = |sum: u64, length: u64| sum.saturating_add(length);
    let all = ours.iter().map(|extent| extent.length).fold(0, length);
    let common = overlaps(&ours, &theirs).map(|range| range.end - range.start);
    Ok(Some(all.saturating_sub(common.fold(0, length))))
}

/// The ranges, in order, in which a file holds the same bytes as `base`, which is sealed, because they lie
/// in the same blocks; none where that cannot be told for sure. What was written to the file gets its place
/// first, and nobody may write to it meanwhile.
pub(super) fn common(file: &File, base: &File) -> io::Result<Vec<Range<u64>>> {
    let storage = Storage::of(file)?;
    if storage != Storage::of(base)? || matches!(storage, Storage::Other(_)) {
        return Ok(Vec::new());
    }
    // The last extent of a file may reach beyond its end.
    let both = 0..file.metadata()?.len().min(base.metadata()?.len());
    let in_place = |file, unplaced| -> io::Result<Vec<Extent>> {
        let mut extents = extents(file, &both, unplaced)?.unwrap_or_default();
        extents.retain(|extent| !extent.is(ELSEWHERE));
        extents.iter_mut().for_each(|extent| extent.cut(&both));
        Ok(extents)
    };
    let ours = in_place(file, Unplaced::Written)?;
    if ours.iter().all(|extent| !extent.is(SHARED)) {
        return Ok(Vec::new());
    }
    let theirs = in_place(base, Unplaced::Ignored)?;
    Ok(overlaps(&ours, &theirs).collect())
}

/// The ranges, in order, in which extents of two files of one storage, each in order, are the same blocks.
fn overlaps<'a>(
    ours: &'a [Extent],
    theirs: &'a [Extent],
) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let mut theirs = theirs.iter().peekable();
    ours.iter().flat_map(move |extent| {
        while theirs
            .next_if(|base| base.end() <= extent.logical)
            .is_some()
        {}
        // The last of them may reach into the next extent.
        let touching = theirs.clone();
        let touching = touching.take_while(|base| base.logical < extent.end());
        touching.filter_map(|base| extent.common_with(base))
    })
}

impl Extent {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    /// Leaves what is within a range.
    fn cut(&mut self, range: &Range<u64>) {
        let start = self.logical.max(range.start);
        let end = self.end().min(range.end).max(start);
        self.physical = self.physical.saturating_add(start - self.logical);
        (self.logical, self.length) = (start, end - start);
    }

    /// What lies at the same place of both files, and on the storage too.
    fn common_with(&self, other: &Extent) -> Option<Range<u64>> {
        if !self.is(SHARED) || self.is(UNKNOWN) || other.is(UNKNOWN) {
            return None;
        }
        // Where byte 0 of the file would lie, if all of it were one extent.
        let origin = |extent: &Extent| extent.physical.wrapping_sub(extent.logical);
        let both = self.logical.max(other.logical)..self.end().min(other.end());
        (origin(self) == origin(other) && !both.is_empty()).then_some(both)
    }
}

/// The extents that touch a range, in order; nothing where the file system does not tell.
fn extents(file: &File, range: &Range<u64>, unplaced: Unplaced) -> io::Result<Option<Vec<Extent>>> {
    let mut all = Vec::new();
    let mut start = range.start;
    loop {
        let mut request = Request {
            head: Head {
                start,
                length: range.end.saturating_sub(start),
                room: AT_ONCE as u32,
                flags: match unplaced {
                    Unplaced::Written if all.is_empty() => SYNC,
                    _ => 0,
                },
                ..Head::default()
            },
            extents: [Extent::default(); AT_ONCE],
        };
        if request.head.length == 0 {
            return Ok(Some(all));
        }
        let head = (&raw mut request).cast::<Head>();
        // SAFETY: the descriptor is open for the whole call, and behind the header there is room for
        // as many extents as it says; the pointer may reach them, since it is one to the whole request.
        match unsafe { ioctl::fiemap(file.as_raw_fd(), head) } {
            Ok(_) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let found = usize::try_from(request.head.mapped).unwrap_or(AT_ONCE);
        let found = request.extents.get(..found).unwrap_or(&request.extents);
        all.extend_from_slice(found);
        let Some(last) = found.last() else {
            return Ok(Some(all));
        };
        let next = last.end();
        if last.is(LAST) || next <= start || next >= range.end {
            return Ok(Some(all));
        }
        start = next;
    }
}
