//! Which bytes of a file it shares with others, as the file system tells it (FIEMAP).
#![allow(unsafe_code)] // One ioctl that no crate of ours wraps; it fills the array that it is given.

use std::fs::File;
use std::io;
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
const SHARED: u32 = 0x2000;

#[repr(C)]
struct Request {
    head: Head,
    extents: [Extent; AT_ONCE],
}

mod ioctl {
    nix::ioctl_readwrite!(fiemap, b'f', 11, super::Head);
}

/// Bytes of `file` whose blocks another file has as well; nothing where the file system does not tell.
///
/// What was written and not synced yet has no place so far and shares with nobody.
pub(super) fn shared_bytes(file: &File) -> io::Result<Option<u64>> {
    let mut shared = 0_u64;
    let mut start = 0;
    loop {
        let mut request = Request {
            head: Head {
                start,
                length: u64::MAX - start,
                room: AT_ONCE as u32,
                ..Head::default()
            },
            extents: [Extent::default(); AT_ONCE],
        };
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
        for extent in found.iter().filter(|extent| extent.flags & SHARED != 0) {
            shared = shared.saturating_add(extent.length);
        }
        let Some(last) = found.last() else {
            return Ok(Some(shared));
        };
        let next = last.logical.saturating_add(last.length);
        if last.flags & LAST != 0 || next <= start {
            return Ok(Some(shared));
        }
        start = next;
    }
}
