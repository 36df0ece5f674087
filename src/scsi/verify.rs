//! Comparing blocks with what they should be (SBC-3 §5.29 to §5.31, §5.43 to §5.45).

use std::sync::Arc;

use bytes::Bytes;

use super::medium::{MAX_TRANSFER, Target, disk, extent, no_protection, total, written};
use super::request::Request;
use super::response::{Pending, Response, Start};
use super::sense::{Doing, Sense};
use crate::block::{self, Advice, Answer, Disk, Extent};

/// What BYTCHK asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// That the blocks can be read.
    Medium,
    /// That they are the data.
    Bytes,
    /// That each is the one block of data.
    OneBlock,
}

impl Check {
    fn parse(request: &Request<'_>) -> Result<Self, Sense> {
        match (request.cdb.byte(1) >> 1) & 0x03 {
            0 => Ok(Check::Medium),
            1 => Ok(Check::Bytes),
            3 => Ok(Check::OneBlock),
            _ => Err(Sense::INVALID_FIELD.at(1).bit(2)),
        }
    }
}

/// VERIFY(10), (12), (16).
pub(super) fn verify(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?.clone();
    no_protection(request)?;
    let extent = extent(request, disk.as_ref(), MAX_TRANSFER)?;
    let block = u64::from(disk.geometry().block_size);
    let expected = match Check::parse(request)? {
        Check::Medium => 0,
        Check::Bytes => extent.len(),
        Check::OneBlock => block.min(extent.len()),
    };
    let exclusion = request.unit.exclusion.clone();
    let compare = move |expected: Bytes| {
        let work = move || found(disk, extent);
        exclusion.beside(extent.range(), work, move |found| verdict(found, &expected))
    };
    if expected == 0 {
        return Ok(Start::Done(compare(Bytes::new())));
    }
    Ok(Start::Data(Pending::new(expected, move |data| {
        if total(&data) < expected {
            return Answer::Now(Sense::WRONG_LENGTH.into());
        }
        compare(data.concat().into())
    })))
}

/// WRITE AND VERIFY(10), (12), (16): what was written is made durable, read again and, with BYTCHK,
/// compared.
pub(super) fn write_and_verify(request: &Request<'_>) -> Result<Start, Sense> {
    let check = Check::parse(request)?;
    // One block for all is what VERIFY has; here that is reserved (SBC-4, WRITE AND VERIFY).
    if check == Check::OneBlock {
        return Err(Sense::INVALID_FIELD.at(1).bit(2));
    }
    Ok(
        Target::parse(request)?.pending(move |target, extent, data| {
            let (disk, exclusion) = (target.disk, target.exclusion);
            let work = move || -> Answer<Response> {
                Answer::Later(Box::pin(async move {
                    let expected = match check {
                        Check::Bytes => Bytes::from(data.concat()),
                        _ => Bytes::new(),
                    };
                    if let Err(error) = disk.clone().write_through(extent, data).wait().await {
                        return written(Err(error));
                    }
                    verdict(found(disk, extent).wait().await, &expected)
                }))
            };
            exclusion.beside(extent.range(), work, |response| response)
        }),
    )
}

/// What stands on the medium, and not in a cache, as far as the storage lets anybody look past it.
fn found(disk: Arc<dyn Disk>, extent: Extent) -> Answer<block::Result<Bytes>> {
    Answer::Later(Box::pin(async move {
        disk.advise(extent, Advice::Reread).wait().await;
        let segments = disk.read(extent).wait().await?;
        block::load(segments).wait().await
    }))
}

/// Whether it is what was expected, over and over if that is shorter.
fn verdict(found: block::Result<Bytes>, expected: &[u8]) -> Response {
    match found {
        Err(error) => Sense::from_disk(&error, Doing::Reading).into(),
        Ok(found) => match first_difference(&found, expected) {
            None => Response::good(),
            Some(at) => miscompare(at).into(),
        },
    }
}

/// The first byte that differs stands in INFORMATION.
pub(super) fn miscompare(at: u64) -> Sense {
    Sense {
        information: Some(at),
        ..Sense::MISCOMPARE
    }
}

/// Where two byte strings differ first; the second is repeated, and nothing is like everything.
pub(super) fn first_difference(found: &[u8], expected: &[u8]) -> Option<u64> {
    if expected.is_empty() {
        return None;
    }
    let mut at = 0;
    for part in found.chunks(expected.len()) {
        // Whole strings are compared much faster than byte by byte.
        if !expected.starts_with(part) {
            let same = part.iter().zip(expected).take_while(|(a, b)| a == b);
            return Some(at + same.count() as u64);
        }
        at += part.len() as u64;
    }
    None
}
