//! Adding, describing, growing, copying and removing volumes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::{Allow, Chap, Kept, Secrets, Volume, backing};
use crate::library::error::{Doing, Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::names::VolumeName;
use crate::library::store::{clone, random_name};
use crate::library::{Library, document, owner};

/// Largest physical block: what systems do not think of as one is of no use to them.
const MOST_PHYSICAL: u32 = 64 * 1024;

/// A volume that is to be added.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its name.
    pub name: VolumeName,
    /// What it is kept in.
    pub kept: Kept,
    /// Bytes: of a file that is to be made. Other files and devices have the size that they have.
    pub size: Option<u64>,
    /// 512 or 4096.
    pub block_size: u32,
    /// What initiators are told to write at once, in place of what the storage has.
    pub physical_block_size: Option<u32>,
    /// Nobody may write.
    pub read_only: bool,
    /// Whom it is for.
    pub allow: Vec<Allow>,
    /// What has to be proved.
    pub secrets: Secrets,
    /// The volume whose target it joins.
    pub target: Option<VolumeName>,
    /// Its number there; the next free one if not given.
    pub lun: Option<u16>,
    /// Initiators may have all of it overwritten.
    pub allow_sanitize: bool,
    /// Also a device that is in use.
    pub force: bool,
}

/// What is to be changed; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeEdit {
    /// The whole access list.
    pub allow: Option<Vec<Allow>>,
    /// What has to be proved, or that nothing has.
    pub chap: Option<Option<Chap>>,
    /// What the target proves, or that it proves nothing.
    pub mutual: Option<Option<Chap>>,
    /// Nobody may write.
    pub read_only: Option<bool>,
    /// Initiators may have all of it overwritten.
    pub allow_sanitize: Option<bool>,
}

impl Library {
    /// Why `add_volume` would be refused.
    pub fn check_add_volume(&self, new: &NewVolume) -> Result<()> {
        let what = format!("adding volume {}", new.name);
        if !matches!(new.block_size, 512 | 4096) {
            return Err(Error::Invalid("blocks have 512 or 4096 bytes".to_owned()));
        }
        if let Some(physical) = new.physical_block_size
            && !(physical.is_power_of_two() && (new.block_size..=MOST_PHYSICAL).contains(&physical))
        {
            return Err(Error::Invalid(format!(
                "physical blocks have a power of two of bytes, from the {} of a block to {MOST_PHYSICAL}",
                new.block_size
            )));
        }
        self.ensure_free(&new.name)?;
        new.secrets.check()?;
        let has_rules = !new.allow.is_empty() || new.secrets.chap.is_some();
        match &new.target {
            Some(_) if has_rules => {
                return Err(Error::refused(
                    what,
                    "it joins a target that has its own rules",
                    "leave --allow and --chap out, or --target",
                ));
            }
            Some(target) if self.volume(target)?.target.is_some() => {
                return Err(Error::refused(
                    what,
                    format!("{target} is itself a LUN of another volume's target"),
                    "name that one",
                ));
            }
            None if !has_rules => {
                return Err(Error::refused(
                    what,
                    "nobody could see it",
                    "say whom it is for with --allow, or what has to be proved with --chap; --allow any \
                     is for everybody",
                ));
            }
            _ => {}
        }
        self.free_lun(new)?;
        match (&new.kept, new.size) {
            (Kept::Library, None) => Err(Error::Invalid(
                "a volume that the library keeps needs --size".to_owned(),
            )),
            (Kept::Library, Some(size)) => whole(size, new.block_size),
            (Kept::File(path), Some(size)) if !path.exists() => whole(size, new.block_size),
            (Kept::File(path) | Kept::Device(path), size) => {
                self.check_backing(&what, path, &new.kept, new.force)?;
                let there = backing::size(path)?;
                if size.is_some_and(|size| size != there) {
                    return Err(Error::refused(
                        what,
                        format!("{} has {there} bytes already", path.display()),
                        "leave --size out",
                    ));
                }
                whole(there, new.block_size)
            }
        }
    }

