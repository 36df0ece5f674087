//! Snapshots: a volume copied into a new one of the library.
//!
//! Where the file system can, the copy shares the volume's blocks and is as a power cut would have left
//! the volume at one moment: all that was acknowledged is in it. Elsewhere the bytes are copied, which
//! takes a while; then nobody may write meanwhile, or the copy would be of no moment at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use jiff::Timestamp;

use super::place::Reached;
use super::{Kept, Publisher, Volume, VolumePlan};
use crate::library::error::{Doing, Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::names::VolumeName;
use crate::library::store::{self, random_name};
use crate::library::{Library, Quiet, document};

/// Characters of the longest name.
const LONGEST: usize = 32;

/// A file as it was looked at: another one of these, and somebody has written.
#[derive(PartialEq, Eq)]
struct Written(u64, i64, i64, i64, i64);

impl Written {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Written(
            found.len(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ))
    }
}

impl Library {
    /// What `snapshot_volume` would do, or why it would be refused.
    pub fn plan_snapshot_volume(
        &self,
        name: &VolumeName,
        to: Option<&VolumeName>,
        publisher: &dyn Publisher,
    ) -> Result<VolumePlan> {
        let (source, to) = self.check_snapshot(name, to)?;
        let path = self.volume_path(&source);
        let (from, home) = (self.reach_volume(&source)?, self.places().volumes());
        // A file without a name shows whether blocks can be shared, and leaves nothing.
        let trial = tempfile::tempfile_in(&home).doing("making a file in", &home)?;
        let step = match self.shared(&from, &trial, &source)? {
            true => format!("copy {}, sharing its blocks", path.display()),
            false => {
                self.ensure_at_rest(&source, publisher)?;
                let used = self.volume_usage(&source).unwrap_or(0);
                let shown = path.display();
                format!("copy the {used} bytes of {shown}, which takes as much room again")
            }
        };
        Ok(VolumePlan {
            volume: name.clone(),
            would: format!("be copied to {to}"),
            steps: vec![step, format!("publish {to}, for nobody yet")],
            loses: None,
        })
    }

