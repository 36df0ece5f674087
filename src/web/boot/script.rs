//! The script that all clients begin with, and how scripts are answered.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::given::Asker;
use super::place::base;
use crate::boot::{Https, boot_ipxe, local_ipxe, over_tls};
use crate::daemon::{Peer, Server};
use crate::library::MacAddr;
use crate::web::{Problem, blocking_for_client};

pub(super) async fn all(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let base = base(&peer, &headers)?;
    let script = move |server: &Server| {
        let secrets = server.library().config().boot.secrets;
        let doors = server.doors();
        let door = doors.boot_tls.first();
        let tls = door.map(|door| over_tls(&base, door.port()));
        // Unless it has come by there.
        let elsewhere = tls.as_deref().filter(|tls| *tls != base);
        let https = elsewhere.map(|tls| Https::to(tls, secrets));
        Ok(boot_ipxe(server.library(), &base, https))
    };
    blocking_for_client(&server, script).await.map(text)
}

/// A machine that goes on to its own disk.
#[derive(Deserialize)]
pub(super) struct Leaving {
    mac: MacAddr,
}

/// On to the machine's own disk, for anybody. Where a client tells which one it is, its boot here is over.
pub(super) async fn local(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    leaving: Result<Query<Leaving>, QueryRejection>,
) -> Result<Response, Problem> {
    let asker = match leaving {
        Ok(Query(Leaving { mac })) => Some((mac, Asker::of(&server, &peer, mac).await?)),
        Err(_) => None,
    };
    let script = move |server: &Server| {
        let library = server.library();
        if let Some((mac, asker)) = asker
            && let Ok(client) = library.machine(&mac)
        {
            server.saw_local_disk(&client.mac, asker.asks_as(&client));
        }
        Ok(local_ipxe(library))
    };
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
