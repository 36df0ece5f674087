//! What goes, and what killed commands leave.
//!
//! Nothing of a volume is ever removed because no document names it: documents get lost, and disks are
//! what people have. Whoever makes or removes a volume leaves a mark first, and takes it away last. Where
//! a mark was left behind, the document decides: if it stands, the volume is whole; else the rest goes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::secret::OF_VOLUMES;
use super::{Kept, Publisher, Volume, VolumePlan};
use crate::library::edition::Edition;
use crate::library::error::{Doing, Error, Result};
use crate::library::events::Actor;
use crate::library::lock::{self, WriteLock};
use crate::library::names::VolumeName;
use crate::library::{Library, Swept, document, owner};

/// Begins the names of marks; the volume's id follows.
const HALF: &str = ".half-";

/// A volume that is being made or removed, as long as this lives: nobody else sweeps it.
pub(super) struct Mark {
    path: PathBuf,
    _held: File,
}

impl Mark {
    /// The volume is all there, or all gone.
    pub(super) fn done(self) {
        // One that stays is looked at by the next command, to no effect.
        let _ = fs::remove_file(&self.path);
    }
}

impl Library {
    /// Marks a volume as half there, durably.
    pub(super) fn mark(&self, id: &str) -> Result<Mark> {
        let home = self.places().volumes();
        let path = home.join(format!("{HALF}{id}"));
        let held = owner::acting_for(&home, || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
        })
        .doing("creating", &path)?;
        if !lock::try_whole(&held).doing("locking", &path)? {
            return Err(Error::refused(
                "changing a volume",
                "somebody else makes or removes it",
                "wait for that to end",
            ));
        }
        document::sync_dir(&home)?;
        Ok(Mark { path, _held: held })
    }

    /// What `remove_volume` would do, or why it would be refused.
    pub fn plan_remove_volume(
        &self,
        name: &VolumeName,
        force: bool,
        publisher: &dyn Publisher,
    ) -> Result<VolumePlan> {
        let (volume, sessions) = self.check_remove(name, force, publisher)?;
        let mut steps = Vec::new();
        if sessions > 0 {
            steps.push(format!("end {} of its target", counted(sessions)));
        }
        let path = self.volume_path(&volume);
        steps.push(match volume.kept {
            Kept::Library => format!("remove {}", path.display()),
            _ => format!("leave {} as it is", path.display()),
        });
        Ok(VolumePlan {
            volume: name.clone(),
            would: "remove".to_owned(),
            steps,
            loses: (volume.kept == Kept::Library).then(|| "all that is on it".to_owned()),
        })
    }

    /// Forgets a volume. Its blocks go only if the library made and keeps them, after the last session
    /// that could write them has ended.
    pub fn remove_volume(
        &self,
        name: &VolumeName,
        on: Option<&Edition>,
        force: bool,
        publisher: &dyn Publisher,
        actor: &Actor,
    ) -> Result<Volume> {
        let (volume, mark) = {
            let lock = self.write_lock()?;
            let (volume, _) = self.check_remove(name, force, publisher)?;
            volume.ensure_edition(on)?;
            let mark = self.mark(&volume.id)?;
            document::remove(&lock, &self.places().volume(name))?;
            (volume, mark)
        };
        self.told(actor, "volume-remove", &volume);
        publisher.follow();
        self.remove_rest(&volume.id)?;
        mark.done();
        Ok(volume)
    }

    fn check_remove(
        &self,
        name: &VolumeName,
        force: bool,
        publisher: &dyn Publisher,
    ) -> Result<(Volume, usize)> {
        let volume = self.volume(name)?;
        let all = self.volumes()?;
        if let Some(other) = all.iter().find(|other| other.target.as_ref() == Some(name)) {
            return Err(Error::refused(
                format!("removing volume {name}"),
                format!("volume {} is a LUN of its target", other.name),
                format!("remove {} first", other.name),
            ));
        }
        let sessions = publisher.sessions_of(&self.volume_target(volume.head()));
        match sessions > 0 && !force {
            true => Err(Error::refused(
                format!("removing volume {name}"),
                match sessions {
                    1 => "1 session uses its target".to_owned(),
                    many => format!("{many} sessions use its target"),
                },
                "log them out, or end them by --force",
            )),
            false => Ok((volume, sessions)),
        }
    }

    /// Removes everything that belongs to a volume without a document.
    pub(super) fn remove_rest(&self, id: &str) -> Result<()> {
        let places = self.places();
        let dot = format!("{id}.");
        for (home, beginning) in [
            (places.secrets(), format!("{OF_VOLUMES}{id}-")),
            (places.reservations(), format!("{OF_VOLUMES}{id}.")),
            (places.volumes(), dot),
        ] {
            for name in document::entries(&home)? {
                if name.starts_with(&beginning) {
                    let path = home.join(name);
                    let removed = owner::acting_for(&home, || fs::remove_file(&path));
                    match removed {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(error).doing("removing", &path);
                        }
                        _ => {}
                    }
                }
            }
        }
        document::sync_dir(&places.volumes())
    }

    /// Completes or takes back what killed commands left, and removes secrets that no document names any
    /// more.
    pub(crate) fn sweep_volumes(&self, _: &WriteLock) -> Result<Vec<Swept>> {
        // A document that cannot be read is no reason to take its volume away, nor to do nothing else.
        let Ok(volumes) = self.volumes() else {
            return Ok(Vec::new());
        };
        let proofs: BTreeMap<&str, u64> = volumes
            .iter()
            .map(|volume| (volume.id.as_str(), volume.proofs))
            .collect();
        let mut swept = Vec::new();
        let home = self.places().volumes();
        for name in document::entries(&home)? {
            let Some(id) = name.strip_prefix(HALF) else {
                continue;
            };
            let path = home.join(&name);
            let mark = File::options().write(true).open(&path);
            let mark = mark.doing("opening", &path)?;
            // Whoever makes it is alive.
            if !lock::try_whole(&mark).doing("locking", &path)? {
                continue;
            }
            if !proofs.contains_key(id) {
                self.remove_rest(id)?;
                swept.push(Swept::Volume { id: id.to_owned() });
            }
            fs::remove_file(&path).doing("removing", &path)?;
        }
        self.sweep_secrets(&proofs)?;
        Ok(swept)
    }

    /// Those that were changed, or were to be: the number in the document is the one that holds.
    fn sweep_secrets(&self, proofs: &BTreeMap<&str, u64>) -> Result<()> {
        let home = self.places().secrets();
        let names = match document::entries(&home) {
            // Whoever may not look into it has left nothing there, either.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                return Ok(());
            }
            names => names?,
        };
        for name in names {
            let numbers = name
                .strip_prefix(OF_VOLUMES)
                .and_then(|rest| rest.strip_suffix(".json")?.rsplit_once('-'));
            if let Some((id, number)) = numbers
                && proofs
                    .get(id)
                    .is_some_and(|holds| holds.to_string() != number)
            {
                let path = home.join(&name);
                fs::remove_file(&path).doing("removing", &path)?;
            }
        }
        Ok(())
    }
}

fn counted(sessions: usize) -> String {
    match sessions {
        1 => "1 session".to_owned(),
        many => format!("{many} sessions"),
    }
}
