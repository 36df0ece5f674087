//! `/clients`: who boots what, and the acts on their disks.

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
use crate::daemon::Server;
use crate::library::{
    self, BootLine, ClientSelector, ClientView, Done, Edition, MacAddr, Plan, Stranger,
};
use crate::web::boot::preview;
use crate::web::calls::{ActCall, ActsCall, AddCall, EditCall, Outcome, RemoveCall};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(clients, add_client))
        .routes(routes!(client, edit_client, remove_client))
        .routes(routes!(act))
        .routes(routes!(acts))
        .routes(routes!(boot_cfg))
        .routes(routes!(boots))
        .routes(routes!(strangers))
}

/// All clients, by address
#[utoipa::path(get, path = "/clients", tag = "clients", responses((status = 200, body = Vec<ClientView>)))]
async fn clients(State(server): State<Arc<Server>>) -> Answer<Vec<ClientView>> {
    blocking(&server, |server| server.views()).await.map(Json)
}

/// One client by address or name, or all of a group: a list in any case
///
/// A single client comes with an `ETag`: its edition, which changes whenever somebody changes it, and
/// stays over boots.
#[utoipa::path(
    get,
    path = "/clients/{mac}",
    tag = "clients",
    params(("mac" = ClientSelector, Path, description = "`52:54:00:12:34:56`, `lab-07` or `@group`")),
    responses(
        (status = 200, body = Vec<ClientView>, headers(("etag" = String))),
        LookRefused,
    )
)]
async fn client(
    State(server): State<Arc<Server>>,
    Named(selector): Named<ClientSelector>,
) -> Result<Response, Problem> {
    let views: Vec<ClientView> = blocking(&server, move |server| {
        let clients = server.library().select(&selector)?.into_iter();
        clients.map(|client| server.close_view(client)).collect()
    })
    .await?;
    match views.as_slice() {
        [one] => Ok(tagged(one.client.edition().as_str(), &views)),
        _ => Ok(answer(views)),
    }
}

/// Add a client
#[utoipa::path(
    post,
    path = "/clients",
    tag = "clients",
    request_body = AddCall,
    responses(
        (status = 200, description = "What would be done (`dry_run`)", body = Plan),
        (status = 201, body = Done, headers(("location" = String))),
        ActRefused,
    )
)]
async fn add_client(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<AddCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, dry_run) = (server.library(), call.dry_run);
        let new = &call.client(library)?;
        if dry_run {
            return library.plan_add(new).map(answer);
        }
        let done = library.add_client(new, server.live(), who.actor())?;
        let place = [(
            header::LOCATION,
            format!("/api/v1/clients/{}", done.plan.mac),
        )];
        Ok((StatusCode::CREATED, place, Json(done)).into_response())
    })
    .await
}

/// Describe a client anew: name, groups, kernel arguments, further addresses
#[utoipa::path(
    patch,
    path = "/clients/{mac}",
    tag = "clients",
    params(("mac" = MacAddr, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<EditCall>,
    responses(
        (status = 200, description = "`Done`, or with `dry_run` the `Plan`", body = DoneOrPlan),
        ChangeRefused,
    )
)]
async fn edit_client(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(mac): Named<MacAddr>,
    condition: IfMatch,
    Body(call): Body<EditCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let library = server.library();
        let edition = edition(server, &mac, &condition)?;
        let dry_run = call.dry_run;
        let edit = call.edit();
        match dry_run {
            true => library.plan_edit(&mac, &edit).map(answer),
            false => library
                .edit_client_on(&mac, edition.as_ref(), &edit, server.live(), who.actor())
                .map(answer),
        }
    })
    .await
}

/// Reset, undo, assign, restore, snapshot, forget or resize
///
/// The last three disturb no boot, and are done at once whatever `when` says. The others are
/// refused while the client may be running on the disk, unless it waits for the next boot
/// (`at-next-boot`) or the client is cut off first (`force`).
#[utoipa::path(
    post,
    path = "/clients/{mac}/acts",
    tag = "clients",
    params(("mac" = MacAddr, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = ActCall,
    responses(
        (status = 200, description = "`Done`, or with `dry_run` the `Plan`", body = DoneOrPlan),
        ChangeRefused,
    )
)]
async fn act(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(mac): Named<MacAddr>,
    condition: IfMatch,
    Body(call): Body<ActCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live, ActCall { act, when, .. }) = (server.library(), server.live(), &call);
        let edition = edition(server, &mac, &condition)?;
        match call.dry_run {
            true => library.plan(&mac, act, *when, live).map(answer),
            false => library
                .perform_on(&mac, edition.as_ref(), act, *when, live, who.actor())
                .map(answer),
        }
    })
    .await
}

