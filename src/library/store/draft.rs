//! Drafts: versions that are being made, in a hidden directory beside their place.
//!
//! A draft is held by a lock on a file in it, so that the next command recognises what a killed
//! builder left. Dropping a draft removes it; sealing it makes it a version.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::copy::{CopyKind, copy_disk, copy_foreign};
use super::flags::{self, Writing};
use super::hash::{hash_path, hash_reader};
use super::{
    BLOCK_SIZE, DISK, DRAFT, FAILED, INITRAMFS, KERNEL, MANIFEST, PUBLISHING, random_name,
};
use crate::library::clients::Way;
use crate::library::error::{Doing, Error, Result};
use crate::library::images::Version;
use crate::library::manifest::{
    BootFrom, DiskFacts, FileFacts, Manifest, TableFacts, VersionFacts,
};
use crate::library::names::{ImageName, VersionId};
use crate::library::progress::Progress;
use crate::library::{Library, document, lock, owner};

/// The file whose lock says that a draft's maker is alive.
pub(super) const HELD: &str = "held";

/// The file of a scratch file system.
const SCRATCH: &str = "scratch.img";

/// What a version consists of, and who may read it. Its tree has a `shadow` and host keys in it, and
/// an initramfs may have: those are for root, and for who shares the library's group.
const SEALED: [(&str, u32); 4] = [
    (DISK, 0o440),
    (INITRAMFS, 0o440),
    (KERNEL, 0o444),
    (MANIFEST, 0o444),
];

/// A version that is being made. Removed on drop, unless it was sealed.
#[derive(Debug)]
pub struct Draft<'a> {
    library: &'a Library,
    image: ImageName,
    dir: PathBuf,
    kernel: Option<FileFacts>,
    initramfs: Option<FileFacts>,
    table: Option<TableFacts>,
    /// What is said of its image, where it begins it.
    way: Option<Way>,
    /// Which version of its image was current when it was begun.
    began_at: Option<u32>,
    only: Only,
    _held: File,
}

/// When a draft may be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    /// Whatever versions there are by then.
    Anyway,
    /// While its image has none.
    AsFirst,
}

/// Bytes of the largest disk.
const LARGEST_DISK: u64 = 64 << 40;

impl<'a> Draft<'a> {
    pub(crate) fn begin(library: &'a Library, image: &ImageName) -> Result<Self> {
        library.ensure_no_volume(image)?;
        let home = library.places().image(image);
        // Under the write lock, because a sweep beside us removes empty directories of images and
        // drafts that nobody holds.
        let _lock = library.write_lock()?;
        owner::make_dirs(&home).doing("creating", &home)?;
        let name = random_name().doing("drawing a name in", &home)?;
        let dir = home.join(format!("{DRAFT}{name}"));
        owner::make_dirs(&dir).doing("creating", &dir)?;
        let path = dir.join(HELD);
        let held = owner::acting_for(&dir, || new_file(&path)).doing("creating", &path)?;
        if !lock::try_whole(&held).doing("locking", &path)? {
            // Nobody of ours locks a draft but its maker.
            return Err(Error::refused(
                format!("making a version of {image}"),
                format!("somebody else has locked {}", path.display()),
                "end that process, and repeat it",
            ));
        }
        Ok(Draft {
            library,
            image: image.clone(),
            dir,
            kernel: None,
            initramfs: None,
            table: None,
            way: None,
            began_at: library.find_image(image)?.and_then(|image| image.current),
            only: Only::Anyway,
            _held: held,
        })
    }

    /// Refuses to be sealed where its image has a version by then.
    pub fn only_as_first(&mut self) {
        self.only = Only::AsFirst;
    }

    /// Has this way said of its image, where it is the first version of that.
    pub fn begin_with(&mut self, way: Way) {
        self.way = Some(way);
    }

    /// The way that is said of its image, or will be.
    pub fn way(&self) -> Result<Option<Way>> {
        match self.library.find_image(&self.image)? {
            Some(image) => Ok(image.way),
            None => Ok(self.way),
        }
    }

