//! Many clients at a time, from a table (CSV, RFC 4180).
//!
//! Nothing is done where one line is wrong: each is read and planned before the first one is done.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use csv::{ReaderBuilder, StringRecord, Trim};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Act, AssignTo, Client, Done, Edit, NewClient, Plan, Settings, SettingsEdit, Way, When,
};
use crate::library::error::{Error, Result, chain};
use crate::library::events::Actor;
use crate::library::live::Live;
use crate::library::names::{ClientName, GroupName, KernelArg, Mode, VersionSpec};
use crate::library::{Library, MacAddr};

/// The columns that a table may have, in any order. `mac` has to be there. Groups, args and macs are
/// lists with spaces between them; an empty cell says nothing.
pub const COLUMNS: [&str; 8] = [
    "name", "mac", "image", "mode", "groups", "args", "macs", "way",
];

/// More lines than these are no list of machines.
const MOST_LINES: usize = 20_000;
/// So many wrong lines are told.
const MOST_TOLD: usize = 50;

/// What is to be imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Import {
    /// The table: its first line names the columns.
    pub csv: String,
    /// What becomes of clients that are there already.
    #[serde(default)]
    pub known: Known,
}

/// What becomes of clients that an import names and that are there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// They are a mistake.
    #[default]
    Refuse,
    /// They become what the table says.
    Update,
}

/// A line of the table.
#[derive(Debug, Clone, Default)]
struct Row {
    line: u64,
    mac: Option<MacAddr>,
    name: Option<ClientName>,
    image: Option<VersionSpec>,
    mode: Option<Mode>,
    groups: Option<BTreeSet<GroupName>>,
    args: Option<Vec<KernelArg>>,
    macs: Option<BTreeSet<MacAddr>>,
    way: Option<Way>,
}

/// What is to be done for a line, checked.
enum Todo {
    Add(NewClient, Edit),
    Update(MacAddr, Option<(Act, When)>, Edit),
}

impl Library {
    /// What [`import_clients`](Self::import_clients) would do, a plan for each client.
    ///
    /// # Errors
    /// When a line is wrong: all of those are told.
    pub fn plan_import_clients(&self, import: &Import, live: &dyn Live) -> Result<Vec<Plan>> {
        let prepared = self.prepare_import(import, live)?;
        Ok(prepared.into_iter().map(|(_, plan, _)| plan).collect())
    }

