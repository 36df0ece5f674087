//! What every page has: who looks at it, where it is, and what the last act led to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;

use crate::web::{Problem, Who, assets};

/// What every page has. An argument of a handler; a field `page` of its template.
pub(in crate::web) struct Page {
    /// Who looks at it.
    pub who: Who,
    /// Its path.
    pub path: String,
    /// What the last act led to; shown once.
    pub notice: Option<Notice>,
    /// When it was asked for.
    asked: Timestamp,
    notices: Arc<Notices>,
}

impl Page {
    /// What a form must bring along.
    pub(in crate::web) fn csrf(&self) -> &str {
        &self.who.csrf
    }

    /// Whether it is in this part of the dashboard.
    pub(in crate::web) fn is_at(&self, part: &str) -> bool {
        match part {
            "/" => self.path == "/" || self.path.starts_with("/clients"),
            "/groups" => self.path.starts_with(part) || self.path.starts_with("/rollouts"),
            _ => self.path.starts_with(part),
        }
    }

    /// When it is drawn, in milliseconds since the epoch: what changes later is told by the stream.
    pub(in crate::web) fn drawn(&self) -> i64 {
        self.asked.as_millisecond()
    }

    /// Where an asset is found.
    pub(in crate::web) fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// The answer to a form: another page, which tells once what came of it.
    pub(in crate::web) fn then(self, to: &str, notice: Notice) -> Response {
        self.notices.put(&self.who.csrf, notice);
        Redirect::to(to).into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let known = (
            parts.extensions.get::<Who>().cloned(),
            parts.extensions.get::<Arc<Notices>>().cloned(),
        );
        let (Some(who), Some(notices)) = known else {
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a page was asked for by nobody; please report this",
            ));
        };
        // A form's answer is another page: what is to be told waits for that one.
        let looks = parts.method == axum::http::Method::GET;
        Ok(Page {
            notice: looks.then(|| notices.take(&who.csrf)).flatten(),
            path: parts.uri.path().to_owned(),
            asked: Timestamp::now(),
            who,
            notices,
        })
    }
}

/// What an act led to, told once on the next page.
#[derive(Debug, Clone)]
pub(in crate::web) struct Notice {
    /// Whether it is good news.
    pub good: bool,
    /// The news.
    pub text: String,
    /// What takes the act back.
    pub undo: Option<Undo>,
}

/// A form of one button that takes an act back.
#[derive(Debug, Clone)]
pub(in crate::web) struct Undo {
    /// Where it goes.
    pub action: String,
    /// Hidden fields.
    pub fields: Vec<(String, String)>,
}

impl Notice {
    /// Good news.
    pub(in crate::web) fn good(text: impl Into<String>) -> Self {
        Notice {
            good: true,
            text: text.into(),
            undo: None,
        }
    }

    /// Something did not work.
    pub(in crate::web) fn bad(text: impl Into<String>) -> Self {
        Notice {
            good: false,
            ..Notice::good(text)
        }
    }
}

/// Notices that nobody has seen yet, by login.
#[derive(Debug, Default)]
pub(in crate::web) struct Notices(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_login: HashMap<String, Notice>,
    order: VecDeque<String>,
}

impl Notices {
    /// Whoever never looks again is forgotten when so many others wait.
    const MOST: usize = 256;

    fn put(&self, login: &str, notice: Notice) {
        // A panic elsewhere loses a notice at most.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.by_login.insert(login.to_owned(), notice).is_none() {
            waiting.order.push_back(login.to_owned());
        }
        while waiting.order.len() > Self::MOST {
            if let Some(oldest) = waiting.order.pop_front() {
                waiting.by_login.remove(&oldest);
            }
        }
    }

    fn take(&self, login: &str) -> Option<Notice> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let notice = waiting.by_login.remove(login)?;
        waiting.order.retain(|other| other != login);
        Some(notice)
    }
}

/// A page that is answered.
pub(in crate::web) struct Html<T>(pub T);

impl<T: Template> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        match self.0.render() {
            Ok(text) => {
                ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "a page cannot be drawn");
                let why = "this page cannot be drawn; the server's log has more";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
            }
        }
    }
}

/// Why a page cannot be shown: a page, too.
pub(in crate::web) struct Failure(Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure(problem)
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    problem: Problem,
    style: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.0.status;
        let page = ProblemPage {
            problem: self.0,
            style: assets::url("style.css"),
        };
        (status, Html(page)).into_response()
    }
}
