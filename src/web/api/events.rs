//! `/events`: who did what, looked for and exported.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Answer;
use crate::daemon::Server;
use crate::library::{Events, Filter, Format};
use crate::web::{Problem, blocking};

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
    )
)]
async fn events(
    State(server): State<Arc<Server>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Answer<Events> {
    let Query(filter) = filter.map_err(wrong)?;
    blocking(&server, move |server| server.library().events(&filter))
        .await
        .map(axum::Json)
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
    )
)]
async fn jsonl(
    State(server): State<Arc<Server>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    export(server, filter, Format::Jsonl).await
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
    )
)]
async fn csv(
    State(server): State<Arc<Server>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    export(server, filter, Format::Csv).await
}

/// All of them, however many, as they are read: nothing waits in memory for a slow reader.
async fn export(
    server: Arc<Server>,
    filter: Result<Query<Filter>, QueryRejection>,
    format: Format,
) -> Result<Response, Problem> {
    let Query(mut filter) = filter.map_err(wrong)?;
    filter.limit = PART;
    // The first part before the answer begins: what cannot be read is a problem then, and later only
    // an end that comes too early.
    let first = part(&server, &filter).await?;
    let parts = stream::unfold(Some((first, true)), move |part_and_place| {
        let (server, mut filter) = (server.clone(), filter.clone());
        async move {
            let (found, is_first) = part_and_place?;
            let heading = if is_first { format.heading() } else { "" };
            let lines = found.events.iter().map(|recorded| format.line(recorded));
            let text = std::iter::once(heading.to_owned())
                .chain(lines)
                .collect::<String>();
            let next = match found.next {
                None => None,
                after => {
                    filter.after = after;
                    part(&server, &filter)
                        .await
                        .ok()
                        .map(|found| (found, false))
                }
            };
            Some((Ok::<_, Infallible>(text), next))
        }
    });
    let name = match format {
        Format::Jsonl => "attachment; filename=\"events.jsonl\"",
        Format::Csv => "attachment; filename=\"events.csv\"",
    };
    let headers = [
        (header::CONTENT_TYPE, format.media_type()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

async fn part(server: &Arc<Server>, filter: &Filter) -> Result<Events, Problem> {
    let filter = filter.clone();
    blocking(server, move |server| server.library().events(&filter)).await
}

fn wrong(rejection: QueryRejection) -> Problem {
    Problem::invalid(rejection.body_text())
}
