//! Groups: what clients have in common, and images on their way to them.
//!
//! - `acts`: what is said for a group, and removing it; `rollouts`: beginning and stopping them

mod acts;
mod rollouts;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

use super::images::named;
use super::page::{Failure, Html, Page};
use super::settings::Said;
use super::text;
use crate::daemon::Server;
use crate::library::{self, GroupName, GroupView, Image, KernelArg, Mode};
use crate::web::blocking;
use crate::web::stream::{Drawing, Topic};
use rollouts::Rollouts;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/groups", get(groups))
        .route("/groups/{name}", get(group))
        .merge(acts::routes())
        .merge(rollouts::routes())
}

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    page: Page,
    groups: Vec<GroupView>,
    rollouts: Rollouts,
    images: Vec<Image>,
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    page: Page,
    view: GroupView,
    settings: Said,
    rollouts: Rollouts,
    images: Vec<Image>,
}

/// What the page of all groups shows that changes by itself.
pub(in crate::web) struct GroupsTopic;

/// What the page of one group shows that changes by itself.
pub(in crate::web) struct GroupTopic(pub GroupName);

impl Topic for GroupsTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        drawing.piece("rollouts", &Rollouts::of(server)?);
        Ok(())
    }
}

impl Topic for GroupTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        drawing.piece("rollouts", &Rollouts::to(server, &self.0)?);
        Ok(())
    }
}

/// `mode shared`, for each thing that is said.
fn said(view: &GroupView) -> Vec<String> {
    let words = view.group.words().into_iter();
    let said = words.filter(|(_, value)| !value.is_empty());
    said.map(|(what, value)| format!("{what} {value}"))
        .collect()
}

/// Where to go, and what to tell there, once there is no such group: one without members of which nothing
/// is said is none.
pub(super) fn gone(view: &GroupView) -> Option<(String, String)> {
    let is_none = view.members.is_empty() && view.group.says_nothing();
    let name = &view.group.name;
    is_none.then(|| {
        let text = format!("Nothing is said for {name}, and nobody is in it.");
        ("/groups".to_owned(), text)
    })
}

impl GroupPage {
    fn args(&self) -> String {
        let args = self.view.group.args.iter();
        args.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn is_image(&self, image: &impl ToString) -> bool {
        let own = self.view.group.image.as_ref();
        own.is_some_and(|own| own.to_string() == image.to_string())
    }
}

async fn groups(
    State(server): State<Arc<Server>>,
    page: Page,
) -> Result<Html<GroupsPage>, Failure> {
    let drawn = blocking(&server, move |server| {
        Ok(GroupsPage {
            page,
            groups: server.library().groups()?,
            rollouts: Rollouts::of(server)?,
            images: server.library().images()?,
        })
    });
    Ok(Html(drawn.await?))
}

async fn group(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Html<GroupPage>, Failure> {
    let name: GroupName = named(&name)?;
    let drawn = blocking(&server, move |server| {
        let view = server.library().group_view(&name)?;
        Ok(GroupPage {
            page,
            settings: Said::of(&server.library().group_sayings(&view.group)),
            rollouts: Rollouts::to(server, &name)?,
            view,
            images: server.library().images()?,
        })
    });
    Ok(Html(drawn.await?))
}
