//! The logins of a client's boots (rule 2): a reconnect changes nothing, a new boot fences the older
//! one and gets its disk ready.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{Caller, Entry, Grant, GrantedDisk, Login, LoginError};
use crate::library::boots::{Beginning, Boot, BootId, BootState, Kind, Verdict, disk_target};
use crate::library::clients::{Client, DiskChange, Ready};
use crate::library::error::{Error, Result};
use crate::library::events::Event;
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::{Mode, VersionId};
use crate::library::{Library, MacAddr, Target, document};

impl Library {
    pub(super) fn login_boot(
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
        let is_data = self.data_target(&client, &own)?.as_ref() == Some(target);
        if own != *target && !is_data {
            return Err(LoginError::Forbidden(format!(
                "the disk of this boot is {}",
                self.target_name(&own)
            )));
        }
        let beginning = match self.judge(&client, &id)? {
            Verdict::Reconnect => return self.reconnect(&lock, client, is_data, caller, enter),
            Verdict::Begin(beginning) => beginning,
            Verdict::Refused(why) => return Err(LoginError::Forbidden(why)),
        };
        if is_data {
            return Err(LoginError::Forbidden(format!(
                "a boot begins with its root: log in to {} first",
                self.target_name(&own)
            )));
        }
        self.note_entering(&lock, client, &id, beginning, caller.peer.ip())?;
        drop(lock);
        live.fence(&mac, Some(&id));
        let lock = self.write_lock()?;
        let client = self.client_or_forbidden(&lock, &mac)?;
        // Another session of this boot may have gone through meanwhile, or a newer boot begun.
        match self.judge(&client, &id)? {
            Verdict::Reconnect => self.reconnect(&lock, client, false, caller, enter),
            Verdict::Begin(beginning) if beginning.kind == Kind::Once => {
                self.begin_once(&lock, client, caller, enter)
            }
            Verdict::Begin(_) => self.begin(&lock, client, &id, caller, enter),
            Verdict::Refused(why) => Err(LoginError::Forbidden(why)),
        }
    }

    /// The target that a boot may open, or why it may open none.
    pub(super) fn target_of(
        &self,
        client: &Client,
        id: &BootId,
    ) -> Result<std::result::Result<Target, String>> {
        let booting = self.booting(client, id)?;
        Ok(booting.map(|(version, mode)| disk_target(client, &version, mode)))
    }

    /// What a boot of this id runs, or why it may run nothing any more.
    pub fn booting(
        &self,
        client: &Client,
        id: &BootId,
    ) -> Result<std::result::Result<(VersionId, Mode), String>> {
        Ok(match self.judge(client, id)? {
            Verdict::Refused(why) => Err(why),
            Verdict::Begin(Beginning { version, mode, .. }) => Ok((version, mode)),
            Verdict::Reconnect => match client.boot.as_ref() {
                Some(boot) => Ok((boot.version.clone(), boot.mode)),
                None => Err("the client has no boot".into()),
            },
        })
    }

    /// The target of a client's data disk, where that of its root is one that others have too.
    pub(super) fn data_target(&self, client: &Client, root: &Target) -> Result<Option<Target>> {
        let own = Target::Clone(client.mac);
        let has_one = *root != own && self.settings(client)?.data().is_some();
        Ok(has_one.then_some(own))
    }

    fn client_or_forbidden(
        &self,
        lock: &WriteLock,
        mac: &MacAddr,
    ) -> std::result::Result<Client, LoginError> {
        let client = self
            .client_to_change(lock, mac)
            .map_err(|error| match error {
                Error::Unknown { .. } => LoginError::Forbidden(format!("there is no client {mac}")),
                other => LoginError::Failed(other),
            })?;
        // Sessions are fenced by the first address, so a name with another one would evade that.
        if client.mac != *mac {
            return Err(LoginError::Forbidden(format!(
                "{mac} is a further address of client {}: its boots are named by {}",
                client.name, client.mac
            )));
        }
        // Not for ever: whoever tries again is let in when the copy is made.
        if self.is_held(mac)? {
            return Err(LoginError::Failed(Error::refused(
                format!("a login of client {}", client.name),
                "its disk is being copied for an image",
                "it is let in when that is done",
            )));
        }
        Ok(client)
    }

    /// From now on every older boot is refused.
    fn note_entering(
        &self,
        lock: &WriteLock,
        mut client: Client,
        id: &BootId,
        beginning: Beginning,
        peer: IpAddr,
    ) -> Result<()> {
        if client.boot.as_ref().is_some_and(|boot| boot.id == *id) {
            return Ok(());
        }
        let Beginning {
            version,
            mode,
            proof,
            ..
        } = beginning;
        // Refused before anybody is fenced for it.
        self.version(&version)?;
        client.boot = Some(Boot {
            id: *id,
            version,
            mode,
            proof,
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
        let due = client.armed.clone();
        let made = self.make_for(lock, &client, &ready, fresh, None)?;
        let client = self.become_ready(lock, &client, &ready, made, |after| {
            after.armed = waiting;
            if let Some(boot) = &mut after.boot {
                boot.version = version.clone();
                boot.mode = ready.assignment.mode;
                boot.state = BootState::Up;
                boot.peer = caller.peer.ip();
            }
        })?;
        if let Some(armed) = due {
            let event = Event::new(&caller.actor(), &armed.act.event()).of(&client.mac);
            self.note(&event.with("armed", armed.since.to_string()));
        }
        self.grant(lock, &client, false, (caller, Entry::NewBoot), enter)
    }

    /// The first login of a boot of something that was chosen at a menu: it reads a version. Disk and
    /// assignment stay, and so does what waits for a boot as it is assigned.
    fn begin_once(
        &self,
        lock: &WriteLock,
        mut client: Client,
        caller: Caller<'_>,
        enter: impl FnOnce(&Grant),
    ) -> Login {
        if let Some(boot) = &mut client.boot {
            boot.state = BootState::Up;
            boot.peer = caller.peer.ip();
        }
        document::write(lock, &self.places().client(&client.mac), &mut client)?;
        self.grant(lock, &client, false, (caller, Entry::NewBoot), enter)
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
        is_data: bool,
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
        self.grant(lock, &client, is_data, (caller, Entry::Reconnect), enter)
    }

    fn grant(
        &self,
        lock: &WriteLock,
        client: &Client,
        is_data: bool,
        (caller, entry): (Caller<'_>, Entry),
        enter: impl FnOnce(&Grant),
    ) -> Login {
        let Some(boot) = &client.boot else {
            return Err(LoginError::Forbidden("the client has no boot".into()));
        };
        let disk = if is_data {
            GrantedDisk::Data(client.mac)
        } else if boot.mode.has_clone() {
            GrantedDisk::Clone(client.mac, client.own_disk()?.id.clone())
        } else {
            GrantedDisk::Version(boot.version.clone())
        };
        if (is_data || boot.mode.has_clone())
            && let Err(error) = self.ready_data_at_login(lock, client)
            && is_data
        {
            return Err(error.into());
        }
        let target = match is_data {
            true => Target::Clone(client.mac),
            false => disk_target(client, &boot.version, boot.mode),
        };
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
}
