//! The sessions that are alive: who they are, what they do, and the way to end them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::directory::{End, Initiator};
use super::knocks::Knocks;
use super::names::{IscsiName, Isid};
use super::totals::Totals;

/// All live sessions of a server that talk to a target. Discovery sessions are not among them.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Registry>);

/// One live session.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Tells it from all other sessions of this server's run.
    pub id: u64,
    /// The initiator's name.
    pub initiator: IscsiName,
    /// The initiator's part of the session identifier.
    pub isid: Isid,
    /// The target's part of it.
    pub tsih: u16,
    /// The target that it is logged in to.
    pub target: IscsiName,
    /// Where the initiator connects from.
    pub peer: SocketAddr,
    /// When the login was done.
    pub since: SystemTime,
    /// What was negotiated.
    pub parameters: Parameters,
    /// What it has done so far.
    pub counters: Arc<Counters>,
}

/// What the two sides agreed on. Lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Parameters {
    /// CRC32C over headers.
    pub header_digest: bool,
    /// CRC32C over data.
    pub data_digest: bool,
    /// The initiator sends nothing unasked beyond immediate data.
    pub initial_r2t: bool,
    /// Commands may carry data.
    pub immediate_data: bool,
    /// Most data in one PDU to the initiator.
    pub initiator_max_recv: u32,
    /// Most data in one PDU to us.
    pub target_max_recv: u32,
    /// Most data in one sequence.
    pub max_burst: u32,
    /// Most data sent unasked with one command.
    pub first_burst: u32,
    /// R2Ts of one command that may be open at a time.
    pub max_outstanding_r2t: u16,
}

/// What a session has done. Readers may see it a moment late.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands that read data.
    pub reads: AtomicU64,
    /// Commands that wrote data.
    pub writes: AtomicU64,
    /// Bytes sent to the initiator.
    pub bytes_read: AtomicU64,
    /// Bytes received from it.
    pub bytes_written: AtomicU64,
    /// When it read and wrote first, in milliseconds since the epoch; 0: never.
    first_read: AtomicU64,
    first_written: AtomicU64,
}

/// When a session did something for the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct First {
    /// Read.
    pub read: Option<SystemTime>,
    /// Wrote.
    pub written: Option<SystemTime>,
}

/// Ends one session, and tells when it is over.
#[derive(Clone)]
pub struct SessionControl(Arc<Control>);

struct Control {
    id: u64,
    // Watch channels: many may ask and wait, and a late one still learns what happened.
    asked: watch::Sender<Option<End>>,
    over: watch::Sender<bool>,
    /// Whether anybody sends pings: nobody does before the login is answered.
    begun: AtomicBool,
    /// Logins that wait for this session's place.
    waiting: AtomicUsize,
    /// How many pings were asked for, and up to which of them something was heard after it.
    pings: watch::Sender<u64>,
    heard: watch::Sender<u64>,
}

#[derive(Default)]
struct Registry {
    next_id: AtomicU64,
    next_tsih: AtomicU16,
    totals: Totals,
    knocks: Knocks,
    // Held for a look or a change of the map, never across an await.
    live: Mutex<HashMap<Key, Entry>>,
}

/// What a reinstating login has in common with the session that it replaces (RFC 7143 §6.3.5). The
/// portal group is always the same.
type Key = (IscsiName, Isid, IscsiName);

struct Entry {
    control: SessionControl,
    /// Nothing while the login is still being decided.
    info: Option<SessionInfo>,
}

impl Sessions {
    /// No sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sessions that are logged in now, oldest first.
    pub fn list(&self) -> Vec<SessionInfo> {
        let mut list: Vec<_> = self
            .live()
            .values()
            .filter_map(|e| e.info.clone())
            .collect();
        list.sort_by_key(|info| info.id);
        list
    }

    /// The session with this id, while it lives.
    pub fn info(&self, id: u64) -> Option<SessionInfo> {
        let live = self.live();
        let entry = live.values().find(|entry| entry.control.id() == id)?;
        entry.info.clone()
    }

    /// What all sessions have done since the server began.
    pub fn totals(&self) -> &Totals {
        &self.0.totals
    }

    /// Who makes connections and does not log in to a target.
    pub fn knocks(&self) -> &Knocks {
        &self.0.knocks
    }

    /// The way to end the session with this id, while it lives.
    pub fn control(&self, id: u64) -> Option<SessionControl> {
        let live = self.live();
        let entry = live.values().find(|entry| entry.control.id() == id)?;
        Some(entry.control.clone())
    }

