//! Volumes: files and block devices that are published as they are, to those whom they are for.
//!
//! - `access`: names of initiators and ranges of addresses
//! - `secret`: what has to be proved (CHAP)
//! - `place`: the way to a file of the host, and whose word for one is taken
//! - `backing`: what a volume is kept in, and that it is in nobody else's use
//! - `change`: adding, describing and growing; `copy`: snapshots; `removal`: what goes, and what killed
//!   commands leave
//! - `plan`: what each of them would do; whom it is told
//!
//! A volume is a target of its own, or another LUN of one; then the first volume's rules are its
//! rules, too. Nobody sees a volume that is not for him, and one without rules is for nobody.

mod access;
mod backing;
mod change;
mod copy;
mod place;
mod plan;
mod removal;
mod secret;

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

pub use access::Allow;
pub use backing::OpenVolume;
pub use change::{NewVolume, VolumeEdit};
pub use place::Paths;
pub use plan::{Publisher, VolumePlan};
pub use secret::{Chap, Secrets};

use super::document::{self, Document};
use super::edition::Edition;
use super::error::{Error, Result};
use super::names::VolumeName;
use super::{Caller, ImageName, Library, Target};

/// A volume's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Counts the changes of the document.
    pub revision: u64,
    /// Its name.
    pub name: VolumeName,
    /// Drawn when it was added, and never another volume's: identifier and serial number come from it, and
    /// the names of all its files.
    #[serde(deserialize_with = "drawn")]
    pub id: String,
    /// What it is kept in.
    pub kept: Kept,
    /// The directory that no link leads its path out of, where one was added who may name none elsewhere.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub within: Option<PathBuf>,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// It is read and written past the system's cache (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// Bytes of a physical block that initiators are told, where that is not what the storage has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_block_size: Option<u32>,
    /// Nobody may write.
    pub read_only: bool,
    /// Whom it is for.
    #[serde(default)]
    pub allow: Vec<Allow>,
    /// The name that an initiator proves, where it has to.
    pub chap: Option<String>,
    /// The name that the target proves.
    pub mutual_chap: Option<String>,
    /// Counts the changes of its secrets: sessions that proved older ones end.
    #[serde(default)]
    pub proofs: u64,
    /// The volume whose target it is a LUN of, if that is not its own.
    pub target: Option<VolumeName>,
    /// Its number there.
    pub lun: u16,
    /// Initiators may have all of it overwritten (SANITIZE).
    pub allow_sanitize: bool,
    /// A device that is in use was published nevertheless.
    #[serde(default)]
    pub force: bool,
    /// When it was added.
    pub added: Timestamp,
}

/// As it was drawn: it is part of paths.
fn drawn<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match id.len() == 16 && id.bytes().all(digit) {
        true => Ok(id),
        false => Err(D::Error::custom(
            "the id of a volume has 16 hexadecimal digits",
        )),
    }
}

/// What a volume is kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// A sparse file in the library, which goes with the volume.
    Library,
    /// A file of somebody's, which stays.
    #[schema(value_type = String)]
    File(PathBuf),
    /// A block device.
    #[schema(value_type = String)]
    Device(PathBuf),
}

impl Document for Volume {
    const PERMISSIONS: u32 = 0o640;

    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Volume {
    /// Its edition: another one whenever somebody described it anew.
    pub fn edition(&self) -> Edition {
        Edition::of(&Volume {
            revision: 0,
            ..self.clone()
        })
    }

    /// Refuses whoever has read another edition.
    pub fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        self.edition().ensure(wanted, "volume", &self.name)
    }

    /// The volume whose target, and whose rules, it has.
    pub fn head(&self) -> &VolumeName {
        self.target.as_ref().unwrap_or(&self.name)
    }

    /// Whether an initiator may see the target, whatever it has to prove when it logs in. Only for the
    /// head of a target.
    pub fn is_shown_to(&self, initiator: &str, peer: IpAddr) -> bool {
        access::lets_in(&self.allow, initiator, peer)
    }

    /// Whether an initiator that proved to be `chap_name` may log in. Only for the head of a target.
    pub fn admits(&self, initiator: &str, peer: IpAddr, chap_name: Option<&str>) -> bool {
        let listed = self.is_shown_to(initiator, peer);
        match &self.chap {
            Some(user) => chap_name == Some(user) && (listed || self.allow.is_empty()),
            None => listed,
        }
    }
}

/// The volumes of a library, as far as their documents can be read.
#[derive(Debug, Default)]
pub struct ReadVolumes {
    /// Those that can, by name.
    pub volumes: Vec<Volume>,
    /// The others, and why not.
    pub broken: Vec<(VolumeName, Error)>,
}

impl Library {
    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for name in document::names(&self.places().volumes())? {
            if let Ok(name) = name.parse() {
                volumes.extend(self.find_volume(&name)?);
            }
        }
        Ok(volumes)
    }

    /// All volumes whose documents can be read, and why the others cannot: one that is broken is no reason
    /// to leave the others as they were.
    pub fn readable_volumes(&self) -> Result<ReadVolumes> {
        let mut read = ReadVolumes::default();
        for name in document::names(&self.places().volumes())? {
            let Ok(name) = name.parse() else {
                continue;
            };
            match self.find_volume(&name) {
                Ok(volume) => read.volumes.extend(volume),
                Err(error) => read.broken.push((name, error)),
            }
        }
        Ok(read)
    }

    /// The volume of this name.
    pub fn volume(&self, name: &VolumeName) -> Result<Volume> {
        self.find_volume(name)?
            .ok_or_else(|| Error::unknown("volume", name))
    }

    pub(crate) fn find_volume(&self, name: &VolumeName) -> Result<Option<Volume>> {
        document::read(&self.places().volume(name))
    }

    /// The name of a volume's target.
    pub fn volume_target(&self, head: &VolumeName) -> String {
        format!("{}:{head}", self.config().iqn_prefix)
    }

    /// The volume that heads a target, if the name is one's.
    pub fn target_head(&self, target: &str) -> Result<Option<Volume>> {
        let Some(Ok(name)) = self.below_prefix(target).map(str::parse) else {
            return Ok(None);
        };
        self.find_head(&name)
    }

    /// The volume of this name, if it heads a target.
    pub fn find_head(&self, name: &VolumeName) -> Result<Option<Volume>> {
        let found = self.find_volume(name)?;
        Ok(found.filter(|found| found.target.is_none()))
    }

    /// The targets of volumes that an initiator may see.
    pub fn visible_volumes(&self, caller: Caller<'_>) -> Result<Vec<String>> {
        let mut volumes = self.volumes()?;
        volumes.retain(|one| {
            one.target.is_none() && one.is_shown_to(caller.initiator, caller.peer.ip())
        });
        Ok(volumes
            .iter()
            .map(|one| self.volume_target(&one.name))
            .collect())
    }

    /// Whether there is an image, a version or a client of this name.
    pub fn has_target(&self, target: &Target) -> bool {
        match target {
            Target::Alias(image) => self.places().image(image).exists(),
            Target::Version(id) => self.version(id).is_ok(),
            Target::Clone(mac) => self.client(mac).is_ok(),
        }
    }

    /// Images and volumes are targets of one name space.
    pub(crate) fn ensure_no_volume(&self, image: &ImageName) -> Result<()> {
        match image.as_str().parse().map(|name| self.find_volume(&name)) {
            Ok(Ok(Some(_))) => Err(Error::Exists {
                kind: "volume",
                name: image.to_string(),
            }),
            Ok(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
