//! Names on the wire: what targets and initiators are called.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::boots::BootId;
use super::clients::Client;
use super::error::Result;
use super::names::{VersionId, version_number};
use super::store::{DISK, clone};
use super::{ImageName, Library, MacAddr};

/// What the part of a target's name behind `IQN_PREFIX:` means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// `fc28`: whatever the initiator is bound to (rule 4).
    Alias(ImageName),
    /// `fc28.3`: one version.
    Version(VersionId),
    /// `client-525400123456`: a client's clone.
    Clone(MacAddr),
}

/// Begins the last part of the names of clones and of clients' initiators. No image's name ends
/// like one.
const CLIENT: &str = "client-";

/// Begins the last part of the names of initiators of machines that are nobody's clients.
const GUEST: &str = "unknown-";

/// Who an initiator says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// A boot of a client, as a script named it.
    Boot(MacAddr, BootId),
    /// Something in our name space that no script of ours ever said.
    Forged,
    /// Somebody else's name.
    Other,
}

/// A target that is published, without its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// The target's name.
    pub target: String,
    /// `alias`, `version` or `clone`.
    pub kind: PublishedKind,
    /// The LUN of the disk; LUN 0 is a storage array controller.
    pub lun: u16,
    /// Bytes of the disk.
    pub size: u64,
    /// The file behind it.
    #[schema(value_type = String)]
    pub backing: PathBuf,
    /// Nobody may write.
    pub read_only: bool,
    /// The version that it is, or that the clone was made from.
    pub version: VersionId,
    /// The client that it belongs to.
    pub client: Option<MacAddr>,
}

/// What kind of target it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PublishedKind {
    /// An image's current version.
    Alias,
    /// One version.
    Version,
    /// A client's clone.
    Clone,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Alias(image) => write!(f, "{image}"),
            Target::Version(id) => write!(f, "{}.{}", id.image, id.number),
            Target::Clone(mac) => write!(f, "{CLIENT}{}", mac.bare()),
        }
    }
}

impl Library {
    /// The whole name of a target.
    pub fn target_name(&self, target: &Target) -> String {
        format!("{}:{target}", self.config().iqn_prefix)
    }

    /// What the name of a target means, if it is one of this library's.
    pub fn parse_target(&self, name: &str) -> Option<Target> {
        let name = self.below_prefix(name)?;
        if let Some(mac) = name.strip_prefix(CLIENT).and_then(bare_mac) {
            return Some(Target::Clone(mac));
        }
        match name.split_once('.') {
            None => Some(Target::Alias(name.parse().ok()?)),
            Some((image, number)) => Some(Target::Version(VersionId {
                image: image.parse().ok()?,
                number: version_number(number)?,
            })),
        }
    }

    /// The name of the initiator of one boot of a client.
    pub fn initiator_name(&self, client: &MacAddr, boot: &BootId) -> String {
        let config = self.config();
        let prefix = &config.iqn_prefix;
        format!("{prefix}:{CLIENT}{}.{boot}", client.bare())
    }

    /// The name of the initiator of a machine that is nobody's client. It reads versions as anybody may,
    /// by a name that no other machine has.
    pub fn guest_name(&self, mac: &MacAddr) -> String {
        format!("{}:{GUEST}{}", self.config().iqn_prefix, mac.bare())
    }

    /// Who an initiator is, by its name.
    pub(crate) fn who(&self, initiator: &str) -> Who {
        let Some(name) = self.below_prefix(initiator) else {
            return Who::Other;
        };
        let boot = name.strip_prefix(CLIENT).and_then(|rest| {
            let (mac, id) = rest.split_once('.')?;
            Some(Who::Boot(bare_mac(mac)?, id.parse().ok()?))
        });
        match boot {
            Some(boot) => boot,
            None if name.starts_with(CLIENT) => Who::Forged,
            None => Who::Other,
        }
    }

    /// The client that an initiator's name is made for, whether or not it would be let in.
    pub fn client_named(&self, initiator: &str) -> Option<MacAddr> {
        match self.who(initiator) {
            Who::Boot(mac, _) => Some(mac),
            Who::Forged | Who::Other => None,
        }
    }

    /// The boot that an initiator's name is made for, whether or not it would be let in.
    pub fn boot_named(&self, initiator: &str) -> Option<BootId> {
        match self.who(initiator) {
            Who::Boot(_, id) => Some(id),
            Who::Forged | Who::Other => None,
        }
    }

    /// Every target that is published: images by name, then clones.
    pub fn published(&self) -> Result<Vec<Published>> {
        let mut all = Vec::new();
        for image in self.images()? {
            if let Some(number) = image.current {
                let target = Target::Alias(image.name.clone());
                let id = version_of(&image.name, number);
                all.push(self.published_version(&target, PublishedKind::Alias, &id)?);
            }
            for number in image.versions {
                let id = version_of(&image.name, number);
                let target = Target::Version(id.clone());
                all.push(self.published_version(&target, PublishedKind::Version, &id)?);
            }
        }
        for client in self.clients()? {
            all.extend(self.published_clone(&client)?);
        }
        Ok(all)
    }

    fn published_version(
        &self,
        target: &Target,
        kind: PublishedKind,
        id: &VersionId,
    ) -> Result<Published> {
        let version = self.version(id)?;
        Ok(Published {
            target: self.target_name(target),
            kind,
            lun: self.config().iscsi.lun.number(),
            size: version.manifest().disk.size,
            backing: self.places().version(id).join(DISK),
            read_only: true,
            version: id.clone(),
            client: None,
        })
    }

    fn published_clone(&self, client: &Client) -> Result<Option<Published>> {
        let Some(info) = &client.clone else {
            return Ok(None);
        };
        let (backing, _) = clone::paths(self.places(), &client.mac);
        Ok(Some(Published {
            target: self.target_name(&Target::Clone(client.mac)),
            kind: PublishedKind::Clone,
            lun: self.config().iscsi.lun.number(),
            size: clone::size(self.places(), &client.mac)?,
            backing,
            read_only: false,
            version: info.from.clone(),
            client: Some(client.mac),
        }))
    }

    pub(super) fn below_prefix<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.config().iqn_prefix.as_str())?
            .strip_prefix(':')
    }
}

fn version_of(image: &ImageName, number: u32) -> VersionId {
    VersionId {
        image: image.clone(),
        number,
    }
}

/// A MAC in the one way it is written in names: twelve hex digits in lower case.
fn bare_mac(text: &str) -> Option<MacAddr> {
    let mac: MacAddr = text.parse().ok()?;
    (mac.bare() == text).then_some(mac)
}
