//! `/images`: versions, and which one clients get.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::{EntityTags, IfMatch, tagged};
use super::problems::{ActRefused, ChangeRefused, LookRefused};
use super::{Answer, Body, Named, answer};
use crate::build::{Recipe, RecipeView};
use crate::daemon::Server;
use crate::library::{
    Image, ImageName, ImagePlan, ImageView, Pruning, Removal, Rollback, VersionId, VersionSpec,
};
use crate::web::calls::{EditImageCall, PruneCall, RemoveImageCall, RollbackCall};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(images))
        .routes(routes!(image, edit_image, remove_image))
        .routes(routes!(manifest))
        .routes(routes!(roll_back))
        .routes(routes!(prune))
        .routes(routes!(recipes))
}

/// All images that have a version
#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = Vec<Image>)))]
async fn images(State(server): State<Arc<Server>>) -> Answer<Vec<Image>> {
    blocking(&server, |server| server.library().images())
        .await
        .map(Json)
}

/// What images can be built from: recipes, and the releases that they offer
#[utoipa::path(get, path = "/recipes", tag = "images", responses(
    (status = 200, body = Vec<RecipeView>),
    (status = 409, description = "A recipe of the library cannot be read", body = Problem, content_type = "application/problem+json"),
))]
async fn recipes(State(server): State<Arc<Server>>) -> Answer<Vec<RecipeView>> {
    let recipes = crate::web::recipes(&server).await?;
    Ok(Json(recipes.iter().map(Recipe::view).collect()))
}

/// An image: its versions, what each takes, and who uses it
///
/// The `ETag` is its edition, which changes whenever another version becomes current or something else is
/// said of it: `If-Match` of a rollback, and of a change.
#[utoipa::path(
    get,
    path = "/images/{image}",
    tag = "images",
    params(("image" = ImageName, Path)),
    responses(
        (status = 200, body = ImageView, headers(("etag" = String))),
        LookRefused,
    )
)]
async fn image(
    State(server): State<Arc<Server>>,
    Named(name): Named<ImageName>,
) -> Result<Response, Problem> {
    let view = blocking(&server, move |server| {
        let sessions = server.live().sessions();
        server.library().image_view(&name, &sessions)
    })
    .await?;
    Ok(tagged(view.edition().as_str(), view))
}

/// Say something of an image for all who boot it
///
/// They are told at their next boot.
#[utoipa::path(
    patch,
    path = "/images/{image}",
    tag = "images",
    params(("image" = ImageName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<EditImageCall>,
    responses(
        (status = 200, description = "`Image`, or with `dry_run` the `ImagePlan`", body = ImageOrPlan),
        ChangeRefused,
    )
)]
async fn edit_image(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<ImageName>,
    condition: IfMatch,
    Body(call): Body<EditImageCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let library = server.library();
        let image = library.image(&name)?;
        let on = condition.edition(image.edition());
        image.ensure_edition(on.as_ref())?;
        let (dry_run, edit) = (call.dry_run, call.edit());
        match dry_run {
            true => library.plan_edit_image(&name, &edit).map(answer),
            false => {
                let image = library.edit_image_on(&name, on.as_ref(), &edit, who.actor())?;
                Ok(tagged(image.edition().as_str(), image))
            }
        }
    })
    .await
}

/// All that is known about a version: its manifest
#[utoipa::path(
    get,
    path = "/images/{version}/manifest",
    tag = "images",
    params(("version" = VersionId, Path, description = "`fc28@3`")),
    responses(
        (status = 200, body = Object),
        LookRefused,
    )
)]
async fn manifest(
    State(server): State<Arc<Server>>,
    Named(version): Named<VersionId>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let version = server.library().version(&version)?;
        Ok(answer(version.manifest()))
    })
    .await
}

/// Remove an image, or one version of it
///
/// Refused while somebody uses it; `force` ends the sessions of those that only read.
#[utoipa::path(
    delete,
    path = "/images/{image}",
    tag = "images",
    params(("image" = VersionSpec, Path, description = "`fc28`, or one version: `fc28@3`")),
    request_body = Option<RemoveImageCall>,
    responses(
        (status = 200, body = Removal),
        ActRefused,
    )
)]
async fn remove_image(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(spec): Named<VersionSpec>,
    Body(call): Body<RemoveImageCall>,
) -> Result<Response, Problem> {
    blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        match call.dry_run {
            true => library.plan_removal(&spec, call.when, live).map(answer),
            false => library
                .remove_shown(&spec, call.when, call.shown.as_deref(), live, who.actor())
                .map(answer),
        }
    })
    .await
}

/// Make another version current
///
/// The one that is named, or the one before the current one. Clients get it at their next boot.
#[utoipa::path(
    post,
    path = "/images/{image}/rollback",
    tag = "images",
    params(
        ("image" = VersionSpec, Path, description = "`fc28`, or one version: `fc28@3`"),
        ("if-match" = Option<EntityTags>, Header, description = "The tag of the image"),
    ),
    request_body = Option<RollbackCall>,
    responses(
        (status = 200, body = Rollback),
        ChangeRefused,
    )
)]
async fn roll_back(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(spec): Named<VersionSpec>,
    condition: IfMatch,
    Body(call): Body<RollbackCall>,
) -> Answer<Rollback> {
    blocking(&server, move |server| {
        let library = server.library();
        match call.dry_run {
            true => library.plan_rollback(&spec),
            false => {
                let current = condition.current(&library.image(&spec.image)?);
                library.roll_back_on(&spec, current, who.actor())
            }
        }
    })
    .await
    .map(Json)
}

/// Remove old versions that nobody uses
#[utoipa::path(
    post,
    path = "/prune",
    tag = "images",
    request_body = PruneCall,
    responses(
        (status = 200, body = Pruning),
        ActRefused,
    )
)]
async fn prune(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<PruneCall>,
) -> Answer<Pruning> {
    blocking(&server, move |server| {
        let (library, live, image) = (server.library(), server.live(), call.image.as_ref());
        match call.dry_run {
            true => library.plan_prune(image, call.keep, live),
            false => {
                library.prune_shown(image, call.keep, call.shown.as_deref(), live, who.actor())
            }
        }
    })
    .await
    .map(Json)
}

/// The image, or what would be done.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
enum ImageOrPlan {
    Image(Image),
    Plan(ImagePlan),
}
