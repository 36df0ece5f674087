//! Asymmetric logical unit access (SPC-4 §5.15, §6.37, §6.45).
//!
//! All portals are one target port in one target port group, which gets to each unit as well as can be.
//! An application may call it active/non-optimized, so that a multipath host prefers another server;
//! commands are done all the same. States in which a unit could not be used are not offered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::port::RELATIVE_PORT;
use super::request::Request;
use super::response::{Pending, Response, Start};
use super::sense::Sense;
use crate::block::Answer;

/// The one target port group.
pub(super) const GROUP: u16 = 1;
/// TPGS in INQUIRY data (SPC-4 §6.6.2): SET TARGET PORT GROUPS changes states, and nothing else does.
pub(super) const TPGS: u8 = 0x20;

/// ASYMMETRIC ACCESS STATEs that there are (SPC-4 §6.37).
const OPTIMIZED: u8 = 0;
const NON_OPTIMIZED: u8 = 1;
/// AN_SUP and AO_SUP.
const SUPPORTED: u8 = 0x03;
/// STATUS CODE: somebody has set the state.
const SET_BY_COMMAND: u8 = 1;

const HEADER_LEN: usize = 4;
const DESCRIPTOR_LEN: usize = 4;
/// Most bytes of a parameter list, far more than there are groups.
const MAX_LEN: u32 = 1024;

/// How a unit is reached, as the group's state says.
#[derive(Default)]
pub(super) struct AccessState {
    state: AtomicU8,
    status: AtomicU8,
}

/// REPORT TARGET PORT GROUPS.
pub(super) fn report(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    // PARAMETER DATA FORMAT: length only, or the extended header.
    let header: &[u8] = match cdb.byte(1) >> 5 {
        0 => &[],
        // Its format, and no time that a transition of its own would take.
        1 => &[0x10, 0, 0, 0],
        _ => return Err(Sense::INVALID_FIELD.at(1).bit(7)),
    };
    let access = &request.unit.access_state;
    let state = access.state.load(Ordering::Acquire);
    let status = access.status.load(Ordering::Acquire);
    let mut body = header.to_vec();
    body.extend([state, SUPPORTED]);
    body.extend(GROUP.to_be_bytes());
    // One target port.
    body.extend([0, status, 0, 1, 0, 0]);
    body.extend(RELATIVE_PORT.to_be_bytes());
    let mut data = (body.len() as u32).to_be_bytes().to_vec();
    data.extend(body);
    Ok(Response::cut(data, cdb.be32(6) as usize).into())
}

/// SET TARGET PORT GROUPS.
pub(super) fn set(request: &Request<'_>) -> Result<Start, Sense> {
    let len = request.cdb.be32(6);
    if len == 0 {
        return Ok(Response::good().into());
    }
    let descriptors = (len as usize).checked_sub(HEADER_LEN);
    if len > MAX_LEN || !descriptors.is_some_and(|len| len.is_multiple_of(DESCRIPTOR_LEN)) {
        return Err(Sense::PARAMETER_LENGTH.at(6));
    }
    let itl = Arc::clone(request.itl);
    Ok(Start::Data(Pending::new(len.into(), move |data| {
        let list = data.concat();
        if list.len() < len as usize {
            return Answer::Now(Sense::PARAMETER_LENGTH.into());
        }
        let wanted = match wanted(&list) {
            Ok(wanted) => wanted,
            Err(sense) => return Answer::Now(sense.into()),
        };
        if let Some(state) = wanted {
            let access = &itl.unit.access_state;
            let old = access.state.swap(state, Ordering::AcqRel);
            access.status.store(SET_BY_COMMAND, Ordering::Release);
            if old != state {
                itl.unit
                    .tell(Sense::ACCESS_CHANGED, |other| other.nexus != itl.nexus);
            }
        }
        Answer::Now(Response::good())
    })))
}

/// The state that a parameter list gives the group, the whole list checked.
fn wanted(list: &[u8]) -> Result<Option<u8>, Sense> {
    let mut state = None;
    let descriptors = list.get(HEADER_LEN..).unwrap_or_default();
    for (i, descriptor) in descriptors.chunks_exact(DESCRIPTOR_LEN).enumerate() {
        let at = (HEADER_LEN + i * DESCRIPTOR_LEN) as u16;
        let [wanted, _, g0, g1] = *descriptor else {
            return Err(Sense::PARAMETER_LENGTH);
        };
        if u16::from_be_bytes([g0, g1]) != GROUP {
            return Err(Sense::INVALID_PARAMETER.in_parameter(at + 2));
        }
        match wanted & 0x0f {
            wanted @ (OPTIMIZED | NON_OPTIMIZED) => state = Some(wanted),
            _ => return Err(Sense::INVALID_PARAMETER.in_parameter(at).bit(3)),
        }
    }
    Ok(state)
}
