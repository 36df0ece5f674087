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
    let shared = Extents::of(file, 0..u64::MAX, Unplaced::Ignored).filter(is_shared);
    if_told(sum(shared.map(|extent| Ok(extent?.length))))
}

/// Bytes of a range of `file` that have blocks, and others than those of `base` at the same place;
/// nothing where the file system does not tell.
pub(super) fn bytes_beyond(
    file: &File,
    base: &File,
    range: &Range<u64>,
    unplaced: Unplaced,
) -> io::Result<Option<u64>> {
    let beyond = || {
        let mut all: u64 = 0;
        let ours = Extents::of(file, range.clone(), unplaced);
        let ours = ours.inspect(|extent| {
            let length = extent.as_ref().map_or(0, |extent| extent.length);
            all = all.saturating_add(length);
        });
        let mut ours = ours.filter(is_shared).peekable();
        // Who shares with nobody, or is elsewhere, does not share with the base.
        let same = ours.peek().is_some() && Storage::of(file)? == Storage::of(base)?;
        let theirs = if same { range.clone() } else { 0..0 };
        let theirs = Extents::of(base, theirs, Unplaced::Ignored);
        let common =
            sum(overlaps(ours, theirs).map(|both| both.map(|both| both.end - both.start)))?;
        Ok(all.saturating_sub(common))
    };
    if_told(beyond())
}

/// The ranges, in order, in which a file holds the same bytes as `base`, which is sealed, because they lie
/// in the same blocks; none where that cannot be told for sure. What was written to the file gets its place
/// first, and nobody may write to it before the last of them was told.
pub(super) fn common<'a>(
    file: &'a File,
    base: &'a File,
) -> io::Result<impl Iterator<Item = io::Result<Range<u64>>> + use<'a>> {
    let both = match (Storage::of(file)?, Storage::of(base)?) {
        (Storage::Other(_), _) => 0..0,
        // The last extent of a file may reach beyond its end.
        (ours, theirs) if ours == theirs => 0..file.metadata()?.len().min(base.metadata()?.len()),
        _ => 0..0,
    };
    let in_place = |file, unplaced| {
        let extents = Extents::of(file, both.clone(), unplaced);
        extents.filter(|extent| extent.as_ref().map_or(true, |extent| !extent.is(ELSEWHERE)))
    };
    let ours = in_place(file, Unplaced::Written).filter(is_shared);
    Ok(overlaps(ours, in_place(base, Unplaced::Ignored)))
}

/// The ranges, in order, in which extents of two files of one storage, each in order, are the same blocks.
/// All of `ours` are looked at; of `theirs`, what that needs.
fn overlaps(
    mut ours: impl Iterator<Item = io::Result<Extent>>,
    theirs: impl Iterator<Item = io::Result<Extent>>,
) -> impl Iterator<Item = io::Result<Range<u64>>> {
    let mut theirs = theirs.fuse();
    let (mut one, mut other) = (None, None);
    let mut next = move || loop {
        one = match one.take() {
            None => ours.next().transpose()?,
            held => held,
        };
        let Some(mine) = one else {
            return Ok(None);
        };
        other = match other.take() {
            None => theirs.next().transpose()?,
            held => held,
        };
        let Some(base) = other else {
            one = None;
            continue;
        };
        // What ends first meets nothing more.
        if mine.end() <= base.end() {
            one = None;
        } else {
            other = None;
        }
        if let Some(both) = mine.common_with(&base) {
            return Ok(Some(both));
        }
    };
    std::iter::from_fn(move || next().transpose())
}

fn is_shared(extent: &io::Result<Extent>) -> bool {
    extent.as_ref().map_or(true, |extent| extent.is(SHARED))
}

fn sum(mut lengths: impl Iterator<Item = io::Result<u64>>) -> io::Result<u64> {
    lengths.try_fold(0_u64, |sum, length| Ok(sum.saturating_add(length?)))
}

/// Nothing where the file system does not tell.
fn if_told(told: io::Result<u64>) -> io::Result<Option<u64>> {
    match told {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        told => told.map(Some),
    }
}

