//! Adding, describing and growing volumes.
//!
//! The document is what makes a volume: everything that it needs is there before it is written, and
//! what a killed command leaves without one is swept.

use std::fs::OpenOptions;

use jiff::Timestamp;

use super::backing::{self, Wanted};
use super::place::{Paths, make_sparse, reach_home, too_large};
use super::{Allow, Chap, Kept, Publisher, Secrets, Volume, VolumePlan};
use crate::library::edition::Edition;
use crate::library::error::{Doing, Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::names::VolumeName;
use crate::library::store::random_name;
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
    /// Whose word a path is taken on.
    pub paths: Paths,
    /// Bytes: of a file that is to be made. Other files and devices have the size that they have.
    pub size: Option<u64>,
    /// 512 or 4096.
    pub block_size: u32,
    /// Past the system's cache.
    pub direct: bool,
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
    /// Past the system's cache.
    pub direct: Option<bool>,
    /// Nobody may write.
    pub read_only: Option<bool>,
    /// Initiators may have all of it overwritten.
    pub allow_sanitize: Option<bool>,
}

/// What a new volume will be, when all was asked that could speak against it.
struct Draft {
    volume: Volume,
    /// Bytes of the file that is made for it.
    makes: Option<u64>,
    steps: Vec<String>,
}

/// What a change comes to.
struct Changed {
    volume: Volume,
    secrets: Secrets,
    /// Whether they are others than before.
    proves_anew: bool,
    /// Nothing where it is as it was.
    steps: Vec<String>,
}

impl Library {
    /// What `add_volume` would do, or why it would be refused.
    pub fn plan_add_volume(&self, new: &NewVolume) -> Result<VolumePlan> {
        let draft = self.draft_volume(new)?;
        Ok(VolumePlan {
            volume: new.name.clone(),
            would: "add".to_owned(),
            steps: draft.steps,
            loses: None,
        })
    }

    /// Adds a volume. A file that is not there yet is made, sparse.
    pub fn add_volume(
        &self,
        new: &NewVolume,
        publisher: &dyn Publisher,
        actor: &Actor,
    ) -> Result<Volume> {
        let dir = self.places().volumes();
        owner::make_dirs(&dir).doing("creating", &dir)?;
        let volume = {
            let lock = self.write_lock()?;
            let Draft {
                mut volume, makes, ..
            } = self.draft_volume(new)?;
            let mark = self.mark(&volume.id)?;
            let (path, within) = (self.volume_path(&volume), volume.within.clone());
            let kept = makes
                .map_or(Ok(()), |size| make_sparse(&path, within.as_deref(), size))
                .and_then(|()| self.check_direct(&volume))
                .and_then(|()| self.keep_secrets(&volume, &new.secrets))
                .and_then(|()| {
                    document::write(&lock, &self.places().volume(&new.name), &mut volume)
                });
            if let Err(error) = kept {
                // The first error is the one to tell; what stays now is swept. A file of somebody's that
                // was made stays: it has the size that was asked for, so the same command takes it.
                if self.remove_rest(&volume.id).is_ok() {
                    mark.done();
                }
                return Err(error);
            }
            mark.done();
            volume
        };
        self.told(actor, "volume-add", &volume);
        publisher.follow();
        Ok(volume)
    }

