//! `/users` and `/tokens`: who may come in. For people: what a token made would outlive it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::{EntityTags, IfMatch, tagged};
use super::problems::{ChangeRefused, LookRefused};
use super::{Answer, Body, Named};
use crate::daemon::Server;
use crate::library::{
    self, Edition, Invitation, Library, NewToken, NewUser, Revealed, TokenName, TokenView, User,
    UserName, UserView,
};
use crate::web::calls::{AddTokenCall, AddUserCall, InviteCall, RoleCall, TakeCall};
use crate::web::pages::ensure_person;
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(routes!(users, add_user))
        .routes(routes!(user, set_role, remove_user))
        .routes(routes!(invite_user))
        .routes(routes!(tokens, add_token))
        .routes(routes!(token, remove_token))
}

/// All users
#[utoipa::path(get, path = "/users", tag = "accounts", responses((status = 200, body = Vec<UserView>)))]
async fn users(State(server): State<Arc<Server>>) -> Answer<Vec<UserView>> {
    let users = blocking(&server, |server| server.library().users()).await?;
    Ok(Json(users.iter().map(User::view).collect()))
}

/// One user
#[utoipa::path(
    get,
    path = "/users/{name}",
    tag = "accounts",
    params(("name" = UserName, Path)),
    responses(
        (status = 200, body = UserView, headers(("etag" = String))),
        LookRefused,
    )
)]
async fn user(
    State(server): State<Arc<Server>>,
    Named(name): Named<UserName>,
) -> Result<Response, Problem> {
    let user = blocking(&server, move |server| server.library().user(&name)).await?;
    Ok(tagged(user.edition().as_str(), user.view()))
}

