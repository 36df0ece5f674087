//! An initiator's way to a device: where its commands come in.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cdb::Cdb;
use super::command::{self, Command};
use super::device::{Device, settled};
use super::inquiry;
use super::itl::{Itl, NexusId, Units};
use super::lun::Lun;
use super::medium;
use super::port::Path;
use super::report;
use super::request::Request;
use super::reservations::Access;
use super::response::{Pending, Response, Start, Status};
use super::running::{Fate, Waiting, Working};
use super::sense::{Doing, Format, Sense};
use super::unit::{Kind, Unit};
use crate::block::{self, Answer};

/// One initiator's way to a device (an I_T nexus, SAM-5 §4.7). Unit attentions are kept for each.
pub struct Nexus {
    // Units come and go as long as somebody has a way to the device.
    _device: Arc<Device>,
    reach: Arc<Reach>,
}

/// A command that is still to be started.
#[derive(Default)]
pub struct Enlisted(Option<Waiting>);

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
        let itl = unit.join(self.id, &self.path);
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

    /// A command for `lun` has come. Until it is started it belongs to what a reset aborts.
    pub fn enlist(&self, lun: Option<Lun>) -> Enlisted {
        let units = self.reach.units.load();
        let itl = lun.and_then(|lun| units.get(&lun));
        Enlisted(itl.map(|itl| itl.running.begin().wait()))
    }

    /// Starts a command that has just come. `lun` is nothing where the initiator's address can be no
    /// unit's.
    pub fn start(&self, lun: Option<Lun>, cdb: [u8; 16]) -> Start {
        self.start_enlisted(self.enlist(lun), lun, cdb)
    }

    /// Starts a command that has come before.
    pub fn start_enlisted(&self, enlisted: Enlisted, lun: Option<Lun>, cdb: [u8; 16]) -> Start {
        let cdb = Cdb::new(cdb);
        let units = self.reach.units.load();
        let Some(itl) = lun.and_then(|lun| units.get(&lun)) else {
            return without_unit(&units, &cdb).into();
        };
        // From here on a reset waits for this command: whatever is looked at below still holds when
        // the command reaches the disk.
        let resumed = enlisted.0.map(Waiting::resume).transpose();
        let working = match resumed.map(|w| w.unwrap_or_else(|| itl.running.begin())) {
            Ok(working) if working.fate() != Fate::Removed => working,
            Ok(_) | Err(Fate::Removed) => return without_unit(&units, &cdb).into(),
            Err(fate) => return in_format(itl, Response::aborted(fate)).into(),
        };
        let request = Request {
            unit: &itl.unit,
            itl,
            units: &units,
            cdb,
            kinds: itl.unit.kinds,
        };
        match start_on(&request) {
            Ok((command, start)) => watched(command, itl, working, start),
            Err(response) => in_format(itl, response).into(),
        }
    }

    /// Aborts the commands of every initiator on the units that `reset` names, and tells them: of a
    /// reset every one (SAM-5 §6.3.3), of cleared commands the others (SAM-5 §7.4).
    /// Resolves when none of those commands works on the units any more. The initiator that asked
    /// drops the answers of its own commands itself.
    pub fn reset(&self, reset: Reset) -> impl Future<Output = ()> + Send + 'static {
        let units = self.reach.units.load();
        let by = self.reach.id;
        let aborted = match reset {
            Reset::Unit(lun) => units.get(&lun).map(|itl| itl.unit.reset(by)),
            Reset::Commands(lun) => units.get(&lun).map(|itl| itl.unit.clear(by)),
            Reset::Device => Some(units.values().flat_map(|itl| itl.unit.reset(by)).collect()),
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

    /// The session behind this nexus is over (I_T nexus loss, SAM-5 §6.3.4): what it held by RESERVE is
    /// free. The same happens when the nexus is dropped, which may be later.
    pub fn lost(&self) {
        for itl in self.reach.units.load().values() {
            itl.unit.reservations.nexus_lost(itl.nexus);
        }
    }

    /// Whether there is such a unit.
    pub fn has(&self, lun: Option<Lun>) -> bool {
        lun.is_some_and(|lun| self.reach.units.load().contains_key(&lun))
    }
}

