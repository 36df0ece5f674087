//! Adding a client.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use super::act::{FormFields, Wrong, field, parsed, words};
use super::page::{Failure, Html, Notice, Page};
use crate::daemon::Server;
use crate::library::{Image, Mode, NewClient, Settings};
use crate::web::blocking;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/clients/new", get(form).post(add))
}

#[derive(Template)]
#[template(path = "client-new.html")]
struct NewPage {
    page: Page,
    images: Vec<Image>,
    filled: Filled,
    /// What is wrong with what was filled in.
    wrong: Option<Wrong>,
}

/// The form, as somebody has filled it in.
#[derive(Default)]
struct Filled {
    mac: String,
    name: String,
    image: String,
    mode: String,
    groups: String,
    args: String,
}

/// What is known already.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    mac: String,
}

async fn form(
    State(server): State<Arc<Server>>,
    page: Page,
    Query(Known { mac }): Query<Known>,
) -> Result<Html<NewPage>, Failure> {
    let filled = Filled {
        mac,
        ..Filled::default()
    };
    drawn(&server, page, filled, None).await
}

impl NewPage {
    fn wrong_with(&self, field: &str) -> Option<&str> {
        Wrong::with(self.wrong.as_ref(), field)
    }
}

async fn drawn(
    server: &Arc<Server>,
    page: Page,
    filled: Filled,
    wrong: Option<Wrong>,
) -> Result<Html<NewPage>, Failure> {
    let images = blocking(server, |server| server.library().images()).await?;
    Ok(Html(NewPage {
        page,
        images,
        filled,
        wrong,
    }))
}

async fn add(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let filled = Filled::from(&fields);
    let new = match filled.read() {
        Ok(new) => new,
        Err(wrong) => return again(&server, page, filled, wrong).await,
    };
    let actor = page.who.actor.clone();
    let added = blocking(&server, move |server| {
        server.library().add_client(&new, server.live(), &actor)
    });
    match added.await {
        Ok(done) => {
            let to = format!("/clients/{}", done.plan.mac);
            let text = format!("Added {}. It boots when it is turned on.", done.plan.client);
            let lines = std::iter::once(text).chain(done.plan.warnings);
            let notice = Notice::good(lines.collect::<Vec<_>>().join("\n"));
            Ok(page.then(&to, notice))
        }
        Err(problem) => {
            let wrong = Wrong::anywhere(problem.detail);
            again(&server, page, filled, wrong).await
        }
    }
}

/// The form once more, with what is wrong in it.
async fn again(
    server: &Arc<Server>,
    page: Page,
    filled: Filled,
    wrong: Wrong,
) -> Result<Response, Failure> {
    let page = drawn(server, page, filled, Some(wrong)).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

impl From<&FormFields> for Filled {
    fn from(fields: &FormFields) -> Self {
        let field = |name| field(fields, name).to_owned();
        Filled {
            mac: field("mac"),
            name: field("name"),
            image: field("image"),
            mode: field("mode"),
            groups: field("groups"),
            args: field("args"),
        }
    }
}

impl Filled {
    fn read(&self) -> Result<NewClient, Wrong> {
        let name = match self.name.as_str() {
            "" => Ok(None),
            name => parsed(name).map(Some),
        };
        let groups = words(&self.groups).map_err(Wrong::in_field("groups"))?;
        Ok(NewClient {
            mac: parsed(&self.mac).map_err(Wrong::in_field("mac"))?,
            name: name.map_err(Wrong::in_field("name"))?,
            image: parsed(&self.image).map_err(Wrong::in_field("image"))?,
            mode: parsed(&self.mode).map_err(Wrong::in_field("mode"))?,
            args: words(&self.args).map_err(Wrong::in_field("args"))?,
            groups: groups.into_iter().collect(),
            settings: Settings::default(),
        })
    }

    fn is(&self, field: &str, value: &dyn ToString) -> bool {
        field == value.to_string()
    }
}
