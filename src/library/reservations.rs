//! What of disks outlives a restart of the server besides their blocks: persistent reservations, and
//! that a disk is being sanitized.
//!
//! What they say is the target's own business: here they are bytes, one file a disk.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::error::{Doing, Error, Result};
use super::{Library, Volume, document, owner};

/// Where the persistent reservations of one disk are kept, or how its sanitization stands.
#[derive(Debug, Clone)]
pub struct KeptReservations {
    path: PathBuf,
}

impl Library {
    /// Those of the disk with this name, which is unique in the library.
    ///
    /// # Errors
    /// When no file can have that name.
    pub fn kept_reservations(&self, disk: &str) -> Result<KeptReservations> {
        KeptReservations::in_dir(self.places().reservations(), disk)
    }
}

impl Library {
    /// Those of a volume. They go with it, and no other one has its id.
    pub fn volume_reservations(&self, volume: &Volume) -> Result<KeptReservations> {
        self.kept_reservations(&format!("volume-{}", volume.id))
    }

    /// Whether a volume is being sanitized.
    pub fn kept_sanitizing(&self, volume: &Volume) -> KeptReservations {
        KeptReservations {
            path: self.places().volume_sanitizing(&volume.id),
        }
    }
}

impl KeptReservations {
    fn in_dir(dir: PathBuf, disk: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '@');
        if disk.is_empty() || disk.starts_with('.') || !disk.chars().all(plain) {
            return Err(Error::Invalid(format!(
                "`{disk}` cannot name a file of reservations"
            )));
        }
        Ok(KeptReservations {
            path: dir.join(format!("{disk}.json")),
        })
    }

    /// What was kept last; nothing if that was never.
    pub fn load(&self) -> Result<Option<Vec<u8>>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("reading", &self.path),
        }
    }

    /// Keeps `state` in the place of what was kept before, durably when this returns.
    pub fn save(&self, state: &[u8]) -> Result<()> {
        if let Some(dir) = self.path.parent() {
            owner::make_dirs(dir).doing("creating", dir)?;
            // The directory itself has to be there after a crash.
            if let Some(home) = dir.parent() {
                document::sync_dir(home)?;
            }
        }
        // The names of initiators are nobody else's business.
        document::replace(&self.path, state, 0o600)
    }

    /// Forgets everything: the disk is gone, and another may get its name.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).doing("removing", &self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_until_it_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("reservations");
        let kept = KeptReservations::in_dir(dir.clone(), "scratch").unwrap();
        assert_eq!(kept.load().unwrap(), None);
        kept.save(b"one").unwrap();
        kept.save(b"two").unwrap();
        let again = KeptReservations::in_dir(dir.clone(), "scratch").unwrap();
        assert_eq!(again.load().unwrap().as_deref(), Some(&b"two"[..]));
        let other = KeptReservations::in_dir(dir.clone(), "other").unwrap();
        assert_eq!(other.load().unwrap(), None);
        again.remove().unwrap();
        again.remove().unwrap();
        assert_eq!(kept.load().unwrap(), None);
        // What cannot be read is not taken for nothing.
        fs::create_dir(dir.join("odd.json")).unwrap();
        let odd = KeptReservations::in_dir(dir, "odd").unwrap();
        assert!(odd.load().is_err());
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in ["", ".", "..", "../x", "a/b", ".tmp-x", "a\0b"] {
            assert!(
                KeptReservations::in_dir("d".into(), name).is_err(),
                "{name:?}"
            );
        }
    }
}
