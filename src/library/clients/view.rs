//! What a person is shown of a client.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Client, Ready};
use crate::library::boots::BootState;
use crate::library::error::Result;
use crate::library::live::{Live, LiveSession};
use crate::library::names::{VersionId, VersionSpec};
use crate::library::store::{DataDisk, clone};
use crate::library::{ByteSize, Library, MacAddr, PublicIdentity};

/// A client's document, and what follows from it and from the rest of the library.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ClientView {
    /// The document.
    #[serde(flatten)]
    pub client: Client,
    /// What it is doing, as far as that is known.
    pub state: ClientState,
    /// Since when, if that is known.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// How far it came, or what went wrong, in words: for clients that are booting or have failed.
    #[serde(default)]
    pub why: Option<String>,
    /// The version that its next boot gets, if that is known.
    pub boots: Option<VersionId>,
    /// The image's current version, where the client follows it and its disk is of another one.
    pub drift: Option<VersionId>,
    /// Bytes that its clone takes, those that it shares with the version included.
    pub clone_bytes: u64,
    /// Those of them that nobody shares. Told only where clients are looked at closely, since it
    /// takes a look at every extent; nothing too where the file system does not tell.
    #[serde(default)]
    pub clone_own: Option<u64>,
    /// What its disk is held to. Told only where clients are looked at closely.
    #[serde(default)]
    pub held_to: Option<HeldTo>,
    /// Its data disk. Told only where clients are looked at closely.
    #[serde(default)]
    pub data: Option<DataDisk>,
    /// What it is known by, if it has been given that yet. Told only where clients are looked at closely.
    #[serde(default)]
    pub identity: Option<PublicIdentity>,
    /// Whether its own EFI system partition has the kernel of the version that it boots next, where it
    /// told whose it has.
    #[serde(default)]
    pub esp: Option<OwnEsp>,
    /// Its sessions.
    pub sessions: Vec<LiveSession>,
}

/// The quota of a client's disk, and how much of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct HeldTo {
    /// Bytes that the disk may hold beyond its version.
    pub quota: ByteSize,
    /// Bytes that it holds, as far as they have their place on the storage; nothing where the file
    /// system does not tell, and so nobody is held to a quota.
    pub held: Option<u64>,
}

impl HeldTo {
    /// Whether most of it is taken.
    pub fn is_near(&self) -> bool {
        let quota = u128::from(self.quota.bytes());
        self.held
            .is_some_and(|held| u128::from(held) * 100 >= quota * 90)
    }
}

/// What is on a client's own EFI system partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OwnEsp {
    /// Kernel and initramfs of the version that it boots next.
    Fresh,
    /// Those of another one.
    Stale,
}

/// What a client is doing.
///
/// The library knows what its documents and the sessions tell. A running server has also seen what
/// was fetched and who was refused: only it tells of clients that fetched a script and have not logged
/// in yet, and of those that failed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ClientState {
    /// It began to boot and did not get in, or is refused.
    Failed,
    /// It has no session and nobody saw it leave.
    Lost,
    /// It has fetched its script, or its first login is being prepared.
    Booting,
    /// It has a session.
    Up,
    /// It has no session, and was seen to leave.
    Off,
}

impl ClientState {
    /// All of them, those first that somebody should look at.
    pub const ALL: [ClientState; 5] = [
        ClientState::Failed,
        ClientState::Lost,
        ClientState::Booting,
        ClientState::Up,
        ClientState::Off,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ClientState::Failed => "failed",
            ClientState::Lost => "lost",
            ClientState::Booting => "booting",
            ClientState::Up => "up",
            ClientState::Off => "off",
        }
    }
}

impl fmt::Display for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What images mean at the moment, found out once for all clients that boot them.
type Meant = HashMap<VersionSpec, Option<VersionId>>;

impl Library {
    /// What a person is shown of all clients, by address.
    pub fn views(&self, live: &dyn Live) -> Result<Vec<ClientView>> {
        let mut sessions: HashMap<MacAddr, Vec<LiveSession>> = HashMap::new();
        for session in live.sessions() {
            if let Some(mac) = session.client {
                sessions.entry(mac).or_default().push(session);
            }
        }
        let mut meant = Meant::new();
        let clients = self.shown_clients()?;
        Ok(clients
            .iter()
            .map(|client| {
                let sessions = sessions.remove(&client.mac).unwrap_or_default();
                self.seen(Client::clone(client), sessions, &mut meant)
            })
            .collect())
    }

    /// What a person is shown of a client, with what takes longer to find out.
    pub fn close_view(&self, client: Client, live: &dyn Live) -> Result<ClientView> {
        let usage = self.clone_usage(&client.mac)?;
        let quota = self.settings(&client)?.quota();
        let data = self.data_disk(&client)?;
        let mut view = self.view(client, live)?;
        view.identity = self
            .find_identity(&view.client.mac)?
            .map(|known| known.public());
        view.clone_own = usage.and_then(|usage| usage.exclusive);
        if let (Some(quota), Some(_)) = (quota, &view.client.clone) {
            let held = self.own_bytes(&view.client.mac)?;
            view.held_to = Some(HeldTo { quota, held });
        }
        view.data = data;
        Ok(view)
    }

    /// What a person is shown of a client.
    pub fn view(&self, client: Client, live: &dyn Live) -> Result<ClientView> {
        let sessions = live.sessions_of(&client.mac);
        Ok(self.seen(client, sessions, &mut Meant::new()))
    }

    /// Bytes that a disk takes which is kept for undo, those that it shares included.
    pub fn kept_bytes(&self, mac: &MacAddr, disk: &clone::CloneInfo) -> u64 {
        clone::allocated_kept(self.places(), mac, disk)
    }

    fn seen(
        &self,
        client: Client,
        mut sessions: Vec<LiveSession>,
        meant: &mut Meant,
    ) -> ClientView {
        sessions.sort_by_key(|session| session.since);
        let next = client.next_boot().ok();
        let meant = next.as_ref().and_then(|next| self.meant(next, meant));
        let fixed = next.as_ref().and_then(|next| next.fixed.clone());
        let boots = fixed.or_else(|| meant.clone());
        // Whoever is pinned to a version is where it is meant to be.
        let follows = next.is_some_and(|next| next.assignment.image.number.is_none());
        let (state, since) = state(&client, &sessions);
        ClientView {
            drift: meant.filter(|current| follows && boots.as_ref() != Some(current)),
            clone_bytes: match &client.clone {
                Some(_) => clone::allocated(self.places(), &client.mac),
                None => 0,
            },
            clone_own: None,
            held_to: None,
            data: None,
            identity: None,
            client,
            state,
            since,
            why: None,
            boots,
            esp: None,
            sessions,
        }
    }

    fn meant(&self, next: &Ready, known: &mut Meant) -> Option<VersionId> {
        let image = &next.assignment.image;
        if let Some(version) = known.get(image) {
            return version.clone();
        }
        let version = self.resolve(image).ok().map(|found| found.id().clone());
        known.insert(image.clone(), version.clone());
        version
    }
}

fn state(client: &Client, sessions: &[LiveSession]) -> (ClientState, Option<Timestamp>) {
    let boot = client.boot.as_ref();
    let since = boot.map(|boot| boot.since);
    match (sessions.first(), boot.map(|boot| boot.state)) {
        (Some(first), _) => (ClientState::Up, since.or(Some(first.since))),
        (None, Some(BootState::Entering)) => (ClientState::Booting, since),
        (None, Some(BootState::Up)) => (ClientState::Lost, since),
        _ => (ClientState::Off, None),
    }
}