    fn draft_volume(&self, new: &NewVolume) -> Result<Draft> {
        let what = format!("adding volume {}", new.name);
        if !matches!(new.block_size, 512 | 4096) {
            return Err(Error::Invalid("blocks have 512 or 4096 bytes".to_owned()));
        }
        if let Some(physical) = new.physical_block_size
            && !(physical.is_power_of_two() && (new.block_size..=MOST_PHYSICAL).contains(&physical))
        {
            return Err(Error::refused(
                what,
                format!("nothing writes {physical} bytes at once"),
                format!(
                    "physical blocks have a power of two of bytes, from the {} of a block to {MOST_PHYSICAL}",
                    new.block_size
                ),
            ));
        }
        // Before anything that may tell what is there.
        let kept = whole_path(&new.kept)?;
        let within = match &kept {
            Kept::Library => None,
            Kept::File(path) | Kept::Device(path) => self.confined(&what, path, new.paths)?,
        };
        if new.force && new.paths == Paths::Listed {
            return Err(Error::refused(
                what,
                "only who has the server's own rights may publish a device that is in use",
                "add it as root, by a command on the server",
            ));
        }
        self.ensure_free_name(&new.name)?;
        self.check_rules(&what, new)?;
        let lun = self.free_lun(new)?;
        let home = self.places().volumes();
        let volume = Volume {
            revision: 0,
            name: new.name.clone(),
            id: random_name().doing("naming a volume in", &home)?,
            kept,
            within,
            block_size: new.block_size,
            direct: new.direct,
            physical_block_size: new.physical_block_size,
            read_only: new.read_only,
            allow: new.allow.clone(),
            chap: new.secrets.chap.as_ref().map(|chap| chap.user.clone()),
            mutual_chap: new.secrets.mutual.as_ref().map(|chap| chap.user.clone()),
            proofs: 0,
            target: new.target.clone(),
            lun,
            allow_sanitize: new.allow_sanitize,
            force: new.force,
            added: Timestamp::now(),
        };
        let makes = self.check_kept(&what, &volume, new.size)?;
        if makes.is_none() {
            self.check_direct(&volume)?;
        }
        let mut steps = Vec::new();
        let shown = match &volume.kept {
            Kept::Library => "in the library".to_owned(),
            Kept::File(path) | Kept::Device(path) => path.display().to_string(),
        };
        steps.push(match makes {
            Some(size) => format!("make a sparse file of {size} bytes: {shown}"),
            None => format!("take {shown} as it is"),
        });
        let target = self.volume_target(volume.head());
        steps.push(format!("publish it as LUN {lun} of {target}"));
        Ok(Draft {
            volume,
            makes,
            steps,
        })
    }

