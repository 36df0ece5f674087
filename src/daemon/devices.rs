//! Devices that are in use: all sessions of a disk share one, so that its unit attentions reach them
//! all and an overlay's map has one owner. A clone that took another's place is another disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::block::{Disk, Quota};
use crate::library::{GrantedDisk, MacAddr, OpenDisk, Result};
use crate::scsi::{Device, Lun, Options};

/// Devices by their disk.
#[derive(Default)]
pub(super) struct Devices {
    places: Mutex<HashMap<GrantedDisk, Arc<Place>>>,
}

/// Where the device of one disk is.
// Held while the disk is opened, since two sessions of one clone must not open it twice. That may take its
// time (what is on its way to the storage gets there first), and holds up nobody who wants another disk.
type Place = Mutex<Option<Used>>;

/// A device, for as long as somebody uses it.
struct Used {
    device: Weak<Device>,
    disks: Vec<(Lun, Weak<dyn Disk>)>,
    quota: Option<Weak<Quota>>,
}

impl Devices {
    /// The device of `disk`, opened by `open` if nobody uses it. `identity` is the name of its target.
    /// Blocks.
    pub(super) fn get(
        &self,
        disk: &GrantedDisk,
        identity: &str,
        open: impl FnOnce() -> Result<Vec<OpenDisk>>,
    ) -> Result<Arc<Device>> {
        let place = self.place(disk);
        let mut place = lock(&place);
        if let Some(device) = place.as_ref().and_then(|used| used.device.upgrade()) {
            return Ok(device);
        }
        let (mut device, mut disks, mut quota) = (Device::new(identity), Vec::new(), None);
        for one in open()? {
            // The configuration knows no LUN that does not exist.
            let lun = Lun::new(one.lun).unwrap_or(Lun::ZERO);
            disks.push((lun, Arc::downgrade(&one.disk)));
            quota = quota.or(one.quota.as_ref().map(Arc::downgrade));
            device = device.with_disk(lun, &one.identity, one.disk, Options::default());
        }
        let device = Arc::new(device);
        *place = Some(Used {
            device: Arc::downgrade(&device),
            disks,
            quota,
        });
        Ok(device)
    }

    /// The place of a disk, made if there is none. Those that nobody uses go.
    fn place(&self, disk: &GrantedDisk) -> Arc<Place> {
        let mut places = lock(&self.places);
        if let Some(place) = places.get(disk) {
            return place.clone();
        }
        // Whoever has one in hand may be about to open its disk. Nobody takes another one meanwhile.
        places.retain(|_, place| Arc::strong_count(place) > 1 || is_used(place));
        places.entry(disk.clone()).or_default().clone()
    }

    /// Those in use now, or about to be, that `wanted` says.
    fn of(&self, wanted: impl Fn(&GrantedDisk) -> bool) -> Vec<(GrantedDisk, Arc<Place>)> {
        let places = lock(&self.places);
        let wanted = places.iter().filter(|(disk, _)| wanted(disk));
        wanted
            .map(|(disk, place)| (disk.clone(), place.clone()))
            .collect()
    }

    /// Looks how large the disks of a client have become, and tells its initiators if they have; and
    /// holds its clone to another quota. Blocks while one is opened: it may have been told the old one.
    pub(super) fn look_again(&self, client: &MacAddr, limit: Option<u64>) {
        for (_, place) in self.of(|disk| disk.client() == Some(client)) {
            let place = lock(&place);
            let Some(used) = place.as_ref() else {
                continue;
            };
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

    /// The quotas of the clones that are in use, each with its client; without the quota where somebody
    /// opens it, or looks at it, just now.
    pub(super) fn quotas(&self) -> Vec<(MacAddr, Option<Arc<Quota>>)> {
        let quota = |(disk, place): (GrantedDisk, Arc<Place>)| {
            let mac = *disk.client()?;
            let used = match place.try_lock() {
                Ok(used) => used,
                Err(TryLockError::WouldBlock) => return Some((mac, None)),
                Err(TryLockError::Poisoned(used)) => used.into_inner(),
            };
            let used = used.as_ref()?;
            used.device.upgrade()?;
            Some((mac, Some(used.quota.as_ref()?.upgrade()?)))
        };
        let all = self.of(|disk| disk.client().is_some());
        all.into_iter().filter_map(quota).collect()
    }
}

fn is_used(place: &Place) -> bool {
    let used = lock(place);
    used.as_ref()
        .is_some_and(|used| used.device.strong_count() > 0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves at worst a device that is opened again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn disk(mac: &str) -> GrantedDisk {
        GrantedDisk::Data(mac.parse().unwrap())
    }

    #[test]
    fn a_disk_that_takes_its_time_is_opened_once_and_holds_up_no_other() {
        let devices = Devices::default();
        let (slow, other) = (disk("52:54:00:00:00:01"), disk("52:54:00:00:00:02"));
        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (devices, slow) = (&devices, &slow);
            let first = scope.spawn(move || {
                let open = || {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                    Ok(Vec::new())
                };
                devices.get(slow, "slow", open).unwrap()
            });
            has_begun.recv().unwrap();
            devices.get(&other, "other", || Ok(Vec::new())).unwrap();
            let held = devices.quotas();
            assert!(matches!(held[..], [(mac, None)] if Some(&mac) == slow.client()));
            let second = scope.spawn(move || {
                let open = || panic!("it is open already");
                devices.get(slow, "slow", open).unwrap()
            });
            go.send(()).unwrap();
            let first = first.join().unwrap();
            assert!(Arc::ptr_eq(&first, &second.join().unwrap()));
        });
        // What nobody uses is opened anew, and leaves nothing behind.
        devices.get(&slow, "slow", || Ok(Vec::new())).unwrap();
        devices
            .get(&disk("52:54:00:00:00:03"), "third", || Ok(Vec::new()))
            .unwrap();
        assert_eq!(devices.of(|_| true).len(), 1);
    }
}
