//! Acts on a client's disk as values: what is asked for, what it would take, what came of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Assignment, ClientView, Step};
use crate::library::names::{ClientName, Mode, SnapshotName, VersionSpec};
use crate::library::{ByteSize, MacAddr, json};

/// What can be done to a client's disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Back to a pristine clone; the old one is kept.
    Reset,
    /// Back to the clone and the assignment before the last reset or assignment. Where something
    /// waits for the next boot, that is called off, and nothing else is undone.
    Undo,
    /// Another image, version or mode.
    Assign(#[serde(deserialize_with = "json::object")] AssignTo),
    /// Back to one of the disks that are kept, and to what was assigned when it was set aside.
    Restore(#[serde(deserialize_with = "json::object")] KeptDisk),
    /// A copy of the disk, kept under a name until it is forgotten. Done at once: a client that runs
    /// goes on.
    Snapshot(#[serde(deserialize_with = "json::object")] NewSnapshot),
    /// Removes a disk that is kept, for ever. Done at once.
    Forget(#[serde(deserialize_with = "json::object")] KeptDisk),
    /// A larger disk: now, under a client that runs, and whenever it gets a new one. Done at once.
    Resize(#[serde(deserialize_with = "json::object")] NewSize),
}

/// What an assignment changes; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct AssignTo {
    /// The image, or one version of it.
    pub image: Option<VersionSpec>,
    /// What the disk is.
    pub mode: Option<Mode>,
}

/// A disk that a client had before, or a snapshot, while it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct KeptDisk {
    /// The `clone.id` of one of its `discarded`, or the name of one of its `snapshots`.
    pub disk: String,
}

/// A snapshot that is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewSnapshot {
    /// Its name; made from the moment if not given.
    pub name: Option<SnapshotName>,
}

/// How large a disk is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSize {
    /// At least what it has.
    pub size: ByteSize,
}

/// When to do it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Now; refused while the client may be running on the disk.
    #[default]
    Now,
    /// When the client boots next.
    AtNextBoot,
    /// Now, and a running boot is fenced first.
    Force,
}

/// What would be done: printed by `--dry-run`, asked about before something is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The client.
    pub client: ClientName,
    /// Its address.
    pub mac: MacAddr,
    /// What is to be done.
    pub what: String,
    /// What it takes, in order. Empty: nothing changes.
    pub steps: Vec<Step>,
    /// What a person would miss afterwards; to be asked about.
    pub loses: Option<String>,
    /// Why there is nothing to do: the act itself would be refused for it.
    #[serde(default)]
    pub nothing: Option<String>,
    /// What a person should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// What it took.
    pub plan: Plan,
    /// The client afterwards; nothing if it was removed, or left as it was.
    pub client: Option<ClientView>,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Reset => f.write_str("reset"),
            Act::Undo => f.write_str("undo"),
            Act::Restore(KeptDisk { disk }) => write!(f, "restore {disk}"),
            Act::Snapshot(NewSnapshot { name: None }) => f.write_str("snapshot"),
            Act::Snapshot(NewSnapshot { name: Some(name) }) => write!(f, "snapshot {name}"),
            Act::Forget(KeptDisk { disk }) => write!(f, "forget {disk}"),
            Act::Resize(NewSize { size }) => write!(f, "resize to {size}"),
            Act::Assign(AssignTo { image, mode }) => match (image, mode) {
                (Some(image), Some(mode)) => write!(f, "assign {image} in mode {mode}"),
                (Some(image), None) => write!(f, "assign {image}"),
                (None, Some(mode)) => write!(f, "set mode {mode}"),
                (None, None) => f.write_str("assign"),
            },
        }
    }
}

impl From<Assignment> for AssignTo {
    /// Both are named.
    fn from(to: Assignment) -> Self {
        AssignTo {
            image: Some(to.image),
            mode: Some(to.mode),
        }
    }
}

/// `reset lab-07`, `assign fc29 for lab-07`.
pub(super) fn titled(what: &str, client: &ClientName) -> String {
    match what.contains(' ') {
        true => format!("{what} for {client}"),
        false => format!("{what} {client}"),
    }
}

impl Plan {
    /// What is to be done to whom: `reset lab-07`.
    pub fn title(&self) -> String {
        titled(&self.what, &self.client)
    }

    /// What it calls off that waited for the next boot, where it does nothing else.
    pub fn calls_off(&self) -> Option<&Act> {
        match self.steps.as_slice() {
            [Step::Disarm { act }] => Some(act),
            _ => None,
        }
    }
}

impl Act {
    /// What the event is called that records it.
    pub(crate) fn event(&self) -> String {
        let word = match self {
            Act::Reset => "reset",
            Act::Undo => "undo",
            Act::Assign(_) => "assign",
            Act::Restore(_) => "restore",
            Act::Snapshot(_) => "snapshot",
            Act::Forget(_) => "forget",
            Act::Resize(_) => "resize",
        };
        format!("client-{word}")
    }
}
