//! The script that all clients begin with, and how scripts are answered.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::place::base;
use crate::boot::{Https, boot_ipxe, local_ipxe, over_tls};
use crate::daemon::{Peer, Server};
use crate::library::config::SecretsOver;
use crate::web::{Problem, blocking_for_client};

pub(super) async fn all(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let base = base(&peer, &headers)?;
    let script = move |server: &Server| {
        let only_https = server.library().config().boot.secrets == SecretsOver::Https;
        let doors = server.doors();
        let door = doors.boot_tls.first();
        let tls = door.map(|door| over_tls(&base, door.port()));
        let https = match &tls {
            // It has come by there.
            Some(tls) if *tls == base => None,
            // Over HTTP it would be given nothing that is secret.
            Some(tls) if only_https => Some(Https::Only(tls)),
            Some(tls) => Some(Https::Tried(tls)),
            None => None,
        };
        Ok(boot_ipxe(server.library(), &base, https))
    };
    blocking_for_client(&server, script).await.map(text)
}

/// On to the machine's own disk.
pub(super) async fn local(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    let script = |server: &Server| Ok(local_ipxe(server.library()));
    blocking_for_client(&server, script).await.map(text)
}

pub(super) fn text(text: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}
