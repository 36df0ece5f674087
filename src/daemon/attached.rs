//! Which sessions hold which disks of the library: the server's answer to [`Live`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::Server;
use super::devices::Devices;
use crate::iscsi::{End, SessionControl};
use crate::library::BootId;
use crate::library::{Live, LiveSession, MacAddr, VersionId};

/// How long a system has to answer a ping: in a network that machines boot over it takes milliseconds.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

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

    /// The sessions of systems that clients booted at this address. Those of firmware are none: it is left
    /// before a system begins, and its sessions may stay behind.
    fn systems_at(&self, peer: IpAddr) -> Vec<(MacAddr, SessionControl)> {
        let table = self.table();
        let is_there = |entry: &&Entry| {
            let LiveSession { boot, firmware, .. } = &entry.session;
            boot.is_some() && !firmware && entry.session.peer.ip().to_canonical() == peer
        };
        let client = |entry: &Entry| Some((entry.session.client?, entry.control.clone()));
        table.values().filter(is_there).filter_map(client).collect()
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

impl Server {
    /// The clients whose systems run at this address: they answer when they are pinged. A machine that
    /// boots anew does not, however lately its system had a session.
    pub async fn running_at(&self, peer: IpAddr) -> Vec<MacAddr> {
        let systems = self.attached.systems_at(peer).into_iter();
        let asked = systems.map(|(client, control)| async move {
            control.is_alive(SIGN_OF_LIFE).await.then_some(client)
        });
        let running = futures_util::future::join_all(asked).await;
        running.into_iter().flatten().collect()
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
