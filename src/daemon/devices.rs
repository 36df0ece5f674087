//! Devices that are in use: all sessions of a disk share one, so that its unit attentions reach them
//! all and an overlay's map has one owner. A clone that took another's place is another disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::block::{Disk, Quota};
use crate::library::{GrantedDisk, MacAddr, OpenDisk, Result};
use crate::scsi::{Device, Lun, Options};

/// Devices by their disk.
#[derive(Default)]
pub(super) struct Devices {
    // Held while a disk is opened: two sessions of one clone must not open it twice. Opening reads a
    // few kilobytes.
    open: Mutex<HashMap<GrantedDisk, Used>>,
}

/// A device, for as long as somebody uses it.
struct Used {
    device: Weak<Device>,
    disks: Vec<(Lun, Weak<dyn Disk>)>,
    quota: Option<Weak<Quota>>,
}

impl Devices {
    /// The device of `disk`, opened by `open` if nobody uses it. `identity` is the name of its target.
    pub(super) fn get(
        &self,
        disk: &GrantedDisk,
        identity: &str,
        open: impl FnOnce() -> Result<Vec<OpenDisk>>,
    ) -> Result<Arc<Device>> {
        let mut devices = self.lock();
        if let Some(device) = devices.get(disk).and_then(|used| used.device.upgrade()) {
            return Ok(device);
        }
        devices.retain(|_, used| used.device.strong_count() > 0);
        let (mut device, mut disks, mut quota) = (Device::new(identity), Vec::new(), None);
        for one in open()? {
            // The configuration knows no LUN that does not exist.
            let lun = Lun::new(one.lun).unwrap_or(Lun::ZERO);
            disks.push((lun, Arc::downgrade(&one.disk)));
            quota = quota.or(one.quota.as_ref().map(Arc::downgrade));
            device = device.with_disk(lun, &one.identity, one.disk, Options::default());
        }
        let device = Arc::new(device);
        let used = Used {
            device: Arc::downgrade(&device),
            disks,
            quota,
        };
        devices.insert(disk.clone(), used);
        Ok(device)
    }

    /// Looks how large the disks of a client have become, and tells its initiators if they have; and
    /// holds its clone to another quota.
    pub(super) fn look_again(&self, client: &MacAddr, limit: Option<u64>) {
        let devices = self.lock();
        for (disk, used) in devices.iter() {
            if disk.client() != Some(client) {
                continue;
            }
            if let Some(quota) = used.quota.as_ref().and_then(Weak::upgrade) {
                quota.set(limit);
            }
            let Some(device) = used.device.upgrade() else {
                continue;
            };
            for (lun, disk) in &used.disks {
                let Some(disk) = disk.upgrade() else {
                    continue;
                };
                let before = disk.geometry();
                match disk.refresh() {
                    Ok(now) if now != before => device.capacity_changed(*lun),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%client, %error, "cannot tell how large a disk is");
                    }
                }
            }
        }
    }

    /// The quotas of the clones that are in use, each with its client.
    pub(super) fn quotas(&self) -> Vec<(MacAddr, Arc<Quota>)> {
        let devices = self.lock();
        let quota = |(disk, used): (&GrantedDisk, &Used)| {
            used.device.upgrade()?;
            Some((*disk.client()?, used.quota.as_ref()?.upgrade()?))
        };
        devices.iter().filter_map(quota).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GrantedDisk, Used>> {
        // A panic leaves at worst a device that is opened again.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
