//! A device: its logical units, and the initiators that have a way to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::attention::Attentions;
use super::cdb::Cdb;
use super::command::{self, Kinds, Request};
use super::inquiry;
use super::lun::Lun;
use super::medium;
use super::port::Path;
use super::report;
use super::response::{Pending, Response, Start};
use super::sense::Sense;
use super::unit::{Kind, Options, Unit};
use crate::block::{self, Answer, Disk, Geometry};

/// What a target presents: a storage array controller at LUN 0, and disks.
pub struct Device {
    units: BTreeMap<Lun, Arc<Unit>>,
    // Held for a walk over the list, never across an await.
    nexuses: Mutex<Vec<Weak<Attentions>>>,
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

/// One initiator's way to a device. Unit attentions are kept for each.
pub struct Nexus {
    device: Arc<Device>,
    attentions: Arc<Attentions>,
    path: Path,
}

/// What a reset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// One unit, as LOGICAL UNIT RESET does.
    Unit(Lun),
    /// One unit's commands only, as CLEAR TASK SET does.
    Commands(Lun),
    /// All units, as the target resets do.
    Device,
}

impl Device {
    /// A device without disks. `name` is stable and unique; its units derive their identity from it.
    pub fn new(name: &str) -> Self {
        let controller = Unit::new(Kind::Controller, name, Options::default());
        Device {
            units: BTreeMap::from([(Lun::ZERO, Arc::new(controller))]),
            nexuses: Mutex::default(),
        }
    }

    /// The same device with a disk at `lun`, in the place of what stood there. `identity` is a stable
    /// name of the disk, unique among all disks that an initiator may see: the serial number and the
    /// designators are derived from it.
    pub fn with_disk(
        mut self,
        lun: Lun,
        identity: &str,
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> Self {
        let unit = Unit::new(Kind::Disk(disk), identity, options);
        self.units.insert(lun, Arc::new(unit));
        self
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
        self.units.iter().map(info).collect()
    }

    /// A nexus: `path` to the device, for one more initiator.
    pub fn connect(self: &Arc<Self>, path: Path) -> Nexus {
        let attentions = Arc::new(Attentions::new(self.units.keys().copied()));
        let mut nexuses = self.nexuses.lock().unwrap_or_else(PoisonError::into_inner);
        nexuses.retain(|nexus| nexus.strong_count() > 0);
        nexuses.push(Arc::downgrade(&attentions));
        Nexus {
            device: self.clone(),
            attentions,
            path,
        }
    }

    pub(super) fn luns(&self) -> impl Iterator<Item = Lun> {
        self.units.keys().copied()
    }
}

impl Nexus {
    /// Starts a command. `lun` is nothing where the initiator's address can be no unit's.
    pub fn start(&self, lun: Option<Lun>, cdb: [u8; 16]) -> Start {
        let cdb = Cdb::new(cdb);
        match lun.and_then(|lun| Some((lun, self.device.units.get(&lun)?))) {
            Some((lun, unit)) => self.start_on(lun, unit, cdb),
            None => without_unit(&self.device, &cdb).into(),
        }
    }

    /// Aborts the commands of every initiator on the units that `reset` names, and tells them: of a
    /// reset every one (SAM-5 §6.3.3), of cleared commands the others (SAM-5 §7.4).
    /// Resolves when none of those commands works on the units any more. The initiator that asked
    /// drops the answers of its own commands itself.
    pub fn reset(&self, reset: Reset) -> impl Future<Output = ()> + Send + 'static {
        let (only, sense) = match reset {
            Reset::Unit(lun) => (Some(lun), Sense::RESET),
            Reset::Commands(lun) => (Some(lun), Sense::COMMANDS_CLEARED),
            Reset::Device => (None, Sense::RESET),
        };
        let mut settling = Vec::new();
        for (lun, unit) in &self.device.units {
            if only.is_none_or(|only| only == *lun) {
                settling.push(unit.reset());
                self.tell(*lun, sense);
            }
        }
        async move {
            for unit in settling {
                unit.await;
            }
        }
    }

