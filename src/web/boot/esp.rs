//! `/esp`: a boot.cfg on a client's own EFI system partition tells whose files lie there.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::given::Asker;
use super::script::text;
use crate::daemon::{Peer, Server};
use crate::library::MacAddr;
use crate::library::manifest::BootStamp;
use crate::web::{Problem, blocking_for_client};

/// Loaders wait for three seconds (`esp/told.cfg`), and have not told anything if they go before the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who tells, and what.
#[derive(Deserialize)]
pub(super) struct Told {
    mac: MacAddr,
    esp: BootStamp,
}

/// Takes note of it for a client. Strangers are told that they are none, which iPXE passes over.
pub(super) async fn told(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    told: Result<Query<Told>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Told { mac, esp }) = told.map_err(|wrong| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "whose files lie where? Ask for /esp?mac=52:54:00:12:34:56&esp=STAMP ({})",
                wrong.body_text()
            ),
        )
    })?;
    let asker = Asker::within(PATIENCE, &server, &peer, mac).await?;
    blocking_for_client(&server, move |server| {
        let client = server.library().machine(&mac)?;
        server.saw_esp(client.mac, esp, asker.asks_as(&client));
        Ok(text(String::from("noted\n")))
    })
    .await
}
