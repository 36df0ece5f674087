//! `/jobs`: long work, asked for here and done by a worker.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problems::{ActRefused, LookRefused};
use super::{Answer, Body, Named};
use crate::daemon::Server;
use crate::library::{Job, JobId, LogPart, Task};
use crate::web::body::while_logged_in;
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(jobs, queue_job))
        .routes(routes!(job))
        .routes(routes!(job_log))
        .routes(routes!(job_report))
        .routes(routes!(cancel_job))
}

/// From where on a log is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct From {
    /// Byte of the log to begin at: `next` of the part before
    #[serde(default, deserialize_with = "place")]
    #[param(maximum = 4_294_967_296_i64)]
    from: u64,
}

/// Far beyond the end of any log.
const BEYOND: u64 = 1 << 32;

fn place<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        place if place <= BEYOND => Ok(place),
        place => Err(serde::de::Error::custom(format!(
            "no log is so long that byte {place} could be of it"
        ))),
    }
}

/// All jobs, the newest first
#[utoipa::path(get, path = "/jobs", tag = "jobs", responses((status = 200, body = Vec<Job>)))]
async fn jobs(State(server): State<Arc<Server>>) -> Answer<Vec<Job>> {
    blocking(&server, |server| {
        // Whoever looks is told of workers that are gone, and not that their jobs still run.
        server.library().settle_jobs()?;
        server.library().jobs()
    })
    .await
    .map(Json)
}

/// Ask for a task to be done
///
/// It waits until `netroot worker` does it. What could only fail is refused at once.
#[utoipa::path(
    post,
    path = "/jobs",
    tag = "jobs",
    request_body = Task,
    responses(
        (status = 201, body = Job, headers(("location" = String))),
        ActRefused,
    )
)]
async fn queue_job(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(task): Body<Task>,
) -> Result<Response, Problem> {
    let job = blocking(&server, move |server| {
        server.library().queue_job(task, who.actor())
    })
    .await?;
    let place = format!("/api/v1/jobs/{}", job.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(job)).into_response())
}

/// One job: how far it is, or what came of it
#[utoipa::path(
    get,
    path = "/jobs/{id}",
    tag = "jobs",
    params(("id" = JobId, Path)),
    responses(
        (status = 200, body = Job),
        LookRefused,
    )
)]
async fn job(State(server): State<Arc<Server>>, Named(id): Named<JobId>) -> Answer<Job> {
    blocking(&server, move |server| {
        server.library().settle_jobs()?;
        server.library().job(id)
    })
    .await
    .map(Json)
}

/// What a job said, from a byte of its log on
#[utoipa::path(
    get,
    path = "/jobs/{id}/log",
    tag = "jobs",
    params(("id" = JobId, Path), From),
    responses(
        (status = 200, body = LogPart),
        LookRefused,
    )
)]
async fn job_log(
    State(server): State<Arc<Server>>,
    Named(id): Named<JobId>,
    from: Result<Query<From>, QueryRejection>,
) -> Answer<LogPart> {
    let Query(From { from }) = from.map_err(|wrong| Problem::invalid(wrong.body_text()))?;
    blocking(&server, move |server| server.library().job_log(id, from))
        .await
        .map(Json)
}

/// What a diff or a preview found out
#[utoipa::path(
    get,
    path = "/jobs/{id}/report",
    tag = "jobs",
    params(("id" = JobId, Path)),
    responses(
        (status = 200, body = serde_json::Value, content_type = "application/json"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has none, or none yet", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn job_report(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(id): Named<JobId>,
    request: Request,
) -> Result<Response, Problem> {
    let file = blocking(&server, move |server| server.library().job_report_file(id)).await?;
    // From the file as it is read: nothing waits in memory for a slow reader.
    let mut response = match ServeFile::new(file).oneshot(request).await {
        Ok(response) => response.map(|body| while_logged_in(who, axum::body::Body::new(body))),
        Err(never) => match never {},
    };
    if response.status().is_success() {
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    Ok(response)
}

/// Stop a job; nothing half is left of it
#[utoipa::path(
    post,
    path = "/jobs/{id}/cancel",
    tag = "jobs",
    params(("id" = JobId, Path)),
    responses(
        (status = 200, body = Job),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is over already", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn cancel_job(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(id): Named<JobId>,
) -> Answer<Job> {
    blocking(&server, move |server| {
        server.library().cancel_job(id, who.actor())
    })
    .await
    .map(Json)
}
