//! Long work: what waits, what is being done, and how it ended.

use std::fs::File;
use std::io;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::page::{Failure, Html, Notice, Page};
use super::report::{Report, Sought};
use super::text;
use crate::daemon::{Patience, Server};
use crate::library::{self, Job, JobId, JobOutcome, JobState, Library, Task};
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, Who, blocking, reading};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/jobs", get(jobs))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/cancel", post(cancel))
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    page: Page,
    jobs: Vec<JobLine>,
}

/// A job in a list; drawn alone where it has changed.
#[derive(Template)]
#[template(path = "job-row.html")]
pub(super) struct JobLine {
    pub(super) job: Job,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    page: Page,
    state: JobHead,
    log: Vec<LogLine>,
    /// Where the part of the log that is not shown ends.
    skipped: bool,
    report: Option<Report>,
}

/// What a job is doing; drawn alone where that has changed.
#[derive(Template)]
#[template(path = "job-head.html")]
pub(super) struct JobHead {
    pub(super) job: Job,
}

/// A line of a job's log.
#[derive(Template)]
#[template(
    source = "<p id=\"line-{{ self.id() }}\" class=\"{{ self.kind() }}\">{{ text }}</p>",
    ext = "html"
)]
pub(super) struct LogLine {
    /// The byte of the log at which it begins.
    pub(super) at: u64,
    pub(super) text: String,
}

/// The list of jobs.
pub(in crate::web) struct JobsTopic;

/// One job: its state, and the lines that its log grows by.
pub(in crate::web) struct JobTopic(pub JobId);

impl Topic for JobsTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        for job in server.library().jobs()? {
            let id = format!("job-{}", job.id);
            drawing.newest("jobs", id, &JobLine { job });
        }
        Ok(())
    }
}

impl Topic for JobTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        let library = server.library();
        let job = library.job(self.0)?;
        let (text, from) = tail(library, self.0, LIVE_TAIL)?;
        for line in LogLine::lines(&text, from) {
            drawing.line("log", format!("line-{:012}", line.at), &line);
        }
        drawing.piece("job-head", &JobHead { job });
        Ok(())
    }
}

/// The last so many bytes of a job's log, in whole lines, and where they begin.
fn tail(library: &Library, id: JobId, most: u64) -> library::Result<(String, u64)> {
    // The log knows its own end: nothing is there.
    let mut at = library.job_log(id, u64::MAX)?.next.saturating_sub(most);
    let (mut text, begun) = (String::new(), at);
    loop {
        let part = library.job_log(id, at)?;
        if part.text.is_empty() {
            break;
        }
        text.push_str(&part.text);
        at = part.next;
    }
    if begun == 0 {
        return Ok((text, 0));
    }
    // It begins in the middle of a line.
    let cut = text.find('\n').map_or(text.len(), |end| end + 1);
    text.drain(..cut);
    Ok((text, begun + cut as u64))
}

/// How much of a log a page begins with, in bytes from its end.
const TAIL: u64 = 200 << 10;

/// How much a log may grow by between two looks at it, and a page that is open still have all of it.
const LIVE_TAIL: u64 = 64 << 10;

impl JobHead {
    fn has_report(job: &Job) -> bool {
        let JobState::Done { result, .. } = &job.state else {
            return false;
        };
        matches!(result, JobOutcome::Report { .. })
    }

    /// The page has more to show, or less to ask, once such a job is over: it is to be loaded anew.
    fn ends_the_page(&self) -> bool {
        let asks = matches!(self.job.task, Task::Diff(_) | Task::PreviewPromotion(_));
        asks && self.job.state.is_final()
    }

    /// Where both versions of a comparison stand side by side.
    fn comparison(&self) -> Option<String> {
        let Task::Diff(task) = &self.job.task else {
            return None;
        };
        Some(super::images::comparison(&task.a, &task.b))
    }
}

impl LogLine {
    /// Its element is found by this; it sorts by its place.
    fn id(&self) -> String {
        format!("{:012}", self.at)
    }

    fn kind(&self) -> &'static str {
        match self.text.get(..1) {
            Some("*") => "step",
            Some("!") => "warning",
            _ => "said",
        }
    }

    /// The lines of a part of a log that begins at byte `from`.
    pub(super) fn lines(text: &str, mut from: u64) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for line in text.split_inclusive('\n') {
            lines.push(LogLine {
                at: from,
                text: line.trim_end().to_owned(),
            });
            from += line.len() as u64;
        }
        lines
    }
}

