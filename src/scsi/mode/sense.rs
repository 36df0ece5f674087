//! MODE SENSE (SPC-4 §6.11, §6.12).

use std::sync::atomic::Ordering;

use super::{Page, geometry, pages};
use crate::block::Geometry;
use crate::scsi::request::Request;
use crate::scsi::response::{Response, Start};
use crate::scsi::sense::Sense;

/// MODE SENSE(6).
pub(in crate::scsi) fn sense_6(request: &Request<'_>) -> Result<Start, Sense> {
    let (descriptor, pages) = parts(request, LongLba::No)?;
    let parameter = device_specific(request);
    // MODE DATA LENGTH counts what follows it.
    let len = 3 + descriptor.len() + pages.len();
    let mut data = vec![len as u8, 0, parameter, descriptor.len() as u8];
    data.extend(descriptor);
    data.extend(pages);
    let allocation = usize::from(request.cdb.byte(4));
    Ok(Response::cut(data, allocation).into())
}

/// MODE SENSE(10).
pub(in crate::scsi) fn sense_10(request: &Request<'_>) -> Result<Start, Sense> {
    let long = if request.cdb.bit(1, 0x10) {
        LongLba::Accepted
    } else {
        LongLba::No
    };
    let (descriptor, pages) = parts(request, long)?;
    let len = (6 + descriptor.len() + pages.len()) as u16;
    let is_long = descriptor.len() == 16;
    let mut data = len.to_be_bytes().to_vec();
    data.extend([0, device_specific(request), u8::from(is_long), 0]);
    data.extend((descriptor.len() as u16).to_be_bytes());
    data.extend(descriptor);
    data.extend(pages);
    let allocation = usize::from(request.cdb.be16(7));
    Ok(Response::cut(data, allocation).into())
}

/// Whether the initiator takes block descriptors with 64 bits of blocks.
#[derive(PartialEq, Eq)]
enum LongLba {
    No,
    Accepted,
}

/// The block descriptor, if wanted, and the pages.
fn parts(request: &Request<'_>, long: LongLba) -> Result<(Vec<u8>, Vec<u8>), Sense> {
    let cdb = &request.cdb;
    let settings = request.unit.settings.0.load(Ordering::Acquire);
    // PC: current, changeable, default and saved values.
    let (settings, bytes): (_, fn(Page) -> Vec<u8>) = match cdb.byte(2) >> 6 {
        0 => (settings, |page| page.body),
        1 => (settings, |page| page.changeable),
        2 => (0, |page| page.body),
        _ => return Err(Sense::NO_SAVED_PAGES),
    };
    let descriptor = match geometry(request.unit) {
        Some(geometry) if !cdb.bit(1, 0x08) => block_descriptor(&geometry, &long),
        _ => Vec::new(),
    };
    // No page has subpages; "all of them" is the page alone.
    let (code, subpage) = (cdb.byte(2) & 0x3f, cdb.byte(3));
    if !matches!(subpage, 0x00 | 0xff) {
        return Err(Sense::INVALID_FIELD.at(3));
    }
    let mut list = Vec::new();
    for page in pages(request.unit, settings) {
        if code == 0x3f || code == page.code {
            list.extend([page.code, page.body.len() as u8]);
            list.extend(bytes(page));
        }
    }
    if list.is_empty() {
        return Err(Sense::INVALID_FIELD.at(2).bit(5));
    }
    Ok((descriptor, list))
}

/// DEVICE-SPECIFIC PARAMETER of disks (SBC-3 §6.5.1): WP, and DPOFUA.
fn device_specific(request: &Request<'_>) -> u8 {
    match geometry(request.unit) {
        Some(geometry) if geometry.read_only || request.unit.settings.protected() => 0x90,
        Some(_) => 0x10,
        None => 0,
    }
}

/// Block descriptors (SBC-3 §6.5.2).
fn block_descriptor(geometry: &Geometry, long: &LongLba) -> Vec<u8> {
    if *long == LongLba::Accepted {
        let mut data = geometry.blocks.to_be_bytes().to_vec();
        data.extend([0; 4]);
        data.extend(geometry.block_size.to_be_bytes());
        return data;
    }
    let blocks = u32::try_from(geometry.blocks).unwrap_or(u32::MAX);
    let mut data = blocks.to_be_bytes().to_vec();
    // The block length has 24 bits; 0 stands in the byte above it.
    data.extend(geometry.block_size.to_be_bytes());
    data
}
