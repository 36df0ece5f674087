//! What killed commands left is cleaned up by the next one, which says so (rule 7).

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::draft::{is_dead, remove_tree};
use super::{DRAFT, REMOVED, SETTINGS, UNDER_TRIAL, clone, held};
use crate::library::document;
use crate::library::error::{Error, Result, chain};
use crate::library::names::{ClientName, ImageName, VersionId};
use crate::library::{JobId, Library, MacAddr, minute};

/// Something that was found half-done, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Swept {
    /// A draft whose maker is gone was removed.
    Draft {
        /// The image that it was for.
        image: ImageName,
    },
    /// The removal of a version was completed.
    Removal {
        /// Its image.
        image: ImageName,
    },
    /// The removal of a whole image was completed.
    Image,
    /// A version that was published and not yet made current was made current.
    Current {
        /// The version.
        version: VersionId,
    },
    /// A client's interrupted change was completed.
    Client {
        /// The client.
        mac: MacAddr,
    },
    /// A clone that was made and never used was removed.
    Clone {
        /// The client.
        mac: MacAddr,
    },
    /// A disk that was kept for undo was removed, because its time was over.
    Kept {
        /// Whose it was.
        client: ClientName,
        /// When it was set aside.
        since: Timestamp,
    },
    /// The disks of a client that was removed are gone, because their time was over.
    Removed {
        /// What it was called.
        client: ClientName,
        /// When it was removed.
        since: Timestamp,
    },
    /// What was left of a volume that was being made or removed was removed.
    Volume {
        /// What it was known by.
        id: String,
    },
    /// A job whose worker was killed was marked as failed.
    Job {
        /// Its number.
        id: JobId,
    },
    /// A temporary file was removed.
    Temporary {
        /// Where it was.
        path: PathBuf,
    },
    /// Something could not be removed; the next command tries again.
    Left {
        /// What.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Swept::Draft { image } => write!(f, "removed an unfinished draft of {image}"),
            Swept::Removal { image } => write!(f, "completed the removal of a version of {image}"),
            Swept::Image => f.write_str("completed the removal of an image"),
            Swept::Current { version } => write!(
                f,
                "made {version} current, as its interrupted build meant to"
            ),
            Swept::Client { mac } => write!(f, "completed an interrupted change of client {mac}"),
            Swept::Clone { mac } => write!(f, "removed an unfinished clone of client {mac}"),
            Swept::Kept { client, since } => write!(
                f,
                "removed the disk of client {client} that was kept since {}: its time was over",
                minute(*since)
            ),
            Swept::Removed { client, since } => write!(
                f,
                "removed the disks of {client}, a client until {}: their time was over",
                minute(*since)
            ),
            Swept::Volume { id } => write!(f, "removed what was left of volume {id}"),
            Swept::Job { id } => write!(f, "job {id} failed: its worker was killed"),
            Swept::Temporary { path } => write!(f, "removed {}", path.display()),
            Swept::Left { path, why } => write!(
                f,
                "{} is still there ({why}); unmount what is mounted below it",
                path.display()
            ),
        }
    }
}

impl Swept {
    /// It, and why it had to be done.
    pub fn told(&self) -> String {
        match self {
            // That was only due.
            Swept::Kept { .. } | Swept::Removed { .. } => self.to_string(),
            _ => format!("an earlier command was interrupted: {self}"),
        }
    }
}

impl Library {
    /// Cleans up after killed commands. Every command calls it first and shows what it returns.
    pub fn sweep(&self) -> Result<Vec<Swept>> {
        let mut swept = Vec::new();
        let lock = self.write_lock()?;
        for name in document::entries(&self.places().images())? {
            if let Ok(image) = name.parse::<ImageName>() {
                self.sweep_image(&lock, &image, &mut swept)?;
            } else if name.starts_with(REMOVED) {
                let dir = self.places().images().join(name);
                swept.push(removed(remove_image(&dir), &dir, Swept::Image));
            }
        }
        for name in document::names(&self.places().pending_all())? {
            if let Ok(mac) = name.parse::<MacAddr>()
                && self.finish_pending(&lock, &mac)?
            {
                swept.push(Swept::Client { mac });
            }
        }
        let places = self.places();
        for dir in [
            places.images(),
            places.clients(),
            places.pending_all(),
            places.boots_all(),
            places.bindings(),
            places.jobs(),
            places.strangers(),
            places.volumes(),
            places.groups(),
            places.rollouts(),
            places.trials(),
            places.removed(),
        ] {
            let files = document::sweep(&lock, &dir)?;
            swept.extend(files.into_iter().map(|path| Swept::Temporary { path }));
        }
        for name in document::entries(&places.trials())? {
            if name.ends_with(UNDER_TRIAL) {
                held::sweep(&places.trials().join(name))?;
            }
        }
        for dir in [
            places.users(),
            places.tokens(),
            places.secrets(),
            places.reservations(),
        ] {
            match document::sweep(&lock, &dir) {
                Ok(files) => swept.extend(files.into_iter().map(|path| Swept::Temporary { path })),
                // Whoever may not look into them has left nothing there, either.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        for name in document::entries(&places.clones())? {
            if name.starts_with(REMOVED) {
                clone::remove_all(&places.clones().join(name))?;
            } else if let Ok(mac) = name.parse::<MacAddr>() {
                held::sweep(&places.held(&mac))?;
                if clone::sweep_new(&places.clone(&mac))? {
                    swept.push(Swept::Clone { mac });
                }
            }
        }
        swept.extend(self.sweep_volumes(&lock)?);
        self.sweep_kept(&lock, Timestamp::now(), &mut swept)?;
        drop(lock);
        let settled = self.settle_jobs()?;
        swept.extend(settled.into_iter().map(|id| Swept::Job { id }));
        Ok(swept)
    }

    fn sweep_image(
        &self,
        lock: &crate::library::lock::WriteLock,
        image: &ImageName,
        swept: &mut Vec<Swept>,
    ) -> Result<()> {
        let home = self.places().image(image);
        for name in document::entries(&home)? {
            let dir = home.join(&name);
            if name.starts_with(DRAFT) && is_dead(&dir)? {
                let image = image.clone();
                swept.push(removed(remove_tree(&dir), &dir, Swept::Draft { image }));
            } else if name.starts_with(REMOVED) {
                let image = image.clone();
                swept.push(removed(remove_tree(&dir), &dir, Swept::Removal { image }));
            }
        }
        let files = document::sweep(lock, &home)?;
        swept.extend(files.into_iter().map(|path| Swept::Temporary { path }));
        if let Some(version) = self.finish_publishing(lock, image)? {
            swept.push(Swept::Current { version });
        }
        // What a first version was to begin with that came to nothing.
        if document::entries(&home)? == [SETTINGS] {
            self.say_of_image(lock, image, None)?;
        }
        // Goes when it was made for a draft that came to nothing.
        let _ = fs::remove_dir(&home);
        Ok(())
    }
}

/// What is told of a removal: one that failed is no reason to do nothing else.
fn removed(done: Result<()>, dir: &Path, told: Swept) -> Swept {
    match done {
        Ok(()) => told,
        Err(error) => Swept::Left {
            path: dir.to_owned(),
            why: chain(&error),
        },
    }
}

/// Removes what was an image: its versions, dead drafts and all.
fn remove_image(dir: &Path) -> Result<()> {
    for name in document::entries(dir)? {
        let path = dir.join(name);
        if path.is_dir() {
            remove_tree(&path)?;
        }
    }
    remove_tree(dir)
}
