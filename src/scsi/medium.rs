//! Reading, writing and verifying blocks (SBC-3 §5).

use std::sync::Arc;

use bytes::Bytes;

use super::cdb::Cdb;
use super::command::Request;
use super::response::{Pending, Response, Start};
use super::sense::{Doing, Sense};
use super::unit::{Kind, Unit};
use crate::block::{self, Answer, Disk, Extent, Segment};

/// Most bytes of one command, told as MAXIMUM TRANSFER LENGTH.
pub(super) const MAX_TRANSFER: u32 = 4 * 1024 * 1024;
/// The size of commands that is asked for.
pub(super) const OPTIMAL_TRANSFER: u32 = 1024 * 1024;

/// READ(6), (10), (12), (16).
pub(super) fn read(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?;
    // RDPROTECT: there is no protection information.
    no_protection(request)?;
    let extent = extent(request, disk.as_ref(), MAX_TRANSFER)?;
    let answer = disk.read(extent).map(|result| match result {
        Ok(segments) => Response::with(segments),
        Err(error) => Sense::from_disk(&error, Doing::Reading).into(),
    });
    Ok(Start::Done(answer))
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
    let target = Target::parse(request)?;
    // FUA, which WRITE(6) does not have.
    let after = if request.cdb.opcode() != 0x0a && request.cdb.bit(1, 0x08) {
        After::Flush
    } else {
        After::Nothing
    };
    Ok(target.pending(after))
}

/// WRITE AND VERIFY(10), (12), (16): durable, which is as far as the storage lets anybody verify.
pub(super) fn write_and_verify(request: &Request<'_>) -> Result<Start, Sense> {
    Ok(Target::parse(request)?.pending(After::Flush))
}

/// VERIFY(10), (12), (16).
pub(super) fn verify(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?;
    no_protection(request)?;
    let extent = extent(request, disk.as_ref(), MAX_TRANSFER)?;
    let block = u64::from(disk.geometry().block_size);
    let expected = match (request.cdb.byte(1) >> 1) & 0x03 {
        0 => 0,
        1 => extent.len(),
        3 => block.min(extent.len()),
        _ => return Err(Sense::INVALID_FIELD.at(1)),
    };
    let disk = disk.clone();
    if expected == 0 {
        return Ok(Start::Done(compare(disk, extent, None)));
    }
    Ok(Start::Data(Pending::new(expected, move |data| {
        if total(&data) < expected {
            return Answer::Now(Sense::NOT_ENOUGH_DATA.into());
        }
        compare(disk, extent, Some(data.concat().into()))
    })))
}

/// SYNCHRONIZE CACHE(10), (16): the whole disk, whatever range is named.
pub(super) fn synchronize(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?;
    let (lba, blocks) = request.cdb.blocks();
    if disk.geometry().extent(lba, blocks).is_none() {
        return Err(Sense::OUT_OF_RANGE);
    }
    Ok(Start::Done(disk.flush().map(written)))
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

fn total(data: &[Bytes]) -> u64 {
    data.iter().map(|bytes| bytes.len() as u64).sum()
}

/// What a write command does when the blocks are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Flush,
}

/// Where a write command writes.
struct Target {
    disk: Arc<dyn Disk>,
    lba: u64,
    extent: Extent,
}

impl Target {
    fn parse(request: &Request<'_>) -> Result<Self, Sense> {
        let disk = writable_disk(request)?;
        no_protection(request)?;
        Ok(Target {
            disk: disk.clone(),
            lba: request.cdb.blocks().0,
            extent: extent(request, disk.as_ref(), MAX_TRANSFER)?,
        })
    }

    fn pending(self, after: After) -> Start {
        if self.extent.is_empty() {
            return Response::good().into();
        }
        Start::Data(Pending::new(self.extent.len(), move |data| {
            self.write(data, after)
        }))
    }

    /// Writes the whole blocks that there are data for: all of them, unless the initiator expected to
    /// send less than its command says.
    fn write(self, mut data: Vec<Bytes>, after: After) -> Answer<Response> {
        let geometry = self.disk.geometry();
        let block = u64::from(geometry.block_size);
        let blocks = total(&data).min(self.extent.len()) / block;
        let Some(extent) = geometry.extent(self.lba, blocks) else {
            return Answer::Now(Sense::OUT_OF_RANGE.into());
        };
        truncate(&mut data, extent.len());
        let answer = self.disk.write(extent, data);
        if after == After::Nothing {
            return answer.map(written);
        }
        let disk = self.disk;
        Answer::Later(Box::pin(async move {
            match answer.wait().await {
                Ok(()) => written(disk.flush().wait().await),
                Err(error) => written(Err(error)),
            }
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

/// Reads an extent and compares it: with the data, with one block over and over, or with nothing.
fn compare(disk: Arc<dyn Disk>, extent: Extent, expected: Option<Bytes>) -> Answer<Response> {
    let check = move |result: block::Result<Bytes>| match (result, expected) {
        (Err(error), _) => Sense::from_disk(&error, Doing::Reading).into(),
        (Ok(_), None) => Response::good(),
        (Ok(found), Some(expected)) => match first_difference(&found, &expected) {
            None => Response::good(),
            Some(at) => Sense {
                information: u64::try_from(at).ok(),
                ..Sense::MISCOMPARE
            }
            .into(),
        },
    };
    let loaded = |result: block::Result<Vec<Segment>>| match result {
        Ok(segments) => block::load(segments),
        Err(error) => Answer::Now(Err(error)),
    };
    match disk.read(extent) {
        Answer::Now(result) => loaded(result).map(check),
        Answer::Later(future) => {
            Answer::Later(Box::pin(
                async move { check(loaded(future.await).wait().await) },
            ))
        }
    }
}

fn first_difference(found: &[u8], expected: &[u8]) -> Option<usize> {
    found
        .iter()
        .zip(expected.iter().cycle())
        .position(|(a, b)| a != b)
}
