//! Removing versions and images: refused while somebody uses them, unless by force.
//!
//! By force, clients that run a version are cut off first (rule 1), clones of it and what is kept of
//! them for undo are removed, and assignments stay as they are: such a client boots nothing until it
//! is assigned to something else, and is told why. Disks of clients go before the version does, so
//! that whatever interrupts it, no clone is without its version; the same command again does the rest.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Use;
use crate::library::clients::{Act, Change, Client, When, is_running};
use crate::library::document;
use crate::library::error::{Doing, Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::{ClientName, ImageName, VersionId, VersionSpec};
use crate::library::store::clone::Swap;
use crate::library::{Library, store};

/// What a removal takes, or took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    /// What goes.
    pub versions: Vec<VersionId>,
    /// Bytes that it frees, at least: what others share stays. Nothing where that is not known.
    pub frees: Option<u64>,
    /// Clients that are cut off first.
    pub cut_off: Vec<ClientName>,
    /// Initiators of others whose sessions are ended.
    pub ended: Vec<String>,
    /// Clients that lose a disk, or one that is kept for undo, for ever.
    pub discarded: Vec<ClientName>,
    /// Clients that stay assigned to what is gone, and boot nothing.
    pub dangling: Vec<ClientName>,
}

/// Refuses what goes further than what somebody was shown and agreed to.
pub(super) fn ensure_shown(further: Option<&VersionId>, what: &str) -> Result<()> {
    match further {
        None => Ok(()),
        Some(version) => Err(Error::refused(
            what.to_owned(),
            format!("it would now take {version}, too, which was not shown before"),
            "look again, and repeat it",
        )),
    }
}

impl Removal {
    /// What it does to others, one line each; nothing where nobody uses what goes.
    pub fn consequences(&self) -> Vec<String> {
        let clients = |names: &[ClientName], what: &str| {
            let names: Vec<&str> = names.iter().map(ClientName::as_str).collect();
            (!names.is_empty()).then(|| format!("{}: {what}", names.join(", ")))
        };
        let mut lines = Vec::new();
        lines.extend(clients(
            &self.cut_off,
            "the running boot is cut off its disk, unsaved work is lost",
        ));
        if !self.ended.is_empty() {
            let names = self.ended.join(", ");
            lines.push(format!("{names}: its sessions are ended"));
        }
        lines.extend(clients(
            &self.discarded,
            "the disk that was made from it, and what is kept for undo, is lost for ever",
        ));
        lines.extend(clients(
            &self.dangling,
            "stays assigned to what is gone, and boots nothing until it is assigned anew",
        ));
        lines
    }
}

