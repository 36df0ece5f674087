//! Images and their versions.
//!
//! - `current`: which version clients get, and which numbers were drawn
//! - `uses`: who uses a version; `history`: all that is told of an image's versions
//! - `settings`: what is said of an image, for all who boot it
//! - `followers`: which clients a new version reaches
//! - `trials`: whether a version boots
//! - `rollback`, `removal`, `prune`: moving `current`, and what goes for ever

mod current;
mod followers;
mod history;
mod prune;
mod removal;
mod rollback;
mod settings;
mod trials;
mod uses;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use followers::{Followed, Followers};
pub use history::{ImageView, VersionView};
pub use prune::{Pruned, Pruning, Staying};
pub use removal::Removal;
pub use rollback::Rollback;
pub use settings::{ImageEdit, ImagePlan, caution_of_way};
pub use trials::{Publish, Trial, UnderTrial};
pub use uses::Use;

use super::Library;
use super::clients::Way;
use super::document;
use super::error::{Doing, Error, Result};
use super::manifest::{BootFrom, FileFacts, Manifest};
use super::names::{ImageName, VersionId, VersionSpec};
use super::progress::Progress;
use super::store::{self, DISK, Draft, INITRAMFS, KERNEL, MANIFEST};

/// An image: its versions, and which of them clients get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Its name.
    pub name: ImageName,
    /// The number of the version that clients get at their next boot.
    pub current: Option<u32>,
    /// The numbers of all versions, in order.
    pub versions: Vec<u32>,
    /// How those get kernel and root disk who boot it, where neither they nor their groups say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
}

/// A sealed version: where its files are, and what is known about it.
#[derive(Debug, Clone)]
pub struct Version {
    manifest: Arc<Manifest>,
    dir: PathBuf,
}

impl Image {
    /// All its versions, in order.
    pub fn ids(&self) -> Vec<VersionId> {
        self.versions
            .iter()
            .map(|&number| self.id(number))
            .collect()
    }

    fn id(&self, number: u32) -> VersionId {
        VersionId {
            image: self.name.clone(),
            number,
        }
    }
}

impl Version {
    /// Its name and number.
    pub fn id(&self) -> &VersionId {
        &self.manifest.version
    }

    /// What is known about it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its disk, never written.
    pub fn disk_path(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// The kernel that boots it.
    pub fn kernel_path(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The initramfs that mounts it.
    pub fn initramfs_path(&self) -> PathBuf {
        self.dir.join(INITRAMFS)
    }

    /// The file that boot.cfg calls by this name: `vmlinuz-RELEASE` or `initramfs-RELEASE.img`, or
    /// either without the release. Nothing for any other name, and where the disk boots itself.
    pub fn boot_file(&self, name: &str) -> Option<PathBuf> {
        if matches!(self.manifest.boot, BootFrom::Disk(_)) {
            None
        } else if name == KERNEL || name == self.kernel_name() {
            Some(self.kernel_path())
        } else if name == INITRAMFS || name == self.initramfs_name() {
            Some(self.initramfs_path())
        } else {
            None
        }
    }

    /// `vmlinuz-RELEASE`.
    pub fn kernel_name(&self) -> String {
        format!("vmlinuz-{}", self.manifest.facts.kernel_version)
    }

    /// `initramfs-RELEASE.img`.
    pub fn initramfs_name(&self) -> String {
        format!("initramfs-{}.img", self.manifest.facts.kernel_version)
    }
}

impl Library {
    /// All images that have a version, by name.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for name in document::entries(&self.places().images())? {
            let Ok(name) = name.parse::<ImageName>() else {
                continue;
            };
            images.extend(self.find_image(&name)?);
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// One image.
    pub fn image(&self, name: &ImageName) -> Result<Image> {
        self.find_image(name)?
            .ok_or_else(|| Error::unknown("image", name))
    }

    /// One version.
    pub fn version(&self, version: &VersionId) -> Result<Version> {
        let path = self.places().version(version).join(MANIFEST);
        match self.manifests.read(version.clone(), &path)? {
            Some(manifest) => Ok(Version {
                manifest,
                dir: self.places().version(version),
            }),
            None => Err(Error::NoVersion {
                version: version.clone(),
                there: self.image(&version.image)?.versions,
            }),
        }
    }

    /// The version that is meant: the one that is named, or the image's current one.
    pub fn resolve(&self, spec: &VersionSpec) -> Result<Version> {
        let number = match spec.number {
            Some(number) => number,
            None => self
                .image(&spec.image)?
                .current
                .ok_or_else(|| Error::unknown("image", format!("{spec}, current version")))?,
        };
        self.version(&VersionId {
            image: spec.image.clone(),
            number,
        })
    }

    /// The version that is meant where the newest one is, whether it is current or not.
    pub fn newest(&self, spec: &VersionSpec) -> Result<VersionId> {
        let image = self.image(&spec.image)?;
        let number = spec.number.or(image.versions.last().copied());
        let number = number.ok_or_else(|| Error::unknown("image", spec))?;
        self.version(&image.id(number))
            .map(|found| found.id().clone())
    }

    /// Begins a new version of an image, or the first one of a new image.
    pub fn draft(&self, image: &ImageName) -> Result<Draft<'_>> {
        Draft::begin(self, image)
    }

    /// Reads a version again and compares it with its manifest.
    pub fn verify(&self, version: &VersionId, progress: &dyn Progress) -> Result<()> {
        let version = self.version(version)?;
        let manifest = version.manifest();
        let damaged = |what: String| Error::Damaged {
            version: version.id().to_string(),
            what,
        };
        let beside = match &manifest.boot {
            BootFrom::Kernel { kernel, initramfs } => vec![
                (version.kernel_path(), kernel),
                (version.initramfs_path(), initramfs),
            ],
            BootFrom::Disk(_) => Vec::new(),
        };
        for (path, facts) in beside {
            let found = hash_file(&path)?;
            if found != *facts {
                return Err(damaged(format!("the hash of {} differs", path.display())));
            }
        }
        let path = version.disk_path();
        let name = version.id().to_string();
        let found = store::hash_path(&path, &name, manifest.disk.block_size, progress)?;
        if found.size != manifest.disk.size {
            return Err(damaged(format!(
                "{} has {} bytes, not {}",
                path.display(),
                found.size,
                manifest.disk.size
            )));
        }
        match manifest.disk.chunks.first_difference(&found.chunks) {
            Some(chunk) => Err(damaged(format!(
                "{} differs in the 4 MiB that begin at byte {}",
                path.display(),
                chunk * store::CHUNK
            ))),
            None if found.root != manifest.disk.root => {
                Err(damaged("its root hash is not that of its chunks".into()))
            }
            None => Ok(()),
        }
    }
}

fn hash_file(path: &std::path::Path) -> Result<FileFacts> {
    let mut file = File::open(path).doing("opening", path)?;
    store::hash_reader(&mut file).doing("hashing", path)
}
