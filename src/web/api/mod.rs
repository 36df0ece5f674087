//! `/api/v1`: what the command line does while a server runs, and the dashboard.
//!
//! Each call is registered together with its document, so that none can be without one.

mod accounts;
mod clients;
mod document;
mod etag;
mod events;
mod extract;
mod groups;
mod images;
mod jobs;
mod problems;
mod rollouts;
mod sessions;
mod volumes;

pub(super) use document::document;
pub(super) use sessions::kick;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Serialize;

use super::Problem;
use crate::daemon::Server;
use extract::{Body, Named};

/// No call needs more than a list of kernel arguments.
const MAX_BODY: usize = 256 << 10;

/// Everything under `/api/v1`, and the document that tells of it. Each request has to carry a
/// [`super::Who`].
pub(super) fn api(server: Arc<Server>) -> Router {
    let (v1, _) = document::described();
    let v1 = v1
        .route("/api/v1/{*nowhere}", axum::routing::any(nowhere))
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY));
    v1.with_state(server)
}

type Answer<T> = Result<Json<T>, Problem>;

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no such resource in this API; /api/v1/openapi.json tells what there is",
    )
}

async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this resource does not have that method",
    )
}

fn answer(value: impl Serialize) -> Response {
    Json(value).into_response()
}
