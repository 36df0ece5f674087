//! Which sessions hold which disks of the library: the server's answer to [`Live`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::devices::Devices;
use crate::iscsi::{End, SessionControl};
use crate::library::BootId;
use crate::library::{Live, LiveSession, MacAddr, VersionId};

/// The sessions that hold a disk, from before their login is answered until their last command has
/// settled.
pub(super) struct Attached {
    runtime: Handle,
    devices: Arc<Devices>,
    // Held for a look or a change of the map, never across a wait.
    table: Mutex<HashMap<u64, Entry>>,
}

struct Entry {
    session: LiveSession,
    control: SessionControl,
}

impl Attached {
    /// Nobody yet. `runtime` is what sessions run on: whoever waits for their end waits there.
    pub(super) fn new(runtime: Handle, devices: Arc<Devices>) -> Self {
        Self {
            runtime,
            devices,
            table: Mutex::default(),
        }
    }

    /// What sessions run on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Takes a session in.
    pub(super) fn enter(&self, session: LiveSession, control: SessionControl) {
        self.table()
            .insert(control.id(), Entry { session, control });
    }

    /// A session has settled.
    pub(super) fn leave(&self, id: u64) {
        self.table().remove(&id);
    }

    /// Which client each session is of, by the session's number.
    pub(super) fn clients(&self) -> HashMap<u64, MacAddr> {
        let table = self.table();
        let client = |(id, entry): (&u64, &Entry)| Some((*id, entry.session.client?));
        table.iter().filter_map(client).collect()
    }

    /// Ends the sessions that are meant, and waits until they have settled.
    fn end(&self, is_meant: impl Fn(&Entry) -> bool) {
        let controls: Vec<SessionControl> = self
            .table()
            .values()
            .filter(|entry| is_meant(entry))
            .map(|entry| entry.control.clone())
            .collect();
        for control in &controls {
            control.end(End::Kicked);
        }
        self.runtime.block_on(async {
            for control in &controls {
                control.ended().await;
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        // Each change is one call of the map, so a panic elsewhere cannot leave it half-changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live for Attached {
    fn sessions(&self) -> Vec<LiveSession> {
        self.table()
            .values()
            .map(|entry| entry.session.clone())
            .collect()
    }

    fn fence(&self, client: &MacAddr, but: Option<&BootId>) {
        let fenced = |entry: &Entry| {
            entry.session.client.as_ref() == Some(client)
                && (but.is_none() || entry.session.boot.as_ref() != but)
        };
        self.end(fenced);
    }

    fn look_again(&self, client: &MacAddr, quota: Option<u64>) {
        self.devices.look_again(client, quota);
    }

    fn evict(&self, versions: &[VersionId]) {
        self.end(|entry| versions.contains(&entry.session.version));
    }
}
