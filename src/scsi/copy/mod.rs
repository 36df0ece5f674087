//! EXTENDED COPY(LID1) (SPC-4 §6.4): copies between units that the initiator gets to by this very
//! nexus, and never anything else.

use std::sync::Arc;

use self::list::{Cscd, List, Segment};
use self::results::{Outcome, Underway};
use super::itl::Itl;
use super::request::Request;
use super::reservations::Access;
use super::response::{Pending, Response, Start, Stop};
use super::running::Fate;
use super::sense::{Doing, Sense};
use super::unit::Kind;
use crate::block::{self, Answer, Disk, Extent};

mod list;
mod results;

pub(super) use self::results::{Held, failure, operating_parameters, page, status};

/// EXTENDED COPY(LID1).
pub(super) fn extended_copy(request: &Request<'_>) -> Result<Start, Sense> {
    let len = request.cdb.be32(10);
    if len == 0 {
        return Ok(Response::good().into());
    }
    if len > results::MAX_LIST {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let reach: Vec<Arc<Itl>> = request.units.values().cloned().collect();
    let own = request.itl.clone();
    let stop = Stop::default();
    let asked = stop.clone();
    let pending = Pending::new(u64::from(len), move |data| {
        match List::parse(&data.concat()) {
            Ok(list) => Answer::Later(Box::pin(async move {
                match copy(own, reach, list, asked).await {
                    Ok(()) => Response::good(),
                    Err(sense) => sense.into(),
                }
            })),
            Err(sense) => Answer::Now(sense.into()),
        }
    });
    Ok(Start::Data(pending.stopped_by(stop)))
}

/// Copies one segment after the other, and keeps what became of it. A copy may go on for minutes: who
/// aborts it waits for the end of a segment, not for that of the list.
async fn copy(own: Arc<Itl>, reach: Vec<Arc<Itl>>, list: List, stop: Stop) -> Result<(), Sense> {
    let working = own.running.begin();
    let kept = list.keep.map(|id| Underway::begin(&own, id)).transpose()?;
    let mut outcome = Outcome::default();
    for segment in &list.segments {
        let copied = if stop.is_asked() || working.fate() != Fate::Alive {
            Err(Sense::COPY_ABORTED)
        } else {
            copy_segment(&reach, &list.cscds, segment).await
        };
        match copied {
            Ok(bytes) => {
                outcome.segments += 1;
                outcome.bytes += bytes;
            }
            Err(sense) => outcome.failure = Some(sense),
        }
        if let Some(kept) = &kept {
            kept.note(&outcome);
        }
        if outcome.failure.is_some() {
            break;
        }
    }
    outcome.failure.map_or(Ok(()), Err)
}

/// One end of a copy.
struct End<'a> {
    itl: &'a Arc<Itl>,
    disk: &'a Arc<dyn Disk>,
}

async fn copy_segment(reach: &[Arc<Itl>], cscds: &[Cscd], segment: &Segment) -> Result<u64, Sense> {
    let source = End::find(reach, cscds, segment.source)?;
    let target = End::find(reach, cscds, segment.target)?;
    // Who takes a unit away, or resets it, waits for the copies from and to it.
    let working = [&source, &target].map(|end| end.itl.running.begin());
    if working.iter().any(|working| working.fate() != Fate::Alive) {
        return Err(Sense::COPY_UNREACHABLE);
    }
    source.allow(Access::Read)?;
    target.allow(Access::Write)?;
    if target.disk.geometry().read_only || target.itl.unit.settings.protected() {
        return Err(Sense::COPY_FAILED);
    }
    let counted = if segment.counts_target {
        &target
    } else {
        &source
    };
    let bytes = u64::from(segment.blocks) * u64::from(counted.disk.geometry().block_size);
    let from = source.extent(segment.source_lba, bytes)?;
    let to = target.extent(segment.target_lba, bytes)?;
    let _claims = claims(&source, from, &target, to).await;
    block::copy(source.disk.clone(), from, target.disk.clone(), to)
        .wait()
        .await
        .map_err(|error| match error {
            block::Error::OutOfSpace => Sense::from_disk(&error, Doing::Writing),
            block::Error::ReadOnly | block::Error::Failed(_) => Sense::COPY_FAILED,
        })?;
    if target.itl.unit.settings.write_through() {
        let flushed = target.disk.flush().wait().await;
        flushed.map_err(|_| Sense::COPY_FAILED)?;
    }
    Ok(bytes)
}

/// Keeps commands that have to be alone off both extents. Units are asked in one order by all copies,
/// so that none waits for another.
async fn claims(source: &End<'_>, from: Extent, target: &End<'_>, to: Extent) -> impl Sized {
    let (a, b) = (&source.itl.unit.exclusion, &target.itl.unit.exclusion);
    let (from, to) = (from.range(), to.range());
    if Arc::ptr_eq(a, b) {
        let both = from.start.min(to.start)..from.end.max(to.end);
        return (a.clone().shared(both).await, None);
    }
    if Arc::as_ptr(a) < Arc::as_ptr(b) {
        let first = a.clone().shared(from).await;
        (first, Some(b.clone().shared(to).await))
    } else {
        let first = b.clone().shared(to).await;
        (first, Some(a.clone().shared(from).await))
    }
}

impl<'a> End<'a> {
    /// The unit that a CSCD descriptor names, among those that the initiator gets to.
    fn find(reach: &'a [Arc<Itl>], cscds: &[Cscd], index: u16) -> Result<Self, Sense> {
        let cscd = cscds
            .get(usize::from(index))
            .ok_or(Sense::COPY_UNREACHABLE)?;
        let end = reach.iter().find_map(|itl| match &itl.unit.kind {
            Kind::Disk(disk) if itl.unit.identity.is(cscd.kind, &cscd.designator) => {
                Some(End { itl, disk })
            }
            _ => None,
        });
        let end = end.ok_or(Sense::COPY_UNREACHABLE)?;
        let block_size = end.disk.geometry().block_size;
        if cscd.block_size.is_some_and(|told| told != block_size) {
            return Err(Sense::INVALID_PARAMETER);
        }
        Ok(end)
    }

    /// Neither the reservation of another initiator nor a sanitization is in the way.
    fn allow(&self, access: Access) -> Result<(), Sense> {
        let unit = &self.itl.unit;
        let allowed = !unit.reservations.are_lost()
            && unit.reservations.allow(self.itl, access)
            && unit.sanitation.sense().is_none();
        allowed.then_some(()).ok_or(Sense::COPY_FAILED)
    }

    fn extent(&self, lba: u64, bytes: u64) -> Result<Extent, Sense> {
        let geometry = self.disk.geometry();
        let block = u64::from(geometry.block_size);
        if !bytes.is_multiple_of(block) {
            return Err(Sense::INVALID_PARAMETER);
        }
        let extent = geometry.extent(lba, bytes / block);
        extent.ok_or(Sense::COPY_ABORTED)
    }
}
