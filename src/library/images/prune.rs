//! Old versions that nobody uses, and drafts that failed and were kept: found, and removed for ever.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::removal::ensure_shown;
use super::{Image, Use};
use crate::library::clients::When;
use crate::library::document;
use crate::library::error::{Doing, Result};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::names::{ImageName, VersionId, VersionSpec};
use crate::library::{Library, store};

/// What pruning takes, and what it leaves although it is old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pruning {
    /// What goes, in order.
    pub removes: Vec<Pruned>,
    /// Old versions that stay.
    pub stays: Vec<Staying>,
}

/// An old version that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Staying {
    /// Which.
    pub version: VersionId,
    /// Why: a line for each use.
    pub why: Vec<String>,
}

/// One thing that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Pruned {
    /// An old version.
    Version {
        /// Which.
        version: VersionId,
        /// Bytes that it frees, at least. Nothing where that is not known.
        frees: Option<u64>,
    },
    /// What is left of a build that failed and was kept.
    Failed {
        /// The image that it was for.
        image: ImageName,
        /// Where it is.
        #[schema(value_type = String)]
        dir: PathBuf,
        /// Bytes that it frees, at least.
        frees: Option<u64>,
    },
}

impl Library {
    /// What [`prune`](Self::prune) would remove.
    pub fn plan_prune(
        &self,
        image: Option<&ImageName>,
        keep: NonZeroU32,
        live: &dyn Live,
    ) -> Result<Pruning> {
        let names = match image {
            Some(name) => vec![name.clone()],
            None => self.image_names()?,
        };
        let mut pruning = Pruning::default();
        for name in names {
            let failed = self.failed_drafts(&name)?;
            match self.image(&name) {
                Ok(image) => self.prune_versions(&image, keep, live, &mut pruning)?,
                // An image whose first build failed has nothing else.
                Err(_) if !failed.is_empty() || image.is_none() => {}
                Err(error) => return Err(error),
            }
            pruning.removes.extend(failed);
        }
        Ok(pruning)
    }

    /// Removes all but the `keep` newest versions of an image, or of every image, and what failed
    /// builds of it left. A version that is current or that somebody uses stays, however old.
    pub fn prune(
        &self,
        image: Option<&ImageName>,
        keep: NonZeroU32,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Pruning> {
        self.prune_shown(image, keep, None, live, actor)
    }

    /// The same, unless it takes something that is not among `shown`, to which somebody agreed.
    pub fn prune_shown(
        &self,
        image: Option<&ImageName>,
        keep: NonZeroU32,
        shown: Option<&[VersionId]>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Pruning> {
        let pruning = self.plan_prune(image, keep, live)?;
        if let Some(shown) = shown {
            let further = pruning.removes.iter().find_map(|pruned| match pruned {
                Pruned::Version { version, .. } => (!shown.contains(version)).then_some(version),
                Pruned::Failed { .. } => None,
            });
            ensure_shown(further, "pruning")?;
        }
        for pruned in &pruning.removes {
            match pruned {
                Pruned::Version { version, .. } => {
                    let spec = VersionSpec::from(version.clone());
                    self.remove(&spec, When::Now, live, actor)?;
                }
                Pruned::Failed { image, dir, .. } => self.discard_failed(image, dir, actor)?,
            }
        }
        Ok(pruning)
    }

    fn prune_versions(
        &self,
        image: &Image,
        keep: NonZeroU32,
        live: &dyn Live,
        pruning: &mut Pruning,
    ) -> Result<()> {
        let keep = usize::try_from(keep.get()).unwrap_or(usize::MAX);
        let old = image.versions.len().saturating_sub(keep);
        let sessions = live.sessions();
        for version in image.ids().into_iter().take(old) {
            let uses = self.uses_of(&version, &sessions)?;
            let mut why: Vec<String> = uses.iter().map(Use::to_string).collect();
            if image.current == Some(version.number) {
                why.insert(0, "it is the current version".to_owned());
            }
            if why.is_empty() {
                let frees = self.usage(&version)?.exclusive;
                pruning.removes.push(Pruned::Version { version, frees });
            } else {
                pruning.stays.push(Staying { version, why });
            }
        }
        Ok(())
    }

    /// Images that have a directory, whether there is a version in it or not.
    fn image_names(&self) -> Result<Vec<ImageName>> {
        let names = document::entries(&self.places().images())?.into_iter();
        let mut names: Vec<ImageName> = names.filter_map(|name| name.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn failed_drafts(&self, image: &ImageName) -> Result<Vec<Pruned>> {
        let home = self.places().image(image);
        let mut names = document::entries(&home)?;
        names.retain(|name| name.starts_with(store::FAILED));
        names.sort();
        let failed = names.into_iter().map(|name| {
            let dir = home.join(name);
            Ok(Pruned::Failed {
                image: image.clone(),
                frees: self.usage_of_dir(&dir)?.exclusive,
                dir,
            })
        });
        failed.collect()
    }

    /// What a person kept to look into goes as what was removed goes: out of its place first, so that
    /// a killed removal is completed by the next command.
    fn discard_failed(
        &self,
        image: &ImageName,
        dir: &std::path::Path,
        actor: &Actor,
    ) -> Result<()> {
        let lock = self.write_lock()?;
        let home = self.places().image(image);
        // Somebody may look into it right now, by mounting it there.
        store::remove_mount_points(dir)?;
        let name = store::random_name().doing("drawing a name in", &home)?;
        fs::rename(dir, home.join(format!("{}{name}", store::REMOVED))).doing("removing", dir)?;
        drop(lock);
        self.sweep()?;
        let event = Event::new(actor, "image-discard-failed").of(image);
        self.note(&event.with("directory", dir.display().to_string()));
        Ok(())
    }
}
