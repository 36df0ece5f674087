//! Clients: who boots what, and the rules about changing it (rules 1 and 5 of the design).
//!
//! - `act`: what is asked for; `step`: what it takes; `change`: what it does to a client's document and
//!   disks, all of them values
//! - `acts`: plan it, refuse it, do it; `pending`: complete what a killed command began
//! - `beside`: acts that disturb no boot: snapshots, larger disks; `expiry`: what is kept, and how long
//! - `edit`: adding and describing clients, where no disk is at stake; `removal`: an end to them
//! - `import`: many of them at a time, from a table
//! - `edition`: what tells one admin that another was quicker
//! - `menu`: what their machines offer
//! - `modes`: which versions can be written to
//! - `settings`: what can be said for one client, a group, or all
//! - `view`: what a person is shown

mod act;
mod acts;
mod beside;
mod change;
mod edit;
mod edition;
mod expiry;
mod import;
mod menu;
mod modes;
mod pending;
mod removal;
mod settings;
mod step;
mod view;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use act::{Act, AssignTo, Done, KeptDisk, NewSize, NewSnapshot, Plan, When};
pub(crate) use acts::is_running;
pub(crate) use change::{Change, DiskChange, Ready};
pub use edit::{Edit, NewClient};
pub(crate) use edit::{quoted, words};
pub use import::{COLUMNS, Import, Known};
pub use menu::{Menu, MenuItem, MenuSeconds, MenuWhen};
pub use removal::Removing;
pub use settings::{SaidBy, Sayings, Settings, SettingsEdit, Way};
pub(crate) use settings::{Saying, said};
pub use step::Step;
pub use view::{ClientState, ClientView, HeldTo, OwnEsp};

use super::boots::Boot;
use super::document::{self, Document};
use super::error::{Error, Result, chain};
use super::names::{
    ClientName, GroupName, KernelArg, Mode, SnapshotName, VersionSpec, serde_as_text,
};
use super::store::clone::CloneInfo;
use super::{Library, MacAddr, NameError, Person, kernel_line};

/// A client's document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Client {
    /// Counts the changes of the document.
    pub revision: u64,
    /// The address that names the document, the clone and the target.
    pub mac: MacAddr,
    /// Further addresses of the same machine.
    #[serde(default)]
    pub more_macs: BTreeSet<MacAddr>,
    /// Its name.
    pub name: ClientName,
    /// The groups that it belongs to.
    #[serde(default)]
    pub groups: BTreeSet<GroupName>,
    /// What it boots: an image's current version, or one that it is pinned to.
    pub image: VersionSpec,
    /// What its disk is.
    pub mode: Mode,
    /// Kernel arguments of its own, after everybody's.
    #[serde(default, deserialize_with = "kernel_line::kept")]
    pub args: Vec<KernelArg>,
    /// What it is told besides; of what is not set, its groups and `[clients]` are asked.
    #[serde(default)]
    pub settings: Settings,
    /// Its disk, if the mode has one.
    pub clone: Option<CloneInfo>,
    /// Disks that it had before, the latest last.
    #[serde(default)]
    pub discarded: Vec<Discarded>,
    /// Copies of its disk that somebody made, the latest last.
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    /// What undo goes back to.
    #[serde(default)]
    pub before: Option<Before>,
    /// Its last boot.
    pub boot: Option<Boot>,
    /// Scripts made at or before this moment are too old to begin a boot.
    pub oldest: u64,
    /// What is to be done at its next boot.
    pub armed: Option<Armed>,
    /// The rollout that has given it an image last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<u64>,
    /// Whose disk it has, where it is no machine's but a person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Person>,
    /// When it was added.
    pub added: Timestamp,
}

impl Document for Client {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// What a client is to boot, and how: the things that an assignment changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    /// The image, or one version of it.
    pub image: VersionSpec,
    /// What the disk is.
    pub mode: Mode,
}

/// A disk that a client had before, kept so that it can be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Discarded {
    /// The disk.
    pub clone: CloneInfo,
    /// What the client was assigned to then.
    pub assignment: Assignment,
    /// When it was discarded.
    pub at: Timestamp,
}

/// A copy of a client's disk under a name, kept until somebody forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// The copy.
    pub clone: CloneInfo,
    /// What the client was assigned to then.
    pub assignment: Assignment,
    /// When it was made.
    pub at: Timestamp,
    /// The client was running: the copy is what a power cut would have left.
    #[serde(default)]
    pub running: bool,
}

/// What the last reset or assignment changed, whether a disk moved by it or not. An undo is
/// noted here like any other change, so that it can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Before {
    /// What the client was assigned to.
    pub assignment: Assignment,
    /// Which disk it had.
    pub disk: Option<String>,
}

/// Something that waits for a client's next boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Armed {
    /// What is to be done.
    pub act: Act,
    /// Since when it waits.
    pub since: Timestamp,
}

/// How a person names clients: `52:54:00:12:34:56`, `lab-1`, `@lab`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientSelector {
    /// By an address.
    Mac(MacAddr),
    /// By name.
    Name(ClientName),
    /// All of a group.
    Group(GroupName),
}

