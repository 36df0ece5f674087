//! Events as they are looked for: of all servers, the newest first, a page at a time.
//!
//! Files of a day are read from their ends and merged by time. What is read for one page is bounded;
//! the next page begins where this one stopped, whatever was written meanwhile.
//!
//! Who looks for events may only look: boot ids are masked before anything is compared or shown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::backwards::Backwards;
use super::{Actor, Event};
use crate::library::error::{Doing, Result};
use crate::library::mask::mask_boot_ids;
use crate::library::names::{NameError, serde_as_text};
use crate::library::{Library, document};

/// Which events are looked for; all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Not before this.
    #[serde(deserialize_with = "given")]
    pub since: Option<Moment>,
    /// Before this.
    #[serde(deserialize_with = "given")]
    pub until: Option<Moment>,
    /// Part of the name or address of who did it, in any case of letters.
    #[serde(deserialize_with = "given")]
    pub who: Option<String>,
    /// What the kind of event begins with: `client-` or `client-reset`.
    #[serde(deserialize_with = "given")]
    pub what: Option<String>,
    /// Part of what it was done to, in any case of letters.
    #[serde(deserialize_with = "given")]
    pub to: Option<String>,
    /// Part of anything that is told of it, in any case of letters.
    #[serde(deserialize_with = "given")]
    pub q: Option<String>,
    /// So many at most, up to 1000.
    #[serde(deserialize_with = "length")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: u16,
    /// Where the page before this one said that it begins.
    #[serde(deserialize_with = "given")]
    pub after: Option<Cursor>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The newest first.
    pub events: Vec<Recorded>,
    /// Where the next page begins, if there may be one. A page of a rare kind of event may have
    /// less than its limit, or nothing, and yet a next one: so much is read at a time and no more.
    pub next: Option<Cursor>,
    /// Lines that could not be understood, and were left out.
    pub skipped: u64,
}

/// An event, and which server recorded it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recorded {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// The server.
    pub server: String,
}

/// A moment as people write it: `2026-11-20T09:12:00Z`, `2026-11-20` (midnight here), `2h` (ago).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

/// A place between two events: a day, and how far the file of each server was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    day: Date,
    /// Bytes from the beginning that are still to be read.
    left: BTreeMap<String, u64>,
}

/// The days that there are: `2026-11-20`. Conditions may be left empty, so both forms with one may be.
macro_rules! day {
    () => {
        concat!(
            "([0-9]{4}-(",
            "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|",
            "(0[469]|11)-(0[1-9]|[12][0-9]|30)|",
            "02-(0[1-9]|1[0-9]|2[0-8]))|",
            "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
        )
    };
}

serde_as_text!(
    Moment,
    concat!(
        "^(|[0-9]{1,6}[smhd]|",
        day!(),
        r"(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z)?)$"
    )
);
serde_as_text!(
    Cursor,
    concat!("^(|", day!(), "(,[a-z0-9.-]+~[0-9]{1,15})*)$")
);

/// Most events of a page.
const LARGEST_PAGE: u16 = 1000;
/// How many lines are read for a page.
const MOST_LINES: usize = 200_000;
/// After so many it is asked whether that is enough.
const ASKED_AFTER: usize = 256;
/// A day's file of one server: `2026-11-20-server-01.jsonl`.
const ENDING: &str = ".jsonl";
/// How long the day is in the names of files.
const DAY: usize = "2026-11-20".len();

impl Default for Filter {
    fn default() -> Self {
        Self {
            since: None,
            until: None,
            who: None,
            what: None,
            to: None,
            q: None,
            limit: 100,
            after: None,
        }
    }
}

impl Library {
    /// A page of the events that `filter` lets through.
    ///
    /// # Errors
    /// When a file cannot be read; what is in it may be anything.
    pub fn events(&self, filter: &Filter) -> Result<Events> {
        self.events_until(filter, &|| false)
    }

    /// The same, of no more than was read when it is `enough`; the next page begins there.
    ///
    /// # Errors
    /// When a file cannot be read; what is in it may be anything.
    pub fn events_until(&self, filter: &Filter, enough: &dyn Fn() -> bool) -> Result<Events> {
        let wanted = Wanted::new(filter);
        let limit = usize::from(filter.limit.clamp(1, LARGEST_PAGE));
        let mut page = Page::default();
        for day in self.event_days(filter)? {
            let after = filter.after.as_ref().filter(|after| after.day == day);
            let mut files = self.open_day(day, after)?;
            page.next = None;
            while let Some(line) = newest(&mut files)? {
                page.take(line, &wanted);
                let full = page.events.len() >= limit || page.lines >= MOST_LINES;
                if full || (page.lines.is_multiple_of(ASKED_AFTER) && enough()) {
                    page.next = Some(Cursor::of(day, &files));
                    return Ok(page.done());
                }
            }
        }
        Ok(page.done())
    }

