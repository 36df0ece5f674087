//! What is said for all of a group, and removing one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use axum::routing::{get, post};

use crate::daemon::Server;
use crate::library::{Edition, Error, Group, GroupEdit, GroupName, SettingsEdit};
use crate::web::blocking;
use crate::web::pages::act::{FormFields, field, given, kernel_args, parsed};
use crate::web::pages::ask::AskPage;
use crate::web::pages::images::named;
use crate::web::pages::page::{Failure, Html, Notice, Page};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/groups", post(make))
        .route("/groups/{name}/set", post(set))
        .route("/groups/{name}/remove", get(ask_removal).post(remove))
}

/// Leads to the page of a group, which need not be there yet.
async fn make(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: GroupName = match parsed(field(&fields, "name")) {
        Ok(name) => name,
        Err(wrong) => return Ok(page.then("/groups", Notice::bad(format!("Not made: {wrong}")))),
    };
    let asked = name.clone();
    let there = blocking(&server, move |server| {
        let groups = server.library().groups()?;
        Ok(groups.iter().any(|view| view.group.name == asked))
    });
    if there.await? {
        // The form has not every field: what it leaves out would be forgotten.
        let notice = Notice::bad(format!(
            "There is a group {name} already: this is its page."
        ));
        return Ok(page.then(&format!("/groups/{name}"), notice));
    }
    let seen = Group::empty(&name).edition();
    said(&server, page, name, fields, seen, "/groups").await
}

async fn set(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: GroupName = named(&name)?;
    let back = format!("/groups/{name}");
    let seen = Edition::named(field(&fields, "seen"));
    said(&server, page, name, fields, seen, &back).await
}

async fn said(
    server: &Arc<Server>,
    page: Page,
    name: GroupName,
    fields: FormFields,
    seen: Edition,
    back: &str,
) -> Result<Response, Failure> {
    let by = page.who.actor().clone();
    let group = name.clone();
    let saved = blocking(server, move |server| {
        let library = server.library();
        let edit = edit(&fields, &library.group(&group)?).map_err(Error::Invalid)?;
        library.edit_group_on(&group, Some(&seen), &edit, &by)
    });
    let (to, notice) = match saved.await {
        Ok(view) => match super::gone(&view) {
            Some((to, text)) => (to, Notice::good(text)),
            None => (
                format!("/groups/{name}"),
                Notice::good("Saved. Its clients are told at their next boot."),
            ),
        },
        Err(problem) => {
            let why = format!("Not saved: {}", problem.detail);
            (back.to_owned(), Notice::bad(why))
        }
    };
    Ok(page.then(&to, notice))
}

/// The form has every field but the settings: what is empty in it says nothing.
fn edit(fields: &FormFields, of: &Group) -> Result<GroupEdit, String> {
    Ok(GroupEdit {
        args: Some(kernel_args(field(fields, "args"), &of.args)?),
        image: Some(given(field(fields, "image"))?),
        mode: Some(given(field(fields, "mode"))?),
        settings: SettingsEdit::default(),
    })
}

async fn ask_removal(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Html<AskPage>, Failure> {
    let name: GroupName = named(&name)?;
    let group = name.clone();
    let asked = blocking(&server, move |server| {
        let library = server.library();
        let seen = library.group(&group)?.edition();
        Ok((library.plan_remove_group(&group)?, seen))
    });
    let (plan, seen) = asked.await?;
    Ok(Html(AskPage {
        title: format!("Remove the group {name}?"),
        lines: [plan.steps, plan.warnings].concat(),
        action: format!("/groups/{name}/remove"),
        fields: vec![("seen".to_owned(), seen.as_str().to_owned())],
        button: "Remove",
        back: AskPage::groups(),
        page,
    }))
}

async fn remove(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: GroupName = named(&name)?;
    let seen = Edition::named(field(&fields, "seen"));
    let by = page.who.actor().clone();
    let group = name.clone();
    let removed = blocking(&server, move |server| {
        let library = server.library();
        library.remove_group_on(&group, Some(&seen), server.live(), &by)
    });
    let notice = match removed.await {
        Ok(_) => Notice::good(format!("Removed the group {name}.")),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then("/groups", notice))
}
