//! Commands that read and write, or write, as one (SBC-3 §5.2, §5.12; SBC-4 §5.52).

use std::sync::Arc;

use bytes::Bytes;

use super::medium::{
    MAX_TRANSFER, Target, extent_of, forces_unit_access, no_protection, writable_disk, written,
};
use super::request::Request;
use super::response::{Pending, Response, Start};
use super::sense::{Doing, Sense};
use super::verify::{first_difference, miscompare};
use crate::block::{self, Answer, Disk, Extent};

/// Most blocks of one COMPARE AND WRITE: what its byte can name.
pub(super) const MAX_COMPARE_BLOCKS: u8 = u8::MAX;

/// COMPARE AND WRITE: half of its data are what the blocks must be, the other half what they become.
pub(super) fn compare_and_write(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let disk = writable_disk(request)?.clone();
    no_protection(request)?;
    let blocks = u64::from(cdb.byte(13));
    let extent = extent_of(disk.as_ref(), cdb.be64(2), blocks, MAX_TRANSFER)?;
    let through = forces_unit_access(request);
    let exclusion = request.unit.exclusion.clone();
    let len = extent.len() as usize;
    let pending = Pending::new(2 * extent.len(), move |data| {
        // SBC-3 §5.2: no blocks are not an error.
        if extent.is_empty() {
            return Answer::Now(Response::good());
        }
        Answer::Later(Box::pin(async move {
            let mut expected = Bytes::from(data.concat());
            let new = expected.split_off(len);
            let _claim = exclusion.alone(extent.range()).await;
            match load(&disk, extent).await {
                Err(sense) => sense.into(),
                Ok(found) => match first_difference(&found, &expected) {
                    Some(at) => miscompare(at).into(),
                    None => put(disk, extent, new, through).await,
                },
            }
        }))
    });
    // A part of either half decides nothing.
    Ok(Start::Data(pending.exactly()))
}

/// ORWRITE(16): bits are set, and none is cleared.
pub(super) fn or_write(request: &Request<'_>) -> Result<Start, Sense> {
    let through = forces_unit_access(request);
    Ok(
        Target::parse(request)?.pending(move |target, extent, data| {
            Answer::Later(Box::pin(async move {
                let mut bits = data.concat();
                let _claim = target.exclusion.alone(extent.range()).await;
                match load(&target.disk, extent).await {
                    Err(sense) => sense.into(),
                    Ok(found) => {
                        for (bits, found) in bits.iter_mut().zip(&found) {
                            *bits |= found;
                        }
                        put(target.disk, extent, bits.into(), through).await
                    }
                }
            }))
        }),
    )
}

/// WRITE ATOMIC(16): all of it or nothing, whether this process, its host or their power fails. That is
/// what databases make use of, so it is what MAXIMUM ATOMIC TRANSFER LENGTH tells; a disk that cannot
/// keep it has no such command.
pub(super) fn write_atomic(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    let disk = writable_disk(request)?.clone();
    no_protection(request)?;
    // ATOMIC BOUNDARY: none is told in block limits.
    if cdb.be16(10) != 0 {
        return Err(Sense::INVALID_FIELD.at(10));
    }
    let most = disk.geometry().atomic.min(MAX_TRANSFER);
    let blocks = u64::from(cdb.be16(12));
    let extent =
        extent_of(disk.as_ref(), cdb.be64(2), blocks, most).map_err(|sense| match sense {
            Sense::INVALID_FIELD => sense.at(12),
            sense => sense,
        })?;
    if extent.is_empty() {
        return Ok(Response::good().into());
    }
    let exclusion = request.unit.exclusion.clone();
    let pending = Pending::new(extent.len(), move |data| {
        Answer::Later(Box::pin(async move {
            let _claim = exclusion.alone(extent.range()).await;
            written(disk.write_atomic(extent, data).wait().await)
        }))
    });
    // A part of the blocks would not be all of them.
    Ok(Start::Data(pending.exactly()))
}

async fn load(disk: &Arc<dyn Disk>, extent: Extent) -> Result<Bytes, Sense> {
    let read = async {
        let segments = disk.read(extent).wait().await?;
        block::load(segments).wait().await
    };
    read.await
        .map_err(|error: block::Error| Sense::from_disk(&error, Doing::Reading))
}

async fn put(disk: Arc<dyn Disk>, extent: Extent, data: Bytes, through: bool) -> Response {
    let answer = if through {
        disk.write_through(extent, vec![data])
    } else {
        disk.write(extent, vec![data])
    };
    written(answer.wait().await)
}
