//! Volumes of the library as devices: open as long as their documents stand, so that what hosts have
//! reserved and what they were not told yet outlive their sessions.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Server;
use super::targets::told;
use crate::block::Disk;
use crate::iscsi::SessionInfo;
use crate::library::{Library, Publisher, ReadVolumes, Result, Volume, VolumeName};
use crate::scsi::{Device, Lun, Options};

/// Devices by the volume that heads the target.
#[derive(Default)]
pub(super) struct Volumes {
    // Held while volumes are compared with their documents and opened, so that none is opened twice and no
    // older document takes the place of a newer one. Storage may take its time, so logins and commands
    // never wait for it.
    turn: Mutex<()>,
    // Held for a look or a change of the map. Logins take it, commands never.
    targets: Mutex<BTreeMap<VolumeName, Published>>,
}

struct Published {
    device: Arc<Device>,
    luns: BTreeMap<VolumeName, Unit>,
    /// Which volume it is, and which secrets its sessions have proved.
    proofs: (String, u64),
}

/// A volume as it was opened, or why it was not.
#[derive(Clone)]
struct Unit {
    volume: Volume,
    disk: std::result::Result<Arc<dyn Disk>, String>,
    /// Keeps others off a block device for as long as any copy of this lives.
    _claim: Option<Arc<File>>,
}

/// A volume, as `volume list` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VolumeRow {
    /// What its document says.
    #[serde(flatten)]
    pub volume: Volume,
    /// The name of its target.
    pub iqn: String,
    /// Where its blocks are.
    pub path: String,
    /// Bytes, if it can be told.
    pub size: Option<u64>,
    /// Bytes that its file takes; a block device takes what it has.
    pub used: Option<u64>,
    /// Why it cannot be used.
    pub failed: Option<String>,
    /// Sessions of its target, by their numbers.
    pub sessions: Vec<u64>,
}

impl VolumeRow {
    /// A volume that no server has opened.
    pub fn resting(library: &Library, volume: Volume) -> Self {
        let size = library.volume_size(&volume);
        VolumeRow {
            iqn: library.volume_target(volume.head()),
            path: library.volume_path(&volume).display().to_string(),
            failed: size.as_ref().err().map(|error| told(error)),
            size: size.ok(),
            used: library.volume_usage(&volume),
            sessions: Vec::new(),
            volume,
        }
    }
}

impl Volumes {
    /// The device of a target, if any of its volumes could be opened.
    pub(super) fn device(&self, head: &VolumeName) -> Option<Arc<Device>> {
        let targets = self.targets();
        let target = targets.get(head)?;
        let usable = target.luns.values().any(|unit| unit.disk.is_ok());
        usable.then(|| target.device.clone())
    }

    /// Why a volume could not be opened.
    fn failure(&self, volume: &Volume) -> Option<String> {
        self.unit(volume.head(), &volume.name)?.disk.err()
    }

    /// What is published of a volume.
    fn unit(&self, head: &VolumeName, name: &VolumeName) -> Option<Unit> {
        self.targets().get(head)?.luns.get(name).cloned()
    }

    /// The volume as it was when it was last published, whatever its document says now.
    fn last(&self, name: &VolumeName) -> Option<Volume> {
        let targets = self.targets();
        let units = targets.values().filter_map(|target| target.luns.get(name));
        units.map(|unit| unit.volume.clone()).next()
    }

    fn units(&self, head: &VolumeName) -> Vec<Unit> {
        let targets = self.targets();
        let units = targets
            .get(head)
            .map(|target| target.luns.values().cloned());
        units.into_iter().flatten().collect()
    }

    fn put(&self, unit: Unit) {
        if let Some(target) = self.targets().get_mut(unit.volume.head()) {
            target.luns.insert(unit.volume.name.clone(), unit);
        }
    }

