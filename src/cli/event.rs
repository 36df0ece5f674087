//! `netroot event …`

use anyhow::Result;

use super::command::{Cli, Which};
use super::control::Control;
use super::{open, print};
use crate::library::{Events, Filter, Format, Library, Recorded};

/// Events that are read at a time for an export.
const PART: u16 = 1000;

/// Whoever has the events: the server, if one runs, else the library itself.
enum Source {
    Server(Control),
    Library(Box<Library>),
}

impl Source {
    fn new(cli: &Cli) -> Result<Self> {
        match Control::running(&cli.library)? {
            Some(control) => Ok(Source::Server(control)),
            None => Ok(Source::Library(Box::new(open(cli)?))),
        }
    }

    fn events(&self, filter: &Filter) -> Result<Events> {
        match self {
            Source::Server(control) => control.get(&format!("/api/v1/events?{}", query(filter))),
            Source::Library(library) => Ok(library.events(filter)?),
        }
    }
}

pub(super) fn list(cli: &Cli, which: &Which, limit: u16) -> Result<()> {
    let source = Source::new(cli)?;
    let mut filter = filter(which);
    let (mut events, mut skipped) = (Vec::new(), 0);
    // A page may have less than it could although there is more.
    while events.len() < usize::from(limit) {
        filter.limit = limit.saturating_sub(u16::try_from(events.len()).unwrap_or(limit));
        let page = source.events(&filter)?;
        events.extend(page.events);
        skipped += page.skipped;
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    warn(skipped);
    if cli.json {
        return print::json(&events);
    }
    let mut table = print::Table::new(&["AT", "WHO", "WHAT", "TO", "MORE"]);
    for recorded in &events {
        table.row(cells(recorded));
    }
    table.print("no such events")
}

pub(super) fn export(cli: &Cli, which: &Which, format: Format) -> Result<()> {
    let source = Source::new(cli)?;
    let mut filter = filter(which);
    filter.limit = PART;
    print::raw(format.heading().as_bytes())?;
    let mut skipped = 0;
    loop {
        let page = source.events(&filter)?;
        skipped += page.skipped;
        let lines: String = page.events.iter().map(|one| format.line(one)).collect();
        print::raw(lines.as_bytes())?;
        filter.after = page.next;
        if filter.after.is_none() {
            warn(skipped);
            return Ok(());
        }
    }
}

fn warn(skipped: u64) {
    if skipped > 0 {
        print::warning(&format!(
            "{skipped} lines of the library's events/ cannot be understood, and were left out"
        ));
    }
}

fn filter(which: &Which) -> Filter {
    Filter {
        since: which.since,
        until: which.until,
        who: which.who.clone(),
        what: which.what.clone(),
        to: which.to.clone(),
        q: which.search.clone(),
        ..Filter::default()
    }
}

fn cells(recorded: &Recorded) -> [String; 5] {
    let event = &recorded.event;
    let more = event
        .details
        .iter()
        .map(|(key, value)| match value.as_str() {
            Some(text) => format!("{key}: {text}"),
            None => format!("{key}: {value}"),
        });
    let more: Vec<String> = more.collect();
    [
        print::moment(event.at),
        event.by.to_string(),
        event.what.clone(),
        event.to.clone().unwrap_or_default(),
        more.join(", "),
    ]
}

/// The filter as the query of a URL.
fn query(filter: &Filter) -> String {
    let text = |value: &dyn ToString| Some(value.to_string());
    let pairs = [
        ("since", filter.since.and_then(|since| text(&since))),
        ("until", filter.until.and_then(|until| text(&until))),
        ("who", filter.who.clone()),
        ("what", filter.what.clone()),
        ("to", filter.to.clone()),
        ("q", filter.q.clone()),
        ("limit", text(&filter.limit)),
        ("after", filter.after.as_ref().and_then(|after| text(after))),
    ];
    let given = pairs
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key}={}", escaped(&value))));
    given.collect::<Vec<_>>().join("&")
}

/// RFC 3986 §2.3: everything but the unreserved characters.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_any_text() {
        let filter = Filter {
            since: Some("2026-11-20T09:12:00Z".parse().unwrap()),
            who: Some("a&b=c \u{e4}".to_owned()),
            ..Filter::default()
        };
        assert_eq!(
            query(&filter),
            "since=2026-11-20T09%3A12%3A00Z&who=a%26b%3Dc%20%C3%A4&limit=100"
        );
    }
}
