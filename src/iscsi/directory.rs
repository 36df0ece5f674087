//! What the target asks of those who know images and clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::chap::Credential;
use super::login::status;
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
    /// What it has proved to know by CHAP: a name and its secret.
    pub proved: Option<Credential>,
}

/// What an initiator has to prove, and what it may ask this side to prove (RFC 7143 §12.1).
#[derive(Debug, Clone)]
pub enum Authentication {
    /// Nothing.
    None,
    /// That it knows one of these secrets.
    Chap {
        /// Names and secrets, one of which it must use.
        initiator: Vec<Credential>,
        /// What this side proves with, if the initiator asks it to.
        target: Option<Credential>,
    },
    /// Nothing, but it may prove that it knows one of these, each with what this side proves in return:
    /// a discovery session may show more to who does.
    Offered(Vec<(Credential, Option<Credential>)>),
}

/// Knows which targets there are, and for whom.
pub trait Directory: Send + Sync + 'static {
    /// Names of the targets that this initiator may see (SendTargets=All).
    fn targets<'a>(&'a self, who: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>>;

    /// What this initiator has to prove before it gets `target`, or, without one, a discovery session.
    /// Asked when its first request is complete, and answered alike for targets that do not exist, so
    /// that nobody learns from it which do.
    fn authentication<'a>(
        &'a self,
        who: &'a Initiator,
        target: Option<&'a IscsiName>,
    ) -> BoxFuture<'a, Authentication>;

    /// Whether this initiator is one of those who [knock](super::Knocks) until it has logged in. Asked when its
    /// first request is complete. Does not wait for anything.
    fn knocks(&self, who: &Initiator) -> bool {
        let _ = who;
        true
    }

    /// Told when an initiator did not prove what it has to. Does not wait for anything.
    fn unproven(&self, who: &Initiator, target: Option<&IscsiName>) {
        let _ = (who, target);
    }

    /// Whether this initiator may have `target`, as far as can be told without opening it. Asked before
    /// a session is ended because its initiator logs in anew: whoever only uses its name must not be
    /// able to end it. What is not known yet may be left to [`open`](Self::open).
    fn admits<'a>(
        &'a self,
        who: &'a Initiator,
        target: &'a IscsiName,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        let _ = (who, target);
        Box::pin(async { Ok(()) })
    }

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
    /// An initiator of the same target asked for a TARGET COLD RESET.
    Reset,
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
    /// The target is to be found at this address for the time being.
    MovedTemporarily(SocketAddr),
    /// The target is to be found at this address from now on.
    MovedPermanently(SocketAddr),
}

impl Refusal {
    /// Status class and detail of the login response.
    pub(crate) fn status(self) -> u16 {
        match self {
            Refusal::MovedTemporarily(_) => 0x0101,
            Refusal::MovedPermanently(_) => 0x0102,
            Refusal::AuthenticationFailed => status::AUTHENTICATION_FAILED,
            Refusal::Forbidden => 0x0202,
            Refusal::NotFound => status::NOT_FOUND,
            Refusal::Removed => 0x0204,
            Refusal::TargetError => status::TARGET_ERROR,
            Refusal::Unavailable => 0x0301,
        }
    }
}
