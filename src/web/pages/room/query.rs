//! What of the room is shown, and in which order: all of it in the page's address.

use std::cmp::Ordering;
use std::fmt;

use serde::Deserialize;

use super::row::Row;
use crate::library::ClientState;
use crate::web::pages::text::encoded;

/// Rows of one page. More of them are slow to draw, and nobody reads them.
pub(super) const ROWS: usize = 1000;

/// The parameters, as somebody may have written them by hand.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    show: String,
    group: String,
    sort: String,
    page: String,
    pick: String,
}

/// What is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Words that all have to be found in a row.
    pub(super) q: String,
    /// Which states.
    pub(super) show: Show,
    /// A group; nothing: whatever the group.
    pub(super) group: String,
    /// By which column.
    pub(super) sort: Column,
    /// From the greatest to the least.
    pub(super) backwards: bool,
    /// The first one is 1.
    pub(super) page: usize,
    /// All rows that are shown are chosen.
    pub(super) pick: bool,
}

/// A part of the room that the totals lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Show {
    #[default]
    All,
    Up,
    Booting,
    Failed,
    Off,
    Drift,
}

/// What the room can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Column {
    #[default]
    Name,
    State,
    Image,
    Mode,
    Address,
    Group,
    Rate,
    Clone,
    Boot,
}

impl Show {
    pub(super) const ALL: [Show; 6] = [
        Show::All,
        Show::Up,
        Show::Booting,
        Show::Failed,
        Show::Off,
        Show::Drift,
    ];

    /// The word in the address and on the page.
    pub(super) fn word(self) -> &'static str {
        match self {
            Show::All => "all",
            Show::Up => "up",
            Show::Booting => "booting",
            Show::Failed => "failed",
            Show::Off => "off",
            Show::Drift => "drift",
        }
    }

    /// What stands beside the number of its clients.
    pub(super) fn title(self) -> &'static str {
        match self {
            Show::Failed => "failed or lost",
            Show::Drift => "with drift",
            other => other.word(),
        }
    }

    /// Whether a row belongs to this part.
    pub(super) fn has(self, row: &Row) -> bool {
        match self {
            Show::All => true,
            Show::Up => row.view.state == ClientState::Up,
            Show::Booting => row.view.state == ClientState::Booting,
            Show::Failed => matches!(row.view.state, ClientState::Failed | ClientState::Lost),
            Show::Off => row.view.state == ClientState::Off,
            Show::Drift => row.view.drift.is_some(),
        }
    }
}

impl Column {
    pub(super) const ALL: [Column; 9] = [
        Column::Name,
        Column::State,
        Column::Image,
        Column::Mode,
        Column::Address,
        Column::Group,
        Column::Rate,
        Column::Clone,
        Column::Boot,
    ];

    fn word(self) -> &'static str {
        match self {
            Column::Name => "name",
            Column::State => "state",
            Column::Image => "image",
            Column::Mode => "mode",
            Column::Address => "address",
            Column::Group => "group",
            Column::Rate => "rate",
            Column::Clone => "clone",
            Column::Boot => "boot",
        }
    }

    /// What stands above it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Column::Name => "Name",
            Column::State => "State",
            Column::Image => "Boots",
            Column::Mode => "Mode",
            Column::Address => "Address",
            Column::Group => "Groups",
            Column::Rate => "Throughput",
            Column::Clone => "Clone",
            Column::Boot => "Last boot",
        }
    }

    /// Whether it holds numbers: those are looked at from the greatest on.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Column::Rate | Column::Clone)
    }

    fn begins_backwards(self) -> bool {
        self.is_number() || self == Column::Boot
    }

    fn order(self, a: &Row, b: &Row) -> Ordering {
        let (one, other) = (&a.view, &b.view);
        match self {
            Column::Name => Ordering::Equal,
            Column::State => one.state.cmp(&other.state),
            Column::Image => one.boots.cmp(&other.boots),
            Column::Mode => one.client.mode.as_str().cmp(other.client.mode.as_str()),
            Column::Address => a.address().cmp(&b.address()),
            Column::Group => one.client.groups.cmp(&other.client.groups),
            Column::Rate => a.rate().cmp(&b.rate()),
            Column::Clone => one.clone_bytes.cmp(&other.clone_bytes),
            Column::Boot => a.booted().cmp(&b.booted()),
        }
    }
}

impl From<Asked> for Query {
    fn from(asked: Asked) -> Self {
        let (word, backwards) = match asked.sort.strip_prefix('-') {
            Some(word) => (word, true),
            None => (asked.sort.as_str(), false),
        };
        let column = Column::ALL.into_iter().find(|column| column.word() == word);
        let show = Show::ALL.into_iter();
        Query {
            q: asked.q.trim().to_owned(),
            show: show
                .into_iter()
                .find(|show| show.word() == asked.show)
                .unwrap_or_default(),
            group: asked.group,
            sort: column.unwrap_or_default(),
            backwards: backwards && column.is_some(),
            page: asked.page.parse().unwrap_or(1).max(1),
            pick: asked.pick == "shown",
        }
    }
}

/// The address that shows this.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backwards = if self.backwards { "-" } else { "" };
        let sorted = (self.sort, self.backwards) != (Column::Name, false);
        let parts = [
            ("q", self.q.clone(), !self.q.is_empty()),
            ("show", self.show.word().to_owned(), self.show != Show::All),
            ("group", self.group.clone(), !self.group.is_empty()),
            ("sort", format!("{backwards}{}", self.sort.word()), sorted),
            ("page", self.page.to_string(), self.page > 1),
            ("pick", "shown".to_owned(), self.pick),
        ];
        f.write_str("/")?;
        let mut separator = '?';
        for (name, value, _) in parts.iter().filter(|(_, _, given)| *given) {
            write!(f, "{separator}{name}={}", encoded(value))?;
            separator = '&';
        }
        Ok(())
    }
}

