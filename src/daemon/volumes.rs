//! Volumes of the library as devices: open as long as their documents stand, so that what hosts have
//! reserved and what they were not told yet outlive their sessions.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Server;
use crate::block::Disk;
use crate::iscsi::SessionInfo;
use crate::library::{Library, Publisher, Result, Volume, VolumeName};
use crate::scsi::{Device, Lun, Options};

/// Devices by the volume that heads the target.
#[derive(Default)]
pub(super) struct Volumes {
    // Held while volumes are compared with their documents, so that none is opened twice. Logins take it
    // for a look, commands never.
    targets: Mutex<BTreeMap<VolumeName, Published>>,
}

struct Published {
    device: Arc<Device>,
    luns: BTreeMap<VolumeName, Unit>,
    /// Which volume it is, and which secrets its sessions have proved.
    proofs: (String, u64),
}

/// A volume as it was opened, or why it was not.
struct Unit {
    volume: Volume,
    opened: std::result::Result<Opened, String>,
}

struct Opened {
    disk: Arc<dyn Disk>,
    _claim: Option<File>,
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
            failed: size.as_ref().err().map(|error| super::targets::told(error)),
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
        let usable = target.luns.values().any(|unit| unit.opened.is_ok());
        usable.then(|| target.device.clone())
    }

    /// Why a volume could not be opened.
    fn failure(&self, volume: &Volume) -> Option<String> {
        let targets = self.targets();
        let unit = targets.get(volume.head())?.luns.get(&volume.name)?;
        unit.opened.as_ref().err().cloned()
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
        let library = &self.library;
        let volumes = library.volumes()?;
        let mut targets = self.volumes.targets();
        // Sessions of a target that is gone keep its device until they end.
        targets.retain(|head, _| volumes.iter().any(|volume| volume.name == *head));
        let mut settling = Vec::new();
        let mut renewed = Vec::new();
        for head in volumes.iter().filter(|volume| volume.target.is_none()) {
            let proofs = (head.id.clone(), head.proofs);
            let target = targets
                .entry(head.name.clone())
                .or_insert_with(|| Published {
                    device: Arc::new(Device::new(&library.volume_target(&head.name))),
                    luns: BTreeMap::new(),
                    proofs: proofs.clone(),
                });
            if target.proofs != proofs {
                target.proofs = proofs;
                renewed.push(head.name.clone());
            }
            let wanted: Vec<&Volume> = volumes
                .iter()
                .filter(|one| *one.head() == head.name)
                .collect();
            settling.extend(target.match_to(library, &wanted));
        }
        drop(targets);
        self.end_strangers(&volumes, &renewed);
        self.attached.runtime().block_on(async {
            for settled in settling {
                settled.await;
            }
        });
        self.nudge();
        self.volume_rows()
    }

    /// All volumes with their state.
    pub fn volume_rows(&self) -> Result<Vec<VolumeRow>> {
        let sessions = self.sessions.list();
        let volumes = self.library.volumes()?.into_iter();
        Ok(volumes
            .map(|volume| self.row_of(volume, &sessions))
            .collect())
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
                error = super::targets::told(&error),
                "cannot publish what the volumes' documents say"
            );
        }
    }
}

type Settling = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Published {
    /// Opens what is new, closes what is gone, and looks how large the others have become.
    fn match_to(&mut self, library: &Library, wanted: &[&Volume]) -> Vec<Settling> {
        let mut settling: Vec<Settling> = Vec::new();
        let device = self.device.clone();
        self.luns.retain(|name, unit| {
            let stays = wanted
                .iter()
                .any(|one| one.name == *name && one.id == unit.volume.id);
            if let (false, Some(lun)) = (stays, Lun::new(unit.volume.lun)) {
                settling.push(Box::pin(device.remove(lun)));
            }
            stays
        });
        for volume in wanted {
            let Some(lun) = Lun::new(volume.lun) else {
                continue;
            };
            match self.luns.get_mut(&volume.name) {
                Some(unit) if unit.is_as(volume) => {
                    unit.volume = Volume::clone(volume);
                    if let Ok(opened) = &unit.opened {
                        grow(&device, lun, volume, opened);
                    }
                }
                _ => {
                    // The old claim first, or the new one would fail for it.
                    self.luns.remove(&volume.name);
                    let opened = open(library, volume);
                    match &opened {
                        Ok((opened, options)) => {
                            let disk = opened.disk.clone();
                            let old = device.add_disk(lun, &volume.id, disk, options.clone());
                            settling.push(Box::pin(old));
                        }
                        Err(why) => {
                            tracing::error!(volume = %volume.name, why, "cannot open a volume");
                            settling.push(Box::pin(device.remove(lun)));
                        }
                    }
                    let unit = Unit {
                        volume: Volume::clone(volume),
                        opened: opened.map(|(opened, _)| opened),
                    };
                    self.luns.insert(volume.name.clone(), unit);
                }
            }
        }
        settling
    }
}

impl Unit {
    /// Whether it was opened, and as the document says.
    fn is_as(&self, volume: &Volume) -> bool {
        let Volume {
            read_only,
            allow_sanitize,
            direct,
            ..
        } = &self.volume;
        self.opened.is_ok()
            && (*read_only, *allow_sanitize, *direct)
                == (volume.read_only, volume.allow_sanitize, volume.direct)
    }
}

fn open(library: &Library, volume: &Volume) -> std::result::Result<(Opened, Options), String> {
    let told = |error: crate::library::Error| super::targets::told(&error);
    let kept = library.volume_reservations(volume).map_err(told)?;
    let opened = library.open_volume(volume).map_err(told)?;
    let options = Options {
        sanitize: volume.allow_sanitize,
        reservations: Some(Arc::new(kept)),
        sanitizing: Some(Arc::new(library.kept_sanitizing(volume))),
    };
    let opened = Opened {
        disk: opened.disk,
        _claim: opened.claim,
    };
    Ok((opened, options))
}

fn grow(device: &Device, lun: Lun, volume: &Volume, opened: &Opened) {
    let before = opened.disk.geometry();
    match opened.disk.refresh() {
        Ok(now) if now != before => device.capacity_changed(lun),
        Ok(_) => {}
        Err(error) => {
            tracing::error!(volume = %volume.name, %error, "cannot tell how large a volume is")
        }
    }
}
