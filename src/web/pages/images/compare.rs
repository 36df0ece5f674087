//! Two versions side by side: what a job found out about them, and the form that asks for it.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;

use super::named;
use crate::daemon::Server;
use crate::library::{self, DiffTask, Image, Job, JobState, Library, Task, VersionId};
use crate::web::blocking;
use crate::web::pages::jobs::{JobHead, queue, report_of};
use crate::web::pages::page::{Failure, Html, Page};
use crate::web::pages::report::{Report, Sought};
use crate::web::pages::text;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/images/diff", get(show).post(compare))
}

/// The page where two versions stand side by side.
pub(in crate::web::pages) fn comparison(a: &VersionId, b: &VersionId) -> String {
    let encoded = |version: &VersionId| text::encoded(&version.to_string());
    format!("/images/diff?a={}&b={}", encoded(a), encoded(b))
}

#[derive(Template)]
#[template(path = "image-diff.html")]
struct DiffPage {
    page: Page,
    versions: Vec<VersionId>,
    asked: Asked,
    /// What is known of the two that were asked for.
    known: Option<Known>,
}

/// Two versions that are to be compared.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    a: String,
    b: String,
}

struct Known {
    a: VersionId,
    b: VersionId,
    /// The job that compares them, or did.
    job: Option<JobHead>,
    report: Option<Report>,
}

impl DiffPage {
    /// The job that the page waits for.
    fn waits_for(&self) -> Option<&Job> {
        let head = self.known.as_ref()?.job.as_ref()?;
        (!head.job.state.is_final()).then_some(&head.job)
    }

    /// Whether it makes sense to ask for the comparison.
    fn may_ask(&self, known: &Known) -> bool {
        self.page.who.operates()
            && known.a != known.b
            && known.report.is_none()
            && self.waits_for().is_none()
    }
}

impl Known {
    /// Without the report.
    fn of(library: &Library, a: VersionId, b: VersionId) -> library::Result<Known> {
        // There are such versions, or the page says so.
        library.version(&a)?;
        library.version(&b)?;
        let job = latest(library, &a, &b)?;
        let job = job.map(|job| JobHead { job });
        let report = None;
        Ok(Known { a, b, job, report })
    }
}

/// The job that has compared two versions, or else the newest that was asked to. Versions never
/// change, and a number is never used again: what was found out stays true.
fn latest(library: &Library, a: &VersionId, b: &VersionId) -> library::Result<Option<Job>> {
    let task = Task::Diff(DiffTask {
        a: a.clone(),
        b: b.clone(),
    });
    let mut jobs = library.jobs()?;
    jobs.retain(|job| job.task == task);
    let done = jobs
        .iter()
        .position(|job| matches!(job.state, JobState::Done { .. }));
    let chosen = done.unwrap_or(0);
    Ok(jobs.into_iter().nth(chosen))
}

async fn show(
    State(server): State<Arc<Server>>,
    page: Page,
    Query(asked): Query<Asked>,
    Query(sought): Query<Sought>,
) -> Result<Html<DiffPage>, Failure> {
    let pair = match (asked.a.as_str(), asked.b.as_str()) {
        ("", _) | (_, "") => None,
        (a, b) => Some((named(a)?, named(b)?)),
    };
    let found = blocking(&server, move |server| {
        let library = server.library();
        library.settle_jobs()?;
        let known = pair.map(|(a, b)| Known::of(library, a, b));
        let images = library.images()?;
        let versions = images.iter().flat_map(Image::ids).collect();
        Ok((versions, known.transpose()?))
    });
    let (versions, mut known) = found.await?;
    if let Some(known) = &mut known
        && let Some(head) = &known.job
    {
        let kept = vec![("a", known.a.to_string()), ("b", known.b.to_string())];
        known.report = report_of(&server, &page.who, &head.job, sought, kept).await?;
    }
    Ok(Html(DiffPage {
        page,
        versions,
        asked,
        known,
    }))
}

/// Asks a worker for a comparison that nobody has asked for yet.
async fn compare(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(asked): Form<Asked>,
) -> Result<Response, Failure> {
    let (a, b): (VersionId, VersionId) = (named(&asked.a)?, named(&asked.b)?);
    let to = comparison(&a, &b);
    let task = DiffTask { a, b };
    let (one, other) = (task.a.clone(), task.b.clone());
    let known = blocking(&server, move |server| {
        latest(server.library(), &one, &other)
    });
    let is_known = known.await?.is_some_and(|job| match job.state {
        JobState::Queued | JobState::Running { .. } | JobState::Done { .. } => true,
        JobState::Failed { .. } | JobState::Cancelled { .. } => false,
    });
    if is_known || task.a == task.b {
        return Ok(Redirect::to(&to).into_response());
    }
    Ok(queue(&server, page, Task::Diff(task), &to, Some(&to)).await)
}
