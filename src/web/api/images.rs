//! `/images`: versions, and which one clients get.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};

use super::{Answer, Body, answer};
use crate::daemon::Server;
use crate::library::{self, ImageName, ImageView, Pruning, Rollback, VersionSpec};
use crate::web::calls::{PruneCall, RemoveCall, RollbackCall};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/images", get(images))
        .route("/images/{image}", get(image).delete(remove_image))
        .route("/images/{image}/rollback", post(roll_back))
        .route("/prune", post(prune))
}

async fn images(State(server): State<Arc<Server>>) -> Answer<Vec<library::Image>> {
    blocking(&server, |server| server.library().images())
        .await
        .map(Json)
}

async fn image(
    State(server): State<Arc<Server>>,
    Path(name): Path<ImageName>,
) -> Answer<ImageView> {
    blocking(&server, move |server| {
        let sessions = server.live().sessions();
        server.library().image_view(&name, &sessions)
    })
    .await
    .map(Json)
}

async fn remove_image(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(spec): Path<VersionSpec>,
    Body(call): Body<RemoveCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        match call.dry_run {
            true => library.plan_removal(&spec, call.when, live).map(answer),
            false => library
                .remove(&spec, call.when, live, who.actor())
                .map(answer),
        }
    })
    .await
}

async fn roll_back(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Path(spec): Path<VersionSpec>,
    Body(call): Body<RollbackCall>,
) -> Answer<Rollback> {
    blocking(&server, move |server| match call.dry_run {
        true => server.library().plan_rollback(&spec),
        false => server.library().roll_back(&spec, who.actor()),
    })
    .await
    .map(Json)
}

async fn prune(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<PruneCall>,
) -> Answer<Pruning> {
    blocking(&server, move |server| {
        let (library, live, image) = (server.library(), server.live(), call.image.as_ref());
        match call.dry_run {
            true => library.plan_prune(image, call.keep, live),
            false => library.prune(image, call.keep, live, who.actor()),
        }
    })
    .await
    .map(Json)
}
