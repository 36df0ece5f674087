//! Who uses a version, and how.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::clients::{Act, Armed, Client};
use crate::library::error::Result;
use crate::library::live::LiveSession;
use crate::library::names::{ClientName, SnapshotName, VersionId, VersionSpec};
use crate::library::{Library, MacAddr};

/// One way in which somebody uses a version. Each keeps it from being removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "use")]
pub enum Use {
    /// A client's next boot gets it.
    Assigned {
        /// The client.
        client: ClientName,
    },
    /// An assignment to it waits for a client's next boot.
    Armed {
        /// The client.
        client: ClientName,
    },
    /// A client's disk was made from it, and boots its kernel.
    Clone {
        /// The client.
        client: ClientName,
    },
    /// A disk that was made from it is kept for undo.
    Kept {
        /// The client.
        client: ClientName,
    },
    /// A snapshot of a disk that was made from it is kept.
    Snapshot {
        /// The client.
        client: ClientName,
        /// The snapshot.
        name: SnapshotName,
    },
    /// A boot of a client runs it, or nobody saw that boot end.
    Runs {
        /// The client.
        client: ClientName,
    },
    /// A session reads it.
    Open {
        /// The initiator's name.
        initiator: String,
        /// Where it comes from.
        #[schema(value_type = String)]
        peer: SocketAddr,
        /// The client whose session it is, if it is one of the library's.
        client: Option<MacAddr>,
    },
    /// An initiator was let in by the image's alias, and nobody saw it leave.
    Bound {
        /// The initiator's name.
        initiator: String,
        /// Its address.
        #[schema(value_type = String)]
        peer: std::net::IpAddr,
        /// What to remove when that machine is off for good.
        #[schema(value_type = String)]
        note: PathBuf,
    },
    /// Somebody boots it, to see whether it does.
    Tested,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Assigned { client } => write!(f, "client {client} is assigned to it"),
            Use::Armed { client } => {
                write!(f, "client {client} will be assigned to it at its next boot")
            }
            Use::Clone { client } => write!(f, "client {client} has a clone of it"),
            Use::Kept { client } => write!(
                f,
                "client {client} has a discarded clone of it, kept for undo"
            ),
            Use::Snapshot { client, name } => write!(
                f,
                "client {client} has a snapshot of a clone of it, {name}, which `netroot client forget \
                 {client} {name}` removes"
            ),
            Use::Runs { client } => write!(f, "client {client} runs it"),
            Use::Open {
                initiator, peer, ..
            } => write!(f, "{initiator} at {peer} has it open"),
            Use::Bound {
                initiator,
                peer,
                note,
            } => write!(
                f,
                "{initiator} at {peer} may run it: nobody saw it leave (if it does not, remove {})",
                note.display()
            ),
            Use::Tested => f.write_str("it is being tested"),
        }
    }
}

impl Library {
    /// Who uses a version; `sessions` are all that there are now.
    pub fn uses_of(&self, version: &VersionId, sessions: &[LiveSession]) -> Result<Vec<Use>> {
        let mut uses = Vec::new();
        for client in self.clients()? {
            uses.extend(client.uses(version, |spec| {
                self.resolve(spec).is_ok_and(|found| found.id() == version)
            }));
        }
        // Somebody may add them again, and bring their disks back.
        for gone in self.removed()? {
            uses.extend(gone.client.kept_uses(version));
        }
        let on_it = sessions
            .iter()
            .filter(|session| session.version == *version);
        uses.extend(on_it.map(|session| Use::Open {
            initiator: session.initiator.clone(),
            peer: session.peer,
            client: session.client,
        }));
        uses.extend(self.bound_to(version)?);
        uses.extend(self.is_under_trial(version)?.then_some(Use::Tested));
        Ok(uses)
    }
}

impl Client {
    /// How this client uses `version`: `is_it` tells whether an assignment means it now.
    fn uses(&self, version: &VersionId, is_it: impl Fn(&VersionSpec) -> bool) -> Vec<Use> {
        let client = || self.name.clone();
        let mut uses = Vec::new();
        if is_it(&self.image) {
            uses.push(Use::Assigned { client: client() });
        }
        let armed = match &self.armed {
            Some(Armed {
                act: Act::Assign(to),
                ..
            }) => to.image.as_ref(),
            _ => None,
        };
        if armed.is_some_and(is_it) {
            uses.push(Use::Armed { client: client() });
        }
        if self
            .clone
            .as_ref()
            .is_some_and(|clone| clone.from == *version)
        {
            uses.push(Use::Clone { client: client() });
        }
        uses.extend(self.kept_uses(version));
        if self
            .boot
            .as_ref()
            .is_some_and(|boot| boot.may_run() && boot.version == *version)
        {
            uses.push(Use::Runs { client: client() });
        }
        uses
    }

    /// How disks that are kept for it use `version`.
    fn kept_uses(&self, version: &VersionId) -> Vec<Use> {
        let client = || self.name.clone();
        let mut uses = Vec::new();
        if self.discarded.iter().any(|old| old.clone.from == *version) {
            uses.push(Use::Kept { client: client() });
        }
        let snapshots = self.snapshots.iter();
        uses.extend(
            snapshots
                .filter(|one| one.clone.from == *version)
                .map(|one| Use::Snapshot {
                    client: client(),
                    name: one.name.clone(),
                }),
        );
        uses
    }
}
