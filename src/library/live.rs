//! Who is connected: what the library asks whoever holds the live lock.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::boots::BootId;
use super::lock::LiveLock;
use super::mac::MacAddr;
use super::names::VersionId;

/// One session of an initiator with a disk of the library.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LiveSession {
    /// The initiator's name.
    pub initiator: String,
    /// Where it comes from, IPv4-mapped addresses as IPv4.
    #[schema(value_type = String)]
    pub peer: SocketAddr,
    /// The client that it is a boot of, if it is one of the library's.
    pub client: Option<MacAddr>,
    /// Which boot.
    pub boot: Option<BootId>,
    /// The version that it reads: its disk, or what its clone was made from.
    pub version: VersionId,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is the firmware's, which reads what the system is loaded from.
    #[serde(default)]
    pub firmware: bool,
}

/// Who has sessions now, and a way to end them. Implemented by the server.
///
/// `sessions` is asked while the library's lock is held, so it calls nothing of the library and
/// waits for nobody who might. `fence` may take its time.
pub trait Live: Send + Sync {
    /// All sessions that are not over yet, those included whose commands have still to settle.
    fn sessions(&self) -> Vec<LiveSession>;

    /// Ends the sessions of a client but those of the boot `but`, and returns when they are over
    /// and all their commands have settled: nothing of them writes afterwards. The library has
    /// made sure before that they cannot log in again, and holds no lock.
    fn fence(&self, client: &MacAddr, but: Option<&BootId>);

    /// Ends all sessions on these versions, whoever has them, and returns when they are over. They
    /// only read; the library has made sure that none of them can log in again.
    fn evict(&self, versions: &[VersionId]);

    /// The disks of a client have grown, or may from now on hold so many bytes of their own, if that is
    /// limited: whoever has them open looks at them again. Calls nothing of the library.
    fn look_again(&self, _client: &MacAddr, _quota: Option<u64>) {}

    /// The sessions of a client.
    fn sessions_of(&self, client: &MacAddr) -> Vec<LiveSession> {
        let mut sessions = self.sessions();
        sessions.retain(|session| session.client.as_ref() == Some(client));
        sessions
    }

    /// Whether an initiator at an address has a session, on any version of the image.
    fn has_session(&self, initiator: &str, peer: IpAddr, image: &super::ImageName) -> bool {
        self.sessions().iter().any(|session| {
            session.initiator == initiator
                && session.peer.ip() == peer
                && session.version.image == *image
        })
    }
}

/// No server runs, so nobody has a session: proved by holding the live lock.
#[derive(Debug)]
pub struct NoServer(#[expect(dead_code, reason = "held, not read")] LiveLock);

impl NoServer {
    /// Nobody else can serve while this lives.
    pub fn new(lock: LiveLock) -> Self {
        NoServer(lock)
    }
}

impl Live for NoServer {
    fn sessions(&self) -> Vec<LiveSession> {
        Vec::new()
    }

    fn fence(&self, _: &MacAddr, _: Option<&BootId>) {}

    fn evict(&self, _: &[VersionId]) {}
}
