//! A job in the hands of a worker.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::log::Log;
use super::{Job, JobId, JobOutcome, JobProgress, JobState, Part};
use crate::library::error::{Doing, Error, Result};
use crate::library::{HostName, Library, document, lock, owner};

/// A job that this process does. Dropping it without an ending is what a killed worker does.
#[derive(Debug)]
pub struct Claim<'a> {
    library: &'a Library,
    job: Job,
    // Lines come from the threads that read what programs write.
    log: Mutex<Log>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It is done.
    Done(JobOutcome),
    /// It could not be done, for this reason.
    Failed(String),
    /// Whoever asked for it does not want it any more.
    Cancelled,
    /// The worker ends, and another one is to do it.
    Again,
}

/// What a worker of this process is called.
pub fn this_worker() -> String {
    let host = HostName::here().map_or_else(|| "this host".to_owned(), |host| host.to_string());
    format!("{host} (process {})", std::process::id())
}

impl Library {
    /// Takes the oldest job that waits. `worker` says who does it.
    pub fn claim_job(&self, worker: &str) -> Result<Option<Claim<'_>>> {
        let lock = self.write_lock()?;
        for id in self.job_ids()? {
            // One that cannot be understood is for a person to look at, and stops nobody else's.
            let Some(mut job) = self.read_job(id).ok().flatten() else {
                continue;
            };
            if job.state != JobState::Queued {
                continue;
            }
            let path = self.job_file(id, Part::Log);
            let log = Log::open(&path).doing("opening", &path)?;
            if !lock::try_whole(log.file()).doing("locking", &path)? {
                continue; // a program that an ended worker was starting has it for a moment
            }
            job.state = JobState::Running {
                since: Timestamp::now(),
                worker: worker.to_owned(),
            };
            self.write_job(&lock, &mut job)?;
            return Ok(Some(Claim {
                library: self,
                job,
                log: Mutex::new(log),
            }));
        }
        Ok(None)
    }

    /// Finds jobs whose worker was killed, and writes down that they failed.
    pub fn settle_jobs(&self) -> Result<Vec<JobId>> {
        let mut settled = Vec::new();
        for id in self.job_ids()? {
            if !self.is_abandoned(id)? {
                continue;
            }
            let lock = self.write_lock()?;
            // Now that nobody writes: it may have ended in this moment.
            if !self.is_abandoned(id)? {
                continue;
            }
            let Some(mut job) = self.read_job(id)? else {
                continue;
            };
            let at = Timestamp::now();
            job.state = match job.cancel {
                true => JobState::Cancelled { at },
                false => {
                    let why = "the worker was killed, or its host went down; nothing half was left: \
                               ask for it again";
                    let why = why.to_owned();
                    JobState::Failed { at, why }
                }
            };
            self.write_job(&lock, &mut job)?;
            drop(lock);
            let what = match job.cancel {
                true => "job-cancelled",
                false => "job-failed",
            };
            let event = job.event(what, &job.by);
            self.note(&event.with("why", "the worker was killed"));
            settled.push(id);
        }
        Ok(settled)
    }

    /// Whether a job's document says that it runs, and nobody holds its log.
    fn is_abandoned(&self, id: JobId) -> Result<bool> {
        let Some(job) = self.read_job(id).ok().flatten() else {
            return Ok(false);
        };
        if !matches!(job.state, JobState::Running { .. }) {
            return Ok(false);
        }
        let path = self.job_file(id, Part::Log);
        match File::open(&path) {
            Ok(file) => Ok(!lock::is_held(&file).doing("looking at the lock of", &path)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error).doing("opening", &path),
        }
    }
}

