//! Images on their way to many clients: how far they are, beginning and stopping them.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use crate::daemon::Server;
use crate::library::{
    self, ClientSelector, GroupName, Keep, Member, NewRollout, Rollout, RolloutPlan, RolloutView,
};
use crate::web::blocking;
use crate::web::pages::act::{FormFields, field, parsed};
use crate::web::pages::ask::AskPage;
use crate::web::pages::images::named;
use crate::web::pages::page::{Failure, Html, Notice, Page};
use crate::web::pages::text;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/rollouts", get(all).post(begin))
        .route("/rollouts/{id}/stop", get(ask_stop).post(stop))
}

/// How many of those that are over are shown.
const OVER: usize = 5;

/// Those that go on, and the last ones that are over.
#[derive(Template)]
#[template(path = "rollouts.html")]
pub(super) struct Rollouts {
    rollouts: Vec<RolloutView>,
}

impl Rollouts {
    /// All of them.
    pub(super) fn of(server: &Server) -> library::Result<Self> {
        Rollouts::among(server, |_| true)
    }

    /// Those to one group.
    pub(super) fn to(server: &Server, group: &GroupName) -> library::Result<Self> {
        let to = ClientSelector::Group(group.clone());
        Rollouts::among(server, |one| one.clients == to)
    }

    fn among(server: &Server, is_one: impl Fn(&Rollout) -> bool) -> library::Result<Self> {
        let library = server.library();
        let all = library.rollouts()?.into_iter().filter(is_one);
        let (open, over): (Vec<_>, Vec<_>) = all.partition(Rollout::is_open);
        let shown = open.into_iter().chain(over.into_iter().take(OVER));
        let view = |one| library.view_rollout(one, server.watching(), server.live());
        Ok(Rollouts {
            rollouts: shown.map(view).collect::<Result<_, _>>()?,
        })
    }
}

/// Its clients, and how far each is.
fn members(view: &RolloutView) -> Vec<(&Member, &str)> {
    let says = view.progress.iter().map(|one| one.says.as_str());
    view.rollout.members.iter().zip(says).collect()
}

/// The badge that goes with a stage.
fn badge(view: &RolloutView) -> &'static str {
    match view.rollout.stage.word() {
        "done" => "good",
        "set back" | "setting back" => "bad",
        "stopped" => "idle",
        _ => "busy",
    }
}

/// They have no page of their own, and somebody types its address all the same.
async fn all() -> Redirect {
    Redirect::to("/groups")
}

async fn begin(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let new = match wanted(&fields) {
        Ok(new) => new,
        Err(wrong) => return Ok(page.then("/groups", Notice::bad(format!("Not begun: {wrong}")))),
    };
    if field(&fields, "sure") != "yes" {
        let asked = new.clone();
        let plan = blocking(&server, move |server| {
            server.library().plan_rollout(&asked, server.live())
        });
        return Ok(match plan.await {
            Ok(plan) => Html(ask(page, &new, &plan)).into_response(),
            Err(problem) => page.then("/groups", Notice::bad(problem.detail)),
        });
    }
    let by = page.who.actor().clone();
    let begun = blocking(&server, move |server| {
        let (library, watching) = (server.library(), server.watching());
        library.begin_rollout(&new, watching, server.live(), &by)
    });
    let notice = match begun.await {
        Ok(begun) => Notice::good(format!(
            "The rollout of {} has begun: its canaries get it at their next boot.",
            begun.version
        )),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then("/groups", notice))
}

fn wanted(fields: &FormFields) -> Result<NewRollout, String> {
    let canary = field(fields, "canary").parse();
    Ok(NewRollout {
        clients: parsed(field(fields, "clients"))?,
        image: parsed(field(fields, "image"))?,
        canary: canary.map_err(|_| "say how many clients go first, from 1".to_owned())?,
        within: parsed(field(fields, "within"))?,
    })
}

fn ask(page: Page, new: &NewRollout, plan: &RolloutPlan) -> AskPage {
    let names = |list: &[library::ClientName]| {
        let names: Vec<String> = list.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let mut lines = vec![
        format!(
            "{} get {} at their next boot, and have {} to log in and stay for 2 minutes.",
            names(&plan.canaries),
            plan.version,
            plan.within
        ),
        format!("When they stayed, these follow: {}.", names(&plan.rest)),
        "Where they did not, they are set back, and the event says why.".to_owned(),
    ];
    if !plan.already.is_empty() {
        lines.push(format!("These boot it already: {}.", names(&plan.already)));
    }
    lines.extend(plan.loses.iter().cloned());
    lines.extend(plan.warnings.iter().cloned());
    let fields = [
        ("clients", new.clients.to_string()),
        ("image", new.image.to_string()),
        ("canary", new.canary.to_string()),
        ("within", new.within.to_string()),
        ("sure", "yes".to_owned()),
    ];
    AskPage {
        title: format!("Roll {} out to {}?", plan.version, plan.clients),
        lines,
        action: "/rollouts".to_owned(),
        fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
        button: "Roll out",
        back: AskPage::groups(),
        page,
    }
}

async fn ask_stop(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(id): Path<String>,
) -> Result<Html<AskPage>, Failure> {
    let id: u64 = named(&id)?;
    let found = blocking(&server, move |server| {
        let rollout = server.library().rollout(id)?;
        rollout.ensure_open()?;
        Ok(rollout)
    });
    let rollout = found.await?;
    let given = rollout.members.iter().filter(|member| member.given);
    let back =
        |name: &library::ClientName| format!("{name} is set back, at its next boot where it runs.");
    Ok(Html(AskPage {
        title: format!(
            "Stop the rollout of {} to {}?",
            rollout.version, rollout.clients
        ),
        lines: given.map(|member| back(&member.name)).collect(),
        action: format!("/rollouts/{id}/stop"),
        fields: Vec::new(),
        button: "Stop",
        back: AskPage::groups(),
        page,
    }))
}

async fn stop(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: u64 = named(&id)?;
    let by = page.who.actor().clone();
    let stopped = blocking(&server, move |server| {
        let (library, watching) = (server.library(), server.watching());
        library.stop_rollout(id, Keep::Nothing, watching, server.live(), &by)
    });
    let notice = match stopped.await {
        Ok(rollout) => Notice::good(format!("The rollout of {} is stopped.", rollout.version)),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then("/groups", notice))
}
