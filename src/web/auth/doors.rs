//! The pages on which people come in and go out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;

use super::attempts::Caller;
use super::cookie::{self, Cookie};
use super::{Fields, Gate, LoginId, address};
use crate::daemon::Peer;
use crate::library::{self, Actor, User};
use crate::web::pages::{Failure, Html};
use crate::web::{Problem, Who, assets, blocking};

pub(super) fn routes(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/login", get(login).post(log_in))
        .route("/welcome", get(welcome).post(choose))
        .route("/logout", post(log_out))
        .with_state(gate)
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    style: String,
    /// Nobody can log in yet.
    nobody: bool,
    wrong: Option<String>,
    /// What was typed, and where to go afterwards.
    name: String,
    next: String,
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    style: String,
    /// Whom the link is for; nobody if it is worth nothing.
    name: Option<String>,
    key: String,
    wrong: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    key: String,
}

async fn login(
    State(gate): State<Arc<Gate>>,
    Query(Asked { next }): Query<Asked>,
) -> Result<Response, Failure> {
    let page = gate.login_page(None, String::new(), next).await?;
    Ok(page.into_response())
}

async fn log_in(
    State(gate): State<Arc<Gate>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Failure> {
    let peer = address(peer.as_deref());
    let name = fields.field("name").trim().to_owned();
    let next = fields.field("next").to_owned();
    let password = fields.field("password").to_owned();
    let typed = name.clone();
    let mut cookies = cookie::sent(Cookie::Device, &headers, gate.tls);
    let caller = Caller {
        name: &name,
        peer,
        device: cookies.find_map(|cookie| gate.devices.known(cookie, &name)),
    };
    let tried = gate.passwords.hashing(caller, move |library| {
        let user = library.log_in(&typed, &password)?;
        if user.is_none() {
            library.note_refused_login(&typed, peer);
        }
        Ok(user)
    });
    let (status, wrong) = match tried.await {
        Ok(Some(user)) => {
            gate.passwords.was_right(caller);
            return Ok(gate.let_in(user, peer, &headers, inside(&next)).await?);
        }
        // The same for a name that nobody has.
        Ok(None) => (
            StatusCode::FORBIDDEN,
            "Name and password do not belong together.".to_owned(),
        ),
        Err(problem) => (problem.status, problem.detail),
    };
    let page = gate.login_page(Some(wrong), name, next).await?;
    Ok((status, page).into_response())
}

async fn welcome(
    State(gate): State<Arc<Gate>>,
    Query(Link { key }): Query<Link>,
) -> Result<Response, Failure> {
    Ok(gate.welcome_page(key, None).await?)
}

async fn choose(
    State(gate): State<Arc<Gate>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, Failure> {
    let peer = address(peer.as_deref());
    let key = fields.field("key").to_owned();
    let password = fields.field("password").to_owned();
    if password != fields.field("again") {
        let wrong = "The two are not the same. Nothing was changed.".to_owned();
        return Ok(gate.welcome_page(key, Some(wrong)).await?);
    }
    // Nobody guesses a link, so one that is none is told so, and counts for nothing.
    let link = key.clone();
    let user = blocking(&gate.server, move |server| server.library().invited(&link)).await?;
    if user.is_none() {
        return Ok(gate.welcome_page(key, None).await?);
    }
    let link = key.clone();
    let caller = Caller {
        name: "",
        peer,
        // A link is its own proof: whoever has one does not wait for others' mistakes.
        device: Some(&key),
    };
    let redeemed = gate.passwords.hashing(caller, move |library| {
        library.redeem(&link, &password, &peer.to_string())
    });
    match redeemed.await {
        Ok(Some(user)) => {
            gate.passwords.was_right(caller);
            Ok(gate.let_in(user, peer, &headers, "/").await?)
        }
        Ok(None) => Ok(gate.welcome_page(key, None).await?),
        Err(problem) => Ok(gate.welcome_page(key, Some(problem.detail)).await?),
    }
}

async fn log_out(
    State(gate): State<Arc<Gate>>,
    login: Option<Extension<LoginId>>,
    who: Option<Extension<Who>>,
) -> Response {
    if let Some(Extension(login)) = login {
        gate.logins.end(&login);
        gate.note_logout(who.as_deref()).await;
    }
    let mut response = Redirect::to("/login").into_response();
    if let Some(taken) = cookie::taken(gate.tls) {
        response.headers_mut().insert(header::SET_COOKIE, taken);
    }
    response
}

impl Gate {
    /// Writes down that a user has ended a login.
    pub(in crate::web) async fn note_logout(&self, who: Option<&Who>) {
        let actor = who.map(|who| who.actor.clone());
        let Some(actor @ Actor::User { .. }) = actor else {
            return;
        };
        let noted = blocking(&self.server, move |server| {
            server.library().note_logout(&actor);
            library::Result::Ok(())
        });
        // The login has ended in any case; what cannot be written down stands in the log.
        let _ = noted.await;
    }

    async fn login_page(
        &self,
        wrong: Option<String>,
        name: String,
        next: String,
    ) -> Result<Html<LoginPage>, Problem> {
        let users = blocking(&self.server, |server| server.library().users()).await?;
        Ok(Html(LoginPage {
            style: assets::url("style.css"),
            nobody: users.is_empty(),
            wrong,
            name,
            next,
        }))
    }

    async fn welcome_page(&self, key: String, wrong: Option<String>) -> Result<Response, Problem> {
        let link = key.clone();
        let user = blocking(&self.server, move |server| server.library().invited(&link)).await?;
        let status = match (&user, &wrong) {
            (None, _) => StatusCode::GONE,
            (Some(_), Some(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            (Some(_), None) => StatusCode::OK,
        };
        let page = WelcomePage {
            style: assets::url("style.css"),
            name: user.map(|user| user.name.to_string()),
            key,
            wrong,
        };
        Ok((status, Html(page)).into_response())
    }

    /// Begins a login, always with a new cookie; the one that the browser had before is worth nothing
    /// any more.
    async fn let_in(
        &self,
        user: User,
        peer: IpAddr,
        headers: &HeaderMap,
        to: &str,
    ) -> Result<Response, Problem> {
        for old in cookie::sent(Cookie::Login, headers, self.tls) {
            self.logins.end(&LoginId::of(old));
        }
        let browser = headers.get(header::USER_AGENT);
        let browser = browser.and_then(|name| name.to_str().ok()).unwrap_or("");
        let failed = |why: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why);
        let held = self
            .logins
            .begin(&user, peer, browser, Instant::now())
            .map_err(|error| failed(format!("the kernel gives no random bytes: {error}")))?;
        let cookie = cookie::given(Cookie::Login, &held, self.tls)
            .ok_or_else(|| failed("a cookie cannot be written; please report this".to_owned()))?;
        // Without one the browser is a stranger the next time, and no worse off.
        let name = user.name.as_str();
        let mut devices = cookie::sent(Cookie::Device, headers, self.tls);
        let device = match devices.any(|held| self.devices.known(held, name).is_some()) {
            true => None,
            false => self.devices.new_cookie(name),
        };
        let device = device.and_then(|new| cookie::given(Cookie::Device, &new, self.tls));
        let actor = Actor::User {
            name: user.name.to_string(),
            peer: peer.to_string(),
        };
        blocking(&self.server, move |server| {
            server.library().note_login(&user, &actor);
            Ok(())
        })
        .await?;
        let mut response = Redirect::to(to).into_response();
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        if let Some(device) = device {
            response.headers_mut().append(header::SET_COOKIE, device);
        }
        Ok(response)
    }
}

/// Where somebody wanted to go, if that is a page of ours: no other site, however it is written
/// (browsers read `/\` as `//`, and leave out tabs and line ends).
fn inside(next: &str) -> &str {
    let mut chars = next.chars();
    let own = chars.next() == Some('/') && !matches!(chars.next(), Some('/' | '\\'));
    match own && next.chars().all(|c| c.is_ascii_graphic()) {
        true => next,
        false => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn nobody_is_sent_elsewhere_after_logging_in() {
        for own in ["/", "/clients/52:54:00:12:34:56?a=b%20c", "/jobs/1"] {
            assert_eq!(inside(own), own);
        }
        for other in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/\n",
            "jobs",
        ] {
            assert_eq!(inside(other), "/", "{other:?}");
        }
    }
}
