//! What a running server sees and remembers for those who look at it: boots on their way, rates, and
//! that something has changed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::rates::{EVERY, History, Pace, Rates, Reading};
use super::timeline::Timelines;
use super::{Server, SessionRow};
use crate::library::{Client, ClientView, MacAddr, Result, Stranger};

/// How often it is looked whether there is something to write down.
const WRITTEN: Duration = Duration::from_secs(5);

/// What is seen, and who is to be told.
pub(super) struct Watch {
    // All held for a look or a change in memory, never across an await or a call of the library.
    timelines: Mutex<Timelines>,
    rates: Mutex<Rates>,
    changed: Notify,
    ending: watch::Sender<bool>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            timelines: Mutex::default(),
            rates: Mutex::default(),
            changed: Notify::new(),
            ending: watch::Sender::new(false),
        }
    }
}

impl Watch {
    pub(super) fn timelines(&self) -> MutexGuard<'_, Timelines> {
        // A panic beside it loses what one machine was seen doing at most.
        let timelines = self.timelines.lock();
        timelines.unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// All clients by address, with what only a running server knows of them.
    pub fn views(&self) -> Result<Vec<ClientView>> {
        let mut views = self.library.views(self.live())?;
        let is_client = |mac: &MacAddr| {
            let first = views.binary_search_by_key(mac, |view| view.client.mac);
            first.is_ok() || views.iter().any(|view| view.client.has_mac(mac))
        };
        let mut timelines = self.watch.timelines();
        // As long as the list of clients at most, whatever came and went.
        timelines.retain(is_client);
        let now = Timestamp::now();
        views
            .iter_mut()
            .for_each(|view| timelines.refine(view, now));
        drop(timelines);
        views.iter_mut().for_each(|view| self.refine_esp(view));
        Ok(views)
    }

    /// A client, with what only a running server knows of it.
    pub fn view(&self, client: Client) -> Result<ClientView> {
        let mut view = self.library.view(client, self.live())?;
        self.watch.timelines().refine(&mut view, Timestamp::now());
        self.refine_esp(&mut view);
        Ok(view)
    }

    /// A client looked at closely, with what only a running server knows of it.
    pub fn close_view(&self, client: Client) -> Result<ClientView> {
        let mut view = self.library.close_view(client, self.live())?;
        self.watch.timelines().refine(&mut view, Timestamp::now());
        self.refine_esp(&mut view);
        Ok(view)
    }

    /// Machines that asked for a script and are nobody's clients: those who asked last first.
    pub fn strangers(&self) -> Vec<Stranger> {
        self.library.strangers(Timestamp::now())
    }

    /// How fast all sessions together were in the last minute.
    pub fn total_rates(&self) -> History {
        self.watch.rates().total().clone()
    }

    /// How fast a session was in the last minute.
    pub fn session_rates(&self, id: u64) -> History {
        self.watch.rates().session(id).cloned().unwrap_or_default()
    }

    /// How fast all sessions of a client were in the last minute.
    pub fn client_rates(&self, mac: &MacAddr) -> History {
        self.watch.rates().client(mac).cloned().unwrap_or_default()
    }

    /// The same in steps, for lists of many; nothing where nothing happened.
    pub fn client_pace(&self, mac: &MacAddr) -> Option<Pace> {
        let pace = self.watch.rates().pace(mac);
        pace.filter(|pace| !pace.is_idle())
    }

    /// The sessions of a client, oldest first.
    pub fn sessions_of(&self, mac: &MacAddr) -> Vec<SessionRow> {
        let clients = self.attached.clients();
        let mut rows = self.session_rows();
        rows.retain(|row| clients.get(&row.id) == Some(mac));
        rows
    }

    /// Something has changed that somebody may be looking at.
    pub fn nudge(&self) {
        self.watch.changed.notify_one();
    }

    /// Resolves when something may have changed since it was asked last. For one who asks at a time.
    pub async fn nudged(&self) {
        self.watch.changed.notified().await;
    }

    /// Resolves when the server is about to end: whoever answers without an end of its own stops.
    pub async fn ending(&self) {
        let mut ending = self.watch.ending.subscribe();
        // The sender lives as long as the server that is borrowed here.
        let _ = ending.wait_for(|over| *over).await;
    }

    pub(super) fn end(&self) {
        self.watch.ending.send_replace(true);
    }

    /// Writes down now and then which machines asked that nobody knows, for ever.
    pub(super) async fn remember(self: Arc<Self>) {
        let mut ticks = interval(WRITTEN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.remember_now().await;
        }
    }

    /// The same, once.
    pub(super) async fn remember_now(self: &Arc<Self>) {
        let kept = self.call(|server| server.library.keep_strangers(Timestamp::now()));
        if let Some(Err(error)) = kept.await {
            tracing::warn!(
                error = super::targets::told(&error),
                "unknown machines cannot be written down"
            );
        }
    }

    /// Looks at all counters once a second, until the server ends.
    pub(super) async fn sample(self: Arc<Self>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Never in the midst of writing down what was taken for that.
                () = self.ending() => return,
            }
            let clients = self.attached.clients();
            let sessions = self.sessions.list();
            let readings: Vec<Reading> = sessions
                .iter()
                .map(|session| Reading {
                    session: session.id,
                    client: clients.get(&session.id).copied(),
                    read: session.counters.bytes_read.load(Ordering::Relaxed),
                    written: session.counters.bytes_written.load(Ordering::Relaxed),
                })
                .collect();
            self.watch.rates().sample(Instant::now(), &readings);
            for session in &sessions {
                if let Some(mac) = clients.get(&session.id) {
                    self.saw_io(mac, session);
                }
            }
            self.keep_boots().await;
        }
    }
}
