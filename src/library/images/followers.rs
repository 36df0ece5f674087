//! Which clients a new version of an image reaches, and which it does not.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::Library;
use crate::library::clients::Client;
use crate::library::error::Result;
use crate::library::names::{ClientName, ImageName, Mode, VersionId};

/// The clients of an image, by what its current version is to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Followers {
    /// Their next boot gets it.
    pub next_boot: Vec<ClientName>,
    /// They have a disk of another version, and keep it until they are reset.
    pub keep: Vec<ClientName>,
    /// They are assigned to another version by its number.
    pub pinned: Vec<ClientName>,
}

/// What a client that follows an image boots after its current version moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Followed {
    /// The client.
    pub client: ClientName,
    /// Its mode.
    pub mode: Mode,
    /// What its next boot gets.
    pub boots: VersionId,
    /// It keeps a disk of another version than the current one.
    pub drifts: bool,
}

impl Library {
    /// What it is to the clients of `image` that `version` becomes, or became, its current one; a
    /// version that is yet to be made is none of those that they have.
    pub fn followers(&self, image: &ImageName, version: Option<&VersionId>) -> Result<Followers> {
        let mut found = Followers::default();
        for client in self.clients()? {
            let next = client.next_boot()?;
            let meant = &next.assignment.image;
            if meant.image != *image {
                continue;
            }
            let is_it = |number| version.is_some_and(|version| version.number == number);
            let group = match (meant.number, &next.fixed) {
                (Some(number), _) if !is_it(number) => &mut found.pinned,
                (_, Some(fixed)) if version != Some(fixed) => &mut found.keep,
                _ => &mut found.next_boot,
            };
            group.push(client.name);
        }
        Ok(found)
    }
}

/// What a client boots next when `to` is current; nothing of a client that does not follow its image.
pub(super) fn followed(client: &Client, to: &VersionId) -> Result<Option<Followed>> {
    let next = client.next_boot()?;
    let meant = &next.assignment.image;
    if meant.image != to.image || meant.number.is_some() {
        return Ok(None);
    }
    let boots = next.fixed.unwrap_or_else(|| to.clone());
    Ok(Some(Followed {
        client: client.name.clone(),
        mode: next.assignment.mode,
        drifts: boots != *to,
        boots,
    }))
}
