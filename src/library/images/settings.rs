//! What is said of an image: by which way its boots go where nobody nearer says so.
//!
//! It is said of the image and not of its versions, which are sealed: a new version leaves it as it is. It
//! goes with the image's last version, and an image that is made of another begins with that one's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Image, Version};
use crate::library::clients::{SaidBy, Saying, Sayings, Settings, Way, quoted, said};
use crate::library::document::{self, Document};
use crate::library::edition::Edition;
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::lock::WriteLock;
use crate::library::manifest::BootFrom;
use crate::library::names::{ImageName, VersionId};
use crate::library::{Library, manifest::InitramfsKind};

/// `images/NAME/settings`
#[derive(Debug, Default, Serialize, Deserialize)]
struct ImageSettings {
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    way: Option<Way>,
}

impl Document for ImageSettings {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// What becomes of what is said of an image; what is left out stays, and null says nothing any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageEdit {
    /// How its boots get kernel and root disk.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Way>)]
    pub way: Option<Option<Way>>,
}

/// What a change of what is said of an image would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagePlan {
    /// The image.
    pub image: ImageName,
    /// What it takes, in order. Empty: nothing changes.
    pub steps: Vec<String>,
}

impl Image {
    /// Its edition: another one whenever another version is current, or something else is said of it.
    pub fn edition(&self) -> Edition {
        edition(self.current, self.way)
    }

    /// Refuses whoever has read another edition.
    pub fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        self.edition().ensure(wanted, "image", &self.name)
    }
}

/// That of an image with this current version, of which this is said.
pub(super) fn edition(current: Option<u32>, way: Option<Way>) -> Edition {
    let way = way.map(|way| format!("-{way}")).unwrap_or_default();
    Edition::named(&format!("current-{}{way}", current.unwrap_or(0)))
}

/// What an image says that has this way.
pub(crate) fn saying(image: &ImageName, way: Option<Way>) -> Saying {
    let settings = Settings {
        way,
        ..Settings::default()
    };
    (SaidBy::Image(image.clone()), settings)
}

/// What leaves the way of an image to others.
fn without(image: &ImageName) -> String {
    format!("netroot image set {image} --way none")
}

/// What a person should know before a version with such an initramfs is made, where `way` is said of
/// the image that it is for.
pub fn caution_of_way(image: &ImageName, way: Option<Way>, kind: InitramfsKind) -> Option<String> {
    let way = way?;
    let why = way.unfit_for(kind)?;
    Some(format!(
        "this version of {image} does not become current while way {way} is said of that: its initramfs \
         {why}; to leave the way to others: {}",
        without(image)
    ))
}

impl Library {
    /// The way that is said of an image.
    pub(crate) fn way_of_image(&self, name: &ImageName) -> Result<Option<Way>> {
        let document: Option<ImageSettings> = document::read(&self.places().image_settings(name))?;
        Ok(document.and_then(|document| document.way))
    }

    /// What an image says of those who boot it.
    pub(crate) fn said_of_image(&self, name: &ImageName) -> Result<Saying> {
        Ok(saying(name, self.way_of_image(name)?))
    }

    /// Who says what of those who boot an image, as far as they and their groups say nothing.
    pub fn image_sayings(&self, image: &Image) -> Sayings {
        vec![
            saying(&image.name, image.way),
            (SaidBy::Everybody, self.config().clients.clone()),
            (SaidBy::Nobody, self.usual_settings()),
        ]
    }

    /// What [`edit_image`](Self::edit_image) would do, or why it would be refused.
    pub fn plan_edit_image(&self, name: &ImageName, edit: &ImageEdit) -> Result<ImagePlan> {
        let image = self.image(name)?;
        let what = format!("setting image {name}");
        let after = edit.way.unwrap_or(image.way);
        if let Some(Some(way)) = edit.way {
            self.ensure_image_way(&image, way, &what)?;
        }
        let mut steps = Vec::new();
        if after != image.way {
            self.ensure_for_boots_of(name, after, &what)?;
            let words =
                |way: Option<Way>| quoted(&way.map(|way| way.to_string()).unwrap_or_default());
            steps.push(format!(
                "set way to {} instead of {}",
                words(after),
                words(image.way)
            ));
        }
        Ok(ImagePlan {
            image: image.name,
            steps,
        })
    }

