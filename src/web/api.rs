//! `/api/v1`: what the command line does while a server runs, and the dashboard.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::Serialize;

use super::calls::{ActCall, AddCall, EditCall, PruneCall, RemoveCall, RollbackCall};
use super::{Problem, blocking};
use crate::daemon::{Doors, Peer, Server, SessionRow};
use crate::library::{self, Error, MacAddr, Published, VersionSpec};
use crate::library::{ClientSelector, ClientView, ImageName, ImageView, Pruning, Rollback};

/// No call needs more than a list of kernel arguments.
const MAX_BODY: usize = 256 << 10;

/// Everything under `/api/v1`.
pub fn api(server: Arc<Server>) -> Router {
    let v1 = Router::new()
        .route("/clients", get(clients).post(add_client))
        .route(
            "/clients/{client}",
            get(client).patch(edit_client).delete(remove_client),
        )
        .route("/clients/{client}/acts", post(act))
        .route("/images", get(images))
        .route("/images/{image}", get(image).delete(remove_image))
        .route("/images/{image}/rollback", post(roll_back))
        .route("/prune", post(prune))
        .route("/server", get(doors))
        .route("/targets", get(targets))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", delete(kick))
        .fallback(nowhere)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(server);
    Router::new().nest("/api/v1", v1)
}

type Answer<T> = Result<Json<T>, Problem>;

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
    Extension(peer): Extension<Peer>,
    Body(call): Body<AddCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, new) = (server.library(), &call.client);
        match call.dry_run {
            true => library.plan_add(new).map(answer),
            false => library
                .add_client(new, server.live(), &peer.actor())
                .map(answer),
        }
    })
    .await
}

async fn edit_client(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(mac): Path<MacAddr>,
    Body(call): Body<EditCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let library = server.library();
        match call.dry_run {
            true => library.plan_edit(&mac, &call.edit).map(answer),
            false => library
                .edit_client(&mac, &call.edit, server.live(), &peer.actor())
                .map(answer),
        }
    })
    .await
}

async fn act(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(mac): Path<MacAddr>,
    Body(call): Body<ActCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live, ActCall { act, when, .. }) = (server.library(), server.live(), &call);
        match call.dry_run {
            true => library.plan(&mac, act, *when, live).map(answer),
            false => library
                .perform(&mac, act, *when, live, &peer.actor())
                .map(answer),
        }
    })
    .await
}

async fn remove_client(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(mac): Path<MacAddr>,
    Body(call): Body<RemoveCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        match call.dry_run {
            true => library.plan_remove(&mac, call.when, live).map(answer),
            false => library
                .remove_client(&mac, call.when, live, &peer.actor())
                .map(answer),
        }
    })
    .await
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
    Extension(peer): Extension<Peer>,
    Path(spec): Path<VersionSpec>,
    Body(call): Body<RemoveCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        match call.dry_run {
            true => library.plan_removal(&spec, call.when, live).map(answer),
            false => library
                .remove(&spec, call.when, live, &peer.actor())
                .map(answer),
        }
    })
    .await
}

async fn roll_back(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(spec): Path<VersionSpec>,
    Body(call): Body<RollbackCall>,
) -> Answer<Rollback> {
    blocking(&server, move |server| match call.dry_run {
        true => server.library().plan_rollback(&spec),
        false => server.library().roll_back(&spec, &peer.actor()),
    })
    .await
    .map(Json)
}

async fn prune(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Body(call): Body<PruneCall>,
) -> Answer<Pruning> {
    blocking(&server, move |server| {
        let (library, live, image) = (server.library(), server.live(), call.image.as_ref());
        match call.dry_run {
            true => library.plan_prune(image, call.keep, live),
            false => library.prune(image, call.keep, live, &peer.actor()),
        }
    })
    .await
    .map(Json)
}

async fn doors(State(server): State<Arc<Server>>) -> Json<Doors> {
    Json(server.doors().clone())
}

async fn targets(State(server): State<Arc<Server>>) -> Answer<Vec<Published>> {
    blocking(&server, |server| server.library().published())
        .await
        .map(Json)
}

async fn sessions(State(server): State<Arc<Server>>) -> Json<Vec<SessionRow>> {
    Json(server.session_rows())
}

async fn kick(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<u64>,
) -> Answer<SessionRow> {
    let Some(session) = server.kick(id).await else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no session {id}; `netroot session list` shows what there is"),
        ));
    };
    let event = library::Event::new(&peer.actor(), "session-kick")
        .of(&session.target)
        .with("initiator", session.initiator.clone());
    blocking(&server, move |server| server.library().record(&event)).await?;
    Ok(Json(session))
}

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no such resource in this API",
    )
}

async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this resource does not have that method",
    )
}

fn answer(value: impl Serialize) -> Response {
    Json(value).into_response()
}

/// A JSON body whose mistakes are told as a problem.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(rejection @ JsonRejection::BytesRejection(_)) => {
                Err(Problem::new(rejection.status(), rejection.body_text()))
            }
            Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Unknown { .. } | Error::NoVersion { .. } => StatusCode::NOT_FOUND,
            Error::Exists { .. } | Error::Refused { .. } | Error::Conflict { .. } => {
                StatusCode::CONFLICT
            }
            Error::Invalid(_) | Error::Name(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::from_error(status, &error)
    }
}