    /// Days that have files and may have such events, the newest first.
    fn event_days(&self, filter: &Filter) -> Result<Vec<Date>> {
        let utc = |moment: &Moment| moment.0.to_zoned(TimeZone::UTC).date();
        let first = filter.since.as_ref().map(utc);
        let last = filter.until.as_ref().map(utc);
        let after = filter.after.as_ref().map(|after| after.day);
        let names = document::entries(&self.places().events())?;
        let days: BTreeSet<Date> = names
            .iter()
            .filter_map(|name| parts(name))
            .map(|(day, _)| day)
            .filter(|day| first.is_none_or(|first| *day >= first))
            .filter(|day| last.is_none_or(|last| *day <= last))
            .filter(|day| after.is_none_or(|after| *day <= after))
            .collect();
        Ok(days.into_iter().rev().collect())
    }

    fn open_day(&self, day: Date, after: Option<&Cursor>) -> Result<Vec<OfServer>> {
        let dir = self.places().events();
        let mut files = Vec::new();
        for name in document::entries(&dir)? {
            let Some((_, server)) = parts(&name).filter(|(its, _)| *its == day) else {
                continue;
            };
            let path = dir.join(&name);
            let file = match File::open(&path) {
                Ok(file) => file,
                // Somebody who tidies up removes old ones.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).doing("opening", &path),
            };
            let length = file.metadata().doing("reading", &path)?.len();
            let left = match after {
                // A file that came since is newer than what is looked for.
                Some(after) => after.left.get(server).copied().unwrap_or(0).min(length),
                None => length,
            };
            files.push(OfServer {
                server: server.to_owned(),
                lines: Backwards::new(file, left),
                head: None,
                path,
            });
        }
        files.sort_by(|one, other| one.server.cmp(&other.server));
        Ok(files)
    }
}

/// The file of one server, and its newest line that was not taken.
struct OfServer {
    server: String,
    path: PathBuf,
    lines: Backwards,
    head: Option<Line>,
}

/// A line, and what it says if it can be understood.
struct Line {
    /// Where it ends in its file.
    end: u64,
    event: Option<Recorded>,
}

impl OfServer {
    fn fill(&mut self) -> Result<()> {
        if self.head.is_some() {
            return Ok(());
        }
        let line = self.lines.next_line().doing("reading", &self.path)?;
        self.head = line.map(|line| Line {
            end: line.end,
            event: serde_json::from_slice(&line.bytes)
                .ok()
                .map(|event| Recorded {
                    event: masked(event),
                    server: self.server.clone(),
                }),
        });
        Ok(())
    }

    /// How much of the file is not taken yet.
    fn left(&self) -> u64 {
        match &self.head {
            Some(head) => head.end,
            None => self.lines.left(),
        }
    }
}

/// Takes the newest line of all; one that cannot be understood goes first, wherever it stands.
fn newest(files: &mut [OfServer]) -> Result<Option<Line>> {
    for file in files.iter_mut() {
        file.fill()?;
    }
    let heads = files.iter_mut().filter(|file| file.head.is_some());
    let newest = heads.min_by_key(|file| {
        let event = file.head.as_ref().and_then(|head| head.event.as_ref());
        event.map(|recorded| Reverse(recorded.event.at))
    });
    Ok(newest.and_then(|file| file.head.take()))
}

#[derive(Default)]
struct Page {
    events: Vec<Recorded>,
    lines: usize,
    skipped: u64,
    next: Option<Cursor>,
}

impl Page {
    fn take(&mut self, line: Line, wanted: &Wanted) {
        self.lines += 1;
        match line.event {
            None => self.skipped += 1,
            Some(recorded) if wanted.has(&recorded) => self.events.push(recorded),
            Some(_) => {}
        }
    }

    fn done(self) -> Events {
        Events {
            events: self.events,
            next: self.next,
            skipped: self.skipped,
        }
    }
}

