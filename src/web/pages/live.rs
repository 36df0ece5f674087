//! Who is connected now.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::page::{Failure, Html, Notice, Page};
use super::spark::Spark;
use super::text::{self, Bytes};
use crate::daemon::{History, Server, SessionRow};
use crate::library::{self, MacAddr, VersionId, Volume, VolumeName, mask_boot_ids};
use crate::web::api::kick;
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/live", get(live))
        .route("/live/{id}/end", get(confirm).post(end))
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    page: Page,
    total: Total,
    sessions: Vec<SessionLine>,
}

/// What all sessions together do.
#[derive(Template)]
#[template(path = "live-total.html")]
struct Total {
    sessions: usize,
    read: u64,
    written: u64,
    spark: Option<Spark>,
}

/// A session; drawn alone where it has changed.
#[derive(Template)]
#[template(path = "live-row.html")]
struct SessionLine {
    session: SessionRow,
    /// The client whose session it is.
    client: Option<(MacAddr, String)>,
    version: Option<VersionId>,
    /// The volume whose target it is logged in to.
    volume: Option<VolumeName>,
    history: History,
}

#[derive(Template)]
#[template(path = "live-end.html")]
struct EndPage {
    page: Page,
    line: SessionLine,
}

/// All sessions.
pub(in crate::web) struct LiveTopic;

impl Topic for LiveTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        drawing.piece("live-total", &Total::of(server));
        for line in lines(server)? {
            let id = format!("session-{}", line.session.id);
            drawing.item("sessions", id, &line);
        }
        Ok(())
    }
}

impl Total {
    fn of(server: &Server) -> Self {
        let history = server.total_rates();
        Self {
            sessions: server.session_rows().len(),
            read: history.now().read,
            written: history.now().written,
            spark: Spark::of(&history),
        }
    }
}

impl SessionLine {
    fn spark(&self) -> Option<Spark> {
        Spark::of(&self.history)
    }

    /// What was negotiated, where it is not what everybody has.
    fn parameters(&self) -> String {
        let p = &self.session.parameters;
        let digest = |on: bool, of: &str| on.then(|| format!("{of} digests"));
        let mut words = vec![format!(
            "bursts of {}, first {}",
            Bytes(p.max_burst.into()),
            Bytes(p.first_burst.into())
        )];
        words.extend(digest(p.header_digest, "header"));
        words.extend(digest(p.data_digest, "data"));
        words.push(match (p.immediate_data, p.initial_r2t) {
            (true, false) => "immediate and unasked data".to_owned(),
            (true, true) => "immediate data".to_owned(),
            (false, false) => "unasked data".to_owned(),
            (false, true) => "no data before it is asked for".to_owned(),
        });
        words.join(", ")
    }
}

fn lines(server: &Server) -> library::Result<Vec<SessionLine>> {
    let live = server.live().sessions();
    let clients = server.library().clients()?;
    // One that cannot be read is no reason to show no session.
    let volumes = server.library().volumes().unwrap_or_default();
    let volume_of = |session: &SessionRow| {
        let mut heads = volumes.iter().filter(|volume| volume.target.is_none());
        let is_it =
            |volume: &&Volume| server.library().volume_target(&volume.name) == session.target;
        heads.find(is_it).map(|volume| volume.name.clone())
    };
    let line = |session: SessionRow| {
        let known = live.iter().find(|one| {
            one.peer == session.peer && mask_boot_ids(&one.initiator) == session.initiator
        });
        let mac = known.and_then(|known| known.client);
        let client = mac.map(|mac| {
            let found = clients.iter().find(|client| client.mac == mac);
            let name = found.map_or(mac.to_string(), |client| client.name.to_string());
            (mac, name)
        });
        SessionLine {
            history: server.session_rates(session.id),
            version: known.map(|known| known.version.clone()),
            volume: volume_of(&session),
            client,
            session,
        }
    };
    Ok(server.session_rows().into_iter().map(line).collect())
}

async fn live(State(server): State<Arc<Server>>, page: Page) -> Result<Html<LivePage>, Failure> {
    let (total, sessions) =
        blocking(&server, |server| Ok((Total::of(server), lines(server)?))).await?;
    Ok(Html(LivePage {
        page,
        total,
        sessions,
    }))
}

/// Asks before a session is ended.
async fn confirm(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(id): Path<u64>,
) -> Result<Html<EndPage>, Failure> {
    let all = blocking(&server, lines).await?;
    let line = all.into_iter().find(|one| one.session.id == id);
    let line = line.ok_or_else(|| {
        let why = format!("There is no session {id} any more.");
        Problem::new(axum::http::StatusCode::NOT_FOUND, why)
    })?;
    Ok(Html(EndPage { page, line }))
}

async fn end(State(server): State<Arc<Server>>, page: Page, Path(id): Path<u64>) -> Response {
    let notice = match kick(&server, &page.who, id).await {
        Ok(session) => Notice::good(format!("Ended the session of {}.", session.initiator)),
        Err(problem) => Notice::bad(problem.detail),
    };
    page.then("/live", notice)
}
