//! A device: its logical units, and the initiators that have a way to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::itl::NexusId;
use super::lun::Lun;
use super::nexus::{Nexus, Reach};
use super::port::Path;
use super::running::Aborted;
use super::sense::Sense;
use super::unit::{Identity, Kind, Options, Unit};
use crate::block::{Disk, Geometry};

/// What a target presents: a storage array controller at LUN 0, and disks.
///
/// Disks come, grow and go while initiators work with the others. Persistent reservations live as long
/// as the device does, unless [`Options::reservations`] keeps them: whoever publishes a disk that hosts
/// share holds its device, whether a session is there or not.
pub struct Device {
    // Held for a change or a look, never across an await. Commands do not take it: each nexus has a
    // map of its own.
    inventory: Mutex<Inventory>,
}

struct Inventory {
    units: BTreeMap<Lun, Arc<Unit>>,
    nexuses: Vec<Weak<Reach>>,
    next_nexus: u64,
}

/// One logical unit, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitInfo {
    /// Its number.
    pub lun: Lun,
    /// Its serial number, the same in hexadecimal as its NAA designator.
    pub serial: String,
    /// The shape of the disk; nothing for a controller.
    pub disk: Option<Geometry>,
}

impl Device {
    /// A device without disks. `name` is stable and unique; its units derive their identity from it.
    pub fn new(name: &str) -> Self {
        let controller = Unit::new(Kind::Controller, name, Options::default());
        Device {
            inventory: Mutex::new(Inventory {
                units: BTreeMap::from([(Lun::ZERO, Arc::new(controller))]),
                nexuses: Vec::new(),
                next_nexus: 1,
            }),
        }
    }

    /// The same device with a disk at `lun`, as [`add_disk`](Self::add_disk) adds it.
    pub fn with_disk(
        self,
        lun: Lun,
        identity: &str,
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> Self {
        drop(self.add_disk(lun, identity, disk, options));
        self
    }

    /// Puts a disk at `lun`, in the place of what stood there, and tells every initiator that the units
    /// are others than before (SPC-4 §6.33). `identity` is a stable name of the disk, unique among all
    /// disks that an initiator may see: the serial number and the designators are derived from it. Where
    /// the same disk stood there before, its reservations and a sanitization that is under way stay.
    ///
    /// Reads what [`Options::reservations`] has kept, and may block for it. The result resolves as
    /// that of [`remove`](Self::remove) does.
    pub fn add_disk(
        &self,
        lun: Lun,
        identity: &str,
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> impl Future<Output = ()> + Send + 'static {
        let same = Identity::from_name(identity);
        let is_same = |old: &&Arc<Unit>| old.identity == same;
        // Before the lock, as it may block, and only if there is none to take over from.
        let known = self.lock().units.get(&lun).filter(is_same).cloned();
        let unit = Arc::new(match known {
            Some(old) => Unit::succeeding(disk, &options, &old),
            None => Unit::new(Kind::Disk(disk), identity, options),
        });
        let mut inventory = self.lock();
        let old = inventory.units.insert(lun, unit.clone());
        let closed = old.map(|old| old.close(is_same(&&old)));
        let closed = closed.unwrap_or_default();
        for reach in inventory.live() {
            reach.tell_inventory_changed();
            // Later, so that the unit tells of nothing but its own power-on.
            reach.join(lun, &unit);
        }
        settled(closed)
    }

    /// Takes the unit at `lun` away, and tells every initiator that the units are others than before.
    /// A command that works on its disk ends as it would have; one that waits for data, and each that
    /// comes later, finds no such unit. Nothing is at `lun` any more when this returns; the result
    /// resolves when nothing works on the disk.
    pub fn remove(&self, lun: Lun) -> impl Future<Output = ()> + Send + 'static {
        let mut inventory = self.lock();
        let Some(old) = inventory.units.remove(&lun) else {
            return settled(Vec::new());
        };
        // First, while every initiator still holds what its commands are known by.
        let closed = old.close(false);
        for reach in inventory.live() {
            reach.leave(lun);
            reach.tell_inventory_changed();
        }
        settled(closed)
    }

    /// Tells every initiator that the disk at `lun` has another size (SBC-3 §4.7).
    pub fn capacity_changed(&self, lun: Lun) {
        if let Some(unit) = self.lock().units.get(&lun) {
            unit.tell(Sense::CAPACITY_CHANGED, |_| true);
        }
    }

    /// What there is.
    pub fn units(&self) -> Vec<UnitInfo> {
        let info = |(lun, unit): (&Lun, &Arc<Unit>)| UnitInfo {
            lun: *lun,
            serial: unit.identity.serial.clone(),
            disk: match &unit.kind {
                Kind::Disk(disk) => Some(disk.geometry()),
                Kind::Controller => None,
            },
        };
        self.lock().units.iter().map(info).collect()
    }

    /// A nexus: `path` to the device, for one more initiator.
    pub fn connect(self: &Arc<Self>, path: Path) -> Nexus {
        let mut inventory = self.lock();
        let id = NexusId(inventory.next_nexus);
        inventory.next_nexus += 1;
        let reach = Arc::new(Reach::new(id, path));
        for (lun, unit) in &inventory.units {
            reach.join(*lun, unit);
        }
        inventory.nexuses.push(Arc::downgrade(&reach));
        Nexus::new(self.clone(), reach)
    }

    fn lock(&self) -> MutexGuard<'_, Inventory> {
        self.inventory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inventory {
    /// The initiators that are there, and forgets the others.
    fn live(&mut self) -> Vec<Arc<Reach>> {
        self.nexuses.retain(|nexus| nexus.strong_count() > 0);
        self.nexuses.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Resolves when none of those commands works any more.
pub(super) async fn settled(aborted: Vec<Aborted>) {
    for aborted in aborted {
        aborted.settled().await;
    }
}
