//! What a volume is kept in, and that nobody else uses it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::{Reached, reach, reach_home};
use super::{Kept, Volume};
use crate::block::{Cache, Disk, FileDisk, FileOptions};
use crate::library::error::{Doing, Error, Result};
use crate::library::store::clone;
use crate::library::{Library, VersionId, owner};

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

fn id(found: &fs::Metadata) -> Id {
    match found.file_type().is_block_device() {
        true => Id::Device(found.rdev()),
        false => Id::File(found.dev(), found.ino()),
    }
}

/// A file or device that is to become a volume.
pub(super) struct Wanted<'a> {
    pub(super) path: &'a Path,
    pub(super) within: Option<&'a Path>,
    pub(super) kept: &'a Kept,
    /// Also a device that is in use.
    pub(super) force: bool,
}

/// Bytes of a file or block device.
pub(super) fn size(reached: &Reached) -> io::Result<u64> {
    let found = fs::metadata(reached.path())?;
    match found.file_type() {
        kind if kind.is_file() => Ok(found.len()),
        // The end of a block device is found by seeking; its metadata do not tell it.
        kind if kind.is_block_device() => File::open(reached.path())?.seek(SeekFrom::End(0)),
        // Opening a pipe would wait for somebody at its other end.
        _ => Err(io::Error::other("it is neither a file nor a block device")),
    }
}

impl Library {
    /// Opens a volume's blocks, with the rights of whoever owns the library: he writes the documents that
    /// say where they are.
    pub fn open_volume(&self, volume: &Volume) -> Result<OpenVolume> {
        self.as_owner(|| self.open_own(volume))
    }

    fn open_own(&self, volume: &Volume) -> Result<OpenVolume> {
        let shown = self.volume_path(volume);
        let reached = self.way_to(volume)?;
        let path = reached.path();
        let claim = match (&volume.kept, volume.force) {
            (Kept::Device(_), false) => Some(claim(path).doing("claiming", &shown)?),
            _ => None,
        };
        // Neither, and it would be opened for ever, or be a terminal.
        size(&reached).doing("opening", &shown)?;
        let options = options(volume);
        let journal = self.places().volume_journal(&volume.id);
        let disk = match volume.read_only {
            true => finish(path, &journal, &options)
                .and_then(|()| FileDisk::open_read_only(path, &options)),
            false => FileDisk::open(
                path,
                &FileOptions {
                    journal: Some(self.made_journal(journal)?),
                    ..options
                },
            ),
        };
        Ok(OpenVolume {
            disk: Arc::new(disk.doing("opening", &shown)?),
            claim,
        })
    }

    /// Refuses what its storage cannot do without a cache.
    pub(super) fn check_direct(&self, volume: &Volume) -> Result<()> {
        if !volume.direct {
            return Ok(());
        }
        let opened = self.as_owner(|| -> Result<_> {
            let reached = self.way_to(volume)?;
            Ok(FileDisk::open_read_only(reached.path(), &options(volume)))
        })?;
        opened.map(drop).map_err(|error| {
            Error::refused(
                format!("using volume {} without a cache", volume.name),
                format!("{} cannot be: {error}", self.volume_path(volume).display()),
                "leave --direct out",
            )
        })
    }

