//! SANITIZE (SBC-3 §4.11, §5.20): everything on the disk is destroyed, and no abort, reset or end of a
//! session stops it.
//!
//! What is destroyed is what the storage lets anybody overwrite. A file system that shares or moves
//! blocks keeps older ones for itself, so only an owner who knows better allows this command.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::cdb::Cdb;
use super::command::{INQUIRY, REPORT_LUNS, REQUEST_SENSE};
use super::device::settled;
use super::medium::{total, writable_disk};
use super::request::Request;
use super::response::{Pending, Response, Start};
use super::running::Aborted;
use super::sense::Sense;
use super::unit::{ReservationStore, Unit};
use crate::block::{self, Answer, Disk, Extent};

const SANITIZE: u8 = 0x48;
/// Bytes that are overwritten at a time.
const PIECE: u64 = 1024 * 1024;
/// Parts of such a piece that are told apart at a time.
const MOST_RUNS: usize = 256;
/// No sanitization is over sooner: other initiators, which are told of it when they ask only, get to
/// see that it takes place.
const LEAST: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 10 });
/// Bytes of an overwrite's parameter list before the pattern.
const LIST_HEADER: u64 = 4;

/// How the sanitization of a unit stands.
pub(super) struct Sanitation {
    phase: AtomicU8,
    /// In parts of 65,536.
    progress: AtomicU16,
    store: Option<Arc<dyn ReservationStore>>,
}

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
/// It has failed, and the initiator may leave it at that (AUSE was set).
const FAILED: u8 = 2;
/// It has failed, and another is all that is left.
const FAILED_FOR_GOOD: u8 = 3;

impl Sanitation {
    /// One that was under way when the last server ended has failed.
    pub(super) fn open(store: Option<Arc<dyn ReservationStore>>) -> Self {
        let kept = store.as_ref().map(|store| store.load());
        let phase = match kept {
            None | Some(Ok(None)) => IDLE,
            Some(Ok(Some(state))) => match state.first() {
                None => IDLE,
                Some(&FAILED) => FAILED,
                Some(_) => FAILED_FOR_GOOD,
            },
            Some(Err(error)) => {
                tracing::error!(%error, "reading whether a disk was being sanitized");
                FAILED_FOR_GOOD
            }
        };
        Sanitation {
            phase: AtomicU8::new(phase),
            progress: AtomicU16::new(0),
            store,
        }
    }

    /// What stands in the way of a command.
    pub(super) fn admits(&self, cdb: &Cdb) -> Result<(), Sense> {
        let Some(sense) = self.sense() else {
            return Ok(());
        };
        // SBC-3 §4.11.2: those that tell of the unit and of its ports go on.
        match cdb.opcode() {
            INQUIRY | REQUEST_SENSE | REPORT_LUNS | 0x4d | 0xa3 => Ok(()),
            SANITIZE if sense.key != Sense::SANITIZING.key => Ok(()),
            _ => Err(sense),
        }
    }

    /// What there is to tell, and how far it is.
    pub(super) fn sense(&self) -> Option<Sense> {
        match self.phase.load(Ordering::SeqCst) {
            IDLE => None,
            RUNNING => Some(Sense {
                progress: Some(self.progress.load(Ordering::Relaxed)),
                ..Sense::SANITIZING
            }),
            _ => Some(Sense::SANITIZE_FAILED),
        }
    }

    /// Takes the unit for a sanitization. Nobody else has. One that may be left after a failure cannot
    /// take the place of one that may not (SBC-4 §4.11.1): what nobody was to see would be seen.
    /// Gives how it stood before.
    fn begin(&self, may_exit: bool) -> Result<u8, Sense> {
        let begin = |phase| match phase {
            RUNNING => None,
            FAILED_FOR_GOOD if may_exit => None,
            _ => Some(RUNNING),
        };
        let was = self
            .phase
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, begin)
            .map_err(|phase| match phase {
                RUNNING => Sense::SANITIZING,
                _ => Sense::INVALID_FIELD.at(1).bit(5),
            })?;
        self.progress.store(0, Ordering::Relaxed);
        Ok(was)
    }

    /// Keeps durably that this is how it stands, for the next server.
    async fn keep(&self, state: &'static [u8]) -> io::Result<()> {
        let Some(store) = self.store.clone() else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || store.save(state))
            .await
            .map_err(io::Error::other)?
    }
}

/// What a sanitization leaves.
enum Leaves {
    /// Zeros, unmapped where the disk can.
    Nothing,
    /// A pattern, that so many passes wrote.
    Pattern {
        block: Vec<u8>,
        passes: u8,
        /// Each pass writes the complement of what the one before has written.
        invert: bool,
    },
}

