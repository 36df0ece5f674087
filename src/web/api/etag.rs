//! Who changed it last: `ETag`, `If-Match` and `If-None-Match` (RFC 9110 §8.8.3, §13.1).

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::library::{Client, Edition};
use crate::web::Problem;

/// The editions that a request is made for.
pub(super) struct IfMatch(Option<Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(IfMatch(tags(&parts.headers, header::IF_MATCH)?))
    }
}

impl IfMatch {
    /// The edition that a client has to be of; nothing where any will do.
    pub(super) fn edition_of(&self, client: &Client) -> Option<Edition> {
        let tags = self.0.as_ref()?;
        let now = client.edition();
        if tags.iter().any(|tag| tag == "*" || tag == now.as_str()) {
            // Asked again under the lock: somebody may be quicker than this request yet.
            return Some(now);
        }
        Some(Edition::named(tags.first().map_or("", String::as_str)))
    }

    /// The version that has to be current; nothing where any will do.
    pub(super) fn current(&self, now: Option<u32>) -> Option<u32> {
        let tags = self.0.as_ref()?;
        let now = now.unwrap_or(0);
        let tag = format!("current-{now}");
        if tags.iter().any(|named| *named == "*" || *named == tag) {
            return Some(now);
        }
        // No version has this number.
        Some(u32::MAX)
    }
}

/// An answer with the tag of what is in it.
pub(super) fn tagged(tag: &str, value: impl Serialize) -> Response {
    let mut response = axum::Json(value).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Answers a GET with 304 where the asker has that very answer (RFC 9110 §13.1.2).
pub(super) async fn not_modified(request: Request, next: Next) -> Response {
    let asked = match *request.method() {
        Method::GET | Method::HEAD => tags(request.headers(), header::IF_NONE_MATCH),
        _ => Ok(None),
    };
    let known = match asked {
        Ok(known) => known,
        Err(problem) => return problem.into_response(),
    };
    let response = next.run(request).await;
    let tag = response.headers().get(header::ETAG);
    let tag = tag
        .and_then(|tag| tag.to_str().ok())
        .map(|tag| tag.trim_matches('"'));
    let has = match (&known, tag) {
        (Some(known), Some(tag)) => known.iter().any(|known| known == "*" || known == tag),
        _ => false,
    };
    if !has || response.status() != StatusCode::OK {
        return response;
    }
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::NOT_MODIFIED;
    head.headers.remove(header::CONTENT_TYPE);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::empty())
}

/// The entity tags of a header, without their quotes.
fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Vec<String>>, Problem> {
    let mut all = Vec::new();
    for value in headers.get_all(&name) {
        let text = value.to_str().map_err(|_| {
            Problem::invalid(format!("{name} holds something that is no entity tag"))
        })?;
        let tags = text.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        all.extend(tags.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned()));
    }
    Ok(headers.contains_key(&name).then_some(all))
}
