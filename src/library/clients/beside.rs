//! Acts that leave what a client boots as it is, and so disturb nobody: snapshots of its disk, an end to
//! what is kept, a larger disk.

use jiff::Timestamp;

use super::act::titled;
use super::acts::is_running;
use super::edit::plan;
use super::settings::ensure_possible;
use super::{
    Act, Armed, Change, Client, DiskChange, Done, KeptDisk, NewSize, NewSnapshot, Plan, Ready,
    Snapshot, Step,
};
use crate::library::document;
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::SnapshotName;
use crate::library::store::clone::{self, CloneInfo, CloneKind, Swap};
use crate::library::store::{Copying, Source};
use crate::library::{ByteSize, Edition, Library, MacAddr, Rollout};

/// Snapshots that one client may have: each may come to hold as much as its disk.
const SNAPSHOTS: usize = 32;

/// An act of this kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beside<'a> {
    Snapshot(&'a NewSnapshot),
    Forget(&'a KeptDisk),
    Resize(NewSize),
}

impl<'a> Beside<'a> {
    /// The act, if it is one.
    pub(super) fn of(act: &'a Act) -> Option<Self> {
        match act {
            Act::Snapshot(new) => Some(Beside::Snapshot(new)),
            Act::Forget(kept) => Some(Beside::Forget(kept)),
            Act::Resize(new) => Some(Beside::Resize(*new)),
            Act::Reset | Act::Undo | Act::Assign(_) | Act::Restore(_) => None,
        }
    }

    fn act(&self) -> Act {
        match self {
            Beside::Snapshot(new) => Act::Snapshot((*new).clone()),
            Beside::Forget(kept) => Act::Forget((*kept).clone()),
            Beside::Resize(new) => Act::Resize(*new),
        }
    }
}

/// Refuses to wait for a boot with what would take long then, while nobody else could log in.
pub(super) fn ensure_quick(client: &Client, act: &Act, ready: &Ready) -> Result<()> {
    match &ready.disk {
        DiskChange::Copied(snapshot) if snapshot.clone.kind == CloneKind::Overlay => {
            Err(Error::refused(
                titled(&act.to_string(), &client.name),
                "the library's file system cannot share blocks, so the snapshot has to be copied, which \
                 takes too long for a boot to wait for",
                "shut the client down, and repeat it without --at-next-boot",
            ))
        }
        _ => Ok(()),
    }
}

impl Library {
    /// What such an act would do, or why it would be refused.
    pub(super) fn plan_beside(
        &self,
        client: &Client,
        beside: &Beside<'_>,
        live: &dyn Live,
    ) -> Result<Plan> {
        let act = beside.act();
        let mut plan = plan(client, &act.to_string(), Vec::new());
        match beside {
            Beside::Snapshot(new) => {
                let name = client.new_snapshot(new, Timestamp::now())?;
                let running = is_running(client, live);
                if running && client.own_disk()?.kind == CloneKind::Overlay {
                    return Err(Error::refused(
                        titled(&act.to_string(), &client.name),
                        "it is running, or nobody saw its last boot end, and the library's file system \
                         cannot share blocks: its disk has to be copied while nobody writes",
                        "shut it down first",
                    ));
                }
                plan.steps.push(Step::Snapshot { name, running });
            }
            Beside::Forget(KeptDisk { disk }) => {
                let since = self.forgettable(client, &act, disk)?.1;
                plan.steps.push(Step::Forget {
                    disk: disk.clone(),
                    since,
                });
                plan.loses = Some("what is on it is lost for ever".into());
            }
            Beside::Resize(NewSize { size }) => {
                client.own_disk()?;
                let from = clone::size(self.places(), &client.mac)?;
                client.ensure_larger(&act, from, *size)?;
                if from < size.bytes() || client.settings.size != Some(*size) {
                    plan.steps.push(Step::Grow {
                        from: ByteSize::new(from),
                        to: *size,
                    });
                }
            }
        }
        Ok(plan)
    }

    /// Does such an act.
    pub(super) fn perform_beside(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        beside: &Beside<'_>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        let client = self.client(mac)?;
        client.ensure_edition(edition)?;
        let plan = self.plan_beside(&client, beside, live)?;
        if plan.steps.is_empty() {
            return Ok(Done {
                client: Some(self.view(client, live)?),
                plan,
            });
        }
        let client = match beside {
            Beside::Snapshot(new) => self.take_snapshot(&client, edition, new, live)?,
            Beside::Forget(KeptDisk { disk }) => self.forget(mac, edition, disk)?,
            Beside::Resize(NewSize { size }) => self.enlarge(mac, edition, *size, live)?,
        };
        let steps: Vec<String> = plan.steps.iter().map(Step::to_string).collect();
        let event = Event::new(actor, &beside.act().event()).of(&plan.mac);
        self.note(&event.with("what", plan.what.clone()).with("steps", steps));
        Ok(Done {
            client: Some(self.view(client, live)?),
            plan,
        })
    }

    fn take_snapshot(
        &self,
        client: &Client,
        edition: Option<&Edition>,
        new: &NewSnapshot,
        live: &dyn Live,
    ) -> Result<Client> {
        let mac = &client.mac;
        // An overlay is copied file by file: nobody is let in meanwhile.
        let _hold = match client.own_disk()?.kind {
            CloneKind::Overlay => {
                let hold = self.hold_clone(mac)?;
                Some(hold.unless_connected(&live.sessions_of(mac))?)
            }
            CloneKind::Reflink => None,
        };
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        let now = Timestamp::now();
        let name = client.new_snapshot(new, now)?;
        let running = is_running(&client, live);
        let source = client.own_disk()?.clone();
        let place = Source::InPlace(&source);
        let copying = Copying::begin(&lock, self.places(), &client.mac, place)?;
        drop(lock);
        copying.fill()?;
        let lock = self.write_lock()?;
        let mut client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        if client.own_disk().ok().map(|disk| &disk.id) != Some(&source.id) {
            return Err(Error::refused(
                format!("making a snapshot of client {}", client.name),
                "it was reset or assigned to something else meanwhile",
                "repeat it, if the disk that it has now is meant",
            ));
        }
        // Asked again: another snapshot may have got the name, and the machine may have booted since.
        client.new_snapshot(new, now)?;
        let running = running || is_running(&client, live);
        let copy = copying.settle(&lock)?;
        client.snapshots.push(Snapshot {
            name,
            clone: copy.clone(),
            assignment: client.assignment(),
            at: now,
            running,
        });
        let swap = Swap {
            aside: Some(copy),
            ..Swap::default()
        };
        self.commit(&lock, Change { client, swap })
    }

    fn forget(&self, mac: &MacAddr, edition: Option<&Edition>, disk: &str) -> Result<Client> {
        let lock = self.write_lock()?;
        let mut client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        let act = Act::Forget(KeptDisk {
            disk: disk.to_owned(),
        });
        let id = self.forgettable(&client, &act, disk)?.0.id.clone();
        client.discarded.retain(|old| old.clone.id != id);
        client.snapshots.retain(|one| one.clone.id != id);
        let swap = Swap {
            prunes: true,
            ..Swap::default()
        };
        self.commit(&lock, Change { client, swap })
    }

    fn enlarge(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        size: ByteSize,
        live: &dyn Live,
    ) -> Result<Client> {
        let lock = self.write_lock()?;
        let mut client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        let disk = client.own_disk()?;
        let from = clone::size(self.places(), &client.mac)?;
        client.ensure_larger(&Act::Resize(NewSize { size }), from, size)?;
        // Before it is written down: a disk that is larger than anybody knows does no harm.
        clone::grow(self.places(), &client.mac, disk, size.bytes())?;
        client.settings.size = Some(size);
        document::write(&lock, &self.places().client(&client.mac), &mut client)?;
        drop(lock);
        self.tell_open(&client, live)?;
        Ok(client)
    }

    /// Has whoever has a client's disks open look at them again.
    pub(crate) fn tell_open(&self, client: &Client, live: &dyn Live) -> Result<()> {
        let quota = self.settings(client)?.quota().map(ByteSize::bytes);
        live.look_again(&client.mac, quota);
        Ok(())
    }

    /// Copies a snapshot that is to be restored, where that takes long, before the lock is taken.
    pub(super) fn copy_ahead(&self, client: &Client, act: &Act) -> Result<Option<Copying>> {
        let Act::Restore(KeptDisk { disk }) = act else {
            return Ok(None);
        };
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, &client.mac)?;
        match client.snapshot(disk).map(|one| &one.clone) {
            Some(kept) if kept.kind == CloneKind::Overlay => {
                let kept = Source::Kept(kept);
                let copying = Copying::begin(&lock, self.places(), &client.mac, kept)?;
                drop(lock);
                copying.fill()?;
                Ok(Some(copying))
            }
            _ => Ok(None),
        }
    }

    /// A disk that is kept and that nothing may bring back, and since when it is.
    fn forgettable<'a>(
        &self,
        client: &'a Client,
        act: &Act,
        disk: &str,
    ) -> Result<(&'a CloneInfo, Timestamp)> {
        let kept = client.kept(disk).map(|old| (&old.clone, old.at));
        let snapshot = client.snapshot(disk).map(|one| (&one.clone, one.at));
        let found = kept.or(snapshot);
        let found = found.ok_or_else(|| client.keeps_no(act, disk))?;
        let refused = |why: String, instead: &str| {
            let what = titled(&act.to_string(), &client.name);
            Err(Error::refused(what, why, instead))
        };
        if client.waits_for(found.0) {
            return refused(
                "it is to be brought back at the client's next boot".into(),
                "call that off first, with `netroot client undo`",
            );
        }
        if let Some(rollout) = self.rollout_that_brings(client, found.0)? {
            return refused(
                format!("rollout {} brings it back if that fails", rollout.id),
                "wait until that is over",
            );
        }
        Ok(found)
    }

    /// The rollout that brings a disk back to its client if it is set back.
    pub(super) fn rollout_that_brings(
        &self,
        client: &Client,
        disk: &CloneInfo,
    ) -> Result<Option<Rollout>> {
        match client.undo_brings(disk) {
            true => self.rollout_of(client),
            false => Ok(None),
        }
    }

    /// A copy of a snapshot, beside its client's disk; `ahead` is one that was made before.
    pub(super) fn copy_of(
        &self,
        lock: &WriteLock,
        client: &Client,
        snapshot: &Snapshot,
        ahead: Option<Copying>,
    ) -> Result<CloneInfo> {
        match ahead.filter(|copying| copying.of() == snapshot.clone.id) {
            Some(copying) => copying.settle(lock),
            None if snapshot.clone.kind == CloneKind::Reflink => {
                let kept = Source::Kept(&snapshot.clone);
                let copying = Copying::begin(lock, self.places(), &client.mac, kept)?;
                copying.fill()?;
                copying.settle(lock)
            }
            None => Err(Error::refused(
                format!("restoring snapshot {} of {}", snapshot.name, client.name),
                "another snapshot has got its name meanwhile",
                "look at `netroot client show`, and repeat it",
            )),
        }
    }
}

