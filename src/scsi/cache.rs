//! SYNCHRONIZE CACHE and PRE-FETCH (SBC-3 §5.7, §5.8, §5.22, §5.23).

use std::sync::Arc;

use super::medium::{disk, written};
use super::request::Request;
use super::response::{Response, Start, Status};
use super::sense::Sense;
use crate::block::{self, Advice, Answer, Disk, Extent};

/// Most bytes that one PRE-FETCH brings in.
pub(super) const MAX_PREFETCH: u32 = 16 * 1024 * 1024;
/// Bytes that are in memory here at a time while they are read into the cache.
const PIECE: u64 = 1024 * 1024;

/// SYNCHRONIZE CACHE(10), (16): the whole disk, whatever range is named.
pub(super) fn synchronize(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?;
    let (lba, blocks) = request.cdb.blocks();
    if disk.geometry().extent(lba, blocks).is_none() {
        return Err(Sense::OUT_OF_RANGE);
    }
    let flush = disk.flush();
    // IMMED: the command ends before the work does, unless much such work is waiting already.
    if request.cdb.bit(1, 0x02)
        && let Ok(place) = request.unit.unwaited.clone().try_acquire_owned()
        && let Answer::Later(flush) = flush
    {
        tokio::spawn(async move {
            // A disk that has failed to flush fails every later flush as well, which tells of it.
            if let Err(error) = flush.await {
                tracing::error!(%error, "flushing a disk, as an initiator asked without waiting");
            }
            drop(place);
        });
        return Ok(Response::good().into());
    }
    Ok(Start::Done(flush.map(written)))
}

/// PRE-FETCH(10), (16). As much as [`MAX_PREFETCH`] is read; CONDITION MET says that this was all, GOOD
/// that the cache does not take all.
pub(super) fn prefetch(request: &Request<'_>) -> Result<Start, Sense> {
    let disk = disk(request)?.clone();
    let (lba, mut blocks) = request.cdb.blocks();
    let geometry = disk.geometry();
    if blocks == 0 {
        // Up to the last block.
        blocks = geometry.blocks.saturating_sub(lba);
    }
    let extent = geometry.extent(lba, blocks).ok_or(Sense::OUT_OF_RANGE)?;
    let block = u64::from(geometry.block_size);
    let fits = extent.part(0, u64::from(MAX_PREFETCH) / block * block);
    // IMMED: that it has been asked for is enough.
    let immediate = request.cdb.bit(1, 0x02);
    Ok(Start::Done(Answer::Later(Box::pin(async move {
        let cached = disk.advise(fits, Advice::Soon).wait().await;
        // What cannot be read is told by the command that needs it.
        let there = cached && (immediate || bring_in(disk, fits).await.is_ok());
        let status = if there && fits.len() == extent.len() {
            Status::ConditionMet
        } else {
            Status::Good
        };
        Response {
            status,
            ..Response::good()
        }
    }))))
}

/// Reads an extent, for the cache to have it.
async fn bring_in(disk: Arc<dyn Disk>, extent: Extent) -> block::Result<()> {
    for i in 0..extent.len().div_ceil(PIECE) {
        let segments = disk.read(extent.part(i * PIECE, PIECE)).wait().await?;
        block::load(segments).wait().await?;
    }
    Ok(())
}
