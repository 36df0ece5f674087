//! The room at a glance: every client, what it is doing, and what can be done to those that are chosen.
//!
//! - `query`: what is shown, and in which order; `row`: one client

mod query;
mod row;

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query as Parameters, State};
use axum::routing::get;
use axum::{Extension, Router};

use super::page::{Failure, Html, Page};
use super::spark::Spark;
use super::text;
use crate::daemon::{History, Server, own_address};
use crate::library::{Error, GroupName, Image, Mode, Stranger};
use crate::web::blocking;
use crate::web::stream::{Drawing, Hub, Topic};
use query::{Asked, Column, Query, ROWS, Show};
use row::{Row, groups, rows};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/", get(room))
}

#[derive(Template)]
#[template(path = "room.html")]
struct RoomPage {
    page: Page,
    query: Query,
    parts: Vec<Part>,
    rate: RoomRate,
    groups: Vec<(GroupName, usize)>,
    rows: Vec<Row>,
    /// How many rows there are on all pages, and of how many clients.
    matching: usize,
    clients: usize,
    images: Vec<Image>,
    strangers: Strangers,
    /// Where clients chain to.
    script: String,
}

/// A part of the room, and the way to it.
struct Part {
    to: String,
    total: Total,
    title: &'static str,
    is_shown: bool,
}

/// A way to another view of the room.
struct Way {
    to: String,
    title: String,
    /// Beside the title, quietly.
    number: usize,
    is_shown: bool,
}

/// What stands above a column.
struct Head {
    to: String,
    title: &'static str,
    is_number: bool,
    direction: Option<&'static str>,
}

/// How many clients are in a part of the room.
#[derive(Template)]
#[template(path = "room-total.html")]
struct Total {
    word: &'static str,
    number: usize,
}

/// How much goes over the wire.
#[derive(Template)]
#[template(path = "room-rate.html")]
struct RoomRate {
    history: History,
}

/// Machines that nobody knows.
#[derive(Template)]
#[template(path = "room-strangers.html")]
struct Strangers {
    strangers: Vec<Stranger>,
}

/// What a page of the room shows that changes by itself.
pub(in crate::web) struct RoomTopic;

impl Topic for RoomTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> Result<(), Error> {
        draw(server, &rows(server)?, drawing);
        Ok(())
    }
}

fn draw(server: &Server, rows: &[Row], drawing: &mut Drawing) {
    for (show, total) in totals(rows) {
        drawing.piece(format!("total-{}", show.word()), &total);
    }
    drawing.piece("total-rate", &RoomRate::of(server));
    drawing.piece("strangers", &Strangers::of(server));
    for row in rows {
        drawing.item_of("clients", row.id(), &row.made_of(), row);
        if let Some(flow) = row.flow() {
            drawing.piece_of(flow.id(), &flow, &flow);
        }
    }
}

impl RoomRate {
    fn of(server: &Server) -> Self {
        RoomRate {
            history: server.total_rates(),
        }
    }

    fn spark(&self) -> Option<Spark> {
        Spark::of(&self.history)
    }
}

impl Strangers {
    fn of(server: &Server) -> Self {
        Strangers {
            strangers: server.strangers(),
        }
    }
}

impl RoomPage {
    /// Where a new row belongs: only a page that shows all of them takes it in by itself.
    fn list(&self) -> &'static str {
        match self.query.is_whole() && self.matching <= ROWS {
            true => "clients",
            false => "some-clients",
        }
    }

    /// The script may search by itself in rows that are all there.
    fn is_searched_here(&self) -> bool {
        self.matching <= ROWS && self.query.q.is_empty()
    }

    /// More than a row of chips holds: they are chosen from a list.
    fn has_many_groups(&self) -> bool {
        self.groups.len() > 8
    }

    /// What the form that searches brings along besides what is filled in.
    fn hidden(&self) -> Vec<(&'static str, String)> {
        let mut hidden = self.query.hidden();
        hidden.retain(|(name, value)| {
            let is_chosen_there = *name == "group" && self.has_many_groups();
            !value.is_empty() && !is_chosen_there
        });
        hidden
    }

    fn chips(&self) -> Vec<Way> {
        let chip = |(group, number): &(GroupName, usize)| Way {
            to: self.query.of_group(group.as_str()),
            title: group.to_string(),
            number: *number,
            is_shown: self.query.group == group.as_str(),
        };
        self.groups.iter().map(chip).collect()
    }

    fn heads(&self) -> Vec<Head> {
        let head = |column: Column| Head {
            to: self.query.by(column),
            title: column.title(),
            is_number: column.is_number(),
            direction: self.query.direction(column),
        };
        Column::ALL.map(head).into()
    }

    /// Nothing where all fits one page.
    fn pages(&self) -> Vec<Way> {
        let page = |number| Way {
            to: self.query.at(number),
            title: number.to_string(),
            number,
            is_shown: self.query.page == number,
        };
        match self.matching.div_ceil(ROWS) {
            0..=1 => Vec::new(),
            pages => (1..=pages).map(page).collect(),
        }
    }
}

async fn room(
    State(server): State<Arc<Server>>,
    Extension(hub): Extension<Arc<Hub>>,
    page: Page,
    Parameters(asked): Parameters<Asked>,
) -> Result<Html<RoomPage>, Failure> {
    let script = script(&server);
    let mut query = Query::from(asked);
    let shown = blocking(&server, move |server| {
        let all = rows(server)?;
        hub.shows("room", Arc::new(RoomTopic), page.drawn(), |drawing| {
            draw(server, &all, drawing);
        });
        let (clients, groups) = (all.len(), groups(&all));
        let part = |(show, total): (Show, Total)| Part {
            to: query.showing(show),
            total,
            title: show.title(),
            is_shown: query.show == show,
        };
        let parts = totals(&all).into_iter().map(part).collect();
        let rows = query.of(&all);
        let matching = rows.len();
        query.page = query.page.min(matching.div_ceil(ROWS)).max(1);
        let begin = (query.page - 1) * ROWS;
        let rows = rows.into_iter().skip(begin).take(ROWS);
        let mut rows: Vec<Row> = rows.cloned().collect();
        rows.iter_mut().for_each(|row| row.picked = query.pick);
        Ok(RoomPage {
            page,
            query,
            parts,
            rate: RoomRate::of(server),
            groups,
            rows,
            matching,
            clients,
            images: server.library().images()?,
            strangers: Strangers::of(server),
            script,
        })
    });
    Ok(Html(shown.await?))
}

fn totals(rows: &[Row]) -> Vec<(Show, Total)> {
    let total = |show: Show| Total {
        word: show.word(),
        number: rows.iter().filter(|row| show.has(row)).count(),
    };
    Show::ALL.map(|show| (show, total(show))).into()
}

/// The script that clients chain to, as another machine would write it.
fn script(server: &Server) -> String {
    let port = server.doors().boot.first().map_or(80, |door| door.port());
    let listening = server.doors().boot.first().map(|door| door.ip());
    let ip = listening
        .filter(|ip| !ip.is_unspecified())
        .or_else(own_address)
        .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    format!("http://{}/boot.ipxe", std::net::SocketAddr::new(ip, port))
}
