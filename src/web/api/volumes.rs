//! `/volumes`: files and devices that are published as they are.
//!
//! They are changed by commands on the server, by who may read those files there; the server is told
//! to look at the documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Answer;
use crate::daemon::{Server, VolumeRow};
use crate::web::{Problem, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(volumes))
        .routes(routes!(refresh_volumes))
}

/// All volumes, by name, with their state and sessions
#[utoipa::path(get, path = "/volumes", tag = "volumes", responses((status = 200, body = Vec<VolumeRow>)))]
async fn volumes(State(server): State<Arc<Server>>) -> Answer<Vec<VolumeRow>> {
    blocking(&server, |server| server.volume_rows())
        .await
        .map(Json)
}

/// Look at the volumes' documents and sizes anew
///
/// Initiators are told of disks that came, grew or went. Sessions that are not allowed any more end;
/// others notice nothing.
#[utoipa::path(
    post,
    path = "/volumes/refresh",
    tag = "volumes",
    responses(
        (status = 200, body = Vec<VolumeRow>),
        (status = 500, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn refresh_volumes(State(server): State<Arc<Server>>) -> Answer<Vec<VolumeRow>> {
    blocking(&server, |server| server.refresh_volumes())
        .await
        .map(Json)
}
