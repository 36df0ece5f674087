//! Where disks are: the one place that makes their paths, and makes, clones, seals and discards them.
//!
//! Another kind of storage (Ceph RBD) will stand behind the same few calls.

pub(crate) mod clone;
mod copy;
mod copying;
mod data;
mod draft;
mod extents;
mod flags;
mod hash;
mod held;
mod open;
mod own;
mod sweep;
mod usage;

use std::path::{Path, PathBuf};

pub use clone::CloneKind;
pub use copy::CopyKind;
pub use data::DataDisk;
pub use draft::Draft;
pub use held::{HeldClone, Hold};
pub(crate) use held::{HeldFile, is_held};
pub use open::OpenDisk;
pub use sweep::Swept;
pub use usage::Usage;

pub(crate) use copy::copy_file;
pub(crate) use copying::{Copying, Source};
pub(crate) use data::Troubles;
pub(crate) use draft::{has_live_draft, remove_mount_points};
pub(crate) use hash::{CHUNK, hash_path, hash_reader};

use super::mac::MacAddr;
use super::names::{ImageName, VersionId, VolumeName};

/// Bytes of a logical block of every disk of the library.
pub const BLOCK_SIZE: u32 = 512;

/// Begins the names of drafts. A name that begins with a dot is never listed as a version.
const DRAFT: &str = ".draft-";
/// Begins the names of drafts that failed and were kept for a person to look into.
pub(crate) const FAILED: &str = ".failed-";
/// The file in a version that was published and is not yet current.
pub(crate) const PUBLISHING: &str = "publishing";
/// What is said of an image, beside its versions.
const SETTINGS: &str = "settings";
/// Begins the names of what is being removed.
pub(crate) const REMOVED: &str = ".removed-";

/// The places of everything in a library.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    root: PathBuf,
}

impl Places {
    pub(crate) fn new(root: PathBuf) -> Self {
        Places { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("netroot.toml")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, image: &ImageName) -> PathBuf {
        self.images().join(image.as_str())
    }

    pub(crate) fn current(&self, image: &ImageName) -> PathBuf {
        self.image(image).join("current")
    }

    pub(crate) fn image_settings(&self, image: &ImageName) -> PathBuf {
        self.image(image).join(SETTINGS)
    }

    /// The highest number that was drawn for an image that was removed: beside the image's directory,
    /// which goes.
    pub(crate) fn drawn(&self, image: &ImageName) -> PathBuf {
        self.images().join(format!(".drawn-{image}.json"))
    }

    pub(crate) fn version(&self, version: &VersionId) -> PathBuf {
        self.image(&version.image).join(version.number.to_string())
    }

    pub(crate) fn clients(&self) -> PathBuf {
        self.root.join("clients")
    }

    pub(crate) fn client(&self, mac: &MacAddr) -> PathBuf {
        self.clients().join(format!("{}.json", mac.bare()))
    }

    pub(crate) fn groups(&self) -> PathBuf {
        self.root.join("groups")
    }

    pub(crate) fn pending_all(&self) -> PathBuf {
        self.root.join("pending")
    }

    pub(crate) fn pending(&self, mac: &MacAddr) -> PathBuf {
        self.pending_all().join(format!("{}.json", mac.bare()))
    }

    /// What was seen of a client's last boots.
    pub(crate) fn boots(&self, mac: &MacAddr) -> PathBuf {
        self.boots_all().join(format!("{}.json", mac.bare()))
    }

    pub(crate) fn boots_all(&self) -> PathBuf {
        self.root.join("boots")
    }

    pub(crate) fn clones(&self) -> PathBuf {
        self.root.join("clones")
    }

    pub(crate) fn clone(&self, mac: &MacAddr) -> PathBuf {
        self.clones().join(mac.bare())
    }

    /// Who copies a client's clone holds this.
    pub(crate) fn held(&self, mac: &MacAddr) -> PathBuf {
        self.clone(mac).join(HELD_CLONE)
    }

    pub(crate) fn bindings(&self) -> PathBuf {
        self.root.join("bindings")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn volume(&self, name: &VolumeName) -> PathBuf {
        self.volumes().join(format!("{name}.json"))
    }

    /// The file of a volume that the library keeps. All that is named by the id and a dot goes with it.
    pub(crate) fn volume_disk(&self, id: &str) -> PathBuf {
        self.volumes().join(format!("{id}.img"))
    }

    /// Where a volume's writes are made whole.
    pub(crate) fn volume_journal(&self, id: &str) -> PathBuf {
        self.volumes().join(format!("{id}.journal"))
    }

    /// Where it is kept that a volume is being sanitized.
    pub(crate) fn volume_sanitizing(&self, id: &str) -> PathBuf {
        self.volumes().join(format!("{id}.sanitizing"))
    }

    pub(crate) fn reservations(&self) -> PathBuf {
        self.root.join("reservations")
    }

    pub(crate) fn trials(&self) -> PathBuf {
        self.root.join("trials")
    }

    pub(crate) fn trial(&self, version: &VersionId) -> PathBuf {
        self.trials().join(format!("{version}.json"))
    }

    /// Who tests a version holds this.
    pub(crate) fn under_trial(&self, version: &VersionId) -> PathBuf {
        self.trials().join(format!("{version}{UNDER_TRIAL}"))
    }

    pub(crate) fn rollouts(&self) -> PathBuf {
        self.root.join("rollouts")
    }

    /// Documents of clients that were removed while their disks are kept.
    pub(crate) fn removed(&self) -> PathBuf {
        self.root.join("removed")
    }

    /// Machines that are nobody's clients: one document for each server.
    pub(crate) fn strangers(&self) -> PathBuf {
        self.root.join("strangers")
    }

    pub(crate) fn users(&self) -> PathBuf {
        self.root.join("users")
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.root.join("tokens")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }
}

/// Names of the files of a version, and of the disk of a clone.
pub(crate) const DISK: &str = "disk.img";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRAMFS: &str = "initramfs.img";
pub(crate) const MANIFEST: &str = "manifest.json";

/// The file whose lock says that a clone is being copied.
const HELD_CLONE: &str = "held";

/// How the name of a file ends that whoever tests a version holds.
const UNDER_TRIAL: &str = ".held";

/// Letters for names that nobody else draws.
pub(crate) fn random_name() -> std::io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}
