//! Disks of the library, opened for the target.

use std::sync::Arc;

use super::{BLOCK_SIZE, CloneKind, clone};
use crate::block::{Disk, FileDisk, OverlayDisk};
use crate::library::error::{Doing, Error, Result};
use crate::library::names::VersionId;
use crate::library::{Grant, GrantedDisk, Library, MacAddr};

impl Library {
    /// The disk of a session that was let in. Refused if a clone was replaced since: whoever was let
    /// in to the old one never writes the new one.
    pub fn open_granted(&self, grant: &Grant) -> Result<Arc<dyn Disk>> {
        match &grant.disk {
            GrantedDisk::Version(version) => self.open_version(version),
            GrantedDisk::Clone(mac, id) => {
                let client = self.client(mac)?;
                if client.clone.as_ref().is_some_and(|clone| clone.id == *id) {
                    return self.open_clone(mac);
                }
                Err(Error::refused(
                    format!("opening the disk of client {}", client.name),
                    "it was replaced since the login",
                    "boot the client again",
                ))
            }
        }
    }

    /// The disk of a version: read-only, and nobody writes its file.
    pub fn open_version(&self, version: &VersionId) -> Result<Arc<dyn Disk>> {
        let version = self.version(version)?;
        let path = version.disk_path();
        let disk = FileDisk::open_sealed(&path, BLOCK_SIZE).doing("opening", &path)?;
        Ok(Arc::new(disk))
    }

    /// The disk of a client's clone. The caller sees to it that only one boot writes it (rule 3).
    pub fn open_clone(&self, mac: &MacAddr) -> Result<Arc<dyn Disk>> {
        let client = self.client(mac)?;
        let info = client.own_disk()?;
        let (data, bitmap) = clone::paths(self.places(), &client.mac);
        match info.kind {
            CloneKind::Reflink => {
                let disk = FileDisk::open_writable(&data, BLOCK_SIZE).doing("opening", &data)?;
                Ok(Arc::new(disk))
            }
            CloneKind::Overlay => {
                let base = self.open_version(&info.from)?;
                let disk = OverlayDisk::open(&data, &bitmap, base).doing("opening", &data)?;
                Ok(Arc::new(disk))
            }
        }
    }
}
