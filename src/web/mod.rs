//! Over HTTP: what clients ask when they boot, and what admins ask. Parses, calls, answers; nothing
//! here decides anything about images or clients.

mod api;
mod boot;
pub mod calls;
mod problem;

pub use api::api;
pub use boot::{boot, client_cfg};
pub use problem::Problem;

use std::sync::Arc;

use crate::daemon::Server;
use crate::library;

/// Runs work that may block on a thread of its own.
async fn blocking<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Server) -> Result<T, library::Error> + Send + 'static,
) -> Result<T, Problem> {
    match server.call(move |server| work(server)).await {
        Some(done) => done.map_err(Problem::from),
        None => Err(Problem::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "the server made a mistake; its log has more",
        )),
    }
}
