//! `netroot client import`, and the table that `netroot client list --csv` writes.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::client::{show_done, show_plans};
use super::command::{Cli, ClientImport};
use super::reach::Reach;
use super::{ask, print};
use crate::library::{COLUMNS, ClientView, Import, Known};

/// A table of machines is smaller.
const LARGEST: u64 = 16 << 20;

pub(super) fn import(cli: &Cli, args: &ClientImport) -> Result<()> {
    let import = Import {
        csv: text(&args.file)?,
        known: match args.update {
            true => Known::Update,
            false => Known::Refuse,
        },
    };
    let reach = Reach::new(cli)?;
    let plans = reach.plan_import(&import)?;
    if args.consent.dry_run {
        return show_plans(cli, &plans);
    }
    let losses = plans.iter().filter_map(|plan| {
        let loses = plan.loses.as_ref()?;
        Some(format!("{}: {loses}", plan.title()))
    });
    let losses: Vec<String> = losses.collect();
    if !losses.is_empty() {
        ask::consent(args.consent, &losses.join("\n"))?;
    }
    show_done(cli, &reach.import(&import)?)
}

fn text(file: &Path) -> Result<String> {
    let shown = match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    };
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(stdin().lock()),
        false => Box::new(File::open(file).with_context(|| format!("opening {shown}"))?),
    };
    let mut text = String::new();
    source
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("reading clients from {shown}: it has to be text, in UTF-8"))?;
    if text.len() as u64 > LARGEST {
        bail!(
            "{shown} has more than {} MiB: that is no list of machines",
            LARGEST >> 20
        );
    }
    Ok(text)
}

/// Prints clients as a table that can be imported.
pub(super) fn export(clients: &[ClientView]) -> Result<()> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(COLUMNS).context("writing a table")?;
    for view in clients {
        let client = &view.client;
        let way = client.settings.way.map(|way| way.to_string());
        table
            .write_record([
                client.name.to_string(),
                client.mac.to_string(),
                client.image.to_string(),
                client.mode.to_string(),
                words(&client.groups),
                words(&client.args),
                words(&client.more_macs),
                way.unwrap_or_default(),
            ])
            .context("writing a table")?;
    }
    print::raw(&table.into_inner().context("writing a table")?)
}

fn words<T: ToString>(list: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = list.into_iter().map(|word| word.to_string()).collect();
    words.join(" ")
}
