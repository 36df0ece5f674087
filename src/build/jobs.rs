//! Jobs: the plans of this floor, done for somebody who is not there to watch.
//!
//! What a person at a terminal would see goes to the job's log and progress; the interrupt key is the
//! mark in its document that says that nobody wants it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::Serialize;

use super::change::{Change, ChangeRequest, change};
use super::diff::{Changes, Times, Trust, diff};
use super::image::{BuildRequest, image};
use super::promote::{Asked, PromoteRequest, promote};
use super::trial::{Tried, trial_of};
use super::verify::verify;
use super::watch::{Watch, chain};
use super::work::{Built, Keep};
use super::{Custom, InitramfsCheck, Scrub};
use crate::exec::Cancel;
use crate::library::{
    BuildTask, Claim, Ending, Job, JobOutcome, JobProgress, Library, LiveSession, MacAddr,
    Progress, PromoteTask, Task, VersionId,
};

/// Who knows which sessions a client has now: the running server, if there is one.
pub type Connected<'a> = &'a (dyn Fn(&MacAddr) -> Result<Vec<LiveSession>> + Sync);

/// Who can boot a version to see whether it comes up: that takes a target, which is above this floor.
pub type Trials<'a> = &'a (dyn Fn(&VersionId, &Cancel, &dyn Watch) -> Result<Tried> + Sync);

/// How often a job's document is asked whether it is still wanted.
const LOOK: Duration = Duration::from_millis(500);
/// How often progress is written at most.
const SHOW: Duration = Duration::from_millis(250);
/// Largest report that is kept. Between two releases of a distribution it has some 30 MiB.
const LARGEST_REPORT: usize = 128 << 20;

/// What a promotion would bring, before anything is sealed.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// The version that the disk was made from.
    pub from: VersionId,
    /// What it became since; nothing where the disk cannot be looked into.
    pub changes: Option<Changes>,
}

/// Does a job, and writes down how it ended. `stop` says that this worker is to end: then the job
/// waits for the next one.
///
/// # Errors
/// When how it ended cannot be written down. That it failed is no error.
pub fn run_job(
    library: &Library,
    claim: Claim<'_>,
    connected: Connected<'_>,
    trials: Trials<'_>,
    stop: &Cancel,
) -> Result<Job> {
    let unwanted = AtomicBool::new(false);
    let cancel = Cancel::new();
    let (over, is_over) = mpsc::channel::<()>();
    let done = thread::scope(|scope| {
        let (claim, unwanted, cancel) = (&claim, &unwanted, &cancel);
        scope.spawn(move || {
            // Ends at once when the work does: the other end is dropped then.
            while is_over.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                // A document that cannot be read now may be read the next time.
                if claim.is_cancelled().unwrap_or(false) {
                    unwanted.store(true, Ordering::Relaxed);
                }
                if unwanted.load(Ordering::Relaxed) || stop.is_cancelled() {
                    cancel.cancel();
                }
            }
        });
        let done = perform(library, claim, connected, trials, cancel);
        drop(over);
        done
    });
    let ending = match done {
        Ok(outcome) => Ending::Done(outcome),
        Err(_) if unwanted.load(Ordering::Relaxed) => Ending::Cancelled,
        Err(_) if cancel.is_cancelled() => Ending::Again,
        Err(error) => Ending::Failed(chain(&error)),
    };
    let id = claim.job().id;
    claim
        .finish(ending)
        .with_context(|| format!("writing down how job {id} ended"))
}

fn perform(
    library: &Library,
    claim: &Claim<'_>,
    connected: Connected<'_>,
    trials: Trials<'_>,
    cancel: &Cancel,
) -> Result<JobOutcome> {
    let watch = &Written::new(claim, cancel);
    match &claim.job().task {
        Task::Build(task) => image(library, &build_request(task), cancel, watch).map(sealed),
        Task::Update(task) => {
            let to = task.image.image.clone();
            let changes = vec![Change::Update];
            let mut request = ChangeRequest::new(task.image.clone(), to, changes);
            request.size = task.size;
            change(library, &request, cancel, watch).map(sealed_or_not)
        }
        Task::Upgrade(task) => {
            let release = task.release.to_string();
            let changes = vec![Change::Upgrade { release }];
            let mut request = ChangeRequest::new(task.from.clone(), task.to.clone(), changes);
            request.size = task.size;
            change(library, &request, cancel, watch).map(sealed_or_not)
        }
        Task::Promote(task) => {
            let asked = Agreed { task, connected };
            promote(
                library,
                &promote_request(claim, task),
                &asked,
                cancel,
                watch,
            )
            .map(sealed)
        }
        Task::PreviewPromotion(task) => {
            let preview = preview(library, claim, task, connected, cancel, watch)?;
            report(claim, &preview)
        }
        Task::Diff(task) => {
            let (a, b) = (library.version(&task.a)?, library.version(&task.b)?);
            let versions = [&a, &b];
            let (times, trust) = (Times::Ignored, Trust::Inodes);
            report(
                claim,
                &diff(library, versions, times, trust, cancel, watch)?,
            )
        }
        Task::Verify(task) => {
            let version = library.version(&task.version)?;
            let verdict = verify(library, &version, cancel, watch)?;
            Ok(JobOutcome::Verdict {
                version: verdict.version,
                damage: verdict.damage,
            })
        }
        Task::Test(task) => {
            let tried = trials(&task.version, cancel, watch)?;
            let version = library.version(&task.version)?;
            let trial = trial_of(&version, &tried, &claim.job().by, Timestamp::now());
            Ok(JobOutcome::Tested {
                version: task.version.clone(),
                failed: tried.failed,
                published: library.record_trial(trial, task.publish)?,
            })
        }
    }
}

