//! What the target asks of those who know images and clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::names::{IscsiName, Isid};
use super::sessions::SessionControl;
use crate::scsi;

/// A future in a box, so that [`Directory`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who is logging in, as far as the login tells. IPv4 peers of an IPv6 socket are IPv4 here.
#[derive(Debug, Clone)]
pub struct Initiator {
    /// The name that it gave.
    pub name: IscsiName,
    /// Its part of the session's identifier.
    pub isid: Isid,
    /// Where it connects from.
    pub peer: SocketAddr,
    /// The address of ours that it connected to.
    pub local: SocketAddr,
}

/// Knows which targets there are, and for whom.
pub trait Directory: Send + Sync + 'static {
    /// Names of the targets that this initiator may see (SendTargets=All).
    fn targets<'a>(&'a self, who: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>>;

    /// Called when a login is about to enter the full feature phase: opens the target for this
    /// session, or says why not. `control` can end the session later. It is called after the session
    /// that this one reinstates, if any, has ended and settled.
    fn open<'a>(
        &'a self,
        who: &'a Initiator,
        target: &'a IscsiName,
        control: SessionControl,
    ) -> BoxFuture<'a, Result<Opened, Refusal>>;
}

/// A target, opened for one session.
pub struct Opened {
    /// What the session talks to.
    pub device: Arc<scsi::Device>,
    /// Told when the session is over.
    pub guard: Box<dyn Guard>,
}

/// Told once when a session is over.
pub trait Guard: Send {
    /// The session has ended, and nothing that it asked for is still being done to the device.
    fn ended(self: Box<Self>, end: End);
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The initiator logged out.
    Logout,
    /// The connection broke.
    ConnectionLost,
    /// The initiator stopped answering.
    TimedOut,
    /// Somebody ended it from this side.
    Kicked,
    /// The same initiator logged in anew in its place.
    Reinstated,
    /// The server goes down.
    ShutDown,
    /// The initiator broke the protocol.
    ProtocolError,
}

/// Why a login does not get its target (RFC 7143 §11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such target for this initiator.
    NotFound,
    /// There is, but it is not allowed in.
    Forbidden,
    /// It did not prove who it is.
    AuthenticationFailed,
    /// The target is gone for good.
    Removed,
    /// The target cannot be used now.
    Unavailable,
    /// The target has failed.
    TargetError,
}

impl Refusal {
    /// Status class and detail of the login response.
    pub(crate) fn status(self) -> u16 {
        match self {
            Refusal::AuthenticationFailed => 0x0201,
            Refusal::Forbidden => 0x0202,
            Refusal::NotFound => 0x0203,
            Refusal::Removed => 0x0204,
            Refusal::TargetError => 0x0300,
            Refusal::Unavailable => 0x0301,
        }
    }
}
