//! One client, as a row of the room.

use std::hash::Hash;
use std::net::IpAddr;

use askama::Template;
use jiff::Timestamp;

use super::query::{Column, natural};
use crate::daemon::{Pace, Server};
use crate::library::{ClientView, Error, GroupName, MacAddr};
use crate::web::pages::spark::Spark;
use crate::web::pages::text;

/// A row; drawn alone where it has changed.
#[derive(Clone, Template)]
#[template(path = "room-row.html")]
pub(super) struct Row {
    pub(super) view: ClientView,
    /// Nothing where nothing goes over the wire.
    pace: Option<Pace>,
    /// Chosen, by the page's address.
    pub(super) picked: bool,
}

/// What goes over the wire for a client: a piece of its own in the row, since it changes all the time.
#[derive(Template, Hash)]
#[template(path = "room-flow.html")]
pub(super) struct Flow<'a> {
    mac: MacAddr,
    pace: &'a Pace,
}

/// All clients.
pub(super) fn rows(server: &Server) -> Result<Vec<Row>, Error> {
    let views = server.views()?.into_iter();
    Ok(views
        .map(|view| Row::new(server.client_pace(&view.client.mac), view))
        .collect())
}

impl Row {
    fn new(pace: Option<Pace>, view: ClientView) -> Self {
        Row {
            view,
            pace,
            picked: false,
        }
    }

    /// What its drawing is made of, the flow aside: only whether there is one.
    pub(super) fn made_of(&self) -> impl Hash {
        (&self.view, self.pace.is_some())
    }

    pub(super) fn flow(&self) -> Option<Flow<'_>> {
        self.pace.as_ref().map(|pace| Flow {
            mac: self.view.client.mac,
            pace,
        })
    }

    pub(super) fn name(&self) -> &str {
        self.view.client.name.as_str()
    }

    pub(super) fn id(&self) -> String {
        format!("client-{}", self.view.client.mac.bare())
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        let session = self.view.sessions.first();
        session.map(|session| session.peer.ip())
    }

    pub(super) fn is_in(&self, group: &str) -> bool {
        let mut groups = self.view.client.groups.iter();
        groups.any(|one| one.as_str() == group)
    }

    /// Bytes a second, both ways together.
    pub(super) fn rate(&self) -> u64 {
        self.pace.as_ref().map_or(0, |pace| pace.now().sum())
    }

    pub(super) fn booted(&self) -> Option<Timestamp> {
        self.view.client.boot.as_ref().map(|boot| boot.since)
    }

    /// Whether a search for these words, in small letters, finds it.
    pub(super) fn has_words(&self, words: &[String]) -> bool {
        let find = self.find();
        words.iter().all(|word| find.contains(word))
    }

    /// What a search looks at, in small letters.
    fn find(&self) -> String {
        find(&self.view)
    }

    fn edition(&self) -> String {
        self.view.client.edition().as_str().to_owned()
    }

    /// Whether there is nothing to see in a column.
    pub(super) fn is_empty(&self, column: Column) -> bool {
        match column {
            Column::Address => self.address().is_none(),
            Column::Group => self.view.client.groups.is_empty(),
            Column::Image => self.view.boots.is_none(),
            Column::Rate => self.rate() == 0,
            Column::Clone => self.view.clone_bytes == 0,
            Column::Boot => self.booted().is_none(),
            Column::Name | Column::State | Column::Mode => false,
        }
    }
}

impl Flow<'_> {
    pub(super) fn id(&self) -> String {
        format!("flow-{}", self.mac.bare())
    }

    fn spark(&self) -> Spark {
        Spark::of_pace(self.pace)
    }
}

fn find(view: &ClientView) -> String {
    let client = &view.client;
    let mut words = vec![
        client.name.to_string(),
        client.mac.to_string(),
        client.mac.bare(),
        client.image.to_string(),
        client.mode.to_string(),
        view.state.to_string(),
    ];
    words.extend(client.more_macs.iter().map(ToString::to_string));
    words.extend(client.groups.iter().map(|group| format!("@{group}")));
    words.extend(view.boots.iter().map(ToString::to_string));
    words.extend(view.sessions.iter().map(|one| one.peer.ip().to_string()));
    words.dedup();
    words.join(" ").to_lowercase()
}

/// The groups that there are, and how many clients each has.
pub(super) fn groups(rows: &[Row]) -> Vec<(GroupName, usize)> {
    let mut groups = std::collections::BTreeMap::new();
    for group in rows.iter().flat_map(|row| &row.view.client.groups) {
        *groups.entry(group.clone()).or_default() += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(a, _), (b, _)| natural(a.as_str(), b.as_str()));
    groups
}