    fn take(&self, head: &VolumeName, name: &VolumeName) {
        if let Some(target) = self.targets().get_mut(head) {
            target.luns.remove(name);
        }
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<VolumeName, Published>> {
        // A panic leaves at worst a volume that is opened again.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Makes the target what the documents say, and returns when sessions that are not allowed any more
    /// have ended. Blocks. Others notice nothing.
    pub fn refresh_volumes(&self) -> Result<Vec<VolumeRow>> {
        let turn = &self.volumes.turn;
        let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh_in(turn)
    }

    /// The same, unless somebody else is at it.
    pub(super) fn try_refresh_volumes(&self) -> Option<Result<Vec<VolumeRow>>> {
        let turn = match self.volumes.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.refresh_in(turn))
    }

    fn refresh_in(&self, turn: MutexGuard<'_, ()>) -> Result<Vec<VolumeRow>> {
        let ReadVolumes { volumes, broken } = self.documents()?;
        for (name, error) in broken {
            tracing::error!(volume = %name, error = told(&error), "cannot read what a volume is");
        }
        // Sessions of a target that is gone keep its device until they end.
        let mut settling = self.close_targets(&volumes);
        let mut renewed = Vec::new();
        for head in volumes.iter().filter(|volume| volume.target.is_none()) {
            let (device, anew) = self.target_of(head);
            renewed.extend(anew.then(|| head.name.clone()));
            let wanted: Vec<&Volume> = volumes
                .iter()
                .filter(|one| *one.head() == head.name)
                .collect();
            settling.extend(self.match_units(&device, &head.name, &wanted));
        }
        drop(turn);
        self.end_strangers(&volumes, &renewed);
        self.attached.runtime().block_on(async {
            for settled in settling {
                settled.await;
            }
        });
        self.nudge();
        self.volume_rows()
    }

    /// What all documents say, and which cannot be read. Nobody knows what has been changed in those: what
    /// was published of them goes on as it was, and nothing new.
    fn documents(&self) -> Result<ReadVolumes> {
        let mut read = self.library.readable_volumes()?;
        let broken = read.broken.iter();
        let last = broken.filter_map(|(name, _)| self.volumes.last(name));
        read.volumes.extend(last);
        Ok(read)
    }

    /// Forgets the targets that no document heads any more.
    fn close_targets(&self, volumes: &[Volume]) -> Vec<Settling> {
        let mut targets = self.volumes.targets();
        let is_gone = |head: &VolumeName| !volumes.iter().any(|volume| volume.name == *head);
        let (gone, stay): (BTreeMap<_, _>, _) = std::mem::take(&mut *targets)
            .into_iter()
            .partition(|(head, _)| is_gone(head));
        *targets = stay;
        let units = gone.into_values().flat_map(|target| target.luns);
        let settled = std::future::ready(());
        units
            .map(|(_, unit)| unit.closed(settled.clone()))
            .collect()
    }

    /// The device of a target, and whether its sessions have proved what does not count any more.
    fn target_of(&self, head: &Volume) -> (Arc<Device>, bool) {
        let proofs = (head.id.clone(), head.proofs);
        let mut targets = self.volumes.targets();
        let target = targets.entry(head.name.clone());
        let target = target.or_insert_with(|| Published {
            device: Arc::new(Device::new(&self.library.volume_target(&head.name))),
            luns: BTreeMap::new(),
            proofs: proofs.clone(),
        });
        let anew = target.proofs != proofs;
        target.proofs = proofs;
        (target.device.clone(), anew)
    }

    /// All volumes with their state.
    pub fn volume_rows(&self) -> Result<Vec<VolumeRow>> {
        let sessions = self.sessions.list();
        let ReadVolumes { volumes, broken } = self.documents()?;
        let row = |volume: Volume| {
            let unread = broken.iter().find(|(name, _)| *name == volume.name);
            let mut row = self.row_of(volume, &sessions);
            row.failed = unread.map(|(_, error)| told(error)).or(row.failed);
            row
        };
        Ok(volumes.into_iter().map(row).collect())
    }

    /// One volume with its state.
    pub fn volume_row(&self, volume: Volume) -> VolumeRow {
        self.row_of(volume, &self.sessions.list())
    }

    fn row_of(&self, volume: Volume, sessions: &[SessionInfo]) -> VolumeRow {
        let failed = self.volumes.failure(&volume);
        let mut row = VolumeRow::resting(&self.library, volume);
        row.failed = row.failed.or(failed);
        let of_target = sessions.iter().filter(|one| one.target.as_str() == row.iqn);
        row.sessions = of_target.map(|session| session.id).collect();
        row
    }
}

impl Publisher for Server {
    fn sessions_of(&self, target: &str) -> usize {
        let sessions = self.sessions.list();
        let of_target = sessions.iter().filter(|one| one.target.as_str() == target);
        of_target.count()
    }

