//! Who did what, and what each client did: one file a server and day, append only.
//!
//! `read` looks for them, `export` writes them for other programs, `backwards` reads a file from its end.

mod backwards;
mod export;
mod read;

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub use export::Format;
pub use read::{Cursor, Events, Filter, Moment, Recorded};

use super::Library;
use super::error::{Doing, Error, Result, chain};
use super::names::VersionId;
use super::owner;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// A user of this host, by a command.
    Command {
        /// The user's number.
        uid: u32,
    },
    /// A user of this host, through the control socket: the peer's credentials.
    Socket {
        /// The user's number.
        uid: u32,
        /// The process.
        pid: i32,
    },
    /// A user of the dashboard or the API.
    User {
        /// The user's name.
        name: String,
        /// The address that the request came from.
        peer: String,
    },
    /// A program that shows a token of the API.
    Token {
        /// The token's name.
        name: String,
        /// The address that the request came from.
        peer: String,
    },
    /// A client's own login.
    Client {
        /// The initiator's name.
        initiator: String,
        /// Its address.
        peer: String,
    },
    /// The server itself.
    Server,
}

impl Actor {
    /// Whoever runs this process.
    pub fn command() -> Self {
        Actor::Command {
            uid: nix::unistd::getuid().as_raw(),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Command { uid: 0 } => f.write_str("root"),
            Actor::Command { uid } => write!(f, "user {uid}"),
            Actor::Socket { uid: 0, pid } => write!(f, "root (process {pid})"),
            Actor::Socket { uid, pid } => write!(f, "user {uid} (process {pid})"),
            Actor::User { name, peer } => write!(f, "{name} at {peer}"),
            Actor::Token { name, peer } => write!(f, "token {name} at {peer}"),
            Actor::Client { initiator, peer } if initiator.is_empty() => {
                write!(f, "somebody at {peer}")
            }
            Actor::Client { initiator, peer } => write!(f, "{initiator} at {peer}"),
            Actor::Server => f.write_str("the server"),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: Actor,
    /// What: `client-reset`, `image-remove`, `boot`, ...
    pub what: String,
    /// To what: a client's address, an image, a version.
    pub to: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl Event {
    /// Something that happens now.
    pub fn new(by: &Actor, what: &str) -> Self {
        Event {
            at: Timestamp::now(),
            by: by.clone(),
            what: what.to_owned(),
            to: None,
            details: Map::new(),
        }
    }

    /// What it is done to.
    pub fn of(mut self, to: &dyn fmt::Display) -> Self {
        self.to = Some(to.to_string());
        self
    }

    /// Done to a version.
    pub fn of_version(self, version: &VersionId) -> Self {
        self.of(version)
    }

    /// One more thing to know about it.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

/// Keeps what strangers cause from filling the disk. Each initiator is told of once a minute; names
/// are free, so each address has its share of them, and all together have no more than a disk bears.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Minute>);

/// What was told of in this minute: never more than [`Throttle::ALL`].
#[derive(Debug, Default)]
struct Minute {
    began: Option<Instant>,
    told: Vec<(IpAddr, String)>,
}

impl Throttle {
    const MINUTE: Duration = Duration::from_secs(60);
    /// How many of one address: some hosts are several initiators, or stand for others (NAT).
    const OF_ONE: usize = 6;
    /// How many of all.
    const ALL: usize = 60;

    /// Whether to tell of something that `initiator` at `peer` caused.
    pub(crate) fn is_news(&self, peer: IpAddr, initiator: &str) -> bool {
        self.is_news_at(Instant::now(), peer, initiator)
    }

    fn is_news_at(&self, now: Instant, peer: IpAddr, initiator: &str) -> bool {
        // A panic elsewhere leaves the list whole.
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.began.is_none_or(|began| now - began >= Self::MINUTE) {
            minute.began = Some(now);
            minute.told.clear();
        }
        let of_one = || minute.told.iter().filter(|(ip, _)| *ip == peer);
        if minute.told.len() >= Self::ALL
            || of_one().count() >= Self::OF_ONE
            || of_one().any(|(_, name)| name == initiator)
        {
            return false;
        }
        minute.told.push((peer, initiator.to_owned()));
        true
    }
}

impl Library {
    /// Records what was done. It stays done if that cannot be written down; the log says so.
    pub(crate) fn note(&self, event: &Event) {
        if let Err(error) = self.record(event) {
            tracing::warn!("{}; the event `{}` is lost", chain(&error), event.what);
        }
    }

    /// Appends to this server's file of today. One write a line, so that lines of several processes
    /// do not mix.
    pub fn record(&self, event: &Event) -> Result<()> {
        let dir = self.places().events();
        let day = event.at.strftime("%Y-%m-%d");
        let path = dir.join(format!("{day}-{}.jsonl", self.server_name()));
        let mut line = serde_json::to_vec(event).map_err(|source| Error::Document {
            path: path.clone(),
            source,
        })?;
        line.push(b'\n');
        let appended = owner::acting_for(&dir, || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)?
                .write_all(&line)
        });
        appended.doing("appending to", &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_at_once_is_no_news() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let news = |seconds, host: u16, name: &str| {
            let peer = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host);
            throttle.is_news_at(start + Duration::from_secs(seconds), peer.into(), name)
        };
        assert!(news(0, 1, "a"));
        assert!(!news(1, 1, "a"));
        assert!(news(1, 1, "b"));
        assert!(news(1, 2, "a"));
        // Names are free, and so are addresses.
        let more = (0..1000).filter(|n| news(2, 1, &format!("made-up:{n}")));
        assert_eq!(more.count(), Throttle::OF_ONE - 2);
        let more = (3..1000).filter(|&host| news(2, host, "made-up"));
        assert_eq!(more.count(), Throttle::ALL - Throttle::OF_ONE - 1);
        assert_eq!(throttle.0.lock().unwrap().told.len(), Throttle::ALL);
        assert!(news(60, 1, "a"), "the next minute");
    }
}