/// SANITIZE, OVERWRITE.
pub(super) fn overwrite(request: &Request<'_>) -> Result<Start, Sense> {
    let job = Job::parse(request)?;
    let len = u64::from(request.cdb.be16(7));
    let block = u64::from(job.disk.geometry().block_size);
    // SBC-3 §5.20.2: one byte of pattern at least, and a block at most.
    if len <= LIST_HEADER || len > LIST_HEADER + block {
        return Err(Sense::INVALID_FIELD.at(7));
    }
    let pending = Pending::new(len, move |data| {
        if total(&data) < len {
            return Answer::Now(Sense::PARAMETER_LENGTH.into());
        }
        match pattern(&data.concat(), block as usize) {
            Ok(leaves) => job.start(leaves),
            Err(sense) => Answer::Now(sense.into()),
        }
    });
    Ok(Start::Data(pending.detached()))
}

/// The parameter list of OVERWRITE.
fn pattern(list: &[u8], block: usize) -> Result<Leaves, Sense> {
    let [flags, _, l0, l1, rest @ ..] = list else {
        return Err(Sense::PARAMETER_LENGTH);
    };
    let passes = flags & 0x1f;
    if passes == 0 {
        return Err(Sense::INVALID_PARAMETER.in_parameter(0).bit(4));
    }
    // TEST: what it would do is up to vendors.
    if flags & 0x60 != 0 {
        return Err(Sense::INVALID_PARAMETER.in_parameter(0).bit(6));
    }
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    let pattern = rest.get(..len).filter(|pattern| !pattern.is_empty());
    let pattern = pattern.ok_or(Sense::INVALID_PARAMETER.in_parameter(2))?;
    Ok(Leaves::Pattern {
        block: pattern.iter().copied().cycle().take(block).collect(),
        passes,
        invert: flags & 0x80 != 0,
    })
}

/// SANITIZE, BLOCK ERASE.
pub(super) fn block_erase(request: &Request<'_>) -> Result<Start, Sense> {
    let job = Job::parse(request)?;
    no_list(request)?;
    let pending = Pending::new(0, move |_| job.start(Leaves::Nothing));
    Ok(Start::Data(pending.detached()))
}

/// SANITIZE, EXIT FAILURE MODE.
pub(super) fn exit_failure_mode(request: &Request<'_>) -> Result<Start, Sense> {
    reserved(request)?;
    no_list(request)?;
    let sanitation = &request.unit.sanitation;
    match sanitation.phase.load(Ordering::SeqCst) {
        // AUSE was 0 (SBC-3 §5.20.5).
        FAILED_FOR_GOOD => return Err(Sense::INVALID_FIELD.at(1).bit(4)),
        FAILED => {}
        _ => return Ok(Response::good().into()),
    }
    let sanitation = sanitation.clone();
    Ok(Start::Done(Answer::Later(Box::pin(async move {
        if let Err(error) = sanitation.keep(&[]).await {
            tracing::error!(%error, "keeping that a disk is in use in spite of a sanitization that failed");
            return Sense::INTERNAL.into();
        }
        let order = Ordering::SeqCst;
        let _ = sanitation
            .phase
            .compare_exchange(FAILED, IDLE, order, order);
        Response::good()
    }))))
}

fn no_list(request: &Request<'_>) -> Result<(), Sense> {
    match request.cdb.be16(7) {
        0 => Ok(()),
        _ => Err(Sense::INVALID_FIELD.at(7)),
    }
}

/// ZNR is for zoned disks, and the bytes behind are reserved: what destroys everything is obeyed only
/// if it is understood to the last bit.
fn reserved(request: &Request<'_>) -> Result<(), Sense> {
    let cdb = &request.cdb;
    if cdb.bit(1, 0x40) {
        return Err(Sense::INVALID_FIELD.at(1).bit(6));
    }
    match (2..7u16).find(|at| cdb.byte(usize::from(*at)) != 0) {
        None => Ok(()),
        Some(at) => Err(Sense::INVALID_FIELD.at(at)),
    }
}

/// A sanitization that has been asked for.
struct Job {
    unit: Arc<Unit>,
    disk: Arc<dyn Disk>,
    immediate: bool,
    /// AUSE.
    may_exit: bool,
}

impl Job {
    fn parse(request: &Request<'_>) -> Result<Self, Sense> {
        reserved(request)?;
        Ok(Job {
            unit: request.unit.clone(),
            disk: writable_disk(request)?.clone(),
            immediate: request.cdb.bit(1, 0x80),
            may_exit: request.cdb.bit(1, 0x20),
        })
    }

    /// Starts it. The answer comes when it is over, unless IMMED was set; it goes on whoever waits.
    fn start(self, leaves: Leaves) -> Answer<Response> {
        let was = match self.unit.sanitation.begin(self.may_exit) {
            Ok(was) => was,
            Err(sense) => return Answer::Now(sense.into()),
        };
        // In this order: who has not seen the phase began before, and is waited for or refused. What is
        // in the place of a unit that is closed by now sees it.
        let before = self.unit.wipe();
        if self.unit.is_closed() {
            self.unit.sanitation.phase.store(was, Ordering::SeqCst);
            return Answer::Now(Sense::NO_UNIT.into());
        }
        let immediate = self.immediate;
        let work = tokio::spawn(self.run(leaves, before));
        if immediate {
            return Answer::Now(Response::good());
        }
        Answer::Later(Box::pin(async move {
            match work.await {
                Ok(Ok(())) => Response::good(),
                Ok(Err(())) | Err(_) => Sense::SANITIZE_FAILED.into(),
            }
        }))
    }

