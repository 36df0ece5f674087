//! MODE SENSE (SPC-4 §6.11, §7.5; SBC-3 §6.5).

use super::command::Request;
use super::response::{Response, Start};
use super::sense::Sense;
use super::unit::Kind;
use crate::block::Geometry;

/// MODE SENSE(6).
pub(super) fn sense_6(request: &Request<'_>) -> Result<Start, Sense> {
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
pub(super) fn sense_10(request: &Request<'_>) -> Result<Start, Sense> {
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

/// Which of a page's values are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Current,
    Changeable,
    Default,
}

/// The block descriptor, if wanted, and the pages.
fn parts(request: &Request<'_>, long: LongLba) -> Result<(Vec<u8>, Vec<u8>), Sense> {
    let cdb = &request.cdb;
    let control = match cdb.byte(2) >> 6 {
        0 => Control::Current,
        1 => Control::Changeable,
        2 => Control::Default,
        _ => return Err(Sense::NO_SAVED_PAGES),
    };
    let geometry = geometry(request);
    let descriptor = match &geometry {
        Some(geometry) if !cdb.bit(1, 0x08) => block_descriptor(geometry, &long),
        _ => Vec::new(),
    };
    let (code, subpage) = (cdb.byte(2) & 0x3f, cdb.byte(3));
    if !matches!(subpage, 0x00 | 0xff) {
        return Err(Sense::INVALID_FIELD.at(3));
    }
    let pages: Vec<u8> = ALL
        .iter()
        .filter(|known| code == 0x3f || code == **known)
        .filter_map(|known| page(*known, geometry.as_ref(), control))
        .flatten()
        .collect();
    if pages.is_empty() && code != 0x3f {
        return Err(Sense::INVALID_FIELD.at(2));
    }
    Ok((descriptor, pages))
}

fn geometry(request: &Request<'_>) -> Option<Geometry> {
    match &request.unit.kind {
        Kind::Disk(disk) => Some(disk.geometry()),
        Kind::Controller => None,
    }
}

/// DEVICE-SPECIFIC PARAMETER of disks (SBC-3 §6.5.1): WP, and DPOFUA.
fn device_specific(request: &Request<'_>) -> u8 {
    match geometry(request) {
        Some(geometry) if geometry.read_only => 0x90,
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

/// Codes of the pages, in the order in which "all" gives them.
const ALL: [u8; 4] = [0x01, 0x08, 0x0a, 0x1c];

/// A page, or nothing where the unit has no such page.
fn page(code: u8, disk: Option<&Geometry>, control: Control) -> Option<Vec<u8>> {
    let mut body = match code {
        // Read-write error recovery: defaults.
        0x01 => {
            disk?;
            vec![0; 10]
        }
        // Caching: WCE for disks that are written, since a write is durable after a flush only.
        0x08 => {
            let mut body = vec![0; 18];
            if !disk?.read_only
                && let Some(flags) = body.first_mut()
            {
                *flags = 0x04;
            }
            body
        }
        // Control: unrestricted reordering. TAS is 0: aborted by others means no answer.
        0x0a => vec![0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
        // Informational exceptions: none are reported.
        0x1c => vec![0; 10],
        _ => return None,
    };
    if control == Control::Changeable {
        body.fill(0);
    }
    let mut page = vec![code, body.len() as u8];
    page.extend(body);
    Some(page)
}
