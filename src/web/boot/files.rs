//! The files that a boot.cfg names.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::place::ends;
use crate::daemon::{Fetch, Peer, Server};
use crate::library::{Error, VersionId};
use crate::web::body::told;
use crate::web::{Problem, blocking_for_client};

pub(super) async fn file(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path((image, number, file)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    // Whoever asks how long a file is does not fetch it yet.
    let peer = match request.method() == Method::GET {
        true => ends(&peer).ok().map(|(peer, _)| peer),
        false => None,
    };
    let (found, fetch) = blocking_for_client(&server, move |server| {
        let id: VersionId = format!("{image}@{number}").parse()?;
        let version = server.library().version(&id)?;
        let found = version.boot_file(&file).ok_or(Error::Unknown {
            kind: "boot file",
            name: file,
        })?;
        // Of one that is gone nothing is fetched.
        let size = std::fs::metadata(&found).ok().map(|file| file.len());
        let fetch = match peer.zip(size) {
            Some((peer, size)) if found == version.kernel_path() => {
                server.saw_kernel(peer, &id, size)
            }
            Some((peer, size)) => server.saw_initramfs(peer, &id, size),
            None => Fetch::default(),
        };
        Ok((found, fetch))
    })
    .await?;
    match ServeFile::new(found).oneshot(request).await {
        Ok(response) => Ok(response.map(|body| told(body, fetch)).into_response()),
        Err(never) => match never {},
    }
}