    async fn run(self, leaves: Leaves, before: Vec<Aborted>) -> Result<(), ()> {
        settled(before).await;
        let sanitation = &self.unit.sanitation;
        let (failed, state): (u8, &'static [u8]) = if self.may_exit {
            (FAILED, &[FAILED])
        } else {
            (FAILED_FOR_GOOD, &[FAILED_FOR_GOOD])
        };
        let done = async {
            sanitation.keep(state).await?;
            self.wipe(leaves).await.map_err(io::Error::other)?;
            sanitation.keep(&[]).await
        };
        let result = done.await;
        let phase = match &result {
            Ok(()) => IDLE,
            Err(error) => {
                tracing::error!(%error, "sanitizing a disk");
                failed
            }
        };
        sanitation.phase.store(phase, Ordering::SeqCst);
        result.map_err(|_| ())
    }

    async fn wipe(&self, leaves: Leaves) -> block::Result<()> {
        let geometry = self.disk.geometry();
        let Some(whole) = geometry.extent(0, geometry.blocks) else {
            return Ok(());
        };
        self.disk.scrub().wait().await?;
        match leaves {
            Leaves::Nothing => {
                // What unmapping leaves in the storage is zeros as well. Holes are zeros already, and to
                // fill them may take more room than there is.
                let zeros = vec![0; geometry.block_size as usize];
                self.pass(whole, Pass::over_what_is_mapped(&zeros)).await?;
                if geometry.thin {
                    self.disk.unmap(whole).wait().await?;
                }
                self.disk.flush().wait().await
            }
            Leaves::Pattern {
                mut block,
                passes,
                invert,
            } => {
                let turn = |block: &mut Vec<u8>| {
                    if invert {
                        block.iter_mut().for_each(|byte| *byte = !*byte);
                    }
                };
                // The last pass leaves the pattern as it was given, so an even number of them begins with
                // its complement (SBC-4 §4.11.4.2).
                if passes.is_multiple_of(2) {
                    turn(&mut block);
                }
                for number in 0..passes {
                    let pass = Pass {
                        block: &block,
                        number,
                        passes,
                        only_mapped: false,
                    };
                    self.pass(whole, pass).await?;
                    turn(&mut block);
                }
                Ok(())
            }
        }
    }

    /// Writes a block over all others, durably.
    async fn pass(&self, whole: Extent, pass: Pass<'_>) -> block::Result<()> {
        let began = Instant::now();
        let least = LEAST / u32::from(pass.passes);
        let piece = Bytes::from(pass.block.repeat(PIECE as usize / pass.block.len().max(1)));
        for i in 0..whole.len().div_ceil(PIECE) {
            let extent = whole.part(i * PIECE, PIECE);
            if pass.only_mapped {
                self.fill_mapped(extent, &piece).await?;
            } else {
                self.fill(extent, &piece).await?;
            }
            let done = (i * PIECE + extent.len()) as f64 / whole.len() as f64;
            let all = (f64::from(pass.number) + done) / f64::from(pass.passes);
            let progress = (all * f64::from(u16::MAX)) as u16;
            self.unit
                .sanitation
                .progress
                .store(progress, Ordering::Relaxed);
            tokio::time::sleep_until(began + least.mul_f64(done)).await;
        }
        self.disk.flush().wait().await
    }

    /// Writes as much of `piece` over an extent no longer than it.
    async fn fill(&self, extent: Extent, piece: &Bytes) -> block::Result<()> {
        let data = piece.slice(..extent.len() as usize);
        self.disk.write(extent, vec![data]).wait().await
    }

    /// The same, but for holes.
    async fn fill_mapped(&self, extent: Extent, piece: &Bytes) -> block::Result<()> {
        let mut at = 0;
        while at < extent.len() {
            let rest = extent.part(at, extent.len() - at);
            let runs = self.disk.mapping(rest, MOST_RUNS).wait().await?;
            if runs.iter().all(|run| run.len == 0) {
                // Nothing is known of it.
                return self.fill(rest, piece).await;
            }
            for run in runs {
                if run.mapped {
                    self.fill(extent.part(at, run.len), piece).await?;
                }
                at += run.len;
            }
        }
        Ok(())
    }
}

/// One way over the whole disk.
struct Pass<'a> {
    block: &'a [u8],
    number: u8,
    passes: u8,
    only_mapped: bool,
}

impl<'a> Pass<'a> {
    /// The only one, which leaves holes as they are.
    fn over_what_is_mapped(block: &'a [u8]) -> Self {
        Pass {
            block,
            number: 0,
            passes: 1,
            only_mapped: true,
        }
    }
}
