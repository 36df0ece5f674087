//! What became of copies, and what copies there can be (SPC-4 §6.17 to §6.20, §7.8.17).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::list::{
    BLOCK_TO_BLOCK, HEADER_LEN, IDENTIFICATION, MAX_CSCDS, MAX_DESCRIPTORS, MAX_SEGMENTS,
};
use crate::scsi::itl::Itl;
use crate::scsi::request::Request;
use crate::scsi::response::{Response, Start};
use crate::scsi::sense::Sense;

/// Outcomes that are kept for an initiator.
const MAX_HELD: usize = 16;
/// Copies that may be under way at a time; more wait, which no initiator sees.
const MAX_CONCURRENT: u8 = 16;
/// Most bytes of a segment: as many blocks as its descriptor can count, of 4 KiB.
const MAX_SEGMENT: u32 = u16::MAX as u32 * 4096;

/// The parameter list without inline data, at most.
pub(super) const MAX_LIST: u32 = HEADER_LEN as u32 + MAX_DESCRIPTORS;

/// An initiator's copies: those under way, and the outcomes of others.
#[derive(Default)]
pub(in crate::scsi) struct Held(
    // Held for a look at a short queue, never across an await.
    Mutex<VecDeque<Copy>>,
);

/// A copy, by its list identifier.
struct Copy {
    id: u8,
    outcome: Outcome,
    underway: bool,
}

/// A copy that is under way, until this is dropped.
pub(super) struct Underway {
    itl: Arc<Itl>,
    id: u8,
}

/// What became of a copy.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Segments that are copied.
    pub(super) segments: u16,
    /// Bytes that are.
    pub(super) bytes: u64,
    /// Why it was not completed.
    pub(super) failure: Option<Sense>,
}

