//! Which version of an image is current, and which numbers were drawn.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::library::document::{self, Document};
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::lock::WriteLock;
use crate::library::manifest::BootFrom;
use crate::library::names::{ImageName, VersionId, version_number};
use crate::library::{Library, store};

use super::Image;

/// `images/NAME/current`: which version clients get, and the highest number that was ever drawn, so
/// that the number of a removed version never means another one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Current {
    revision: u64,
    current: Option<u32>,
    drawn: u32,
    /// Which were current before.
    #[serde(default)]
    was: BTreeSet<u32>,
}

impl Document for Current {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// `images/.drawn-NAME.json`: what stays of an image that was removed, so that the next one of that
/// name counts on. A machine that runs `fc28@1` may come back, and must not find another disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Drawn {
    revision: u64,
    drawn: u32,
}

impl Document for Drawn {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Library {
    /// Refuses what is not there, what the image's clients could not boot, and what nobody has tried
    /// where that is asked for.
    pub(super) fn ensure_may_be_current(&self, version: &VersionId) -> Result<()> {
        self.ensure_bootable(version)?;
        self.ensure_nothing_waits(version)
    }

    /// Refuses what is whole and yet has to wait: for its image to say another way, or for its test.
    fn ensure_nothing_waits(&self, version: &VersionId) -> Result<()> {
        self.ensure_boots_by_its_way(&self.version(version)?)?;
        self.ensure_tried(version)
    }

    fn ensure_bootable(&self, version: &VersionId) -> Result<()> {
        let found = self.version(version)?;
        match found.manifest().facts.filesystem.is_read_only() {
            true => self.ensure_only_shared(&version.image),
            false => Ok(()),
        }
    }

    /// Makes a version the one that clients get at their next boot.
    pub fn set_current(&self, version: &VersionId, actor: &Actor) -> Result<()> {
        let lock = self.write_lock()?;
        self.ensure_may_be_current(version)?;
        self.make_current(&lock, version)?;
        drop(lock);
        self.note(&Event::new(actor, "image-current").of_version(version));
        Ok(())
    }

    pub(crate) fn find_image(&self, name: &ImageName) -> Result<Option<Image>> {
        let versions = self.numbers(name)?;
        if versions.is_empty() {
            return Ok(None);
        }
        let document: Option<Current> = document::read(&self.places().current(name))?;
        Ok(Some(Image {
            name: name.clone(),
            current: document.and_then(|document| document.current),
            versions,
            way: self.way_of_image(name)?,
        }))
    }

    pub(super) fn numbers(&self, image: &ImageName) -> Result<Vec<u32>> {
        let mut numbers: Vec<u32> = document::entries(&self.places().image(image))?
            .iter()
            .filter_map(|name| version_number(name))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The number that the next version of an image gets.
    pub(crate) fn next_version(&self, image: &ImageName) -> Result<VersionId> {
        let number = self.drawn(image)?.checked_add(1).ok_or_else(|| {
            Error::refused(
                format!("making a version of {image}"),
                "there is a directory of the highest number that a version can have",
                format!(
                    "remove what does not belong into {}",
                    self.places().image(image).display()
                ),
            )
        })?;
        Ok(VersionId {
            image: image.clone(),
            number,
        })
    }

    /// The highest number that a version of an image ever had, or of one of that name before it.
    fn drawn(&self, image: &ImageName) -> Result<u32> {
        let highest = self.numbers(image)?.last().copied().unwrap_or(0);
        let current: Current = document::read(&self.places().current(image))?.unwrap_or_default();
        let before: Drawn = document::read(&self.places().drawn(image))?.unwrap_or_default();
        Ok(highest.max(current.drawn).max(before.drawn))
    }

    /// Notes it where it outlives the image.
    pub(super) fn keep_drawn(&self, lock: &WriteLock, image: &ImageName) -> Result<()> {
        let path = self.places().drawn(image);
        let mut document: Drawn = document::read(&path)?.unwrap_or_default();
        document.drawn = self.drawn(image)?;
        document::write(lock, &path, &mut document)
    }

    pub(crate) fn make_current(&self, lock: &WriteLock, version: &VersionId) -> Result<()> {
        let path = self.places().current(&version.image);
        let mut document: Current = document::read(&path)?.unwrap_or_default();
        if let Some(before) = document.current.replace(version.number) {
            document.was.insert(before);
        }
        document.drawn = document.drawn.max(version.number);
        document::write(lock, &path, &mut document)
    }

    /// Whether clients got a version at some time, as the current one.
    pub(super) fn was_current(&self, version: &VersionId) -> Result<bool> {
        let document: Option<Current> = document::read(&self.places().current(&version.image))?;
        Ok(document.is_some_and(|document| {
            document.current == Some(version.number) || document.was.contains(&version.number)
        }))
    }

    /// Notes the number of a version that does not become current.
    pub(crate) fn note_drawn(&self, lock: &WriteLock, version: &VersionId) -> Result<()> {
        let path = self.places().current(&version.image);
        let mut document: Current = document::read(&path)?.unwrap_or_default();
        document.drawn = document.drawn.max(version.number);
        document::write(lock, &path, &mut document)
    }

    /// A version is published, and everybody who has to know does.
    pub(crate) fn unmark(&self, version: &VersionId) {
        let mark = self.places().version(version).join(store::PUBLISHING);
        // One that stays is removed by the next command, which finds nothing to do.
        let _ = fs::remove_file(mark);
    }

    /// A version that its builder marked was published by one that was killed before it could make it
    /// current: whole and checked, so that last step is done here, unless it has to be tested first. Directories without a mark are left
    /// alone: somebody may be copying a library, or have made them.
    pub(crate) fn finish_publishing(
        &self,
        lock: &WriteLock,
        image: &ImageName,
    ) -> Result<Option<VersionId>> {
        let document: Current = document::read(&self.places().current(image))?.unwrap_or_default();
        let mut finished = None;
        for number in self.numbers(image)? {
            let image = image.clone();
            let version = VersionId { image, number };
            let mark = self.places().version(&version).join(store::PUBLISHING);
            if !mark.exists() {
                continue;
            }
            if number > document.drawn && self.is_whole(&version) {
                match self.ensure_nothing_waits(&version) {
                    Ok(()) => self.make_current(lock, &version)?,
                    Err(_) => self.note_drawn(lock, &version)?,
                }
                finished = Some(version.clone());
            }
            self.unmark(&version);
        }
        Ok(finished)
    }

    /// Whether a version is what its manifest says, as far as a glance tells.
    fn is_whole(&self, version: &VersionId) -> bool {
        let Ok(found) = self.version(version) else {
            return false;
        };
        let manifest = found.manifest();
        let has =
            |path: PathBuf, size: u64| fs::metadata(path).is_ok_and(|file| file.len() == size);
        let beside = match &manifest.boot {
            BootFrom::Disk(_) => true,
            BootFrom::Kernel { kernel, initramfs } => {
                has(found.kernel_path(), kernel.size) && has(found.initramfs_path(), initramfs.size)
            }
        };
        manifest.version == *version
            && has(found.disk_path(), manifest.disk.size)
            && beside
            && self.ensure_bootable(version).is_ok()
    }
}
