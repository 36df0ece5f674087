//! Over HTTP: what clients ask when they boot, and what admins ask. Parses, calls, answers; nothing
//! here decides anything about images or clients.
//!
//! - `boot`: scripts, kernels and initramfs for clients; no login
//! - `api`: `/api/v1`, for programs and for the command line
//! - `pages`: the dashboard, for people; `assets`: its style and script
//! - `metrics`: counters for Prometheus; `health`: whether the server is well
//! - `stream`: what keeps pages up to date
//! - `body`: what a request brings along, and how much of memory an answer takes
//! - `auth`: who may come in over the network; `who`: who asks, known before anything is done
//! - `veil`: what those are not shown who may only look

mod api;
mod assets;
mod auth;
mod body;
mod boot;
pub mod calls;
mod health;
mod metrics;
mod pages;
mod problem;
mod stream;
mod veil;
mod who;

pub use boot::{Given, boot, client_cfg};
pub use health::health;
pub use problem::Problem;
pub use who::{Login, Who};

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;

use crate::build::Recipes;
use crate::daemon::{NoCall, Patience, Server};
use crate::library;

/// What the control socket answers: pages and API, for users of this host that its permissions let
/// through.
pub fn control(server: Arc<Server>) -> Router {
    let csrf = server.run_id().to_owned();
    let known = from_fn_with_state(csrf, who::behind_the_socket);
    admin(server.clone())
        .layer(known)
        .layer(from_fn(body::first))
        .merge(health(server.clone()))
        .layer(from_fn(auth::always))
        .layer(from_fn_with_state(server, metrics::counting))
}

/// What the network is answered: pages and API, for whoever is logged in.
pub fn network(server: Arc<Server>) -> Router {
    let inside = admin(server.clone()).merge(health(server.clone()));
    auth::behind_the_gate(server.clone(), inside)
        .layer(from_fn_with_state(server, metrics::counting))
}

/// Pages and API. Each request has to carry a [`Who`].
fn admin(server: Arc<Server>) -> Router {
    Router::new()
        .merge(api::api(server.clone()))
        .merge(metrics::metrics().with_state(server.clone()))
        .merge(pages::pages(server.clone()))
        .layer(from_fn_with_state(server, nudging))
        .layer(from_fn_with_state(body::memory(), body::within))
        .layer(from_fn(veil::for_viewers))
}

/// Whoever watches sees at once what a request has changed.
async fn nudging(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    if changes {
        server.nudge();
    }
    response
}

/// Runs work that may block on a thread of its own.
async fn blocking<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Server) -> Result<T, library::Error> + Send + 'static,
) -> Result<T, Problem> {
    told(server.call(move |server| work(server)).await)
}

/// The same for a machine that boots, whose places nobody takes who only looks.
async fn blocking_for_client<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Server) -> Result<T, library::Error> + Send + 'static,
) -> Result<T, Problem> {
    told(server.call_for_client(move |server| work(server)).await)
}

/// The same for work that reads much. Few of those run at a time, and nobody waits for many.
async fn reading<T: Send + 'static>(
    server: &Arc<Server>,
    who: &Who,
    work: impl FnOnce(&Server, &Patience) -> Result<T, library::Error> + Send + 'static,
) -> Result<T, Problem> {
    let called = server.call_for_long(&who.name, move |server, patience| work(server, patience));
    match called.await {
        Ok(done) => told(Some(done)),
        Err(NoCall::Failed) => told(None),
        Err(NoCall::TooMany) => Err(Problem::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "you wait for many long answers already; ask again when you have them",
        )),
    }
}

/// What a call led to; nothing is left of one that panicked.
fn told<T>(done: Option<Result<T, library::Error>>) -> Result<T, Problem> {
    match done {
        Some(done) => done.map_err(Problem::from),
        None => Err(mistake()),
    }
}

/// What images can be built from. One recipe of the library that cannot be read hides all of them, as
/// it does for a build: which one it is and why is told.
async fn recipes(server: &Arc<Server>) -> Result<Recipes, Problem> {
    let found = server.call(|server| Recipes::of(server.library())).await;
    match found {
        Some(Ok(recipes)) => Ok(recipes),
        Some(Err(wrong)) => Err(Problem::new(
            axum::http::StatusCode::CONFLICT,
            format!("{wrong:#}"),
        )),
        None => Err(mistake()),
    }
}

fn mistake() -> Problem {
    Problem::new(
        axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        "the server made a mistake; its log has more",
    )
}