    /// Adds the clients of a table, and changes those that it is to update: all of it, or where a line
    /// is wrong nothing.
    pub fn import_clients(
        &self,
        import: &Import,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Vec<Done>> {
        let prepared = self.prepare_import(import, live)?;
        let (adds, updates): (Vec<_>, Vec<_>) = prepared
            .into_iter()
            .partition(|(_, _, todo)| matches!(todo, Todo::Add(..)));
        let mut done = Vec::new();
        let mut added = Vec::new();
        for (line, plan, todo) in adds {
            let Todo::Add(new, more) = todo else { continue };
            let add = self.add_client(&new, live, actor).and_then(|one| {
                // From here on it is ours to take back; not where somebody else was quicker.
                added.push(new.mac);
                match more == Edit::default() {
                    true => Ok(one),
                    false => self.edit_client(&new.mac, &more, live, actor),
                }
            });
            match add {
                Ok(one) => done.push(Done { plan, ..one }),
                Err(error) => {
                    let instead = self.take_out_again(&added, live, actor);
                    return Err(stopped(line, &error, &instead));
                }
            }
        }
        for (line, plan, todo) in updates {
            let Todo::Update(mac, act, edit) = todo else {
                continue;
            };
            let updated = self.import_known(&mac, act.as_ref(), &edit, live, actor);
            let one = updated.map_err(|error| {
                let done = "new clients and the lines before it are done; repeat it with --update";
                stopped(line, &error, done)
            })?;
            done.push(Done { plan, ..one });
        }
        Ok(done)
    }

    /// Removes what an import has added before it failed. Tells what is left, and what to do.
    fn take_out_again(&self, added: &[MacAddr], live: &dyn Live, actor: &Actor) -> String {
        let stays = |mac: &&MacAddr| self.remove_client(mac, When::Now, live, actor).is_err();
        let left: Vec<String> = added.iter().filter(stays).map(MacAddr::to_string).collect();
        match left.is_empty() {
            true => "nothing was done; repeat it".to_owned(),
            false => format!(
                "nothing else was done, but {} could not be taken out again: remove them, or repeat it \
                 with --update",
                left.join(", ")
            ),
        }
    }

    fn import_known(
        &self,
        mac: &MacAddr,
        act: Option<&(Act, When)>,
        edit: &Edit,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        if let Some((act, when)) = act {
            self.perform(mac, act, *when, live, actor)?;
        }
        self.edit_client(mac, edit, live, actor)
    }

    fn prepare_import(&self, import: &Import, live: &dyn Live) -> Result<Vec<(u64, Plan, Todo)>> {
        let (rows, mut wrong) = read(&import.csv)?;
        let mut taken = Taken::default();
        let mut prepared = Vec::new();
        for row in rows {
            let planned = taken
                .take(&row)
                .and_then(|()| self.plan_row(&row, import.known, live));
            match planned {
                Ok((plan, todo)) => prepared.push((row.line, plan, todo)),
                Err(why) => wrong.push((row.line, chain(&why))),
            }
        }
        if wrong.is_empty() {
            return Ok(prepared);
        }
        wrong.sort();
        let count = wrong.len();
        let told = wrong.iter().take(MOST_TOLD);
        let mut lines: Vec<String> = told
            .map(|(line, why)| format!("line {line}: {why}"))
            .collect();
        if count > MOST_TOLD {
            lines.push(format!("and {} more", count - MOST_TOLD));
        }
        Err(unread(format!(
            "wrong lines: {count}\n{}\n",
            lines.join("\n")
        )))
    }

    fn plan_row(&self, row: &Row, known: Known, live: &dyn Live) -> Result<(Plan, Todo)> {
        let mac = row
            .mac
            .ok_or_else(|| Error::Invalid("it has no hardware address (`mac`)".to_owned()))?;
        match (self.find_client(&mac)?, known) {
            (Some(client), Known::Refuse) => Err(Error::Invalid(format!(
                "{mac} is client {} already; with --update it becomes what the table says",
                client.name
            ))),
            (Some(client), Known::Update) => self.plan_update(row, &client, live),
            (None, _) => {
                let groups = row.groups.clone().unwrap_or_default();
                let to = self.assignment_for(row.image.clone(), row.mode, &groups)?;
                let new = NewClient {
                    mac,
                    name: row.name.clone(),
                    image: to.image,
                    mode: to.mode,
                    args: row.args.clone().unwrap_or_default(),
                    groups,
                    settings: Settings::default().edited(&row.settings()),
                };
                let more = Edit {
                    more_macs: row.macs.clone(),
                    ..Edit::default()
                };
                let plan = self.plan_add_with(&new, &more)?;
                Ok((plan, Todo::Add(new, more)))
            }
        }
    }

    fn plan_update(&self, row: &Row, client: &Client, live: &dyn Live) -> Result<(Plan, Todo)> {
        let edit = Edit {
            name: row.name.clone(),
            args: row.args.clone(),
            groups: row.groups.clone(),
            more_macs: row.macs.clone(),
            settings: row.settings(),
            ..Edit::default()
        };
        let mac = client.mac;
        let mut plan = self.plan_edit(&mac, &edit)?;
        let is_assigned = row.image.is_some() || row.mode.is_some();
        let act = is_assigned.then(|| {
            let (image, mode) = (row.image.clone(), row.mode);
            let act = Act::Assign(AssignTo { image, mode });
            // Of a table nobody is cut off, or held up.
            let when = match self.plan(&mac, &act, When::Now, live) {
                Err(Error::Refused { .. }) => When::AtNextBoot,
                _ => When::Now,
            };
            (act, when)
        });
        if let Some((act, when)) = &act {
            let assigned = self.plan(&mac, act, *when, live)?;
            let edits = std::mem::replace(&mut plan.steps, assigned.steps);
            plan.steps.extend(edits);
            plan.loses = assigned.loses;
            plan.warnings = assigned.warnings;
        }
        Ok((plan, Todo::Update(mac, act, edit)))
    }
}

impl Row {
    fn settings(&self) -> SettingsEdit {
        SettingsEdit {
            way: self.way.map(Some),
            ..SettingsEdit::default()
        }
    }

