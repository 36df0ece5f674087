//! What a refused request is answered with: problem details (RFC 9457).

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal, with the status that says whose move it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is, for programs: `/api#` and one word. `about:blank` where the status
    /// says it all.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status, again.
    #[serde(serialize_with = "number")]
    #[schema(value_type = u16)]
    pub status: StatusCode,
    /// The status in words.
    pub title: &'static str,
    /// What was tried, on what, why it was refused and what to do.
    pub detail: String,
}

/// The kinds of problems that programs may react to, and what they mean.
pub(super) const KINDS: &[(&str, &str)] = &[
    (
        "unknown",
        "There is no such thing. The list of its kind shows what there is.",
    ),
    ("exists", "The name or the address is taken."),
    (
        "refused",
        "A rule that keeps data safe forbids it now; the detail says what to do.",
    ),
    (
        "busy",
        "Somebody else is changing the same thing this very moment. Repeat it.",
    ),
    (
        "changed",
        "It is not what it was when you looked (If-Match). Look again, and repeat it.",
    ),
    (
        "invalid",
        "The request does not make sense, whatever the state of the library.",
    ),
    ("damaged", "A version is not what was sealed."),
    ("failed", "The server could not do it; its log has more."),
];

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl ToString) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            detail: detail.to_string(),
        }
    }

    /// A request that does not make sense.
    pub fn invalid(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).of_type("invalid")
    }

    /// One of the kinds that programs may react to.
    pub(super) fn of_type(mut self, kind: &str) -> Self {
        self.kind = format!("/api#{kind}");
        self
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