impl Claim<'_> {
    /// The job, as it was when it was claimed.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// A step begins.
    pub fn log_step(&self, what: &str) {
        self.append("*", what);
    }

    /// A program wrote a line.
    pub fn log_line(&self, text: &str) {
        self.append(" ", text);
    }

    /// A person should know this.
    pub fn log_warning(&self, text: &str) {
        self.append("!", text);
    }

    /// What it does right now. Readers see the last one or this one; after a crash there is none.
    pub fn show_progress(&self, progress: &JobProgress) {
        let path = self.library.job_file(self.job.id, Part::Progress);
        let new = path.with_extension("progress.new");
        let shown = serde_json::to_vec(progress)
            .map_err(std::io::Error::other)
            .and_then(|text| {
                owner::acting_for(&self.library.places().jobs(), || {
                    // Not one that was there: it may be a link, or a pipe that nobody reads.
                    let _ = fs::remove_file(&new);
                    fs::File::create_new(&new)?.write_all(&text)?;
                    fs::rename(&new, &path)
                })
            });
        if let Err(error) = shown {
            // The work is what counts.
            tracing::debug!(
                "the progress of job {} cannot be written: {error}",
                self.job.id
            );
        }
    }

    /// Whether somebody asked to stop it.
    pub fn is_cancelled(&self) -> Result<bool> {
        let job = self.library.read_job(self.job.id)?;
        Ok(job.is_some_and(|job| job.cancel))
    }

    /// Keeps a report, which the outcome then tells of.
    pub fn keep_report(&self, json: &[u8]) -> Result<JobOutcome> {
        let path = self.library.job_file(self.job.id, Part::Report);
        document::replace(&path, json, 0o644)?;
        Ok(JobOutcome::Report {
            bytes: json.len() as u64,
        })
    }

    /// Writes down how it ended, durably. Whoever finds the document so finds all of the log.
    pub fn finish(self, ending: Ending) -> Result<Job> {
        match &ending {
            Ending::Done(_) => {}
            Ending::Failed(why) => self.log_warning(why),
            Ending::Cancelled => self.log_warning("cancelled; nothing half was left"),
            Ending::Again => self.log_warning("the worker ends; another one begins again"),
        }
        // Its lines are no promise, but its order is: an ending never comes before its log.
        if let Err(error) = self.log().sync() {
            tracing::warn!("the log of job {} cannot be synced: {error}", self.job.id);
        }
        let library = self.library;
        let lock = library.write_lock()?;
        let id = self.job.id;
        let there = library.read_job(id)?;
        let mut job = there.ok_or_else(|| Error::unknown("job", id))?;
        let at = Timestamp::now();
        let (state, what) = match ending {
            Ending::Done(result) => (JobState::Done { at, result }, "job-done"),
            Ending::Failed(why) => (JobState::Failed { at, why }, "job-failed"),
            Ending::Cancelled => (JobState::Cancelled { at }, "job-cancelled"),
            Ending::Again if job.cancel => (JobState::Cancelled { at }, "job-cancelled"),
            Ending::Again => (JobState::Queued, "job-requeue"),
        };
        job.state = state;
        library.write_job(&lock, &mut job)?;
        // What it did last is of no use any more; one that stays is not shown.
        let progress = library.job_file(id, Part::Progress);
        let _ = owner::acting_for(&library.places().jobs(), || fs::remove_file(progress));
        drop(lock);
        let mut event = job.event(what, &job.by);
        match &job.state {
            JobState::Failed { why, .. } => event = event.with("why", why.clone()),
            JobState::Done {
                result: JobOutcome::Version { version, .. },
                ..
            } => event = event.with("version", version.to_string()),
            _ => {}
        }
        library.note(&event);
        Ok(job)
    }

    fn append(&self, mark: &str, text: &str) {
        // A full disk ends the work by itself; that its log is short as well stops nothing.
        // What a program said about its failure may have several lines.
        let written = text
            .lines()
            .try_for_each(|line| self.log().line(mark, line));
        if let Err(error) = written {
            tracing::debug!("the log of job {} cannot be written: {error}", self.job.id);
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic between two writes leaves whole lines.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
