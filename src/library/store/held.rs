//! A client's clone held still, so that it can be copied: nobody is let in to it meanwhile.
//!
//! A hold is a lock on a file beside the clone, so it is seen by every server of the library and goes
//! with the process that took it. Whoever runs already is found by asking who is connected *after*
//! the hold: nobody can come in between.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::copy::{self, CopyKind};
use super::{BLOCK_SIZE, CloneKind, Draft, clone, draft::new_file};
use crate::block::{FileDisk, OverlayDisk};
use crate::library::clients::Client;
use crate::library::error::{Doing, Error, Result};
use crate::library::live::LiveSession;
use crate::library::lock::WriteLock;
use crate::library::names::Mode;
use crate::library::progress::Progress;
use crate::library::store::clone::CloneInfo;
use crate::library::{Library, MacAddr, lock, minute, owner};

/// A clone that nobody is let in to while this lives. Somebody may be in already.
#[derive(Debug)]
pub struct Hold<'a> {
    library: &'a Library,
    client: Client,
    clone: CloneInfo,
    _held: HeldFile<'a>,
}

/// A file that is locked while this lives, and goes with it.
#[derive(Debug)]
pub(crate) struct HeldFile<'a> {
    library: &'a Library,
    path: PathBuf,
    file: File,
}

/// A clone that nobody writes while this lives.
#[derive(Debug)]
pub struct HeldClone<'a>(Hold<'a>);

impl Library {
    /// Holds a client's clone, unless its last boot may be running on it. A login of the client is
    /// refused until the hold ends, and may be tried again.
    pub fn hold_clone(&self, mac: &MacAddr) -> Result<Hold<'_>> {
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, mac)?;
        let clone = client.own_disk()?.clone();
        let running = client.boot.as_ref().filter(|boot| boot.may_run());
        if let Some(boot) = running.filter(|boot| boot.mode.has_clone()) {
            return Err(in_use(
                &client,
                format!(
                    "it may be running: nobody saw its boot of {} end, from {}",
                    minute(boot.since),
                    boot.peer
                ),
            ));
        }
        let Some(held) = self.hold(&lock, self.places().held(&client.mac))? else {
            let why = String::from("somebody else copies it");
            return Err(in_use(&client, why));
        };
        drop(lock);
        Ok(Hold {
            library: self,
            client,
            clone,
            _held: held,
        })
    }

    /// Bytes that a client's clone takes by itself, those that a reflink shares included.
    pub fn clone_bytes(&self, mac: &MacAddr) -> u64 {
        clone::allocated(self.places(), mac)
    }

    /// Makes a file and locks it; nothing where somebody else holds it.
    pub(crate) fn hold(&self, _: &WriteLock, path: PathBuf) -> Result<Option<HeldFile<'_>>> {
        let home = path.parent().unwrap_or(&path);
        let opened = owner::acting_for(home, || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                // Whoever serves has to see who holds it, and need not be who does.
                .mode(0o644)
                .open(&path)
        });
        let file = opened.doing("opening", &path)?;
        let is_ours = lock::try_whole(&file).doing("locking", &path)?;
        Ok(is_ours.then(|| HeldFile {
            library: self,
            path,
            file,
        }))
    }

    /// Whether somebody holds a client's clone.
    pub(crate) fn is_held(&self, mac: &MacAddr) -> Result<bool> {
        is_held(&self.places().held(mac))
    }
}

/// Whether somebody holds this file.
pub(crate) fn is_held(path: &Path) -> Result<bool> {
    match File::open(path) {
        Ok(file) => lock::is_held(&file).doing("looking at the lock of", path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing("opening", path),
    }
}

impl<'a> Hold<'a> {
    /// Makes sure that nobody is in: `sessions` are those of the client, asked for since it is held.
    pub fn unless_connected(self, sessions: &[LiveSession]) -> Result<HeldClone<'a>> {
        // A shared boot has the version open, and not the clone.
        let shared = |session: &&LiveSession| {
            let boot = self.client.boot.as_ref();
            boot.is_some_and(|boot| boot.mode == Mode::Shared && Some(boot.id) == session.boot)
        };
        match sessions.iter().find(|session| !shared(session)) {
            None => Ok(HeldClone(self)),
            Some(session) => Err(in_use(
                &self.client,
                format!("it is running: {} has its disk open", session.peer),
            )),
        }
    }
}

impl HeldClone<'_> {
    /// The client.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Its clone.
    pub fn clone_info(&self) -> &CloneInfo {
        &self.0.clone
    }
}

impl Drop for HeldFile<'_> {
    fn drop(&mut self) {
        let Ok(_lock) = self.library.write_lock() else {
            // A file that is left behind is nobody's: what counts is the lock, which goes with us.
            return;
        };
        // Of a client that was removed and added again meanwhile it would be somebody else's.
        let ours = |there: fs::Metadata| {
            let held = self.file.metadata();
            held.is_ok_and(|held| (held.dev(), held.ino()) == (there.dev(), there.ino()))
        };
        if fs::metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Draft<'_> {
    /// Makes the disk a copy of a client's: sharing its blocks where the file system can, else
    /// without what is not there. What an overlay leaves to its version is copied too.
    pub fn copy_clone(&self, held: &HeldClone<'_>, progress: &dyn Progress) -> Result<CopyKind> {
        let HeldClone(Hold {
            library,
            client,
            clone,
            ..
        }) = held;
        // A reset moves the clone, hold or not: what was held is copied, or nothing.
        let lock = library.write_lock()?;
        let now = library.client_to_change(&lock, &client.mac)?;
        if now.clone.as_ref() != Some(clone) {
            let why = String::from("it was reset or assigned to something else meanwhile");
            return Err(in_use(client, why));
        }
        let (data_path, bitmap) = clone::paths(library.places(), &client.mac);
        let data = File::open(&data_path).doing("opening", &data_path)?;
        let to = self.disk_path();
        let target = new_file(&to).doing("creating", &to)?;
        let what = format!("copying the disk of {}", client.name);
        if clone.kind == CloneKind::Reflink {
            drop(lock);
            return copy::copy_disk(&data, &target, &what, progress)
                .map_err(|stopped| stopped.at("copying", &data_path));
        }
        let version = library.version(&clone.from)?.disk_path();
        let base = File::open(&version).doing("opening", &version)?;
        let sealed = FileDisk::open_sealed(&version, BLOCK_SIZE).doing("opening", &version)?;
        let overlay = OverlayDisk::open(&data_path, &bitmap, std::sync::Arc::new(sealed))
            .doing("opening", &data_path)?;
        drop(lock);
        let size = data.metadata().doing("reading", &data_path)?.len();
        progress.step(&what, Some(size));
        target.set_len(size).doing("enlarging", &to)?;
        copy::flatten(&base, &data, overlay.parts(), &target, progress)
            .map_err(|stopped| stopped.at("copying", &data_path))?;
        Ok(CopyKind::Sparse)
    }
}

/// Removes the file of a hold whose maker was killed. The write lock is held.
pub(super) fn sweep(path: &Path) -> Result<()> {
    match File::open(path) {
        Ok(file) if !lock::is_held(&file).doing("looking at the lock of", path)? => {
            fs::remove_file(path).doing("removing", path)
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing("opening", path),
        _ => Ok(()),
    }
}

fn in_use(client: &Client, why: String) -> Error {
    Error::refused(
        format!("copying the disk of client {}", client.name),
        why,
        "shut it down in order; if it is off already, boot it once more and shut it down",
    )
}
