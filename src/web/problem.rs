//! What a refused request is answered with: problem details (RFC 9457).

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A refusal, with the status that says whose move it is.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The HTTP status, again.
    #[serde(serialize_with = "number")]
    pub status: StatusCode,
    /// The status in words.
    pub title: &'static str,
    /// What was tried, on what, why it was refused and what to do.
    pub detail: String,
}

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl ToString) -> Self {
        Self {
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            detail: detail.to_string(),
        }
    }

    /// An error with all its causes, as one sentence.
    pub fn from_error(status: StatusCode, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut detail = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            detail.push_str(": ");
            detail.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(status, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, kind, Json(self)).into_response()
    }
}

fn number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}
