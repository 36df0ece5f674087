//! What of persistent reservations outlives a restart (APTPL, SPC-4 §5.13.5).

use std::io;

use serde::{Deserialize, Serialize};

use super::state::{Kind, Registrant, Reservation, State};
use crate::scsi::port::TransportId;
use crate::scsi::unit::ReservationStore;

/// The only form that there has been so far.
const FORMAT: u32 = 1;

/// What is kept. PRGENERATION is not: it begins anew with the power (SPC-4 §6.15.2).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    registrations: Vec<Entry>,
    /// TYPE, and whose it is among the registrations.
    reservation: Option<(u8, usize)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The TransportID, in hexadecimal.
    initiator: String,
    /// The relative target port.
    port: u16,
    key: u64,
}

/// Reads what the store has kept. May block.
pub(super) fn load(store: &dyn ReservationStore) -> io::Result<State> {
    match store.load()? {
        None => Ok(State::default()),
        Some(bytes) => parse(&bytes),
    }
}

/// The bytes to be kept: those of a state that is not to be kept say that there is nothing.
pub(super) fn emit(state: &State) -> io::Result<Vec<u8>> {
    let kept = match state.kept {
        true => Kept::of(state),
        false => Kept::of(&State::default()),
    };
    Ok(serde_json::to_vec(&kept)?)
}

impl Kept {
    fn of(state: &State) -> Self {
        let registrations = state.registrations.iter();
        let entry = |(registrant, key): (&Registrant, &u64)| Entry {
            initiator: hex(registrant.initiator.as_bytes()),
            port: registrant.port,
            key: *key,
        };
        let reservation = state.reservation.as_ref().and_then(|reservation| {
            let holder = state
                .registrations
                .keys()
                .position(|registrant| *registrant == reservation.holder);
            // Of those that all registrants hold, whoever made it may be gone: any will do.
            let holder = holder.or(reservation.kind.is_held_by_all().then_some(0));
            Some((reservation.kind as u8, holder?))
        });
        Kept {
            format: FORMAT,
            registrations: registrations.map(entry).collect(),
            reservation,
        }
    }
}

/// The state that those bytes say.
pub(super) fn parse(bytes: &[u8]) -> io::Result<State> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let kept: Kept = serde_json::from_slice(bytes)?;
    if kept.format != FORMAT {
        return Err(wrong("reservations were kept by a newer version"));
    }
    let mut state = State::default();
    let mut order = Vec::new();
    for entry in kept.registrations {
        let initiator = unhex(&entry.initiator)
            .and_then(|bytes| TransportId::parse(&bytes))
            .ok_or_else(|| wrong("an initiator port that cannot be"))?;
        let registrant = Registrant {
            initiator,
            port: entry.port,
        };
        state.registrations.insert(registrant.clone(), entry.key);
        order.push(registrant);
    }
    if let Some((kind, holder)) = kept.reservation {
        let kind = Kind::parse(kind).ok_or_else(|| wrong("a reservation of no known type"))?;
        let holder = order
            .get(holder)
            .cloned()
            .ok_or_else(|| wrong("a reservation that nobody holds"))?;
        state.reservation = Some(Reservation { kind, holder });
    }
    state.kept = !state.registrations.is_empty();
    Ok(state)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was() {
        let registrant = |n: u8| Registrant {
            initiator: TransportId::iscsi(&format!("iqn.a:{n}"), [0, 0, 0, 0, 0, n]),
            port: 1,
        };
        let state = State {
            generation: 0,
            registrations: (1..4).map(|n| (registrant(n), u64::MAX - 1)).collect(),
            reservation: Some(Reservation {
                kind: Kind::WriteExclusiveRegistrants,
                holder: registrant(2),
            }),
            kept: true,
        };
        assert_eq!(parse(&emit(&state).unwrap()).unwrap(), state);
        let forgotten = State {
            kept: false,
            ..state
        };
        assert_eq!(parse(&emit(&forgotten).unwrap()).unwrap(), State::default());
    }

    #[test]
    fn what_cannot_be_is_an_error_and_not_nothing() {
        for text in [
            "",
            "{}",
            r#"{"format":2,"registrations":[],"reservation":null}"#,
            r#"{"format":1,"registrations":[],"reservation":[1,0]}"#,
            r#"{"format":1,"registrations":[{"initiator":"45","port":1,"key":1}],"reservation":null}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
