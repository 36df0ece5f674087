//! What an act does to a client, as a value: the document afterwards, and which disks move.
//!
//! Nothing here reads or writes a file, so every rule about what follows from what is in one place.

use std::fmt;

use jiff::Timestamp;

use super::act::titled;
use super::{Act, Armed, Assignment, Before, Client, Discarded, KeptDisk, Snapshot, Step};
use crate::library::error::{Error, Result};
use crate::library::names::{ImageName, Mode, VersionId, VersionSpec};
use crate::library::store::clone::{CloneInfo, Swap};

/// How many predecessors of a clone are kept for undo.
const KEPT: usize = 3;

/// What is to become of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// What it boots, and how.
    pub(crate) assignment: Assignment,
    /// What happens to its disk.
    pub(crate) disk: DiskChange,
    /// The only version that can boot it, where its disk exists already.
    pub(crate) fixed: Option<VersionId>,
}

/// What happens to a client's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskChange {
    /// It stays, or there is none.
    Stays,
    /// A new clone takes its place.
    Fresh(Old),
    /// A predecessor comes back.
    Restored(Discarded),
    /// A copy of a snapshot takes its place.
    Copied(Snapshot),
    /// It goes: the mode needs none.
    Goes,
}

/// What becomes of a clone that another one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// It is kept for undo.
    Kept,
    /// It is removed: nobody expects anything in it.
    Dropped,
}

impl Ready {
    /// With a disk that was kept in its place again.
    fn restored(old: &Discarded, assignment: Assignment) -> Ready {
        Ready {
            assignment,
            fixed: Some(old.clone.from.clone()),
            disk: DiskChange::Restored(old.clone()),
        }
    }
}

/// A client as it will be, and what moves on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) client: Client,
    pub(crate) swap: Swap,
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in mode {}", self.image, self.mode)
    }
}

impl Client {
    /// What an act would make of it, or why it makes no sense for it.
    pub(crate) fn after(&self, act: &Act) -> Result<Ready> {
        if self.calls_off(act).is_some() {
            return Ok(self.unchanged());
        }
        if let Some(why) = self.nothing_for(act) {
            let instead = match (act, &self.before) {
                (Act::Undo, Some(_)) => {
                    format!("`netroot client show {}` tells what is kept", self.name)
                }
                _ => "nothing needs to be done".to_owned(),
            };
            return Err(Error::refused(
                titled(&act.to_string(), &self.name),
                why,
                instead,
            ));
        }
        self.carried_out(act)
    }

    /// What waits for the next boot, where an undo takes that back and nothing else.
    pub(crate) fn calls_off(&self, act: &Act) -> Option<&Armed> {
        self.armed.as_ref().filter(|_| *act == Act::Undo)
    }

