//! What is told of an image: its line of versions, what each takes, and who uses it.

use std::io::ErrorKind;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::settings::edition;
use super::{Image, Trial, Use};
use crate::library::Library;
use crate::library::clients::Way;
use crate::library::edition::Edition;
use crate::library::error::{Error, Result};
use crate::library::live::LiveSession;
use crate::library::manifest::BootFrom;
use crate::library::names::{ImageName, VersionId};
use crate::library::store::Usage;

/// An image with all that is known about its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Its name.
    pub name: ImageName,
    /// The number of the version that clients get at their next boot.
    pub current: Option<u32>,
    /// How those get kernel and root disk who boot it, where neither they nor their groups say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// All versions, in order.
    pub versions: Vec<VersionView>,
}

/// What is told of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// Its name and number.
    pub version: VersionId,
    /// Clients of its image get it at their next boot.
    pub current: bool,
    /// When it was sealed.
    pub sealed: Timestamp,
    /// The version that it was copied from, of this or another image. It may be gone.
    pub parent: Option<VersionId>,
    /// Versions that are there and were copied from it, of this image and others.
    pub children: Vec<VersionId>,
    /// Bytes of its disk, as clients see it.
    pub size: u64,
    /// What it takes now.
    pub usage: Usage,
    /// Its file system.
    pub filesystem: String,
    /// Its kernel's release; empty where the disk boots itself.
    pub kernel: String,
    /// What it calls itself.
    pub distribution: Option<String>,
    /// The recipe that made it.
    pub recipe: Option<String>,
    /// What came of its last test boot, if there was one.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// Only its test keeps it from becoming current.
    #[serde(default)]
    pub waits: bool,
    /// Who uses it. Nothing for who may not read that.
    pub uses: Option<Vec<Use>>,
}

impl ImageView {
    /// That of its image.
    pub fn edition(&self) -> Edition {
        edition(self.current, self.way)
    }
}

impl Library {
    /// All that is known about an image's versions; `sessions` are all that there are now.
    pub fn image_view(&self, name: &ImageName, sessions: &[LiveSession]) -> Result<ImageView> {
        let image = self.image(name)?;
        let children = self.children()?;
        let mut versions = Vec::new();
        for version in image.ids() {
            let mut view = self.version_view(&image, &version, &children)?;
            view.uses = match self.uses_of(&version, sessions) {
                Ok(uses) => Some(uses),
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                    None
                }
                Err(error) => return Err(error),
            };
            versions.push(view);
        }
        Ok(ImageView {
            name: image.name,
            current: image.current,
            way: image.way,
            versions,
        })
    }

    fn version_view(
        &self,
        image: &Image,
        id: &VersionId,
        children: &[(VersionId, VersionId)],
    ) -> Result<VersionView> {
        let version = self.version(id)?;
        let manifest = version.manifest();
        let facts = &manifest.facts;
        let mine = children.iter().filter(|(parent, _)| parent == id);
        Ok(VersionView {
            version: id.clone(),
            current: image.current == Some(id.number),
            sealed: manifest.sealed,
            parent: facts.parent.clone(),
            children: mine.map(|(_, child)| child.clone()).collect(),
            size: manifest.disk.size,
            usage: self.usage(id)?,
            filesystem: match &manifest.boot {
                BootFrom::Kernel { .. } => facts.filesystem.kind.clone(),
                BootFrom::Disk(table) => table.kind.to_string(),
            },
            kernel: facts.kernel_version.clone(),
            distribution: facts.distribution.as_ref().map(ToString::to_string),
            recipe: facts.recipe.as_ref().map(|recipe| recipe.name.clone()),
            trial: self.trial(id)?,
            waits: self.waits_for_trial(id)?,
            uses: None,
        })
    }

    /// Every version that was copied from another, behind that one.
    fn children(&self) -> Result<Vec<(VersionId, VersionId)>> {
        let mut children = Vec::new();
        for image in self.images()? {
            for id in image.ids() {
                let parent = self.version(&id)?.manifest().facts.parent.clone();
                children.extend(parent.map(|parent| (parent, id)));
            }
        }
        Ok(children)
    }
}
