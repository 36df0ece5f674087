//! Images and their versions.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::document::{self, Document};
use super::error::{Doing, Error, Result};
use super::events::{Actor, Event};
use super::live::Live;
use super::lock::WriteLock;
use super::manifest::{BootFrom, FileFacts, Manifest};
use super::names::{ImageName, VersionId, VersionSpec, version_number};
use super::progress::Progress;
use super::store::{self, DISK, Draft, INITRAMFS, KERNEL, MANIFEST};
use super::{Library, store::Places};

/// An image: its versions, and which of them clients get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name.
    pub name: ImageName,
    /// The number of the version that clients get at their next boot.
    pub current: Option<u32>,
    /// The numbers of all versions, in order.
    pub versions: Vec<u32>,
}

/// A sealed version: where its files are, and what is known about it.
#[derive(Debug, Clone)]
pub struct Version {
    manifest: Arc<Manifest>,
    dir: PathBuf,
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

/// `images/NAME/current`: which version clients get, and the highest number that was ever drawn, so
/// that the number of a removed version never means another one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Current {
    revision: u64,
    current: Option<u32>,
    drawn: u32,
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

/// Manifests that were read. They are never written again, so a file that is still the same one
/// needs no second look.
#[derive(Debug, Default)]
pub(crate) struct Manifests(Mutex<HashMap<VersionId, (FileId, Arc<Manifest>)>>);

/// Device, inode and change time: a version that was removed and made anew has others.
type FileId = (u64, u64, i64, i64);

impl Manifests {
    fn read(&self, places: &Places, version: &VersionId) -> Result<Option<Arc<Manifest>>> {
        use std::os::unix::fs::MetadataExt;
        let path = places.version(version).join(MANIFEST);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing("reading", &path),
        };
        let id = (
            metadata.dev(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        // A poisoned map only means that somebody panicked while reading; what is in it is whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known_id, manifest)) = known.get(version)
            && *known_id == id
        {
            return Ok(Some(manifest.clone()));
        }
        let Some(manifest) = document::read::<Manifest>(&path)? else {
            return Ok(None);
        };
        let manifest = Arc::new(manifest);
        known.insert(version.clone(), (id, manifest.clone()));
        Ok(Some(manifest))
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
        match self.manifests.read(self.places(), version)? {
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

    /// Begins a new version of an image, or the first one of a new image.
    pub fn draft(&self, image: &ImageName) -> Result<Draft<'_>> {
        Draft::begin(self, image)
    }

    /// Makes a version the one that clients get at their next boot.
    pub fn set_current(&self, version: &VersionId, actor: &Actor) -> Result<()> {
        let lock = self.write_lock()?;
        let found = self.version(version)?;
        if found.manifest().facts.filesystem.is_read_only() {
            self.ensure_only_shared(&version.image)?;
        }
        self.make_current(&lock, version)?;
        drop(lock);
        self.note(&Event::new(actor, "image-current").of_version(version));
        Ok(())
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
        let found = store::hash_path(&path, manifest.disk.block_size, progress)?;
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

    /// Who keeps a version from being removed: in words, one line each.
    pub fn users_of(&self, version: &VersionId, live: &dyn Live) -> Result<Vec<String>> {
        let mut users = Vec::new();
        for client in self.clients()? {
            users.extend(client.uses(version, |spec| {
                self.resolve(spec).is_ok_and(|found| found.id() == version)
            }));
        }
        for session in live.sessions_on_version(version) {
            users.push(format!(
                "{} at {} has it open",
                session.initiator, session.peer
            ));
        }
        users.extend(self.bound_to(version)?);
        Ok(users)
    }

    /// Removes a version for ever. Refused while a client is assigned to it, runs it or has a clone
    /// of it, and for the current version while the image has others.
    pub fn remove_version(
        &self,
        version: &VersionId,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<()> {
        let lock = self.write_lock()?;
        self.check_removal(version, live)?;
        self.take_out(&lock, version)?;
        drop(lock);
        self.sweep()?;
        self.note(&Event::new(actor, "image-remove").of_version(version));
        Ok(())
    }

    /// Removes an image with all its versions, for ever. Refused as for a version, and while a build
    /// of it runs.
    pub fn remove_image(&self, image: &ImageName, live: &dyn Live, actor: &Actor) -> Result<()> {
        let lock = self.write_lock()?;
        self.check_image_removal(image, live)?;
        let place = self.places().image(image);
        self.keep_drawn(&lock, image)?;
        let name = store::random_name().doing("drawing a name for", &place)?;
        // All of it or nothing: the sweep removes what it finds there, version by version.
        let away = self
            .places()
            .images()
            .join(format!("{}{name}", store::REMOVED));
        fs::rename(&place, away).doing("removing", &place)?;
        document::sync_dir(&self.places().images())?;
        drop(lock);
        self.sweep()?;
        self.note(&Event::new(actor, "image-remove").of(image));
        Ok(())
    }

    /// Removes a version, or an image with all its versions where `spec` names none. Returns what
    /// was removed.
    pub fn remove(
        &self,
        spec: &VersionSpec,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Vec<VersionId>> {
        let removed = self.plan_removal(spec, live)?;
        match removed.as_slice() {
            [id] if spec.number.is_some() => self.remove_version(id, live, actor)?,
            _ => self.remove_image(&spec.image, live, actor)?,
        }
        Ok(removed)
    }

    /// What `remove` would remove, or why it would be refused.
    pub fn plan_removal(&self, spec: &VersionSpec, live: &dyn Live) -> Result<Vec<VersionId>> {
        if spec.number.is_none() {
            return self.check_image_removal(&spec.image, live);
        }
        let version = self.resolve(spec)?.id().clone();
        self.check_removal(&version, live)?;
        Ok(vec![version])
    }

    /// The versions that go with an image, or why it stays.
    fn check_image_removal(&self, image: &ImageName, live: &dyn Live) -> Result<Vec<VersionId>> {
        let numbers = self.image(image)?.versions.into_iter();
        let ids: Vec<VersionId> = numbers
            .map(|number| VersionId {
                image: image.clone(),
                number,
            })
            .collect();
        let mut users = Vec::new();
        for id in &ids {
            users.extend(self.users_of(id, live)?);
        }
        for client in self.clients()? {
            if client.image.image == *image {
                users.push(format!("client {} is assigned to it", client.name));
            }
        }
        users.sort();
        users.dedup();
        refuse_used(image, users)?;
        if store::has_live_draft(&self.places().image(image))? {
            return Err(Error::refused(
                format!("removing {image}"),
                "a build of it is running",
                "wait for it, or end it first",
            ));
        }
        Ok(ids)
    }

    /// What `remove_version` would refuse, without doing it.
    pub fn check_removal(&self, version: &VersionId, live: &dyn Live) -> Result<()> {
        self.version(version)?;
        let image = self.image(&version.image)?;
        if image.current == Some(version.number) && image.versions.len() > 1 {
            return Err(Error::refused(
                format!("removing {version}"),
                "it is the current version: clients would get another one at their next boot",
                "make another version current first",
            ));
        }
        refuse_used(version, self.users_of(version, live)?)
    }

    /// Puts a version where the sweep completes its removal.
    fn take_out(&self, _: &WriteLock, version: &VersionId) -> Result<()> {
        let home = self.places().image(&version.image);
        let name = store::random_name().doing("drawing a name in", &home)?;
        let place = self.places().version(version);
        fs::rename(&place, home.join(format!("{}{name}", store::REMOVED)))
            .doing("removing", &place)?;
        document::sync_dir(&home)
    }

    fn find_image(&self, name: &ImageName) -> Result<Option<Image>> {
        let versions = self.numbers(name)?;
        if versions.is_empty() {
            return Ok(None);
        }
        let document: Option<Current> = document::read(&self.places().current(name))?;
        Ok(Some(Image {
            name: name.clone(),
            current: document.and_then(|document| document.current),
            versions,
        }))
    }

    fn numbers(&self, image: &ImageName) -> Result<Vec<u32>> {
        let mut numbers: Vec<u32> = document::entries(&self.places().image(image))?
            .iter()
            .filter_map(|name| version_number(name))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The number that the next version of an image gets.
    pub(crate) fn next_version(&self, image: &ImageName) -> Result<VersionId> {
        Ok(VersionId {
            image: image.clone(),
            number: self.drawn(image)? + 1,
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
    fn keep_drawn(&self, lock: &WriteLock, image: &ImageName) -> Result<()> {
        let path = self.places().drawn(image);
        let mut document: Drawn = document::read(&path)?.unwrap_or_default();
        document.drawn = self.drawn(image)?;
        document::write(lock, &path, &mut document)
    }

    pub(crate) fn make_current(&self, lock: &WriteLock, version: &VersionId) -> Result<()> {
        let path = self.places().current(&version.image);
        let mut document: Current = document::read(&path)?.unwrap_or_default();
        document.current = Some(version.number);
        document.drawn = document.drawn.max(version.number);
        document::write(lock, &path, &mut document)
    }

    /// A version whose number was never noted was published by a builder that was killed before it
    /// could make it current: whole and checked, so that last step is done here.
    pub(crate) fn finish_publishing(
        &self,
        lock: &WriteLock,
        image: &ImageName,
    ) -> Result<Option<VersionId>> {
        let Some(&highest) = self.numbers(image)?.last() else {
            return Ok(None);
        };
        let document: Current = document::read(&self.places().current(image))?.unwrap_or_default();
        if highest <= document.drawn {
            return Ok(None);
        }
        let version = VersionId {
            image: image.clone(),
            number: highest,
        };
        self.make_current(lock, &version)?;
        Ok(Some(version))
    }
}

fn refuse_used(what: &dyn std::fmt::Display, users: Vec<String>) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let more = users.len().saturating_sub(5);
    let mut why = users.into_iter().take(5).collect::<Vec<_>>().join(", ");
    if more > 0 {
        why.push_str(&format!(" and {more} more"));
    }
    Err(Error::refused(
        format!("removing {what}"),
        why,
        "assign those clients to another image or version first",
    ))
}

fn hash_file(path: &std::path::Path) -> Result<FileFacts> {
    let mut file = File::open(path).doing("opening", path)?;
    store::hash_reader(&mut file).doing("hashing", path)
}