    /// Why an act would find nothing to do.
    pub(crate) fn nothing_for(&self, act: &Act) -> Option<&'static str> {
        match act {
            Act::Reset if !self.mode.has_clone() => {
                Some("its mode is shared: it has no disk of its own, and every boot is pristine")
            }
            Act::Undo if self.before.is_none() && self.armed.is_none() => {
                Some("it was neither reset nor assigned anew since it was added")
            }
            Act::Undo if self.armed.is_none() && self.has_lost_what_undo_brings() => {
                Some("the disk that it had before is not kept any more")
            }
            _ => None,
        }
    }

    /// Whether all that an undo could bring back is a disk that is gone.
    fn has_lost_what_undo_brings(&self) -> bool {
        self.before.as_ref().is_some_and(|before| {
            let in_place = self.clone.as_ref().map(|clone| &clone.id);
            let gone =
                |disk: &String| self.kept(disk).is_none() && in_place.is_none_or(|id| id != disk);
            before.assignment == self.assignment() && before.disk.as_ref().is_some_and(gone)
        })
    }

    /// Whether an act would leave the client as it is, and what waits for its next boot too.
    pub(crate) fn is_already(&self, act: &Act, ready: &Ready) -> bool {
        matches!(act, Act::Assign(_))
            && ready.disk == DiskChange::Stays
            && ready.assignment == self.assignment()
    }

    /// The image that its next boot gets, as far as that can be told.
    pub(crate) fn next_image(&self) -> ImageName {
        let next = self.next_boot().map(|ready| ready.assignment);
        next.unwrap_or_else(|_| self.assignment()).image.image
    }

    /// What its next boot gets, what waits for that boot included.
    pub(crate) fn next_boot(&self) -> Result<Ready> {
        let mut ready = match &self.armed {
            Some(armed) => self.carried_out(&armed.act)?,
            None => self.unchanged(),
        };
        // Whatever there was before, an ephemeral boot begins with a pristine disk.
        if ready.assignment.mode == Mode::Ephemeral {
            let old = match ready.disk {
                DiskChange::Stays => Old::Dropped,
                _ => Old::Kept,
            };
            ready.disk = DiskChange::Fresh(old);
            ready.fixed = None;
        }
        Ok(ready)
    }

    /// The client as it is: its assignment once more.
    fn unchanged(&self) -> Ready {
        self.after_assign(self.assignment())
    }

    /// What there is nothing to do for leaves it as it is: a boot is not refused for that.
    fn carried_out(&self, act: &Act) -> Result<Ready> {
        Ok(match act {
            _ if self.nothing_for(act).is_some() => self.unchanged(),
            Act::Reset => Ready {
                assignment: self.assignment(),
                disk: DiskChange::Fresh(Old::Kept),
                fixed: None,
            },
            Act::Undo => self.after_undo(),
            Act::Restore(kept @ KeptDisk { disk }) => {
                match (self.kept(disk), self.snapshot(disk)) {
                    (Some(old), _) => Ready::restored(old, old.assignment.clone()),
                    (None, Some(snapshot)) => Ready {
                        assignment: snapshot.assignment.clone(),
                        fixed: Some(snapshot.clone.from.clone()),
                        disk: DiskChange::Copied(snapshot.clone()),
                    },
                    (None, None) => return Err(self.keeps_no(&Act::Restore(kept.clone()), disk)),
                }
            }
            // They leave what it boots as it is, and are never armed.
            Act::Snapshot(_) | Act::Forget(_) | Act::Resize(_) => self.unchanged(),
            Act::Assign(to) => self.after_assign(Assignment {
                image: to.image.clone().unwrap_or_else(|| self.image.clone()),
                mode: to.mode.unwrap_or(self.mode),
            }),
        })
    }

    fn after_undo(&self) -> Ready {
        let Some(before) = &self.before else {
            return self.unchanged();
        };
        match before.disk.as_ref().and_then(|disk| self.kept(disk)) {
            Some(old) => Ready::restored(old, before.assignment.clone()),
            // There was none, or it is the one in place, or an ephemeral boot has dropped it.
            None => self.after_assign(before.assignment.clone()),
        }
    }

    /// A disk that it had before, while it is kept.
    pub(super) fn kept(&self, disk: &str) -> Option<&Discarded> {
        self.discarded.iter().find(|old| old.clone.id == disk)
    }

    /// A snapshot by its name, while it is kept.
    pub(super) fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|one| one.name.as_str() == name)
    }

    pub(super) fn keeps_no(&self, act: &Act, disk: &str) -> Error {
        let names = self.snapshots.iter().map(|one| one.name.as_str());
        let kept = self.discarded.iter().map(|old| old.clone.id.as_str());
        let kept: Vec<&str> = names.chain(kept).collect();
        let what = match kept.as_slice() {
            [] => {
                "no disk of it is kept: only the last ones are, that were reset or replaced".into()
            }
            kept => format!(
                "{disk} is not kept, or not any more; these are: {}",
                kept.join(", ")
            ),
        };
        Error::refused(
            titled(&act.to_string(), &self.name),
            what,
            format!("look at `netroot client show {}`", self.name),
        )
    }

    fn after_assign(&self, to: Assignment) -> Ready {
        let kept = self.clone.as_ref().filter(|clone| {
            to.mode == self.mode && to.mode.has_clone() && still_fits(clone, &to.image)
        });
        let (disk, fixed) = match kept {
            Some(clone) => (DiskChange::Stays, Some(clone.from.clone())),
            None if to.mode.has_clone() => (DiskChange::Fresh(Old::Kept), None),
            None if self.clone.is_some() => (DiskChange::Goes, None),
            None => (DiskChange::Stays, None),
        };
        Ready {
            assignment: to,
            disk,
            fixed,
        }
    }

    /// The client and its disks after `ready`; `fresh` is the clone that was made where one is due.
    pub(crate) fn become_ready(
        &self,
        ready: &Ready,
        fresh: Option<CloneInfo>,
        now: Timestamp,
    ) -> Change {
        let mut client = self.clone();
        let mut swap = Swap::default();
        if self.is_worth_undoing(ready) {
            client.before = Some(Before {
                assignment: self.assignment(),
                disk: self.clone.as_ref().map(|clone| clone.id.clone()),
            });
        }
        if ready.disk != DiskChange::Stays {
            swap.out = client.clone.take();
            let keep = ready.disk != DiskChange::Fresh(Old::Dropped);
            if let Some(clone) = swap.out.clone().filter(|_| keep) {
                client.discarded.push(Discarded {
                    clone,
                    assignment: self.assignment(),
                    at: now,
                });
            }
            client.clone = match &ready.disk {
                DiskChange::Restored(old) => {
                    client
                        .discarded
                        .retain(|kept| kept.clone.id != old.clone.id);
                    Some(old.clone.clone())
                }
                _ => fresh,
            };
            swap.into = client.clone.clone();
        }
        let expired = client.discarded.len().saturating_sub(KEPT);
        client.discarded.drain(..expired);
        client.image = ready.assignment.image.clone();
        client.mode = ready.assignment.mode;
        client.armed = None;
        Change { client, swap }
    }

    /// An ephemeral disk that is made pristine at a boot leaves nothing that could come back.
    fn is_worth_undoing(&self, ready: &Ready) -> bool {
        let pristine = matches!(
            ready.disk,
            DiskChange::Stays | DiskChange::Fresh(Old::Dropped)
        );
        self.assignment() != ready.assignment || (self.clone.is_some() && !pristine)
    }

    /// The steps to `ready`, a new clone being made of `fresh`.
    pub(crate) fn steps(&self, ready: &Ready, fresh: Option<&VersionId>) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(armed) = &self.armed {
            steps.push(Step::Disarm {
                act: armed.act.clone(),
            });
        }
        if self.assignment() != ready.assignment {
            steps.push(Step::Assign {
                from: self.assignment(),
                to: ready.assignment.clone(),
            });
        }
        if ready.disk == DiskChange::Stays {
            return steps;
        }
        let mut kept = self.discarded.len();
        if let Some(clone) = &self.clone {
            kept += 1;
            steps.push(Step::Discard {
                from: clone.from.clone(),
            });
        }
        if let DiskChange::Restored(old) = &ready.disk {
            kept -= 1;
            steps.push(Step::Restore {
                from: old.clone.from.clone(),
                discarded: old.at,
            });
        }
        if let DiskChange::Copied(snapshot) = &ready.disk {
            steps.push(Step::Copy {
                snapshot: snapshot.name.clone(),
                made: snapshot.at,
            });
        }
        if let (DiskChange::Fresh(_), Some(from)) = (&ready.disk, fresh) {
            steps.push(Step::Clone { from: from.clone() });
        }
        let expired = self.discarded.iter().take(kept.saturating_sub(KEPT));
        steps.extend(expired.map(|old| Step::Expire { discarded: old.at }));
        steps
    }
}

/// Whether a clone is what an assignment asks for: made from that image, and from that version if
/// one is named. A moved `current` leaves clones alone (rule 5).
fn still_fits(clone: &CloneInfo, image: &VersionSpec) -> bool {
    clone.from.image == image.image
        && image
            .number
            .is_none_or(|number| number == clone.from.number)
}
