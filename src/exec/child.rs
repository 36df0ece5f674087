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
    work: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. Both callers, the one
    // above and the one in `jail`, make plain system calls with arguments that exist already.
    unsafe {
        command.pre_exec(work);
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
