//! PERSISTENT RESERVE IN (SPC-4 §6.15).

use std::sync::atomic::Ordering;

use super::state::{Kind, State};
use crate::scsi::request::Request;
use crate::scsi::response::{Response, Start};
use crate::scsi::sense::Sense;

/// READ KEYS.
pub(in crate::scsi) fn keys(request: &Request<'_>) -> Result<Start, Sense> {
    answer(request, |state| {
        state
            .registrations
            .values()
            .flat_map(|key| key.to_be_bytes())
            .collect()
    })
}

/// READ RESERVATION.
pub(in crate::scsi) fn reservation(request: &Request<'_>) -> Result<Start, Sense> {
    answer(request, |state| {
        let Some(reservation) = &state.reservation else {
            return Vec::new();
        };
        // One that all registrants hold has no key of its own (§6.15.3.2).
        let key = match reservation.kind.is_held_by_all() {
            true => 0,
            false => state
                .registrations
                .get(&reservation.holder)
                .map_or(0, |k| *k),
        };
        let mut data = key.to_be_bytes().to_vec();
        // SCOPE is 0, the logical unit.
        data.extend([0, 0, 0, 0, 0, reservation.kind as u8, 0, 0]);
        data
    })
}

/// READ FULL STATUS.
pub(in crate::scsi) fn full_status(request: &Request<'_>) -> Result<Start, Sense> {
    answer(request, |state| {
        let mut data = Vec::new();
        for (registrant, key) in &state.registrations {
            let held = state.reservation.as_ref();
            let held = held.filter(|_| state.is_holder(registrant));
            let id = registrant.initiator.as_bytes();
            data.extend(key.to_be_bytes());
            data.extend([0, 0, 0, 0]);
            // R_HOLDER, and SCOPE and TYPE with it.
            data.extend([u8::from(held.is_some()), held.map_or(0, |r| r.kind as u8)]);
            data.extend([0, 0, 0, 0]);
            data.extend(registrant.port.to_be_bytes());
            data.extend((id.len() as u32).to_be_bytes());
            data.extend(id);
        }
        data
    })
}

/// REPORT CAPABILITIES.
pub(in crate::scsi) fn capabilities(request: &Request<'_>) -> Result<Start, Sense> {
    let reservations = &request.unit.reservations;
    if is_reserved(request) {
        return Ok(Response::conflict().into());
    }
    // CRH, SIP_C, ATP_C; PTPL_C where there is a place to keep them.
    let keeps = u8::from(reservations.store.is_some());
    let kept = u8::from(reservations.state.load().kept);
    // TMV; ALLOW COMMANDS 3: TEST UNIT READY goes through all, what looks through those that keep
    // others from writing only, as the table of commands has it.
    let data = [0, 8, 0x1c | keeps, 0xb0 | kept];
    let mask = Kind::ALL
        .into_iter()
        .fold([0, 0], |[first, second], kind| match kind as u8 {
            code @ 0..8 => [first | 1 << code, second],
            code => [first, second | 1 << (code - 8)],
        });
    let mut data = data.to_vec();
    data.extend(mask);
    data.extend([0, 0]);
    let allocation = usize::from(request.cdb.be16(7));
    Ok(Response::cut(data, allocation).into())
}

/// PRGENERATION, ADDITIONAL LENGTH, and what follows them.
fn answer(request: &Request<'_>, list: impl FnOnce(&State) -> Vec<u8>) -> Result<Start, Sense> {
    if is_reserved(request) {
        return Ok(Response::conflict().into());
    }
    let state = request.unit.reservations.state.load();
    let list = list(&state);
    let mut data = state.generation.to_be_bytes().to_vec();
    data.extend((list.len() as u32).to_be_bytes());
    data.extend(list);
    let allocation = usize::from(request.cdb.be16(7));
    Ok(Response::cut(data, allocation).into())
}

/// While a unit is held by RESERVE, there are no persistent reservations for anybody (SPC-2 §5.5.1).
fn is_reserved(request: &Request<'_>) -> bool {
    request.unit.reservations.legacy.load(Ordering::SeqCst) != 0
}
