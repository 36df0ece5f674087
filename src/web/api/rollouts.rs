//! `/rollouts`: images on their way to many clients, and turning machines on.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problems::{ActRefused, LookRefused};
use super::{Answer, Body, Named, answer};
use crate::daemon::{self, Server, Woken};
use crate::library::{ClientSelector, Rollout, RolloutPlan, RolloutView};
use crate::web::calls::{RolloutCall, StopRolloutCall, WakeCall};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(rollouts, begin_rollout))
        .routes(routes!(rollout))
        .routes(routes!(stop_rollout))
        .routes(routes!(wake))
}

/// All rollouts, the newest first
#[utoipa::path(get, path = "/rollouts", tag = "clients", responses((status = 200, body = Vec<RolloutView>)))]
async fn rollouts(State(server): State<Arc<Server>>) -> Answer<Vec<RolloutView>> {
    blocking(&server, |server| {
        let all = server.library().rollouts()?.into_iter();
        all.map(|one| view(server, one)).collect()
    })
    .await
    .map(Json)
}

/// How far a rollout is, client by client
#[utoipa::path(
    get,
    path = "/rollouts/{id}",
    tag = "clients",
    params(("id" = u64, Path)),
    responses(
        (status = 200, body = RolloutView),
        LookRefused,
    )
)]
async fn rollout(State(server): State<Arc<Server>>, Named(id): Named<u64>) -> Answer<RolloutView> {
    blocking(&server, move |server| {
        view(server, server.library().rollout(id)?)
    })
    .await
    .map(Json)
}

/// Give many clients an image that some of them try first
///
/// The canaries get it at their next boot. When each of them has logged in to its disk and stayed for two
/// minutes, the others get it at theirs; otherwise those who have it are set back.
#[utoipa::path(
    post,
    path = "/rollouts",
    tag = "clients",
    request_body = RolloutCall,
    responses(
        (status = 200, description = "What would be done (`dry_run`)", body = RolloutPlan),
        (status = 201, body = RolloutView, headers(("location" = String))),
        ActRefused,
    )
)]
async fn begin_rollout(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<RolloutCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live, dry_run) = (server.library(), server.live(), call.dry_run);
        let new = call.rollout();
        if dry_run {
            return library.plan_rollout(&new, live).map(answer);
        }
        let begun = library.begin_rollout(&new, server.watching(), live, who.actor())?;
        let place = [(header::LOCATION, format!("/api/v1/rollouts/{}", begun.id))];
        Ok((StatusCode::CREATED, place, Json(view(server, begun)?)).into_response())
    })
    .await
}

/// End a rollout
///
/// Those who were given the image are set back, or keep it (`keep`).
#[utoipa::path(
    post,
    path = "/rollouts/{id}/stop",
    tag = "clients",
    params(("id" = u64, Path)),
    request_body = Option<StopRolloutCall>,
    responses(
        (status = 200, body = RolloutView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is over", body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn stop_rollout(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(id): Named<u64>,
    Body(call): Body<StopRolloutCall>,
) -> Answer<RolloutView> {
    blocking(&server, move |server| {
        let library = server.library();
        let found = library.rollout(id)?;
        found.ensure_open()?;
        if call.dry_run {
            return view(server, found);
        }
        let (live, actor) = (server.live(), who.actor());
        let stopped = library.stop_rollout(id, call.keep, server.watching(), live, actor)?;
        view(server, stopped)
    })
    .await
    .map(Json)
}

/// Turn machines on by Wake-on-LAN
///
/// All their network cards are called on all networks of the server. Nobody answers: whether a machine
/// wakes is seen when it boots.
#[utoipa::path(
    post,
    path = "/clients/{mac}/wake",
    tag = "clients",
    params(("mac" = ClientSelector, Path, description = "`52:54:00:12:34:56`, `lab-07` or `@group`")),
    request_body = Option<WakeCall>,
    responses(
        (status = 200, body = Vec<Woken>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "No network of the server leads to machines", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn wake(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(clients): Named<ClientSelector>,
    Body(call): Body<WakeCall>,
) -> Answer<Vec<Woken>> {
    blocking(&server, move |server| {
        daemon::wake(server.library(), &clients, call.dry_run, who.actor())
    })
    .await
    .map(Json)
}

fn view(server: &Server, rollout: Rollout) -> crate::library::Result<RolloutView> {
    let library = server.library();
    library.view_rollout(rollout, server.watching(), server.live())
}
