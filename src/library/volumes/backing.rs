//! What a volume is kept in, and that nobody else uses it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Kept, Volume};
use crate::block::{Disk, FileDisk, FileOptions};
use crate::library::error::{Doing, Error, Result};
use crate::library::store::clone;
use crate::library::{Library, VersionId};

/// A volume, opened for the target.
pub struct OpenVolume {
    /// Its blocks.
    pub disk: Arc<dyn Disk>,
    /// Keeps others from mounting a block device as long as it lives.
    pub claim: Option<File>,
}

/// What tells one file from another, whatever it is called: a device by its number, a file by its
/// inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Device(u64),
    File(u64, u64),
}

fn id(path: &Path) -> io::Result<Id> {
    let found = fs::metadata(path)?;
    Ok(match found.file_type().is_block_device() {
        true => Id::Device(found.rdev()),
        false => Id::File(found.dev(), found.ino()),
    })
}

/// Bytes of a file or block device.
pub(super) fn size(path: &Path) -> Result<u64> {
    // The end of a block device is found by seeking; its metadata do not tell it.
    File::open(path)
        .and_then(|mut file| file.seek(SeekFrom::End(0)))
        .doing("opening", path)
}

impl Library {
    /// Opens a volume's blocks.
    pub fn open_volume(&self, volume: &Volume) -> Result<OpenVolume> {
        let path = self.volume_path(volume);
        let claim = match (&volume.kept, volume.force) {
            (Kept::Device(_), false) => Some(claim(&path).doing("claiming", &path)?),
            _ => None,
        };
        let options = FileOptions {
            physical_block_size: volume.physical_block_size,
            ..FileOptions::new(volume.block_size)
        };
        let disk = match volume.read_only {
            true => FileDisk::open_read_only(&path, &options),
            false => FileDisk::open(&path, &options),
        };
        Ok(OpenVolume {
            disk: Arc::new(disk.doing("opening", &path)?),
            claim,
        })
    }

    /// Where its blocks are.
    pub fn volume_path(&self, volume: &Volume) -> PathBuf {
        match &volume.kept {
            Kept::Library => self.places().volume_disk(&volume.id),
            Kept::File(path) | Kept::Device(path) => path.clone(),
        }
    }

    /// Refuses what another disk of this library is kept in, and a device that is in use.
    pub(super) fn check_backing(
        &self,
        what: &str,
        path: &Path,
        kept: &Kept,
        force: bool,
    ) -> Result<()> {
        let refused = |why: String, instead: &str| Err(Error::refused(what, why, instead));
        let wanted = id(path).doing("looking at", path)?;
        let shown = path.display();
        match (kept, wanted) {
            (Kept::Device(_), Id::File(..)) => {
                return refused(format!("{shown} is no block device"), "give it by --file");
            }
            (Kept::File(_), Id::Device(_)) => {
                return refused(format!("{shown} is a block device"), "give it by --device");
            }
            _ if fs::metadata(path).is_ok_and(|found| found.is_dir()) => {
                return refused(format!("{shown} is a directory"), "name a file");
            }
            _ => {}
        }
        for other in self.volumes()? {
            if id(&self.volume_path(&other)).is_ok_and(|other| other == wanted) {
                let why = format!("volume {} is kept in {shown} already", other.name);
                return refused(why, "two volumes in one place would destroy each other");
            }
        }
        if self
            .disks()?
            .iter()
            .any(|disk| id(disk).is_ok_and(|disk| disk == wanted))
        {
            let why = format!("{shown} is the disk of an image's version or of a client");
            return refused(why, "make a copy, and give that");
        }
        if path.starts_with(self.root()) {
            let why = format!("{shown} is in the library, which keeps its own files");
            return refused(why, "leave --file out for a volume that the library keeps");
        }
        if let (Kept::Device(_), false) = (kept, force)
            && let Err(error) = claim(path)
        {
            if error.kind() == ErrorKind::ResourceBusy {
                let why = format!("{shown} is mounted, or part of something else");
                return refused(why, "unmount it, or say --force if you know better");
            }
            return Err(error).doing("claiming", path);
        }
        Ok(())
    }

    /// The disks of versions and clients.
    fn disks(&self) -> Result<Vec<PathBuf>> {
        let mut disks = Vec::new();
        for image in self.images()? {
            for number in image.versions {
                let id = VersionId {
                    image: image.name.clone(),
                    number,
                };
                disks.push(self.places().version(&id).join(crate::library::store::DISK));
            }
        }
        for client in self.clients()? {
            disks.push(clone::paths(self.places(), &client.mac).0);
        }
        Ok(disks)
    }
}

/// O_EXCL on a block device fails while it is mounted, swapped to, or in an array (open(2)).
fn claim(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(path)
}
