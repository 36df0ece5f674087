//! Logins of initiators that no script of ours named: which version an alias means for them (rule 4).
//!
//! An alias is bound when an initiator first logs in by it, and does not move under a boot: the
//! initiator of the firmware, the kernel's and every reconnect get the same version. It moves when
//! that initiator discovers targets while it has no session on the image, or after a day without any.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{self, Document};
use super::error::Result;
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
        live: &dyn Live,
    ) -> Result<VersionId> {
        let peer = caller.peer.ip();
        let path = self.binding(caller.initiator, peer, image);
        let now = Timestamp::now();
        let bound: Option<Binding> = document::read(&path)?;
        let revision = bound.as_ref().map_or(0, |binding| binding.revision);
        let kept = bound.filter(|binding| {
            let fresh = now.duration_since(binding.last) < KEPT
                || live.has_session(caller.initiator, peer, image);
            fresh && self.version(&binding.version).is_ok()
        });
        if let Some(mut binding) = kept {
            if now.duration_since(binding.last) >= NOTED {
                binding.last = now;
                document::write(lock, &path, &mut binding)?;
            }
            return Ok(binding.version);
        }
        let version = self.resolve(&image.clone().into())?.id().clone();
        self.make_room(lock, live)?;
        let mut binding = Binding {
            revision,
            initiator: caller.initiator.to_owned(),
            peer,
            version: version.clone(),
            last: now,
        };
        document::write(lock, &path, &mut binding)?;
        Ok(version)
    }

    /// Discovery without a session: the initiator boots anew, and gets what is current.
    pub(super) fn unbind(&self, caller: Caller<'_>, live: &dyn Live) -> Result<()> {
        let peer = caller.peer.ip();
        for image in self.images()? {
            let path = self.binding(caller.initiator, peer, &image.name);
            if path.exists() {
                let lock = self.write_lock()?;
                if !live.has_session(caller.initiator, peer, &image.name) {
                    document::remove(&lock, &path)?;
                }
            }
        }
        Ok(())
    }

    /// A session is over: the day begins to run.
    pub(super) fn binding_left(&self, grant: &Grant) -> Result<()> {
        let path = self.binding(&grant.initiator, grant.peer.ip(), &grant.version.image);
        let lock = self.write_lock()?;
        let Some(mut binding) = document::read::<Binding>(&path)? else {
            return Ok(());
        };
        let now = Timestamp::now();
        if now.duration_since(binding.last) >= NOTED {
            binding.last = now;
            document::write(&lock, &path, &mut binding)?;
        }
        Ok(())
    }

    /// Forgets what is too old, and the oldest where there are too many. Nobody who has a session is
    /// forgotten.
    fn make_room(&self, lock: &WriteLock, live: &dyn Live) -> Result<()> {
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
            if !live.has_session(&binding.initiator, binding.peer, &binding.version.image) {
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