/// The same act on many clients
///
/// Each is tried, whatever became of the others; the answer tells of each.
#[utoipa::path(
    post,
    path = "/acts",
    tag = "clients",
    request_body = ActsCall,
    responses(
        (status = 200, body = Vec<Outcome>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn acts(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<ActsCall>,
) -> Answer<Vec<Outcome>> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        let mut macs = Vec::new();
        for selector in &call.clients {
            for client in library.select(selector)? {
                if !macs.contains(&client.mac) {
                    macs.push(client.mac);
                }
            }
        }
        let outcome = |mac: MacAddr| {
            let tried = match call.dry_run {
                true => library
                    .plan(&mac, &call.act, call.when, live)
                    .map(|plan| Done { plan, client: None }),
                false => library.perform(&mac, &call.act, call.when, live, who.actor()),
            };
            match tried {
                Ok(done) => Outcome::done(mac, done),
                Err(error) => Outcome::refused(mac, Problem::from(error)),
            }
        };
        Ok(macs.into_iter().map(outcome).collect())
    })
    .await
    .map(Json)
}

/// Remove a client
///
/// Its disks are kept for as long as those that were reset, and come back when a client of the same address
/// is added; with `purge` they go at once, for ever.
#[utoipa::path(
    delete,
    path = "/clients/{mac}",
    tag = "clients",
    params(("mac" = MacAddr, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<RemoveCall>,
    responses(
        (status = 200, description = "`Done`, or with `dry_run` the `Plan`", body = DoneOrPlan),
        ChangeRefused,
    )
)]
async fn remove_client(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(mac): Named<MacAddr>,
    condition: IfMatch,
    Body(call): Body<RemoveCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        let edition = edition(server, &mac, &condition)?;
        match call.dry_run {
            true => library.plan_remove(&mac, call.how(), live).map(answer),
            false => library
                .remove_client_on(&mac, edition.as_ref(), call.how(), live, who.actor())
                .map(answer),
        }
    })
    .await
}

/// Machines that asked what to boot in the last week and are nobody's clients, the latest first
#[utoipa::path(get, path = "/strangers", tag = "clients", responses((status = 200, body = Vec<Stranger>)))]
async fn strangers(State(server): State<Arc<Server>>) -> Json<Vec<Stranger>> {
    Json(server.strangers())
}

/// The boot.cfg that a client would be given now
///
/// Reading it changes nothing: only a login begins a boot.
#[utoipa::path(
    get,
    path = "/clients/{mac}/boot.cfg",
    tag = "clients",
    params(("mac" = MacAddr, Path)),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn boot_cfg(
    State(server): State<Arc<Server>>,
    Named(mac): Named<MacAddr>,
) -> Result<Response, Problem> {
    let (_, cfg) = blocking(&server, move |server| preview(server, &mac)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], cfg).into_response())
}

/// The last boots of a client, the latest first: their stages, and where and why they stopped
#[utoipa::path(
    get,
    path = "/clients/{mac}/boots",
    tag = "clients",
    params(("mac" = MacAddr, Path)),
    responses(
        (status = 200, body = Vec<BootLine>),
        LookRefused,
    )
)]
async fn boots(
    State(server): State<Arc<Server>>,
    Named(mac): Named<MacAddr>,
) -> Answer<Vec<BootLine>> {
    blocking(&server, move |server| {
        let client = server.library().client(&mac)?;
        server.boots_of(&client.mac)
    })
    .await
    .map(Json)
}

/// The edition that a client has to be of; refused where it is of another already.
fn edition(
    server: &Server,
    mac: &MacAddr,
    condition: &IfMatch,
) -> library::Result<Option<Edition>> {
    let client = server.library().client(mac)?;
    let edition = condition.edition(client.edition());
    client.ensure_edition(edition.as_ref())?;
    Ok(edition)
}

/// What was done, or what would be.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "only described")]
pub(super) enum DoneOrPlan {
    Done(Done),
    Plan(Plan),
}
