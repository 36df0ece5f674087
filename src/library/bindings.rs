//! Logins of initiators that no script of ours named: which version an alias means for them (rule 4).
//!
//! An alias is bound when an initiator first logs in by it, and does not move under a boot: the
//! initiator of the firmware, the kernel's and every reconnect get the same version. It moves when
//! that initiator discovers targets after its last session on the image ended, or a day after that.
//!
//! Only an end that was seen counts. A server that is killed or stopped sees none, and the clients
//! run on with their roots mounted: what was open then stays as it is until it is seen to end.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{self, Document};
use super::error::{Error, Result};
use super::images::Use;
use super::live::Live;
use super::lock::WriteLock;
use super::logins::{Caller, Grant};
use super::names::{ImageName, VersionId};
use super::{Library, manifest::Hash};

/// How long an initiator without a session keeps what an alias meant for it.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How exactly the time of the last session is noted; a note costs a write.
const NOTED: SignedDuration = SignedDuration::from_mins(10);
/// How many bindings there are at most: names are free, and strangers may make them up.
const MOST: usize = 4096;

/// What an alias means for one initiator at one address.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Binding {
    revision: u64,
    initiator: String,
    peer: IpAddr,
    version: VersionId,
    /// When it last had a session, as far as it was noted.
    last: Timestamp,
    /// It logged in, and nobody saw its last session end: it may be running.
    #[serde(default = "unknown_end")]
    open: bool,
}

/// Of a binding that does not say: nobody knows of its end.
fn unknown_end() -> bool {
    true
}

impl Binding {
    /// Whether the initiator may run on the version, or come back to it.
    fn is_kept(&self, now: Timestamp) -> bool {
        self.open || now.duration_since(self.last) < KEPT
    }
}

impl Document for Binding {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Library {
    /// The version that an alias means for an initiator; it is bound to it from now on.
    pub(super) fn bind(
        &self,
        lock: &WriteLock,
        caller: Caller<'_>,
        image: &ImageName,
    ) -> Result<VersionId> {
        let peer = caller.peer.ip();
        let path = self.binding(caller.initiator, peer, image);
        let now = Timestamp::now();
        let bound: Option<Binding> = document::read(&path)?;
        let revision = bound.as_ref().map_or(0, |binding| binding.revision);
        if let Some(mut binding) = bound.filter(|binding| binding.is_kept(now)) {
            self.version(&binding.version)
                .map_err(|_| gone(&binding, &path))?;
            if !binding.open || now.duration_since(binding.last) >= NOTED {
                binding.open = true;
                binding.last = now;
                document::write(lock, &path, &mut binding)?;
            }
            return Ok(binding.version);
        }
        let version = self.resolve(&image.clone().into())?.id().clone();
        self.make_room(lock)?;
        let mut binding = Binding {
            revision,
            initiator: caller.initiator.to_owned(),
            peer,
            version: version.clone(),
            last: now,
            open: true,
        };
        document::write(lock, &path, &mut binding)?;
        Ok(version)
    }

    /// Discovery after the last session ended: the initiator boots anew, and gets what is current.
    pub(super) fn unbind(&self, caller: Caller<'_>, live: &dyn Live) -> Result<()> {
        let peer = caller.peer.ip();
        for image in self.images()? {
            let path = self.binding(caller.initiator, peer, &image.name);
            if path.exists() {
                let lock = self.write_lock()?;
                let ended = document::read::<Binding>(&path)?.is_some_and(|bound| !bound.open);
                if ended && !live.has_session(caller.initiator, peer, &image.name) {
                    document::remove(&lock, &path)?;
                }
            }
        }
        Ok(())
    }

    /// A session was seen to end: with the last one, the day begins to run.
    pub(super) fn binding_left(&self, grant: &Grant, live: &dyn Live) -> Result<()> {
        let (peer, image) = (grant.peer.ip(), &grant.version.image);
        let path = self.binding(&grant.initiator, peer, image);
        let lock = self.write_lock()?;
        let Some(mut binding) = document::read::<Binding>(&path)? else {
            return Ok(());
        };
        // Asked under the lock, which the login that takes a session's place takes too.
        let others = live.has_session(&grant.initiator, peer, image);
        if others || !binding.open || binding.version != grant.version {
            return Ok(());
        }
        binding.open = false;
        binding.last = Timestamp::now();
        document::write(&lock, &path, &mut binding)
    }

    /// The initiators that an alias binds to a version, and that may be running.
    pub(super) fn bound_to(&self, version: &VersionId) -> Result<Vec<Use>> {
        let mut users = Vec::new();
        for name in document::names(&self.places().bindings())? {
            let path = self.places().bindings().join(format!("{name}.json"));
            let Some(binding) = document::read::<Binding>(&path)? else {
                continue;
            };
            // Who was seen to leave runs nothing; if it comes back, it is told that the version is gone.
            if binding.open && binding.version == *version {
                users.push(Use::Bound {
                    initiator: binding.initiator,
                    peer: binding.peer,
                    note: path,
                });
            }
        }
        Ok(users)
    }

    /// Forgets the oldest where there are too many. Nobody is forgotten who may be running: as many
    /// as that had sessions at once when a server stopped.
    fn make_room(&self, lock: &WriteLock) -> Result<()> {
        let dir = self.places().bindings();
        let names = document::names(&dir)?;
        if names.len() < MOST {
            return Ok(());
        }
        let mut idle = Vec::new();
        for name in &names {
            let path = dir.join(format!("{name}.json"));
            let Some(binding) = document::read::<Binding>(&path)? else {
                continue;
            };
            if !binding.open {
                idle.push((binding.last, path));
            }
        }
        idle.sort();
        // A quarter at once, so that a flood of made-up names does not read them all each time.
        for (_, path) in idle.iter().take(names.len() - MOST * 3 / 4) {
            document::remove(lock, path)?;
        }
        Ok(())
    }

    fn binding(&self, initiator: &str, peer: IpAddr, image: &ImageName) -> PathBuf {
        let key = Hash(Sha256::digest(format!("{initiator}\n{peer}\n{image}")).into());
        self.places().bindings().join(format!("{key}.json"))
    }
}

/// The version was removed by hand: another disk does not take its place under a boot.
fn gone(binding: &Binding, path: &Path) -> Error {
    let Binding {
        initiator,
        peer,
        version,
        ..
    } = binding;
    Error::refused(
        format!("letting {initiator} at {peer} in"),
        format!("its boot runs {version}, which cannot be read"),
        format!(
            "switch that machine off, then remove {}, and it gets what is current",
            path.display()
        ),
    )
}