    /// Most bytes that a command makes a disk read, whatever its initiator expects of it.
    pub fn reads(&self, lun: Option<Lun>, cdb: [u8; 16]) -> u64 {
        let unit = lun.and_then(|lun| self.device.units.get(&lun));
        unit.map_or(0, |unit| medium::reads(unit, &Cdb::new(cdb)))
    }

    /// Makes durable what was written to the disks; gives those that failed.
    pub async fn flush(&self) -> Vec<(Lun, block::Error)> {
        let mut failed = Vec::new();
        for (lun, unit) in &self.device.units {
            if let Kind::Disk(disk) = &unit.kind
                && let Err(error) = disk.flush().wait().await
            {
                failed.push((*lun, error));
            }
        }
        failed
    }

    /// Whether there is such a unit.
    pub fn has(&self, lun: Option<Lun>) -> bool {
        lun.is_some_and(|lun| self.device.units.contains_key(&lun))
    }

    fn tell(&self, lun: Lun, sense: Sense) {
        let nexuses = self
            .device
            .nexuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for nexus in nexuses.iter().filter_map(Weak::upgrade) {
            let own = Arc::ptr_eq(&nexus, &self.attentions);
            if !own || sense == Sense::RESET {
                nexus.raise(lun, sense);
            }
        }
    }

    fn start_on(&self, lun: Lun, unit: &Arc<Unit>, cdb: Cdb) -> Start {
        let kinds = match unit.kind {
            Kind::Controller => Kinds::CONTROLLER,
            Kind::Disk(_) => Kinds::DISK,
        };
        let command = command::find(&cdb, kinds);
        // SAM-5 §5.14: these three go on in spite of a unit attention, and leave it pending.
        let passes = matches!(
            cdb.opcode(),
            command::INQUIRY | command::REPORT_LUNS | command::REQUEST_SENSE
        );
        if !passes && let Some(sense) = self.attentions.take(lun) {
            return Response::from(sense).into();
        }
        let Some(command) = command else {
            return Response::from(Sense::INVALID_OPCODE.at(0)).into();
        };
        let request = Request {
            device: &self.device,
            unit,
            cdb,
            kinds,
            attentions: &self.attentions,
            path: &self.path,
            lun,
        };
        match (command.run)(&request) {
            Ok(start) => watched(unit, start),
            Err(sense) => Response::from(sense).into(),
        }
    }
}

/// Commands for units that are not there (SPC-4 §6.6, SAM-5 §5.14).
fn without_unit(device: &Device, cdb: &Cdb) -> Response {
    match cdb.opcode() {
        command::INQUIRY => inquiry::no_unit(cdb).unwrap_or_else(Response::from),
        command::REPORT_LUNS => report::luns(device, cdb).unwrap_or_else(Response::from),
        command::REQUEST_SENSE => report::sense(cdb, Sense::NO_UNIT),
        _ => Sense::NO_UNIT.into(),
    }
}

/// The same command, known to its unit while it works, and silent if the unit is reset meanwhile.
fn watched(unit: &Arc<Unit>, start: Start) -> Start {
    let epoch = unit.epoch();
    match start {
        Start::Done(answer) => Start::Done(watched_answer(unit, epoch, answer)),
        Start::Data(pending) => {
            let unit = unit.clone();
            Start::Data(Pending::new(pending.len(), move |data| {
                if unit.epoch() != epoch {
                    return Answer::Now(Response::aborted());
                }
                watched_answer(&unit, epoch, pending.finish(data))
            }))
        }
    }
}

fn watched_answer(unit: &Arc<Unit>, epoch: u64, answer: Answer<Response>) -> Answer<Response> {
    let future = match answer {
        Answer::Now(response) => return Answer::Now(response),
        Answer::Later(future) => future,
    };
    let (unit, working) = (unit.clone(), unit.working());
    Answer::Later(Box::pin(async move {
        let response = future.await;
        drop(working);
        if unit.epoch() == epoch {
            response
        } else {
            Response::aborted()
        }
    }))
}
