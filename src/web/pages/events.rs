//! Who did what, and when: events of all servers, searched, a page at a time.

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
use crate::library::{self, Event, Filter, Moment, Recorded};
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, blocking};

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
struct EventLine {
    id: String,
    at: Timestamp,
    who: String,
    what: String,
    to: String,
    more: Vec<(String, String)>,
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
        for found in server.library().events(&filter)?.events {
            let line = EventLine::of(found);
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
    let filter = asked.filter()?;
    let found = blocking(&server, move |server| server.library().events(&filter)).await?;
    let older = found.next.map(|next| {
        let after = text::encoded(&next.to_string());
        format!("/events?{}&after={after}", asked.query())
    });
    Ok(Html(EventsPage {
        page,
        asked,
        lines: found.events.into_iter().map(EventLine::of).collect(),
        older,
        skipped: found.skipped,
    }))
}

impl EventLine {
    fn of(found: Recorded) -> Self {
        let Event {
            at,
            by,
            what,
            to,
            details,
        } = found.event;
        let print = format!("{}{what}{}", at.as_nanosecond(), found.server);
        let more = details
            .iter()
            .map(|(key, value)| (key.clone(), value_told(value)));
        let mut more: Vec<_> = more.collect();
        more.push(("server".to_owned(), found.server));
        Self {
            id: format!("event-{}", text::fingerprint(&print)),
            at,
            who: text::told(&by.to_string()),
            what: what.replace('-', " "),
            to: text::told(&to.unwrap_or_default()),
            more,
        }
    }
}

/// A detail of an event, as a person reads it.
pub(super) fn value_told(value: &serde_json::Value) -> String {
    let told = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(list) => {
            let words = list.iter().map(|one| one.as_str().unwrap_or_default());
            words.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    };
    text::told(&told)
}
