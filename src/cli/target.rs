//! `netroot target …` and `netroot session …`

use anyhow::{Context, Result};
use serde::Serialize;

use super::command::{Cli, Consent};
use super::reach::Reach;
use super::{ask, print};
use crate::daemon::SessionRow;
use crate::library::Published;

/// A target with who is connected to it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    target: &'a Published,
    sessions: Vec<&'a SessionRow>,
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let reach = Reach::new(cli)?;
    let (published, sessions) = (reach.published()?, reach.sessions()?);
    let rows: Vec<Row<'_>> = published
        .iter()
        .map(|target| Row {
            target,
            sessions: sessions
                .iter()
                .filter(|session| session.target == target.target)
                .collect(),
        })
        .collect();
    if cli.json {
        return print::json(&rows);
    }
    if rows.is_empty() {
        return print::lines([
            "nothing is published; make an image with: netroot image build deb12 --from debian:bookworm",
        ]);
    }
    print::lines(rows.iter().flat_map(description))
}

pub(super) fn sessions(cli: &Cli) -> Result<()> {
    let sessions = Reach::new(cli)?.sessions()?;
    if cli.json {
        return print::json(&sessions);
    }
    let headings = [
        "ID",
        "INITIATOR",
        "ADDRESS",
        "TARGET",
        "SINCE",
        "READ",
        "WRITTEN",
    ];
    let mut table = print::Table::new(&headings);
    for session in &sessions {
        table.row([
            session.id.to_string(),
            session.initiator.clone(),
            session.peer.to_string(),
            session.target.clone(),
            print::moment(session.since),
            print::bytes(session.bytes_read),
            print::bytes(session.bytes_written),
        ]);
    }
    table.print("nobody is connected")
}

pub(super) fn kick(cli: &Cli, id: u64, consent: Consent) -> Result<()> {
    let reach = Reach::new(cli)?;
    let sessions = reach.sessions()?;
    let session = sessions.iter().find(|session| session.id == id);
    let session =
        session.with_context(|| format!("there is no session {id}; see `netroot session list`"))?;
    let what = format!(
        "end session {id} of {} at {}",
        session.initiator, session.peer
    );
    if consent.dry_run {
        return match cli.json {
            true => print::json(session),
            false => print::lines([format!("would {what}")]),
        };
    }
    ask::consent(consent, &format!("{what}: it may log in again"))?;
    let ended = reach.kick(id)?;
    match cli.json {
        true => print::json(&ended),
        false => print::lines([format!("did {what}")]),
    }
}

fn description(row: &Row<'_>) -> Vec<String> {
    let Row { target, sessions } = row;
    let access = if target.read_only {
        "read-only"
    } else {
        "writable"
    };
    let mut lines = vec![
        format!("{}", target.target),
        String::from("  LUN 0     storage array controller"),
        format!(
            "  LUN {:<5} {} ({} bytes), {access}",
            target.lun,
            print::bytes(target.size),
            target.size
        ),
        format!("            {}", target.backing.display()),
    ];
    lines.extend(sessions.iter().map(|session| {
        format!(
            "  session   {} {} from {}",
            session.id,
            print::printable(&session.initiator),
            session.peer
        )
    }));
    lines
}