/// Add a user, and get the key of the link by which they choose a password
///
/// The link is `/welcome?key=KEY` on the dashboard. It works once, for a day.
#[utoipa::path(
    post,
    path = "/users",
    tag = "accounts",
    request_body = AddUserCall,
    responses(
        (status = 201, body = Invitation),
        (status = 204, description = "It could be done (dry_run)"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn add_user(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<AddUserCall>,
) -> Result<Response, Problem> {
    ensure_person(&who)?;
    let new = NewUser {
        name: call.name,
        role: call.role,
    };
    let added = blocking(&server, move |server| {
        let library = server.library();
        who.ensure_logged_in()?;
        match call.dry_run {
            true => library.check_add_user(&new, false).map(|()| None),
            false => library.add_user(&new, false, who.actor()).map(Some),
        }
    });
    Ok(made(added.await?))
}

/// Make a new link for a user, who forgot the password
#[utoipa::path(
    post,
    path = "/users/{name}/invite",
    tag = "accounts",
    params(("name" = UserName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<InviteCall>,
    responses(
        (status = 201, body = Invitation),
        (status = 204, description = "It could be done (dry_run)"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn invite_user(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<UserName>,
    condition: IfMatch,
    Body(call): Body<InviteCall>,
) -> Result<Response, Problem> {
    ensure_person(&who)?;
    let invited = blocking(&server, move |server| {
        let library = server.library();
        who.ensure_logged_in()?;
        let edition = user_read(library, &name, &condition)?;
        match call.dry_run {
            true => library.check_invite_user(&name).map(|()| None),
            false => library
                .invite_user_on(&name, edition.as_ref(), who.actor())
                .map(Some),
        }
    });
    Ok(made(invited.await?))
}

/// Give a user another role; tells the tokens of theirs that are taken back
#[utoipa::path(
    patch,
    path = "/users/{name}",
    tag = "accounts",
    params(("name" = UserName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = RoleCall,
    responses(
        (status = 200, body = Vec<TokenView>),
        ChangeRefused,
    )
)]
async fn set_role(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<UserName>,
    condition: IfMatch,
    Body(call): Body<RoleCall>,
) -> Answer<Vec<TokenView>> {
    ensure_person(&who)?;
    let taken = blocking(&server, move |server| {
        let library = server.library();
        who.ensure_logged_in()?;
        let edition = user_read(library, &name, &condition)?;
        match call.dry_run {
            true => library.check_take_user(&name, Some(call.role), who.actor()),
            false => library.set_role_on(&name, edition.as_ref(), call.role, who.actor()),
        }
    });
    taken.await.map(Json)
}

/// Remove a user; tells the tokens of theirs that are taken back
#[utoipa::path(
    delete,
    path = "/users/{name}",
    tag = "accounts",
    params(("name" = UserName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<TakeCall>,
    responses(
        (status = 200, body = Vec<TokenView>),
        ChangeRefused,
    )
)]
async fn remove_user(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<UserName>,
    condition: IfMatch,
    Body(call): Body<TakeCall>,
) -> Answer<Vec<TokenView>> {
    ensure_person(&who)?;
    let taken = blocking(&server, move |server| {
        let library = server.library();
        who.ensure_logged_in()?;
        let edition = user_read(library, &name, &condition)?;
        match call.dry_run {
            true => library.check_take_user(&name, None, who.actor()),
            false => library.remove_user_on(&name, edition.as_ref(), who.actor()),
        }
    });
    taken.await.map(Json)
}

/// All tokens
#[utoipa::path(get, path = "/tokens", tag = "accounts", responses((status = 200, body = Vec<TokenView>)))]
async fn tokens(State(server): State<Arc<Server>>) -> Answer<Vec<TokenView>> {
    let tokens = blocking(&server, |server| server.library().tokens());
    tokens.await.map(Json)
}

/// One token
#[utoipa::path(
    get,
    path = "/tokens/{name}",
    tag = "accounts",
    params(("name" = TokenName, Path)),
    responses(
        (status = 200, body = TokenView, headers(("etag" = String))),
        LookRefused,
    )
)]
async fn token(
    State(server): State<Arc<Server>>,
    Named(name): Named<TokenName>,
) -> Result<Response, Problem> {
    let token = blocking(&server, move |server| server.library().token(&name)).await?;
    Ok(tagged(token.edition().as_str(), token.view()))
}

/// Make a token; its secret is told this once
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "accounts",
    request_body = AddTokenCall,
    responses(
        (status = 201, body = Revealed),
        (status = 204, description = "It could be done (dry_run)"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn add_token(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Body(call): Body<AddTokenCall>,
) -> Result<Response, Problem> {
    ensure_person(&who)?;
    let new = NewToken {
        name: call.name,
        role: call.role,
        expires: call.expires,
    };
    let added = blocking(&server, move |server| {
        let library = server.library();
        who.ensure_logged_in()?;
        match call.dry_run {
            true => library.check_add_token(&new).map(|()| None),
            false => library.add_token(&new, who.actor()).map(Some),
        }
    });
    Ok(made(added.await?))
}

/// Take a token back
#[utoipa::path(
    delete,
    path = "/tokens/{name}",
    tag = "accounts",
    params(("name" = TokenName, Path), ("if-match" = Option<EntityTags>, Header, description = "Its edition")),
    request_body = Option<TakeCall>,
    responses(
        (status = 200, body = TokenView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn remove_token(
    State(server): State<Arc<Server>>,
    Extension(who): Extension<Who>,
    Named(name): Named<TokenName>,
    condition: IfMatch,
    Body(call): Body<TakeCall>,
) -> Answer<TokenView> {
    ensure_person(&who)?;
    let taken = blocking(&server, move |server| {
        let library = server.library();
        who.ensure_logged_in()?;
        let token = library.token(&name)?;
        let edition = condition.edition(token.edition());
        token.ensure_edition(edition.as_ref())?;
        match call.dry_run {
            true => library.check_remove_token(&name),
            false => library.remove_token_on(&name, edition.as_ref(), who.actor()),
        }
    });
    taken.await.map(Json)
}

/// The edition that a user has to be of, and is of at this moment.
fn user_read(
    library: &Library,
    name: &UserName,
    condition: &IfMatch,
) -> library::Result<Option<Edition>> {
    let user = library.user(name)?;
    let edition = condition.edition(user.edition());
    user.ensure_edition(edition.as_ref())?;
    Ok(edition)
}

/// What was made, or that it could be.
fn made<T: serde::Serialize>(made: Option<T>) -> Response {
    match made {
        Some(made) => (StatusCode::CREATED, Json(made)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}