    fn follow(&self) {
        if let Err(error) = self.refresh_volumes() {
            tracing::error!(
                error = told(&error),
                "cannot publish what the volumes' documents say"
            );
        }
    }
}

type Settling = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Server {
    /// Opens what is new, closes what is gone, and looks how large the others have become.
    fn match_units(
        &self,
        device: &Arc<Device>,
        head: &VolumeName,
        wanted: &[&Volume],
    ) -> Vec<Settling> {
        let mut settling = Vec::new();
        for unit in self.volumes.units(head) {
            let stays = |one: &&Volume| one.name == unit.volume.name && one.id == unit.volume.id;
            if !wanted.iter().any(stays)
                && let Some(lun) = Lun::new(unit.volume.lun)
            {
                self.volumes.take(head, &unit.volume.name);
                settling.push(unit.closed(device.remove(lun)));
            }
        }
        for volume in wanted {
            let Some(lun) = Lun::new(volume.lun) else {
                continue;
            };
            match self.volumes.unit(head, &volume.name) {
                Some(mut unit) if unit.is_as(volume) => {
                    if let Ok(disk) = &unit.disk {
                        grow(device, lun, volume, disk.as_ref());
                    }
                    unit.volume = Volume::clone(volume);
                    self.volumes.put(unit);
                }
                old => settling.push(self.open_unit(device, lun, volume, old)),
            }
        }
        settling
    }

    /// Opens a volume, in the place of what it was before if it was.
    fn open_unit(&self, device: &Device, lun: Lun, volume: &Volume, old: Option<Unit>) -> Settling {
        let disk = old.and_then(|unit| unit.disk.ok());
        if let Some(disk) = &disk {
            // What was answered is durable before the unit answers in another shape.
            let flushed = self.attached.runtime().block_on(disk.flush().wait());
            if let Err(error) = flushed {
                tracing::error!(volume = %volume.name, %error, "flushing a volume that is opened anew");
            }
        }
        // The old claim first, or the new one would fail for it.
        self.volumes.take(volume.head(), &volume.name);
        let (unit, gone) = match open(&self.library, volume) {
            Ok((unit, options, disk)) => {
                let gone = device.add_disk(lun, &volume.id, disk, options);
                (unit, settling(gone))
            }
            Err(why) => {
                tracing::error!(volume = %volume.name, why, "cannot open a volume");
                let unit = Unit {
                    volume: volume.clone(),
                    disk: Err(why),
                    _claim: None,
                };
                (unit, settling(device.remove(lun)))
            }
        };
        self.volumes.put(unit);
        flushed(volume, disk, gone)
    }
}

fn settling(future: impl Future<Output = ()> + Send + 'static) -> Settling {
    Box::pin(future)
}

/// Waits until nothing works on a disk any more, and makes durable what was written to it to the end.
fn flushed(
    volume: &Volume,
    disk: Option<Arc<dyn Disk>>,
    settled: impl Future<Output = ()> + Send + 'static,
) -> Settling {
    let name = volume.name.clone();
    Box::pin(async move {
        settled.await;
        if let Some(disk) = disk
            && let Err(error) = disk.flush().wait().await
        {
            tracing::error!(volume = %name, %error, "flushing a volume that is let go");
        }
    })
}

impl Unit {
    /// Whether it was opened, and as the document says.
    fn is_as(&self, volume: &Volume) -> bool {
        let Volume {
            id,
            read_only,
            allow_sanitize,
            direct,
            ..
        } = &self.volume;
        self.disk.is_ok()
            && (id, *read_only, *allow_sanitize, *direct)
                == (
                    &volume.id,
                    volume.read_only,
                    volume.allow_sanitize,
                    volume.direct,
                )
    }

    /// What is to be waited for when it is let go.
    fn closed(self, settled: impl Future<Output = ()> + Send + 'static) -> Settling {
        flushed(&self.volume, self.disk.ok(), settled)
    }
}

fn open(
    library: &Library,
    volume: &Volume,
) -> std::result::Result<(Unit, Options, Arc<dyn Disk>), String> {
    let told = |error: crate::library::Error| told(&error);
    let kept = library.volume_reservations(volume).map_err(told)?;
    let opened = library.open_volume(volume).map_err(told)?;
    let options = Options {
        sanitize: volume.allow_sanitize,
        reservations: Some(Arc::new(kept)),
        sanitizing: Some(Arc::new(library.kept_sanitizing(volume))),
    };
    let unit = Unit {
        volume: volume.clone(),
        disk: Ok(opened.disk.clone()),
        _claim: opened.claim.map(Arc::new),
    };
    Ok((unit, options, opened.disk))
}

fn grow(device: &Device, lun: Lun, volume: &Volume, disk: &dyn Disk) {
    let before = disk.geometry();
    match disk.refresh() {
        Ok(now) if now != before => device.capacity_changed(lun),
        Ok(_) => {}
        Err(error) => {
            tracing::error!(volume = %volume.name, %error, "cannot tell how large a volume is")
        }
    }
}