    /// A journal that belongs to the library's owner, whoever runs the server.
    fn made_journal(&self, path: PathBuf) -> Result<PathBuf> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            Ok(file) => owner::give(&file, &self.places().volumes()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).doing("creating", &path),
        }
        Ok(path)
    }

    /// Where its blocks are, for people.
    pub fn volume_path(&self, volume: &Volume) -> PathBuf {
        match &volume.kept {
            Kept::Library => self.places().volume_disk(&volume.id),
            Kept::File(path) | Kept::Device(path) => path.clone(),
        }
    }

    /// Where its blocks are, for those who open them.
    pub(super) fn reach_volume(&self, volume: &Volume) -> Result<Reached> {
        self.as_owner(|| self.way_to(volume))
    }

    /// Opens and looks at files of volumes with the rights of the library's owner, if it is root who does
    /// it. Not to be called inside of itself.
    pub(super) fn as_owner<T>(&self, act: impl FnOnce() -> T) -> T {
        owner::acting_for(&self.places().volumes(), act)
    }

    fn way_to(&self, volume: &Volume) -> Result<Reached> {
        let path = self.volume_path(volume);
        let volumes = self.places().volumes();
        let within = match volume.kept {
            // Whoever owns the library does not lead its server elsewhere, either.
            Kept::Library => Some(volumes.as_path()),
            Kept::File(_) | Kept::Device(_) => volume.within.as_deref(),
        };
        reach(&path, within).map_err(|error| unreached(error, &path, within))
    }

    /// Bytes of a volume.
    pub fn volume_size(&self, volume: &Volume) -> Result<u64> {
        let found = self.as_owner(|| self.way_to(volume).map(|there| size(&there)))?;
        found.doing("opening", &self.volume_path(volume))
    }

    /// Bytes that a volume's file takes on its file system; nothing of a block device.
    pub fn volume_usage(&self, volume: &Volume) -> Option<u64> {
        let found = self.as_owner(|| fs::metadata(self.way_to(volume).ok()?.path()).ok())?;
        // st_blocks counts units of 512 bytes, whatever the file system's own are (stat(2)).
        found.is_file().then(|| found.blocks() * 512)
    }

    /// Refuses what another disk of this library is kept in, and a device that is in use. Tells how many
    /// bytes there are; nothing where there is no such file yet.
    pub(super) fn check_backing(&self, what: &str, wanted: &Wanted<'_>) -> Result<Option<u64>> {
        let refused = |why: String, instead: &str| Err(Error::refused(what, why, instead));
        let Wanted { path, within, .. } = *wanted;
        let shown = path.display();
        if self.is_inside(path, within) {
            let why = format!("{shown} is in the library, which keeps its own files");
            return refused(why, "leave --file out for a volume that the library keeps");
        }
        let reached = match reach(path, within) {
            Ok(reached) => reached,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreached(error, path, within)),
        };
        let found = match fs::metadata(reached.path()) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing("looking at", path),
        };
        match wanted.kept {
            _ if found.is_dir() => {
                return refused(format!("{shown} is a directory"), "name a file");
            }
            Kept::Device(_) if !found.file_type().is_block_device() => {
                return refused(format!("{shown} is no block device"), "give it by --file");
            }
            Kept::File(_) if found.file_type().is_block_device() => {
                return refused(format!("{shown} is a block device"), "give it by --device");
            }
            Kept::File(_) if !found.is_file() => {
                return refused(format!("{shown} is no file"), "name a file");
            }
            _ => {}
        }
        if let Some(owner) = self.owner_of(id(&found))? {
            let instead =
                "two disks in one place would destroy each other: make a copy, and give that";
            return refused(format!("{shown} is {owner}"), instead);
        }
        if let (Kept::Device(_), false) = (wanted.kept, wanted.force)
            && let Err(error) = claim(reached.path())
        {
            if error.kind() == ErrorKind::ResourceBusy {
                let why = format!("{shown} is mounted, or part of something else");
                return refused(why, "unmount it, or say --force if you know better");
            }
            return Err(error).doing("claiming", path);
        }
        size(&reached).map(Some).doing("opening", path)
    }

    /// Whether a path leads into the library, whether there is something or not.
    fn is_inside(&self, path: &Path, within: Option<&Path>) -> bool {
        let ours =
            |found: io::Result<PathBuf>| found.is_ok_and(|path| path.starts_with(self.root()));
        let home = reach_home(path, within).and_then(|(home, _)| fs::canonicalize(home.path()));
        // A link may lead there, too.
        let itself = reach(path, within).and_then(|there| fs::canonicalize(there.path()));
        ours(home) || ours(itself)
    }

    /// What already is in the place that a file or device is, for a message.
    fn owner_of(&self, wanted: Id) -> Result<Option<String>> {
        for other in self.volumes()? {
            let there = self.reach_volume(&other).ok();
            let there = there.and_then(|there| fs::metadata(there.path()).ok());
            if there.is_some_and(|there| id(&there) == wanted) {
                return Ok(Some(format!("what volume {} is kept in", other.name)));
            }
        }
        let is_it = |disk: &PathBuf| fs::metadata(disk).is_ok_and(|found| id(&found) == wanted);
        let disk = self.disks()?.iter().any(is_it);
        Ok(disk.then(|| "the disk of an image's version or of a client".to_owned()))
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

/// How a volume is opened.
fn options(volume: &Volume) -> FileOptions {
    FileOptions {
        cache: match volume.direct {
            true => Cache::None,
            false => Cache::System,
        },
        physical_block_size: volume.physical_block_size,
        ..FileOptions::new(volume.block_size)
    }
}

/// Completes what a crash left in the journal of a volume that is not written any more: who writes to its
/// file by other means would lose that to it later.
fn finish(path: &Path, journal: &Path, options: &FileOptions) -> io::Result<()> {
    if !journal.exists() {
        return Ok(());
    }
    let options = FileOptions {
        journal: Some(journal.to_owned()),
        ..options.clone()
    };
    FileDisk::open(path, &options)?;
    fs::remove_file(journal)
}

/// Says why a path does not lead where it should.
fn unreached(error: io::Error, path: &Path, within: Option<&Path>) -> Error {
    match (error.raw_os_error(), within) {
        (Some(libc::EXDEV | libc::ELOOP), Some(within)) => Error::refused(
            format!("opening {}", path.display()),
            format!("a link leads out of {}", within.display()),
            "name what it leads to, or add the volume as root, by a command on the server",
        ),
        _ => Error::Io {
            doing: format!("opening {}", path.display()),
            source: error,
        },
    }
}

/// O_EXCL on a block device fails while it is mounted, swapped to, or in an array (open(2)).
fn claim(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(path)
}
