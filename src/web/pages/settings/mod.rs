//! What is said for one client, for all of a group, or for all who boot an image: the form for it.
//!
//! - `fields`: the settings one by one; `form`: who says what, and what was filled in otherwise
//! - `whose`: of whom something is said, and saying it

mod fields;
mod form;
mod whose;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form as Posted, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::act::{FormFields, Wrong, field};
use super::ask::AskPage;
use super::images::named;
use super::page::{Failure, Html, Notice, Page};
use crate::daemon::Server;
use crate::library::{Actor, Edition, Error, GroupName, ImageName, MacAddr};
use crate::web::{Problem, blocking};
use fields::Kind;
use form::{Changed, Form};
use whose::{Wanted, Whom, Whose};

pub(super) use form::Said;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/clients/{mac}/settings", get(of_client).post(set_client))
        .route("/groups/{name}/settings", get(of_group).post(set_group))
        .route("/images/{image}/settings", get(of_image).post(set_image))
}

/// What another identity means.
const ANOTHER: &str = "the identity that it has now does not come back: whoever knows its host keys is told \
    that it is another machine";

#[derive(Template)]
#[template(path = "settings-form.html")]
struct FormPage {
    page: Page,
    whose: Whose,
    /// As whom they were shown.
    seen: Edition,
    form: Form,
    /// The box for another identity is ticked.
    renews: bool,
    wrong: Option<Wrong>,
}

/// What trying it led to.
enum Tried {
    /// To be told on this page.
    Done(String, Notice),
    /// Somebody has to say yes first, to these lines.
    Asked(Vec<String>),
    Wrong(Wrong),
    /// The form was filled in for what is no more so.
    Late(String),
}

async fn of_client(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(mac): Path<String>,
) -> Result<Response, Failure> {
    let mac: MacAddr = named(&mac)?;
    drawn(&server, page, Whom::Client(mac), None).await
}

async fn of_group(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let name: GroupName = named(&name)?;
    drawn(&server, page, Whom::Group(name), None).await
}

async fn of_image(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let name: ImageName = named(&name)?;
    drawn(&server, page, Whom::Image(name), None).await
}

async fn set_client(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(mac): Path<String>,
    Posted(fields): Posted<FormFields>,
) -> Result<Response, Failure> {
    let mac: MacAddr = named(&mac)?;
    set(&server, page, Whom::Client(mac), fields).await
}

async fn set_group(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Posted(fields): Posted<FormFields>,
) -> Result<Response, Failure> {
    let name: GroupName = named(&name)?;
    set(&server, page, Whom::Group(name), fields).await
}

async fn set_image(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Posted(fields): Posted<FormFields>,
) -> Result<Response, Failure> {
    let name: ImageName = named(&name)?;
    set(&server, page, Whom::Image(name), fields).await
}

/// The form as it is said, or once more as it was filled in, with what is wrong in it.
async fn drawn(
    server: &Arc<Server>,
    page: Page,
    of: Whom,
    again: Option<(FormFields, Wrong)>,
) -> Result<Response, Failure> {
    let status = match again {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let drawn = blocking(server, move |server| {
        let whose = of.now(server)?;
        let (filled, wrong) = again.unzip();
        // What was filled in was filled in for what was seen then, whatever is said by now.
        let seen = filled.as_ref().map(seen);
        Ok(FormPage {
            form: Form::of(&whose.sayings(server)?, filled.as_ref(), wrong.as_ref()),
            renews: filled.as_ref().is_some_and(renews),
            seen: seen.unwrap_or_else(|| whose.edition()),
            whose,
            wrong,
            page,
        })
    });
    Ok((status, Html(drawn.await?)).into_response())
}

async fn set(
    server: &Arc<Server>,
    page: Page,
    of: Whom,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (by, whom, filled) = (page.who.actor().clone(), of.clone(), fields.clone());
    let led_to = blocking(server, move |server| {
        let whose = whom.now(server)?;
        Ok((tried(server, &whose, &filled, &by)?, whose))
    });
    let (led_to, whose) = led_to.await?;
    match led_to {
        Tried::Done(to, notice) => Ok(page.then(&to, notice)),
        Tried::Late(why) => Ok(page.then(&format!("{}/settings", whose.page()), Notice::bad(why))),
        Tried::Wrong(wrong) => drawn(server, page, of, Some((fields, wrong))).await,
        Tried::Asked(lines) => Ok(Html(asked(page, &whose, lines, fields)).into_response()),
    }
}

fn tried(server: &Server, whose: &Whose, fields: &FormFields, by: &Actor) -> Result<Tried, Error> {
    let seen = seen(fields);
    if let Err(late) = whose.ensure(&seen) {
        return Ok(Tried::Late(told(late)));
    }
    let changed = Changed::of(&whose.sayings(server)?, fields);
    let settings = match changed.edit() {
        Ok(settings) => settings,
        Err(wrong) => return Ok(Tried::Wrong(wrong)),
    };
    let wanted = Wanted {
        settings,
        new_identity: whose.has_identity() && renews(fields),
    };
    let plan = match whose.plan(server, &wanted) {
        Ok(plan) => plan,
        Err(why) => {
            let is_refused = |settings| whose.plan(server, &Wanted::only(settings)).is_err();
            return Ok(Tried::Wrong(changed.blamed(is_refused, told(why))));
        }
    };
    if plan.steps.is_empty() {
        return Ok(Tried::Done(
            whose.page(),
            Notice::good("Nothing has changed."),
        ));
    }
    if plan.loses(&wanted) && field(fields, "sure") != "yes" {
        let mut lines = [plan.steps, plan.warnings].concat();
        if wanted.new_identity {
            lines.push(ANOTHER.to_owned());
        }
        return Ok(Tried::Asked(lines));
    }
    let (to, saved) = match whose.save(server, &seen, &wanted, by) {
        Ok(saved) => saved,
        Err(late @ Error::Moved { .. }) => return Ok(Tried::Late(told(late))),
        Err(why) => return Ok(Tried::Wrong(Wrong::anywhere(told(why)))),
    };
    let news: Vec<String> = std::iter::once(saved).chain(plan.warnings).collect();
    Ok(Tried::Done(to, Notice::good(news.join("\n"))))
}

fn asked(page: Page, whose: &Whose, lines: Vec<String>, fields: FormFields) -> AskPage {
    const OWN: [&str; 2] = ["csrf", "sure"];
    let mut fields = fields;
    fields.retain(|(name, _)| !OWN.contains(&name.as_str()));
    fields.push(("sure".to_owned(), "yes".to_owned()));
    AskPage {
        title: format!("Change the settings of {}?", whose.name()),
        lines,
        action: format!("{}/settings", whose.page()),
        fields,
        button: "Change",
        back: (whose.page(), whose.name().to_owned()),
        page,
    }
}

/// As all refusals are.
fn told(why: Error) -> String {
    Problem::from(why).detail
}

/// What the form was filled in for.
fn seen(fields: &FormFields) -> Edition {
    Edition::named(field(fields, "seen"))
}

/// Whether the box for another identity is ticked.
fn renews(fields: &FormFields) -> bool {
    field(fields, "new_identity") == "yes"
}
