//! Volumes: what they are kept in, whom they are for, who uses them.
//!
//! - `acts`: adding, growing, copying, changing and removing
//!
//! Files and devices of the host are added by commands on the server: a form has none of their paths.

mod acts;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

use super::page::{Failure, Html, Page};
use super::text;
use crate::daemon::{Server, SessionRow, VolumeRow};
use crate::library::{self, Kept, VolumeName};
use crate::web::blocking;
use crate::web::stream::{Drawing, Topic};
use acts::Filled;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/volumes", get(volumes))
        .route("/volumes/{name}", get(volume))
        .merge(acts::routes())
}

#[derive(Template)]
#[template(path = "volumes.html")]
struct VolumesPage {
    page: Page,
    volumes: Vec<Line>,
    filled: Filled,
    /// Why the form was not taken.
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "volume.html")]
struct VolumePage {
    page: Page,
    facts: Facts,
}

/// A volume in the list.
#[derive(Template)]
#[template(path = "volume-row.html")]
struct Line {
    row: VolumeRow,
    /// What its initiators are called.
    users: Vec<String>,
}

/// A volume on its own page, as far as it changes by itself.
#[derive(Template)]
#[template(path = "volume-facts.html")]
struct Facts {
    row: VolumeRow,
    sessions: Vec<SessionRow>,
}

/// All volumes.
pub(in crate::web) struct VolumesTopic;

/// One of them.
pub(in crate::web) struct VolumeTopic(pub VolumeName);

impl Topic for VolumesTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        for line in lines(server)? {
            let id = format!("volume-{}", line.row.volume.name);
            drawing.item("volumes", id, &line);
        }
        Ok(())
    }
}

impl Topic for VolumeTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        drawing.piece("volume-facts", &facts(server, &self.0)?);
        Ok(())
    }
}

/// Whom a volume is for, as lists tell it.
fn whom(row: &VolumeRow) -> String {
    let volume = &row.volume;
    if let Some(head) = &volume.target {
        return format!("those of {head}");
    }
    let mut words: Vec<String> = volume.allow.iter().map(ToString::to_string).collect();
    let proves = |user: &String| format!("CHAP {}", text::told(user));
    words.extend(volume.chap.as_ref().map(proves));
    match words.is_empty() {
        true => "nobody yet".to_owned(),
        false => words.join(", "),
    }
}

fn kept_in(row: &VolumeRow) -> String {
    match &row.volume.kept {
        Kept::Library => "the library".to_owned(),
        Kept::File(_) | Kept::Device(_) => text::told(&row.path),
    }
}

fn lines(server: &Server) -> library::Result<Vec<Line>> {
    let sessions = server.session_rows();
    let line = |row: VolumeRow| {
        let users = sessions.iter().filter(|one| row.sessions.contains(&one.id));
        let mut users: Vec<String> = users.map(|one| text::told(&one.initiator)).collect();
        users.sort();
        users.dedup();
        Line { row, users }
    };
    Ok(server.volume_rows()?.into_iter().map(line).collect())
}

fn facts(server: &Server, name: &VolumeName) -> library::Result<Facts> {
    let row = server.volume_row(server.library().volume(name)?);
    let mut sessions = server.session_rows();
    sessions.retain(|one| row.sessions.contains(&one.id));
    Ok(Facts { row, sessions })
}

async fn volumes(
    State(server): State<Arc<Server>>,
    page: Page,
) -> Result<Html<VolumesPage>, Failure> {
    drawn(&server, page, Filled::default(), None).await
}

async fn drawn(
    server: &Arc<Server>,
    page: Page,
    filled: Filled,
    wrong: Option<String>,
) -> Result<Html<VolumesPage>, Failure> {
    let volumes = blocking(server, lines).await?;
    Ok(Html(VolumesPage {
        page,
        volumes,
        filled,
        wrong,
    }))
}

async fn volume(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Html<VolumePage>, Failure> {
    let name: VolumeName = super::images::named(&name)?;
    let facts = blocking(&server, move |server| facts(server, &name)).await?;
    Ok(Html(VolumePage { page, facts }))
}
