//! iPXE itself, for firmware that boots by HTTP, and the script that lies beside it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::place::{base, ends};
use super::script::text;
use crate::boot::{AUTOEXEC, Loaders, network_ipxe};
use crate::daemon::{Peer, Server, Whose};
use crate::library::Error;
use crate::web::{Problem, blocking_for_client};

pub(super) async fn loader(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(file): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if file == AUTOEXEC {
        return Ok(text(network_ipxe(&base(&peer, &headers)?)));
    }
    // Whoever asks how long a file is does not fetch it yet.
    let fetches = request.method() == Method::GET;
    let found = blocking_for_client(&server, move |server| {
        let config = server.library().config();
        let Some(found) = Loaders::new(&config.boot).named(&file) else {
            return Err(Error::Unknown {
                kind: "boot loader",
                name: file,
            });
        };
        if let (true, Ok((peer, _))) = (fetches, ends(&peer)) {
            server.saw_loader(Whose::Peer(peer), &file);
        }
        Ok(found)
    })
    .await?;
    match ServeFile::new(found).oneshot(request).await {
        Ok(response) => Ok(response.into_response()),
        Err(never) => match never {},
    }
}