    /// Whether the session with this TSIH is this initiator's, with the same ISID at the same target
    /// (RFC 7143 §6.3.1).
    pub(crate) fn is_of(&self, tsih: u16, who: &Initiator, target: Option<&IscsiName>) -> bool {
        let Some(target) = target else {
            return false;
        };
        let live = self.live();
        let entry = live.get(&(who.name.clone(), who.isid, target.clone()));
        entry.is_some_and(|e| e.info.as_ref().is_some_and(|info| info.tsih == tsih))
    }

    /// Ends all sessions with a target.
    pub(crate) fn end_all(&self, target: &IscsiName, end: End) {
        for ((_, _, at), entry) in self.live().iter() {
            if at == target {
                entry.control.end(end);
            }
        }
    }

    /// Whether any session with this TSIH lives.
    fn knows(&self, tsih: u16) -> bool {
        let live = self.live();
        live.values()
            .any(|e| e.info.as_ref().is_some_and(|info| info.tsih == tsih))
    }

    /// Whether a new session of this initiator would end an older one (RFC 7143 §6.3.5).
    pub(crate) fn has(&self, who: &Initiator, target: &IscsiName) -> bool {
        let key = (who.name.clone(), who.isid, target.clone());
        self.live().contains_key(&key)
    }

    /// Takes the place of a new session, after ending the one that stands there and waiting until
    /// its commands have settled.
    pub(crate) async fn enter(&self, who: &Initiator, target: &IscsiName) -> Place {
        let key = (who.name.clone(), who.isid, target.clone());
        loop {
            let old = {
                let mut live = self.live();
                match live.get(&key) {
                    Some(entry) => entry.control.clone(),
                    None => {
                        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed) + 1;
                        let control = SessionControl::new(id);
                        let entry = Entry {
                            control: control.clone(),
                            info: None,
                        };
                        live.insert(key.clone(), entry);
                        return Place {
                            sessions: self.clone(),
                            key,
                            control,
                        };
                    }
                }
            };
            old.end(End::Reinstated);
            let _waiting = Waiting::for_place_of(&old);
            old.ended().await;
        }
    }

    /// A TSIH that no live session has; never 0, which stands for "new" (RFC 7143 §11.12.6).
    pub(crate) fn new_tsih(&self) -> u16 {
        loop {
            let tsih = self.0.next_tsih.fetch_add(1, Ordering::Relaxed);
            if tsih != 0 && !self.knows(tsih) {
                return tsih;
            }
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    /// A command was answered that read so many bytes.
    pub(super) fn read(&self, bytes: u64) {
        // The clock is looked at once a session.
        if self.reads.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_read.store(millis(), Ordering::Relaxed);
        }
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A command was answered that wrote so many bytes.
    pub(super) fn wrote(&self, bytes: u64) {
        if self.writes.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_written.store(millis(), Ordering::Relaxed);
        }
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When it did something for the first time.
    pub fn first(&self) -> First {
        let moment = |at: &AtomicU64| match at.load(Ordering::Relaxed) {
            0 => None,
            millis => UNIX_EPOCH.checked_add(Duration::from_millis(millis)),
        };
        First {
            read: moment(&self.first_read),
            written: moment(&self.first_written),
        }
    }
}

fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
}

/// The place of one session in the registry. Dropping it says that the session is over and settled.
pub(crate) struct Place {
    sessions: Sessions,
    key: Key,
    control: SessionControl,
}

impl Place {
    /// The way to end the session that is about to live here.
    pub(crate) fn control(&self) -> &SessionControl {
        &self.control
    }

