//! What clients ask while they boot: scripts, kernel, initramfs. No login, no listings.
//!
//! - `script`: `/boot.ipxe`, the same for all, and scripts that tell a person something
//! - `cfg`: `/boot.cfg`, made for one client; `asker`: who asks for it; `menu`: what
//!   it offers to who stands before it; `unknown`: what machines get that
//!   are nobody's clients
//! - `login`: people who boot their own disk at a machine
//! - `files`: kernels and initramfs
//! - `esp`: what clients tell of the kernel on their own disk
//! - `failed`: `/failed`, where iPXE says what it could not do
//! - `given`: what one client may be given and nobody else: secrets, its identity
//! - `loader`: iPXE itself, for UEFI that boots by HTTP
//! - `place`: where a client is, and by which name it reached this server

mod asker;
mod cfg;
mod esp;
mod failed;
mod files;
mod given;
mod loader;
mod login;
mod menu;
mod place;
mod script;
mod unknown;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::Problem;
use super::auth::Passwords;
use crate::daemon::{Endpoint, Server};

pub use cfg::client_cfg;
pub(super) use cfg::preview;
pub use given::Given;

/// `/boot.ipxe`, `/boot.cfg` and the files that they name.
pub fn boot(server: Arc<Server>) -> Router {
    let passwords = Arc::new(Passwords::new(server.clone()));
    Router::new()
        .route("/boot.ipxe", get(script::all))
        // What iPXE looks for beside itself, where it was loaded from here.
        .route("/autoexec.ipxe", get(script::all))
        .route("/local.ipxe", get(script::local))
        .route("/boot.cfg", get(cfg::cfg))
        .route("/login", post(login::log_in).layer(Extension(passwords)))
        .route("/esp", get(esp::told))
        .route("/failed", get(failed::failed))
        .route("/images/{image}/{number}/{file}", get(files::file))
        .route("/identity/{mac}/{boot}/identity.img", get(given::identity))
        .route(
            "/identity/{mac}/{boot}/{machine}/{place}/identity.img",
            get(given::identity_at),
        )
        .route("/ipxe/{file}", get(loader::loader))
        .fallback(nowhere)
        .layer(from_fn_with_state(server.clone(), counting))
        .with_state(server)
}

/// Counts the answer to each request.
async fn counting(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_file = |place: &&str| path.starts_with(place);
    let files = ["/images/", "/identity/", "/ipxe/"];
    let endpoint = match files.iter().any(is_file) {
        true => Endpoint::BootFile,
        false => Endpoint::BootScript,
    };
    let response = next.run(request).await;
    server
        .requests()
        .answered(endpoint, response.status().as_u16());
    response
}

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is nothing here; clients begin with /boot.ipxe",
    )
}
