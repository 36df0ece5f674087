//! Disks of the library, opened for the target.

use std::sync::Arc;

use super::{BLOCK_SIZE, CloneKind, clone, extents};
use crate::block::{Disk, FileDisk, OverlayDisk, Quota, QuotaDisk, SharedDisk};
use crate::library::clients::Client;
use crate::library::error::{Doing, Error, Result};
use crate::library::names::VersionId;
use crate::library::{ByteSize, Grant, GrantedDisk, Library, MacAddr};

/// A disk of a target.
pub struct OpenDisk {
    /// Where it stands.
    pub lun: u16,
    /// A name that never means another disk, for its identifier and serial.
    pub identity: String,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// What it is held to, where it is a client's clone.
    pub quota: Option<Arc<Quota>>,
}

impl Library {
    /// The disks of a session that was let in. Refused if a clone was replaced since: whoever was let
    /// in to the old one never writes the new one.
    pub fn open_granted(&self, grant: &Grant) -> Result<Vec<OpenDisk>> {
        let root = |disk, quota| OpenDisk {
            lun: self.config().iscsi.lun.number(),
            identity: grant.identity.clone(),
            disk,
            quota,
        };
        match &grant.disk {
            GrantedDisk::Version(version) => Ok(vec![root(self.open_version(version)?, None)]),
            GrantedDisk::Clone(mac, id) => {
                let client = self.client(mac)?;
                if client.clone.as_ref().is_none_or(|clone| clone.id != *id) {
                    return Err(Error::refused(
                        format!("opening the disk of client {}", client.name),
                        "it was replaced since the login",
                        "boot the client again",
                    ));
                }
                let (disk, quota) = self.open_limited(&client)?;
                let mut disks = vec![root(disk, Some(quota))];
                // Without it the client boots all the same, and why was told.
                disks.extend(self.open_data(&client).ok().flatten());
                Ok(disks)
            }
            GrantedDisk::Data(mac) => {
                let client = self.client(mac)?;
                Ok(self.open_data(&client)?.into_iter().collect())
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

    /// The disk of a client's clone, without its quota. The caller sees to it that only one boot writes
    /// it (rule 3).
    pub fn open_clone(&self, mac: &MacAddr) -> Result<Arc<dyn Disk>> {
        self.open_disk_of(&self.client(mac)?)
    }

    fn open_disk_of(&self, client: &Client) -> Result<Arc<dyn Disk>> {
        let info = client.own_disk()?;
        let (data, bitmap) = clone::paths(self.places(), &client.mac);
        match info.kind {
            CloneKind::Reflink => {
                let own = FileDisk::open_writable(&data, BLOCK_SIZE).doing("opening", &data)?;
                let own = Arc::new(own);
                let base = self.open_version(&info.from)?;
                let (Some(file), Some(sealed)) = (own.file(), base.file()) else {
                    return Ok(own);
                };
                let common = extents::common(&file, &sealed);
                let disk = common.and_then(|common| SharedDisk::new(own.clone(), base, common));
                Ok(match disk {
                    Ok(disk) => Arc::new(disk),
                    // The file has all of its bytes itself.
                    Err(error) => {
                        let path = data.display();
                        tracing::warn!(%path, %error, "cannot tell what a clone shares: it reads all by itself");
                        own
                    }
                })
            }
            CloneKind::Overlay => {
                let base = self.open_version(&info.from)?;
                let disk = OverlayDisk::open(&data, &bitmap, base).doing("opening", &data)?;
                Ok(Arc::new(disk))
            }
        }
    }

    /// The same, held to what the client's settings say.
    fn open_limited(&self, client: &Client) -> Result<(Arc<dyn Disk>, Arc<Quota>)> {
        let disk = self.open_disk_of(client)?;
        let (path, _) = clone::paths(self.places(), &client.mac);
        let own = self.own_of(&path, client.own_disk()?)?;
        let limit = self.settings(client)?.quota().map(ByteSize::bytes);
        let disk = QuotaDisk::new(disk, Box::new(own), limit);
        let quota = disk.quota().clone();
        Ok((Arc::new(disk), quota))
    }
}
