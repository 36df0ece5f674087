//! Who asks, and whether they may: before anything is done.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use subtle::ConstantTimeEq;

use super::cookie::{self, Cookie};
use super::{Gate, LoginId, OPEN, OPEN_MOST, OWN, address, form, host};
use crate::daemon::Server;
use crate::library::Actor;
use crate::web::pages::{Failure, encoded};
use crate::web::{Login, Problem, Who, blocking, body};

/// Somebody who may come in.
struct Entry {
    who: Who,
    /// The login behind a cookie; nothing where a token was shown.
    login: Option<LoginId>,
}

/// A login as long as cookie and user hold.
struct ByCookie {
    gate: Arc<Gate>,
    id: LoginId,
}

/// A login as long as the token holds.
struct ByToken {
    server: Arc<Server>,
    id: String,
}

/// Lets through who may do what is asked, and tells the rest of the server who it is.
pub(super) async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match examined(&gate, request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused,
    }
}

async fn examined(gate: &Arc<Gate>, request: Request) -> Result<Request, Response> {
    let looks = looks(request.method());
    let program = is_for_programs(&request);
    let refused = |problem: Problem| refusal(problem, program);
    if !looks && is_foreign(request.headers()) {
        return Err(refused(foreign()));
    }
    let path = request.uri().path();
    if is_open(path) || (gate.open_metrics && looks && path == "/metrics") {
        return match looks {
            true => Ok(request),
            false => body::whole(request, OPEN_MOST).await.map_err(refused),
        };
    }
    let (mut head, mut body) = request.into_parts();
    let mut entry = gate.admitted(&head, program).await?;
    if !looks {
        // Who was let in may send the rest when they like, and be put out meanwhile: it is asked again
        // when all is there.
        let all = body::whole(Request::from_parts(head, body), body::MOST).await;
        (head, body) = all.map_err(refused)?.into_parts();
        entry = gate.admitted(&head, program).await?;
    }
    let mut request = Request::from_parts(head, body);
    // Only a browser sends its cookie also where another's page makes it.
    if !looks && entry.login.is_some() {
        request = with_token(request, &entry.who.csrf)
            .await
            .map_err(refused)?;
    }
    if let Some(login) = entry.login {
        request.extensions_mut().insert(login);
    }
    request.extensions_mut().insert(entry.who);
    Ok(request)
}

/// Why somebody is not let in: a page for people.
fn refusal(problem: Problem, program: bool) -> Response {
    match program {
        true => problem.into_response(),
        false => Failure::from(problem).into_response(),
    }
}

/// Whether a request changes nothing.
fn looks(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

impl Gate {
    /// Who asks, if they may do what they ask for at this moment.
    async fn admitted(self: &Arc<Self>, head: &Parts, program: bool) -> Result<Entry, Response> {
        let peer = address(head.extensions.get());
        let entry = self.entry(&head.headers, peer).await;
        let entry = entry.map_err(|problem| refusal(problem, program))?;
        let Some(entry) = entry else {
            return Err(not_logged_in(head, program));
        };
        if looks(&head.method) || entry.who.operates() || OWN.contains(&head.uri.path()) {
            return Ok(entry);
        }
        let why = format!(
            "{} may look at everything and change nothing: this needs the role operator",
            entry.who.name
        );
        Err(refusal(Problem::new(StatusCode::FORBIDDEN, why), program))
    }

    /// Who it is that shows a token or a cookie.
    async fn entry(
        self: &Arc<Self>,
        headers: &HeaderMap,
        peer: std::net::IpAddr,
    ) -> Result<Option<Entry>, Problem> {
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            return self.by_token(shown, peer.to_string()).await;
        }
        for held in cookie::sent(Cookie::Login, headers, self.tls) {
            let id = LoginId::of(held);
            if let Some(entry) = self.by_cookie(id, peer.to_string()).await? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    async fn by_token(&self, shown: &HeaderValue, peer: String) -> Result<Option<Entry>, Problem> {
        let Some(secret) = shown.to_str().ok().and_then(bearer) else {
            return Ok(None);
        };
        let secret = secret.to_owned();
        let token = blocking(&self.server, move |server| {
            server.library().token_of(&secret)
        });
        let Some(token) = token.await? else {
            return Ok(None);
        };
        let id = token.id().to_owned();
        let who = Who {
            name: format!("token {}", token.name),
            role: token.role,
            actor: Actor::Token {
                name: token.name.to_string(),
                peer,
            },
            // Nobody asks it for one, and notices are kept by it.
            csrf: format!("token-{id}"),
            login: Some(Arc::new(ByToken {
                server: self.server.clone(),
                id,
            })),
        };
        Ok(Some(Entry { who, login: None }))
    }

    async fn by_cookie(
        self: &Arc<Self>,
        id: LoginId,
        peer: String,
    ) -> Result<Option<Entry>, Problem> {
        let Some(login) = self.logins.used(&id, Instant::now()) else {
            return Ok(None);
        };
        let name = login.user.clone();
        let user = blocking(&self.server, move |server| {
            server.library().known_user(&name)
        });
        // What they may do is what they may do now, not when they logged in.
        let Some(user) = user.await?.filter(|user| user.stamp == login.stamp) else {
            self.logins.end(&id);
            return Ok(None);
        };
        let who = Who {
            name: user.name.to_string(),
            role: user.role,
            actor: Actor::User {
                name: user.name.to_string(),
                peer,
            },
            csrf: login.csrf.to_string(),
            login: Some(Arc::new(ByCookie {
                gate: self.clone(),
                id: id.clone(),
            })),
        };
        Ok(Some(Entry {
            who,
            login: Some(id),
        }))
    }
}

impl Login for ByCookie {
    fn holds(&self) -> bool {
        let Some(login) = self.gate.logins.find(&self.id, Instant::now()) else {
            return false;
        };
        let user = self.gate.server.library().known_user(&login.user);
        user.is_ok_and(|user| user.is_some_and(|user| user.stamp == login.stamp))
    }
}

impl Login for ByToken {
    fn holds(&self) -> bool {
        let token = self.server.library().live_token(&self.id);
        token.is_ok_and(|token| token.is_some())
    }
}

impl fmt::Debug for ByCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByCookie")
    }
}

