//! MODE SELECT (SPC-4 §6.9, §6.10).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Change, Page, WRITE_THROUGH, geometry, pages};
use crate::block::{Answer, Geometry};
use crate::scsi::itl::Itl;
use crate::scsi::medium::written;
use crate::scsi::request::Request;
use crate::scsi::response::{Pending, Response, Start};
use crate::scsi::sense::Sense;
use crate::scsi::unit::{Kind, Unit};

/// MODE SELECT(6).
pub(in crate::scsi) fn select_6(request: &Request<'_>) -> Result<Start, Sense> {
    select(request, Header::Short, request.cdb.byte(4).into())
}

/// MODE SELECT(10).
pub(in crate::scsi) fn select_10(request: &Request<'_>) -> Result<Start, Sense> {
    select(request, Header::Long, request.cdb.be16(7))
}

/// The two forms of the mode parameter header (SPC-4 §7.5.5).
#[derive(Debug, Clone, Copy)]
enum Header {
    Short,
    Long,
}

fn select(request: &Request<'_>, header: Header, len: u16) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    // SP: nothing is saved. RTD is not offered. Without PF the list would be of no known form.
    for bit in [0, 1] {
        if cdb.bit(1, 1 << bit) {
            return Err(Sense::INVALID_FIELD.at(1).bit(bit));
        }
    }
    if !cdb.bit(1, 0x10) {
        return Err(Sense::INVALID_FIELD.at(1).bit(4));
    }
    if len == 0 {
        return Ok(Response::good().into());
    }
    let itl = Arc::clone(request.itl);
    Ok(Start::Data(Pending::new(len.into(), move |data| {
        let list = data.concat();
        if list.len() < usize::from(len) {
            return Answer::Now(Sense::PARAMETER_LENGTH.into());
        }
        match parse(&itl.unit, header, &list) {
            Ok(change) => apply(&itl, change),
            Err(sense) => Answer::Now(sense.into()),
        }
    })))
}

/// Makes the change, and tells the other initiators (SPC-4 §6.9).
fn apply(itl: &Itl, change: Change) -> Answer<Response> {
    let old = itl.unit.settings.change(change);
    let new = change.of(old);
    if new != old {
        itl.unit
            .tell(Sense::MODE_CHANGED, |other| other.nexus != itl.nexus);
    }
    match &itl.unit.kind {
        // From here on every answered write is durable, those before included (SBC-3 §6.5.5).
        Kind::Disk(disk) if new & !old & WRITE_THROUGH != 0 => disk.flush().map(written),
        _ => Answer::Now(Response::good()),
    }
}

/// The change that a parameter list asks for, the whole list checked.
fn parse(unit: &Unit, header: Header, list: &[u8]) -> Result<Change, Sense> {
    let byte = |at: usize| list.get(at).copied().unwrap_or(0);
    let (len, medium, long, descriptors) = match header {
        Header::Short => (4, 1, false, usize::from(byte(3))),
        Header::Long => {
            let descriptors = u16::from_be_bytes([byte(6), byte(7)]);
            (8, 2, byte(4) & 0x01 != 0, usize::from(descriptors))
        }
    };
    if list.len() < len + descriptors {
        return Err(Sense::PARAMETER_LENGTH);
    }
    // MEDIUM TYPE. MODE DATA LENGTH is reserved here, and what MODE SENSE gave comes back in it; so
    // does the device-specific parameter, whose bits cannot be set.
    if byte(medium) != 0 {
        return Err(Sense::INVALID_PARAMETER.in_parameter(medium as u16));
    }
    let (head, rest) = list.split_at_checked(len + descriptors).unwrap_or_default();
    let descriptor = head.get(len..).unwrap_or_default();
    check_descriptor(geometry(unit).as_ref(), descriptor, long)
        .map_err(|at| Sense::INVALID_PARAMETER.in_parameter((len + at) as u16))?;
    let settings = unit.settings.0.load(Ordering::Acquire);
    let pages = pages(unit, settings);
    let mut change = Change::default();
    let mut rest = rest;
    while !rest.is_empty() {
        let at = list.len() - rest.len();
        rest = parse_page(&pages, rest, at, &mut change)?;
    }
    Ok(change)
}

/// A block descriptor has to describe the disk as it is (SBC-3 §6.5.2): its size and the length of its
/// blocks do not change by a command. Tells the byte that does not.
fn check_descriptor(geometry: Option<&Geometry>, bytes: &[u8], long: bool) -> Result<(), usize> {
    if bytes.is_empty() {
        return Ok(());
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let (blocks_len, size_at, len) = if long { (8, 12, 16) } else { (4, 5, 8) };
    let (Some(geometry), true) = (geometry, bytes.len() == len) else {
        return Err(0);
    };
    let blocks = number(bytes.get(..blocks_len).unwrap_or_default());
    let told = match long {
        true => geometry.blocks,
        false => geometry.blocks.min(u32::MAX.into()),
    };
    // 0 leaves it as it is, and all ones is as many as there can be.
    let most = u64::MAX >> (64 - 8 * blocks_len);
    if ![0, most, told].contains(&blocks) {
        return Err(0);
    }
    let size = number(bytes.get(size_at..).unwrap_or_default());
    if size != 0 && size != u64::from(geometry.block_size) {
        return Err(size_at);
    }
    Ok(())
}

/// Takes a page off a list, which begins `at` bytes into the parameters.
fn parse_page<'a>(
    pages: &[Page],
    list: &'a [u8],
    at: usize,
    change: &mut Change,
) -> Result<&'a [u8], Sense> {
    let wrong = |byte: usize| Sense::INVALID_PARAMETER.in_parameter((at + byte) as u16);
    let ([code, len], rest) = list.split_first_chunk().ok_or(Sense::PARAMETER_LENGTH)?;
    // PS is reserved here. SPF: no page has subpages.
    if code & 0x40 != 0 {
        return Err(wrong(0).bit(6));
    }
    let page = pages.iter().find(|page| page.code == code & 0x3f);
    let page = page.ok_or(wrong(0).bit(5))?;
    if usize::from(*len) != page.body.len() {
        return Err(wrong(1));
    }
    let (body, rest) = rest
        .split_at_checked(page.body.len())
        .ok_or(Sense::PARAMETER_LENGTH)?;
    for (i, given) in body.iter().enumerate() {
        let (current, changeable) = (page.body.get(i), page.changeable.get(i));
        let differs = given ^ current.unwrap_or(&0);
        let fixed = differs & !changeable.unwrap_or(&0);
        if fixed != 0 {
            return Err(wrong(2 + i).bit(7 - fixed.leading_zeros() as u8));
        }
    }
    for (i, bit, setting, same) in page.bits {
        let on = body.get(*i).is_some_and(|byte| byte & bit != 0);
        change.put(*setting, on == *same);
    }
    Ok(rest)
}
