//! What those are not shown who may only look: boot ids, with which they could log in to a client's disk
//! as that client.
//!
//! Every answer to them goes through here, whatever made it: no page and no call of the API has to think
//! of it, and none can forget to. Operators are shown whole ids: they can boot any client anyway, and the
//! command line reads them.

use std::future::ready;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, once, unfold};
use hyper::body::Body as _;

use super::Who;
use crate::library::BootIdMask;

/// Masks boot ids in the answer, unless an operator asks.
pub(super) async fn for_viewers(request: Request, next: Next) -> Response {
    let operates = request.extensions().get::<Who>().is_some_and(Who::operates);
    let response = next.run(request).await;
    if operates || response.body().is_end_stream() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // What is shown has another length.
    head.headers.remove(header::CONTENT_LENGTH);
    let shown = match body.size_hint().exact() {
        Some(_) => whole(body).await,
        None => Body::from_stream(veiled(body)),
    };
    Response::from_parts(head, shown)
}

/// What is in memory already, of which a length can be told.
async fn whole(body: Body) -> Body {
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            let mut mask = BootIdMask::default();
            let mut told = mask.pass(&bytes);
            told.extend(mask.rest());
            told.into()
        }
        // It breaks off for the asker as it did here.
        Err(error) => Body::from_stream(once(ready(Err::<Bytes, _>(error)))),
    }
}

/// What comes, as it comes: an answer may go on for as long as a page is open.
fn veiled(body: Body) -> BoxStream<'static, Result<Bytes, axum::Error>> {
    let pieces = body.into_data_stream();
    unfold(Some((pieces, BootIdMask::default())), |state| async {
        let (mut pieces, mut mask) = state?;
        match pieces.next().await {
            Some(Ok(piece)) => {
                let told = mask.pass(&piece);
                Some((Ok(Bytes::from(told)), Some((pieces, mask))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Ok(mask.rest().into()), None)),
        }
    })
    // A piece that is held back is no end.
    .filter(|piece| ready(!matches!(piece, Ok(piece) if piece.is_empty())))
    .boxed()
}
