//! Reading and writing blocks (SBC-3 §5), and what all commands on blocks share.

use std::sync::Arc;

use bytes::Bytes;

use super::cdb::Cdb;
use super::exclusion::Exclusion;
use super::request::Request;
use super::response::{Pending, Response, Start};
use super::sense::{Doing, Sense};
use super::unit::{Kind, Unit};
use crate::block::{self, Answer, Disk, Extent, Segment};

/// Most bytes of one command, told as MAXIMUM TRANSFER LENGTH.
pub const MAX_TRANSFER: u32 = 8 * 1024 * 1024;
/// The size of commands that is asked for.
pub(super) const OPTIMAL_TRANSFER: u32 = 1024 * 1024;

/// READ(6), (10), (12), (16). DPO is advice for caches, which is not followed.
pub(super) fn read(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?.clone();
    // RDPROTECT: there is no protection information.
    no_protection(request)?;
    let extent = extent(request, disk.as_ref(), MAX_TRANSFER)?;
    // A disk that nobody writes has nothing that is not on its medium.
    let through = forces_unit_access(request) && !disk.geometry().read_only;
    let work = move || {
        if !through {
            return disk.read(extent);
        }
        // SBC-3 §5.11: what the cache has newer than the medium is written before it is read.
        Answer::Later(Box::pin(async move {
            disk.flush().wait().await?;
            disk.read(extent).wait().await
        }))
    };
    let done = |result: block::Result<Vec<Segment>>| match result {
        Ok(segments) => Response::with(segments),
        Err(error) => Sense::from_disk(&error, Doing::Reading).into(),
    };
    let exclusion = &request.unit.exclusion;
    Ok(Start::Done(exclusion.beside(extent.range(), work, done)))
}

/// Most bytes that a command makes its disk read; one that names more is refused.
pub(super) fn reads(unit: &Unit, cdb: &Cdb) -> u64 {
    let Kind::Disk(disk) = &unit.kind else {
        return 0;
    };
    match cdb.opcode() {
        // READ and VERIFY.
        0x08 | 0x28 | 0x88 | 0xa8 | 0x2f | 0x8f | 0xaf => {
            let (_, blocks) = cdb.blocks();
            let block = u64::from(disk.geometry().block_size);
            blocks.saturating_mul(block).min(MAX_TRANSFER.into())
        }
        _ => 0,
    }
}

/// WRITE(6), (10), (12), (16).
pub(super) fn write(request: &Request<'_>) -> Result<Start, Sense> {
    let through = forces_unit_access(request);
    Ok(
        Target::parse(request)?.pending(move |target, extent, data| {
            let (disk, exclusion) = (target.disk, target.exclusion);
            let work = move || {
                if through {
                    disk.write_through(extent, data)
                } else {
                    disk.write(extent, data)
                }
            };
            exclusion.beside(extent.range(), work, written)
        }),
    )
}

/// FUA: the blocks go to the medium, or come from there. Commands of six bytes have part of the
/// address in that place.
pub(super) fn forces_unit_access(request: &Request<'_>) -> bool {
    request.cdb.opcode() >> 5 != 0 && request.cdb.bit(1, 0x08)
}

/// The disk of a unit.
pub(super) fn disk<'a>(request: &'a Request<'_>) -> Result<&'a Arc<dyn Disk>, Sense> {
    match &request.unit.kind {
        Kind::Disk(disk) => Ok(disk),
        Kind::Controller => Err(Sense::INVALID_OPCODE),
    }
}

/// The same, for a command that changes it.
pub(super) fn writable_disk<'a>(request: &'a Request<'_>) -> Result<&'a Arc<dyn Disk>, Sense> {
    let disk = disk(request)?;
    if disk.geometry().read_only {
        return Err(Sense::WRITE_PROTECTED);
    }
    Ok(disk)
}

/// The blocks that a command names, no more than `max` bytes of them.
pub(super) fn extent(request: &Request<'_>, disk: &dyn Disk, max: u32) -> Result<Extent, Sense> {
    let (lba, blocks) = request.cdb.blocks();
    extent_of(disk, lba, blocks, max)
}

/// The same for blocks that the command names in another place.
pub(super) fn extent_of(disk: &dyn Disk, lba: u64, blocks: u64, max: u32) -> Result<Extent, Sense> {
    let extent = disk
        .geometry()
        .extent(lba, blocks)
        .ok_or(Sense::OUT_OF_RANGE)?;
    if extent.len() > u64::from(max) {
        return Err(Sense::INVALID_FIELD);
    }
    Ok(extent)
}

/// RDPROTECT, WRPROTECT or VRPROTECT other than 0 ask for what is not there. Commands of six bytes
/// have a part of the address in that place.
pub(super) fn no_protection(request: &Request<'_>) -> Result<(), Sense> {
    let has_it = request.cdb.opcode() >> 5 != 0;
    if has_it && request.cdb.bit(1, 0xe0) {
        return Err(Sense::INVALID_FIELD.at(1));
    }
    Ok(())
}

/// The end of a command that changed the disk, or made it durable.
pub(super) fn written(result: block::Result<()>) -> Response {
    match result {
        Ok(()) => Response::good(),
        Err(error) => Sense::from_disk(&error, Doing::Writing).into(),
    }
}

pub(super) fn total(data: &[Bytes]) -> u64 {
    data.iter().map(|bytes| bytes.len() as u64).sum()
}

/// Where a write command writes.
pub(super) struct Target {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) exclusion: Arc<Exclusion>,
    extent: Extent,
}

impl Target {
    pub(super) fn parse(request: &Request<'_>) -> Result<Self, Sense> {
        let disk = writable_disk(request)?;
        no_protection(request)?;
        Ok(Target {
            disk: disk.clone(),
            exclusion: request.unit.exclusion.clone(),
            extent: extent(request, disk.as_ref(), MAX_TRANSFER)?,
        })
    }

    /// The command, once its data are here: `work` gets the whole blocks that there are data for, which
    /// are all, unless the initiator expected to send less than its command says.
    pub(super) fn pending(
        self,
        work: impl FnOnce(Target, Extent, Vec<Bytes>) -> Answer<Response> + Send + 'static,
    ) -> Start {
        if self.extent.is_empty() {
            return Response::good().into();
        }
        Start::Data(Pending::new(self.extent.len(), move |mut data| {
            let block = u64::from(self.disk.geometry().block_size);
            let extent = self.extent.part(0, total(&data) / block * block);
            truncate(&mut data, extent.len());
            work(self, extent, data)
        }))
    }
}

/// Cuts data to `len` bytes.
fn truncate(data: &mut Vec<Bytes>, len: u64) {
    let mut left = len;
    data.retain_mut(|bytes| {
        bytes.truncate(left as usize);
        left -= bytes.len() as u64;
        !bytes.is_empty()
    });
}