impl Held {
    fn find(&self, id: u8) -> Option<(Outcome, bool)> {
        let held = self.lock();
        let copy = held.iter().find(|copy| copy.id == id)?;
        Some((copy.outcome.clone(), copy.underway))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Copy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Underway {
    /// A copy begins, in the place of an outcome with its list identifier.
    ///
    /// # Errors
    /// When another with this identifier is under way (SPC-4 §6.4.3.2).
    pub(super) fn begin(itl: &Arc<Itl>, id: u8) -> Result<Self, Sense> {
        let mut held = itl.copies.lock();
        if held.iter().any(|copy| copy.id == id && copy.underway) {
            return Err(Sense::OPERATION_IN_PROGRESS);
        }
        held.retain(|copy| copy.id != id);
        if held.len() >= MAX_HELD
            && let Some(oldest) = held.iter().position(|copy| !copy.underway)
        {
            held.remove(oldest);
        }
        held.push_back(Copy {
            id,
            outcome: Outcome::default(),
            underway: true,
        });
        Ok(Underway {
            itl: itl.clone(),
            id,
        })
    }

    /// How far it is.
    pub(super) fn note(&self, outcome: &Outcome) {
        self.change(|copy| copy.outcome = outcome.clone());
    }

    fn change(&self, change: impl FnOnce(&mut Copy)) {
        let mut held = self.itl.copies.lock();
        if let Some(copy) = held.iter_mut().find(|copy| copy.id == self.id) {
            change(copy);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.change(|copy| copy.underway = false);
    }
}

/// RECEIVE COPY STATUS(LID1) (SPC-4 §6.18).
pub(in crate::scsi) fn status(request: &Request<'_>) -> Result<Start, Sense> {
    let (outcome, underway) = known(request)?;
    // COPY MANAGER STATUS: under way, or completed without or with errors.
    let status = match (underway, &outcome.failure) {
        (true, _) => 0,
        (false, None) => 1,
        (false, Some(_)) => 2,
    };
    let mut data = vec![0, 0, 0, 8, status];
    data.extend(outcome.segments.to_be_bytes());
    // TRANSFER COUNT UNITS: KiB, since bytes may be more than fit.
    data.push(1);
    data.extend(
        u32::try_from(outcome.bytes / 1024)
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    Ok(respond(request, data))
}

/// RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4 §6.17): the sense data of the copy.
pub(in crate::scsi) fn failure(request: &Request<'_>) -> Result<Start, Sense> {
    let (outcome, underway) = known(request)?;
    if underway {
        return Err(Sense::INVALID_FIELD.at(2));
    }
    let Some(sense) = outcome.failure else {
        // Nothing has failed, so nothing is told of it.
        return Ok(respond(request, vec![0; 4]));
    };
    let sense = sense.emit();
    let mut data = vec![0; 60];
    data.extend(&sense);
    let lengths = [
        (0, (data.len() as u32 - 4).to_be_bytes().to_vec()),
        // EXTENDED COPY COMMAND STATUS: CHECK CONDITION.
        (56, vec![0x02]),
        (58, (sense.len() as u16).to_be_bytes().to_vec()),
    ];
    for (at, bytes) in lengths {
        for (to, from) in data.iter_mut().skip(at).zip(bytes) {
            *to = from;
        }
    }
    Ok(respond(request, data))
}

/// The copy that is asked for, and whether it is under way.
fn known(request: &Request<'_>) -> Result<(Outcome, bool), Sense> {
    let id = request.cdb.byte(2);
    let unknown = Sense::INVALID_FIELD.at(2);
    request.itl.copies.find(id).ok_or(unknown)
}

/// RECEIVE COPY OPERATING PARAMETERS (SPC-4 §6.19).
pub(in crate::scsi) fn operating_parameters(request: &Request<'_>) -> Result<Start, Sense> {
    let mut data = vec![0x01, 0, 0, 0]; // SNLID: a list may do without identifier
    data.extend(MAX_CSCDS.to_be_bytes());
    data.extend(MAX_SEGMENTS.to_be_bytes());
    data.extend(MAX_DESCRIPTORS.to_be_bytes());
    data.extend(MAX_SEGMENT.to_be_bytes());
    // MAXIMUM INLINE DATA LENGTH, HELD DATA LIMIT, MAXIMUM STREAM DEVICE TRANSFER SIZE.
    data.extend([0; 12]);
    data.extend([0, 0, 0, MAX_CONCURRENT]); // TOTAL CONCURRENT COPIES
    data.push(MAX_CONCURRENT);
    data.push(9); // DATA SEGMENT GRANULARITY: 512 bytes
    data.extend([0; 5]);
    let supported = [BLOCK_TO_BLOCK, IDENTIFICATION];
    data.push(supported.len() as u8);
    data.extend(supported);
    let mut all = (data.len() as u32).to_be_bytes().to_vec();
    all.extend(data);
    Ok(respond(request, all))
}

fn respond(request: &Request<'_>, data: Vec<u8>) -> Start {
    Response::cut(data, request.cdb.be32(10) as usize).into()
}

/// Third-party copy (8Fh, SPC-4 §7.8.17).
pub(in crate::scsi) fn page() -> Vec<u8> {
    let mut page = Vec::new();
    // Supported commands: how many bytes, then each opcode with its service actions.
    descriptor(
        &mut page,
        0x0001,
        &[8, 0x83, 1, 0x00, 0x84, 3, 0x00, 0x03, 0x04],
    );
    // Parameter data.
    let mut limits = vec![0; 4];
    limits.extend(MAX_CSCDS.to_be_bytes());
    limits.extend(MAX_SEGMENTS.to_be_bytes());
    limits.extend(MAX_DESCRIPTORS.to_be_bytes());
    limits.resize(28, 0);
    descriptor(&mut page, 0x0004, &limits);
    // Supported descriptors.
    descriptor(&mut page, 0x0008, &[2, BLOCK_TO_BLOCK, IDENTIFICATION]);
    // Supported CSCD descriptor IDs: none beyond the indices.
    descriptor(&mut page, 0x000c, &[0, 0]);
    // General copy operations.
    let mut general = u32::from(MAX_CONCURRENT).to_be_bytes().to_vec();
    general.extend(u32::from(MAX_CONCURRENT).to_be_bytes());
    general.extend(MAX_SEGMENT.to_be_bytes());
    general.push(9); // DATA SEGMENT GRANULARITY: 512 bytes
    general.resize(32, 0);
    descriptor(&mut page, 0x8001, &general);
    page
}

/// A third-party copy descriptor, in whole words.
fn descriptor(page: &mut Vec<u8>, kind: u16, body: &[u8]) {
    let len = body.len().next_multiple_of(4);
    page.extend(kind.to_be_bytes());
    page.extend((len as u16).to_be_bytes());
    page.extend(body);
    page.resize(page.len() + len - body.len(), 0);
}
