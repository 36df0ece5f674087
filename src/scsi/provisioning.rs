//! UNMAP and WRITE SAME (SBC-3 §5.28, §5.42).

use std::sync::Arc;

use bytes::Bytes;

use super::medium::{extent, no_protection, writable_disk, written};
use super::request::Request;
use super::response::{Pending, Response, Start};
use super::sense::Sense;
use crate::block::{self, Answer, Disk, Extent, Geometry};

/// Most blocks of one UNMAP.
pub(super) const MAX_UNMAP_BLOCKS: u32 = 0x0010_0000;
/// Most descriptors of one UNMAP.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// Bytes that WRITE SAME hands to the disk at a time.
const PIECE: u64 = 1024 * 1024;

/// Most blocks of one WRITE SAME: what the ten bytes of the shorter one can name.
pub(super) const MAX_WRITE_SAME_BLOCKS: u16 = u16::MAX;

const HEADER_LEN: usize = 8;
const DESCRIPTOR_LEN: usize = 16;

/// UNMAP.
pub(super) fn unmap(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = writable_disk(request)?.clone();
    // ANCHOR: nothing is anchored here.
    if request.cdb.bit(1, 0x01) {
        return Err(Sense::INVALID_FIELD.at(1));
    }
    let len = u64::from(request.cdb.be16(7));
    match len {
        0 => return Ok(Response::good().into()),
        1..8 => return Err(Sense::PARAMETER_LENGTH),
        _ => {}
    }
    let exclusion = request.unit.exclusion.clone();
    Ok(Start::Data(Pending::new(len, move |data| {
        let extents = match descriptors(&data.concat(), &disk.geometry()) {
            Ok(extents) => extents,
            Err(sense) => return Answer::Now(sense.into()),
        };
        let ranges = || extents.iter().map(Extent::range);
        let first = ranges().map(|range| range.start).min().unwrap_or(0);
        let last = ranges().map(|range| range.end).max().unwrap_or(0);
        exclusion.beside(first..last, move || unmap_all(disk, extents), written)
    })))
}

/// WRITE SAME(10), (16).
pub(super) fn write_same(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let disk = writable_disk(request)?.clone();
    no_protection(request)?;
    let (unmap, anchor) = (cdb.bit(1, 0x08), cdb.bit(1, 0x10));
    // NDOB, of WRITE SAME(16) only: zeros, without a block of data.
    let no_data = cdb.opcode() == 0x93 && cdb.bit(1, 0x01);
    // ANC_SUP is 0: nothing is anchored here. PBDATA and LBDATA are obsolete. A disk that gives no
    // space back unmaps nothing (SBC-3 §5.42).
    if anchor || cdb.bit(1, 0x06) || unmap && !disk.geometry().thin {
        return Err(Sense::INVALID_FIELD.at(1));
    }
    let extent = extent(request, disk.as_ref(), u32::MAX)?;
    let (_, blocks) = cdb.blocks();
    // WSNZ is set: 0 does not mean "up to the end", which is asked for by mistake only.
    if blocks == 0 || blocks > u64::from(MAX_WRITE_SAME_BLOCKS) {
        return Err(Sense::INVALID_FIELD);
    }
    let block = u64::from(disk.geometry().block_size);
    let exclusion = request.unit.exclusion.clone();
    let fill = move |block: Bytes| {
        exclusion.beside(
            extent.range(),
            move || fill(disk, extent, block, unmap),
            written,
        )
    };
    if no_data {
        return Ok(Start::Done(fill(Bytes::new())));
    }
    let pending = Pending::new(block, move |data| fill(data.concat().into()));
    Ok(Start::Data(pending.exactly()))
}

/// The extents of an UNMAP parameter list, all of them checked before any is unmapped.
fn descriptors(list: &[u8], geometry: &Geometry) -> Result<Vec<Extent>, Sense> {
    let Some((header, rest)) = list.split_at_checked(HEADER_LEN) else {
        return Err(Sense::PARAMETER_LENGTH);
    };
    let [_, _, d0, d1, ..] = *header else {
        return Err(Sense::PARAMETER_LENGTH);
    };
    // UNMAP BLOCK DESCRIPTOR DATA LENGTH; an incomplete last descriptor is not looked at.
    let wanted = usize::from(u16::from_be_bytes([d0, d1]));
    let rest = rest.get(..wanted).unwrap_or(rest);
    if rest.len() / DESCRIPTOR_LEN > MAX_UNMAP_DESCRIPTORS as usize {
        return Err(Sense::INVALID_PARAMETER.in_parameter(2));
    }
    let mut sum = 0;
    rest.chunks_exact(DESCRIPTOR_LEN)
        .map(|descriptor| {
            let (lba, count) = descriptor.split_at(8);
            let lba = number(lba);
            let blocks = number(count.get(..4).unwrap_or_default());
            sum += blocks;
            if sum > u64::from(MAX_UNMAP_BLOCKS) {
                return Err(Sense::INVALID_PARAMETER);
            }
            geometry.extent(lba, blocks).ok_or(Sense::OUT_OF_RANGE)
        })
        .collect()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn unmap_all(disk: Arc<dyn Disk>, extents: Vec<Extent>) -> Answer<block::Result<()>> {
    Answer::Later(Box::pin(async move {
        for extent in extents {
            disk.unmap(extent).wait().await?;
        }
        Ok(())
    }))
}

/// Fills an extent with one block over and over, or with zeros where there is none.
fn fill(
    disk: Arc<dyn Disk>,
    extent: Extent,
    block: Bytes,
    unmap: bool,
) -> Answer<block::Result<()>> {
    let zeros = block.iter().all(|byte| *byte == 0);
    // Unmapped blocks read as zeros, so only zeros may be unmapped (SBC-3 §5.42.1). A thin disk may
    // unmap blocks of zeros by itself (§4.7.4.7).
    if zeros && (unmap || block.is_empty()) {
        return disk.unmap(extent);
    }
    Answer::Later(Box::pin(write_pattern(disk, extent, block)))
}

/// Writes a pattern in pieces, so that the memory for it stays small.
pub(super) async fn write_pattern(
    disk: Arc<dyn Disk>,
    extent: Extent,
    block: Bytes,
) -> block::Result<()> {
    let repeated = PIECE.min(extent.len()) as usize / block.len().max(1);
    let piece = Bytes::from(block.repeat(repeated));
    for i in 0..extent.len().div_ceil(PIECE) {
        let extent = extent.part(i * PIECE, PIECE);
        let data = piece.slice(..extent.len() as usize);
        disk.write(extent, vec![data]).wait().await?;
    }
    Ok(())
}
