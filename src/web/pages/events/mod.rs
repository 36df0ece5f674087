//! Who did what, and when: events of all servers, searched, a page at a time.

mod words;

pub(super) use words::Names;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;

use super::page::{Failure, Html, Page};
use super::text;
use crate::daemon::Server;
use crate::library::{self, Filter, Moment, Recorded};
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, reading};
use words::Sentence;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/events", get(events))
}

/// What is looked for, as the form has it. Whatever is empty is no condition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Asked {
    q: String,
    who: String,
    what: String,
    to: String,
    since: String,
    after: String,
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    page: Page,
    asked: Asked,
    lines: Vec<EventLine>,
    /// The next page, if there may be one.
    older: Option<String>,
    skipped: u64,
}

/// An event; drawn alone where it is new.
#[derive(Template)]
#[template(path = "event-row.html")]
pub(super) struct EventLine {
    id: String,
    pub(super) at: Timestamp,
    pub(super) said: Sentence,
    pub(super) more: Vec<(String, String)>,
}

/// The latest events, on a page that looks for nothing special.
pub(in crate::web) struct EventsTopic;

/// Events of a page; as many may happen between two looks of a page that is open.
const SHOWN: u16 = 100;

/// What may be chosen as the kind of an event, and what is meant by it.
const KINDS: [(&str, &str); 9] = [
    ("", "everything"),
    ("client-", "acts on clients"),
    ("boot", "boots"),
    ("login", "logins"),
    ("session-", "sessions"),
    ("image-", "images"),
    ("job-", "jobs"),
    ("user-", "users"),
    ("token-", "tokens"),
];

/// How far back may be looked.
const SINCE: [(&str, &str); 4] = [
    ("", "at any time"),
    ("1h", "in the last hour"),
    ("1d", "in the last day"),
    ("7d", "in the last week"),
];

impl Topic for EventsTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        let filter = Filter {
            limit: SHOWN,
            ..Filter::default()
        };
        let library = server.library();
        let names = Names::of(library)?;
        for found in library.events(&filter)?.events {
            let line = EventLine::of(found, &names);
            drawing.newest("events", line.id.clone(), &line);
        }
        Ok(())
    }
}

impl Asked {
    /// Whether this is the page that shows what happens as it happens.
    fn is_latest(&self) -> bool {
        let all = [
            &self.q,
            &self.who,
            &self.what,
            &self.to,
            &self.since,
            &self.after,
        ];
        all.iter().all(|condition| condition.is_empty())
    }

    fn filter(&self) -> Result<Filter, Problem> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let since = given(&self.since).map(|text| text.parse::<Moment>());
        let after = given(&self.after).map(|text| text.parse());
        Ok(Filter {
            q: given(&self.q),
            who: given(&self.who),
            what: given(&self.what),
            to: given(&self.to),
            since: since.transpose().map_err(Problem::invalid)?,
            after: after.transpose().map_err(Problem::invalid)?,
            limit: SHOWN,
            ..Filter::default()
        })
    }

    /// What may be chosen as the kind, with what is there by the page's address.
    fn kinds(&self) -> Vec<(&str, &str)> {
        let mut kinds = KINDS.to_vec();
        if !kinds.iter().any(|(kind, _)| *kind == self.what) {
            kinds.push((&self.what, &self.what));
        }
        kinds
    }

    /// What may be chosen as the time, with what is there by the page's address.
    fn times(&self) -> Vec<(&str, String)> {
        let mut times: Vec<_> = SINCE
            .iter()
            .map(|(since, words)| (*since, (*words).to_owned()))
            .collect();
        if !times.iter().any(|(since, _)| *since == self.since) {
            times.push((&self.since, format!("since {}", self.since)));
        }
        times
    }

    /// The conditions as part of an address.
    fn query(&self) -> String {
        let all = [
            ("q", &self.q),
            ("who", &self.who),
            ("what", &self.what),
            ("to", &self.to),
            ("since", &self.since),
        ];
        let given = all.iter().filter(|(_, value)| !value.is_empty());
        let words = given.map(|(name, value)| format!("{name}={}", text::encoded(value)));
        words.collect::<Vec<_>>().join("&")
    }
}

async fn events(
    State(server): State<Arc<Server>>,
    page: Page,
    Query(asked): Query<Asked>,
) -> Result<Html<EventsPage>, Failure> {
    let mut filter = asked.filter()?;
    let who = page.who.clone();
    let found = reading(&server, &who, move |server, patience| {
        let library = server.library();
        let names = Names::of(library)?;
        // Events call clients by their addresses, which do not change.
        let called = filter.to.as_deref().and_then(|to| names.client_called(to));
        filter.to = called.map(|mac| mac.to_string()).or(filter.to);
        let found = library.events_until(&filter, &|| patience.is_over())?;
        Ok((found, names))
    });
    let (found, names) = found.await?;
    let older = found.next.map(|next| {
        let after = text::encoded(&next.to_string());
        format!("/events?{}&after={after}", asked.query())
    });
    let lines = found.events.into_iter();
    let lines = lines.map(|one| EventLine::of(one, &names)).collect();
    Ok(Html(EventsPage {
        page,
        asked,
        lines,
        older,
        skipped: found.skipped,
    }))
}

impl EventLine {
    pub(super) fn of(found: Recorded, names: &Names) -> Self {
        let Recorded { event, server } = found;
        let print = format!("{}{}{server}", event.at.as_nanosecond(), event.what);
        let mut more = vec![("event".to_owned(), text::told(&event.what))];
        more.extend(event.to.iter().map(|to| ("to".to_owned(), text::told(to))));
        let details = event.details.iter();
        more.extend(details.map(|(key, value)| (text::told(key), value_told(value))));
        more.push(("by".to_owned(), text::told(&event.by.to_string())));
        more.push(("server".to_owned(), server));
        Self {
            id: format!("event-{}", text::fingerprint(&print)),
            at: event.at,
            said: Sentence::of(&event, names),
            more,
        }
    }
}

/// A detail of an event, as a person reads it.
fn value_told(value: &serde_json::Value) -> String {
    let told = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(list) => {
            let words = list.iter().map(value_told);
            words.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    };
    text::told(&told)
}