impl Query {
    /// The address of another part of the room.
    pub(super) fn showing(&self, show: Show) -> String {
        Query {
            show,
            ..self.begin()
        }
        .to_string()
    }

    /// The address of a group's rows; of all groups', where that group is shown.
    pub(super) fn of_group(&self, group: &str) -> String {
        let group = match self.group == group {
            true => String::new(),
            false => group.to_owned(),
        };
        Query {
            group,
            ..self.begin()
        }
        .to_string()
    }

    /// The address of the same rows by another column; the other way round, where that is it.
    pub(super) fn by(&self, sort: Column) -> String {
        let backwards = match self.sort == sort {
            true => !self.backwards,
            false => sort.begins_backwards(),
        };
        Query {
            sort,
            backwards,
            ..self.begin()
        }
        .to_string()
    }

    /// How the rows are sorted by a column, if they are.
    pub(super) fn direction(&self, column: Column) -> Option<&'static str> {
        (self.sort == column).then_some(match self.backwards {
            true => "descending",
            false => "ascending",
        })
    }

    /// What the form that searches has to bring along.
    pub(super) fn hidden(&self) -> Vec<(&'static str, String)> {
        let backwards = if self.backwards { "-" } else { "" };
        vec![
            ("show", self.show.word().to_owned()),
            ("group", self.group.clone()),
            ("sort", format!("{backwards}{}", self.sort.word())),
        ]
    }

    /// The address of another page.
    pub(super) fn at(&self, page: usize) -> String {
        Query {
            page,
            ..self.begin()
        }
        .to_string()
    }

    /// The address of this page with all its rows chosen.
    pub(super) fn all_picked(&self) -> String {
        Query {
            pick: true,
            ..self.clone()
        }
        .to_string()
    }

    /// Whether it hides nothing.
    pub(super) fn is_whole(&self) -> bool {
        self.q.is_empty() && self.group.is_empty() && self.show == Show::All
    }

    fn begin(&self) -> Query {
        Query {
            page: 1,
            pick: false,
            ..self.clone()
        }
    }

    /// The rows that are meant, in their order.
    pub(super) fn of<'a>(&self, rows: &'a [Row]) -> Vec<&'a Row> {
        let words: Vec<String> = self.q.split_whitespace().map(str::to_lowercase).collect();
        let is_meant = |row: &Row| {
            self.show.has(row)
                && (self.group.is_empty() || row.is_in(&self.group))
                && (words.is_empty() || row.has_words(&words))
        };
        let mut rows: Vec<&Row> = rows.iter().filter(|row| is_meant(row)).collect();
        rows.sort_by(|a, b| {
            let by_name = || natural(a.name(), b.name());
            let order = match self.sort {
                Column::Name => by_name(),
                column => column.order(a, b),
            };
            let order = match self.backwards {
                true => order.reverse(),
                false => order,
            };
            // What has nothing there comes last, whichever way.
            let empty = a.is_empty(self.sort).cmp(&b.is_empty(self.sort));
            empty.then(order).then_with(by_name)
        });
        rows
    }
}

/// `lab-2` before `lab-10`: digits count as the number that they write.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (one, other) = (chunk(&mut a), chunk(&mut b));
        let order = match (one.parse::<u64>(), other.parse::<u64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            _ => one.cmp(other),
        };
        match order.then_with(|| one.cmp(other)) {
            Ordering::Equal if one.is_empty() => return Ordering::Equal,
            Ordering::Equal => {}
            order => return order,
        }
    }
}

/// The first digits, or everything before the first one.
fn chunk<'a>(rest: &mut &'a str) -> &'a str {
    let digit = |c: char| c.is_ascii_digit();
    let is_number = rest.starts_with(digit);
    let end = rest.find(|c| digit(c) != is_number).unwrap_or(rest.len());
    let (chunk, after) = rest.split_at(end);
    *rest = after;
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let mut asked = Asked::default();
        for (name, value) in text.split('&').filter_map(|part| part.split_once('=')) {
            let field = match name {
                "q" => &mut asked.q,
                "show" => &mut asked.show,
                "group" => &mut asked.group,
                "sort" => &mut asked.sort,
                "page" => &mut asked.page,
                _ => &mut asked.pick,
            };
            *field = value.to_owned();
        }
        asked.into()
    }

    #[test]
    fn an_address_says_what_is_shown_and_nothing_that_goes_without_saying() {
        for (asked, address) in [
            ("", "/"),
            ("q=lab fc28&show=up", "/?q=lab%20fc28&show=up"),
            ("sort=name", "/"),
            ("sort=-name&page=3", "/?sort=-name&page=3"),
            ("sort=-colour&show=ripe&page=-1", "/"),
            ("q=<script>&group=a\"b", "/?q=%3Cscript%3E&group=a%22b"),
        ] {
            assert_eq!(query(asked).to_string(), address, "{asked}");
        }
        let shown = query("q=lab&page=4");
        assert_eq!(shown.by(Column::Rate), "/?q=lab&sort=-rate");
        assert_eq!(shown.by(Column::Name), "/?q=lab&sort=-name");
        assert_eq!(shown.direction(Column::Name), Some("ascending"));
        assert_eq!(shown.of_group("x"), "/?q=lab&group=x");
        assert_eq!(query("group=x").of_group("x"), "/");
    }

    #[test]
    fn names_count_as_people_count() {
        let mut names = ["lab-10", "lab-2", "lab", "lab-2a", "a9", "lab-02"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a9", "lab", "lab-02", "lab-2", "lab-2a", "lab-10"]);
    }
}
