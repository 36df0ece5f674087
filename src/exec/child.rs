//! Ties a child's life to its parent's. The one file of this floor with `unsafe`: the standard
//! library offers no other way to run something between fork and exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Lets the kernel kill the child when the thread that starts it is gone, so that a killed build
/// leaves no mkfs behind that goes on writing, and no child that keeps a mount namespace alive.
#[allow(unsafe_code)] // pre_exec
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let before_exec = move || {
        set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)?;
        // The parent may have died before the line above; then nobody would send the signal.
        if getppid() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::Interrupted.into())
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl and getppid are
    // plain system calls, and nothing here allocates, locks or panics.
    unsafe {
        command.pre_exec(before_exec);
    }
}
