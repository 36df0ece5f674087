//! An initiator's way to a device: where its commands come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cdb::Cdb;
use super::command::{self, Request};
use super::device::{Device, settled};
use super::inquiry;
use super::itl::{Itl, NexusId};
use super::lun::Lun;
use super::medium;
use super::port::Path;
use super::report;
use super::response::{Response, Start};
use super::running::{Fate, Working};
use super::sense::Sense;
use super::unit::{Kind, Unit};
use crate::block::{self, Answer};

/// One initiator's way to a device (an I_T nexus, SAM-5 §4.7). Unit attentions are kept for each.
pub struct Nexus {
    // Units come and go as long as somebody has a way to the device.
    _device: Arc<Device>,
    reach: Arc<Reach>,
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

/// The units that an initiator gets to.
pub(super) type Units = BTreeMap<Lun, Arc<Itl>>;

/// The part of a nexus that its device knows.
pub(super) struct Reach {
    id: NexusId,
    path: Arc<Path>,
    units: ArcSwap<Units>,
}

impl Reach {
    pub(super) fn new(id: NexusId, path: Path) -> Self {
        Reach {
            id,
            path: Arc::new(path),
            units: ArcSwap::default(),
        }
    }

    /// There is a unit at `lun` from now on. Only the device calls this, with its lock held.
    pub(super) fn join(&self, lun: Lun, unit: &Arc<Unit>) {
        let itl = unit.join(self.id, &self.path, lun);
        let mut units = Units::clone(&self.units.load());
        units.insert(lun, itl);
        self.units.store(Arc::new(units));
    }

    /// There is no unit at `lun` any more. Only the device calls this, with its lock held.
    pub(super) fn leave(&self, lun: Lun) {
        let mut units = Units::clone(&self.units.load());
        units.remove(&lun);
        self.units.store(Arc::new(units));
    }

    /// SPC-4 §6.33: the attention is raised at every unit.
    pub(super) fn tell_inventory_changed(&self) {
        for itl in self.units.load().values() {
            itl.attentions.raise(Sense::LUNS_CHANGED);
        }
    }
}

impl Nexus {
    pub(super) fn new(device: Arc<Device>, reach: Arc<Reach>) -> Self {
        Nexus {
            _device: device,
            reach,
        }
    }

    /// Starts a command. `lun` is nothing where the initiator's address can be no unit's.
    pub fn start(&self, lun: Option<Lun>, cdb: [u8; 16]) -> Start {
        let cdb = Cdb::new(cdb);
        let units = self.reach.units.load();
        let Some(itl) = lun.and_then(|lun| units.get(&lun)) else {
            return without_unit(&units, &cdb).into();
        };
        // From here on a reset waits for this command: whatever is looked at below still holds when
        // the command reaches the disk.
        let working = itl.running.begin();
        if working.fate() == Fate::Removed {
            return without_unit(&units, &cdb).into();
        }
        let request = Request {
            unit: &itl.unit,
            itl,
            units: &units,
            cdb,
            kinds: itl.unit.kinds,
        };
        match start_on(&request) {
            Ok(start) => watched(working, start),
            Err(sense) => Response::from(sense).into(),
        }
    }

    /// Aborts the commands of every initiator on the units that `reset` names, and tells them: of a
    /// reset every one (SAM-5 §6.3.3), of cleared commands the others (SAM-5 §7.4).
    /// Resolves when none of those commands works on the units any more. The initiator that asked
    /// drops the answers of its own commands itself.
    pub fn reset(&self, reset: Reset) -> impl Future<Output = ()> + Send + 'static {
        let units = self.reach.units.load();
        let aborted = match reset {
            Reset::Unit(lun) => units.get(&lun).map(|itl| itl.unit.reset()),
            Reset::Commands(lun) => units.get(&lun).map(|itl| itl.unit.clear(self.reach.id)),
            Reset::Device => Some(units.values().flat_map(|itl| itl.unit.reset()).collect()),
        };
        settled(aborted.unwrap_or_default())
    }

    /// Most bytes that a command makes a disk read, whatever its initiator expects of it.
    pub fn reads(&self, lun: Option<Lun>, cdb: [u8; 16]) -> u64 {
        let units = self.reach.units.load();
        let itl = lun.and_then(|lun| units.get(&lun));
        itl.map_or(0, |itl| medium::reads(&itl.unit, &Cdb::new(cdb)))
    }

    /// Makes durable what was written to the disks; gives those that failed.
    pub async fn flush(&self) -> Vec<(Lun, block::Error)> {
        let units = self.reach.units.load_full();
        let mut failed = Vec::new();
        for (lun, itl) in units.iter() {
            if let Kind::Disk(disk) = &itl.unit.kind
                && let Err(error) = disk.flush().wait().await
            {
                failed.push((*lun, error));
            }
        }
        failed
    }

    /// Whether there is such a unit.
    pub fn has(&self, lun: Option<Lun>) -> bool {
        lun.is_some_and(|lun| self.reach.units.load().contains_key(&lun))
    }
}

/// Starts a command at a unit that is there.
fn start_on(request: &Request<'_>) -> Result<Start, Sense> {
    let Request {
        cdb, kinds, itl, ..
    } = request;
    // SAM-5 §5.14: these three go on in spite of a unit attention, and leave it pending.
    let passes = matches!(
        cdb.opcode(),
        command::INQUIRY | command::REPORT_LUNS | command::REQUEST_SENSE
    );
    if !passes && let Some(sense) = itl.attentions.take() {
        return Err(sense);
    }
    let command = command::find(cdb, *kinds)?;
    (command.run)(request)
}

/// Commands for units that are not there (SPC-4 §6.6, SAM-5 §5.14).
fn without_unit(units: &Units, cdb: &Cdb) -> Response {
    match cdb.opcode() {
        command::INQUIRY => inquiry::no_unit(cdb).unwrap_or_else(Response::from),
        command::REPORT_LUNS => report::luns(units, cdb).unwrap_or_else(Response::from),
        command::REQUEST_SENSE => report::sense(cdb, Sense::NO_UNIT),
        _ => Sense::NO_UNIT.into(),
    }
}

/// The same command, waited for by whoever resets its unit, and silent if that happens meanwhile.
fn watched(working: Working, start: Start) -> Start {
    match start {
        Start::Done(answer) => Start::Done(watched_answer(working, answer)),
        Start::Data(pending) => {
            let waiting = working.wait();
            Start::Data(pending.wrap(move |run, data| match waiting.resume() {
                Ok(working) => watched_answer(working, run(data)),
                Err(Fate::Removed) => Answer::Now(Sense::NO_UNIT.into()),
                Err(_) => Answer::Now(Response::aborted()),
            }))
        }
    }
}

fn watched_answer(working: Working, answer: Answer<Response>) -> Answer<Response> {
    let future = match answer {
        Answer::Now(response) => return Answer::Now(response),
        Answer::Later(future) => future,
    };
    Answer::Later(Box::pin(async move {
        let response = future.await;
        match working.fate() {
            // The disk has done it, even if it has left the device meanwhile.
            Fate::Alive | Fate::Removed => response,
            Fate::Aborted => Response::aborted(),
        }
    }))
}