    /// The library that it is made for.
    pub fn library(&self) -> &'a Library {
        self.library
    }

    /// The image that it will be a version of.
    pub fn image(&self) -> &ImageName {
        &self.image
    }

    /// Where its disk is, or will be.
    pub fn disk_path(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// Where a file system for a tree on its way may be, beside the disk.
    pub fn scratch_path(&self) -> PathBuf {
        self.dir.join(SCRATCH)
    }

    /// Keeps it although it failed, for a person to look into; `image prune` removes it. Tells where
    /// it is.
    ///
    /// # Errors
    /// When it cannot be renamed; then it goes as any draft does.
    pub fn keep(self) -> Result<PathBuf> {
        let name = self.dir.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.strip_prefix(DRAFT)).unwrap_or("");
        let kept = self.dir.with_file_name(format!("{FAILED}{id}"));
        // They are empty, and would only tempt somebody to mount something there.
        remove_mount_points(&self.dir)?;
        fs::rename(&self.dir, &kept).doing("keeping", &self.dir)?;
        Ok(kept)
    }

    /// Makes an empty disk of `size` bytes that takes no room yet.
    pub fn create_sparse(&self, size: u64) -> Result<()> {
        // Its chunks are counted in memory when it is hashed: what a stranger's disk says it has must
        // not decide how much.
        if size > LARGEST_DISK {
            return Err(Error::Invalid(format!(
                "a disk of {} TiB is larger than any that this takes ({} TiB)",
                size >> 40,
                LARGEST_DISK >> 40
            )));
        }
        let path = self.disk_path();
        new_file(&path)
            .and_then(|file| file.set_len(size))
            .doing("creating", &path)
    }

    /// Makes the disk a copy of a version's: sharing its blocks where the file system can, else by
    /// copying what is not a hole.
    pub fn copy_from(&self, version: &Version, progress: &dyn Progress) -> Result<CopyKind> {
        let (from, to) = (version.disk_path(), self.disk_path());
        let source = File::open(&from).doing("opening", &from)?;
        let target = new_file(&to).doing("creating", &to)?;
        let what = format!("copying {}", version.id());
        copy_disk(&source, &target, &what, progress).map_err(|stopped| stopped.at("copying", &from))
    }

    /// Makes the disk a copy of a file that holds one byte for byte. Zeros in it take no room; one
    /// that ends within a block gets the rest of the block.
    ///
    /// `source` is the file open for reading, `from` what it is called.
    pub fn copy_file(
        &self,
        source: &File,
        from: &Path,
        progress: &dyn Progress,
    ) -> Result<CopyKind> {
        let to = self.disk_path();
        let target = new_file(&to).doing("creating", &to)?;
        let what = format!("copying {}", from.display());
        let kind = copy_foreign(source, &target, &what, progress)
            .map_err(|stopped| stopped.at("copying", from))?;
        let size = target.metadata().doing("reading", &to)?.len();
        let whole = size.next_multiple_of(u64::from(BLOCK_SIZE));
        target.set_len(whole).doing("enlarging", &to)?;
        Ok(kind)
    }

    /// Keeps the kernel beside the disk.
    pub fn add_kernel(&mut self, reader: &mut dyn Read) -> Result<FileFacts> {
        let facts = self.add(KERNEL, reader)?;
        self.kernel = Some(facts.clone());
        Ok(facts)
    }

    /// Keeps the initramfs beside the disk.
    pub fn add_initramfs(&mut self, reader: &mut dyn Read) -> Result<FileFacts> {
        let facts = self.add(INITRAMFS, reader)?;
        self.initramfs = Some(facts.clone());
        Ok(facts)
    }

    /// Says that the disk boots itself: there is neither kernel nor initramfs beside it.
    pub fn boots_itself(&mut self, table: TableFacts) {
        self.table = Some(table);
    }

    /// Where the kernel is, once it was added.
    pub fn kernel_path(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// Where the initramfs is, once it was added.
    pub fn initramfs_path(&self) -> PathBuf {
        self.dir.join(INITRAMFS)
    }

    /// Makes it the image's next version, which clients get from now on: unless it was made of another
    /// version of that image, and a person has made yet another one current meanwhile; or it has to pass
    /// its test first; or the way that is said of its image does not boot it.
    ///
    /// The disk must be clean and unmounted (rule 6). Everything is synced and hashed before the
    /// rename that publishes it.
    pub fn seal(self, facts: VersionFacts, progress: &dyn Progress) -> Result<Version> {
        let boot = self.boot()?;
        self.sync(&boot)?;
        let disk = self.hash(progress)?;
        let library = self.library;
        let lock = library.write_lock()?;
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        if facts.filesystem.is_read_only() {
            // Asked before it was made as well; a client may have been added since.
            library.ensure_only_shared(&self.image)?;
        }
        let now = library.find_image(&self.image)?;
        if self.only == Only::AsFirst && now.is_some() {
            return Err(Error::refused(
                format!("sealing the first version of {}", self.image),
                "somebody else has made an image of that name meanwhile",
                "repeat it with another name",
            ));
        }
        let is_first = now.is_none();
        let way = now.as_ref().map_or(self.way, |image| image.way);
        let fits = match &boot {
            BootFrom::Disk(_) => true,
            BootFrom::Kernel { .. } => {
                way.is_none_or(|way| way.unfit_for(facts.early.kind).is_none())
            }
        };
        let moved = now.is_some_and(|image| image.current != self.began_at);
        let parent = facts.parent.as_ref().map(|parent| &parent.image);
        let is_news = !(moved && parent == Some(&self.image));
        let is_current = is_news && fits && !library.wants_trial(&boot);
        let version = library.next_version(&self.image)?;
        let manifest = Manifest {
            format: 1,
            version: version.clone(),
            sealed: Timestamp::now(),
            netroot: env!("CARGO_PKG_VERSION").to_owned(),
            disk,
            boot,
            facts,
        };
        self.close(&manifest)?;
        if is_first {
            // Before it is there, so that nobody boots it by another way; and not by what an image of that
            // name said that is gone.
            library.say_of_image(&lock, &self.image, way)?;
        }
        let published = self.publish(&version).and_then(|()| match is_current {
            true => library.make_current(&lock, &version),
            false => library.note_drawn(&lock, &version),
        });
        if let Err(error) = published {
            self.take_back(&version);
            return Err(error);
        }
        library.unmark(&version);
        drop(lock);
        library.version(&version)
    }

    fn add(&self, name: &str, reader: &mut dyn Read) -> Result<FileFacts> {
        let path = self.dir.join(name);
        let mut file = new_file(&path).doing("creating", &path)?;
        io::copy(reader, &mut file).doing("writing", &path)?;
        let mut again = File::open(&path).doing("opening", &path)?;
        hash_reader(&mut again).doing("hashing", &path)
    }

    fn boot(&self) -> Result<BootFrom> {
        let refused = |why: &str, what_to_do| {
            Error::refused(format!("sealing {}", self.image), why, what_to_do)
        };
        let add = "add one first";
        match (&self.table, &self.kernel, &self.initramfs) {
            (Some(table), None, None) => Ok(BootFrom::Disk(table.clone())),
            (Some(_), ..) => Err(refused(
                "the draft boots from its disk, and yet has a kernel",
                "leave one of them out",
            )),
            (None, None, _) => Err(refused("the draft has no kernel", add)),
            (None, _, None) => Err(refused("the draft has no initramfs", add)),
            (None, Some(kernel), Some(initramfs)) => Ok(BootFrom::Kernel {
                kernel: kernel.clone(),
                initramfs: initramfs.clone(),
            }),
        }
    }

    fn sync(&self, boot: &BootFrom) -> Result<()> {
        for name in files(boot) {
            let path = self.dir.join(name);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .doing("syncing", &path)?;
        }
        Ok(())
    }

    fn hash(&self, progress: &dyn Progress) -> Result<DiskFacts> {
        hash_path(&self.disk_path(), "the disk", BLOCK_SIZE, progress)
    }

    /// Writes the manifest and takes the right to write away from everybody.
    fn close(&self, manifest: &Manifest) -> Result<()> {
        let path = self.dir.join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(manifest).map_err(|source| Error::Document {
            path: path.clone(),
            source,
        })?;
        text.push(b'\n');
        document::replace(&path, &text, 0o644)?;
        let there = |name| name == MANIFEST || files(&manifest.boot).contains(&name);
        for (name, permissions) in SEALED.into_iter().filter(|(name, _)| there(name)) {
            let path = self.dir.join(name);
            // Not what a link leads to, which somebody else may have put there.
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .doing("opening", &path)?;
            owner::give(&file, &self.dir);
            file.set_permissions(Permissions::from_mode(permissions))
                .doing("making read-only", &path)?;
            file.sync_all().doing("syncing", &path)?;
            // The server of somebody else's library could not take the flag away to remove a version.
            if self.library.config().images.immutable && owner::is_roots(self.library.root()) {
                // Needs a file system that knows the flag, and a privilege. Where either is missing
                // the permissions have to do.
                let _ = flags::set(&file, Writing::Immutable);
            }
        }
        Ok(())
    }

    fn publish(&self, version: &VersionId) -> Result<()> {
        let place = self.library.places().version(version);
        let held = self.dir.join(HELD);
        owner::acting_for(&self.dir, || fs::remove_file(&held)).doing("removing", &held)?;
        // Until it is current, so that it is known for what it is if this process is killed.
        let mark = self.dir.join(PUBLISHING);
        owner::acting_for(&self.dir, || new_file(&mark)).doing("creating", &mark)?;
        document::sync_dir(&self.dir)?;
        fs::rename(&self.dir, &place).doing("publishing", &place)?;
        document::sync_dir(&self.library.places().image(&version.image))
    }
}