/// A filter, ready to be asked often.
struct Wanted<'a> {
    filter: &'a Filter,
    who: Option<String>,
    to: Option<String>,
    q: Option<String>,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a Filter) -> Self {
        let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_lowercase());
        Self {
            filter,
            who: lower(&filter.who),
            to: lower(&filter.to),
            q: lower(&filter.q),
        }
    }

    fn has(&self, recorded: &Recorded) -> bool {
        let Recorded { event, server } = recorded;
        let part = |part: &Option<String>, text: &dyn Fn() -> String| {
            let has = |part: &String| text().to_lowercase().contains(part.as_str());
            part.as_ref().is_none_or(has)
        };
        let to = || event.to.clone().unwrap_or_default();
        let all = || {
            let details = event
                .details
                .iter()
                .map(|(key, value)| format!("{key} {value}"));
            let details: Vec<String> = details.collect();
            let (by, what) = (&event.by, &event.what);
            format!("{by} {what} {} {server} {}", to(), details.join(" "))
        };
        let filter = self.filter;
        let begins = |what: &String| event.what.starts_with(what.as_str());
        filter.since.is_none_or(|since| event.at >= since.0)
            && filter.until.is_none_or(|until| event.at < until.0)
            && filter.what.as_ref().is_none_or(begins)
            && part(&self.who, &|| event.by.to_string())
            && part(&self.to, &to)
            && part(&self.q, &all)
    }
}

/// An event that lets nobody in as a boot that it tells of.
fn masked(mut event: Event) -> Event {
    if let Actor::Client { initiator, .. } = &mut event.by {
        *initiator = mask_boot_ids(initiator);
    }
    event.to = event.to.as_deref().map(mask_boot_ids);
    event.details.values_mut().for_each(mask_within);
    event
}

fn mask_within(value: &mut Value) {
    match value {
        Value::String(text) => *text = mask_boot_ids(text),
        Value::Array(values) => values.iter_mut().for_each(mask_within),
        Value::Object(values) => values.values_mut().for_each(mask_within),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A field of a form that was left empty is no condition.
fn given<'de, D, T>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    let text = text.filter(|text| !text.is_empty());
    let value = text.map(|text| text.parse().map_err(serde::de::Error::custom));
    value.transpose()
}

fn length<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        length @ 1..=LARGEST_PAGE => Ok(length),
        other => Err(serde::de::Error::custom(format!(
            "a page has 1 to {LARGEST_PAGE} events, not {other}"
        ))),
    }
}

/// Day and server in the name of a file of events.
fn parts(name: &str) -> Option<(Date, &str)> {
    let name = name.strip_suffix(ENDING)?;
    let (day, rest) = name.split_at_checked(DAY)?;
    Some((day.parse().ok()?, rest.strip_prefix('-')?))
}

impl Cursor {
    fn of(day: Date, files: &[OfServer]) -> Self {
        let left = files.iter().map(|file| (file.server.clone(), file.left()));
        Self {
            day,
            left: left.collect(),
        }
    }
}

/// `2026-11-20,server-01.example.edu~4711`: nothing that a URL has to escape.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.day)?;
        for (server, left) in &self.left {
            write!(f, ",{server}~{left}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        let wrong = || NameError::new(text, "where a page of events said that the next one begins");
        let mut words = text.split(',');
        let day = words.next().and_then(|day| day.parse().ok());
        let mut left = BTreeMap::new();
        for word in words {
            let (server, bytes) = word.rsplit_once('~').ok_or_else(wrong)?;
            left.insert(server.to_owned(), bytes.parse().map_err(|_| wrong())?);
        }
        Ok(Self {
            day: day.ok_or_else(wrong)?,
            left,
        })
    }
}

impl FromStr for Moment {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self(at));
        }
        let wanted = "a moment: 2026-11-20, 2026-11-20T09:12:00Z, or 30m, 2h or 7d ago";
        let wrong = || NameError::new(text, wanted);
        if let Ok(day) = text.parse::<Date>() {
            let midnight = day.to_zoned(TimeZone::system()).map_err(|_| wrong())?;
            return Ok(Self(midnight.timestamp()));
        }
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let count = text
            .strip_suffix(unit)
            .and_then(|count| count.parse::<u32>().ok());
        let ago = i64::from(count.ok_or_else(wrong)?) * seconds;
        let at = Zoned::now().timestamp().as_second().saturating_sub(ago);
        Timestamp::from_second(at).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_several_ways() {
        let at: Moment = "2026-11-20T09:12:00Z".parse().unwrap();
        assert_eq!(at.to_string().parse(), Ok(at));
        let now = Timestamp::now().as_second();
        let ago = |text: &str| now - text.parse::<Moment>().unwrap().0.as_second();
        assert!((7200..7210).contains(&ago("2h")));
        assert!((7 * 86400..7 * 86400 + 10).contains(&ago("7d")));
        assert!("2026-11-20".parse::<Moment>().is_ok());
        for wrong in [
            "",
            "h",
            "-2h",
            "2w",
            "yesterday",
            "4294967296d",
            "2026-13-01",
            "\u{e4}",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let cursor: Cursor = "2026-11-20,a.b~0,server-01~4711".parse().unwrap();
        assert_eq!(cursor.to_string(), "2026-11-20,a.b~0,server-01~4711");
        for wrong in ["", "x", "2026-11-20,a", "2026-11-20,a~-1", "2026-11-20,a~x"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
