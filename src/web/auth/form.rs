//! Forms, as browsers send them without JavaScript.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Form, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};

use crate::web::{Problem, body};

/// The fields of a form, in the order in which they were sent.
pub(in crate::web) struct Fields(Vec<(String, String)>);

impl Fields {
    /// A field; empty if it is not there.
    pub(in crate::web) fn field(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_form(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this is for forms: application/x-www-form-urlencoded",
            ));
        }
        parsed(bytes(request.into_body()).await?).await
    }
}

/// Whether a request is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A body that was read before anything was decided by it.
pub(super) async fn bytes(body: Body) -> Result<Bytes, Problem> {
    let bytes = to_bytes(body, body::MOST).await;
    bytes.map_err(|wrong| Problem::from_error(StatusCode::BAD_REQUEST, &wrong))
}

/// The fields of a form's body.
pub(super) async fn parsed(bytes: Bytes) -> Result<Fields, Problem> {
    let mut request = Request::new(Body::from(bytes));
    *request.method_mut() = axum::http::Method::POST;
    let kind = axum::http::HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    match Form::from_request(request, &()).await {
        Ok(Form(fields)) => Ok(Fields(fields)),
        Err(wrong) => Err(Problem::invalid(wrong.body_text())),
    }
}
