//! The one table of commands.

use std::sync::Arc;

use super::cdb::Cdb;
use super::itl::Itl;
use super::nexus::Units;
use super::reservations::{Access, change, legacy, read};
use super::response::Start;
use super::sense::Sense;
use super::unit::{Kind, Options, Unit};
use super::{
    alua, atomic, cache, copy, inquiry, log, mapping, medium, mode, opcodes, provisioning, report,
    sanitize, verify,
};

pub(super) const REQUEST_SENSE: u8 = 0x03;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const REPORT_LUNS: u8 = 0xa0;

/// A command on its way: the unit it is for, and its block.
pub(super) struct Request<'a> {
    pub(super) unit: &'a Arc<Unit>,
    pub(super) kinds: Kinds,
    /// What the unit keeps for the initiator.
    pub(super) itl: &'a Arc<Itl>,
    /// All units that the initiator gets to.
    pub(super) units: &'a Units,
    pub(super) cdb: Cdb,
}

impl Request<'_> {
    /// Takes the oldest unit attention, to be told.
    pub(super) fn take_attention(&self) -> Option<Sense> {
        let sense = self.itl.attentions.take()?;
        if sense == Sense::LUNS_CHANGED {
            // LUICLR (SPC-4 §7.8.7): told by one unit, it is told for all.
            for itl in self.units.values() {
                itl.attentions.withdraw(sense);
            }
        }
        Some(sense)
    }
}

/// A command that is supported.
pub(super) struct Command {
    pub(super) opcode: u8,
    pub(super) service_action: Option<u8>,
    /// The units that have it.
    kinds: Kinds,
    /// What reservations of others it goes through.
    pub(super) access: Access,
    /// CDB USAGE DATA (SPC-4 §6.27.3): the bits of the command block that are looked at.
    pub(super) usage: &'static [u8],
    pub(super) run: fn(&Request<'_>) -> Result<Start, Sense>,
}

/// Kinds of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    const DISK: Kinds = Kinds(1);
    const CONTROLLER: Kinds = Kinds(2);
    /// Every unit is a disk or a controller.
    const ALL: Kinds = Kinds(3);
    /// Disks that give space back.
    const THIN: Kinds = Kinds(4);
    /// Disks that write as a whole or not at all.
    const ATOMIC: Kinds = Kinds(8);
    /// Disks that may be wiped.
    const SANITIZED: Kinds = Kinds(16);

    pub(super) fn may_be_sanitized(self) -> bool {
        self.0 & Kinds::SANITIZED.0 != 0
    }

    /// Those that a unit belongs to.
    pub(super) fn of(kind: &Kind, options: &Options) -> Kinds {
        let Kind::Disk(disk) = kind else {
            return Kinds::CONTROLLER;
        };
        let geometry = disk.geometry();
        let writable = !geometry.read_only;
        let with = |kinds: Kinds, there: bool| if there { kinds.0 } else { 0 };
        Kinds(
            Kinds::DISK.0
                // A disk that is read-only says so to an UNMAP, like to any other change.
                | with(Kinds::THIN, geometry.thin || !writable)
                | with(Kinds::ATOMIC, geometry.atomic > 0)
                | with(Kinds::SANITIZED, options.sanitize && writable),
        )
    }
}

/// The command that a block asks for, among those that a kind of unit has.
///
/// # Errors
/// When there is no such opcode, or it has no such service action (SPC-4 §4.3.4, §4.3.5).
pub(super) fn find(cdb: &Cdb, kinds: Kinds) -> Result<&'static Command, Sense> {
    let mut unknown = Sense::INVALID_OPCODE.at(0);
    for command in supported(kinds).filter(|command| command.opcode == cdb.opcode()) {
        match command.service_action {
            Some(action) if action != cdb.service_action() => {
                unknown = Sense::INVALID_FIELD.at(1).bit(4);
            }
            _ => return Ok(command),
        }
    }
    Err(unknown)
}

/// The commands that a kind of unit has.
pub(super) fn supported(kinds: Kinds) -> impl Iterator<Item = &'static Command> {
    TABLE.iter().filter(move |c| c.kinds.0 & kinds.0 != 0)
}

