//! Which bytes of a file it shares with others, as the file system tells it (FIEMAP).
#![allow(unsafe_code)] // One ioctl that no crate of ours wraps; it fills the array that it is given.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

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

mod ioctl {
    nix::ioctl_readwrite!(fiemap, b'f', 11, super::Head);
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
    let theirs = match ours.iter().any(|extent| extent.is(SHARED)) {
        true => extents(base, range, Unplaced::Ignored)?.unwrap_or_default(),
        // Who shares with nobody does not share with the base.
        false => Vec::new(),
    };
    let mut theirs = theirs.iter().peekable();
    let mut beyond = 0_u64;
    for extent in &ours {
        while theirs
            .next_if(|base| base.end() <= extent.logical)
            .is_some()
        {}
        let mut common = 0;
        // The last of them may reach into the next extent.
        for base in theirs
            .clone()
            .take_while(|base| base.logical < extent.end())
        {
            common += extent.common_with(base);
        }
        beyond = beyond.saturating_add(extent.length.saturating_sub(common));
    }
    Ok(Some(beyond))
}

/// The ranges, in order, in which two files hold the same bytes because they lie in the same blocks; none
/// where the file system does not tell. Both are synced first, and nobody may write to either meanwhile.
pub(super) fn common(file: &File, base: &File) -> io::Result<Vec<Range<u64>>> {
    let all = 0..u64::MAX;
    let Some(ours) = extents(file, &all, Unplaced::Written)? else {
        return Ok(Vec::new());
    };
    let theirs = extents(base, &all, Unplaced::Written)?.unwrap_or_default();
    let in_place = |extent: &&Extent| !extent.is(ELSEWHERE);
    let mut theirs = theirs.iter().filter(in_place).peekable();
    let mut common = Vec::new();
    for extent in ours.iter().filter(in_place) {
        while theirs
            .next_if(|base| base.end() <= extent.logical)
            .is_some()
        {}
        // The last of them may reach into the next extent.
        let touching = theirs.clone();
        for base in touching.take_while(|base| base.logical < extent.end()) {
            if extent.common_with(base) > 0 {
                common.push(extent.logical.max(base.logical)..extent.end().min(base.end()));
            }
        }
    }
    Ok(common)
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

    /// Bytes that lie at the same place of both files, and on the storage too.
    fn common_with(&self, other: &Extent) -> u64 {
        if !self.is(SHARED) || self.is(UNKNOWN) || other.is(UNKNOWN) {
            return 0;
        }
        // Where byte 0 of the file would lie, if all of it were one extent.
        let origin = |extent: &Extent| extent.physical.wrapping_sub(extent.logical);
        if origin(self) != origin(other) {
            return 0;
        }
        let start = self.logical.max(other.logical);
        self.end().min(other.end()).saturating_sub(start)
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
