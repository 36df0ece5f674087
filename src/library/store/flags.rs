//! The immutable flag of files, `chattr +i`.
#![allow(unsafe_code)] // Two ioctls that no crate of ours wraps; both only touch the int they are given.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Linux, include/uapi/linux/fs.h.
const FS_IMMUTABLE_FL: libc::c_int = 0x10;

mod ioctl {
    // The kernel's headers say `long`, the kernel itself reads and writes an int.
    nix::ioctl_read_bad!(get_flags, libc::FS_IOC_GETFLAGS, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_flags, libc::FS_IOC_SETFLAGS, libc::c_int);
}

/// Whether a file can be written by nobody, root included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nobody changes, renames, links or removes it.
    Immutable,
    /// As its permissions say.
    Ordinary,
}

/// Sets or clears the flag.
pub(super) fn set(file: &File, writing: Writing) -> io::Result<()> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call, and `flags` is a valid int.
    unsafe { ioctl::get_flags(file.as_raw_fd(), &mut flags) }?;
    let wanted = match writing {
        Writing::Immutable => flags | FS_IMMUTABLE_FL,
        Writing::Ordinary => flags & !FS_IMMUTABLE_FL,
    };
    if wanted != flags {
        // SAFETY: as above.
        unsafe { ioctl::set_flags(file.as_raw_fd(), &wanted) }?;
    }
    Ok(())
}
