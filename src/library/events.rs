//! Who did what, and what each client did: one file a server and day, append only.

use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Library;
use super::error::{Doing, Error, Result, chain};
use super::names::VersionId;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            Actor::Command { uid } => write!(f, "user {uid}"),
            Actor::Socket { uid, pid } => write!(f, "user {uid} (process {pid})"),
            Actor::Client { initiator, peer } => write!(f, "{initiator} at {peer}"),
            Actor::Server => f.write_str("the server"),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Keeps what happens again and again from filling the disk: once a minute is enough.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<String, Instant>>);

impl Throttle {
    const PAUSE: Duration = Duration::from_secs(60);
    /// Names are free; more of them than this are forgotten.
    const MOST: usize = 1024;

    /// Whether this has not happened for a while.
    pub(crate) fn is_news(&self, what: &str) -> bool {
        // A panic elsewhere leaves the map whole.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.get(what).is_some_and(|then| now - *then < Self::PAUSE) {
            return false;
        }
        if last.len() >= Self::MOST {
            last.clear();
        }
        last.insert(what.to_owned(), now);
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
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&line))
            .doing("appending to", &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_at_once_is_no_news() {
        let throttle = Throttle::default();
        assert!(throttle.is_news("a"));
        assert!(!throttle.is_news("a"));
        assert!(throttle.is_news("b"));
        for n in 0..3 * Throttle::MOST {
            throttle.is_news(&n.to_string());
        }
        assert!(throttle.0.lock().unwrap().len() <= Throttle::MOST);
    }
}
