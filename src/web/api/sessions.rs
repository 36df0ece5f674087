//! `/server`, `/targets` and `/sessions`: where the server is reached, what it publishes, and who is
//! connected.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problems::LookRefused;
use super::{Answer, Named};
use crate::daemon::{Doors, Reloaded, Server, SessionRow};
use crate::library::{self, Published};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(doors))
        .routes(routes!(reload))
        .routes(routes!(targets))
        .routes(routes!(sessions))
        .routes(routes!(kick_session))
}

/// Where the server is reached
#[utoipa::path(get, path = "/server", tag = "sessions", responses((status = 200, body = Doors)))]
async fn doors(State(server): State<Arc<Server>>) -> Json<Doors> {
    Json(Doors::clone(&server.doors()))
}

/// Read netroot.toml anew
///
/// Portals of the target come and go, and sessions stay: those that came in by one that goes, too. A
/// file with a mistake changes nothing. What waits for the next start is named.
#[utoipa::path(
    post,
    path = "/server/reload",
    tag = "sessions",
    responses(
        (status = 200, body = Reloaded),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn reload(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
) -> Answer<Reloaded> {
    let reloaded = server.reload(who.actor()).await;
    reloaded.map(Json).map_err(Problem::from)
}

/// What the target publishes
#[utoipa::path(get, path = "/targets", tag = "sessions", responses((status = 200, body = Vec<Published>)))]
async fn targets(State(server): State<Arc<Server>>) -> Answer<Vec<Published>> {
    blocking(&server, |server| server.library().published())
        .await
        .map(Json)
}

/// Who is connected, oldest first
#[utoipa::path(get, path = "/sessions", tag = "sessions", responses((status = 200, body = Vec<SessionRow>)))]
async fn sessions(State(server): State<Arc<Server>>) -> Json<Vec<SessionRow>> {
    Json(server.session_rows())
}

/// End a session
///
/// An initiator that reconnects comes back: to keep a client off its disk, reset or remove it.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = u64, Path)),
    responses(
        (status = 200, body = SessionRow),
        LookRefused,
    )
)]
async fn kick_session(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(id): Named<u64>,
) -> Answer<SessionRow> {
    kick(&server, &who, id).await.map(Json)
}

/// Ends a session, and records who did.
pub(in crate::web) async fn kick(
    server: &Arc<Server>,
    who: &Who,
    id: u64,
) -> Result<SessionRow, Problem> {
    let Some(session) = server.kick(id).await else {
        let why = format!("there is no session {id}; `netroot session list` shows what there is");
        return Err(Problem::new(StatusCode::NOT_FOUND, why).of_type("unknown"));
    };
    let event = library::Event::new(who.actor(), "session-kick")
        .of(&session.target)
        .with("initiator", session.initiator.clone());
    blocking(server, move |server| server.library().record(&event)).await?;
    Ok(session)
}
