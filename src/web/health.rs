//! `/healthz` and `/readyz`, for whoever restarts servers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::blocking;
use crate::daemon::Server;

/// Everybody may ask, as often as they like: the library is asked once in so long.
const HOLDS: Duration = Duration::from_secs(1);

/// For everybody, and they tell nothing else.
pub fn health(server: Arc<Server>) -> Router {
    let readiness = Readiness {
        server,
        last: Mutex::new(None),
        asks: Semaphore::new(1),
    };
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::new(readiness))
}

/// Whether the library could be read when it was looked at last.
struct Readiness {
    server: Arc<Server>,
    // Held for a look, never across an await.
    last: Mutex<Option<(Instant, bool)>>,
    /// One asks, and the others wait for that answer.
    asks: Semaphore,
}

impl Readiness {
    fn known(&self) -> Option<bool> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(at, _)| at.elapsed() < HOLDS)
            .map(|(_, ready)| ready)
    }
}

/// Ready is who can answer for the library: that is what everything else needs.
async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    // The semaphore is never closed.
    let _asks = match readiness.known() {
        Some(_) => None,
        None => readiness.asks.acquire().await.ok(),
    };
    let ready = match readiness.known() {
        Some(ready) => ready,
        None => {
            let looked = blocking(&readiness.server, |server| {
                server.library().clients().map(drop)
            });
            let ready = looked.await.is_ok();
            let mut last = readiness
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *last = Some((Instant::now(), ready));
            ready
        }
    };
    match ready {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}
