//! PERSISTENT RESERVE OUT (SPC-4 §6.16).

use std::io;
use std::sync::Arc;

use super::Reservations;
use super::kept;
use super::order::{Order, Outcome, Refused};
use super::state::{Kind, Registrant, State};
use crate::block::Answer;
use crate::scsi::cdb::Cdb;
use crate::scsi::device::settled;
use crate::scsi::itl::Itl;
use crate::scsi::port::{Named, TransportId};
use crate::scsi::request::Request;
use crate::scsi::response::{Pending, Response, Start};
use crate::scsi::sense::Sense;

/// Service actions (SPC-4 §6.16.2).
pub(in crate::scsi) const REGISTER: u8 = 0;
pub(in crate::scsi) const RESERVE: u8 = 1;
pub(in crate::scsi) const RELEASE: u8 = 2;
pub(in crate::scsi) const CLEAR: u8 = 3;
pub(in crate::scsi) const PREEMPT: u8 = 4;
pub(in crate::scsi) const PREEMPT_AND_ABORT: u8 = 5;
pub(in crate::scsi) const REGISTER_AND_IGNORE: u8 = 6;
pub(in crate::scsi) const REGISTER_AND_MOVE: u8 = 7;

/// Length of a parameter list without TransportIDs.
const BASIC_LEN: usize = 24;
/// Most bytes of a parameter list: as many TransportIDs as there can be registrations, and more.
const MAX_LEN: u32 = 256 * 1024;

/// PERSISTENT RESERVE OUT, all service actions.
pub(in crate::scsi) fn change(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = request.cdb;
    let len = cdb.be32(5);
    if (len as usize) < BASIC_LEN || len > MAX_LEN {
        return Err(Sense::PARAMETER_LENGTH.at(5));
    }
    let itl = Arc::clone(request.itl);
    Ok(Start::Data(Pending::new(len.into(), move |data| {
        let list = data.concat();
        if list.len() < len as usize {
            return Answer::Now(Sense::PARAMETER_LENGTH.into());
        }
        Answer::Later(Box::pin(async move {
            match itl.unit.reservations.change(&itl, &cdb, &list).await {
                Ok(()) => Response::good(),
                Err(Refused::Conflict) => Response::conflict(),
                Err(Refused::Sense(sense)) => sense.into(),
            }
        }))
    })))
}

impl Reservations {
    async fn change(&self, itl: &Itl, cdb: &Cdb, list: &[u8]) -> Result<(), Refused> {
        let turn = self.turn.lock().await;
        // SPC-2 §5.5.1: not beside RESERVE, whoever holds that.
        if self.legacy.load(std::sync::atomic::Ordering::SeqCst) != 0 {
            return Err(Refused::Conflict);
        }
        let order = self.parse(itl, cdb, list)?;
        let old = self.state.load_full();
        let Outcome {
            state,
            told,
            aborted,
        } = old.apply(&itl.registrant, order)?;
        self.save(&old, &state).await?;
        self.state.store(Arc::new(state));
        for (whom, sense) in &told {
            let is_meant = |other: &Itl| other.registrant == *whom && other.nexus != itl.nexus;
            itl.unit.tell(*sense, is_meant);
        }
        // Whoever is aborted may be about to change something itself, and waits for the turn.
        drop(turn);
        abort(itl, &aborted).await;
        Ok(())
    }

