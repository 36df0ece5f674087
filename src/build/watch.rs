//! How a build tells what it does, and how long each part took.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::exec::Cancel;
use crate::library::{ImageName, Progress};

/// Told by builds, besides their progress.
pub trait Watch: Progress {
    /// A line that a script wrote.
    fn line(&self, text: &str);
    /// Something that a person should know, which does not stop the build.
    fn warn(&self, text: &str);
    /// A person gets the terminal: nothing is drawn on it until the next step.
    fn pause(&self) {}
}

/// A part of a build and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// What was done.
    pub what: String,
    /// Seconds.
    pub seconds: f64,
}

/// Tells a watch, and writes down when each step began.
pub(crate) struct Timed<'a> {
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
    image: &'a ImageName,
    // Written at the beginning of steps only.
    begun: Mutex<Vec<(String, Instant)>>,
}

impl<'a> Timed<'a> {
    pub(crate) fn new(watch: &'a dyn Watch, cancel: &'a Cancel, image: &'a ImageName) -> Self {
        Self {
            watch,
            cancel,
            image,
            begun: Mutex::default(),
        }
    }

    /// The steps so far; the last one ends now.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = begun.iter().skip(1).map(|(_, at)| *at);
        begun
            .iter()
            .zip(ends.chain([Instant::now()]))
            .map(|((what, from), to)| Phase {
                what: what.clone(),
                seconds: to.duration_since(*from).as_secs_f64(),
            })
            .collect()
    }
}

impl Progress for Timed<'_> {
    fn step(&self, what: &str, total: Option<u64>) {
        // The library names the file that it hashes, whose place in a draft tells a person nothing.
        let hashing = format!("hashing {}", self.image);
        let what = if what.starts_with("hashing ") {
            &hashing
        } else {
            what
        };
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push((what.to_owned(), Instant::now()));
        drop(begun);
        self.watch.step(what, total);
    }

    fn advance(&self, bytes: u64) {
        self.watch.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.watch.cancelled()
    }
}

impl Watch for Timed<'_> {
    fn line(&self, text: &str) {
        self.watch.line(text);
    }

    fn warn(&self, text: &str) {
        self.watch.warn(text);
    }

    fn pause(&self) {
        self.watch.pause();
    }
}

/// An error with its causes, each told once, in one line.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Tells nobody.
impl Watch for crate::library::Quiet {
    fn line(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
