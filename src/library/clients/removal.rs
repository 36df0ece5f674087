//! Removing clients, and what is kept of them for a while.
//!
//! A removed client's document goes to `removed/`, and its disks stay where they are, as if they had been
//! reset. Whoever adds a machine of that address again finds them there, and can bring one back. They
//! expire as kept disks do, with the data disk.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::act::titled;
use super::acts::is_running;
use super::edit::plan;
use super::{Client, Discarded, Done, Plan, Step, When};
use crate::library::document;
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::{Mode, VersionId};
use crate::library::store::clone::{self, CloneInfo, Swap};
use crate::library::{Edition, Library, MacAddr, minute};

/// How a client is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removing {
    /// `force` cuts off one that runs.
    pub when: When,
    /// Its disks go at once, for ever.
    pub purge: bool,
}

/// A client that was removed while its disks are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// When.
    pub(crate) at: Timestamp,
    /// Its document; none of its disks is in place.
    pub(crate) client: Client,
}

impl From<When> for Removing {
    fn from(when: When) -> Self {
        Removing { when, purge: false }
    }
}

impl Library {
    /// What `remove_client` would do, or why it would be refused.
    pub fn plan_remove(
        &self,
        mac: &MacAddr,
        how: impl Into<Removing>,
        live: &dyn Live,
    ) -> Result<Plan> {
        let how = how.into();
        let client = self.client(mac)?;
        let mut steps = Vec::new();
        if is_running(&client, live) {
            if how.when != When::Force {
                return Err(Error::refused(
                    titled("remove", &client.name),
                    "it is running, or nobody saw its last boot end",
                    "shut it down first, or use --force, which cuts it off its disk",
                ));
            }
            steps.push(Step::Fence {
                sessions: live.sessions_of(&client.mac).len(),
            });
        }
        let now = Timestamp::now();
        let keeps = self.keeps_disks(&client)? && !how.purge;
        let until = match keeps {
            true => self.kept_until(&client, now)?,
            false => None,
        };
        steps.push(match keeps {
            true => Step::SetAside { until },
            false => Step::Remove,
        });
        let mut plan = plan(&client, "remove", steps);
        plan.loses = Some(match (keeps, until) {
            (true, Some(until)) => format!(
                "what is known about it is lost; its disks are kept until {}, and come back with `netroot \
                 client add {}`",
                minute(until),
                client.mac
            ),
            (true, None) => format!(
                "what is known about it is lost; its disks are kept, and come back with `netroot client add \
                 {}`",
                client.mac
            ),
            (false, _) if self.keeps_disks(&client)? => {
                "its disks, what was kept for undo and what is known about it are lost for ever"
                    .into()
            }
            (false, _) => "what is known about it is lost for ever".into(),
        });
        Ok(plan)
    }

    /// Removes a client. Its disks are kept for a while, unless they are to go at once.
    pub fn remove_client(
        &self,
        mac: &MacAddr,
        how: impl Into<Removing>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        self.remove_client_on(mac, None, how, live, actor)
    }

    /// The same, unless the client is not what it was in `edition`.
    pub fn remove_client_on(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        how: impl Into<Removing>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        let how = how.into();
        let plan = self.plan_remove(mac, how, live)?;
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        if how.when != When::Force {
            self.plan_remove(mac, how, live)?;
        }
        let keeps = self.keeps_disks(&client)? && !how.purge;
        let kept = keeps.then(Timestamp::now);
        // Without a document no login of it succeeds, so the sessions can be ended afterwards.
        self.commit_removal(&lock, client, kept)?;
        drop(lock);
        live.fence(&plan.mac, None);
        self.sweep()?;
        let event = Event::new(actor, "client-remove").of(&plan.mac);
        self.note(&event.with("kept", kept.is_some()));
        Ok(Done { plan, client: None })
    }