    fn of(columns: &[&'static str], record: &StringRecord) -> std::result::Result<Row, String> {
        let mut row = Row::default();
        for (column, cell) in columns
            .iter()
            .zip(record)
            .filter(|(_, cell)| !cell.is_empty())
        {
            row.set(column, cell)
                .map_err(|why| format!("{column}: {why}"))?;
        }
        Ok(row)
    }

    fn set(&mut self, column: &str, cell: &str) -> std::result::Result<(), String> {
        match column {
            "name" => self.name = Some(parsed(cell)?),
            "mac" => self.mac = Some(parsed(cell)?),
            "image" => self.image = Some(parsed(cell)?),
            "mode" => self.mode = Some(parsed(cell)?),
            "groups" => self.groups = Some(list(cell)?),
            "args" => self.args = Some(list(cell)?),
            "macs" => self.macs = Some(list(cell)?),
            _ => self.way = Some(parsed(cell)?),
        }
        Ok(())
    }
}

fn parsed<T: FromStr<Err: ToString>>(cell: &str) -> std::result::Result<T, String> {
    cell.parse().map_err(|why: T::Err| why.to_string())
}

fn list<T, L>(cell: &str) -> std::result::Result<L, String>
where
    T: FromStr<Err: ToString>,
    L: FromIterator<T>,
{
    cell.split_whitespace().map(parsed).collect()
}

/// Addresses and names that a table has used so far, and on which line.
#[derive(Default)]
struct Taken {
    macs: BTreeMap<MacAddr, u64>,
    names: BTreeMap<ClientName, u64>,
}

impl Taken {
    fn take(&mut self, row: &Row) -> Result<()> {
        let twice = |what: String, line: u64| {
            Err(Error::Invalid(format!("{what} stands on line {line}, too")))
        };
        for mac in row.mac.iter().chain(row.macs.iter().flatten()) {
            if let Some(line) = self.macs.insert(*mac, row.line) {
                return twice(mac.to_string(), line);
            }
        }
        if let Some(name) = &row.name
            && let Some(line) = self.names.insert(name.clone(), row.line)
        {
            return twice(format!("the name {name}"), line);
        }
        Ok(())
    }
}

type Wrong = Vec<(u64, String)>;

/// Takes a table apart: its rows, and the lines that are none.
fn read(text: &str) -> Result<(Vec<Row>, Wrong)> {
    // Some programs begin a file with a mark, and some separate by semicolons where a comma is part of
    // numbers.
    let text = text.trim_start_matches('\u{feff}');
    let head = text.lines().next().unwrap_or_default();
    let delimiter = match head.contains(';') && !head.contains(',') {
        true => b';',
        false => b',',
    };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let wrong_head = |why: String| unread(format!("line 1: {why}"));
    let head = reader
        .headers()
        .map_err(|error| wrong_head(error.to_string()))?;
    let columns = columns(head).map_err(wrong_head)?;
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for record in reader.records() {
        if rows.len() + wrong.len() >= MOST_LINES {
            return Err(unread(format!("it has more than {MOST_LINES} lines")));
        }
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                match Row::of(&columns, &record) {
                    Ok(row) => rows.push(Row { line, ..row }),
                    Err(why) => wrong.push((line, why)),
                }
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                wrong.push((line, format!("it is no line of this table: {error}")));
            }
        }
    }
    Ok((rows, wrong))
}

fn columns(head: &StringRecord) -> std::result::Result<Vec<&'static str>, String> {
    let all = COLUMNS.join(", ");
    let mut columns = Vec::new();
    for cell in head {
        let cell = cell.to_lowercase();
        let Some(column) = COLUMNS.iter().find(|column| **column == cell) else {
            let cell: String = cell.chars().take(40).collect();
            return Err(format!("there is no column {cell:?}; these are: {all}"));
        };
        if columns.contains(column) {
            return Err(format!("the column {column} is there twice"));
        }
        columns.push(column);
    }
    match columns.contains(&"mac") {
        true => Ok(columns),
        false => Err(format!(
            "the first line names the columns, and `mac` is none of them; these are: {all}"
        )),
    }
}

/// Whether a table is right depends on what there is already, so it is refused, not malformed.
fn unread(why: String) -> Error {
    Error::refused(
        "importing a table of clients",
        why,
        "nothing was done: mend it, and repeat",
    )
}

fn stopped(line: u64, error: &Error, instead: &str) -> Error {
    Error::refused(
        format!("importing the client of line {line}"),
        chain(error),
        instead,
    )
}
