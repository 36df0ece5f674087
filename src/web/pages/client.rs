//! One client: what it is doing, its disks, what it would boot, and what can be done to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use jiff::{SignedDuration, Timestamp};

use super::act::{FormFields, field, kernel_args, parsed, words};
use super::boots::Boots;
use super::events::{EventLine, Names};
use super::page::{Failure, Html, Notice, Page};
use super::settings::Said;
use super::spark::Spark;
use super::text;
use crate::daemon::{History, Server, SessionRow};
use crate::library::{
    Client, ClientSelector, ClientView, DataDisk, Discarded, Edit, Edition, Error, Filter, HeldTo,
    Image, KernelArg, MacAddr, Mode, Moment, OwnEsp, PromoteTask, SettingsEdit, Snapshot, Task,
};
use crate::web::boot::preview;
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/clients/{client}", get(client))
        .route("/clients/{client}/edit", post(edit))
        .route("/clients/{client}/promote", get(promotion).post(promote))
}

#[derive(Template)]
#[template(path = "client.html")]
struct ClientPage {
    page: Page,
    client: Client,
    pieces: Pieces,
    images: Vec<Image>,
    /// Bytes of its clone that nobody shares, where the file system tells.
    own: Option<text::Bytes>,
    /// Its quota, and what of that is taken.
    held_to: Option<HeldTo>,
    held: Option<text::Bytes>,
    data: Option<DataDisk>,
    /// What it would be told to boot, or why nothing.
    boot_cfg: Result<String, String>,
    /// What it did and what was done to it, the latest first.
    events: Vec<EventLine>,
}

#[derive(Template)]
#[template(path = "client-promote.html")]
struct PromotePage {
    page: Page,
    client: Client,
}

/// What changes by itself.
struct Pieces {
    facts: Facts,
    boots: Boots,
    sessions: Sessions,
    disks: Disks,
    settings: Said,
}

#[derive(Template)]
#[template(path = "client-facts.html")]
struct Facts {
    view: ClientView,
}

#[derive(Template)]
#[template(path = "client-sessions.html")]
struct Sessions {
    sessions: Vec<(SessionRow, History)>,
    history: History,
}

#[derive(Template)]
#[template(path = "client-disks.html")]
struct Disks {
    view: ClientView,
    kept: Vec<Kept>,
    /// The latest first.
    snapshots: Vec<Copied>,
}

/// A snapshot.
struct Copied {
    snapshot: Snapshot,
    bytes: u64,
}

/// A disk that can come back.
struct Kept {
    disk: Discarded,
    bytes: u64,
}

/// What a client's page shows that changes by itself.
pub(in crate::web) struct ClientTopic(pub MacAddr);

impl Topic for ClientTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> Result<(), Error> {
        let client = server.library().client(&self.0)?;
        let pieces = Pieces::of(server, server.view(client)?)?;
        drawing.piece("client-facts", &pieces.facts);
        drawing.piece("client-boots", &pieces.boots);
        drawing.piece("client-sessions", &pieces.sessions);
        drawing.piece("client-disks", &pieces.disks);
        drawing.piece("settings", &pieces.settings);
        Ok(())
    }
}

impl Pieces {
    fn of(server: &Server, view: ClientView) -> Result<Self, Error> {
        let sessions = server.sessions_of(&view.client.mac).into_iter();
        let sessions = sessions.map(|row| {
            let rates = server.session_rates(row.id);
            (row, rates)
        });
        Ok(Pieces {
            settings: Said::of(&server.library().sayings(&view.client)?),
            sessions: Sessions {
                sessions: sessions.collect(),
                history: server.client_rates(&view.client.mac),
            },
            boots: Boots::of(server, &view.client.mac),
            disks: Disks {
                kept: kept(server, &view.client),
                snapshots: snapshots(server, &view.client),
                view: view.clone(),
            },
            facts: Facts { view },
        })
    }
}

impl Sessions {
    fn spark(&self) -> Option<Spark> {
        Spark::of(&self.history)
    }
}

/// The latest first.
fn kept(server: &Server, client: &Client) -> Vec<Kept> {
    let kept = client.discarded.iter().rev().map(|disk| Kept {
        bytes: server.library().kept_bytes(&client.mac, &disk.clone),
        disk: disk.clone(),
    });
    kept.collect()
}

/// The latest first.
fn snapshots(server: &Server, client: &Client) -> Vec<Copied> {
    let snapshots = client.snapshots.iter().rev().map(|one| Copied {
        bytes: server.library().kept_bytes(&client.mac, &one.clone),
        snapshot: one.clone(),
    });
    snapshots.collect()
}

impl ClientPage {
    fn pick(&self) -> String {
        let edition = self.client.edition();
        format!("{}.{}", self.client.mac.bare(), edition.as_str())
    }

    fn words<T: ToString>(&self, list: impl IntoIterator<Item = T>) -> String {
        let words: Vec<String> = list.into_iter().map(|word| word.to_string()).collect();
        words.join(" ")
    }

    fn is_assigned(&self, to: &impl ToString) -> bool {
        self.client.image.to_string() == to.to_string()
    }
}

