//! What versions and clones take on the library's file system, and how much of that is their own.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::iter::Sum;
use std::ops::Add;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DISK, INITRAMFS, KERNEL, MANIFEST, clone, extents};
use crate::library::error::{Doing, Result};
use crate::library::names::VersionId;
use crate::library::{Library, MacAddr, document};

/// What something takes on the library's file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Bytes that its files occupy, those included that they share with other files.
    pub allocated: u64,
    /// Bytes that no other file shares, which is what removing it frees. Nothing where the file
    /// system does not tell.
    pub exclusive: Option<u64>,
}

impl Usage {
    /// Bytes that other files have as well, where that is known.
    pub fn shared(&self) -> Option<u64> {
        Some(self.allocated.saturating_sub(self.exclusive?))
    }

    fn of_file(path: &Path) -> Result<Usage> {
        let file = match File::open(path) {
            Ok(file) => file,
            // Who may not read it may still be told how large it is.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let metadata = fs::metadata(path).doing("reading", path)?;
                return Ok(Usage {
                    allocated: metadata.blocks() * 512,
                    exclusive: None,
                });
            }
            Err(error) => return Err(error).doing("opening", path),
        };
        let allocated = file.metadata().doing("reading", path)?.blocks() * 512;
        let shared = extents::shared_bytes(&file).doing("asking for the extents of", path)?;
        Ok(Usage {
            allocated,
            exclusive: shared.map(|shared| allocated.saturating_sub(shared)),
        })
    }

    fn of_files(paths: impl IntoIterator<Item = PathBuf>) -> Result<Usage> {
        paths
            .into_iter()
            .filter(|path| path.exists())
            .map(|path| Usage::of_file(&path))
            .sum()
    }
}

impl Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage {
            allocated: self.allocated + other.allocated,
            exclusive: self.exclusive.zip(other.exclusive).map(|(a, b)| a + b),
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(usages: I) -> Usage {
        let nothing = Usage {
            allocated: 0,
            exclusive: Some(0),
        };
        usages.fold(nothing, Add::add)
    }
}

impl Library {
    /// What a version takes now, with its kernel, initramfs and manifest. What it shares changes as
    /// others are made from it and removed.
    pub fn usage(&self, version: &VersionId) -> Result<Usage> {
        self.version(version)?; // or say that there is none
        let dir = self.places().version(version);
        Usage::of_files([DISK, KERNEL, INITRAMFS, MANIFEST].map(|name| dir.join(name)))
    }

    /// What a client's clone takes now; nothing where it has none.
    pub fn clone_usage(&self, mac: &MacAddr) -> Result<Option<Usage>> {
        let client = self.client(mac)?;
        if client.clone.is_none() {
            return Ok(None);
        }
        let (disk, bitmap) = clone::paths(self.places(), &client.mac);
        Usage::of_files([disk, bitmap]).map(Some)
    }

    /// What the files in a directory take, such as that of a draft.
    pub(crate) fn usage_of_dir(&self, dir: &Path) -> Result<Usage> {
        let names = document::entries(dir)?.into_iter();
        Usage::of_files(
            names
                .map(|name| dir.join(name))
                .filter(|path| path.is_file()),
        )
    }
}