    /// Makes a change durable before anybody is told of it, where APTPL says so.
    async fn save(&self, old: &State, new: &State) -> Result<(), Refused> {
        let (Some(store), true) = (&self.store, old.kept || new.kept) else {
            return Ok(());
        };
        let failed = |error: io::Error| {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "keeping persistent reservations");
            Refused::Sense(Sense::INTERNAL)
        };
        let bytes = kept::emit(new).map_err(failed)?;
        let store = store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save(&bytes)).await;
        saved
            .map_err(io::Error::other)
            .and_then(|r| r)
            .map_err(failed)
    }

    fn parse(&self, itl: &Itl, cdb: &Cdb, list: &[u8]) -> Result<Order, Sense> {
        let basic = Basic::parse(list).ok_or(Sense::PARAMETER_LENGTH)?;
        let (key, new) = (basic.key, basic.service_action_key);
        // SCOPE 0 is the logical unit, and the only one.
        let kind = match cdb.byte(2) >> 4 {
            0 => Kind::parse(cdb.byte(2) & 0x0f),
            _ => None,
        };
        let action = cdb.service_action();
        if action == REGISTER_AND_MOVE {
            return self.parse_move(list, key, new);
        }
        if basic.spec_i_pt && action != REGISTER {
            return Err(Sense::INVALID_PARAMETER.in_parameter(20).bit(3));
        }
        if !basic.spec_i_pt && list.len() != BASIC_LEN {
            return Err(Sense::PARAMETER_LENGTH.at(5));
        }
        Ok(match action {
            REGISTER | REGISTER_AND_IGNORE => Order::Register {
                key: (action == REGISTER).then_some(key),
                new,
                also: match basic.spec_i_pt {
                    true => named(itl, list)?,
                    false => Vec::new(),
                },
                kept: self.may_keep(basic.aptpl, 20)?,
            },
            RESERVE => Order::Reserve {
                key,
                kind: kind.ok_or(Sense::INVALID_FIELD.at(2))?,
            },
            RELEASE => Order::Release { key, kind },
            CLEAR => Order::Clear { key },
            PREEMPT | PREEMPT_AND_ABORT => Order::Preempt {
                key,
                victim: new,
                kind,
                abort: action == PREEMPT_AND_ABORT,
            },
            _ => return Err(Sense::INVALID_FIELD.at(1).bit(4)),
        })
    }

    /// The parameter list of REGISTER AND MOVE (SPC-4 §6.16.4).
    fn parse_move(&self, list: &[u8], key: u64, new: u64) -> Result<Order, Sense> {
        let byte = |at: usize| list.get(at).copied().unwrap_or(0);
        let port = u16::from_be_bytes([byte(18), byte(19)]);
        let len = u32::from_be_bytes([byte(20), byte(21), byte(22), byte(23)]);
        let id = list.get(BASIC_LEN..).unwrap_or_default();
        if id.len() != len as usize {
            return Err(Sense::PARAMETER_LENGTH.at(5));
        }
        let initiator = TransportId::parse(id).ok_or(Sense::INVALID_PARAMETER.in_parameter(24))?;
        // There is one target port, which is the one that this came in by.
        if port != crate::scsi::port::RELATIVE_PORT {
            return Err(Sense::INVALID_PARAMETER.in_parameter(18));
        }
        Ok(Order::Move {
            key,
            new,
            to: Registrant { initiator, port },
            unregister: byte(17) & 0x02 != 0,
            kept: self.may_keep(byte(17) & 0x01 != 0, 17)?,
        })
    }

    /// APTPL, which asks for a place to keep things.
    fn may_keep(&self, aptpl: bool, byte: u16) -> Result<bool, Sense> {
        if aptpl && self.store.is_none() {
            return Err(Sense::INVALID_PARAMETER.in_parameter(byte).bit(0));
        }
        Ok(aptpl)
    }
}

/// Aborts the commands of those nexuses as PREEMPT AND ABORT of `by` asks for it (SPC-4 §5.13.11.5), and
/// waits until none of them works any more.
async fn abort(by: &Itl, whose: &[Registrant]) {
    if whose.is_empty() {
        return;
    }
    let meant = |itl: &Arc<Itl>| whose.contains(&itl.registrant);
    let itls = by.unit.itls().into_iter().filter(meant);
    let aborted = itls.map(|itl| by.unit.abort(&itl, by.nexus)).collect();
    settled(aborted).await;
}

/// The part that all parameter lists have (SPC-4 §6.16.3). ALL_TG_PT asks for what is so in any case,
/// as there is one target port.
struct Basic {
    key: u64,
    service_action_key: u64,
    spec_i_pt: bool,
    aptpl: bool,
}

impl Basic {
    fn parse(list: &[u8]) -> Option<Self> {
        let (key, rest) = list.split_first_chunk()?;
        let (service_action_key, _) = rest.split_first_chunk()?;
        let flags = list.get(20)?;
        Some(Basic {
            key: u64::from_be_bytes(*key),
            service_action_key: u64::from_be_bytes(*service_action_key),
            spec_i_pt: flags & 0x08 != 0,
            aptpl: flags & 0x01 != 0,
        })
    }
}

/// The initiator ports of a list of TransportIDs (SPEC_I_PT). One that names a device stands for all of
/// its ports that the unit knows (SPC-4 §7.6.4.6).
fn named(itl: &Itl, list: &[u8]) -> Result<Vec<TransportId>, Sense> {
    let rest = list.get(BASIC_LEN..).unwrap_or_default();
    let (len, mut rest) = rest.split_first_chunk().ok_or(Sense::PARAMETER_LENGTH)?;
    if u32::from_be_bytes(*len) as usize != rest.len() {
        return Err(Sense::PARAMETER_LENGTH.at(5));
    }
    let mut ports = Vec::new();
    while !rest.is_empty() {
        let wrong = Sense::INVALID_PARAMETER.in_parameter((list.len() - rest.len()) as u16);
        let (one, tail) = Named::split(rest).ok_or(wrong)?;
        match one {
            Named::Port(id) => ports.push(id),
            Named::Device(name) => {
                let itls = itl.unit.itls();
                let known = itls.iter().map(|itl| &itl.registrant.initiator);
                let before = ports.len();
                ports.extend(known.filter(|id| id.is_of(&name)).cloned());
                if ports.len() == before {
                    return Err(wrong);
                }
            }
        }
        rest = tail;
    }
    Ok(ports)
}
