//! What a person is shown of a client.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Client;
use crate::library::Library;
use crate::library::boots::BootState;
use crate::library::error::Result;
use crate::library::live::{Live, LiveSession};
use crate::library::names::VersionId;
use crate::library::store::clone;

/// A client's document, and what follows from it and from the rest of the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientView {
    /// The document.
    #[serde(flatten)]
    pub client: Client,
    /// What it is doing, as far as that is known.
    pub state: ClientState,
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
    /// Its sessions.
    pub sessions: Vec<LiveSession>,
}

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientState {
    /// It has no session, and was seen to leave.
    Off,
    /// Its first login is being prepared.
    Booting,
    /// It has a session.
    Up,
    /// It has no session and nobody saw it leave.
    Lost,
}

impl Library {
    /// What a person is shown of all clients, by address.
    pub fn views(&self, live: &dyn Live) -> Result<Vec<ClientView>> {
        self.clients()?
            .into_iter()
            .map(|client| self.view(client, live))
            .collect()
    }

    /// What a person is shown of a client, with what takes longer to find out.
    pub fn close_view(&self, client: Client, live: &dyn Live) -> Result<ClientView> {
        let usage = self.clone_usage(&client.mac)?;
        let mut view = self.view(client, live)?;
        view.clone_own = usage.and_then(|usage| usage.exclusive);
        Ok(view)
    }

    /// What a person is shown of a client.
    pub fn view(&self, client: Client, live: &dyn Live) -> Result<ClientView> {
        let sessions = live.sessions_of(&client.mac);
        let next = client.next_boot().ok();
        let meant = next.as_ref().and_then(|next| {
            let version = self.resolve(&next.assignment.image).ok()?;
            Some(version.id().clone())
        });
        let fixed = next.as_ref().and_then(|next| next.fixed.clone());
        let boots = fixed.or_else(|| meant.clone());
        // Whoever is pinned to a version is where it is meant to be.
        let follows = next.is_some_and(|next| next.assignment.image.number.is_none());
        let state = match &client.boot {
            _ if !sessions.is_empty() => ClientState::Up,
            Some(boot) if boot.state == BootState::Entering => ClientState::Booting,
            Some(boot) if boot.state == BootState::Up => ClientState::Lost,
            _ => ClientState::Off,
        };
        Ok(ClientView {
            drift: meant.filter(|current| follows && boots.as_ref() != Some(current)),
            clone_bytes: clone::allocated(self.places(), &client.mac),
            clone_own: None,
            client,
            state,
            boots,
            sessions,
        })
    }
}
