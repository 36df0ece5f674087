//! Who is connected now.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::page::{Html, Notice, Page};
use super::text;
use crate::daemon::{Server, SessionRow};
use crate::web::api::kick;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/live", get(live))
        .route("/live/{id}/end", post(end))
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    page: Page,
    sessions: Vec<SessionLine>,
}

/// A session; drawn alone where it has changed.
#[derive(Template)]
#[template(path = "live-row.html")]
struct SessionLine {
    session: SessionRow,
}

async fn live(State(server): State<Arc<Server>>, page: Page) -> Html<LivePage> {
    let rows = server.session_rows().into_iter();
    Html(LivePage {
        page,
        sessions: rows.map(|session| SessionLine { session }).collect(),
    })
}

async fn end(State(server): State<Arc<Server>>, page: Page, Path(id): Path<u64>) -> Response {
    let notice = match kick(&server, &page.who, id).await {
        Ok(session) => Notice::good(format!("Ended the session of {}.", session.initiator)),
        Err(problem) => Notice::bad(problem.detail),
    };
    page.then("/live", notice)
}
