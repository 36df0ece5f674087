//! How refusals of the library are told: one type of problem for each thing that a program may react to.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::IntoResponses;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

use crate::library::Error;
use crate::web::Problem;

/// What a call that looks at one thing may be refused with.
pub(super) struct LookRefused;

/// The same for one that does something to it.
pub(super) struct ActRefused;

/// The same for one that is for an edition of it.
pub(super) struct ChangeRefused;

impl IntoResponses for LookRefused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described(&[400, 404])
    }
}

impl IntoResponses for ActRefused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described(&[400, 404, 409, 415])
    }
}

impl IntoResponses for ChangeRefused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described(&[400, 404, 409, 412, 415])
    }
}

/// Problem details of each status (RFC 9457). The problem's own type tells what it means.
fn described(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let problem = || Content::new(Some(Ref::from_schema_name("Problem")));
    let answer = || {
        let answer = ResponseBuilder::new().content("application/problem+json", problem());
        RefOr::T(answer.build())
    };
    let statuses = statuses.iter().map(u16::to_string);
    statuses.map(|status| (status, answer())).collect()
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, kind) = match &error {
            Error::Unknown { .. } | Error::NoVersion { .. } => (StatusCode::NOT_FOUND, "unknown"),
            Error::Exists { .. } => (StatusCode::CONFLICT, "exists"),
            Error::Refused { .. } => (StatusCode::CONFLICT, "refused"),
            Error::Conflict { .. } => (StatusCode::CONFLICT, "busy"),
            Error::Moved { .. } => (StatusCode::PRECONDITION_FAILED, "changed"),
            Error::Invalid(_) | Error::Name(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Error::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Problem::from_error(status, &error).of_type(kind)
    }
}
