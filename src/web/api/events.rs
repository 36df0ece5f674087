//! `/events`: who did what, looked for and exported.

use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Answer;
use crate::daemon::Server;
use crate::library::{Events, Filter, Format};
use crate::web::body::while_logged_in;
use crate::web::{Problem, Who, reading};

/// Events that are read at a time for an export.
const PART: u16 = 1000;

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(jsonl))
        .routes(routes!(csv))
}

/// A page of events, the newest first
///
/// All conditions hold; an empty one is none. `next` of a page is `after` of the next one.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(Filter),
    responses(
        (status = 200, body = Events),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "You wait for many such answers already", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn events(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Answer<Events> {
    let Query(filter) = filter.map_err(wrong)?;
    part(&server, &who, &filter).await.map(axum::Json)
}

/// All events that conditions let through, as JSON lines
#[utoipa::path(
    get,
    path = "/events.jsonl",
    tag = "events",
    params(Filter),
    responses(
        (status = 200, body = String, content_type = "application/jsonl"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "You wait for many such answers already", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn jsonl(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    export(server, who, filter, Format::Jsonl).await
}

/// All events that conditions let through, as comma-separated values
#[utoipa::path(
    get,
    path = "/events.csv",
    tag = "events",
    params(Filter),
    responses(
        (status = 200, body = String, content_type = "text/csv"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "You wait for many such answers already", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn csv(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    export(server, who, filter, Format::Csv).await
}

/// All of them, however many, as they are read: nothing waits in memory for a slow reader.
async fn export(
    server: Arc<Server>,
    who: Who,
    filter: Result<Query<Filter>, QueryRejection>,
    format: Format,
) -> Result<Response, Problem> {
    let Query(mut filter) = filter.map_err(wrong)?;
    filter.limit = PART;
    // The first part before the answer begins: what cannot be read is a problem then, and later only
    // an end that comes too early.
    let first = part(&server, &who, &filter).await?;
    let heading = format.heading().to_owned() + &lines(&first, format);
    let asks = who.clone();
    let rest = stream::try_unfold(first.next, move |next| {
        let (server, who, mut filter) = (server.clone(), asks.clone(), filter.clone());
        async move {
            if next.is_none() {
                return Ok(None);
            }
            filter.after = next;
            let found = part(&server, &who, &filter).await;
            let found = found.map_err(|problem| io::Error::other(problem.detail))?;
            let text = lines(&found, format);
            Ok::<_, io::Error>(Some((text, found.next)))
        }
    });
    let parts = stream::iter([Ok(heading)]).chain(rest);
    let name = match format {
        Format::Jsonl => "attachment; filename=\"events.jsonl\"",
        Format::Csv => "attachment; filename=\"events.csv\"",
    };
    let headers = [
        (header::CONTENT_TYPE, format.media_type()),
        (header::CONTENT_DISPOSITION, name),
    ];
    let body = while_logged_in(who, Body::from_stream(parts));
    Ok((headers, body).into_response())
}

fn lines(found: &Events, format: Format) -> String {
    let lines = found.events.iter().map(|recorded| format.line(recorded));
    lines.collect()
}

async fn part(server: &Arc<Server>, who: &Who, filter: &Filter) -> Result<Events, Problem> {
    let filter = filter.clone();
    reading(server, who, move |server, patience| {
        let library = server.library();
        library.events_until(&filter, &|| patience.is_over())
    })
    .await
}

fn wrong(rejection: QueryRejection) -> Problem {
    Problem::invalid(rejection.body_text())
}