    /// Adds a volume. A file that is not there yet is made, sparse.
    pub fn add_volume(&self, new: &NewVolume, actor: &Actor) -> Result<Volume> {
        let dir = self.places().volumes();
        owner::make_dirs(&dir).doing("creating", &dir)?;
        let lock = self.write_lock()?;
        self.check_add_volume(new)?;
        let mut volume = Volume {
            revision: 0,
            name: new.name.clone(),
            id: random_name().doing("naming a volume in", &dir)?,
            kept: match &new.kept {
                Kept::File(path) => Kept::File(whole_path(path)?),
                Kept::Device(path) => Kept::Device(whole_path(path)?),
                Kept::Library => Kept::Library,
            },
            block_size: new.block_size,
            physical_block_size: new.physical_block_size,
            read_only: new.read_only,
            allow: new.allow.clone(),
            chap: new.secrets.chap.as_ref().map(|chap| chap.user.clone()),
            mutual_chap: new.secrets.mutual.as_ref().map(|chap| chap.user.clone()),
            proofs: 0,
            target: new.target.clone(),
            lun: self.free_lun(new)?,
            allow_sanitize: new.allow_sanitize,
            force: new.force,
            added: Timestamp::now(),
        };
        let path = self.volume_path(&volume);
        let made = match new.size {
            Some(size) if !path.exists() => {
                make_sparse(&path, size)?;
                true
            }
            _ => false,
        };
        // A killed removal may have left those of another disk.
        self.kept_reservations(new.name.as_str())?.remove()?;
        // The secrets first: without them the document would let nobody in, or too many.
        let kept = self
            .keep_secrets(&new.name, &new.secrets)
            .and_then(|()| document::write(&lock, &self.places().volume(&new.name), &mut volume));
        if let Err(error) = kept {
            // The first error is the one to tell.
            let _ = self.keep_secrets(&new.name, &Secrets::default());
            if made {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
        self.told(actor, "volume-add", &volume);
        Ok(volume)
    }

    /// Describes a volume anew. Sessions that may not have it any more are for the server to end.
    pub fn edit_volume(
        &self,
        name: &VolumeName,
        edit: &VolumeEdit,
        actor: &Actor,
    ) -> Result<Volume> {
        let lock = self.write_lock()?;
        let mut volume = self.volume(name)?;
        let rules = edit.allow.is_some() || edit.chap.is_some() || edit.mutual.is_some();
        if let (Some(head), true) = (&volume.target, rules) {
            return Err(Error::refused(
                format!("changing who may have {name}"),
                format!("it is a LUN of {head}, whose rules it has"),
                format!("change those of {head}"),
            ));
        }
        let mut secrets = self.volume_secrets(name)?;
        let before = secrets.clone();
        secrets.chap = edit.chap.clone().unwrap_or(secrets.chap);
        secrets.mutual = edit.mutual.clone().unwrap_or(secrets.mutual);
        secrets.check()?;
        volume.chap = secrets.chap.as_ref().map(|chap| chap.user.clone());
        volume.mutual_chap = secrets.mutual.as_ref().map(|chap| chap.user.clone());
        volume.allow = edit.allow.clone().unwrap_or(volume.allow);
        volume.read_only = edit.read_only.unwrap_or(volume.read_only);
        volume.allow_sanitize = edit.allow_sanitize.unwrap_or(volume.allow_sanitize);
        if secrets != before {
            volume.proofs += 1;
            self.keep_secrets(name, &secrets)?;
        }
        document::write(&lock, &self.places().volume(name), &mut volume)?;
        self.told(actor, "volume-set", &volume);
        Ok(volume)
    }

    /// Why a volume cannot have this size.
    pub fn check_resize_volume(&self, name: &VolumeName, size: u64) -> Result<Volume> {
        let volume = self.volume(name)?;
        let path = self.volume_path(&volume);
        let there = backing::size(&path)?;
        whole(size, volume.block_size)?;
        if size < there {
            return Err(Error::refused(
                format!("resizing volume {name} to {size} bytes"),
                format!("it has {there}, and what is behind its new end would be lost"),
                "make a smaller volume, and copy",
            ));
        }
        if let (Kept::Device(path), true) = (&volume.kept, size != there) {
            return Err(Error::refused(
                format!("resizing volume {name}"),
                format!("{} is a block device", path.display()),
                "grow that with its own tools, then say: netroot volume resize without a size",
            ));
        }
        Ok(volume)
    }

    /// Makes a volume's file longer. The server looks at it anew when it is told to.
    pub fn resize_volume(&self, name: &VolumeName, size: u64, actor: &Actor) -> Result<Volume> {
        let _lock = self.write_lock()?;
        let volume = self.check_resize_volume(name, size)?;
        let path = self.volume_path(&volume);
        if backing::size(&path)? < size {
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .doing("opening", &path)?;
            file.set_len(size)
                .and_then(|()| file.sync_all())
                .doing("growing", &path)?;
        }
        let event = Event::new(actor, "volume-resize").of(name);
        self.note(&event.with("bytes", size));
        Ok(volume)
    }

    /// Bytes of a volume.
    pub fn volume_size(&self, volume: &Volume) -> Result<u64> {
        backing::size(&self.volume_path(volume))
    }

    /// Copies a volume into a new one of the library, which is for nobody yet. It shares its blocks, and
    /// is as a power cut would have left the volume at one moment: all that was acknowledged is in it.
    pub fn snapshot_volume(
        &self,
        name: &VolumeName,
        to: &VolumeName,
        actor: &Actor,
    ) -> Result<Volume> {
        let lock = self.write_lock()?;
        let source = self.volume(name)?;
        self.ensure_free(to)?;
        let from = self.volume_path(&source);
        let what = format!("taking a snapshot of volume {name}");
        if let Kept::Device(path) = &source.kept {
            let why = format!("{} is a block device", path.display());
            return Err(Error::refused(
                what,
                why,
                "use a snapshot of LVM, or of what it is made by",
            ));
        }
        let id = random_name().doing("naming a volume in", &self.places().volumes())?;
        let path = self.places().volume_disk(&id);
        // FICLONE is one step to those who write (ioctl_ficlone(2)).
        reflink_copy::reflink(&from, &path).map_err(|error| match clone::cannot_share(&error) {
            true => Error::refused(
                what.as_str(),
                format!("the file system cannot share blocks of {} with {}", from.display(), path.display()),
                "keep library and volume on one XFS or btrfs, or shut its users down and copy the file",
            ),
            false => Error::Io {
                doing: what.clone(),
                source: error,
            },
        })?;
        let mut copy = Volume {
            revision: 0,
            name: to.clone(),
            id,
            kept: Kept::Library,
            allow: Vec::new(),
            chap: None,
            mutual_chap: None,
            proofs: 0,
            target: None,
            lun: 1,
            force: false,
            added: Timestamp::now(),
            ..source
        };
        let written = File::open(&path)
            .and_then(|file| {
                owner::give(&file, &self.places().volumes());
                file.sync_all()
            })
            .doing("syncing", &path)
            .and_then(|()| document::write(&lock, &self.places().volume(to), &mut copy));
        if let Err(error) = written {
            // The first error is the one to tell.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.note(
            &Event::new(actor, "volume-snapshot")
                .of(name)
                .with("as", to.to_string()),
        );
        Ok(copy)
    }

    /// Why a volume cannot go.
    pub fn check_remove_volume(&self, name: &VolumeName) -> Result<Volume> {
        let volume = self.volume(name)?;
        let all = self.volumes()?;
        match all.iter().find(|other| other.target.as_ref() == Some(name)) {
            Some(other) => Err(Error::refused(
                format!("removing volume {name}"),
                format!("volume {} is a LUN of its target", other.name),
                format!("remove {} first", other.name),
            )),
            None => Ok(volume),
        }
    }

    /// Forgets a volume. Its blocks go only if the library made and keeps them; `settle` is called
    /// before, when nobody can log in any more.
    pub fn remove_volume(
        &self,
        name: &VolumeName,
        actor: &Actor,
        settle: impl FnOnce() -> Result<()>,
    ) -> Result<Volume> {
        let volume = {
            let lock = self.write_lock()?;
            let volume = self.check_remove_volume(name)?;
            document::remove(&lock, &self.places().volume(name))?;
            self.keep_secrets(name, &Secrets::default())?;
            volume
        };
        self.told(actor, "volume-remove", &volume);
        settle()?;
        self.kept_reservations(name.as_str())?.remove()?;
        if volume.kept == Kept::Library {
            let path = self.volume_path(&volume);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).doing("removing", &path)?
                }
                _ => {}
            }
        }
        Ok(volume)
    }

    fn ensure_free(&self, name: &VolumeName) -> Result<()> {
        let image = name
            .as_str()
            .parse()
            .map(|image| self.places().image(&image));
        let kind = match image {
            _ if self.find_volume(name)?.is_some() => "volume",
            Ok(dir) if dir.exists() => "image",
            _ => return Ok(()),
        };
        Err(Error::Exists {
            kind,
            name: name.to_string(),
        })
    }

    fn free_lun(&self, new: &NewVolume) -> Result<u16> {
        let head = new.target.as_ref().unwrap_or(&new.name);
        let volumes = self.volumes()?;
        let taken = |lun: u16| {
            volumes
                .iter()
                .any(|other| other.head() == head && other.lun == lun)
        };
        match new.lun {
            // LUN 0 is the storage array controller.
            Some(lun) if !(1..=255).contains(&lun) => {
                Err(Error::Invalid(format!("{lun} is not a LUN from 1 to 255")))
            }
            Some(lun) if taken(lun) => Err(Error::Exists {
                kind: "LUN",
                name: format!("{lun} of {head}"),
            }),
            Some(lun) => Ok(lun),
            None => (1..=255).find(|lun| !taken(*lun)).ok_or_else(|| {
                Error::refused(
                    format!("adding volume {}", new.name),
                    "all 255 LUNs are taken",
                    "make another target",
                )
            }),
        }
    }

    fn told(&self, actor: &Actor, what: &str, volume: &Volume) {
        let path = self.volume_path(volume).display().to_string();
        self.note(&Event::new(actor, what).of(&volume.name).with("kept", path));
    }
}

/// Refuses a size that is not a whole number of blocks, or nothing.
fn whole(size: u64, block_size: u32) -> Result<()> {
    match size > 0 && size.is_multiple_of(u64::from(block_size)) {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "{size} bytes are not a whole number of blocks of {block_size} bytes"
        ))),
    }
}

/// The path that means the same wherever a server is started. Links stay: an LVM volume or
/// /dev/disk/by-id keeps its name over restarts, and what it leads to does not.
fn whole_path(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).doing("resolving", path)
}

fn make_sparse(path: &Path, size: u64) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .doing("creating", path)?;
    if let Some(home) = path.parent() {
        owner::give(&file, home);
    }
    let sized = file.set_len(size).and_then(|()| file.sync_all());
    if sized.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    sized.doing("sizing", path)
}