serde_as_text!(
    ClientSelector,
    "^(@?[a-z][a-z0-9-]{0,31}|(?!00:00:00:00:00:00)[0-9a-f][02468ace](:[0-9a-f]{2}){5})$"
);

impl fmt::Display for ClientSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientSelector::Mac(mac) => mac.fmt(f),
            ClientSelector::Name(name) => name.fmt(f),
            ClientSelector::Group(group) => write!(f, "@{group}"),
        }
    }
}

impl FromStr for ClientSelector {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        if let Some(group) = text.strip_prefix('@') {
            return Ok(ClientSelector::Group(group.parse()?));
        }
        // A bare address may look like a name (`abcdefabcdef`): addresses win.
        match text.parse() {
            Ok(mac) => Ok(ClientSelector::Mac(mac)),
            Err(wrong_mac) if text.contains(':') => Err(wrong_mac),
            Err(_) => Ok(ClientSelector::Name(text.parse()?)),
        }
    }
}

impl Client {
    /// What it boots, and how.
    pub fn assignment(&self) -> Assignment {
        Assignment {
            image: self.image.clone(),
            mode: self.mode,
        }
    }

    /// Whether an address is one of this machine's.
    pub fn has_mac(&self, mac: &MacAddr) -> bool {
        self.mac == *mac || self.more_macs.contains(mac)
    }

    /// The disks that are kept for it beside the one in place.
    pub(crate) fn kept_disks(&self) -> impl Iterator<Item = &CloneInfo> {
        let discarded = self.discarded.iter().map(|old| &old.clone);
        discarded.chain(self.snapshots.iter().map(|one| &one.clone))
    }

    /// Its disk, where it has one.
    pub(crate) fn own_disk(&self) -> Result<&CloneInfo> {
        self.clone.as_ref().ok_or_else(|| {
            Error::refused(
                format!("opening the disk of client {}", self.name),
                format!("it has none in mode {}", self.mode),
                "assign it another mode, or boot it again",
            )
        })
    }
}

impl Library {
    /// All clients, by address. One whose document cannot be understood may have any disk or address, so
    /// whoever is to know that of all of them does not get on without it.
    pub fn clients(&self) -> Result<Vec<Client>> {
        let known = self.known_clients(Err)?;
        Ok(known.iter().map(|client| Client::clone(client)).collect())
    }

    /// All clients by address, for those who only show them: what somebody writes into a document by
    /// hand is seen a little later. One whose document cannot be understood is left out, and the log says
    /// so.
    pub(crate) fn shown_clients(&self) -> Result<Arc<[Arc<Client>]>> {
        let told = |error| {
            tracing::warn!("{}", chain(&error));
            Ok(())
        };
        let look = || self.known_clients(told);
        self.listed.read(&self.places().clients(), look)
    }

    /// All clients, with what to do about one whose document cannot be understood.
    fn known_clients(&self, broken: impl Fn(Error) -> Result<()>) -> Result<Vec<Arc<Client>>> {
        let names = document::names(&self.places().clients())?;
        let macs: Vec<MacAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let mut clients = Vec::with_capacity(macs.len());
        for mac in &macs {
            match self.known.read(*mac, &self.places().client(mac)) {
                Ok(client) => clients.extend(client),
                Err(error @ Error::Document { .. }) => broken(error)?,
                Err(error) => return Err(error),
            }
        }
        if self.known.len() > macs.len() {
            // Sorted by name, and so by address.
            self.known.retain(|mac| macs.binary_search(mac).is_ok());
        }
        Ok(clients)
    }

    /// The client that has this address, as its first or a further one.
    pub fn client(&self, mac: &MacAddr) -> Result<Client> {
        self.find_client(mac)?
            .ok_or_else(|| Error::unknown("client", mac))
    }

    /// The first address of the client that has this one, for those who only show what they see: a
    /// client that somebody has just added is found a little later.
    pub fn client_with(&self, mac: &MacAddr) -> Result<Option<MacAddr>> {
        let clients = self.shown_clients()?;
        let first = clients.binary_search_by_key(mac, |client| client.mac);
        let further = || clients.iter().find(|client| client.has_mac(mac));
        let found = first.ok().and_then(|at| clients.get(at)).or_else(further);
        Ok(found.map(|client| client.mac))
    }

    /// The clients that a person means; one of a name or address, any number of a group.
    pub fn select(&self, selector: &ClientSelector) -> Result<Vec<Client>> {
        let found: Vec<Client> = match selector {
            ClientSelector::Mac(mac) => vec![self.client(mac)?],
            ClientSelector::Name(name) => self.matching(|client| client.name == *name)?,
            ClientSelector::Group(group) => {
                self.matching(|client| client.groups.contains(group))?
            }
        };
        if found.is_empty() {
            return Err(Error::unknown("client", selector));
        }
        Ok(found)
    }

    pub(crate) fn find_client(&self, mac: &MacAddr) -> Result<Option<Client>> {
        match document::read(&self.places().client(mac))? {
            Some(client) => Ok(Some(client)),
            None => Ok(self.matching(|client| client.has_mac(mac))?.pop()),
        }
    }

    fn matching(&self, is_it: impl Fn(&Client) -> bool) -> Result<Vec<Client>> {
        let mut clients = self.clients()?;
        clients.retain(is_it);
        Ok(clients)
    }
}