    /// Refuses what nobody could see, and rules beside those of another target.
    fn check_rules(&self, what: &str, new: &NewVolume) -> Result<()> {
        new.secrets.check(what)?;
        let has_rules = !new.allow.is_empty() || new.secrets.chap.is_some();
        match &new.target {
            Some(_) if has_rules => Err(Error::refused(
                what,
                "it joins a target that has its own rules",
                "leave --allow and --chap out, or --target",
            )),
            Some(target) if self.volume(target)?.target.is_some() => Err(Error::refused(
                what,
                format!("{target} is itself a LUN of another volume's target"),
                "name that one",
            )),
            None if !has_rules => Err(Error::refused(
                what,
                "nobody could see it",
                "say whom it is for with --allow, or what has to be proved with --chap; --allow any is \
                 for everybody",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what a volume cannot be kept in. Tells the size of a file that has to be made.
    fn check_kept(&self, what: &str, volume: &Volume, size: Option<u64>) -> Result<Option<u64>> {
        let (path, within) = match &volume.kept {
            Kept::Library => {
                let size = size.ok_or_else(|| without_size(what))?;
                ensure_whole(what, size, volume.block_size)?;
                return Ok(Some(size));
            }
            Kept::File(path) | Kept::Device(path) => (path, volume.within.as_deref()),
        };
        let wanted = Wanted {
            path,
            within,
            kept: &volume.kept,
            force: volume.force,
        };
        match (self.check_backing(what, &wanted)?, size) {
            (Some(there), Some(size)) if size != there => Err(Error::refused(
                what,
                format!("{} has {there} bytes already", path.display()),
                "leave --size out",
            )),
            (Some(there), _) => ensure_whole(what, there, volume.block_size).map(|()| None),
            (None, None) if matches!(volume.kept, Kept::File(_)) => Err(Error::refused(
                what,
                format!("there is no {}", path.display()),
                "give --size for a new file, or name one that is there",
            )),
            (None, Some(size)) if matches!(volume.kept, Kept::File(_)) => {
                ensure_whole(what, size, volume.block_size)?;
                let (home, _) =
                    reach_home(path, within).doing("looking at the directory of", path)?;
                nix::unistd::access(home.path(), nix::unistd::AccessFlags::W_OK)
                    .doing("writing into the directory of", path)?;
                Ok(Some(size))
            }
            _ => Err(Error::refused(
                what,
                format!("there is no {}", path.display()),
                "name a block device that is there",
            )),
        }
    }

    /// What `edit_volume` would do, or why it would be refused.
    pub fn plan_edit_volume(&self, name: &VolumeName, edit: &VolumeEdit) -> Result<VolumePlan> {
        let changed = self.changed(self.volume(name)?, edit)?;
        Ok(VolumePlan {
            volume: name.clone(),
            would: "set".to_owned(),
            steps: changed.steps,
            loses: None,
        })
    }

    /// Describes a volume anew; refused where it is not of the edition `on`, if one is named. Sessions
    /// that may not have it any more are ended.
    pub fn edit_volume(
        &self,
        name: &VolumeName,
        on: Option<&Edition>,
        edit: &VolumeEdit,
        publisher: &dyn Publisher,
        actor: &Actor,
    ) -> Result<Volume> {
        let volume = {
            let lock = self.write_lock()?;
            let before = self.volume(name)?;
            before.ensure_edition(on)?;
            let Changed {
                mut volume,
                secrets,
                proves_anew,
                steps,
            } = self.changed(before.clone(), edit)?;
            if steps.is_empty() {
                return Ok(volume);
            }
            if proves_anew {
                volume.proofs += 1;
                self.keep_secrets(&volume, &secrets)?;
            }
            let written = document::write(&lock, &self.places().volume(name), &mut volume);
            if proves_anew {
                self.forget_secrets(if written.is_ok() { &before } else { &volume });
            }
            written?;
            volume
        };
        self.told(actor, "volume-set", &volume);
        publisher.follow();
        Ok(volume)
    }

    fn changed(&self, before: Volume, edit: &VolumeEdit) -> Result<Changed> {
        let what = format!("changing volume {}", before.name);
        let rules = edit.allow.is_some() || edit.chap.is_some() || edit.mutual.is_some();
        if let (Some(head), true) = (&before.target, rules) {
            return Err(Error::refused(
                what,
                format!("it is a LUN of {head}, whose rules it has"),
                format!("change those of {head}"),
            ));
        }
        let (known, are_known) = match self.secrets_of(&before) {
            Ok(known) => (known, true),
            // Lost ones are mended by new ones.
            Err(_) if edit.chap.is_some() && edit.mutual.is_some() => (Secrets::default(), false),
            Err(error) => return Err(error),
        };
        let secrets = Secrets {
            chap: edit.chap.clone().unwrap_or_else(|| known.chap.clone()),
            mutual: edit.mutual.clone().unwrap_or_else(|| known.mutual.clone()),
        };
        secrets.check(&what)?;
        let mut volume = before.clone();
        volume.chap = secrets.chap.as_ref().map(|chap| chap.user.clone());
        volume.mutual_chap = secrets.mutual.as_ref().map(|chap| chap.user.clone());
        volume.allow = edit.allow.clone().unwrap_or(volume.allow);
        volume.direct = edit.direct.unwrap_or(volume.direct);
        volume.read_only = edit.read_only.unwrap_or(volume.read_only);
        volume.allow_sanitize = edit.allow_sanitize.unwrap_or(volume.allow_sanitize);
        if edit.direct == Some(true) {
            self.check_direct(&volume)?;
        }
        let mut steps = Vec::new();
        let mut step = |changed: bool, what: String| steps.extend(changed.then_some(what));
        step(volume.allow != before.allow, allowed(&volume.allow));
        let proves_anew = secrets != known || !are_known;
        step(
            proves_anew,
            "have it proved by other secrets; sessions that proved the old ones end".to_owned(),
        );
        let access = if volume.read_only {
            "read-only"
        } else {
            "writable"
        };
        step(
            volume.read_only != before.read_only,
            format!("publish it {access}"),
        );
        let may = if volume.allow_sanitize {
            "let"
        } else {
            "do not let"
        };
        let cache = if volume.direct { "past" } else { "through" };
        step(
            volume.direct != before.direct,
            format!("read and write it {cache} the system's cache"),
        );
        step(
            volume.allow_sanitize != before.allow_sanitize,
            format!("{may} initiators have all of it overwritten"),
        );
        Ok(Changed {
            volume,
            secrets,
            proves_anew,
            steps,
        })
    }

    /// What `resize_volume` would do, or why it would be refused.
    pub fn plan_resize_volume(&self, name: &VolumeName, size: Option<u64>) -> Result<VolumePlan> {
        let (volume, there, size) = self.check_resize(name, size)?;
        let step = match size > there {
            true => format!(
                "make {} longer, by a hole",
                self.volume_path(&volume).display()
            ),
            false => "leave it as long as it is".to_owned(),
        };
        Ok(VolumePlan {
            volume: name.clone(),
            would: format!("grow from {there} to {size} bytes"),
            steps: vec![step, "tell initiators of its size".to_owned()],
            loses: None,
        })
    }

    /// Makes a volume's file longer, and has it looked at how large file or device are: that alone where
    /// no size is given.
    pub fn resize_volume(
        &self,
        name: &VolumeName,
        on: Option<&Edition>,
        size: Option<u64>,
        publisher: &dyn Publisher,
        actor: &Actor,
    ) -> Result<Volume> {
        let (volume, size) = {
            let _lock = self.write_lock()?;
            let (volume, there, size) = self.check_resize(name, size)?;
            volume.ensure_edition(on)?;
            if there < size {
                let (path, reached) = (self.volume_path(&volume), self.reach_volume(&volume)?);
                let file = self
                    .as_owner(|| OpenOptions::new().write(true).open(reached.path()))
                    .doing("opening", &path)?;
                file.set_len(size)
                    .and_then(|()| file.sync_all())
                    .map_err(|error| too_large(error, &path, size))?;
            }
            (volume, size)
        };
        let event = Event::new(actor, "volume-resize").of(name);
        self.note(&event.with("bytes", size));
        publisher.follow();
        Ok(volume)
    }

    /// The volume, how large it is, and how large it is to be.
    fn check_resize(&self, name: &VolumeName, size: Option<u64>) -> Result<(Volume, u64, u64)> {
        let volume = self.volume(name)?;
        let what = format!("resizing volume {name}");
        let reached = self.reach_volume(&volume)?;
        let there = backing::size(&reached).doing("opening", &self.volume_path(&volume))?;
        let size = size.unwrap_or(there);
        ensure_whole(&what, size, volume.block_size)?;
        match &volume.kept {
            _ if size < there => Err(Error::refused(
                what,
                format!("it has {there} bytes, and what is behind its new end would be lost"),
                "make a smaller volume, and copy",
            )),
            Kept::Device(path) if size != there => Err(Error::refused(
                what,
                format!("{} is a block device", path.display()),
                "grow that with its own tools, then say: netroot volume resize without a size",
            )),
            _ => Ok((volume, there, size)),
        }
    }

    pub(super) fn ensure_free_name(&self, name: &VolumeName) -> Result<()> {
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

    pub(super) fn told(&self, actor: &Actor, what: &str, volume: &Volume) {
        let path = self.volume_path(volume).display().to_string();
        self.note(&Event::new(actor, what).of(&volume.name).with("kept", path));
    }
}

fn allowed(list: &[Allow]) -> String {
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    match words.is_empty() {
        true => "have it for nobody; sessions of those it was for end".to_owned(),
        false => format!("have it for {}; sessions of others end", words.join(" ")),
    }
}

fn without_size(what: &str) -> Error {
    Error::refused(
        what,
        "nobody knows how large it is to be",
        "a volume that the library keeps needs --size",
    )
}

/// Refuses a size that is not a whole number of blocks, or nothing.
fn ensure_whole(what: &str, size: u64, block_size: u32) -> Result<()> {
    match size > 0 && size.is_multiple_of(u64::from(block_size)) {
        true => Ok(()),
        false => Err(Error::refused(
            what,
            format!("{size} bytes are not a whole number of blocks of {block_size} bytes"),
            "choose another size",
        )),
    }
}

/// The path that means the same wherever a server is started. Links stay: an LVM volume or
/// /dev/disk/by-id keeps its name over restarts, and what it leads to does not.
fn whole_path(kept: &Kept) -> Result<Kept> {
    let whole = |path| std::path::absolute(path).doing("resolving", path);
    Ok(match kept {
        Kept::File(path) => Kept::File(whole(path)?),
        Kept::Device(path) => Kept::Device(whole(path)?),
        Kept::Library => Kept::Library,
    })
}