/// Starts a command at a unit that is there, unless something stands in its way (SAM-5 §5.3.3 has the
/// order: unit attentions, then reservations, then what is wrong with the command itself).
fn start_on(request: &Request<'_>) -> Result<(&'static Command, Start), Response> {
    let Request {
        cdb, kinds, itl, ..
    } = request;
    // SAM-5 §5.14: these three go on in spite of a unit attention, and leave it pending.
    let passes = matches!(
        cdb.opcode(),
        command::INQUIRY | command::REPORT_LUNS | command::REQUEST_SENSE
    );
    if !passes {
        if let Some(sense) = request.take_attention() {
            return Err(sense.into());
        }
        if request.unit.reservations.are_lost() {
            return Err(Sense::MANUAL_INTERVENTION.into());
        }
    }
    // NACA: there is no auto contingent allegiance here (SAM-5 §5.2).
    if cdb.control() & 0x04 != 0 {
        return Err(Sense::INVALID_FIELD.at(cdb.control_at()).bit(2).into());
    }
    let command = command::find(cdb, *kinds)?;
    if !request.unit.reservations.allow(itl, command.access.of(cdb)) {
        return Err(Response::conflict());
    }
    if command.access == Access::Write && request.unit.settings.protected() {
        return Err(Sense::SOFTWARE_PROTECTED.into());
    }
    request.unit.sanitation.admits(cdb)?;
    Ok((command, (command.run)(request)?))
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
fn watched(command: &Command, itl: &Arc<Itl>, working: Working, start: Start) -> Start {
    // Those that deal with reservations abort others and wait for their end: two that wait for each
    // other would wait for ever. A reset does not undo what they have done, and need not wait for them.
    let working = (command.access != Access::Own).then_some(working);
    let writes = command.access == Access::Write;
    let itl = itl.clone();
    match start {
        Start::Done(answer) => Start::Done(watched_answer(itl, working, writes, answer)),
        Start::Data(pending) if pending.is_detached() => {
            Start::Data(detached(itl, working, pending))
        }
        Start::Data(pending) => {
            let waiting = working.map(|working| working.wait());
            Start::Data(pending.wrap(
                move |run, data| match waiting.map(Waiting::resume).transpose() {
                    Ok(working) => watched_answer(itl, working, writes, run(data)),
                    Err(fate) => Answer::Now(in_format(&itl, Response::aborted(fate))),
                },
            ))
        }
    }
}

/// A command whose work goes on without it: whoever resets the unit does not wait for its end, and it
/// is silent afterwards.
fn detached(itl: Arc<Itl>, working: Option<Working>, pending: Pending) -> Pending {
    let waiting = working.map(|working| working.wait());
    pending.wrap(move |run, data| {
        let waiting = match waiting.map(Waiting::resume).transpose() {
            Ok(working) => working.map(|working| working.wait()),
            Err(fate) => return Answer::Now(in_format(&itl, Response::aborted(fate))),
        };
        run(data).map(
            move |response| match waiting.map(Waiting::resume).transpose() {
                Ok(_) | Err(Fate::Removed | Fate::Reopened | Fate::Wiped) => {
                    in_format(&itl, response)
                }
                Err(fate) => Response::aborted(fate),
            },
        )
    })
}

fn watched_answer(
    itl: Arc<Itl>,
    working: Option<Working>,
    writes: bool,
    answer: Answer<Response>,
) -> Answer<Response> {
    // Without a write cache (WCE is 0), what was written is durable before it is told. Whether there is
    // one is looked at when the command is done: it may have waited for its data for long.
    let flush = move |itl: &Itl, response: &Response| {
        writes && response.status == Status::Good && itl.unit.settings.write_through()
    };
    let answer = match answer {
        Answer::Now(response) if !flush(&itl, &response) => {
            return Answer::Now(in_format(&itl, response));
        }
        answer => answer,
    };
    Answer::Later(Box::pin(async move {
        let mut response = answer.wait().await;
        if flush(&itl, &response)
            && let Kind::Disk(disk) = &itl.unit.kind
            && let Err(error) = disk.flush().wait().await
        {
            response = Sense::from_disk(&error, Doing::Writing).into();
        }
        match working.as_ref().map(Working::fate) {
            // The disk has done it, even if it has left the device meanwhile.
            None | Some(Fate::Alive | Fate::Removed | Fate::Reopened | Fate::Wiped) => {
                in_format(&itl, response)
            }
            Some(fate @ (Fate::Aborted | Fate::Told)) => Response::aborted(fate),
        }
    }))
}

/// The same, with sense data in the format that D_SENSE says.
fn in_format(itl: &Itl, response: Response) -> Response {
    match response.sense {
        Some(sense) if itl.unit.settings.descriptor_sense() => Response {
            sense: Some(sense.in_format(Format::Descriptor)),
            ..response
        },
        _ => response,
    }
}