impl Client {
    /// The name of a new snapshot, or why there can be none.
    fn new_snapshot(&self, new: &NewSnapshot, now: Timestamp) -> Result<SnapshotName> {
        self.own_disk()?;
        let name = match &new.name {
            Some(name) => name.clone(),
            None => now.strftime("at-%Y%m%d-%H%M%S").to_string().parse()?,
        };
        if self.snapshot(name.as_str()).is_some() {
            return Err(Error::Exists {
                kind: "snapshot",
                name: format!("{name} of {}", self.name),
            });
        }
        if self.snapshots.len() >= SNAPSHOTS {
            return Err(Error::refused(
                format!("making a snapshot of client {}", self.name),
                format!("it has {SNAPSHOTS} already"),
                format!(
                    "remove one that nobody needs, with `netroot client forget {} NAME`",
                    self.name
                ),
            ));
        }
        Ok(name)
    }

    /// Whether a disk that is kept is to come back at the next boot.
    pub(super) fn waits_for(&self, disk: &CloneInfo) -> bool {
        let armed = self.armed.as_ref();
        armed.is_some_and(|Armed { act, .. }| match act {
            Act::Restore(KeptDisk { disk: name }) => {
                *name == disk.id
                    || self
                        .snapshot(name)
                        .is_some_and(|one| one.clone.id == disk.id)
            }
            Act::Undo => self.undo_brings(disk),
            _ => false,
        })
    }

    /// Whether an undo would bring back this disk.
    pub(super) fn undo_brings(&self, disk: &CloneInfo) -> bool {
        let before = self.before.as_ref().and_then(|one| one.disk.as_ref());
        before == Some(&disk.id)
    }

    fn ensure_larger(&self, act: &Act, from: u64, size: ByteSize) -> Result<()> {
        let refused = |why: String, instead: &str| {
            let what = titled(&act.to_string(), &self.name);
            Err(Error::refused(what, why, instead))
        };
        match size.bytes() {
            bytes if bytes < from => refused(
                format!(
                    "its disk has {} already, and what is behind the new end would be lost",
                    ByteSize::new(from)
                ),
                "a disk only grows; a client whose disk should be smaller has to be reset to a version \
                 that is",
            ),
            _ => ensure_possible(size, || titled(&act.to_string(), &self.name)),
        }
    }
}
