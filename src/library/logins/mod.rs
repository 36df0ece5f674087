//! Logins: who may see and open which disk (rules 2 to 4).
//!
//! A login is decided under the write lock, and the session is made known under it too, so that no
//! reset comes between the two. While an older boot is fenced no lock is held; the document says
//! *entering* meanwhile, and everything is looked at again afterwards.

mod boot;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::boots::{BootId, BootState};
use super::error::{Error, Result, chain};
use super::events::{Actor, Event};
use super::live::Live;
use super::names::VersionId;
use super::wire::Who;
use super::{Library, MacAddr, Target, document};

/// Who asks: an initiator by its name, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The initiator's name.
    pub initiator: &'a str,
    /// Its address, IPv4-mapped ones as IPv4.
    pub peer: SocketAddr,
}

/// A session that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The disk.
    pub disk: GrantedDisk,
    /// The version that it is, or that its clone was made from.
    pub version: VersionId,
    /// The client's address, if it is one of the library's.
    pub client: Option<MacAddr>,
    /// The client's boot.
    pub boot: Option<BootId>,
    /// How it was let in.
    pub entry: Entry,
    /// A name for the disk that never means another one, for its identifier and serial.
    pub identity: String,
    /// The initiator's name.
    pub initiator: String,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// The disk of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantedDisk {
    /// A version, read-only.
    Version(VersionId),
    /// A client's clone, with its data disk if it has one. The second part tells it from the client's next
    /// one, so that nobody goes on with a disk that was replaced.
    Clone(MacAddr, String),
    /// A client's data disk alone, beside a version that it shares: the same over all its boots.
    Data(MacAddr),
}

/// How a session was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// It began a boot.
    NewBoot,
    /// It belongs to the boot that runs.
    Reconnect,
    /// It is nobody's boot: anyone may read a version.
    Reader,
}

/// Why a login fails.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no such target.
    #[error("there is no target `{0}`")]
    NotFound(String),
    /// The target is not for this initiator, or not any more.
    #[error("{0}")]
    Forbidden(String),
    /// The library could not do what the login needs; the initiator may try again.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl GrantedDisk {
    /// Whose it is, where it is one client's alone.
    pub fn client(&self) -> Option<&MacAddr> {
        match self {
            GrantedDisk::Version(_) => None,
            GrantedDisk::Clone(mac, _) | GrantedDisk::Data(mac) => Some(mac),
        }
    }
}

type Login = std::result::Result<Grant, LoginError>;

impl Library {
    /// The names of the targets that an initiator may see. Discovery lets its aliases move.
    pub fn visible(&self, caller: Caller<'_>, live: &dyn Live) -> Result<Vec<String>> {
        match self.who(caller.initiator) {
            Who::Forged => Ok(Vec::new()),
            Who::Boot(mac, id) => {
                let Some(client) = self.find_client(&mac)?.filter(|found| found.mac == mac) else {
                    return Ok(Vec::new());
                };
                let own = self.target_of(&client, &id)?.ok();
                let data = match &own {
                    Some(own) => self.data_target(&client, own)?,
                    None => None,
                };
                let targets = own.iter().chain(&data);
                Ok(targets.map(|target| self.target_name(target)).collect())
            }
            Who::Other => {
                self.unbind(caller, live)?;
                let mut names = Vec::new();
                for image in self.images()? {
                    let versions = image.versions.iter().map(|&number| VersionId {
                        image: image.name.clone(),
                        number,
                    });
                    if image.current.is_some() {
                        names.push(self.target_name(&Target::Alias(image.name.clone())));
                    }
                    names.extend(versions.map(|id| self.target_name(&Target::Version(id))));
                }
                Ok(names)
            }
        }
    }

    /// Lets a session in, or says why not. `enter` is called while no reset can come between: it
    /// makes the session known to `live`, and calls nothing of the library.
    pub fn login(
        &self,
        caller: Caller<'_>,
        target: &str,
        live: &dyn Live,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        let login = match self.parse_target(target) {
            None => Err(LoginError::NotFound(target.to_owned())),
            Some(target) => match self.who(caller.initiator) {
                Who::Boot(mac, id) => self.login_boot(caller, (mac, id), &target, live, enter),
                Who::Other => self.login_reader(caller, &target, enter),
                Who::Forged => Err(LoginError::Forbidden(format!(
                    "`{}` is not a name that this library gives",
                    caller.initiator
                ))),
            },
        };
        self.tell(caller, target, &login);
        login
    }

