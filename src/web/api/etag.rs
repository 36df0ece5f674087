//! Who changed it last: `ETag` and `If-Match` (RFC 9110 §8.8.3, §13.1.1).
//!
//! A tag names an edition: what admins have left. What happens by itself (a client's state, its sessions,
//! when a token was shown last) is told beside it and changes without it, so no GET is answered with "not
//! modified", and nothing is to be stored.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::library::{Edition, Image};
use crate::web::Problem;

/// What such a header is in the API's document.
pub(super) struct EntityTags;

impl PartialSchema for EntityTags {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(r#"^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$"#))
            .format(Some(SchemaFormat::Custom("entity-tags".to_owned())))
            .examples(["*"])
            .into()
    }
}

impl ToSchema for EntityTags {}

/// The editions that a request is made for.
pub(super) struct IfMatch(Option<Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(IfMatch(tags(&parts.headers, header::IF_MATCH)?))
    }
}

impl IfMatch {
    /// The edition that something has to be of, which is of `now`; nothing where any will do.
    pub(super) fn edition(&self, now: Edition) -> Option<Edition> {
        let tags = self.0.as_ref()?;
        if tags.iter().any(|tag| tag == "*" || tag == now.as_str()) {
            // Asked again under the lock: somebody may be quicker than this request yet.
            return Some(now);
        }
        Some(Edition::named(tags.first().map_or("", String::as_str)))
    }

    /// The version that has to be current; nothing where any will do.
    pub(super) fn current(&self, image: &Image) -> Option<u32> {
        let now = image.edition();
        match self.edition(now.clone())? == now {
            true => Some(image.current.unwrap_or(0)),
            // No version has this number.
            false => Some(u32::MAX),
        }
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

/// The entity tags of a header, without their quotes; `*` is any.
fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Vec<String>>, Problem> {
    let mut all = Vec::new();
    for value in headers.get_all(&name) {
        let tags = value.to_str().ok().and_then(parsed).ok_or_else(|| {
            Problem::invalid(format!(
                "{name} is a list of entity tags in their quotes, as an ETag has them, or `*`"
            ))
        })?;
        all.extend(tags);
    }
    Ok(headers.contains_key(&name).then_some(all))
}

/// `"one", W/"another"` or `*` (RFC 9110 §8.8.3, §13.1.1).
fn parsed(text: &str) -> Option<Vec<String>> {
    let text = text.trim_matches([' ', '\t']);
    if text == "*" {
        return Some(vec![text.to_owned()]);
    }
    let mut tags = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let quoted = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (tag, after) = quoted.split_once('"')?;
        tags.push(tag.to_owned());
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with(',') {
            return None;
        }
        // Elements of a list may be empty (RFC 9110 §5.6.1.2).
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(tags).filter(|tags| !tags.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_read_as_they_are_written() {
        for (text, tags) in [
            ("*", &["*"][..]),
            (r#""a""#, &["a"]),
            (r#" W/"a" "#, &["a"]),
            (r#""a","b, c" ,, W/"" ,"#, &["a", "b, c", ""]),
        ] {
            assert_eq!(parsed(text).unwrap(), tags, "{text}");
        }
        for wrong in ["", "a", "\"a", "a\"", "\"a\"b", "w/\"a\"", "*,\"a\""] {
            assert!(parsed(wrong).is_none(), "{wrong}");
        }
    }
}