    /// Clients that were removed and whose disks are kept.
    pub(crate) fn removed(&self) -> Result<Vec<Removed>> {
        let names = document::names(&self.places().removed())?;
        let macs = names.iter().filter_map(|name| name.parse().ok());
        let read = macs.map(|mac: MacAddr| self.removed_of(&mac));
        Ok(read
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// The same under the lock, after whatever was left half-done was completed. Who is a client again is
    /// not among them: its disks are its own.
    pub(crate) fn removed_to_change(&self, lock: &WriteLock) -> Result<Vec<Removed>> {
        let mut gone = Vec::new();
        for removed in self.removed()? {
            let mac = removed.client.mac;
            self.finish_pending(lock, &mac)?;
            match self.places().client(&mac).exists() {
                true => self.forget_removed(lock, &mac)?,
                false => gone.extend(self.removed_of(&mac)?),
            }
        }
        Ok(gone)
    }

    /// Takes the disks that were made from `versions` from what is kept of a removed client, for ever;
    /// the others stay, and so does its data disk.
    pub(crate) fn lose_of_removed(
        &self,
        lock: &WriteLock,
        mut gone: Removed,
        versions: &[VersionId],
    ) -> Result<()> {
        let mac = gone.client.mac;
        gone.client.lose_kept(versions);
        let kept: Vec<&CloneInfo> = gone.client.kept_disks().collect();
        if kept.is_empty() && !self.has_data(&mac) {
            return self.purge(lock, &mac);
        }
        // First nobody expects them any more.
        self.put_removed(lock, &gone)?;
        clone::prune(self.places(), &mac, &kept)
    }

    /// What was kept of the client that had this address last, if it was removed.
    pub(super) fn removed_of(&self, mac: &MacAddr) -> Result<Option<Removed>> {
        document::read(&self.removed_place(mac))
    }

    /// Writes down what is kept of a client that goes.
    pub(super) fn put_removed(&self, lock: &WriteLock, removed: &Removed) -> Result<()> {
        self.make_dir(&self.places().removed())?;
        let place = self.removed_place(&removed.client.mac);
        document::put(lock, &place, removed)
    }

    /// Nothing is kept any longer of who had this address, or he is there again.
    pub(super) fn forget_removed(&self, lock: &WriteLock, mac: &MacAddr) -> Result<()> {
        let place = self.removed_place(mac);
        match place.exists() {
            true => document::remove(lock, &place),
            false => Ok(()),
        }
    }

    /// Removes what is kept of a removed client, for ever.
    pub(crate) fn purge(&self, lock: &WriteLock, mac: &MacAddr) -> Result<()> {
        if let Some(dir) = clone::take_out(self.places(), mac)? {
            clone::remove_all(&dir)?;
        }
        self.forget_removed(lock, mac)
    }

    /// Until when the disks of a client are kept that is removed now; nothing for ever.
    fn kept_until(&self, client: &Client, now: Timestamp) -> Result<Option<Timestamp>> {
        let keep = self.keep_of(client)?;
        Ok(keep.and_then(|keep| now.checked_add(keep).ok()))
    }

    fn keeps_disks(&self, client: &Client) -> Result<bool> {
        let root = client.clone.is_some() && client.mode != Mode::Ephemeral;
        Ok(root || client.kept_disks().next().is_some() || self.has_data(&client.mac))
    }

    fn removed_place(&self, mac: &MacAddr) -> PathBuf {
        self.places().removed().join(format!("{}.json", mac.bare()))
    }
}

impl Client {
    /// Nothing that was made from `versions` is kept for it any longer, and nothing waits for that.
    pub(crate) fn lose_kept(&mut self, versions: &[VersionId]) {
        let goes = |disk: &CloneInfo| versions.contains(&disk.from);
        if self
            .kept_disks()
            .any(|disk| goes(disk) && self.waits_for(disk))
        {
            self.armed = None;
        }
        self.discarded.retain(|old| !goes(&old.clone));
        self.snapshots.retain(|one| !goes(&one.clone));
    }

    /// The client without a disk in place: that is set aside, unless nobody expects anything in it.
    pub(super) fn set_aside(mut self, now: Timestamp) -> (Client, Swap) {
        let assignment = self.assignment();
        let out = self.clone.take();
        let lasting = out.clone().filter(|_| self.mode != Mode::Ephemeral);
        self.discarded.extend(lasting.map(|clone| Discarded {
            clone,
            assignment,
            at: now,
        }));
        (self.before, self.boot, self.armed) = (None, None, None);
        let swap = Swap {
            out,
            ..Swap::default()
        };
        (self, swap)
    }
}