    /// To be told when a session is over, its commands have settled, and `live` does not know it any
    /// more. Not for sessions that a server ends because it stops: their clients run on, and have
    /// to find their boot *up* when the server is back.
    pub fn left(&self, grant: &Grant, live: &dyn Live) -> Result<()> {
        let (Some(mac), Some(id)) = (&grant.client, &grant.boot) else {
            return self.binding_left(grant, live);
        };
        let lock = self.write_lock()?;
        let mut client = match self.client_to_change(&lock, mac) {
            Ok(client) => client,
            // Removed meanwhile: there is nothing to note.
            Err(Error::Unknown { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let others = live.sessions_of(mac);
        if others
            .iter()
            .any(|session| session.boot.as_ref() == Some(id))
        {
            return Ok(());
        }
        match &mut client.boot {
            Some(boot) if boot.id == *id && boot.state == BootState::Up => {
                boot.state = BootState::Gone;
            }
            _ => return Ok(()),
        }
        document::write(&lock, &self.places().client(mac), &mut client)?;
        drop(lock);
        let actor = caller_of(grant).actor();
        let event = Event::new(&actor, "boot-gone").of(mac);
        self.note(&event.with("boot", id.to_string()));
        Ok(())
    }

    /// Anybody may read a version; a clone is its client's alone (rule 3).
    fn login_reader(
        &self,
        caller: Caller<'_>,
        target: &Target,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        let lock = self.write_lock()?;
        let found = match target {
            Target::Clone(mac) => {
                return Err(LoginError::Forbidden(format!(
                    "the disk of client {mac} is for its own boots only"
                )));
            }
            Target::Version(id) => self.version(id).map(|_| id.clone()),
            Target::Alias(image) => self.bind(&lock, caller, image),
        };
        let version = found.map_err(|error| match error {
            Error::Unknown { .. } | Error::NoVersion { .. } => {
                LoginError::NotFound(self.target_name(target))
            }
            other => LoginError::Failed(other),
        })?;
        let grant = Grant {
            disk: GrantedDisk::Version(version.clone()),
            identity: self.target_name(&Target::Version(version.clone())),
            version,
            client: None,
            boot: None,
            entry: Entry::Reader,
            initiator: caller.initiator.to_owned(),
            peer: caller.peer,
        };
        enter(&grant);
        Ok(grant)
    }

    /// Records boots and refusals. A login does not fail because it cannot be written down.
    fn tell(&self, caller: Caller<'_>, target: &str, login: &Login) {
        let event = match login {
            Ok(grant) if grant.entry == Entry::Reader => return,
            // No news beside the login to the root.
            Ok(Grant {
                disk: GrantedDisk::Data(_),
                ..
            }) => return,
            Ok(grant) => {
                let what = match grant.entry {
                    Entry::NewBoot => "boot",
                    Entry::Reconnect | Entry::Reader => "boot-reconnect",
                };
                let event =
                    Event::new(&caller.actor(), what).with("version", grant.version.to_string());
                match &grant.client {
                    Some(mac) => event.of(mac),
                    None => event,
                }
            }
            // A fenced initiator tries again every few seconds, for ever.
            Err(_) if !self.refusals.is_news(caller.peer.ip(), caller.initiator) => return,
            Err(error) => Event::new(&caller.actor(), "login-refused")
                .of(&target)
                .with("why", chain(error)),
        };
        self.note(&event);
    }
}

impl Caller<'_> {
    fn actor(&self) -> Actor {
        Actor::Client {
            initiator: self.initiator.to_owned(),
            peer: self.peer.to_string(),
        }
    }
}

fn caller_of(grant: &Grant) -> Caller<'_> {
    Caller {
        initiator: &grant.initiator,
        peer: grant.peer,
    }
}
