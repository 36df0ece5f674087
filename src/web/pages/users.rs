//! Who may come in: users, and the tokens of programs. What is shown once is in the answer to the form
//! that made it, and nowhere else.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::act::parsed;
use super::page::{Failure, Html, Notice, Page};
use super::text;
use crate::daemon::{Server, admin_url};
use crate::library::{
    Actor, Invitation, NewToken, NewUser, Revealed, Role, TokenName, TokenView, User, UserName,
    UserView,
};
use crate::web::auth::{Fields, Gate};
use crate::web::{Problem, Who, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/users", get(users))
        .route("/users/add", post(add_user))
        .route("/users/{name}/invite", post(invite))
        .route("/users/{name}/role", post(role))
        .route("/users/{name}/remove", get(ask_remove).post(remove))
        .route("/tokens/add", post(add_token))
        .route("/tokens/{name}/remove", post(remove_token))
}

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    page: Page,
    users: Vec<UserView>,
    tokens: Vec<TokenView>,
    shown: Option<Shown>,
    wrong: Option<String>,
}

/// What is shown this once.
enum Shown {
    Link { invitation: Invitation, url: String },
    Secret(Revealed),
}

#[derive(Template)]
#[template(path = "user-remove.html")]
struct RemovePage {
    page: Page,
    name: UserName,
    tokens: Vec<TokenView>,
}

impl UsersPage {
    /// Whether who looks may change what is here.
    fn may(&self) -> bool {
        ensure_person(&self.page.who).is_ok()
    }

    fn is_self(&self, user: &UserView) -> bool {
        matches!(&self.page.who.actor, Actor::User { name, .. } if name == user.name.as_str())
    }
}

async fn users(State(server): State<Arc<Server>>, page: Page) -> Result<Html<UsersPage>, Failure> {
    drawn(&server, page, None, None).await
}

async fn drawn(
    server: &Arc<Server>,
    page: Page,
    shown: Option<Shown>,
    wrong: Option<String>,
) -> Result<Html<UsersPage>, Failure> {
    let both = blocking(server, |server| {
        let library = server.library();
        Ok((library.users()?, library.tokens()?))
    });
    let (users, tokens) = both.await?;
    Ok(Html(UsersPage {
        page,
        users: users.iter().map(User::view).collect(),
        tokens,
        shown,
        wrong,
    }))
}

async fn refused(server: &Arc<Server>, page: Page, problem: Problem) -> Result<Response, Failure> {
    let status = problem.status;
    let page = drawn(server, page, None, Some(problem.detail)).await?;
    Ok((status, page).into_response())
}

