//! Changes that move disks, written down before anything moves.
//!
//! The note in `pending/` tells the document as it will be and which disks move. Each step can be
//! done again, so a change that was cut off is completed from the note, wherever it was.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::removal::Removed;
use super::{Change, Client};
use crate::library::document;
use crate::library::error::Result;
use crate::library::lock::WriteLock;
use crate::library::store::clone::{self, CloneInfo, Swap};
use crate::library::{Library, MacAddr};

/// A change that has begun: written before anything moves, removed when all is done.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    /// The document as it will be; its revision is the one that it replaces.
    client: Client,
    /// Which disks move.
    swap: Swap,
    /// The client goes, with all its disks.
    #[serde(default)]
    removed: bool,
    /// Its disks are kept since then, although it goes.
    #[serde(default)]
    kept: Option<Timestamp>,
}

impl Library {
    /// Writes a change down, does it, and crosses it out.
    pub(crate) fn commit(&self, lock: &WriteLock, change: Change) -> Result<Client> {
        let mac = change.client.mac;
        let place = self.places().client(&mac);
        let Change { mut client, swap } = change;
        if swap == Swap::default() {
            document::write(lock, &place, &mut client)?;
            return Ok(client);
        }
        let pending = Pending {
            client,
            swap,
            removed: false,
            kept: None,
        };
        document::put(lock, &self.places().pending(&mac), &pending)?;
        self.finish(lock, pending)
    }

    /// Removes a client: written down, done, crossed out. Its disks go, unless they are `kept` from this
    /// moment on.
    pub(super) fn commit_removal(
        &self,
        lock: &WriteLock,
        client: Client,
        kept: Option<Timestamp>,
    ) -> Result<()> {
        let (client, swap) = match kept {
            Some(now) => client.set_aside(now),
            None => (client, Swap::default()),
        };
        let pending = Pending {
            client,
            swap,
            removed: true,
            kept,
        };
        let mac = pending.client.mac;
        document::put(lock, &self.places().pending(&mac), &pending)?;
        self.finish_removal(lock, pending)
    }

    fn finish_removal(&self, lock: &WriteLock, pending: Pending) -> Result<()> {
        let Pending { client, swap, .. } = pending;
        let mac = client.mac;
        match pending.kept {
            Some(at) => {
                clone::swap(self.places(), &mac, &swap)?;
                let kept: Vec<&CloneInfo> = client.kept_disks().collect();
                // Whoever copies its disk holds what is nobody's disk any more.
                clone::end_hold(self.places(), &mac)?;
                clone::prune(self.places(), &mac, &kept)?;
                self.put_removed(lock, &Removed { at, client })?;
            }
            None => {
                clone::take_out(self.places(), &mac)?;
            }
        }
        self.forget_identity(lock, &mac)?;
        document::remove(lock, &self.places().client(&mac))?;
        document::remove(lock, &self.places().boots(&mac))?;
        document::remove(lock, &self.places().pending(&mac))
    }

    fn finish(&self, lock: &WriteLock, pending: Pending) -> Result<Client> {
        let Pending {
            mut client, swap, ..
        } = pending;
        clone::swap(self.places(), &client.mac, &swap)?;
        document::write(lock, &self.places().client(&client.mac), &mut client)?;
        self.cross_out(lock, &client)?;
        Ok(client)
    }

    /// The last step: what is not kept any longer is removed, then the note itself.
    fn cross_out(&self, lock: &WriteLock, client: &Client) -> Result<()> {
        let kept: Vec<&CloneInfo> = client.kept_disks().collect();
        clone::prune(self.places(), &client.mac, &kept)?;
        self.forget_removed(lock, &client.mac)?;
        document::remove(lock, &self.places().pending(&client.mac))
    }

    /// Completes a change that a killed command had written down. Tells whether there was one.
    pub(crate) fn finish_pending(&self, lock: &WriteLock, mac: &MacAddr) -> Result<bool> {
        let path = self.places().pending(mac);
        let Some(pending) = document::read::<Pending>(&path)? else {
            return Ok(false);
        };
        if pending.removed {
            self.finish_removal(lock, pending)?;
            return Ok(true);
        }
        let there: Option<Client> = document::read(&self.places().client(mac))?;
        let revision = there.as_ref().map_or(0, |client| client.revision);
        match there {
            // The document was written: everything has moved.
            Some(client) if revision != pending.client.revision => self.cross_out(lock, &client)?,
            _ => {
                self.finish(lock, pending)?;
            }
        }
        Ok(true)
    }
}
