//! How long work looks: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::print;
use crate::build::Watch;
use crate::exec::Cancel;
use crate::library::Progress;

/// Terminals with fewer columns show less beside the bar.
const NARROW: usize = 110;

/// Shows progress on stderr, and says whether a signal asked to stop.
pub(super) struct Shown {
    cancel: Cancel,
    terminal: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Shown {
    /// For work that SIGINT and SIGTERM may stop.
    pub(super) fn new(cancel: &Cancel) -> Self {
        Self {
            cancel: cancel.clone(),
            terminal: std::io::stderr().is_terminal(),
            bar: Mutex::new(None),
        }
    }

    /// A line of its own, above the bar if there is one.
    fn aside(&self, text: &str) {
        let slot = self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match slot.as_ref() {
            Some(bar) => bar.println(text),
            None => print::aside(text),
        }
    }

    fn replace(&self, bar: Option<ProgressBar>) {
        // A poisoned lock means that a thread panicked while drawing: the bar is still a bar.
        let mut slot = self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *slot, bar) {
            old.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn step(&self, what: &str, total: Option<u64>) {
        if !self.terminal {
            print::aside(what);
            return;
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(match print::width() {
                Some(..NARROW) => "{wide_msg} {bar:12} {percent:>3}% of {total_bytes}, {eta} left",
                _ => {
                    "{wide_msg} {bar:30} {bytes:>11} of {total_bytes}, {bytes_per_sec}, {eta} left"
                }
            })),
            None => {
                ProgressBar::new_spinner().with_style(style("{spinner} {elapsed:>4} {wide_msg}"))
            }
        };
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.replace(Some(bar));
    }

    fn advance(&self, bytes: u64) {
        let slot = self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = slot.as_ref() {
            bar.inc(bytes);
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Watch for Shown {
    fn line(&self, text: &str) {
        self.aside(&print::printable(text));
    }

    fn warn(&self, text: &str) {
        self.aside(&print::as_warning(text));
    }

    fn pause(&self) {
        self.replace(None);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// A template that does not parse would be a mistake of ours; the default bar is better than none.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