    /// Copies a volume into a new one of the library, which is for nobody yet.
    pub fn snapshot_volume(
        &self,
        name: &VolumeName,
        to: Option<&VolumeName>,
        publisher: &dyn Publisher,
        actor: &Actor,
    ) -> Result<Volume> {
        let lock = self.write_lock()?;
        let (source, to) = self.check_snapshot(name, to)?;
        let id = random_name().doing("naming a volume in", &self.places().volumes())?;
        let mark = self.mark(&id)?;
        // Held for as long as a copy takes, and documents are changed meanwhile.
        drop(lock);
        let copied = self.copy_into(&source, &id, publisher).and_then(|kind| {
            let lock = self.write_lock()?;
            self.ensure_free_name(&to)?;
            let mut copy = Volume {
                revision: 0,
                name: to.clone(),
                id: id.clone(),
                kept: Kept::Library,
                within: None,
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
            document::write(&lock, &self.places().volume(&to), &mut copy)?;
            Ok((copy, kind))
        });
        let (copy, kind) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                // The first error is the one to tell; what stays now is swept.
                if self.remove_rest(&id).is_ok() {
                    mark.done();
                }
                return Err(error);
            }
        };
        mark.done();
        let event = Event::new(actor, "volume-snapshot").of(name);
        self.note(&event.with("as", to.to_string()).with("copy", kind));
        publisher.follow();
        Ok(copy)
    }

    fn check_snapshot(
        &self,
        name: &VolumeName,
        to: Option<&VolumeName>,
    ) -> Result<(Volume, VolumeName)> {
        let source = self.volume(name)?;
        if let Kept::Device(path) = &source.kept {
            return Err(Error::refused(
                format!("taking a snapshot of volume {name}"),
                format!("{} is a block device", path.display()),
                "use a snapshot of LVM, or of what it is made by",
            ));
        }
        let to = match to {
            Some(to) => to.clone(),
            None => self.name_of_copy(name)?,
        };
        self.ensure_free_name(&to)?;
        Ok((source, to))
    }

    /// `data-20261121-140305`, as much of the name as fits.
    fn name_of_copy(&self, name: &VolumeName) -> Result<VolumeName> {
        let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::system());
        let moment = now.strftime("-%Y%m%d-%H%M%S").to_string();
        // Names are ASCII; several copies of one second are told apart by a number.
        for nth in 1..100_u32 {
            let end = match nth {
                1 => moment.clone(),
                nth => format!("{moment}-{nth}"),
            };
            let room = LONGEST.saturating_sub(end.len());
            let begin = name.as_str().get(..room).unwrap_or(name.as_str());
            let copy: VolumeName = format!("{}{end}", begin.trim_end_matches('-')).parse()?;
            if self.ensure_free_name(&copy).is_ok() {
                return Ok(copy);
            }
        }
        Err(Error::refused(
            format!("naming a copy of volume {name}"),
            "there are too many of this second",
            "name it yourself",
        ))
    }

    /// Makes the file of a copy. Tells how.
    fn copy_into(
        &self,
        source: &Volume,
        id: &str,
        publisher: &dyn Publisher,
    ) -> Result<&'static str> {
        let (from, path) = (self.reach_volume(source)?, self.places().volume_disk(id));
        let home = self.places().volumes();
        let target = self
            .as_owner(|| {
                let mut new = OpenOptions::new();
                new.read(true).write(true).create_new(true).mode(0o600);
                new.open(&path)
            })
            .doing("creating", &path)?;
        let kind = match self.shared(&from, &target, source)? {
            true => "reflink",
            false => {
                self.copy_at_rest(source, &from, &target, publisher)?;
                "sparse"
            }
        };
        target.sync_all().doing("syncing", &path)?;
        document::sync_dir(&home)?;
        Ok(kind)
    }

    /// Has a file share a volume's blocks; false where the file system cannot.
    fn shared(&self, from: &Reached, target: &File, source: &Volume) -> Result<bool> {
        let shown = self.volume_path(source);
        let from = self
            .as_owner(|| File::open(from.path()))
            .doing("opening", &shown)?;
        // FICLONE is one step to those who write (ioctl_ficlone(2)).
        match reflink_copy::reflink_file(&from, target) {
            Ok(()) => Ok(true),
            Err(error) if store::clone::cannot_share(&error) => Ok(false),
            Err(error) => Err(error).doing("copying", &shown),
        }
    }

    fn copy_at_rest(
        &self,
        source: &Volume,
        from: &Reached,
        target: &File,
        publisher: &dyn Publisher,
    ) -> Result<()> {
        self.ensure_at_rest(source, publisher)?;
        let shown = self.volume_path(source);
        let file = self
            .as_owner(|| File::open(from.path()))
            .doing("opening", &shown)?;
        let before = Written::of(&file).doing("looking at", &shown)?;
        store::copy_file(&file, target, &Quiet).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Error::refused(
                format!("taking a snapshot of volume {}", source.name),
                "there is no room for a copy of it",
                "make room; nothing was kept of it",
            ),
            _ => Error::Io {
                doing: format!("copying {}", shown.display()),
                source: error,
            },
        })?;
        // Somebody may have logged in, or written here.
        if before != Written::of(&file).doing("looking at", &shown)? {
            return Err(in_use(source, "somebody wrote to it meanwhile"));
        }
        self.ensure_at_rest(source, publisher)
    }

    /// Refuses to copy what somebody may be writing.
    fn ensure_at_rest(&self, source: &Volume, publisher: &dyn Publisher) -> Result<()> {
        let sessions = publisher.sessions_of(&self.volume_target(source.head()));
        match sessions > 0 && !source.read_only {
            true => Err(in_use(source, "it is in use")),
            false => Ok(()),
        }
    }
}

fn in_use(source: &Volume, why: &str) -> Error {
    Error::refused(
        format!("taking a snapshot of volume {}", source.name),
        format!("its file system cannot share blocks, and {why}"),
        "log its users out first, or keep library and volume on one XFS or btrfs",
    )
}
