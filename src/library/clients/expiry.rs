//! How long disks are kept that were reset or replaced.

use jiff::{SignedDuration, Timestamp};

use super::{Change, Client, Discarded};
use crate::library::accounts::Lifetime;
use crate::library::error::Result;
use crate::library::lock::WriteLock;
use crate::library::store::Swept;
use crate::library::store::clone::Swap;
use crate::library::{Library, MacAddr};

/// What is kept where nobody says how long.
pub(super) const DEFAULT: Lifetime = Lifetime::Hours(14 * 24);

impl Library {
    /// Removes the disks that were kept for undo and whose time is over at `now`, for ever. Snapshots are
    /// kept until somebody forgets them.
    pub fn expire(&self, now: Timestamp) -> Result<Vec<Swept>> {
        let lock = self.write_lock()?;
        let mut swept = Vec::new();
        self.sweep_kept(&lock, now, &mut swept)?;
        Ok(swept)
    }

    pub(crate) fn sweep_kept(
        &self,
        lock: &WriteLock,
        now: Timestamp,
        swept: &mut Vec<Swept>,
    ) -> Result<()> {
        for client in self.shown_clients()?.iter() {
            if !client.discarded.is_empty() {
                self.expire_of(lock, &client.mac, now, swept)?;
            }
        }
        for gone in self.removed_to_change(lock)? {
            let keep = self.keep_of(&gone.client)?;
            if keep.is_some_and(|keep| now.duration_since(gone.at) >= keep) {
                self.purge(lock, &gone.client.mac)?;
                swept.push(Swept::Removed {
                    client: gone.client.name,
                    since: gone.at,
                });
            }
        }
        Ok(())
    }

    /// How long a client's disks are kept; nothing for ever.
    pub(super) fn keep_of(&self, client: &Client) -> Result<Option<SignedDuration>> {
        let keep = self.settings(client)?.keep_discarded;
        Ok(match keep.unwrap_or(DEFAULT) {
            Lifetime::Hours(hours) => Some(SignedDuration::from_hours(hours.into())),
            Lifetime::Never => None,
        })
    }

    fn expire_of(
        &self,
        lock: &WriteLock,
        mac: &MacAddr,
        now: Timestamp,
        swept: &mut Vec<Swept>,
    ) -> Result<()> {
        let Some(keep) = self.keep_of(&self.client(mac)?)? else {
            return Ok(());
        };
        let mut client = self.client_to_change(lock, mac)?;
        let over = self.expired(&client, keep, now)?;
        if over.is_empty() {
            return Ok(());
        }
        client.discarded.retain(|old| !over.contains(old));
        let swap = Swap {
            prunes: true,
            ..Swap::default()
        };
        let client = self.commit(lock, Change { client, swap })?;
        swept.extend(over.iter().map(|old| Swept::Kept {
            client: client.name.clone(),
            since: old.at,
        }));
        Ok(())
    }

    /// Disks that were set aside longer ago than `keep`, but for those that may have to come back.
    fn expired(
        &self,
        client: &Client,
        keep: SignedDuration,
        now: Timestamp,
    ) -> Result<Vec<Discarded>> {
        let mut over = Vec::new();
        for old in &client.discarded {
            if now.duration_since(old.at) >= keep
                && !client.waits_for(&old.clone)
                && self.rollout_that_brings(client, &old.clone)?.is_none()
            {
                over.push(old.clone());
            }
        }
        Ok(over)
    }
}
