//! One session: a socket, what comes in, and what goes out.

use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rustix::net::RecvFlags;

use super::inbox::{Data, Inbox, Received};
use super::load::Source;
use super::login::{Door, Manner, log_in};
use super::nexus::{Nexus, Tally, Truth};
use super::pattern::{Hand, fill};

/// Data PDUs as large as this are dropped in the kernel where nobody looks at them.
const WORTH_DROPPING: u32 = 32 << 10;

/// Times that a unit may have something to say before it is ready.
const ATTENTIONS: usize = 8;

/// How sessions are opened.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) manner: Manner,
    pub(super) depth: u32,
    /// Bytes of the largest command.
    pub(super) bytes: u32,
    pub(super) truth: Truth,
}

/// A session in its full feature phase.
#[derive(Debug)]
pub(super) struct Session {
    socket: TcpStream,
    inbox: Inbox,
    nexus: Nexus,
    payload: Arc<Vec<u8>>,
}

impl Session {
    /// Logs in, and hears what the unit has to say to somebody new.
    ///
    /// # Errors
    /// When the target does not let one in, or the unit does not become ready.
    pub(super) fn open(door: &Door, opening: &Opening) -> Result<Self> {
        let manner = opening.manner;
        let (socket, agreed) = log_in(door, &manner)?;
        let dropped = !opening.truth.expected.looks()
            && !manner.digests.data
            && opening.bytes.min(manner.max_recv) >= WORTH_DROPPING;
        let mut inbox = Inbox::new(if dropped { Data::Dropped } else { Data::Taken });
        inbox.set_digests(manner.digests);
        let mut bytes = vec![0; opening.bytes as usize];
        fill(Hand::Load, 0, &mut bytes);
        let payload = Arc::new(bytes);
        let nexus = Nexus::new(
            door.lun_field(),
            manner,
            agreed,
            opening.depth,
            opening.truth.clone(),
            payload.clone(),
        );
        let mut session = Self {
            socket,
            inbox,
            nexus,
            payload,
        };
        for _ in 0..ATTENTIONS {
            session.nexus.ask_ready();
            session.flush()?;
            while !session.nexus.is_idle() {
                session.receive(Waiting::Yes)?;
            }
            if session.nexus.is_ready() {
                return Ok(session);
            }
        }
        anyhow::bail!("the unit behind {} is not ready", door.target)
    }

    /// Puts commands on their way as long as there is room; whether there are more.
    pub(super) fn fill(&mut self, source: &mut Source) -> bool {
        while self.nexus.has_room() {
            match source.next() {
                Some(io) => self.nexus.issue(io),
                None => return false,
            }
        }
        true
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.nexus.outbox.flush(&self.socket, &self.payload)
    }

    /// Whether something waits for the socket to take it.
    pub(super) fn has_to_send(&self) -> bool {
        !self.nexus.outbox.is_empty()
    }

    /// Whether no command is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.nexus.is_idle()
    }

    /// Takes what has come; whether that was anything.
    pub(super) fn receive(&mut self, waiting: Waiting) -> Result<bool> {
        let flags = match waiting {
            Waiting::Yes => RecvFlags::empty(),
            Waiting::No => RecvFlags::DONTWAIT,
        };
        let received = self.inbox.receive(&self.socket, flags, &mut self.nexus)?;
        ensure!(
            received != Received::Closed,
            "the target has closed the connection"
        );
        ensure!(
            received == Received::Some || waiting == Waiting::No,
            "the target says nothing"
        );
        Ok(received == Received::Some)
    }

    /// What has been done since this was asked last.
    pub(super) fn take_tally(&mut self) -> Tally {
        self.nexus.take_tally()
    }

    /// The socket, to wait for several of them.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

/// Whether to wait where nothing has come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Yes,
    No,
}
