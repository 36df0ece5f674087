//! Disks of the library, opened for the target.

use std::sync::Arc;

use super::{BLOCK_SIZE, CloneKind, clone};
use crate::block::{Disk, FileDisk, OverlayDisk};
use crate::library::error::{Doing, Error, Result};
use crate::library::names::VersionId;
use crate::library::{Library, MacAddr};

impl Library {
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
        let info = client
            .clone
            .as_ref()
            .ok_or_else(|| Error::unknown("clone", mac))?;
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
