//! `/jobs`: long work, asked for here and done by a worker.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;

use super::{Answer, Body};
use crate::daemon::Server;
use crate::library::{Job, JobId, LogPart, Task};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/jobs", get(jobs).post(queue_job))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/log", get(job_log))
        .route("/jobs/{id}/report", get(job_report))
        .route("/jobs/{id}/cancel", post(cancel_job))
}

/// From where on a log is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    #[serde(default)]
    from: u64,
}

async fn jobs(State(server): State<Arc<Server>>) -> Answer<Vec<Job>> {
    blocking(&server, |server| {
        // Whoever looks is told of workers that are gone, and not that their jobs still run.
        server.library().settle_jobs()?;
        server.library().jobs()
    })
    .await
    .map(Json)
}

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

async fn job(State(server): State<Arc<Server>>, Path(id): Path<JobId>) -> Answer<Job> {
    blocking(&server, move |server| {
        server.library().settle_jobs()?;
        server.library().job(id)
    })
    .await
    .map(Json)
}

async fn job_log(
    State(server): State<Arc<Server>>,
    Path(id): Path<JobId>,
    from: Result<Query<From>, axum::extract::rejection::QueryRejection>,
) -> Answer<LogPart> {
    let Query(From { from }) =
        from.map_err(|wrong| Problem::new(StatusCode::BAD_REQUEST, wrong.body_text()))?;
    blocking(&server, move |server| server.library().job_log(id, from))
        .await
        .map(Json)
}

async fn job_report(
    State(server): State<Arc<Server>>,
    Path(id): Path<JobId>,
) -> Result<Response, Problem> {
    let json = blocking(&server, move |server| server.library().job_report(id)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn cancel_job(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(id): Path<JobId>,
) -> Answer<Job> {
    blocking(&server, move |server| {
        server.library().cancel_job(id, who.actor())
    })
    .await
    .map(Json)
}
