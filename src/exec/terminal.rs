//! The terminal of the person who started us, lent to a program.

use std::io::{IsTerminal, Stdin, stdin};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Pid, Uid, fchown, tcgetpgrp, tcsetpgrp};

/// How a terminal was before it was lent.
pub(super) struct Lent {
    settings: Termios,
    foreground: Pid,
    /// Who may open it: a root in an image may change that.
    access: FileStat,
}

impl Lent {
    /// The standard input, if it is a terminal.
    pub(super) fn standard_input() -> Option<Self> {
        let input = stdin();
        if !input.is_terminal() {
            return None;
        }
        Some(Self {
            settings: tcgetattr(&input).ok()?,
            foreground: tcgetpgrp(&input).ok()?,
            access: fstat(&input).ok()?,
        })
    }

    /// Takes it back after the program's end, as it was, and throws away what has been typed on it:
    /// a program of a stranger's can type, too (`TIOCSTI`), and the next to read would be the
    /// person's own shell.
    pub(super) fn take_back(self) {
        // Whoever is not in the foreground is stopped for touching the terminal. A shell that was
        // killed did not bring us back there.
        let stopping = SigSet::from_iter([Signal::SIGTTOU]);
        if let Err(error) = stopping.thread_block() {
            tracing::warn!("leaving the terminal as the program left it: {error}");
            return;
        }
        if let Err(error) = self.restore(&stdin()) {
            tracing::warn!("putting the terminal back as it was: {error}");
        }
        if let Err(error) = stopping.thread_unblock() {
            tracing::warn!("letting SIGTTOU through again: {error}");
        }
    }

    fn restore(&self, input: &Stdin) -> nix::Result<()> {
        let Self { access, .. } = &self;
        let (owner, group) = (Uid::from_raw(access.st_uid), Gid::from_raw(access.st_gid));
        let now = fstat(input)?;
        if (now.st_mode, now.st_uid, now.st_gid) != (access.st_mode, access.st_uid, access.st_gid) {
            fchown(input, Some(owner), Some(group))?;
            fchmod(input, Mode::from_bits_truncate(access.st_mode))?;
        }
        tcsetpgrp(input, self.foreground)?;
        tcsetattr(input, SetArg::TCSAFLUSH, &self.settings)
    }
}