    /// Lists the session.
    pub(crate) fn logged_in(&self, info: SessionInfo) {
        if let Some(entry) = self.sessions.live().get_mut(&self.key) {
            entry.info = Some(info);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.live().remove(&self.key);
        self.control.0.over.send_replace(true);
    }
}

/// A login that waits until the session in its place is over.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn for_place_of(old: &'a SessionControl) -> Self {
        old.0.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(&old.0.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SessionControl {
    fn new(id: u64) -> Self {
        SessionControl(Arc::new(Control {
            id,
            asked: watch::Sender::new(None),
            over: watch::Sender::new(false),
            begun: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            pings: watch::Sender::new(0),
            heard: watch::Sender::new(0),
        }))
    }

    /// The id of the session, as in [`SessionInfo`].
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Asks the session to end. The first reason counts. No command that arrives later is started.
    pub fn end(&self, end: End) {
        self.0.asked.send_if_modified(|asked| {
            let first = asked.is_none();
            if first {
                *asked = Some(end);
            }
            first
        });
    }

    /// Resolves when the session is over and all its commands have settled.
    pub async fn ended(&self) {
        let mut over = self.0.over.subscribe();
        // The sender lives in `self`, so the wait ends only because the session is over.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Pings the initiator, and tells whether anything comes from it within `patience`: nothing does from a
    /// machine that was switched off or boots anew. A login under way, to this session or in its place, is a
    /// sign of life, however long disks take to open and to settle. Only for initiators that are a system's:
    /// iPXE and OVMF have no answer to pings, and are as well without.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        if self.is_logging_in() {
            return true;
        }
        let mut heard = self.0.heard.subscribe();
        let mut number = 0;
        self.0.pings.send_modify(|pings| {
            *pings += 1;
            number = *pings;
        });
        tokio::select! {
            heard = heard.wait_for(|heard| *heard >= number) => heard.is_ok(),
            () = self.ended() => false,
            () = tokio::time::sleep(patience) => false,
        }
    }

    /// Whether a ping is without an answer so far.
    pub fn owes_an_answer(&self) -> bool {
        *self.0.heard.borrow() < *self.0.pings.borrow()
    }

    /// Whether the login is not answered yet, or another one waits for this session's place.
    fn is_logging_in(&self) -> bool {
        let begun = self.0.begun.load(Ordering::Acquire);
        let is_waited_for = self.0.waiting.load(Ordering::Acquire) > 0;
        (!begun || is_waited_for) && !*self.0.over.borrow()
    }

    /// What tells the number of each ping that is asked for, from now on.
    pub(crate) fn pings(&self) -> watch::Receiver<u64> {
        let pings = self.0.pings.subscribe();
        // Whoever sees this finds somebody listening.
        self.0.begun.store(true, Ordering::Release);
        pings
    }

    /// Something was heard after this ping.
    pub(crate) fn heard(&self, number: u64) {
        self.0.heard.send_replace(number);
    }

    /// Resolves when somebody has asked for the end.
    pub(crate) async fn asked(&self) -> End {
        let mut asked = self.0.asked.subscribe();
        match asked.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(End::Kicked),
            Err(_) => End::Kicked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(isid: u8) -> Initiator {
        Initiator {
            name: "iqn.a:i".parse().unwrap(),
            isid: Isid([isid; 6]),
            peer: ([192, 0, 2, 1], 1).into(),
            local: ([192, 0, 2, 2], 3260).into(),
            proved: None,
        }
    }

    #[tokio::test]
    async fn a_session_in_the_same_place_waits_until_the_old_one_has_settled() {
        let sessions = Sessions::new();
        let target: IscsiName = "iqn.a:t".parse().unwrap();
        let old = sessions.enter(&who(1), &target).await;
        let other = sessions.enter(&who(2), &target).await;
        let (first, me) = (who(1), sessions.clone());
        let new = tokio::spawn(async move { me.enter(&first, &target).await });
        assert_eq!(old.control().asked().await, End::Reinstated);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!new.is_finished(), "the old session has not settled yet");
        let control = old.control().clone();
        drop(old);
        control.ended().await;
        let new = new.await.unwrap();
        assert_ne!(new.control().id(), control.id());
        assert!(
            tokio::time::timeout(Duration::from_millis(20), other.control().asked())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_logging_in_is_alive() {
        const PATIENCE: Duration = Duration::from_secs(1);
        let sessions = Sessions::new();
        let target: IscsiName = "iqn.a:t".parse().unwrap();
        let place = sessions.enter(&who(1), &target).await;
        let control = place.control().clone();
        assert!(control.is_alive(PATIENCE).await, "its disk is being opened");
        let _pings = control.pings();
        assert!(!control.is_alive(PATIENCE).await, "it does not answer");

        // Whoever asked for its end first.
        control.end(End::Kicked);
        let first = who(1);
        let waits = tokio::time::timeout(2 * PATIENCE, sessions.enter(&first, &target));
        let (waits, alive) = tokio::join!(waits, control.is_alive(PATIENCE));
        assert!(waits.is_err() && alive, "it logs in anew");
        assert!(!control.is_alive(PATIENCE).await, "it has given up");
        let me = sessions.clone();
        let new = tokio::spawn(async move { me.enter(&first, &target).await });
        tokio::task::yield_now().await;
        assert!(control.is_alive(PATIENCE).await, "it tries again");
        drop(place);
        let new = new.await.unwrap();
        assert!(!control.is_alive(PATIENCE).await, "it is over");
        let refused = new.control().clone();
        drop(new);
        assert!(!refused.is_alive(PATIENCE).await, "it was not let in");
    }
}
