//! What a request brings along, whose mistakes are told as problems.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use crate::library::Object;
use crate::web::Problem;

/// A JSON body. One that is left out, or is `null`, is empty: `{}`.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers();
        let none = headers.get(header::CONTENT_TYPE).is_none()
            && headers.get(header::TRANSFER_ENCODING).is_none()
            && headers
                .get(header::CONTENT_LENGTH)
                .is_none_or(|len| len == "0");
        if none {
            return nothing();
        }
        match Json::<Option<Object<T>>>::from_request(request, state).await {
            Ok(Json(Some(Object(body)))) => Ok(Body(body)),
            Ok(Json(None)) => nothing(),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body has to be JSON: send `Content-Type: application/json`",
            )),
            Err(rejection @ JsonRejection::BytesRejection(_)) => {
                Err(Problem::new(rejection.status(), rejection.body_text()))
            }
            Err(rejection) => Err(Problem::invalid(rejection.body_text())),
        }
    }
}

fn nothing<T: DeserializeOwned>() -> Result<Body<T>, Problem> {
    serde_json::from_str("{}")
        .map(Body)
        .map_err(|error| Problem::invalid(format!("this call needs a body: {error}")))
}

/// What the path names.
pub(super) struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Named(named)),
            Err(PathRejection::FailedToDeserializePathParams(wrong)) => {
                Err(Problem::invalid(wrong.body_text()))
            }
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}
