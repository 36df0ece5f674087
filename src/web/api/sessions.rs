//! `/server`, `/targets` and `/sessions`: where the server is reached, what it publishes, and who is
//! connected.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};

use super::Answer;
use crate::daemon::{Doors, Server, SessionRow};
use crate::library::{self, Published};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/server", get(doors))
        .route("/targets", get(targets))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", delete(kick_session))
}

async fn doors(State(server): State<Arc<Server>>) -> Json<Doors> {
    Json(server.doors().clone())
}

async fn targets(State(server): State<Arc<Server>>) -> Answer<Vec<Published>> {
    blocking(&server, |server| server.library().published())
        .await
        .map(Json)
}

async fn sessions(State(server): State<Arc<Server>>) -> Json<Vec<SessionRow>> {
    Json(server.session_rows())
}

async fn kick_session(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(id): Path<u64>,
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
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no session {id}; `netroot session list` shows what there is"),
        ));
    };
    let event = library::Event::new(who.actor(), "session-kick")
        .of(&session.target)
        .with("initiator", session.initiator.clone());
    blocking(server, move |server| server.library().record(&event)).await?;
    Ok(session)
}
