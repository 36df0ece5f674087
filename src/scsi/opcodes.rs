//! What is supported, told from the table itself (SPC-4 §6.34, §6.35).

use super::command::{self, Command};
use super::request::Request;
use super::response::{Response, Start};
use super::sense::Sense;

/// Length of a command timeouts descriptor.
const TIMEOUTS_LEN: u16 = 12;

/// REPORT SUPPORTED OPERATION CODES.
pub(super) fn supported_opcodes(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let timeouts = cdb.bit(2, 0x80);
    let (opcode, action) = (cdb.byte(3), cdb.be16(4));
    let mut same = command::supported(request.kinds).filter(|c| c.opcode == opcode);
    let wanted = |c: &&Command| c.service_action.map(u16::from) == Some(action);
    let data = match cdb.byte(2) & 0x07 {
        0 => every(request, timeouts),
        // By opcode alone, which must not be one with service actions.
        1 => match same.next() {
            Some(found) if found.service_action.is_some() => {
                return Err(Sense::INVALID_FIELD.at(2));
            }
            found => one(found, timeouts),
        },
        // By both, for an opcode that has service actions.
        2 => {
            let all: Vec<_> = same.collect();
            if all.iter().any(|c| c.service_action.is_none()) {
                return Err(Sense::INVALID_FIELD.at(2));
            }
            one(all.into_iter().find(wanted), timeouts)
        }
        3 => one(
            same.find(|c| match c.service_action {
                Some(known) => u16::from(known) == action,
                None => action == 0,
            }),
            timeouts,
        ),
        _ => return Err(Sense::INVALID_FIELD.at(2)),
    };
    Ok(Response::cut(data, cdb.be32(6) as usize).into())
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
pub(super) fn task_management(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
    let mut data = vec![0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0, 0];
    if cdb.bit(2, 0x80) {
        data = vec![0xda, 0, 0, 12];
        data.resize(16, 0);
    }
    Ok(Response::cut(data, cdb.be32(6) as usize).into())
}

/// All commands (SPC-4 §6.34.2).
fn every(request: &Request<'_>, timeouts: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for command in command::supported(request.kinds) {
        let [a0, a1] = u16::from(command.service_action.unwrap_or(0)).to_be_bytes();
        let servactv = u8::from(command.service_action.is_some());
        let ctdp = if timeouts { 0x02 } else { 0 };
        let [l0, l1] = (command.usage.len() as u16).to_be_bytes();
        list.extend([command.opcode, 0, a0, a1, 0, ctdp | servactv, l0, l1]);
        if timeouts {
            list.extend(no_timeouts());
        }
    }
    let mut data = (list.len() as u32).to_be_bytes().to_vec();
    data.extend(list);
    data
}

/// One command (SPC-4 §6.34.3).
fn one(command: Option<&Command>, timeouts: bool) -> Vec<u8> {
    let Some(command) = command else {
        // SUPPORT: not supported.
        return vec![0, 0x01, 0, 0];
    };
    let ctdp = if timeouts { 0x80 } else { 0 };
    let mut data = vec![0, ctdp | 0x03];
    data.extend((command.usage.len() as u16).to_be_bytes());
    data.extend(command.usage);
    if timeouts {
        data.extend(no_timeouts());
    }
    data
}

/// A command timeouts descriptor that promises nothing.
fn no_timeouts() -> Vec<u8> {
    let mut data = (TIMEOUTS_LEN - 2).to_be_bytes().to_vec();
    data.resize(usize::from(TIMEOUTS_LEN), 0);
    data
}