impl Draft<'_> {
    /// What failed is not there: the version becomes a draft again, which is removed when dropped.
    fn take_back(&self, version: &VersionId) {
        let library = self.library;
        let is_current = library
            .find_image(&version.image)
            .is_ok_and(|image| image.is_some_and(|image| image.current == Some(version.number)));
        let place = library.places().version(version);
        if is_current || !place.exists() {
            // Only the last sync failed: clients may have it already. Or it never came so far.
            return;
        }
        if let Err(error) = fs::rename(&place, &self.dir) {
            tracing::error!("{version} was not made current and cannot be taken back: {error}");
            // Then it is at least nothing that the next command finishes.
            let _ = fs::remove_file(place.join(PUBLISHING));
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.dir.exists() {
            return; // sealed
        }
        // What cannot be removed now is removed by the next command's sweep, which says so. The lock
        // keeps the image's directory for a draft that begins in this moment.
        let _lock = self.library.write_lock();
        let _ = remove_tree(&self.dir);
        if let Some(home) = self.dir.parent() {
            let _ = fs::remove_dir(home);
        }
    }
}

/// The files of a version that boots so, beside its manifest.
fn files(boot: &BootFrom) -> &'static [&'static str] {
    match boot {
        BootFrom::Kernel { .. } => &[DISK, KERNEL, INITRAMFS],
        BootFrom::Disk(_) => &[DISK],
    }
}

