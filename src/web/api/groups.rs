//! `/groups`: what clients have in common; `/import`: many clients at a time.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::clients::DoneOrPlan;
use super::etag::{EntityTags, IfMatch, tagged};
use super::problems::{ChangeRefused, LookRefused};
use super::{Answer, Body, Named, answer};
use crate::daemon::Server;
use crate::library::{self, Edition, GroupName, GroupPlan, GroupView};
use crate::web::calls::{EditGroupCall, ImportCall, RemoveGroupCall};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(groups))
        .routes(routes!(group, edit_group, remove_group))
        .routes(routes!(import))
}

/// All groups that have members, or for which something is said
#[utoipa::path(get, path = "/groups", tag = "clients", responses((status = 200, body = Vec<GroupView>)))]
async fn groups(State(server): State<Arc<Server>>) -> Answer<Vec<GroupView>> {
    blocking(&server, |server| server.library().groups())
        .await
        .map(Json)
}

/// A group: what is said for it, and who is in it
///
/// The `ETag` is its edition, which changes whenever somebody says something else for it.
#[utoipa::path(
    get,
    path = "/groups/{name}",
    tag = "clients",
    params(("name" = GroupName, Path)),
    responses(
        (status = 200, body = GroupView, headers(("etag" = String))),
        LookRefused,
    )
)]
async fn group(
    State(server): State<Arc<Server>>,
    Named(name): Named<GroupName>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        server.library().group_view(&name).map(shown)
    })
    .await
}

/// Say something for all members of a group
///
/// A group need not be there before. Members are told at their next boot.
#[utoipa::path(
    patch,
    path = "/groups/{name}",
    tag = "clients",
    params(("name" = GroupName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<EditGroupCall>,
    responses(
        (status = 200, description = "`GroupView`, or with `dry_run` the `GroupPlan`", body = GroupOrPlan),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn edit_group(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<GroupName>,
    condition: IfMatch,
    Body(call): Body<EditGroupCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, on) = (server.library(), edition(server, &name, &condition)?);
        let (dry_run, edit) = (call.dry_run, call.edit());
        match dry_run {
            true => library.plan_edit_group(&name, &edit).map(answer),
            false => library
                .edit_group_on(&name, on.as_ref(), &edit, who.actor())
                .map(shown),
        }
    })
    .await
}

/// Forget a group: what is said for it, and who is in it
#[utoipa::path(
    delete,
    path = "/groups/{name}",
    tag = "clients",
    params(("name" = GroupName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<RemoveGroupCall>,
    responses(
        (status = 200, description = "What was done, or would be", body = GroupPlan),
        ChangeRefused,
    )
)]
async fn remove_group(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<GroupName>,
    condition: IfMatch,
    Body(call): Body<RemoveGroupCall>,
) -> Answer<GroupPlan> {
    blocking(&server, move |server| {
        let (library, on) = (server.library(), edition(server, &name, &condition)?);
        match call.dry_run {
            true => library.plan_remove_group(&name),
            false => library.remove_group_on(&name, on.as_ref(), server.live(), who.actor()),
        }
    })
    .await
    .map(Json)
}

/// Add many clients from a table
///
/// Columns are `name`, `mac`, `image`, `mode`, `groups`, `args`, `macs` and `way`, in any order. Where one
/// line is wrong, nothing is done, and the answer names every wrong line.
#[utoipa::path(
    post,
    path = "/import",
    tag = "clients",
    request_body = ImportCall,
    responses(
        (status = 200, description = "A `Done` for each client, or with `dry_run` a `Plan`", body = Vec<DoneOrPlan>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Lines are wrong", body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn import(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<ImportCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live, dry_run) = (server.library(), server.live(), call.dry_run);
        let import = call.import();
        match dry_run {
            true => library.plan_import_clients(&import, live).map(answer),
            false => library
                .import_clients(&import, live, who.actor())
                .map(answer),
        }
    })
    .await
}

/// The edition that a group has to be of; refused where it is of another already.
fn edition(
    server: &Server,
    name: &GroupName,
    condition: &IfMatch,
) -> library::Result<Option<Edition>> {
    let group = server.library().group(name)?;
    let edition = condition.edition(group.edition());
    group.ensure_edition(edition.as_ref())?;
    Ok(edition)
}

fn shown(view: GroupView) -> Response {
    tagged(view.group.edition().as_str(), view)
}

/// The group, or what would be done.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
enum GroupOrPlan {
    Group(GroupView),
    Plan(GroupPlan),
}
