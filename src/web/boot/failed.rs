//! `/failed`: iPXE says that it could not go on.
//!
//! Anybody can say so of any machine. It is believed only of a boot that goes on at the address that it
//! comes from, or at a neighbour's that has the machine's own hardware address, and answered alike in any
//! case.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::given::Asker;
use super::place::ends;
use super::script::text;
use crate::daemon::{AskedFrom, Peer, Server};
use crate::library::{BootFailure, FailedAt, IpxeErrno, MacAddr};
use crate::web::{Problem, blocking_for_client};

/// What failed where.
#[derive(Deserialize)]
pub(super) struct Failed {
    mac: MacAddr,
    at: FailedAt,
    /// iPXE knows none where nothing has failed.
    #[serde(default)]
    errno: String,
}

pub(super) async fn failed(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    failed: Result<Query<Failed>, QueryRejection>,
) -> Result<Response, Problem> {
    let wrong = |why: String| {
        let why = format!(
            "what failed? Ask for /failed?mac=52:54:00:12:34:56&at=kernel&errno=0x2d0c618e ({why})"
        );
        Problem::new(StatusCode::BAD_REQUEST, why)
    };
    let Query(Failed { mac, at, errno }) = failed.map_err(|error| wrong(error.body_text()))?;
    let errno: Option<IpxeErrno> = match errno.as_str() {
        "" => None,
        number => Some(number.parse().map_err(|error| wrong(format!("{error}")))?),
    };
    if at == FailedAt::Login && errno.is_some_and(IpxeErrno::is_of_a_script) {
        // Whoever mistyped his password was told so, and is back at the menu.
        return Ok(noted());
    }
    let (ip, _) = ends(&peer)?;
    let asker = Asker::of(&server, &peer, mac).await?;
    let failure = BootFailure { at, errno };
    blocking_for_client(&server, move |server| {
        let from = match server.library().machine(&mac) {
            Ok(client) => asker.asks_as(&client),
            Err(_) => AskedFrom::Said(ip),
        };
        if server.saw_failed(&mac, from, failure) {
            tracing::warn!(%mac, peer = %ip, "a boot failed: {failure}");
        }
        Ok(())
    })
    .await?;
    Ok(noted())
}

fn noted() -> Response {
    text("noted\n".to_owned())
}