const fn all(
    opcode: u8,
    usage: &'static [u8],
    run: fn(&Request<'_>) -> Result<Start, Sense>,
) -> Command {
    Command {
        opcode,
        service_action: None,
        kinds: Kinds::ALL,
        access: Access::Control,
        usage,
        run,
    }
}

const fn disk(
    opcode: u8,
    usage: &'static [u8],
    run: fn(&Request<'_>) -> Result<Start, Sense>,
) -> Command {
    Command {
        kinds: Kinds::DISK,
        ..all(opcode, usage, run)
    }
}

const fn only(kinds: Kinds, command: Command) -> Command {
    Command { kinds, ..command }
}

const fn action(service_action: u8, command: Command) -> Command {
    Command {
        service_action: Some(service_action),
        ..command
    }
}

/// A command that goes through more than those do that change something, which is the default.
const fn access(access: Access, command: Command) -> Command {
    Command { access, ..command }
}

const fn always(command: Command) -> Command {
    access(Access::Always, command)
}

const fn looks(command: Command) -> Command {
    access(Access::Read, command)
}

const fn writes(command: Command) -> Command {
    access(Access::Write, command)
}

const fn reserves(command: Command) -> Command {
    access(Access::Own, command)
}

/// START STOP UNIT that starts, without a power condition (SBC-3 §4.17).
const STARTS: Access = Access::Unless {
    byte: 4,
    mask: 0xf1,
    value: 0x01,
};
/// PREVENT ALLOW MEDIUM REMOVAL that allows (SPC-4 §5.13.1).
const ALLOWS: Access = Access::Unless {
    byte: 4,
    mask: 0x03,
    value: 0,
};

/// Every command, by opcode. The CONTROL byte counts for its NACA bit only, which is not supported.
#[rustfmt::skip]
static TABLE: &[Command] = &[
    access(Access::Persistent, all(0x00, &[0x00, 0, 0, 0, 0, 0], report::ready)),
    always(all(REQUEST_SENSE, &[0x03, 0x01, 0, 0, 0xff, 0], report::request_sense)),
    looks(disk(0x08, &[0x08, 0x1f, 0xff, 0xff, 0xff, 0], medium::read)),
    writes(disk(0x0a, &[0x0a, 0x1f, 0xff, 0xff, 0xff, 0], medium::write)),
    always(all(INQUIRY, &[0x12, 0x01, 0xff, 0xff, 0xff, 0], inquiry::inquiry)),
    all(0x15, &[0x15, 0x13, 0, 0, 0xff, 0], mode::select_6),
    reserves(disk(0x16, &[0x16, 0x11, 0, 0, 0, 0], legacy::reserve)),
    reserves(disk(0x17, &[0x17, 0x11, 0, 0, 0, 0], legacy::release)),
    looks(all(0x1a, &[0x1a, 0x08, 0xff, 0xff, 0xff, 0], mode::sense_6)),
    access(STARTS, disk(0x1b, &[0x1b, 0x01, 0, 0x0f, 0xf7, 0], report::start_stop)),
    access(ALLOWS, disk(0x1e, &[0x1e, 0, 0, 0, 0x03, 0], report::prevent_allow)),
    always(disk(0x25, &[0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0], report::capacity_10)),
    looks(disk(0x28, &[0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], medium::read)),
    writes(disk(0x2a, &[0x2a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], medium::write)),
    writes(disk(0x2e, &[0x2e, 0xf6, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], verify::write_and_verify)),
    looks(disk(0x2f, &[0x2f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], verify::verify)),
    looks(disk(0x34, &[0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], cache::prefetch)),
    disk(0x35, &[0x35, 0x02, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], cache::synchronize),
    looks(disk(0x37, &[0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0], mapping::defects_10)),
    writes(disk(0x41, &[0x41, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0], provisioning::write_same)),
    writes(only(Kinds::THIN, disk(0x42, &[0x42, 0x01, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0], provisioning::unmap))),
    action(0x01, writes(only(Kinds::SANITIZED, disk(0x48, &[0x48, 0xa1, 0, 0, 0, 0, 0, 0xff, 0xff, 0], sanitize::overwrite)))),
    action(0x02, writes(only(Kinds::SANITIZED, disk(0x48, &[0x48, 0xa2, 0, 0, 0, 0, 0, 0xff, 0xff, 0], sanitize::block_erase)))),
    action(0x1f, writes(only(Kinds::SANITIZED, disk(0x48, &[0x48, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0], sanitize::exit_failure_mode)))),
    always(all(0x4d, &[0x4d, 0x01, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0], log::sense)),
    all(0x55, &[0x55, 0x13, 0, 0, 0, 0, 0, 0xff, 0xff, 0], mode::select_10),
    reserves(disk(0x56, &[0x56, 0x13, 0, 0, 0, 0, 0, 0, 0, 0], legacy::reserve)),
    reserves(disk(0x57, &[0x57, 0x13, 0, 0, 0, 0, 0, 0, 0, 0], legacy::release)),
    looks(all(0x5a, &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], mode::sense_10)),
    action(0x00, reserves(disk(0x5e, &[0x5e, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0], read::keys))),
    action(0x01, reserves(disk(0x5e, &[0x5e, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0], read::reservation))),
    action(0x02, reserves(disk(0x5e, &[0x5e, 0x02, 0, 0, 0, 0, 0, 0xff, 0xff, 0], read::capabilities))),
    action(0x03, reserves(disk(0x5e, &[0x5e, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0], read::full_status))),
    action(change::REGISTER, reserves(disk(0x5f, &[0x5f, 0x00, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::RESERVE, reserves(disk(0x5f, &[0x5f, 0x01, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::RELEASE, reserves(disk(0x5f, &[0x5f, 0x02, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::CLEAR, reserves(disk(0x5f, &[0x5f, 0x03, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::PREEMPT, reserves(disk(0x5f, &[0x5f, 0x04, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::PREEMPT_AND_ABORT, reserves(disk(0x5f, &[0x5f, 0x05, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::REGISTER_AND_IGNORE, reserves(disk(0x5f, &[0x5f, 0x06, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(change::REGISTER_AND_MOVE, reserves(disk(0x5f, &[0x5f, 0x07, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], change::change))),
    action(0x00, disk(0x83, &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], copy::extended_copy)),
    always(action(0x00, disk(0x84, &[0x84, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], copy::status))),
    always(action(0x03, disk(0x84, &[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], copy::operating_parameters))),
    always(action(0x04, disk(0x84, &[0x84, 0x04, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], copy::failure))),
    looks(disk(0x88, &[0x88, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], medium::read)),
    writes(disk(0x89, &[0x89, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x1f, 0], atomic::compare_and_write)),
    writes(disk(0x8a, &[0x8a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], medium::write)),
    writes(disk(0x8b, &[0x8b, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], atomic::or_write)),
    writes(disk(0x8e, &[0x8e, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], verify::write_and_verify)),
    looks(disk(0x8f, &[0x8f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], verify::verify)),
    looks(disk(0x90, &[0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], cache::prefetch)),
    disk(0x91, &[0x91, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], cache::synchronize),
    writes(disk(0x93, &[0x93, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], provisioning::write_same)),
    writes(only(Kinds::ATOMIC, disk(0x9c, &[0x9c, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0x1f, 0], atomic::write_atomic))),
    always(action(0x10, disk(0x9e, &[0x9e, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0], report::capacity_16))),
    looks(action(0x12, disk(0x9e, &[0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], mapping::lba_status))),
    always(all(REPORT_LUNS, &[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], report::report_luns)),
    access(Access::Persistent, action(0x0a, all(0xa3, &[0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], alua::report))),
    looks(action(0x0c, all(0xa3, &[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], opcodes::supported_opcodes))),
    looks(action(0x0d, all(0xa3, &[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], opcodes::task_management))),
    action(0x0a, all(0xa4, &[0xa4, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], alua::set)),
    looks(disk(0xa8, &[0xa8, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], medium::read)),
    writes(disk(0xaa, &[0xaa, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], medium::write)),
    writes(disk(0xae, &[0xae, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], verify::write_and_verify)),
    looks(disk(0xaf, &[0xaf, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], verify::verify)),
    looks(disk(0xb7, &[0xb7, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], mapping::defects_12)),
];
