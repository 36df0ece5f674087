//! Which sessions hold which disks of the library: the server's answer to [`Live`].

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;

use super::devices::Devices;
use super::{Server, Whereabouts};
use crate::iscsi::{End, SessionControl};
use crate::library::{BootId, Client, Error, Live, LiveSession, MacAddr, VersionId};

/// How long a system has to answer a ping: in a network that machines boot over it takes milliseconds.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A system whose server was away comes back within so long after the next one has begun: open-iscsi tries
/// again every three seconds.
const COMING_BACK: Duration = Duration::from_secs(6);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// The sessions that hold a disk, from before their login is answered until their last command has
/// settled.
pub(super) struct Attached {
    runtime: Handle,
    devices: Arc<Devices>,
    /// Since when systems can come.
    began: Instant,
    // Held for a look or a change of the map, never across a wait.
    table: Mutex<HashMap<u64, Entry>>,
}

struct Entry {
    session: LiveSession,
    /// The hardware addresses of the machine that it came from; none where something routes between.
    machine: Vec<MacAddr>,
    control: SessionControl,
}

impl Attached {
    /// Nobody yet. `runtime` is what sessions run on: whoever waits for their end waits there.
    pub(super) fn new(runtime: Handle, devices: Arc<Devices>) -> Self {
        Self {
            runtime,
            devices,
            began: Instant::now(),
            table: Mutex::default(),
        }
    }

    /// What sessions run on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Takes a session in, which came from this machine.
    pub(super) fn enter(
        &self,
        session: LiveSession,
        machine: Vec<MacAddr>,
        control: SessionControl,
    ) {
        let id = control.id();
        let entry = Entry {
            session,
            machine,
            control,
        };
        self.table().insert(id, entry);
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

    /// The sessions of systems that run on a client's machine: those that came from its hardware addresses,
    /// whoever's disk they have, and those that booted as the client and came from nobody else's. A machine
    /// has many addresses of IPv4 and IPv6, so they tell nothing. Sessions of firmware are none: it is left
    /// before a system begins, and its sessions may stay behind.
    fn systems_of(
        &self,
        client: &Client,
        is_anothers: impl Fn(&MacAddr) -> bool,
    ) -> Vec<SessionControl> {
        let is_there = |machine: &[MacAddr]| machine.iter().any(|mac| client.has_mac(mac));
        let systems = |entry: &Entry| {
            let Entry {
                session, machine, ..
            } = entry;
            let may_be_its = session.client == Some(client.mac) || is_there(machine);
            let is_one = may_be_its && !session.firmware;
            is_one.then(|| (entry.control.clone(), machine.clone()))
        };
        let systems: Vec<_> = self.table().values().filter_map(systems).collect();
        // Whose hardware it is stands in documents, which are not read while the table is held.
        let is_its = |machine: &[MacAddr]| is_there(machine) || !machine.iter().any(&is_anothers);
        let its = systems.into_iter().filter(|(_, machine)| is_its(machine));
        its.map(|(control, _)| control).collect()
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
    /// Whether a system runs on the machine of the client that has this hardware address: it answers when
    /// it is pinged. A machine that boots anew does not, however lately its system had a session. Nobody
    /// is pinged for somebody at a place that is known not to be the client's.
    pub async fn is_running(self: &Arc<Self>, mac: MacAddr, at: &Whereabouts) -> bool {
        let machine = self.call_for_firmware(move |server| server.library.machine(&mac));
        let client = match machine.await {
            Some(Ok(client)) => client,
            Some(Err(Error::Unknown { .. })) => return false,
            // Who cannot tell gives nothing away.
            Some(Err(_)) | None => return true,
        };
        if at.is(&client).is_err() {
            return false;
        }
        let client = Arc::new(client);
        let systems = loop {
            let asked = client.clone();
            let found = self.call_for_firmware(move |server| server.systems_of(&asked));
            let Some(systems) = found.await else {
                return true;
            };
            if !systems.is_empty() || self.attached.began.elapsed() >= COMING_BACK {
                break systems;
            }
            // A system may be about to come back to whatever disk it had, and until then nobody knows of it.
            tokio::time::sleep(LOOK).await;
        };
        let answers = systems.into_iter();
        let answers = answers.map(|control| async move { control.is_alive(SIGN_OF_LIFE).await });
        let answers: FuturesUnordered<_> = answers.collect();
        pin!(answers.any(std::future::ready)).await
    }

    /// The sessions of systems that run on a client's machine, on clients' disks and on volumes.
    fn systems_of(&self, client: &Client) -> Vec<SessionControl> {
        let is_anothers = |mac: &MacAddr| {
            let owner = self.library.machine(mac);
            owner.is_ok_and(|owner| owner.mac != client.mac)
        };
        let mut systems = self.attached.systems_of(client, is_anothers);
        systems.extend(self.visitors.systems_of(client));
        systems
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
