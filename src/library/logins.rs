//! Logins: who may see and open which disk (rules 2 to 4).
//!
//! A login is decided under the write lock, and the session is made known under it too, so that no
//! reset comes between the two. While an older boot is fenced no lock is held; the document says
//! *entering* meanwhile, and everything is looked at again afterwards.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::boots::{Boot, BootId, BootState, Verdict, disk_target};
use super::clients::{Client, DiskChange, Ready};
use super::error::{Error, Result};
use super::events::{Actor, Event};
use super::live::Live;
use super::lock::WriteLock;
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
    /// A version, read-only: [`Library::open_version`].
    Version(VersionId),
    /// A client's clone: [`Library::open_clone`]. The second part tells it from the client's next
    /// one, so that nobody goes on with a disk that was replaced.
    Clone(MacAddr, String),
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

type Login = std::result::Result<Grant, LoginError>;

impl Library {
    /// The names of the targets that an initiator may see. Discovery lets its aliases move.
    pub fn visible(&self, caller: Caller<'_>, live: &dyn Live) -> Result<Vec<String>> {
        match self.who(caller.initiator) {
            Who::Forged => Ok(Vec::new()),
            Who::Boot(mac, id) => {
                let target = match self.find_client(&mac)? {
                    Some(client) => self.target_of(&client, &id)?.ok(),
                    None => None,
                };
                Ok(target
                    .iter()
                    .map(|target| self.target_name(target))
                    .collect())
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
    /// makes the session known to `live`.
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
                Who::Other => self.login_reader(caller, &target, live, enter),
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
    /// more.
    pub fn left(&self, grant: &Grant, live: &dyn Live) -> Result<()> {
        let (Some(mac), Some(id)) = (&grant.client, &grant.boot) else {
            return self.binding_left(grant);
        };
        let lock = self.write_lock()?;
        // Removed meanwhile: there is nothing to note.
        let Some(mut client) = self.find_client(mac)? else {
            return Ok(());
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
        self.record(
            &Event::new(&actor, "boot-gone")
                .of(mac)
                .with("boot", id.to_string()),
        )
    }

    fn login_boot(
        &self,
        caller: Caller<'_>,
        (mac, id): (MacAddr, BootId),
        target: &Target,
        live: &dyn Live,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        let lock = self.write_lock()?;
        let client = self.client_or_forbidden(&lock, &mac)?;
        let own = self
            .target_of(&client, &id)?
            .map_err(LoginError::Forbidden)?;
        if own != *target {
            return Err(LoginError::Forbidden(format!(
                "the disk of this boot is {}",
                self.target_name(&own)
            )));
        }
        if self.judge(&client, &id)? == Verdict::Reconnect {
            return self.reconnect(&lock, client, caller, enter);
        }
        self.note_entering(&lock, client, &id, caller.peer.ip())?;
        drop(lock);
        live.fence(&mac, Some(&id));
        let lock = self.write_lock()?;
        let client = self.client_or_forbidden(&lock, &mac)?;
        // Another session of this boot may have gone through meanwhile, or a newer boot begun.
        match self.judge(&client, &id)? {
            Verdict::Reconnect => self.reconnect(&lock, client, caller, enter),
            Verdict::Begin => self.begin(&lock, client, &id, caller, enter),
            Verdict::Refused(why) => Err(LoginError::Forbidden(why)),
        }
    }

    /// The target that a boot may open, or why it may open none.
    fn target_of(
        &self,
        client: &Client,
        id: &BootId,
    ) -> Result<std::result::Result<Target, String>> {
        let (version, mode) = match self.judge(client, id)? {
            Verdict::Refused(why) => return Ok(Err(why)),
            Verdict::Reconnect | Verdict::Begin => match client.boot.as_ref() {
                Some(boot) if boot.id == *id => (boot.version.clone(), boot.mode),
                _ => {
                    let next = client.next_boot()?;
                    (id.version_of(&next.assignment), next.assignment.mode)
                }
            },
        };
        Ok(Ok(disk_target(client, &version, mode)))
    }

    fn client_or_forbidden(
        &self,
        lock: &WriteLock,
        mac: &MacAddr,
    ) -> std::result::Result<Client, LoginError> {
        self.client_to_change(lock, mac)
            .map_err(|error| match error {
                Error::Unknown { .. } => LoginError::Forbidden(format!("there is no client {mac}")),
                other => LoginError::Failed(other),
            })
    }

    /// From now on every older boot is refused.
    fn note_entering(
        &self,
        lock: &WriteLock,
        mut client: Client,
        id: &BootId,
        peer: IpAddr,
    ) -> Result<()> {
        if client.boot.as_ref().is_some_and(|boot| boot.id == *id) {
            return Ok(());
        }
        let next = client.next_boot()?;
        let version = id.version_of(&next.assignment);
        // Refused before anybody is fenced for it.
        self.version(&version)?;
        client.boot = Some(Boot {
            id: *id,
            version,
            mode: next.assignment.mode,
            state: BootState::Entering,
            since: Timestamp::now(),
            peer,
        });
        document::write(lock, &self.places().client(&client.mac), &mut client)
    }

    /// The first login of a boot: what waited for it is done, an ephemeral disk made pristine.
    fn begin(
        &self,
        lock: &WriteLock,
        mut client: Client,
        id: &BootId,
        caller: Caller<'_>,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        // What was armed while this boot was entering may not fit its script: then it goes on
        // waiting for the next one.
        let (ready, waiting) = match self.fitting(&client, id)? {
            Some(ready) => (ready, None),
            None => {
                let waiting = client.armed.take();
                let ready = self.fitting(&client, id)?.ok_or_else(|| {
                    LoginError::Forbidden(
                        "the client was assigned to something else meanwhile; boot it again".into(),
                    )
                })?;
                (ready, waiting)
            }
        };
        let version = id.version_of(&ready.assignment);
        let fresh = matches!(ready.disk, DiskChange::Fresh(_)).then_some(&version);
        let client = self.become_ready(lock, &client, &ready, fresh, |after| {
            after.armed = waiting;
            if let Some(boot) = &mut after.boot {
                boot.version = version.clone();
                boot.mode = ready.assignment.mode;
                boot.state = BootState::Up;
                boot.peer = caller.peer.ip();
            }
        })?;
        self.grant(&client, caller, Entry::NewBoot, enter)
    }

    /// What the next boot gets, if that is what this boot's script was made for.
    fn fitting(&self, client: &Client, id: &BootId) -> Result<Option<Ready>> {
        let ready = client.next_boot()?;
        let fits = self.is_ours(client, id, &ready.assignment)?
            && ready
                .fixed
                .as_ref()
                .is_none_or(|version| version.number == id.version);
        Ok(fits.then_some(ready))
    }

    /// A session of the boot that runs: nothing changes, whatever happened in between.
    fn reconnect(
        &self,
        lock: &WriteLock,
        mut client: Client,
        caller: Caller<'_>,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        if let Some(boot) = &mut client.boot
            && (boot.state != BootState::Up || boot.peer != caller.peer.ip())
        {
            boot.state = BootState::Up;
            boot.peer = caller.peer.ip();
            document::write(lock, &self.places().client(&client.mac), &mut client)?;
        }
        self.grant(&client, caller, Entry::Reconnect, enter)
    }

    fn grant(
        &self,
        client: &Client,
        caller: Caller<'_>,
        entry: Entry,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        let boot = client
            .boot
            .as_ref()
            .ok_or_else(|| Error::unknown("boot", client.mac))?;
        let disk = match (&client.clone, boot.mode.has_clone()) {
            (Some(clone), true) => GrantedDisk::Clone(client.mac, clone.id.clone()),
            (None, true) => return Err(Error::unknown("clone", client.mac).into()),
            (_, false) => GrantedDisk::Version(boot.version.clone()),
        };
        let target = disk_target(client, &boot.version, boot.mode);
        let grant = Grant {
            disk,
            version: boot.version.clone(),
            client: Some(client.mac),
            boot: Some(boot.id),
            entry,
            identity: self.target_name(&target),
            initiator: caller.initiator.to_owned(),
            peer: caller.peer,
        };
        enter(&grant);
        Ok(grant)
    }

    /// Anybody may read a version; a clone is its client's alone (rule 3).
    fn login_reader(
        &self,
        caller: Caller<'_>,
        target: &Target,
        live: &dyn Live,
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
            Target::Alias(image) => self.bind(&lock, caller, image, live),
        };
        let version = found.map_err(|error| match error {
            Error::Unknown { .. } => LoginError::NotFound(self.target_name(target)),
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
            Err(error) => Event::new(&caller.actor(), "login-refused")
                .of(&target)
                .with("why", error.to_string()),
        };
        if let Err(error) = self.record(&event) {
            tracing::warn!("{error}: the event is lost");
        }
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
