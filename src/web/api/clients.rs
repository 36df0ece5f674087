//! `/clients`: who boots what, and the acts on their disks.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};

use super::{Answer, Body, answer};
use crate::daemon::Server;
use crate::library::{ClientSelector, ClientView, MacAddr};
use crate::web::calls::{ActCall, AddCall, EditCall, RemoveCall};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/clients", get(clients).post(add_client))
        .route(
            "/clients/{client}",
            get(client).patch(edit_client).delete(remove_client),
        )
        .route("/clients/{client}/acts", post(act))
}

async fn clients(State(server): State<Arc<Server>>) -> Answer<Vec<ClientView>> {
    blocking(&server, |server| server.library().views(server.live()))
        .await
        .map(Json)
}

async fn client(
    State(server): State<Arc<Server>>,
    Path(selector): Path<ClientSelector>,
) -> Answer<Vec<ClientView>> {
    blocking(&server, move |server| {
        let clients = server.library().select(&selector)?.into_iter();
        clients
            .map(|client| server.library().close_view(client, server.live()))
            .collect()
    })
    .await
    .map(Json)
}

async fn add_client(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<AddCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, new) = (server.library(), &call.client);
        match call.dry_run {
            true => library.plan_add(new).map(answer),
            false => library
                .add_client(new, server.live(), who.actor())
                .map(answer),
        }
    })
    .await
}

async fn edit_client(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(mac): Path<MacAddr>,
    Body(call): Body<EditCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let library = server.library();
        match call.dry_run {
            true => library.plan_edit(&mac, &call.edit).map(answer),
            false => library
                .edit_client(&mac, &call.edit, server.live(), who.actor())
                .map(answer),
        }
    })
    .await
}

async fn act(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(mac): Path<MacAddr>,
    Body(call): Body<ActCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live, ActCall { act, when, .. }) = (server.library(), server.live(), &call);
        match call.dry_run {
            true => library.plan(&mac, act, *when, live).map(answer),
            false => library
                .perform(&mac, act, *when, live, who.actor())
                .map(answer),
        }
    })
    .await
}

async fn remove_client(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(mac): Path<MacAddr>,
    Body(call): Body<RemoveCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        match call.dry_run {
            true => library.plan_remove(&mac, call.when, live).map(answer),
            false => library
                .remove_client(&mac, call.when, live, who.actor())
                .map(answer),
        }
    })
    .await
}
