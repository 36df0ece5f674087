//! How much the kernel holds of an answer that is not sent yet.
//!
//! A socket's buffer grows to megabytes, of which a third has to be free before more is taken: whether a
//! peer reads slowly or not at all would be known only after minutes, and each that does not read would
//! have megabytes of the kernel's memory.

#![allow(
    unsafe_code,
    reason = "no crate here wraps this option; the kernel reads one number through a pointer to it"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Enough for the fastest network between two turns of ours.
static MOST: libc::c_int = 128 << 10;

/// Lets no more than a little wait unsent in the kernel, tcp(7): what was sent and not acknowledged does
/// not count, so that it slows nobody down.
pub(super) fn keep_little(socket: BorrowedFd<'_>) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a number of that length, which lives as long as the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const MOST).cast(),
            length,
        )
    };
    Errno::result(done).map(drop).map_err(io::Error::from)
}