/// Whether a directory is a draft whose maker is gone.
pub(super) fn is_dead(dir: &Path) -> Result<bool> {
    let path = dir.join(HELD);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => lock::try_whole(&file).doing("locking", &path),
        // The maker was killed before it made the file, or after it removed it to publish.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).doing("opening", &path),
    }
}

/// Whether somebody is making a version of the image in `home`. Only looks: a lock that this took would
/// be in the way of a draft that begins.
pub(crate) fn has_live_draft(home: &Path) -> Result<bool> {
    for name in document::entries(home)? {
        let path = home.join(&name).join(HELD);
        if !name.starts_with(DRAFT) {
            continue;
        }
        match File::open(&path) {
            Ok(file) if lock::is_held(&file).doing("reading", &path)? => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing("opening", &path),
        }
    }
    Ok(false)
}

/// Removes the empty directories of a draft, where its disks were mounted. One that something is
/// mounted on is told of.
pub(crate) fn remove_mount_points(dir: &Path) -> Result<()> {
    for name in document::entries(dir)? {
        let path = dir.join(name);
        if path.symlink_metadata().doing("reading", &path)?.is_dir() {
            fs::remove_dir(&path).doing("removing", &path)?;
        }
    }
    Ok(())
}

/// Removes a directory of plain files, immutable ones too. It does not go into directories: what a
/// mount might hide is never deleted through it.
pub(crate) fn remove_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).doing("listing", dir)? {
        let entry = entry.doing("listing", dir)?;
        let path = entry.path();
        if entry.file_type().doing("reading", &path)?.is_dir() {
            fs::remove_dir(&path).doing("removing", &path)?;
            continue;
        }
        if fs::remove_file(&path).is_err() {
            let file = File::open(&path).doing("opening", &path)?;
            flags::set(&file, Writing::Ordinary).doing("making removable", &path)?;
            fs::remove_file(&path).doing("removing", &path)?;
        }
    }
    fs::remove_dir(dir).doing("removing", dir)
}

pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
