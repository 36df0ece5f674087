//! `/api/v1`: what the command line does while a server runs, and the dashboard.

mod clients;
mod events;
mod images;
mod jobs;
mod sessions;

pub(super) use sessions::kick;

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Serialize;

use super::Problem;
use crate::daemon::Server;
use crate::library::Error;

/// No call needs more than a list of kernel arguments.
const MAX_BODY: usize = 256 << 10;

/// Everything under `/api/v1`. Each request has to carry a [`super::Who`].
pub(super) fn api(server: Arc<Server>) -> Router {
    let v1 = Router::new()
        .merge(clients::routes())
        .merge(events::routes())
        .merge(images::routes())
        .merge(jobs::routes())
        .merge(sessions::routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(server);
    Router::new().nest("/api/v1", v1)
}

type Answer<T> = Result<Json<T>, Problem>;

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no such resource in this API",
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

/// A JSON body whose mistakes are told as a problem.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(rejection @ JsonRejection::BytesRejection(_)) => {
                Err(Problem::new(rejection.status(), rejection.body_text()))
            }
            Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Unknown { .. } | Error::NoVersion { .. } => StatusCode::NOT_FOUND,
            Error::Exists { .. } | Error::Refused { .. } | Error::Conflict { .. } => {
                StatusCode::CONFLICT
            }
            Error::Invalid(_) | Error::Name(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::from_error(status, &error)
    }
}
