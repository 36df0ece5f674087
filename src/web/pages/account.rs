//! One's own account: the password, and where one is logged in.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::page::{Failure, Html, Notice, Page};
use super::text;
use crate::daemon::{Peer, Server};
use crate::library::{Actor, UserName};
use crate::web::Problem;
use crate::web::auth::{Fields, Gate, LoginId, LoginRow, address};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/account", get(account))
        .route("/account/password", post(change_password))
        .route("/account/logins/end", post(end_login))
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    page: Page,
    /// Nothing for who is no user of ours: of this host, or a program.
    own: Option<Own>,
    wrong: Option<String>,
}

/// What belongs to a user.
struct Own {
    logins: Vec<LoginRow>,
    /// The login by which they look at it.
    this: Option<u64>,
}

/// The way in, where the request came by it.
type Way = Option<Extension<Arc<Gate>>>;
type Login = Option<Extension<LoginId>>;

async fn account(page: Page, gate: Way, login: Login) -> Html<AccountPage> {
    drawn(page, &gate, &login, None)
}

fn drawn(page: Page, gate: &Way, login: &Login, wrong: Option<String>) -> Html<AccountPage> {
    let own = match (gate, login, user(&page)) {
        (Some(Extension(gate)), Some(Extension(login)), Ok(_)) => Some(Own {
            logins: gate.logins_of(&page.who.name),
            this: gate.number_of(login),
        }),
        _ => None,
    };
    Html(AccountPage { page, own, wrong })
}

async fn change_password(
    State(_): State<Arc<Server>>,
    page: Page,
    gate: Way,
    login: Login,
    peer: Option<Extension<Peer>>,
    fields: Fields,
) -> Result<Response, Failure> {
    let name = user(&page)?;
    let (Some(Extension(way)), Some(Extension(id))) = (&gate, &login) else {
        return Err(no_account().into());
    };
    let [old, new, again] = ["old", "new", "again"].map(|name| fields.field(name).to_owned());
    let tried = if new == again {
        let actor = page.who.actor.clone();
        let peer = address(peer.as_deref());
        let about = name.clone();
        let changed = way.hashing_within(id, name.as_str(), peer, move |library| {
            library.change_password(&about, &old, &new, &actor)
        });
        changed.await
    } else {
        Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the new password and its repetition are not the same; nothing was changed",
        ))
    };
    match tried {
        Ok(user) => {
            way.goes_on(id, user.stamp);
            let news =
                "Your password is changed. Wherever else you were logged in, you are no more.";
            Ok(page.then("/account", Notice::good(news)))
        }
        Err(problem) => {
            let status = problem.status;
            let again = drawn(page, &gate, &login, Some(problem.detail));
            Ok((status, again).into_response())
        }
    }
}

async fn end_login(page: Page, gate: Way, fields: Fields) -> Result<Response, Failure> {
    let name = user(&page)?;
    let Some(Extension(gate)) = gate else {
        return Err(no_account().into());
    };
    let number = fields.field("number").parse();
    gate.end_login(name.as_str(), number.map_err(Problem::invalid)?);
    gate.note_logout(Some(&page.who)).await;
    Ok(page.then("/account", Notice::good("That login is over.")))
}

/// The user who looks at a page.
fn user(page: &Page) -> Result<UserName, Problem> {
    match &page.who.actor {
        Actor::User { name, .. } => name.parse().map_err(|_| no_account()),
        _ => Err(no_account()),
    }
}

fn no_account() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "whoever comes by the control socket or shows a token has no password and no logins here",
    )
}
