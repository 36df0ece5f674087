//! How refusals of the library are told: one type of problem for each thing that a program may react to.

use axum::http::StatusCode;

use crate::library::Error;
use crate::web::Problem;

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
