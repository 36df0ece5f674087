//! Which sessions hold which disks of the library: the server's answer to [`Live`]; and whether a system may be
//! running on a client's machine, whose users are given nothing of what is its firmware's:
//! [`Server::is_running`].
//!
//! A system is there from the moment that it begins to log in, to whatever disk or volume, until it logs out;
//! it gives a sign of life when it is pinged, and by each try, also one that is refused: who was cut off from
//! its disk runs on for a while. Who is missed may come back for [`COMING_BACK`] from then on:
//! whose session has ended in any other way, who has no answer to a ping or was refused last, and whoever was
//! there before this server served. Where somebody makes connections to the target and does not log in, a system
//! may be kept from coming back: it runs as long as he goes on. Logins and sessions of firmware are no system's,
//! however they end: it is left before a system begins, and they may stay behind.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::devices::Devices;
use super::neighbours::{hardware_at, neighbours_among};
use super::timeline::Initiates;
use super::{Server, Whereabouts};
use crate::iscsi::{End, Initiator, Knocked, SessionControl};
use crate::library::{BootId, Client, Error, Live, LiveSession, MacAddr, VersionId};

/// How long a system has to answer a ping: in a network that machines boot over it takes milliseconds.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A system that is missed comes back within so long, or not at all: open-iscsi tries again every three seconds.
const COMING_BACK: Duration = Duration::from_secs(6);

/// How often it is looked whether it has, and how long it then has to answer a ping.
const LOOK: Duration = Duration::from_millis(200);

/// The sessions that hold a disk, from before their login is answered until their last command has
/// settled.
pub(super) struct Attached {
    runtime: Handle,
    devices: Arc<Devices>,
    /// Since when systems can come: what the server does before takes its time.
    served: OnceLock<Instant>,
    // Both held for a look or a change of the map, never across a wait, and never together.
    table: Mutex<HashMap<u64, Entry>>,
    systems: Mutex<Systems>,
}

#[derive(Default)]
struct Systems {
    all: HashMap<u64, System>,
    /// When those that tell nothing any more were thrown away last.
    swept: Option<Instant>,
}

impl Systems {
    /// Throws away what is over, now and then: there may be many of them, and a change may come often.
    fn sweep(&mut self) {
        if self.swept.is_none_or(|swept| swept.elapsed() >= LOOK) {
            self.swept = Some(Instant::now());
            self.all.retain(|_, one| one.tells());
        }
    }
}

struct Entry {
    session: LiveSession,
    control: SessionControl,
}

/// A session of a system, on whatever disk.
struct System {
    control: SessionControl,
    /// Whose boot it is, once its login has come so far.
    client: Option<MacAddr>,
    /// The hardware addresses of the machine that it came from; none where something routes between.
    machine: Vec<MacAddr>,
    /// Since when pings have no answer.
    silent: Option<Instant>,
    /// When its session has ended without a logout.
    lost: Option<Instant>,
    /// When it was refused.
    refused: Option<Instant>,
}

impl System {
    /// Since when it is missed: what comes later tells nothing new.
    fn missed(&self) -> Option<Instant> {
        self.silent.or(self.lost).or(self.refused)
    }

    /// Whether it still tells something: what is over does for a while.
    fn tells(&self) -> bool {
        self.lost.or(self.refused).is_none_or(may_come_back)
    }
}

fn may_come_back(missed: Instant) -> bool {
    missed.elapsed() < COMING_BACK
}

/// Whoever has begun to log in, until his session has settled.
pub(super) struct Presence {
    server: Arc<Server>,
    id: u64,
}

impl Presence {
    /// The session has ended like this.
    pub(super) fn ended(self, end: End) {
        let attached = &self.server.attached;
        if end == End::Logout {
            attached.systems().all.remove(&self.id);
        } else {
            attached.note(self.id, |system| &mut system.lost);
        }
    }
}