impl fmt::Debug for ByToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByToken").field(&self.id).finish()
    }
}

fn is_open(path: &str) -> bool {
    OPEN.iter().any(|open| match open.ends_with('/') {
        true => path.starts_with(open),
        false => path == *open,
    })
}

/// Whether a program asks, which reads problems and follows no redirect to a form.
fn is_for_programs(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/api/v1/")
        || matches!(path, "/api/v1" | "/stream" | "/metrics")
        || request.headers().contains_key(header::AUTHORIZATION)
}

fn not_logged_in(head: &Parts, program: bool) -> Response {
    if program {
        let problem = Problem::new(
            StatusCode::UNAUTHORIZED,
            "log in, or show a token (`netroot token add`) as `Authorization: Bearer TOKEN`; it may be \
             over, or have been taken back",
        );
        let how = [(header::WWW_AUTHENTICATE, "Bearer realm=\"netroot\"")];
        return (how, problem).into_response();
    }
    let asked = head.uri.path_and_query();
    let asked = asked
        .map(|asked| asked.as_str())
        .filter(|path| *path != "/");
    match asked.filter(|_| head.method == Method::GET) {
        Some(path) => Redirect::to(&format!("/login?next={}", encoded(path))).into_response(),
        None => Redirect::to("/login").into_response(),
    }
}

/// The secret of `Bearer SECRET` (RFC 6750 §2.1).
fn bearer(shown: &str) -> Option<&str> {
    let (kind, secret) = shown.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// Whether a browser says that another's page made this request. One that says nothing of it is old,
/// or no browser.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let Some(origin) = text("origin") else {
        return false;
    };
    let from = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    let from: Option<Authority> = from.and_then(|from| from.parse().ok());
    from.is_none() || from != host::asked_for(headers)
}

fn foreign() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "this request was made by a page of another site; nothing was done. If you made it yourself, do \
         it from the dashboard",
    )
}

/// The request again, if it brings along what only a page of ours knows: in a header, or in the form,
/// which has to be read for it.
async fn with_token(request: Request, csrf: &str) -> Result<Request, Problem> {
    let is = |shown: &str| bool::from(shown.as_bytes().ct_eq(csrf.as_bytes()));
    let missing = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "this form is from another login; nothing was done. Load the page again, and repeat it",
        )
    };
    if let Some(shown) = request.headers().get("x-csrf-token") {
        return match is(shown.to_str().unwrap_or("")) {
            true => Ok(request),
            false => Err(missing()),
        };
    }
    if !form::is_form(request.headers()) {
        return Err(missing());
    }
    let (head, body) = request.into_parts();
    let body = form::bytes(body).await?;
    let fields = form::parsed(body.clone()).await?;
    match is(fields.field("csrf")) {
        true => Ok(Request::from_parts(head, Body::from(body))),
        false => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_pages_of_ours_may_change_something() {
        let host = ("host", "127.0.0.1:8081");
        for own in [
            &[host][..],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://127.0.0.1:8081")],
            &[host, ("origin", "https://127.0.0.1:8081")],
        ] {
            assert!(!is_foreign(&headers(own)), "{own:?}");
        }
        for foreign in [
            &[host, ("sec-fetch-site", "cross-site")][..],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("origin", "http://127.0.0.1:8082")],
            &[host, ("origin", "http://127.0.0.1")],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://evil.example")],
            &[("origin", "http://127.0.0.1:8081")],
        ] {
            assert!(is_foreign(&headers(foreign)), "{foreign:?}");
        }
    }

    #[test]
    fn a_secret_is_read_from_its_header() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }

    #[test]
    fn what_is_open_is_no_more_than_that() {
        for open in ["/login", "/welcome", "/assets/1/app.js", "/healthz"] {
            assert!(is_open(open), "{open}");
        }
        for closed in [
            "/", "/login/", "/logins", "/assets", "/LOGIN", "/metrics", "//login",
        ] {
            assert!(!is_open(closed), "{closed}");
        }
        assert!(
            OWN.iter()
                .all(|own| *own == "/logout" || own.starts_with("/account/"))
        );
    }
}
