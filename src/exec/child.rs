//! What happens between fork and exec. The one file of this floor with `unsafe`: the standard library
//! offers no other way to run something there.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setsid};

/// Whose terminal a program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// None: Ctrl-C reaches netroot, which ends the whole group in its time, and nothing that runs
    /// can type on the terminal of the person who started us (`TIOCSTI`).
    Own,
    /// Ours.
    Ours,
}

/// Lets the kernel kill the child when the thread that starts it is gone, so that a killed build
/// leaves no mkfs behind that goes on writing, and no child that keeps a mount namespace alive.
pub(super) fn die_with_parent(command: &mut Command, session: Session) {
    let parent = Pid::this();
    before_exec(command, move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above; then nobody would send the signal.
        if getppid() != parent {
            return Err(io::ErrorKind::Interrupted.into());
        }
        session.begin()
    });
}

/// Has `work` done by the child. It must be nothing but system calls: no allocation, no lock, no
/// panic, because the child of a process with threads has only one of them.
#[allow(unsafe_code)] // pre_exec
pub(super) fn before_exec(
    command: &mut Command,
    mut work: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. Both callers, the one
    // above and the one in `jail`, make plain system calls with arguments that exist already.
    unsafe {
        command.pre_exec(move || {
            keep_descriptors()?;
            work()
        });
    }
}

/// Whatever descriptors whoever started us left open stay ours: one of a directory would be a way
/// out of any jail. They are marked, not closed: the standard library still needs one of its own.
#[allow(unsafe_code)] // close_range
fn keep_descriptors() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: a plain system call; no descriptor is closed under anybody's feet.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Before Linux 5.11.
        Some(libc::ENOSYS | libc::EINVAL) => {
            for descriptor in 3..1 << 16 {
                // SAFETY: as above; most numbers are no descriptors, which is no error here.
                unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
            Ok(())
        }
        _ => Err(error),
    }
}

/// Puts a filter of system calls on the calling process and all that it starts. Needs
/// `CAP_SYS_ADMIN`, so that programs may still change their user by set-user-ID.
#[allow(unsafe_code)] // seccomp
pub(super) fn filter_calls(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&program),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Session {
    /// Makes the calling process what this says.
    pub(super) fn begin(self) -> io::Result<()> {
        match self {
            Self::Own => setsid().map(drop).map_err(io::Error::from),
            Self::Ours => Ok(()),
        }
    }
}
