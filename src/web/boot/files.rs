//! The files that a boot.cfg names.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::place::ends;
use crate::daemon::{Peer, Server};
use crate::library::{Error, VersionId};
use crate::web::{Problem, blocking_for_client};

pub(super) async fn file(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path((image, number, file)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let found = blocking_for_client(&server, move |server| {
        let version: VersionId = format!("{image}@{number}").parse()?;
        let version = server.library().version(&version)?;
        let found = version.boot_file(&file).ok_or(Error::Unknown {
            kind: "boot file",
            name: file,
        })?;
        if let Ok((peer, _)) = ends(&peer) {
            match found == version.kernel_path() {
                true => server.saw_kernel(peer),
                false => server.saw_initramfs(peer),
            }
        }
        Ok(found)
    })
    .await?;
    match ServeFile::new(found).oneshot(request).await {
        Ok(response) => Ok(response.into_response()),
        Err(never) => match never {},
    }
}