impl Drop for Presence {
    /// Who had no session that has ended was refused.
    fn drop(&mut self) {
        let is_over = |system: &System| system.lost.is_some();
        let attached = &self.server.attached;
        if !attached.systems().all.get(&self.id).is_some_and(is_over) {
            attached.note(self.id, |system| &mut system.refused);
        }
    }
}

impl Attached {
    /// Nobody yet. `runtime` is what sessions run on: whoever waits for their end waits there.
    pub(super) fn new(runtime: Handle, devices: Arc<Devices>) -> Self {
        Self {
            runtime,
            devices,
            served: OnceLock::new(),
            table: Mutex::default(),
            systems: Mutex::default(),
        }
    }

    /// What sessions run on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// From now on systems can come.
    pub(super) fn serves(&self) {
        self.served.get_or_init(Instant::now);
    }

    /// Takes a session in, whose login has come so far that it is known whose boot it is.
    pub(super) fn enter(&self, session: LiveSession, control: SessionControl) {
        let id = control.id();
        if let Some(system) = self.systems().all.get_mut(&id) {
            system.client = session.client;
        }
        self.table().insert(id, Entry { session, control });
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

    /// A system begins to log in.
    fn arrive(&self, control: SessionControl, machine: Vec<MacAddr>, client: Option<MacAddr>) {
        let id = control.id();
        let system = System {
            control,
            client,
            machine,
            silent: None,
            lost: None,
            refused: None,
        };
        let mut systems = self.systems();
        systems.sweep();
        systems.all.insert(id, system);
    }

    /// Notes when something has become of a system, if it is one.
    fn note(&self, id: u64, what: impl FnOnce(&mut System) -> &mut Option<Instant>) {
        let mut systems = self.systems();
        systems.sweep();
        if let Some(system) = systems.all.get_mut(&id) {
            *what(system) = Some(Instant::now());
        }
    }

    /// The systems of a client's machine, those that are missed included: those that came from its hardware
    /// addresses, whoever's disk they have, and those that booted as the client and came from nobody else's.
    /// A machine has many addresses of IPv4 and IPv6, so they tell nothing.
    fn systems_of(
        &self,
        client: &Client,
        is_anothers: impl Fn(&MacAddr) -> bool,
    ) -> Vec<SessionControl> {
        let is_there = |machine: &[MacAddr]| machine.iter().any(|mac| client.has_mac(mac));
        let systems = |system: &System| {
            let may_be_its = system.client == Some(client.mac) || is_there(&system.machine);
            may_be_its.then(|| (system.control.clone(), system.machine.clone()))
        };
        let systems: Vec<_> = self.systems().all.values().filter_map(systems).collect();
        // Whose hardware it is stands in documents, which are not read while the table is held.
        let is_its = |machine: &[MacAddr]| is_there(machine) || !machine.iter().any(&is_anothers);
        let its = systems.into_iter().filter(|(_, machine)| is_its(machine));
        its.map(|(control, _)| control).collect()
    }

    /// Whether a system gives a sign of life, or has since then.
    async fn answers(&self, control: &SessionControl, since: Instant) -> bool {
        let asked = Instant::now();
        let refused = self
            .systems()
            .all
            .get(&control.id())
            .and_then(|one| one.refused);
        if let Some(refused) = refused {
            return refused > since;
        }
        let note = |answers: bool| {
            if let Some(system) = self.systems().all.get_mut(&control.id()) {
                system.silent = match answers {
                    true => None,
                    false => system.missed().or(Some(asked)),
                };
            }
        };
        if !control.owes_an_answer() {
            note(true);
        }
        // Who is missed is asked again and again.
        let patience = match self.missed(&[control]) {
            Some(_) => LOOK,
            None => SIGN_OF_LIFE,
        };
        let answers = control.is_alive(patience).await;
        note(answers);
        answers
    }

    /// Since when the last of these systems is missed; nothing where none is.
    fn missed(&self, controls: &[&SessionControl]) -> Option<Instant> {
        let systems = self.systems();
        let system = |control: &&SessionControl| systems.all.get(&control.id());
        let missed = controls
            .iter()
            .filter_map(system)
            .filter_map(System::missed);
        missed.max()
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

    fn systems(&self) -> MutexGuard<'_, Systems> {
        // The same.
        self.systems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Somebody begins to log in.
    pub(super) async fn arrives(
        self: &Arc<Self>,
        who: &Initiator,
        control: SessionControl,
    ) -> Presence {
        let id = control.id();
        if Initiates::of(who.isid) == Initiates::System {
            let peer = who.peer;
            let machine = self.call_for_firmware(move |_| hardware_at(peer)).await;
            let machine = machine.unwrap_or_default();
            // Behind a router the name is all that tells, of who is refused, too, where it is believed.
            let is_believed = machine.is_empty() && self.trusts(peer.ip());
            let named = is_believed.then(|| self.library.client_named(who.name.as_str()));
            self.attached.arrive(control, machine, named.flatten());
        }
        Presence {
            server: self.clone(),
            id,
        }
    }

    /// Whether a system may be running on the machine of the client that has this hardware address: it gives
    /// a sign of life, or does so as soon as it has come back. A machine that boots anew does neither, and is
    /// told so at once where its system has logged out, and else within `patience` or some seconds. Nobody is
    /// pinged for somebody at a place that is known not to be the client's.
    pub async fn is_running(
        self: &Arc<Self>,
        mac: MacAddr,
        at: &Whereabouts,
        patience: Duration,
    ) -> bool {
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
        let asked = Instant::now();
        loop {
            let wanted = client.clone();
            let found = self.call_for_firmware(move |server| {
                (server.systems_of(&wanted), server.knocked(&wanted))
            });
            // Who cannot tell gives nothing away.
            let Some((systems, Ok(knocked))) = found.await else {
                return true;
            };
            if knocked.iter().any(|knocked| knocked.at > asked) {
                return true;
            }
            let systems: Vec<_> = systems.iter().collect();
            let answers = systems.iter();
            let answers = answers.map(|control| self.attached.answers(control, asked));
            let answers: FuturesUnordered<_> = answers.collect();
            if pin!(answers.any(std::future::ready)).await {
                return true;
            }
            let missed = self.attached.missed(&systems);
            let served = self.attached.served.get().copied();
            let served = served.unwrap_or_else(Instant::now);
            let knocks = knocked.iter().map(|knocked| knocked.at);
            let missed = knocks.chain(missed).fold(served, Instant::max);
            let is_at_the_door = knocked.iter().any(|knocked| knocked.is_there);
            if !may_come_back(missed) && !is_at_the_door {
                return false;
            }
            // Who stays at the door that long is no firmware.
            if asked.elapsed() >= patience.min(COMING_BACK) {
                return is_at_the_door;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Who makes connections from a client's machine and does not log in.
    fn knocked(&self, client: &Client) -> io::Result<Vec<Knocked>> {
        let knocked = self.sessions.knocks().within(COMING_BACK);
        let knocked = knocked.ok_or_else(|| {
            io::Error::other("more addresses than can be remembered connect and do not log in")
        });
        let is_its = |mac: &MacAddr| client.has_mac(mac);
        let its = knocked.and_then(|knocked| neighbours_among(knocked, is_its));
        its.inspect_err(|error| {
            tracing::warn!(%error, "cannot tell whether a client's machine connects");
        })
    }

    /// The systems of a client's machine, on clients' disks and on volumes.
    fn systems_of(&self, client: &Client) -> Vec<SessionControl> {
        let is_anothers = |mac: &MacAddr| {
            let owner = self.library.machine(mac);
            owner.is_ok_and(|owner| owner.mac != client.mac)
        };
        self.attached.systems_of(client, is_anothers)
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::daemon::Doors;
    use crate::iscsi::{IscsiName, Isid};
    use crate::library::{
        Actor, Library, Mode, NewClient, Quiet, Settings, VersionFacts, VersionSpec,
    };

    const SYSTEM: [u8; 6] = [0x00, 0x02, 0x3d, 0, 0, 1];
    const FIRMWARE: [u8; 6] = [0x40, 0x00, 0x27, 0x23, 0, 1];

    /// A server and a client.
    struct Lab {
        server: Arc<Server>,
        mac: MacAddr,
        version: VersionId,
        _dir: tempfile::TempDir,
    }

    struct Session {
        presence: Presence,
        control: SessionControl,
        _place: Box<dyn Send>,
    }

    impl Lab {
        fn new() -> Self {
            let (dir, _) = Library::temporary();
            let place = dir.path().join("library");
            let own = dir.path().join("own.toml");
            std::fs::write(&own, "[boot]\ntrusted = [\"127.0.0.0/8\"]\n").unwrap();
            let library = Library::open(&place, Some(&own)).unwrap();
            let doors = Doors::configured(&library.config());
            let image: VersionSpec = "fc28".parse().unwrap();
            let mut draft = library.draft(&image.image).unwrap();
            draft.create_sparse(1 << 20).unwrap();
            draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
            draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
            draft.seal(VersionFacts::default(), &Quiet).unwrap();
            let version = library.resolve(&image).unwrap().id().clone();
            let mac = MacAddr::new([0x52, 0x54, 0, 0, 0, 1]).unwrap();
            let new = NewClient {
                mac,
                name: None,
                image,
                mode: Mode::Shared,
                args: Vec::new(),
                groups: [].into(),
                settings: Settings::default(),
            };
            let server = Server::new(library, Handle::current(), doors);
            let actor = Actor::Server;
            server
                .library
                .add_client(&new, server.live(), &actor)
                .unwrap();
            Lab {
                server,
                mac,
                version,
                _dir: dir,
            }
        }

        /// One that has served for long.
        async fn serving() -> Self {
            let lab = Self::new();
            lab.server.attached.serves();
            tokio::time::sleep(COMING_BACK).await;
            lab
        }

        /// A login of the client that has come so far that its disk is being opened.
        async fn logs_in(&self, isid: [u8; 6]) -> Session {
            let session = self.arrives(isid).await;
            let live = LiveSession {
                initiator: self.initiator().to_string(),
                peer: ([127, 0, 0, 1], 4000).into(),
                client: Some(self.mac),
                boot: None,
                version: self.version.clone(),
                since: Timestamp::now(),
                firmware: Initiates::of(Isid(isid)) == Initiates::Firmware,
            };
            let control = session.control.clone();
            self.server.attached.enter(live, control);
            session
        }

        fn initiator(&self) -> IscsiName {
            let boot = "000000000001-1-0123456789abcdef".parse().unwrap();
            let name = self.server.library.initiator_name(&self.mac, &boot);
            name.parse().unwrap()
        }

        /// One of which no more is known than who he says that he is.
        async fn arrives(&self, isid: [u8; 6]) -> Session {
            let who = Initiator {
                name: self.initiator(),
                isid: Isid(isid),
                peer: ([127, 0, 0, 1], 4000).into(),
                local: ([127, 0, 0, 1], 3260).into(),
                proved: None,
            };
            let target: IscsiName = "iqn.a:t".parse().unwrap();
            let place = self.server.sessions.enter(&who, &target).await;
            let control = place.control().clone();
            let presence = self.server.arrives(&who, control.clone()).await;
            Session {
                presence,
                control,
                _place: Box::new(place),
            }
        }

        fn ends(&self, session: Session, end: End) {
            self.server.attached.leave(session.control.id());
            session.presence.ended(end);
        }

        /// Whether a system may be running, and how many milliseconds that took to find out.
        async fn is_running(&self) -> (bool, u128) {
            let asked = Instant::now();
            (self.runs(Duration::MAX).await, asked.elapsed().as_millis())
        }

        async fn runs(&self, patience: Duration) -> bool {
            let at = Whereabouts::Trusted;
            self.server.is_running(self.mac, &at, patience).await
        }
    }

    /// Answers the next pings of a session.
    fn answering(control: &SessionControl) -> tokio::task::JoinHandle<()> {
        let (control, mut pings) = (control.clone(), control.pings());
        tokio::spawn(async move {
            while pings.changed().await.is_ok() {
                control.heard(*pings.borrow_and_update());
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_has_lost_its_session_is_waited_for() {
        let lab = Lab::serving().await;
        assert_eq!(lab.is_running().await, (false, 0));
        let first = lab.logs_in(SYSTEM).await;
        assert_eq!(
            lab.is_running().await,
            (true, 0),
            "its disk is being opened"
        );
        let answers = answering(&first.control);
        assert_eq!(lab.is_running().await, (true, 0));
        answers.abort();
        lab.ends(first, End::ConnectionLost);
        let comes_back = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            lab.logs_in(SYSTEM).await
        };
        let (second, (runs, took)) = tokio::join!(comes_back, lab.is_running());
        assert!(runs && (3000..3400).contains(&took), "{runs} {took}");

        // A machine that was reset does not.
        lab.ends(second, End::Kicked);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let asked = Instant::now();
        assert!(!lab.runs(Duration::from_secs(1)).await);
        assert!(asked.elapsed() < Duration::from_millis(1400));
        let (runs, took) = lab.is_running().await;
        assert!(!runs && (2600..3400).contains(&took), "{runs} {took}");
        assert_eq!(lab.is_running().await, (false, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_does_not_answer_is_waited_for_once() {
        let lab = Lab::serving().await;
        let session = lab.logs_in(SYSTEM).await;
        let control = &session.control;
        let pings = control.pings();
        for _ in 0..2 {
            let (runs, took) = lab.is_running().await;
            assert!(!runs && (6000..6400).contains(&took), "{runs} {took}");
            let (runs, took) = lab.is_running().await;
            assert!(!runs && took <= 200, "{runs} {took}");
            // It was only held up, and answers before anybody asks again.
            control.heard(*pings.borrow());
        }
        let answers = answering(control);
        assert_eq!(lab.is_running().await, (true, 0));
        answers.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_system_that_has_logged_out_nor_for_firmware() {
        let lab = Lab::serving().await;
        let system = lab.logs_in(SYSTEM).await;
        lab.ends(system, End::Logout);
        assert_eq!(lab.is_running().await, (false, 0));
        let firmware = lab.logs_in(FIRMWARE).await;
        assert_eq!(lab.is_running().await, (false, 0));
        lab.ends(firmware, End::ConnectionLost);
        assert_eq!(lab.is_running().await, (false, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_is_refused_again_and_again_runs() {
        let lab = Lab::serving().await;
        let system = lab.logs_in(SYSTEM).await;
        // It was fenced, and runs on from its memory.
        lab.ends(system, End::Kicked);
        let tries = async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(lab.arrives(SYSTEM).await);
        };
        for _ in 0..3 {
            tries().await;
            let ((), (runs, took)) = tokio::join!(tries(), lab.is_running());
            assert!(runs && (3000..3400).contains(&took), "{runs} {took}");
        }
        // Until the machine was reset.
        let (runs, took) = lab.is_running().await;
        assert!(!runs && (5400..6400).contains(&took), "{runs} {took}");
        assert_eq!(lab.is_running().await, (false, 0));
        drop(lab.arrives(SYSTEM).await);
        assert_eq!(
            lab.server.attached.systems().all.len(),
            1,
            "what is long over goes"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn systems_have_their_time_from_when_they_can_come() {
        let lab = Lab::new();
        // Volumes on storage that hangs.
        tokio::time::sleep(2 * COMING_BACK).await;
        lab.server.attached.serves();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (runs, took) = lab.is_running().await;
        assert!(!runs && (5000..5400).contains(&took), "{runs} {took}");
        assert_eq!(lab.is_running().await, (false, 0));
    }
}
