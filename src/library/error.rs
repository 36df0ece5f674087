//! What can go wrong with a library, by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use super::names::{NameError, VersionId};

/// Why the library did not do what it was asked. Nothing has changed then, unless the text says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing.
    #[error(
        "there is no {kind} `{name}` in this library; `netroot {kind} list` shows what there is"
    )]
    Unknown {
        /// `image`, `client`, ...: also the command that lists them.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The image is there, and has no such version.
    #[error("{} has no version {}, only {}", version.image, version.number, listed(there))]
    NoVersion {
        /// What was asked for.
        version: VersionId,
        /// The numbers of the versions that it has.
        there: Vec<u32>,
    },
    /// The name is taken.
    #[error("the {kind} `{name}` exists already")]
    Exists {
        /// `image`, `client`, ...
        kind: &'static str,
        /// The name, or the address.
        name: String,
    },
    /// A rule that keeps data safe forbids it now.
    #[error("{what}: refused, because {why}; {instead}")]
    Refused {
        /// What was to be done, and to what.
        what: String,
        /// The rule.
        why: String,
        /// What can be done about it.
        instead: String,
    },
    /// It does not make sense, whatever the state of the library.
    #[error("{0}")]
    Invalid(String),
    /// A name, number or address is not well formed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Somebody else changed the document since it was read.
    #[error(
        "{path} was changed by somebody else meanwhile (revision {found}, not {expected}); look again and repeat"
    )]
    Conflict {
        /// The document.
        path: PathBuf,
        /// The revision that the change was made for.
        expected: u64,
        /// The revision that is there.
        found: u64,
    },
    /// It is not what it was when whoever wants to change it looked.
    #[error(
        "{kind} `{name}` was changed by somebody else meanwhile; nothing was done: look again and repeat"
    )]
    Moved {
        /// `client`, `image`, ...
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] super::config::ConfigError),
    /// Another process acts on live state.
    #[error("{path} is held by a running `netroot serve` or another command; {instead}")]
    Locked {
        /// The lock.
        path: PathBuf,
        /// What can be done about it.
        instead: &'static str,
    },
    /// A document is not what this program writes.
    #[error("{path} cannot be understood; restore it from a backup, or repair it by hand")]
    Document {
        /// The document.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A disk is not what its manifest says.
    #[error(
        "{version} is not what was sealed: {what}; do not boot from it: build it again, or restore it from a backup"
    )]
    Damaged {
        /// The version.
        version: String,
        /// What differs.
        what: String,
    },
    /// The operating system refused.
    #[error("{doing}")]
    Io {
        /// What was being done, to what: "creating /var/lib/netroot/lock".
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The caller's progress said so.
    #[error("interrupted; nothing was published")]
    Cancelled,
}

/// Result of a call to the library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn refused(
        what: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Error::Refused {
            what: what.into(),
            why: why.into(),
            instead: instead.into(),
        }
    }

    pub(crate) fn unknown(kind: &'static str, name: impl ToString) -> Self {
        Error::Unknown {
            kind,
            name: name.to_string(),
        }
    }
}

/// `1, 2 and 3`.
fn listed(numbers: &[u32]) -> String {
    let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// An error with what caused it, in one line, for a log or an event.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Says what was being done when the operating system refused.
pub(crate) trait Doing<T> {
    /// `what` is a gerund ("creating"), `path` what it is done to.
    fn doing(self, what: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: &str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::Io {
            doing: format!("{what} {}", path.display()),
            source: error.into(),
        })
    }
}