impl Library {
    /// Removes a version for ever. Refused while a client is assigned to it, runs it or has a clone
    /// of it, and for the current version while the image has others.
    pub fn remove_version(
        &self,
        version: &VersionId,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<()> {
        let spec = VersionSpec::from(version.clone());
        self.remove(&spec, When::Now, live, actor).map(|_| ())
    }

    /// Removes an image with all its versions, for ever. Refused as for a version, and while a build
    /// of it runs.
    pub fn remove_image(&self, image: &ImageName, live: &dyn Live, actor: &Actor) -> Result<()> {
        let spec = VersionSpec::from(image.clone());
        self.remove(&spec, When::Now, live, actor).map(|_| ())
    }

    /// Removes a version, or an image with all its versions where `spec` names none. Tells what it
    /// took. [`When::Force`] removes what is used, too: see the module.
    pub fn remove(
        &self,
        spec: &VersionSpec,
        when: When,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Removal> {
        self.remove_shown(spec, when, None, live, actor)
    }

    /// The same, unless it takes something that is not among `shown`, to which somebody agreed.
    pub fn remove_shown(
        &self,
        spec: &VersionSpec,
        when: When,
        shown: Option<&[VersionId]>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Removal> {
        let removal = self.plan_removal(spec, when, live)?;
        if let Some(shown) = shown {
            let further = removal
                .versions
                .iter()
                .find(|version| !shown.contains(version));
            ensure_shown(further, &format!("removing {spec}"))?;
        }
        if when == When::Force {
            for client in self.users_among(&removal.versions)? {
                if runs_one_of(&client, &removal.versions, live) {
                    self.cut_off(&client.mac, live)?;
                }
            }
        }
        let lock = self.write_lock()?;
        // Looked at again: nobody can begin to use it while the lock is held.
        if self.check_removal(spec, when, live)? != removal.versions {
            return Err(Error::refused(
                format!("removing {spec}"),
                "its versions have changed meanwhile",
                "look at them with `netroot image show`, and repeat it",
            ));
        }
        if when == When::Force {
            self.release(&lock, &removal.versions, live)?;
        }
        match (spec.number, removal.versions.as_slice()) {
            (Some(_), [version]) => self.take_out(&lock, version)?,
            _ => self.take_out_image(&lock, &spec.image)?,
        }
        drop(lock);
        if when == When::Force {
            // Those who only read: nobody can log in to it any more.
            live.evict(&removal.versions);
        }
        self.sweep()?;
        let event = Event::new(actor, "image-remove").of(spec);
        let consequences = removal.consequences();
        self.note(&match consequences.is_empty() {
            true => event,
            false => event.with("forced", consequences),
        });
        Ok(removal)
    }

    /// What `remove` would take, or why it would be refused.
    pub fn plan_removal(&self, spec: &VersionSpec, when: When, live: &dyn Live) -> Result<Removal> {
        let versions = self.check_removal(spec, when, live)?;
        let mut removal = Removal {
            frees: self.freed_by(&versions)?,
            ..Removal::default()
        };
        for client in self.users_among(&versions)? {
            if runs_one_of(&client, &versions, live) {
                removal.cut_off.push(client.name.clone());
            }
            if has_disk_of(&client, &versions) {
                removal.discarded.push(client.name.clone());
            }
            if is_assigned(&client, spec) {
                removal.dangling.push(client.name.clone());
            }
        }
        for gone in self.removed()? {
            if has_disk_of(&gone.client, &versions) {
                removal.discarded.push(gone.client.name);
            }
        }
        let readers = live
            .sessions()
            .into_iter()
            .filter(|session| session.client.is_none() && versions.contains(&session.version));
        removal
            .ended
            .extend(readers.map(|session| session.initiator));
        removal.ended.sort();
        removal.ended.dedup();
        removal.versions = versions;
        Ok(removal)
    }

    /// The versions that go, or why they stay.
    fn check_removal(
        &self,
        spec: &VersionSpec,
        when: When,
        live: &dyn Live,
    ) -> Result<Vec<VersionId>> {
        let versions = match spec.number {
            Some(_) => vec![self.removable_version(spec)?],
            None => self.removable_image(&spec.image)?,
        };
        for version in &versions {
            if self.is_under_trial(version)? {
                return Err(Error::refused(
                    format!("removing {spec}"),
                    format!("{version} is being tested"),
                    "wait for that, or end it first",
                ));
            }
        }
        if when == When::Force {
            return Ok(versions);
        }
        let sessions = live.sessions();
        let mut users = Vec::new();
        for version in &versions {
            let uses = self.uses_of(version, &sessions)?;
            users.extend(uses.iter().map(Use::to_string));
        }
        if spec.number.is_none() {
            // Those too that are pinned to a version that is not there.
            let clients = self.clients()?.into_iter();
            users.extend(
                clients
                    .filter(|client| client.image.image == spec.image)
                    .map(|client| format!("client {} is assigned to it", client.name)),
            );
        }
        users.sort();
        users.dedup();
        refuse_used(spec, users)?;
        Ok(versions)
    }

    fn removable_version(&self, spec: &VersionSpec) -> Result<VersionId> {
        let version = self.resolve(spec)?.id().clone();
        let image = self.image(&version.image)?;
        if image.current == Some(version.number) && image.versions.len() > 1 {
            return Err(Error::refused(
                format!("removing {version}"),
                "it is the current version: clients would get another one at their next boot",
                format!(
                    "make another version current first, with `netroot image rollback {} VERSION`",
                    version.image
                ),
            ));
        }
        Ok(version)
    }

    fn removable_image(&self, image: &ImageName) -> Result<Vec<VersionId>> {
        let versions = self.image(image)?.ids();
        if store::has_live_draft(&self.places().image(image))? {
            return Err(Error::refused(
                format!("removing {image}"),
                "a build of it is running",
                "wait for it, or end it first",
            ));
        }
        Ok(versions)
    }

    /// Clients that have to do with one of these versions.
    fn users_among(&self, versions: &[VersionId]) -> Result<Vec<Client>> {
        let mut clients = self.clients()?;
        clients.retain(|client| {
            versions
                .iter()
                .any(|version| assignments(client).any(|meant| meant.image == version.image))
                || has_disk_of(client, versions)
                || booted_one_of(client, versions)
        });
        Ok(clients)
    }

    /// Takes all disks that were made from `versions` away from their clients, for ever. Refused if
    /// one of them is running after all.
    fn release(&self, lock: &WriteLock, versions: &[VersionId], live: &dyn Live) -> Result<()> {
        let clients = self.users_among(versions)?;
        if let Some(client) = clients
            .iter()
            .find(|client| runs_one_of(client, versions, live))
        {
            return Err(Error::refused(
                "removing what is used",
                format!("client {} has booted again meanwhile", client.name),
                "repeat it",
            ));
        }
        for client in clients {
            let mut client = self.client_to_change(lock, &client.mac)?;
            if !has_disk_of(&client, versions) {
                continue;
            }
            client.lose_kept(versions);
            let out = client.clone.take_if(|clone| versions.contains(&clone.from));
            let swap = Swap {
                out,
                // Also where only a disk that was kept goes, and nothing moves.
                prunes: true,
                ..Swap::default()
            };
            self.commit(lock, Change { client, swap })?;
        }
        for gone in self.removed_to_change(lock)? {
            if has_disk_of(&gone.client, versions) {
                self.lose_of_removed(lock, gone, versions)?;
            }
        }
        Ok(())
    }

    /// Puts a version where the sweep completes its removal.
    fn take_out(&self, lock: &WriteLock, version: &VersionId) -> Result<()> {
        document::remove(lock, &self.places().trial(version))?;
        let home = self.places().image(&version.image);
        let name = store::random_name().doing("drawing a name in", &home)?;
        let place = self.places().version(version);
        fs::rename(&place, home.join(format!("{}{name}", store::REMOVED)))
            .doing("removing", &place)?;
        document::sync_dir(&home)?;
        // What is said of an image goes with its last version.
        match self.numbers(&version.image)?.is_empty() {
            true => self.say_of_image(lock, &version.image, None),
            false => Ok(()),
        }
    }

    /// All of it or nothing: the sweep removes what it finds there, version by version.
    fn take_out_image(&self, lock: &WriteLock, image: &ImageName) -> Result<()> {
        let place = self.places().image(image);
        self.keep_drawn(lock, image)?;
        for number in self.numbers(image)? {
            let image = image.clone();
            let trial = self.places().trial(&VersionId { image, number });
            document::remove(lock, &trial)?;
        }
        let images = self.places().images();
        let name = store::random_name().doing("drawing a name for", &place)?;
        fs::rename(&place, images.join(format!("{}{name}", store::REMOVED)))
            .doing("removing", &place)?;
        document::sync_dir(&images)
    }

    /// Bytes that nobody else shares, of all these versions.
    pub(super) fn freed_by(&self, versions: &[VersionId]) -> Result<Option<u64>> {
        let usages = versions.iter().map(|version| self.usage(version));
        let all: store::Usage = usages.sum::<Result<_>>()?;
        Ok(all.exclusive)
    }
}

fn has_disk_of(client: &Client, versions: &[VersionId]) -> bool {
    let mut disks = client.clone.iter().chain(client.kept_disks());
    disks.any(|clone| versions.contains(&clone.from))
}

fn booted_one_of(client: &Client, versions: &[VersionId]) -> bool {
    client
        .boot
        .as_ref()
        .is_some_and(|boot| versions.contains(&boot.version))
}

fn runs_one_of(client: &Client, versions: &[VersionId], live: &dyn Live) -> bool {
    let has_session = || {
        let sessions = live.sessions_of(&client.mac);
        sessions
            .iter()
            .any(|session| versions.contains(&session.version))
    };
    is_running(client, live) && (booted_one_of(client, versions) || has_session())
}

/// Whether a client's assignment names what goes; one that follows an image goes on with what is
/// current there, unless the whole image goes.
fn is_assigned(client: &Client, gone: &VersionSpec) -> bool {
    let mut meant = assignments(client);
    meant.any(|meant| {
        meant.image == gone.image && (gone.number.is_none() || meant.number == gone.number)
    })
}

/// What a client boots, and what it is to boot from its next boot on.
fn assignments(client: &Client) -> impl Iterator<Item = &VersionSpec> {
    let armed = client.armed.as_ref().and_then(|armed| match &armed.act {
        Act::Assign(to) => to.image.as_ref(),
        _ => None,
    });
    std::iter::once(&client.image).chain(armed)
}

fn refuse_used(what: &dyn fmt::Display, users: Vec<String>) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let more = users.len().saturating_sub(5);
    let mut why = users.into_iter().take(5).collect::<Vec<_>>().join(", ");
    if more > 0 {
        why.push_str(&format!(" and {more} more"));
    }
    Err(Error::refused(
        format!("removing {what}"),
        why,
        "assign those clients to another image or version first, or use --force, which cuts them off",
    ))
}
