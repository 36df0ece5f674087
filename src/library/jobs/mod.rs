//! Jobs: work that needs root and takes long, asked for by people who need neither root nor patience.
//!
//! A job is a document, so it outlives the page that asked for it and the server. A worker claims one,
//! holds a lock on its log while it runs, and writes down how it ended: a worker that was killed is told
//! by the lock that is gone.
//!
//! - `task`: what may be asked for
//! - `claim`: a job in the hands of a worker, and what became of those whose worker was killed
//! - `log`: what it said, line by line

mod claim;
mod log;
mod task;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

pub use claim::{Claim, Ending, this_worker};
pub use log::LogPart;
pub use task::{
    BuildTask, DiffTask, PromoteTask, Task, TestTask, UpdateTask, UpgradeTask, VerifyTask,
};

use super::Library;
use super::document::{self, Document};
use super::error::{Doing, Error, Result};
use super::events::{Actor, Event};
use super::lock::WriteLock;
use super::names::{NameError, VersionId};

/// So many finished jobs are kept.
const KEPT: usize = 200;
/// So many may wait: more is a program that went wrong.
const MOST_QUEUED: usize = 100;

/// The number of a job, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct JobId(u64);

/// A job's document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Counts the changes of the document.
    pub revision: u64,
    /// Its number.
    pub id: JobId,
    /// What is to be done.
    pub task: Task,
    /// Who asked for it.
    pub by: Actor,
    /// When.
    pub asked: Timestamp,
    /// How far it is.
    pub state: JobState,
    /// Somebody asked to stop it.
    pub cancel: bool,
    /// What it does right now, while it runs. Kept beside the document, which it would change four
    /// times a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<JobProgress>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum JobState {
    /// It waits for a worker.
    Queued,
    /// A worker does it.
    Running {
        /// Since when.
        since: Timestamp,
        /// Which one.
        worker: String,
    },
    /// It is done.
    Done {
        /// Since when.
        at: Timestamp,
        /// What came out of it.
        result: JobOutcome,
    },
    /// It could not be done; nothing half was left.
    Failed {
        /// Since when.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// Somebody did not want it any more.
    Cancelled {
        /// Since when.
        at: Timestamp,
    },
}

/// What came out of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobOutcome {
    /// A version was sealed.
    Version {
        /// It.
        version: VersionId,
        /// What a person should know about it.
        warnings: Vec<String>,
    },
    /// An update found nothing new, so there is no new version.
    UpToDate,
    /// A version was checked.
    Verdict {
        /// It.
        version: VersionId,
        /// What is wrong with it; nothing if it is whole.
        damage: Option<String>,
    },
    /// A version was booted.
    Tested {
        /// It.
        version: VersionId,
        /// Why it did not come up; nothing if it did.
        failed: Option<String>,
        /// Whether it became current by it.
        published: bool,
    },
    /// There is a report to read: [`Library::job_report`].
    Report {
        /// How long it is.
        bytes: u64,
    },
}

/// What a job does right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// Which step it is, from 1.
    pub step: u32,
    /// What the step does: "hashing lab".
    pub says: String,
    /// How much of the step is done, from 0 to 1, where that is known.
    pub fraction: Option<f64>,
}

/// A file of a job, beside its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Document,
    Log,
    Progress,
    Report,
}

impl JobId {
    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl PartialSchema for JobId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1))
            .into()
    }
}

impl ToSchema for JobId {}

impl TryFrom<u64> for JobId {
    type Error = NameError;

    fn try_from(number: u64) -> std::result::Result<Self, NameError> {
        number.to_string().parse()
    }
}

impl From<JobId> for u64 {
    fn from(id: JobId) -> u64 {
        id.0
    }
}

impl FromStr for JobId {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        let number = text.parse().ok().filter(|number| *number > 0);
        // In the one way that it is written, because it names files.
        let number = number.filter(|number: &u64| number.to_string() == text);
        number
            .map(JobId)
            .ok_or_else(|| NameError::new(text, "the number of a job, such as 12"))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl JobState {
    /// All words for them.
    pub const WORDS: [&str; 5] = ["queued", "running", "done", "failed", "cancelled"];

    /// Whether nothing will happen to it any more.
    pub fn is_final(&self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running { .. })
    }

    /// One of [`JobState::WORDS`].
    pub fn word(&self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running { .. } => "running",
            JobState::Done { .. } => "done",
            JobState::Failed { .. } => "failed",
            JobState::Cancelled { .. } => "cancelled",
        }
    }
}

impl Document for Job {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Part {
    fn ending(self) -> &'static str {
        match self {
            Part::Document => "json",
            Part::Log => "log",
            Part::Progress => "progress",
            Part::Report => "report",
        }
    }
}

impl Library {
    /// Asks for a task to be done, and returns at once.
    ///
    /// # Errors
    /// When it could only fail, or too many wait already.
    pub fn queue_job(&self, task: Task, actor: &Actor) -> Result<Job> {
        task.ensure_possible(self)?;
        let lock = self.write_lock()?;
        self.make_dir(&self.places().jobs())?;
        let ids = self.job_ids()?;
        let known = ids
            .iter()
            .filter_map(|id| self.read_job(*id).ok().flatten());
        let queued = known.filter(|job| job.state == JobState::Queued).count();
        if queued >= MOST_QUEUED {
            return Err(Error::refused(
                format!("queueing a job ({task})"),
                format!("{queued} jobs wait already"),
                "see that `netroot worker` runs, or cancel some",
            ));
        }
        let last = ids.last().map_or(0, |id| id.0);
        let mut job = Job {
            revision: 0,
            id: JobId(last + 1),
            task,
            by: actor.clone(),
            asked: Timestamp::now(),
            state: JobState::Queued,
            cancel: false,
            progress: None,
        };
        self.write_job(&lock, &mut job)?;
        self.prune_jobs(&lock)?;
        drop(lock);
        self.note(&job.event("job-queue", actor));
        Ok(job)
    }