async fn add_user(
    State(server): State<Arc<Server>>,
    page: Page,
    gate: Option<Extension<Arc<Gate>>>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Failure> {
    ensure_person(&page.who)?;
    let read = || {
        Ok(NewUser {
            name: parsed(fields.field("name"))?,
            role: parsed(fields.field("role"))?,
        })
    };
    let new = match read() {
        Ok(new) => new,
        Err(wrong) => return refused(&server, page, unreadable(wrong)).await,
    };
    let who = page.who.clone();
    let added = blocking(&server, move |server| {
        who.ensure_logged_in()?;
        server.library().add_user(&new, false, who.actor())
    });
    let added = added.await;
    link_shown(&server, page, gate, &headers, added).await
}

async fn invite(
    State(server): State<Arc<Server>>,
    page: Page,
    gate: Option<Extension<Arc<Gate>>>,
    headers: HeaderMap,
    Path(name): Path<UserName>,
) -> Result<Response, Failure> {
    ensure_person(&page.who)?;
    let who = page.who.clone();
    let invited = blocking(&server, move |server| {
        who.ensure_logged_in()?;
        server.library().invite_user(&name, who.actor())
    });
    let invited = invited.await;
    link_shown(&server, page, gate, &headers, invited).await
}

async fn link_shown(
    server: &Arc<Server>,
    page: Page,
    gate: Option<Extension<Arc<Gate>>>,
    headers: &HeaderMap,
    made: Result<Invitation, Problem>,
) -> Result<Response, Failure> {
    let invitation = match made {
        Ok(invitation) => invitation,
        Err(problem) => return refused(server, page, problem).await,
    };
    // As the browser that asks for it found the dashboard, others will.
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let url = match (gate, host) {
        (Some(Extension(gate)), Some(host)) => Some(gate.url(host)),
        _ => admin_url(&server.library().config()),
    };
    let url = format!("{}/welcome?key={}", url.unwrap_or_default(), invitation.key);
    let shown = Shown::Link { invitation, url };
    Ok(drawn(server, page, Some(shown), None)
        .await?
        .into_response())
}

async fn role(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<UserName>,
    fields: Fields,
) -> Result<Response, Failure> {
    ensure_person(&page.who)?;
    let role: Role = match parsed(fields.field("role")) {
        Ok(role) => role,
        Err(wrong) => return refused(&server, page, unreadable(wrong)).await,
    };
    let who = page.who.clone();
    let about = name.clone();
    let changed = blocking(&server, move |server| {
        who.ensure_logged_in()?;
        server.library().set_role(&about, role, who.actor())
    });
    let notice = match changed.await {
        Ok(taken) => Notice::good(format!("{name} is a {role} now.{}", gone(&taken))),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then("/users", notice))
}

async fn ask_remove(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<UserName>,
) -> Result<Response, Failure> {
    let about = name.clone();
    let actor = page.who.actor.clone();
    let tokens = blocking(&server, move |server| {
        server.library().check_take_user(&about, None, &actor)
    });
    match tokens.await {
        Ok(tokens) => Ok(Html(RemovePage { page, name, tokens }).into_response()),
        Err(problem) => refused(&server, page, problem).await,
    }
}

async fn remove(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<UserName>,
) -> Result<Response, Failure> {
    ensure_person(&page.who)?;
    let who = page.who.clone();
    let about = name.clone();
    let removed = blocking(&server, move |server| {
        who.ensure_logged_in()?;
        server.library().remove_user(&about, who.actor())
    });
    let notice = match removed.await {
        Ok(taken) => Notice::good(format!("Removed {name}.{}", gone(&taken))),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then("/users", notice))
}

async fn add_token(
    State(server): State<Arc<Server>>,
    page: Page,
    fields: Fields,
) -> Result<Response, Failure> {
    ensure_person(&page.who)?;
    let read = || {
        Ok(NewToken {
            name: parsed(fields.field("name"))?,
            role: parsed(fields.field("role"))?,
            expires: parsed(fields.field("expires"))?,
        })
    };
    let new = match read() {
        Ok(new) => new,
        Err(wrong) => return refused(&server, page, unreadable(wrong)).await,
    };
    let who = page.who.clone();
    let made = blocking(&server, move |server| {
        who.ensure_logged_in()?;
        server.library().add_token(&new, who.actor())
    });
    match made.await {
        Ok(revealed) => {
            let shown = Some(Shown::Secret(revealed));
            Ok(drawn(&server, page, shown, None).await?.into_response())
        }
        Err(problem) => refused(&server, page, problem).await,
    }
}

async fn remove_token(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<TokenName>,
) -> Result<Response, Failure> {
    ensure_person(&page.who)?;
    let who = page.who.clone();
    let about = name.clone();
    let removed = blocking(&server, move |server| {
        who.ensure_logged_in()?;
        server.library().remove_token(&about, who.actor())
    });
    let notice = match removed.await {
        Ok(_) => Notice::good(format!("Took the token {name} back.")),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then("/users", notice))
}

/// A token that could make others, or users, would outlive its end.
pub(in crate::web) fn ensure_person(who: &Who) -> Result<(), Problem> {
    let why = match &who.actor {
        Actor::Token { .. } => "users and tokens are managed by people: log in for it",
        _ if !who.operates() => "this needs the role operator",
        _ => return Ok(()),
    };
    Err(Problem::new(StatusCode::FORBIDDEN, why))
}

fn unreadable(wrong: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, wrong)
}

fn gone(tokens: &[TokenView]) -> String {
    match tokens {
        [] => String::new(),
        tokens => {
            let names: Vec<_> = tokens.iter().map(|token| token.name.to_string()).collect();
            format!(
                " Their tokens are taken back: {}.",
                text::names(&names, "token")
            )
        }
    }
}
