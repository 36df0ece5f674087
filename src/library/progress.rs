//! How long work tells how far it is, and learns that nobody wants it any more.

/// Told by long work; shown by a front as a bar or as lines.
pub trait Progress: Sync {
    /// A step begins: what it does ("hashing fc28"), and of how many bytes, if that is known.
    fn step(&self, what: &str, total: Option<u64>);
    /// This many more bytes of the step are done.
    fn advance(&self, bytes: u64);
    /// Whether to stop at the next safe moment.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}
