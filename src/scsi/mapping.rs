//! GET LBA STATUS and READ DEFECT DATA (SBC-3 §5.4, §5.13, §5.14).

use super::medium::disk;
use super::request::Request;
use super::response::{Response, Start};
use super::sense::{Doing, Sense};
use crate::block::{self, Run};

/// Most descriptors of one GET LBA STATUS.
const MAX_DESCRIPTORS: usize = 1024;
/// Most bytes of the disk that one GET LBA STATUS looks at: how long that takes depends on the extents
/// of a file.
const MAX_LOOKED_AT: u64 = 4 * 1024 * 1024 * 1024;

const HEADER_LEN: usize = 8;
const DESCRIPTOR_LEN: usize = 16;

/// GET LBA STATUS. The descriptors need not reach up to the end of the disk: the initiator asks again
/// from where they end.
pub(super) fn lba_status(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let disk = disk(request)?;
    let geometry = disk.geometry();
    let lba = cdb.be64(2);
    if lba >= geometry.blocks {
        return Err(Sense::OUT_OF_RANGE);
    }
    let allocation = cdb.be32(10) as usize;
    let most = (allocation.saturating_sub(HEADER_LEN) / DESCRIPTOR_LEN).clamp(1, MAX_DESCRIPTORS);
    let block = u64::from(geometry.block_size);
    let blocks = (geometry.blocks - lba).min(MAX_LOOKED_AT / block);
    let extent = geometry.extent(lba, blocks).ok_or(Sense::OUT_OF_RANGE)?;
    // Without logical block provisioning every block is mapped (SBC-3 §4.7.2).
    let mapping = if geometry.thin {
        disk.mapping(extent, most)
    } else {
        block::Answer::Now(Ok(vec![Run {
            len: extent.len(),
            mapped: true,
        }]))
    };
    let answer = mapping.map(move |result| match result {
        Ok(runs) => Response::cut(status_data(lba, block, &runs), allocation),
        Err(error) => Sense::from_disk(&error, Doing::Reading).into(),
    });
    Ok(Start::Done(answer))
}

fn status_data(lba: u64, block: u64, runs: &[Run]) -> Vec<u8> {
    // PARAMETER DATA LENGTH counts what follows it.
    let len = HEADER_LEN - 4 + runs.len() * DESCRIPTOR_LEN;
    let mut data = (len as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    let mut at = lba;
    for run in runs {
        let blocks = run.len / block;
        data.extend(at.to_be_bytes());
        data.extend((blocks as u32).to_be_bytes());
        // PROVISIONING STATUS: mapped, or deallocated.
        data.extend([u8::from(!run.mapped), 0, 0, 0]);
        at += blocks;
    }
    data
}

/// READ DEFECT DATA(10): there are none, in whatever format and of whatever list.
pub(super) fn defects_10(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let data = vec![0, cdb.byte(2) & 0x1f, 0, 0];
    Ok(Response::cut(data, usize::from(cdb.be16(7))).into())
}

/// READ DEFECT DATA(12).
pub(super) fn defects_12(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let data = vec![0, cdb.byte(1) & 0x1f, 0, 0, 0, 0, 0, 0];
    Ok(Response::cut(data, cdb.be32(6) as usize).into())
}