/// The badge that goes with a state.
pub(super) fn badge(state: &JobState) -> &'static str {
    match state {
        JobState::Queued => "idle",
        JobState::Running { .. } => "busy",
        JobState::Done {
            result: JobOutcome::Verdict {
                damage: Some(_), ..
            },
            ..
        }
        | JobState::Done {
            result: JobOutcome::Tested {
                failed: Some(_), ..
            },
            ..
        }
        | JobState::Failed { .. } => "bad",
        JobState::Done { .. } => "good",
        JobState::Cancelled { .. } => "idle",
    }
}

/// How far the running step is, in percent.
pub(super) fn percent(job: &Job) -> Option<u64> {
    let fraction = job.progress.as_ref()?.fraction?;
    Some((fraction.clamp(0.0, 1.0) * 100.0) as u64)
}

async fn jobs(State(server): State<Arc<Server>>, page: Page) -> Result<Html<JobsPage>, Failure> {
    let jobs = blocking(&server, |server| {
        server.library().settle_jobs()?;
        server.library().jobs()
    })
    .await?;
    Ok(Html(JobsPage {
        page,
        jobs: jobs.into_iter().map(|job| JobLine { job }).collect(),
    }))
}

async fn job(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(id): Path<String>,
    Query(sought): Query<Sought>,
) -> Result<Html<JobPage>, Failure> {
    let id = named(&id)?;
    let found = blocking(&server, move |server| {
        let library = server.library();
        library.settle_jobs()?;
        let job = library.job(id)?;
        // The end of the log is what somebody wants to see who comes later.
        let (text, from) = tail(library, id, TAIL)?;
        Ok((job, text, from))
    });
    let (job, log, from) = found.await?;
    let report = report_of(&server, &page.who, &job, sought, Vec::new()).await?;
    Ok(Html(JobPage {
        page,
        state: JobHead { job },
        log: LogLine::lines(&log, from),
        skipped: from > 0,
        report,
    }))
}

/// What a job found out, if it is one of those that have a report. Takes a while where that is long.
pub(super) async fn report_of(
    server: &Arc<Server>,
    who: &Who,
    job: &Job,
    sought: Sought,
    kept: Vec<(&'static str, String)>,
) -> Result<Option<Report>, Problem> {
    if !JobHead::has_report(job) {
        return Ok(None);
    }
    let id = job.id;
    reading(server, who, move |server, patience| {
        let whole = format!("/api/v1/jobs/{id}/report");
        let opened = File::open(server.library().job_report_file(id)?);
        let report = opened.map_err(|why| why.to_string()).and_then(|file| {
            let file = Awaited { file, patience };
            Report::read(file, sought, kept, whole).map_err(|why| why.to_string())
        });
        // The page has more to show; that this is missing is seen by whoever looks after the server.
        let missing = |why: &String| {
            if !patience.is_alone() {
                tracing::warn!(job = id.number(), why, "its report cannot be read");
            }
        };
        Ok(report.inspect_err(missing).ok())
    })
    .await
}

/// A file that is read while somebody waits for it.
struct Awaited<'a> {
    file: File,
    patience: &'a Patience,
}

impl io::Read for Awaited<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.patience.is_alone() {
            true => Err(io::Error::other("nobody waits for it any more")),
            false => self.file.read(into),
        }
    }
}

async fn cancel(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = named(&id)?;
    let by = page.who.actor().clone();
    let notice = match blocking(&server, move |server| server.library().cancel_job(id, &by)).await {
        Ok(job) if job.state.is_final() => Notice::good(format!("Job {id} is cancelled.")),
        Ok(_) => Notice::good(format!(
            "Job {id} is being stopped; nothing half will be left."
        )),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then(&format!("/jobs/{id}"), notice))
}

fn named(id: &str) -> Result<JobId, Problem> {
    id.parse().map_err(Problem::invalid)
}

/// Queues a task for a page. The answer is `to`, or else the job's own page; where it is refused, `back`.
pub(super) async fn queue(
    server: &Arc<Server>,
    page: Page,
    task: Task,
    back: &str,
    to: Option<&str>,
) -> Response {
    let by = page.who.actor().clone();
    match blocking(server, move |server| server.library().queue_job(task, &by)).await {
        Ok(job) => {
            let own = format!("/jobs/{}", job.id);
            let text = format!("Asked for: {}. A worker does it.", job.task);
            page.then(to.unwrap_or(&own), Notice::good(text))
        }
        Err(problem) => page.then(back, Notice::bad(problem.detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_are_named_by_where_they_begin() {
        let lines = LogLine::lines("* a\n  é\n! c\n", 100);
        let named: Vec<_> = lines.iter().map(|line| (line.at, line.kind())).collect();
        assert_eq!(named, [(100, "step"), (104, "said"), (109, "warning")]);
    }
}
