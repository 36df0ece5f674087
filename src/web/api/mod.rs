//! `/api/v1`: what the command line does while a server runs, and the dashboard.
//!
//! Each call is registered together with its document, so that none can be without one.

mod accounts;
mod clients;
mod etag;
mod events;
mod extract;
mod images;
mod jobs;
mod problems;
mod sessions;
mod volumes;

pub(super) use sessions::kick;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Serialize;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;

use super::Problem;
use crate::daemon::Server;
use extract::{Body, Named};

/// No call needs more than a list of kernel arguments.
const MAX_BODY: usize = 256 << 10;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "netroot",
        description = "Images, clients and sessions of a netroot server.\n\n\
            Every act takes `dry_run`, which tells what would be done and does nothing. Refusals are \
            problem details (RFC 9457). What can be changed by several people has an `ETag`; a change \
            that names it in `If-Match` is refused with 412 when somebody else was quicker.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "clients", description = "Machines: what they boot, and the acts on their disks"),
        (name = "images", description = "Lines of versions, and which one clients get"),
        (name = "events", description = "Who did what, and what each client did"),
        (name = "jobs", description = "Long work that a worker does: builds, updates, upgrades"),
        (name = "accounts", description = "Users, and tokens of programs; managed by people, not by tokens"),
        (name = "volumes", description = "Files and block devices that are published as they are"),
        (name = "sessions", description = "Where the server is reached, what it publishes, who is connected"),
    )
)]
struct About;

/// Everything under `/api/v1`, and the document that tells of it. Each request has to carry a
/// [`super::Who`].
pub(super) fn api(server: Arc<Server>) -> Router {
    let (v1, document) = described();
    let text: Arc<str> = document.to_json().unwrap_or_default().into();
    let v1 = v1
        .route(
            "/api/v1/openapi.json",
            axum::routing::get(move || {
                let text = text.clone();
                async move {
                    let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
                    (kind, text.to_string())
                }
            }),
        )
        .route("/api/v1/{*nowhere}", axum::routing::any(nowhere))
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn(etag::not_modified))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    v1.with_state(server)
}

/// The document of the whole API.
pub(super) fn document() -> Document {
    described().1
}

fn described() -> (Router<Arc<Server>>, Document) {
    let v1 = OpenApiRouter::new()
        .merge(accounts::routes())
        .merge(clients::routes())
        .merge(events::routes())
        .merge(images::routes())
        .merge(jobs::routes())
        .merge(sessions::routes())
        .merge(volumes::routes());
    OpenApiRouter::with_openapi(About::openapi())
        .nest("/api/v1", v1)
        .split_for_parts()
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
