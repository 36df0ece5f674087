//! RESERVE and RELEASE (SPC-2 §7.17, §7.21), beside persistent reservations as SPC-4 §5.13.3 has it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Reservations;
use super::state::State;
use crate::block::Answer;
use crate::scsi::itl::Itl;
use crate::scsi::request::Request;
use crate::scsi::response::{Response, Start};
use crate::scsi::sense::Sense;

/// RESERVE(6), RESERVE(10).
pub(in crate::scsi) fn reserve(request: &Request<'_>) -> Result<Start, Sense> {
    in_turn(request, Reservations::reserve)
}

/// RELEASE(6), RELEASE(10).
pub(in crate::scsi) fn release(request: &Request<'_>) -> Result<Start, Sense> {
    in_turn(request, Reservations::release)
}

/// Does it when no change of persistent reservations is under way.
fn in_turn(
    request: &Request<'_>,
    act: fn(&Reservations, &Itl) -> Response,
) -> Result<Start, Sense> {
    // For somebody else (3RDPTY), by a long identifier, or of a part of the unit: obsolete.
    for bit in [4, 1, 0] {
        if request.cdb.bit(1, 1 << bit) {
            return Err(Sense::INVALID_FIELD.at(1).bit(bit));
        }
    }
    if let Ok(_turn) = request.unit.reservations.turn.try_lock() {
        return Ok(act(&request.unit.reservations, request.itl).into());
    }
    let itl = Arc::clone(request.itl);
    Ok(Start::Done(Answer::Later(Box::pin(async move {
        let reservations = &itl.unit.reservations;
        let _turn = reservations.turn.lock().await;
        act(reservations, &itl)
    }))))
}

impl Reservations {
    fn reserve(&self, itl: &Itl) -> Response {
        if let Some(response) = beside(&self.state.load(), itl) {
            return response;
        }
        let mine = itl.nexus.0;
        let taken = self
            .legacy
            .compare_exchange(0, mine, Ordering::SeqCst, Ordering::SeqCst);
        match taken {
            Ok(_) => Response::good(),
            Err(holder) if holder == mine => Response::good(),
            Err(_) => Response::conflict(),
        }
    }

    /// A RELEASE of somebody else's reservation changes nothing, and is no error (SPC-2 §7.17.1).
    fn release(&self, itl: &Itl) -> Response {
        if let Some(response) = beside(&self.state.load(), itl) {
            return response;
        }
        self.nexus_lost(itl.nexus);
        Response::good()
    }
}

/// Where there are registrations, both change nothing (SPC-4 §5.13.3, CRH): those who may use the unit
/// are told that they have it, and all others that they have not.
fn beside(state: &State, itl: &Itl) -> Option<Response> {
    if state.registrations.is_empty() {
        return None;
    }
    let registrants = state
        .reservation
        .as_ref()
        .is_some_and(|reservation| reservation.kind.is_for_registrants());
    let may =
        state.is_holder(&itl.registrant) || registrants && state.is_registered(&itl.registrant);
    Some(if may {
        Response::good()
    } else {
        Response::conflict()
    })
}