    /// All jobs, the newest first. One whose document cannot be understood is left out, and the log
    /// says so.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for id in self.job_ids()?.into_iter().rev() {
            match self.read_job(id) {
                Ok(job) => jobs.extend(job.map(|job| self.with_progress(job))),
                Err(error @ Error::Document { .. }) => {
                    tracing::warn!("{}", super::error::chain(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(jobs)
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Result<Job> {
        let job = self.read_job(id)?;
        job.map(|job| self.with_progress(job))
            .ok_or_else(|| Error::unknown("job", id))
    }

    /// Takes a job back: one that waits is over at once, one that runs as soon as its worker has
    /// cleaned up.
    ///
    /// # Errors
    /// When it is over already.
    pub fn cancel_job(&self, id: JobId, actor: &Actor) -> Result<Job> {
        let lock = self.write_lock()?;
        let mut job = self
            .read_job(id)?
            .ok_or_else(|| Error::unknown("job", id))?;
        if job.state.is_final() {
            return Err(Error::refused(
                format!("cancelling job {id} ({})", job.task),
                format!("it is {} already", job.state.word()),
                "nothing is left to stop",
            ));
        }
        job.cancel = true;
        if job.state == JobState::Queued {
            let at = Timestamp::now();
            job.state = JobState::Cancelled { at };
        }
        self.write_job(&lock, &mut job)?;
        drop(lock);
        self.note(&job.event("job-cancel", actor));
        Ok(self.with_progress(job))
    }

    /// What a job found out, as JSON: the differences of a diff or of a preview.
    ///
    /// # Errors
    /// When it has none.
    pub fn job_report(&self, id: JobId) -> Result<Vec<u8>> {
        let path = self.job_report_file(id)?;
        fs::read(&path).doing("reading", &path)
    }

    /// The file of what a job found out. It may have more than a hundred megabytes.
    ///
    /// # Errors
    /// When it has none.
    pub fn job_report_file(&self, id: JobId) -> Result<PathBuf> {
        let job = self.job(id)?;
        match &job.state {
            JobState::Done {
                result: JobOutcome::Report { .. },
                ..
            } => Ok(self.job_file(id, Part::Report)),
            _ => Err(Error::refused(
                format!("reading the report of job {id} ({})", job.task),
                format!("it is {}, and has none", job.state.word()),
                "diffs and previews have one when they are done",
            )),
        }
    }

    /// Numbers of all jobs, ascending.
    fn job_ids(&self) -> Result<Vec<JobId>> {
        let names = document::names(&self.places().jobs())?;
        let mut ids: Vec<JobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    fn job_file(&self, id: JobId, part: Part) -> PathBuf {
        let name = format!("{id}.{}", part.ending());
        self.places().jobs().join(name)
    }

    fn read_job(&self, id: JobId) -> Result<Option<Job>> {
        document::read(&self.job_file(id, Part::Document))
    }

    fn write_job(&self, lock: &WriteLock, job: &mut Job) -> Result<()> {
        job.progress = None;
        document::write(lock, &self.job_file(job.id, Part::Document), job)
    }

    fn with_progress(&self, mut job: Job) -> Job {
        if matches!(job.state, JobState::Running { .. }) {
            // It is written without care for crashes: what cannot be read is not known.
            let path = self.job_file(job.id, Part::Progress);
            let text = fs::read(path).ok();
            job.progress = text.and_then(|text| serde_json::from_slice(&text).ok());
        }
        job
    }

    /// Removes the oldest finished jobs, and files whose document is gone.
    fn prune_jobs(&self, _: &WriteLock) -> Result<()> {
        let dir = self.places().jobs();
        let mut kept = 0;
        let mut gone = Vec::new();
        let ids = self.job_ids()?;
        for id in ids.iter().rev() {
            let Some(job) = self.read_job(*id).ok().flatten() else {
                continue;
            };
            kept += usize::from(job.state.is_final());
            if job.state.is_final() && kept > KEPT {
                let path = self.job_file(*id, Part::Document);
                fs::remove_file(&path).doing("removing", &path)?;
                gone.push(*id);
            }
        }
        for name in document::entries(&dir)? {
            let (Some((number, _)), false) = (name.split_once('.'), name.ends_with(".json")) else {
                continue;
            };
            let Ok(id) = number.parse::<JobId>() else {
                continue;
            };
            if gone.contains(&id) || !ids.contains(&id) {
                let path = dir.join(&name);
                fs::remove_file(&path).doing("removing", &path)?;
            }
        }
        Ok(())
    }
}

impl Job {
    /// Something about this job.
    fn event(&self, what: &str, actor: &Actor) -> Event {
        Event::new(actor, what)
            .of(&self.task.subject())
            .with("job", self.id.number())
            .with("task", self.task.to_string())
    }
}
