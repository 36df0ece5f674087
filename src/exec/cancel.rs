//! A flag that says "stop", which everything that takes long looks at.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asked to stop by a person or a signal: not a failure, but the work is not done either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Cancelled;

/// A flag shared by the one who may stop the work and all who do it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    cancelled: AtomicBool,
    /// Ctrl-C means a program that has the terminal.
    interrupts_are_anothers: AtomicBool,
}

impl Cancel {
    /// A flag that is not set yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that the first SIGINT, SIGTERM or SIGHUP sets. The work then stops and cleans up; the
    /// second signal ends the process at once, and the next command cleans up instead.
    ///
    /// # Errors
    /// When the process can have no signal handlers or no further thread.
    pub fn on_signals() -> io::Result<Self> {
        let cancel = Self::new();
        let flag = cancel.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (ready, installed) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name(String::from("signals"))
            .spawn(move || runtime.block_on(watch(flag, ready)))?;
        installed
            .recv()
            .map_err(|_| io::Error::other("the thread that waits for signals ended"))??;
        Ok(cancel)
    }

    /// Asks everybody who looks at this flag to stop.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// Does `work` while Ctrl-C is meant for a program that has the terminal, and not for us.
    pub(super) fn while_interrupts_are_anothers<T>(&self, work: impl FnOnce() -> T) -> T {
        let flag = &self.0.interrupts_are_anothers;
        flag.store(true, Ordering::Relaxed);
        let done = work();
        flag.store(false, Ordering::Relaxed);
        done
    }

    /// Goes on only if nobody asked to stop.
    ///
    /// # Errors
    /// [`Cancelled`] when somebody did.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }
}

async fn watch(cancel: Cancel, ready: std::sync::mpsc::Sender<io::Result<()>>) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (|| {
        Ok((
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ))
    })();
    let (mut interrupt, mut terminate, mut hangup) = match signals {
        Ok(three) => three,
        Err(e) => {
            // The receiver waits for exactly this message; if it is gone nobody is left to tell.
            let _ = ready.send(Err(e));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    loop {
        tokio::select! {
            _ = interrupt.recv() => {
                if cancel.0.interrupts_are_anothers.load(Ordering::Relaxed) {
                    continue;
                }
            }
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if cancel.is_cancelled() {
            // 128 + SIGINT, as a shell would report it.
            std::process::exit(130);
        }
        cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_what_the_other_was_asked() {
        let cancel = Cancel::new();
        let other = cancel.clone();
        assert_eq!(other.check(), Ok(()));
        cancel.cancel();
        assert_eq!(other.check(), Err(Cancelled));
    }

    #[test]
    fn a_signal_sets_the_flag() {
        let cancel = Cancel::on_signals().unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        for _ in 0..200 {
            if cancel.is_cancelled() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the signal was not noticed");
    }
}