    /// Says something of an image for all who boot it, from their next boot on.
    pub fn edit_image(&self, name: &ImageName, edit: &ImageEdit, actor: &Actor) -> Result<Image> {
        self.edit_image_on(name, None, edit, actor)
    }

    /// The same, unless the image is not what it was in `edition`.
    pub fn edit_image_on(
        &self,
        name: &ImageName,
        edition: Option<&Edition>,
        edit: &ImageEdit,
        actor: &Actor,
    ) -> Result<Image> {
        let lock = self.write_lock()?;
        let before = self.image(name)?;
        before.ensure_edition(edition)?;
        let plan = self.plan_edit_image(name, edit)?;
        if plan.steps.is_empty() {
            return Ok(before);
        }
        let after = edit.way.unwrap_or(before.way);
        self.say_of_image(&lock, name, after)?;
        drop(lock);
        let text = |way: Option<Way>| way.map(|way| way.to_string());
        self.note(
            &Event::new(actor, "image-set")
                .of(name)
                .with("from", text(before.way))
                .with("to", text(after)),
        );
        self.image(name)
    }

    /// Writes down what is said of an image; one of which nothing is said has no such document.
    pub(crate) fn say_of_image(
        &self,
        lock: &WriteLock,
        name: &ImageName,
        way: Option<Way>,
    ) -> Result<()> {
        let path = self.places().image_settings(name);
        if way.is_none() {
            return document::remove(lock, &path);
        }
        let mut document: ImageSettings = document::read(&path)?.unwrap_or_default();
        document.way = way;
        document::write(lock, &path, &mut document)
    }

    /// Why the way of its image does not boot a version, if it does not.
    pub(super) fn unfit_for_its_image(&self, version: &Version) -> Result<Option<String>> {
        let way = self.way_of_image(&version.id().image)?;
        Ok(way.and_then(|way| version.unfit_for(way)))
    }

    /// Refuses as current what the way of its image does not boot.
    pub(super) fn ensure_boots_by_its_way(&self, version: &Version) -> Result<()> {
        let VersionId { image, .. } = version.id();
        match self.unfit_for_its_image(version)? {
            Some(why) => Err(Error::refused(
                format!("making {} current", version.id()),
                why,
                format!(
                    "leave the way to others ({}), and then make it current: netroot image rollback {}",
                    without(image),
                    version.id()
                ),
            )),
            None => Ok(()),
        }
    }

    /// Refuses a way for which there is no use, or by which the current version does not boot.
    fn ensure_image_way(&self, image: &Image, way: Way, what: &str) -> Result<()> {
        // Where none is current yet, the newest is what waits for that.
        let Some(number) = image.current.or(image.versions.last().copied()) else {
            return Ok(());
        };
        let version = self.version(&image.id(number))?;
        if let BootFrom::Disk(_) = version.manifest().boot {
            return Err(Error::refused(
                what,
                format!(
                    "{} boots from its own disk, which iPXE attaches and leaves in the firmware's table: its \
                     way is ibft, whatever is said",
                    version.id()
                ),
                "say nothing of it",
            ));
        }
        version.ensure_way(way, what)
    }

    /// Refuses what those could not boot by who boot the image at their next boot.
    fn ensure_for_boots_of(&self, name: &ImageName, way: Option<Way>, what: &str) -> Result<()> {
        for client in self.clients()? {
            // What cannot be carried out is told when it boots, and so is a version that is gone.
            let Ok(next) = client.next_boot() else {
                continue;
            };
            let meant = next.assignment.image;
            if meant.image != *name {
                continue;
            }
            let version = match next.fixed {
                Some(version) => self.version(&version),
                None => self.resolve(&meant),
            };
            let before = self.settings_booting(&client, name)?.way;
            let after = self.settings_where(&client, saying(name, way))?.way;
            // Of who goes by another word nothing changes.
            if let (Ok(version), true) = (version, after != before) {
                let what = format!("{what}, which client {} boots", client.name);
                version.ensure_way(after.unwrap_or_default(), &what)?;
            }
        }
        Ok(())
    }
}
