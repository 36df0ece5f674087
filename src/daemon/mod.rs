//! All of it at once: listeners, live sessions, and an ordered end.
//!
//! The target asks [`Targets`] who may log in to what; that asks the library. `Attached` tells the
//! library who is connected. HTTP routers are given by the fronts; this floor only runs them.

mod attached;
mod devices;
mod http;
mod listen;
mod peer;
mod reach;
mod run;
mod targets;

pub use peer::{Peer, unmapped};
pub use reach::own_address;
pub use run::{Listeners, Routers, run};
pub use targets::Targets;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::iscsi::{End, SessionInfo, Sessions};
use crate::library::{Library, Live};
use attached::Attached;
use devices::Devices;

/// What the parts of a running server share.
pub struct Server {
    library: Library,
    attached: Attached,
    devices: Devices,
    sessions: Sessions,
    iscsi_port: u16,
}

/// A session, as `session list` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRow {
    /// Tells it from all other sessions of this server's run.
    pub id: u64,
    /// The initiator's name.
    pub initiator: String,
    /// Where it connects from.
    pub peer: SocketAddr,
    /// The target that it is logged in to.
    pub target: String,
    /// Since when.
    pub since: Timestamp,
    /// Commands that read data.
    pub reads: u64,
    /// Commands that wrote data.
    pub writes: u64,
    /// Bytes sent to the initiator.
    pub bytes_read: u64,
    /// Bytes received from it.
    pub bytes_written: u64,
}

impl Server {
    /// A server of `library`, whose live lock the caller holds. Sessions will run on `runtime`, and
    /// reach the target at `iscsi_port`.
    pub fn new(library: Library, runtime: Handle, iscsi_port: u16) -> Arc<Self> {
        Arc::new(Self {
            library,
            attached: Attached::new(runtime),
            devices: Devices::default(),
            sessions: Sessions::new(),
            iscsi_port,
        })
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Who is connected.
    pub fn live(&self) -> &dyn Live {
        &self.attached
    }

    /// The target's portal as it is announced to a client that reached this server at `local`.
    pub fn portal(&self, local: IpAddr) -> SocketAddr {
        let local = local.to_canonical();
        let announced = || {
            self.library
                .config()
                .iscsi
                .announce
                .iter()
                .map(|one| one.address())
        };
        let same_family = announced().find(|address| address.is_ipv4() == local.is_ipv4());
        let any = same_family.or_else(|| announced().next());
        any.unwrap_or_else(|| SocketAddr::new(local, self.iscsi_port))
    }

    /// All sessions, oldest first.
    pub fn session_rows(&self) -> Vec<SessionRow> {
        self.sessions.list().into_iter().map(row).collect()
    }

    /// Ends a session and waits until it has settled; nothing if there is none of this number.
    pub async fn kick(&self, id: u64) -> Option<SessionRow> {
        let session = self
            .sessions
            .list()
            .into_iter()
            .find(|session| session.id == id)?;
        let control = self.sessions.control(id)?;
        control.end(End::Kicked);
        control.ended().await;
        Some(row(session))
    }
}

fn row(session: SessionInfo) -> SessionRow {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    SessionRow {
        id: session.id,
        initiator: session.initiator.to_string(),
        peer: session.peer,
        target: session.target.to_string(),
        since: Timestamp::try_from(session.since).unwrap_or(Timestamp::UNIX_EPOCH),
        reads: count(&session.counters.reads),
        writes: count(&session.counters.writes),
        bytes_read: count(&session.counters.bytes_read),
        bytes_written: count(&session.counters.bytes_written),
    }
}
