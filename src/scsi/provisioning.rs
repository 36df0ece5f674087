//! UNMAP and WRITE SAME (SBC-3 §5.28, §5.42).

use std::sync::Arc;

use bytes::Bytes;

use super::command::Request;
use super::medium::{extent, no_protection, writable_disk, written};
use super::response::{Pending, Response, Start};
use super::sense::Sense;
use crate::block::{self, Answer, Disk, Extent, Geometry};

/// Most blocks of one UNMAP.
pub(super) const MAX_UNMAP_BLOCKS: u32 = 0x0010_0000;
/// Most descriptors of one UNMAP.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// Most blocks of one WRITE SAME.
pub(super) const MAX_WRITE_SAME_BLOCKS: u32 = 0x0001_0000;

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
    Ok(Start::Data(Pending::new(
        len,
        move |data| match descriptors(&data.concat(), &disk.geometry()) {
            Ok(extents) => unmap_all(disk, extents),
            Err(sense) => Answer::Now(sense.into()),
        },
    )))
}

/// WRITE SAME(10), (16).
pub(super) fn write_same(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let disk = writable_disk(request)?.clone();
    no_protection(request)?;
    let (unmap, anchor) = (cdb.bit(1, 0x08), cdb.bit(1, 0x10));
    // NDOB, of WRITE SAME(16) only: zeros, without a block of data.
    let no_data = cdb.opcode() == 0x93 && cdb.bit(1, 0x01);
    // PBDATA and LBDATA are obsolete.
    if anchor || cdb.bit(1, 0x06) {
        return Err(Sense::INVALID_FIELD.at(1));
    }
    let (_, blocks) = cdb.blocks();
    // WSNZ is set: 0 does not mean "up to the end".
    if blocks == 0 || blocks > u64::from(MAX_WRITE_SAME_BLOCKS) {
        return Err(Sense::INVALID_FIELD);
    }
    let extent = extent(request, disk.as_ref(), u32::MAX)?;
    let block = u64::from(disk.geometry().block_size);
    if no_data {
        return Ok(Start::Done(fill(disk, extent, Bytes::new(), unmap)));
    }
    Ok(Start::Data(Pending::new(block, move |data| {
        let data = data.concat();
        if (data.len() as u64) < block {
            return Answer::Now(Sense::NOT_ENOUGH_DATA.into());
        }
        fill(disk, extent, data.into(), unmap)
    })))
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

fn unmap_all(disk: Arc<dyn Disk>, extents: Vec<Extent>) -> Answer<Response> {
    Answer::Later(Box::pin(async move {
        for extent in extents {
            if let Err(error) = disk.unmap(extent).wait().await {
                return written(Err(error));
            }
        }
        Response::good()
    }))
}

/// Fills an extent with one block over and over, or with zeros where there is none.
fn fill(disk: Arc<dyn Disk>, extent: Extent, block: Bytes, unmap: bool) -> Answer<Response> {
    let zeros = block.iter().all(|byte| *byte == 0);
    // Unmapped blocks read as zeros, so only zeros may be unmapped (SBC-3 §5.42.1).
    if zeros && (unmap || block.is_empty()) {
        return disk.unmap(extent).map(written);
    }
    Answer::Later(Box::pin(async move {
        written(write_pattern(disk, extent, &block).await)
    }))
}

/// Writes a pattern in pieces, so that the memory for it stays small.
async fn write_pattern(disk: Arc<dyn Disk>, extent: Extent, block: &Bytes) -> block::Result<()> {
    const PIECE: u64 = 256;
    let geometry = disk.geometry();
    let size = u64::from(geometry.block_size);
    let (mut lba, end) = (
        extent.offset() / size,
        (extent.offset() + extent.len()) / size,
    );
    let piece = Bytes::from(block.repeat(PIECE as usize));
    while lba < end {
        let blocks = PIECE.min(end - lba);
        let Some(extent) = geometry.extent(lba, blocks) else {
            break;
        };
        let data = piece.slice(..(blocks * size) as usize);
        disk.write(extent, vec![data]).wait().await?;
        lba += blocks;
    }
    Ok(())
}
