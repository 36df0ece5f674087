//! What is done to chosen clients: at once where nothing is lost, else after a page that says what.
//!
//! - `wanted`: what a form asks for; `asked`: what has to be asked about; `done`: what came of it

mod asked;
mod done;
mod form;
mod wanted;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::page::{Failure, Html, Notice, Page};
use super::text;
use crate::daemon::Server;
use crate::library::When;
use crate::web::blocking;
use asked::Asked;
use done::Outcome;
use wanted::{Fields, Wanted};

pub(super) use form::Wrong;
pub(super) use wanted::{Fields as FormFields, field, given, kernel_args, parsed, words};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/clients/act", post(act))
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage {
    page: Page,
    asked: Asked,
    /// Brought along to the next request.
    fields: Vec<(String, String)>,
    back: String,
}

/// What a request led to.
enum Tried {
    Asked(Asked),
    Done(Outcome),
}

async fn act(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<Fields>,
) -> Result<Response, Failure> {
    let back = wanted::back(&fields);
    let wanted = match Wanted::parse(&fields) {
        Ok(wanted) => wanted,
        Err(why) => return Ok(page.then(&back, Notice::bad(why))),
    };
    let actor = page.who.actor.clone();
    let from = back.clone();
    let tried = blocking(&server, move |server| {
        if !wanted.sure {
            let asked = Asked::about(&wanted, server);
            if asked.is_needed() {
                return Ok(Tried::Asked(asked));
            }
        }
        Ok(Tried::Done(Outcome::of(&wanted, server, &actor, &from)))
    });
    Ok(match tried.await? {
        Tried::Done(outcome) => {
            let to = if outcome.is_gone { "/" } else { &back };
            page.then(to, outcome.notice())
        }
        Tried::Asked(asked) => {
            let fields = wanted::again(&fields);
            Html(ConfirmPage {
                page,
                asked,
                fields,
                back,
            })
            .into_response()
        }
    })
}