impl Extent {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    /// What of it is within a range.
    fn within(self, range: &Range<u64>) -> Extent {
        let start = self.logical.max(range.start);
        let end = self.end().min(range.end).max(start);
        Extent {
            logical: start,
            physical: self.physical.saturating_add(start - self.logical),
            length: end - start,
            ..self
        }
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

/// The extents within a range, in order; `Unsupported` where the file system does not tell.
///
/// A client can write its disk into millions of them: no more are held than one answer brings.
struct Extents<'a> {
    file: &'a File,
    range: Range<u64>,
    /// Where the next answer is to begin.
    next: u64,
    /// What is asked for with it.
    flags: u32,
    found: std::vec::IntoIter<Extent>,
}

impl<'a> Extents<'a> {
    fn of(file: &'a File, range: Range<u64>, unplaced: Unplaced) -> Self {
        Extents {
            file,
            next: range.start,
            range,
            flags: match unplaced {
                Unplaced::Written => SYNC,
                Unplaced::Ignored => 0,
            },
            found: Vec::new().into_iter(),
        }
    }

    /// Asks for more of them.
    fn ask(&mut self) -> io::Result<()> {
        let start = std::mem::replace(&mut self.next, self.range.end);
        let mut request = Request {
            head: Head {
                start,
                length: self.range.end.saturating_sub(start),
                room: AT_ONCE as u32,
                flags: std::mem::take(&mut self.flags),
                ..Head::default()
            },
            extents: [Extent::default(); AT_ONCE],
        };
        let head = (&raw mut request).cast::<Head>();
        // SAFETY: the descriptor is open for the whole call, and behind the header there is room for
        // as many extents as it says; the pointer may reach them, since it is one to the whole request.
        match unsafe { ioctl::fiemap(self.file.as_raw_fd(), head) } {
            Ok(_) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(error) => return Err(error.into()),
        }
        let found = usize::try_from(request.head.mapped).unwrap_or(AT_ONCE);
        let found = request.extents.get(..found).unwrap_or(&request.extents);
        if let Some(last) = found.last()
            && !last.is(LAST)
            && last.end() > start
        {
            self.next = last.end();
        }
        self.found = Vec::from(found).into_iter();
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.found.next() {
                return Some(Ok(extent.within(&self.range)));
            }
            if self.next >= self.range.end {
                return None;
            }
            if let Err(error) = self.ask() {
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of a small file, each with its place on the storage, if it has one; as extents that end where
    /// the places do not go on, or at one of `cuts`.
    fn extents(places: &[Option<u64>], cuts: &[usize]) -> Vec<Extent> {
        let mut all: Vec<Extent> = Vec::new();
        for (at, place) in places.iter().enumerate() {
            let (logical, Some(physical)) = (at as u64, *place) else {
                continue;
            };
            match all.last_mut() {
                Some(last)
                    if last.end() == logical
                        && last.physical + last.length == physical
                        && !cuts.contains(&at) =>
                {
                    last.length += 1;
                }
                _ => all.push(Extent {
                    logical,
                    physical,
                    length: 1,
                    flags: SHARED,
                    ..Extent::default()
                }),
            }
        }
        all
    }

    /// Places near those of a file that has all of its blocks in a row.
    fn places() -> impl Strategy<Value = Vec<Option<u64>>> {
        let one = prop_oneof![3 => Just(Some(0)), 1 => Just(None), 1 => (1_u64..3).prop_map(Some)];
        let places = |all: Vec<Option<u64>>| {
            let placed = all.into_iter().enumerate();
            placed
                .map(|(at, off)| Some(100 + at as u64 + off?))
                .collect()
        };
        proptest::collection::vec(one, 0..30).prop_map(places)
    }

    proptest! {
        #[test]
        fn two_files_have_in_common_what_lies_at_one_place(
            (ours, theirs) in (places(), places()),
            cuts in proptest::collection::vec(0_usize..30, 0..6),
        ) {
            let told = |extents: Vec<Extent>| extents.into_iter().map(Ok);
            let (mine, base) = (extents(&ours, &cuts), extents(&theirs, &[]));
            let found: io::Result<Vec<_>> = overlaps(told(mine), told(base)).collect();
            let found: Vec<u64> = found.unwrap().into_iter().flatten().collect();
            let same = ours.iter().zip(&theirs).enumerate();
            let same = same.filter(|(_, (one, other))| one.is_some() && one == other);
            prop_assert_eq!(found, same.map(|(at, _)| at as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_extent_that_cannot_be_told_is_an_error_and_not_a_hole() {
        let lost = || Err(io::Error::other("lost"));
        let good = || extents(&[Some(1)], &[]).into_iter().map(Ok);
        assert!(overlaps(good().chain([lost()]), good()).any(|one| one.is_err()));
        assert!(overlaps(good(), std::iter::once(lost())).any(|one| one.is_err()));
    }
}
