//! `/volumes`: files and devices that are published as they are.
//!
//! Sizes, names and rules are anybody's to change who may operate. A path is not: the server opens it
//! with rights of its own, so it is taken only below the directories that the configuration lists
//! ([`Who::paths`]).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::{EntityTags, IfMatch, tagged};
use super::problems::{ActRefused, ChangeRefused, LookRefused};
use super::{Answer, Body, Named, answer};
use crate::daemon::{Server, VolumeRow};
use crate::library::{self, Edition, Volume, VolumeName, VolumePlan};
use crate::web::calls::{
    AddVolumeCall, EditVolumeCall, RemoveVolumeCall, ResizeVolumeCall, SnapshotVolumeCall,
};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(volumes, add_volume))
        .routes(routes!(volume, edit_volume, remove_volume))
        .routes(routes!(resize_volume))
        .routes(routes!(snapshot_volume))
}

/// All volumes, by name, with their state and sessions
#[utoipa::path(get, path = "/volumes", tag = "volumes", responses((status = 200, body = Vec<VolumeRow>)))]
async fn volumes(State(server): State<Arc<Server>>) -> Answer<Vec<VolumeRow>> {
    blocking(&server, |server| server.volume_rows())
        .await
        .map(Json)
}

/// One volume
///
/// The `ETag` is its edition, which changes whenever somebody describes it anew.
#[utoipa::path(
    get,
    path = "/volumes/{name}",
    tag = "volumes",
    params(("name" = VolumeName, Path)),
    responses(
        (status = 200, body = VolumeRow, headers(("etag" = String))),
        LookRefused,
    )
)]
async fn volume(
    State(server): State<Arc<Server>>,
    Named(name): Named<VolumeName>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let volume = server.library().volume(&name)?;
        Ok(shown(server, volume))
    })
    .await
}

/// Publish a new disk, a file or a block device
///
/// One is made that the library keeps, unless a file or a device is named; that has to be below a directory
/// that `netroot.toml` lists (`[volumes] directories`).
#[utoipa::path(
    post,
    path = "/volumes",
    tag = "volumes",
    request_body = AddVolumeCall,
    responses(
        (status = 200, description = "What would be done (`dry_run`)", body = VolumePlan),
        (status = 201, body = VolumeRow, headers(("location" = String), ("etag" = String))),
        ActRefused,
    )
)]
async fn add_volume(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<AddVolumeCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let dry_run = call.dry_run;
        let new = call.volume(who.paths())?;
        match dry_run {
            true => server.library().plan_add_volume(&new).map(answer),
            false => {
                let volume = server.library().add_volume(&new, server, who.actor())?;
                Ok(made(server, volume))
            }
        }
    })
    .await
}

/// Change whom a volume is for, and what they may do
///
/// Sessions that are not allowed any more end; others notice nothing.
#[utoipa::path(
    patch,
    path = "/volumes/{name}",
    tag = "volumes",
    params(("name" = VolumeName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<EditVolumeCall>,
    responses(
        (status = 200, description = "The volume, or with `dry_run` the plan", body = VolumeOrPlan),
        ChangeRefused,
    )
)]
async fn edit_volume(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<VolumeName>,
    condition: IfMatch,
    Body(call): Body<EditVolumeCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, on) = (server.library(), edition(server, &name, &condition)?);
        let dry_run = call.dry_run;
        let edit = call.edit()?;
        match dry_run {
            true => library.plan_edit_volume(&name, &edit).map(answer),
            false => {
                let volume = library.edit_volume(&name, on.as_ref(), &edit, server, who.actor())?;
                Ok(shown(server, volume))
            }
        }
    })
    .await
}

/// Make a volume larger, also while it is in use
///
/// Its initiators are told. Without a size, it is looked at how large its file or device has become.
#[utoipa::path(
    post,
    path = "/volumes/{name}/resize",
    tag = "volumes",
    params(("name" = VolumeName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<ResizeVolumeCall>,
    responses(
        (status = 200, description = "The volume, or with `dry_run` the plan", body = VolumeOrPlan),
        ChangeRefused,
    )
)]
async fn resize_volume(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<VolumeName>,
    condition: IfMatch,
    Body(call): Body<ResizeVolumeCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, on) = (server.library(), edition(server, &name, &condition)?);
        match call.dry_run {
            true => library.plan_resize_volume(&name, call.size).map(answer),
            false => {
                let volume =
                    library.resize_volume(&name, on.as_ref(), call.size, server, who.actor())?;
                Ok(shown(server, volume))
            }
        }
    })
    .await
}

/// Copy a volume into a new one that is for nobody yet
///
/// The copy shares its blocks where the file system can, and is as a power cut at that moment would have
/// left the volume. Elsewhere all is copied, which is refused while somebody may write.
#[utoipa::path(
    post,
    path = "/volumes/{name}/snapshot",
    tag = "volumes",
    params(("name" = VolumeName, Path)),
    request_body = Option<SnapshotVolumeCall>,
    responses(
        (status = 200, description = "What would be done (`dry_run`)", body = VolumePlan),
        (status = 201, body = VolumeRow, headers(("location" = String), ("etag" = String))),
        ActRefused,
    )
)]
async fn snapshot_volume(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<VolumeName>,
    Body(call): Body<SnapshotVolumeCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, to) = (server.library(), call.r#as.as_ref());
        match call.dry_run {
            true => library.plan_snapshot_volume(&name, to, server).map(answer),
            false => {
                let copy = library.snapshot_volume(&name, to, server, who.actor())?;
                Ok(made(server, copy))
            }
        }
    })
    .await
}

/// Forget a volume
///
/// Its blocks go only if the library keeps them: a file or device of somebody's stays. Refused while it is
/// in use, unless by `force`, which ends its sessions first.
#[utoipa::path(
    delete,
    path = "/volumes/{name}",
    tag = "volumes",
    params(("name" = VolumeName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<RemoveVolumeCall>,
    responses(
        (status = 200, description = "What it was, or with `dry_run` the plan", body = GoneOrPlan),
        ChangeRefused,
    )
)]
async fn remove_volume(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<VolumeName>,
    condition: IfMatch,
    Body(call): Body<RemoveVolumeCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, on) = (server.library(), edition(server, &name, &condition)?);
        let RemoveVolumeCall { force, dry_run } = call;
        match dry_run {
            true => library.plan_remove_volume(&name, force, server).map(answer),
            false => library
                .remove_volume(&name, on.as_ref(), force, server, who.actor())
                .map(answer),
        }
    })
    .await
}

/// The edition that a volume has to be of; refused where it is of another already.
fn edition(
    server: &Server,
    name: &VolumeName,
    condition: &IfMatch,
) -> library::Result<Option<Edition>> {
    let volume = server.library().volume(name)?;
    let edition = condition.edition(volume.edition());
    volume.ensure_edition(edition.as_ref())?;
    Ok(edition)
}

fn shown(server: &Server, volume: Volume) -> Response {
    let edition = volume.edition();
    tagged(edition.as_str(), server.volume_row(volume))
}

fn made(server: &Server, volume: Volume) -> Response {
    let place = [(header::LOCATION, format!("/api/v1/volumes/{}", volume.name))];
    (StatusCode::CREATED, place, shown(server, volume)).into_response()
}

/// The volume, or what would be done to it.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "only described")]
enum VolumeOrPlan {
    Volume(VolumeRow),
    Plan(VolumePlan),
}

/// What was removed, or would be.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
enum GoneOrPlan {
    Gone(Volume),
    Plan(VolumePlan),
}
