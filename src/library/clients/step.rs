//! The steps of a plan, for people and for programs.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Act, Assignment};
use crate::library::names::{SnapshotName, VersionId};
use crate::library::{ByteSize, minute};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It waits for the client's next boot.
    Arm,
    /// What waited so far is forgotten.
    Disarm {
        /// What waited.
        act: Act,
    },
    /// The running boot is shut out and its sessions are ended.
    Fence {
        /// How many sessions there are.
        sessions: usize,
    },
    /// The client's assignment changes.
    Assign {
        /// From what.
        from: Assignment,
        /// To what.
        to: Assignment,
    },
    /// The clone is taken away and kept for undo.
    Discard {
        /// What it was made from.
        from: VersionId,
    },
    /// A clone is made.
    Clone {
        /// Of which version.
        from: VersionId,
    },
    /// A discarded clone comes back.
    Restore {
        /// What it was made from.
        from: VersionId,
        /// When it was discarded.
        discarded: Timestamp,
    },
    /// A copy of a snapshot is made.
    Copy {
        /// The snapshot.
        snapshot: SnapshotName,
        /// When it was made.
        made: Timestamp,
    },
    /// The disk is copied, and the copy kept.
    Snapshot {
        /// Under this name.
        name: SnapshotName,
        /// The client runs: what it has not written yet is not in it.
        running: bool,
    },
    /// A disk that is kept is removed for ever.
    Forget {
        /// What it is known by.
        disk: String,
        /// When it was set aside or made.
        since: Timestamp,
    },
    /// The disk grows.
    Grow {
        /// From so many bytes.
        from: ByteSize,
        /// To so many.
        to: ByteSize,
    },
    /// The oldest discarded clone is removed for ever.
    Expire {
        /// When it was discarded.
        discarded: Timestamp,
    },
    /// The client's document changes.
    Edit {
        /// What changes, in words.
        what: String,
    },
    /// The document goes, and its disks are kept for a while.
    SetAside {
        /// Until then, if not for ever.
        until: Option<Timestamp>,
    },
    /// The document, the clone and its predecessors are removed for ever.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Arm => f.write_str("wait for the client's next boot, then do it"),
            Step::Disarm { act } => write!(f, "forget what waited for the next boot: {act}"),
            Step::Fence { sessions } => write!(
                f,
                "shut the running boot out and end its {sessions} session(s); unsaved work on the client is lost"
            ),
            Step::Assign { from, to } => write!(f, "assign {to} instead of {from}"),
            Step::Discard { from } => {
                write!(f, "take the clone of {from} away and keep it for undo")
            }
            Step::Clone { from } => write!(f, "make a copy-on-write clone of {from}"),
            Step::Restore { from, discarded } => {
                let at = minute(*discarded);
                write!(f, "bring back the clone of {from} that was set aside {at}")
            }
            Step::Copy { snapshot, made } => {
                let at = minute(*made);
                write!(f, "make a copy of snapshot {snapshot}, of {at}, its disk")
            }
            Step::Snapshot { name, running } => {
                let state = match running {
                    true => "as a power cut at this moment would leave it",
                    false => "as it was shut down",
                };
                write!(
                    f,
                    "copy the disk, {state}, and keep it as {name} until it is forgotten"
                )
            }
            Step::Forget { disk, since } => {
                let since = minute(*since);
                write!(
                    f,
                    "remove the disk that is kept as {disk}, since {since}, for ever"
                )
            }
            Step::Grow { from, to } => write!(
                f,
                "make the disk {to} long instead of {from}; the client's own tools enlarge what is on it"
            ),
            Step::Expire { discarded } => {
                let at = minute(*discarded);
                write!(f, "remove the clone that was set aside {at}, for ever")
            }
            Step::Edit { what } => f.write_str(what),
            Step::SetAside { until } => {
                let until = until.map_or("until somebody purges them".to_owned(), |until| {
                    format!("until {}", minute(until))
                });
                write!(f, "remove the client, and keep its disks {until}")
            }
            Step::Remove => {
                f.write_str("remove the client, its clone and everything kept for undo, for ever")
            }
        }
    }
}