async fn client(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let selector: ClientSelector = name.parse().map_err(Problem::invalid)?;
    let found = blocking(&server, move |server| {
        match server.library().select(&selector)?.as_slice() {
            [one] => Ok(Some(one.clone())),
            _ => Ok(None),
        }
    });
    let Some(client) = found.await? else {
        // A group: the room shows it.
        let group = text::encoded(name.trim_start_matches('@'));
        return Ok(Redirect::to(&format!("/?group={group}")).into_response());
    };
    if name != client.mac.to_string() {
        return Ok(Redirect::to(&format!("/clients/{}", client.mac)).into_response());
    }
    let drawn = blocking(&server, move |server| {
        let view = server.close_view(client.clone())?;
        Ok(ClientPage {
            page,
            own: view.clone_own.map(text::Bytes),
            held: view.held_to.and_then(|to| to.held).map(text::Bytes),
            held_to: view.held_to,
            data: view.data.clone(),
            pieces: Pieces::of(server, view)?,
            images: server.library().images()?,
            boot_cfg: boot_cfg(server, &client.mac),
            events: events(server, &client.mac)?,
            client,
        })
    });
    Ok(Html(drawn.await?).into_response())
}

/// What the client would be told now. The boot id is left out: it would let its reader in as a boot of
/// this client, and each script has another one anyway.
fn boot_cfg(server: &Server, mac: &MacAddr) -> Result<String, String> {
    let (ticket, cfg) = preview(server, mac).map_err(|why| why.to_string())?;
    Ok(cfg.replace(&ticket.id.to_string(), "BOOT-ID"))
}

/// The latest events of a client, and its refused logins: those name it as who, not as whom.
fn events(server: &Server, mac: &MacAddr) -> Result<Vec<EventLine>, Error> {
    const SHOWN: u16 = 20;
    const GLANCE: Duration = Duration::from_millis(300);
    let recent = Filter {
        since: Some(Moment(
            Timestamp::now() - SignedDuration::from_hours(24 * 7),
        )),
        limit: SHOWN,
        ..Filter::default()
    };
    let of_client = Filter {
        to: Some(mac.to_string()),
        ..recent.clone()
    };
    let refused = Filter {
        who: Some(format!("client-{}.", mac.bare())),
        what: Some("login-refused".to_owned()),
        ..recent
    };
    // The page is drawn again and again: it shows what a glance finds.
    let begun = Instant::now();
    let enough = || begun.elapsed() > GLANCE;
    let library = server.library();
    let mut found = library.events_until(&of_client, &enough)?.events;
    found.extend(library.events_until(&refused, &enough)?.events);
    found.sort_by_key(|one| std::cmp::Reverse(one.event.at));
    found.truncate(usize::from(SHOWN));
    let names = Names::of(server.library())?;
    let found = found.into_iter();
    Ok(found.map(|one| EventLine::of(one, &names)).collect())
}

async fn promotion(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(mac): Path<String>,
) -> Result<Html<PromotePage>, Failure> {
    let mac: MacAddr = mac.parse().map_err(Problem::invalid)?;
    let client = blocking(&server, move |server| server.library().client(&mac)).await?;
    Ok(Html(PromotePage { page, client }))
}

/// Asks a worker to promote the client's disk, or to tell what that would bring.
async fn promote(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(mac): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let mac: MacAddr = mac.parse().map_err(Problem::invalid)?;
    let back = format!("/clients/{mac}/promote");
    let task = match parsed(field(&fields, "image")) {
        Ok(image) => PromoteTask { client: mac, image },
        Err(wrong) => return Ok(page.then(&back, Notice::bad(format!("Not asked for: {wrong}")))),
    };
    let task = match field(&fields, "do") {
        "promote" => Task::Promote(task),
        _ => Task::PreviewPromotion(task),
    };
    let actor = page.who.actor.clone();
    let queued = blocking(&server, move |server| {
        server.library().queue_job(task, &actor)
    });
    Ok(match queued.await {
        Ok(job) => page.then(
            &format!("/jobs/{}", job.id),
            Notice::good("Asked for; a worker does it."),
        ),
        Err(problem) => page.then(&back, Notice::bad(problem.detail)),
    })
}

async fn edit(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(mac): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let mac: MacAddr = mac.parse().map_err(Problem::invalid)?;
    let to = format!("/clients/{mac}");
    let edition = Edition::named(field(&fields, "edition"));
    let actor = page.who.actor.clone();
    let edited = blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        let edit = read(&fields, &library.client(&mac)?).map_err(Error::Invalid)?;
        library.edit_client_on(&mac, Some(&edition), &edit, live, &actor)
    });
    let notice = match edited.await {
        Ok(done) if done.plan.steps.is_empty() => Notice::good("Nothing has changed."),
        Ok(_) => Notice::good("Changed. Kernel arguments count from the next boot."),
        Err(problem) => Notice::bad(format!("Not changed: {}", problem.detail)),
    };
    Ok(page.then(&to, notice))
}

/// What the form of a client asks for.
fn read(fields: &FormFields, of: &Client) -> Result<Edit, String> {
    let field = |name| field(fields, name);
    Ok(Edit {
        name: Some(parsed(field("name"))?),
        args: Some(kernel_args(field("args"), &of.args)?),
        groups: Some(words(field("groups"))?.into_iter().collect()),
        more_macs: Some(words(field("macs"))?.into_iter().collect()),
        settings: SettingsEdit::default(),
        new_identity: false,
    })
}