fn build_request(task: &BuildTask) -> BuildRequest {
    let mut request = BuildRequest::new(task.image.clone(), task.from.clone().into());
    request.packages = task.packages.iter().map(ToString::to_string).collect();
    request.custom = Custom {
        hostname: task.hostname.as_ref().map(ToString::to_string),
        authorized_keys: task
            .authorized_keys
            .iter()
            .map(ToString::to_string)
            .collect(),
        ..Custom::default()
    };
    request.filesystem = task.filesystem;
    request.size = task.size;
    request
}

fn promote_request(claim: &Claim<'_>, task: &PromoteTask) -> PromoteRequest {
    PromoteRequest {
        client: task.client,
        image: task.image.clone(),
        check: InitramfsCheck::default(),
        scrub: Scrub::default(),
        keep: Keep::default(),
        by: claim.job().by.clone(),
    }
}

fn sealed(built: Built) -> JobOutcome {
    JobOutcome::Version {
        version: built.version,
        warnings: built.warnings,
    }
}

fn sealed_or_not(built: Option<Built>) -> JobOutcome {
    built.map_or(JobOutcome::UpToDate, sealed)
}

fn report(claim: &Claim<'_>, found: &impl Serialize) -> Result<JobOutcome> {
    let json = serde_json::to_vec(found).context("writing the report")?;
    if json.len() > LARGEST_REPORT {
        bail!(
            "the report would have {} MiB, more than a page can show: ask for it by `netroot image \
             diff`",
            json.len() >> 20
        );
    }
    Ok(claim.keep_report(&json)?)
}

/// Goes as far as the question, and takes it for an answer.
fn preview(
    library: &Library,
    claim: &Claim<'_>,
    task: &PromoteTask,
    connected: Connected<'_>,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Preview> {
    let client = library.client(&task.client)?;
    let asked = Looking {
        agreed: Agreed { task, connected },
        seen: Mutex::new(None),
    };
    let request = promote_request(claim, task);
    let stopped = promote(library, &request, &asked, cancel, watch);
    let seen = asked
        .seen
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match (seen, stopped) {
        (Some(changes), Err(_)) => {
            let from = client.clone.context("the client's disk is gone")?.from;
            Ok(Preview { from, changes })
        }
        (_, Err(error)) => Err(error),
        (_, Ok(built)) => bail!("{} was sealed although nobody agreed", built.version),
    }
}

/// Who queued a promotion agreed to it.
struct Agreed<'a> {
    task: &'a PromoteTask,
    connected: Connected<'a>,
}

impl Asked for Agreed<'_> {
    fn sessions(&self) -> Result<Vec<LiveSession>> {
        (self.connected)(&self.task.client)
    }

    fn agree(&self, _: Option<&Changes>) -> Result<()> {
        Ok(())
    }
}

/// Looks at what would be promoted, and does not agree.
struct Looking<'a> {
    agreed: Agreed<'a>,
    seen: Mutex<Option<Option<Changes>>>,
}

impl Asked for Looking<'_> {
    fn sessions(&self) -> Result<Vec<LiveSession>> {
        self.agreed.sessions()
    }

    fn agree(&self, changes: Option<&Changes>) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(changes.cloned());
        bail!("nothing was to be done")
    }
}

/// A watch that writes to the job's log and progress.
struct Written<'a> {
    claim: &'a Claim<'a>,
    cancel: &'a Cancel,
    at: Mutex<At>,
}

/// How far the work is, as far as it was told.
#[derive(Default)]
struct At {
    step: u32,
    says: String,
    total: Option<u64>,
    done: u64,
    shown: Option<Instant>,
}

impl<'a> Written<'a> {
    fn new(claim: &'a Claim<'a>, cancel: &'a Cancel) -> Self {
        Self {
            claim,
            cancel,
            at: Mutex::default(),
        }
    }

    fn show(&self, at: &mut At) {
        at.shown = Some(Instant::now());
        self.claim.show_progress(&JobProgress {
            step: at.step,
            says: at.says.clone(),
            fraction: at.total.filter(|total| *total > 0).map(|total| {
                #[allow(clippy::cast_precision_loss)] // a bar has no more than some hundred pixels
                let fraction = at.done as f64 / total as f64;
                fraction.min(1.0)
            }),
        });
    }
}

impl Progress for Written<'_> {
    fn step(&self, what: &str, total: Option<u64>) {
        self.claim.log_step(what);
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = At {
            step: at.step + 1,
            says: what.to_owned(),
            total,
            ..At::default()
        };
        self.show(&mut at);
    }

    fn advance(&self, bytes: u64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.done = at.done.saturating_add(bytes);
        if at.shown.is_none_or(|shown| shown.elapsed() >= SHOW) {
            self.show(&mut at);
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Watch for Written<'_> {
    fn line(&self, text: &str) {
        self.claim.log_line(text);
    }

    fn warn(&self, text: &str) {
        self.claim.log_warning(text);
    }
}
