//! What stands behind a LUN: a command block in, data and status out.
//!
//! This floor knows no socket and no transport. A [`Device`] holds logical units; a [`Nexus`] is one
//! initiator's way to it, with its own unit attentions. `command::TABLE` maps each opcode to the one
//! function that does it; what is not in the table is ILLEGAL REQUEST. The standards are SAM-5, SPC-4
//! and SBC-3.
//!
//! - The way of a command: `lun`, `port`, `cdb` (what it says); `nexus` (what stands in its way, and what
//!   follows it); `command` (the table) with `kinds`; `request` (what each function is given);
//!   `response`, `sense` (how it ends)
//! - What it meets: `device`, `unit`, `itl` (what a unit keeps for one initiator), `attention`, `running`
//!   (who aborts what), `exclusion` (who works on which blocks)
//! - On blocks: `medium` (read, write, and what all share), `verify`, `atomic`, `provisioning`, `mapping`,
//!   `cache`, `copy`, `sanitize`
//! - About the unit: `inquiry` with `limits`, `report`, `opcodes`, `mode`, `log`, `alua`, `reservations`

pub use self::device::{Device, UnitInfo};
pub use self::lun::Lun;
pub use self::medium::MAX_TRANSFER;
pub use self::nexus::{Enlisted, Nexus, Reset};
pub use self::port::{Path, TargetPort, TransportId};
pub use self::response::{Pending, Response, Start, Status, Stop};
pub use self::sense::Sense;
pub use self::unit::{Options, ReservationStore};

mod alua;
mod atomic;
mod attention;
mod cache;
mod cdb;
mod command;
mod copy;
mod device;
mod exclusion;
mod inquiry;
mod itl;
mod kinds;
mod limits;
mod log;
mod lun;
mod mapping;
mod medium;
mod mode;
mod nexus;
mod opcodes;
mod port;
mod provisioning;
mod report;
mod request;
mod reservations;
mod response;
mod running;
mod sanitize;
mod sense;
#[cfg(test)]
mod tests;
mod unit;
mod verify;
