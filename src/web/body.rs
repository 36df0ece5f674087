//! Bodies: of requests, which are there whole before anything is decided by them; and of answers, which
//! take no more memory than their asker's share.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use super::{Problem, Who};
use crate::daemon::{Fetch, Place, Places};

/// No form and no call of ours is longer.
pub(super) const MOST: usize = 256 << 10;

/// Whoever sends a body more slowly than this holds a place that others need.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that is smaller is nothing to count.
const SMALL: u64 = 64 << 10;
/// What of larger answers may wait in memory for one asker,
const OF_ONE: u64 = 32 << 20;
/// and for all.
const OF_ALL: u64 = 256 << 20;

/// So much of an answer is given to the connection at a time.
const PORTION: usize = 64 << 10;

/// The request with its body in memory, at most so many bytes.
pub(super) async fn whole(request: Request, most: usize) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(PATIENCE, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(head, Body::from(bytes))),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body did not come whole, or is longer than {most} bytes"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long to come",
        )),
    }
}

/// Reads the body of whatever changes something before it is handled.
pub(super) async fn first(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match whole(request, MOST).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What answers may take of memory, by who asks.
pub(super) type Memory = Arc<Places<String>>;

/// The memory that answers may take.
pub(super) fn memory() -> Memory {
    Places::new(OF_ONE, OF_ALL)
}

/// Counts answers that lie in memory until they are sent: whoever lets too many lie gets no more.
pub(super) async fn within(State(memory): State<Memory>, request: Request, next: Next) -> Response {
    let who = request.extensions().get::<Who>();
    let who = who.map_or(String::new(), |who| who.name.clone());
    let response = next.run(request).await;
    // What is read from a file as it is sent has no size of its own.
    let size = response.body().size_hint().exact().unwrap_or(0);
    if size < SMALL {
        return response;
    }
    let Some(place) = memory.take(who, size) else {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many large answers wait to be read; read them, then ask again",
        )
        .into_response();
    };
    response.map(|body| {
        Body::new(InPortions {
            body,
            now: Bytes::new(),
            left: size,
            _place: place,
        })
    })
}

/// A body whose bytes are given out a little at a time, so that this lives as long as they do.
struct InPortions {
    body: Body,
    now: Bytes,
    left: u64,
    _place: Place<String>,
}

impl HttpBody for InPortions {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.now.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => self.now = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
        let portion = self.now.len().min(PORTION);
        let portion = self.now.split_to(portion);
        self.left = self.left.saturating_sub(portion.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The body as long as whoever asked is logged in. It breaks off with their login: who reads it is not
/// left to think that this was all.
pub(super) fn while_logged_in(who: Who, body: Body) -> Body {
    let over = Box::pin(async move { who.gone().await });
    let parts = stream::unfold(Some((body.into_data_stream(), over)), |going| async {
        let (mut parts, mut over) = going?;
        tokio::select! {
            biased;
            () = &mut over => Some((Err(axum::Error::new("the login is over")), None)),
            part = parts.next() => {
                let part = part?;
                let goes_on = part.is_ok().then_some((parts, over));
                Some((part, goes_on))
            }
        }
    });
    Body::from_stream(parts)
}

/// A body whose sender tells how much of it the connection has taken.
pub(super) fn told<B>(body: B, fetch: Fetch) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    // The length stays known: clients are told it.
    Body::new(body.map_frame(move |frame| {
        let length = frame.data_ref().map_or(0, Bytes::len);
        fetch.sent(length as u64);
        frame
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::{get, post};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_body_is_whole_or_refused() {
        let router = Router::new()
            .route(
                "/",
                post(|body: Bytes| async move { body.len().to_string() }),
            )
            .layer(from_fn(first));
        let asked = |length: usize| {
            let request = Request::post("/").body(Body::from(vec![b'x'; length]));
            router.clone().oneshot(request.unwrap())
        };
        let answer = asked(MOST).await.unwrap();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, MOST.to_string());
        let status = asked(MOST + 1).await.unwrap().status();
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_have_an_end() {
        const SIZE: usize = 10 << 20;
        let router = Router::new()
            .route("/large", get(|| async { vec![b'x'; SIZE] }))
            .route("/small", get(|| async { "x" }))
            .layer(from_fn_with_state(memory(), within));
        let ask = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request)
        };
        let mut unread = Vec::new();
        for _ in 0..3 {
            let answer = ask("/large").await.unwrap();
            assert_eq!(answer.body().size_hint().exact(), Some(SIZE as u64));
            unread.push(answer);
        }
        let full = ask("/large").await.unwrap().status();
        assert_eq!(full, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/small").await.unwrap().status(), StatusCode::OK);
        // Hyper takes a frame at a time: half of an answer is still an answer that waits.
        let mut half = unread.pop().unwrap().into_body();
        half.frame().await.unwrap().unwrap();
        let full = ask("/large").await.unwrap().status();
        assert_eq!(full, StatusCode::SERVICE_UNAVAILABLE);
        let rest = half.collect().await.unwrap().to_bytes();
        assert_eq!(rest.len(), SIZE - PORTION);
        assert_eq!(ask("/large").await.unwrap().status(), StatusCode::OK);
    }
}
