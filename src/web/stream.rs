//! `GET /stream?topic=…`: pages that are kept up to date, by server-sent events.
//!
//! A page names its topic in the block `topic` of its template. While anybody watches a topic, one
//! task draws it again once a second, and at once when the server is nudged; what differs from the
//! drawing before goes to all who watch it, drawn once for all of them.
//!
//! # How a page adds a topic
//!
//! Give each piece of the page that changes a template and an element id of its own, write a type that
//! draws all of them into a [`Drawing`], and name it in [`topic`]. Page and stream draw by the same
//! templates:
//!
//! ```ignore
//! struct Counter;
//!
//! impl Topic for Counter {
//!     fn draw(&self, server: &Server, drawing: &mut Drawing) -> Result<(), library::Error> {
//!         drawing.piece("sessions", &CountTemplate { sessions: server.session_rows().len() });
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A page of thousands of pieces tells what each is made of (`item_of`), so that only what has changed
//! is drawn again, and says what it has just shown ([`Hub::shows`]), so that a browser is not told at
//! once what it was just given.
//!
//! The outermost element of a piece carries its id. Nothing in it may depend on who looks at it: no
//! name, no form token. Buttons belong to a form outside of the pieces (`form="act"`).

mod drawing;
mod hub;

pub(in crate::web) use drawing::{Drawing, Topic};
pub(in crate::web) use hub::Hub;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::StreamExt;
use serde::Deserialize;

use super::{Problem, Who, pages};
use crate::daemon::{Peer, Server};
use hub::Heard;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/stream", get(stream))
}

/// What is asked for.
#[derive(Deserialize)]
struct Asked {
    /// What the page shows: `room`, `client:52:54:00:12:34:56`.
    topic: String,
    /// When the page was drawn, in milliseconds since the epoch: what has changed since then is told
    /// at once; 0: everything there is.
    #[serde(default)]
    since: i64,
}

/// What a topic's name means.
fn topic(name: &str) -> Option<Arc<dyn Topic>> {
    let (kind, of) = name.split_once(':').unwrap_or((name, ""));
    match (kind, of) {
        ("room", "") => Some(Arc::new(pages::RoomTopic)),
        ("client", mac) => Some(Arc::new(pages::ClientTopic(mac.parse().ok()?))),
        ("images", "") => Some(Arc::new(pages::ImagesTopic::default())),
        ("image", name) => Some(Arc::new(pages::ImageTopic::new(name.parse().ok()?))),
        ("jobs", "") => Some(Arc::new(pages::JobsTopic)),
        ("job", id) => Some(Arc::new(pages::JobTopic(id.parse().ok()?))),
        ("volumes", "") => Some(Arc::new(pages::VolumesTopic)),
        ("volume", name) => Some(Arc::new(pages::VolumeTopic(name.parse().ok()?))),
        ("groups", "") => Some(Arc::new(pages::GroupsTopic)),
        ("group", name) => Some(Arc::new(pages::GroupTopic(name.parse().ok()?))),
        ("live", "") => Some(Arc::new(pages::LiveTopic)),
        ("events", "") => Some(Arc::new(pages::EventsTopic)),
        _ => None,
    }
}

async fn stream(
    State(server): State<Arc<Server>>,
    Extension(hub): Extension<Arc<Hub>>,
    Extension(who): Extension<Who>,
    Extension(peer): Extension<Peer>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Asked { topic: name, since }) =
        asked.map_err(|wrong| Problem::invalid(wrong.body_text()))?;
    let Some(topic) = topic(&name) else {
        let why = format!("there is no topic `{name}` to watch");
        return Err(Problem::new(StatusCode::NOT_FOUND, why));
    };
    let Some(watcher) = hub.watch(&server, (&who, &peer), &name, topic, since) else {
        let why = "you have too many pages open; this one is not kept up to date";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
    };
    let events = watcher
        .heard()
        .map(|heard| Ok::<_, Infallible>(event(heard)));
    let events = events.take_until(over(server, who));
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// Resolves when the stream has to end: the server goes, or who watches is not logged in any more.
async fn over(server: Arc<Server>, who: Who) {
    tokio::select! {
        () = server.ending() => {}
        () = who.gone() => {}
    }
}

fn event(heard: Heard) -> Event {
    match heard {
        Heard::Patch(patch) => Event::default().event("patch").data(&*patch),
        Heard::Missed => Event::default()
            .event("reload")
            .data("some changes were missed"),
    }
}
