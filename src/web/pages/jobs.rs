//! Long work: what waits, what is being done, and how it ended.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::Value;

use super::page::{Failure, Html, Notice, Page};
use super::text;
use crate::daemon::Server;
use crate::library::{self, Job, JobId, JobOutcome, JobState, Library, Task};
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, blocking};

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

/// How two versions differ.
struct Report {
    heads: Vec<(&'static str, usize)>,
    packages: Vec<(String, String)>,
    files: Vec<(&'static str, String, String)>,
    /// How many of them are not shown.
    cut: usize,
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

/// Files of a report that a page shows; all are in what the API gives.
const MOST_FILES: usize = 2000;

/// How much of a log a page begins with, in bytes from its end.
const TAIL: u64 = 200 << 10;

/// How much a log may grow by between two looks at it, and a page that is open still have all of it.
const LIVE_TAIL: u64 = 64 << 10;

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
        JobState::Running { .. } => "warn",
        JobState::Done {
            result: JobOutcome::Verdict {
                damage: Some(_), ..
            },
            ..
        }
        | JobState::Failed { .. } => "bad",
        JobState::Done { .. } => "good",
        JobState::Cancelled { .. } => "idle",
    }
}

/// How far the running step is, in percent.
fn percent(job: &Job) -> Option<u64> {
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
) -> Result<Html<JobPage>, Failure> {
    let id = named(&id)?;
    let (job, log, from, report) = blocking(&server, move |server| {
        let library = server.library();
        library.settle_jobs()?;
        let job = library.job(id)?;
        // The end of the log is what somebody wants to see who comes later.
        let (text, from) = tail(library, id, TAIL)?;
        let has_report = matches!(
            &job.state,
            JobState::Done {
                result: JobOutcome::Report { .. },
                ..
            }
        );
        let report = has_report.then(|| library.job_report(id)).transpose()?;
        Ok((job, text, from, report))
    })
    .await?;
    let report = report.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    Ok(Html(JobPage {
        page,
        state: JobHead { job },
        log: LogLine::lines(&log, from),
        skipped: from > 0,
        report: report.as_ref().map(Report::of),
    }))
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

/// Queues a task for a page; the answer is the job's own page.
pub(super) async fn queue(server: &Arc<Server>, page: Page, task: Task, back: &str) -> Response {
    let by = page.who.actor().clone();
    match blocking(server, move |server| server.library().queue_job(task, &by)).await {
        Ok(job) => {
            let to = format!("/jobs/{}", job.id);
            page.then(&to, Notice::good(format!("Queued: {}.", job.task)))
        }
        Err(problem) => page.then(back, Notice::bad(problem.detail)),
    }
}

impl Report {
    /// What a report tells, whichever of both kinds it is: `Diff`, or a preview with its changes inside.
    fn of(json: &Value) -> Report {
        let changes = json.get("changes").unwrap_or(json);
        let list = |path: &str| {
            let found = changes.pointer(path).and_then(Value::as_array);
            found.map(Vec::as_slice).unwrap_or_default()
        };
        let text = |value: &Value, key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut packages = Vec::new();
        for (path, sign) in [("/packages/added", "+"), ("/packages/removed", "−")] {
            let told = |one: &Value| format!("{sign} {}", text(one, "version"));
            packages.extend(list(path).iter().map(|one| (text(one, "name"), told(one))));
        }
        for path in ["/packages/upgraded", "/packages/downgraded"] {
            let told = |one: &Value| format!("{} → {}", text(one, "from"), text(one, "to"));
            packages.extend(list(path).iter().map(|one| (text(one, "name"), told(one))));
        }
        packages.sort();
        let mut files = Vec::new();
        for (path, word) in [
            ("/files/added", "added"),
            ("/files/removed", "removed"),
            ("/files/changed", "changed"),
        ] {
            files.extend(list(path).iter().map(|one| {
                let aspects = one.get("aspects").map(told_aspects).unwrap_or_default();
                (word, text(one, "path"), aspects)
            }));
        }
        let count = |path: &str| list(path).len();
        let heads = vec![
            ("packages added", count("/packages/added")),
            ("packages removed", count("/packages/removed")),
            ("packages upgraded", count("/packages/upgraded")),
            ("packages downgraded", count("/packages/downgraded")),
            ("files added", count("/files/added")),
            ("files removed", count("/files/removed")),
            ("files changed", count("/files/changed")),
        ];
        let cut = files.len().saturating_sub(MOST_FILES);
        files.truncate(MOST_FILES);
        Report {
            heads,
            packages,
            files,
            cut,
        }
    }
}

/// `mode, owner`: what of a file has changed, by the names that the report has for it.
fn told_aspects(aspects: &Value) -> String {
    let one = |aspect: &Value| match aspect {
        Value::String(word) => word.clone(),
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let aspects = aspects.as_array().into_iter().flatten();
    aspects.map(one).collect::<Vec<_>>().join(", ")
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

    #[test]
    fn a_report_is_counted_and_listed() {
        let json = serde_json::json!({ "changes": {
            "packages": { "added": [{ "name": "vim", "version": "9" }], "removed": [], "downgraded": [],
                "upgraded": [{ "name": "bash", "from": "5.1", "to": "5.2" }] },
            "files": { "added": [], "removed": [],
                "changed": [{ "path": "/etc/motd", "kind": "file", "aspects": ["content", { "mode": 1 }] }] },
        } });
        let report = Report::of(&json);
        assert_eq!(report.packages[0], ("bash".into(), "5.1 → 5.2".into()));
        assert_eq!(report.files[0].2, "content, mode");
        assert!(report.heads.contains(&("files changed", 1)));
    }
}
