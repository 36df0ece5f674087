//! Options that cannot be meant where they were given.

/// An option that would do nothing, or nothing that makes sense, where it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {why}")]
pub struct WrongUsage {
    option: &'static str,
    why: String,
}

impl WrongUsage {
    /// `why` goes on where `option` ends: `does nothing here, since ...`.
    pub(super) fn of(option: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { option, why }
    }
}
