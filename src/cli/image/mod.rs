//! `netroot image …`, but for what makes versions.

mod acts;
mod diff;
mod draw;
mod set;
mod show;
mod trial;
mod verify;

pub(super) use acts::{prune, remove, rollback};
pub(super) use diff::{diff, told_changes};
pub(super) use set::set;
pub(super) use show::{description, names, show};
pub(super) use trial::{test, tried};
pub(super) use verify::verify;

use anyhow::Result;
use serde::Serialize;

use super::command::Cli;
use super::{open, print};
use crate::library::manifest::Distribution;
use crate::library::{Image, Library, Usage, VersionId, Way};

/// One line of `image list`.
#[derive(Debug, Serialize)]
struct Row {
    version: VersionId,
    current: bool,
    /// What is said of its image.
    way: Option<Way>,
    sealed: jiff::Timestamp,
    size: u64,
    #[serde(flatten)]
    usage: Usage,
    kernel: String,
    distribution: Option<String>,
    /// The same, as short as a table needs it.
    #[serde(skip)]
    system: String,
    parent: Option<VersionId>,
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let library = open(cli)?;
    let mut rows = Vec::new();
    for image in library.images()? {
        for id in image.ids() {
            rows.push(row(&library, &image, &id)?);
        }
    }
    if cli.json {
        return print::json(&rows);
    }
    let headings = [
        "VERSION", "CURRENT", "SEALED", "SIZE", "ON DISK", "OWN", "KERNEL", "SYSTEM", "FROM",
    ];
    let mut table = print::Table::new(&headings);
    for row in rows {
        table.row([
            row.version.to_string(),
            match row.current {
                true => "current".to_owned(),
                false => String::new(),
            },
            print::moment(row.sealed),
            print::bytes(row.size),
            print::bytes(row.usage.allocated),
            row.usage.exclusive.map(print::bytes).unwrap_or_default(),
            row.kernel,
            row.system,
            row.parent
                .map(|parent| parent.to_string())
                .unwrap_or_default(),
        ]);
    }
    table.print("no images; make one with: netroot image build deb12 --from debian:bookworm")
}

fn row(library: &Library, image: &Image, id: &VersionId) -> Result<Row> {
    let version = library.version(id)?;
    let manifest = version.manifest();
    let facts = &manifest.facts;
    Ok(Row {
        version: id.clone(),
        current: image.current == Some(id.number),
        way: image.way,
        sealed: manifest.sealed,
        size: manifest.disk.size,
        usage: library.usage(id)?,
        kernel: facts.kernel_version.clone(),
        distribution: facts.distribution.as_ref().map(ToString::to_string),
        system: facts.distribution.as_ref().map(short).unwrap_or_default(),
        parent: facts.parent.clone(),
    })
}

/// `debian 12`
fn short(found: &Distribution) -> String {
    match &found.release {
        Some(release) => format!("{} {release}", found.id),
        None => found.id.clone(),
    }
}

/// What something takes: `1.4 GiB on disk, 120 MiB of it its own`.
pub(super) fn told_usage(usage: &Usage) -> String {
    let on_disk = print::bytes(usage.allocated);
    match usage.exclusive {
        Some(own) if own == usage.allocated => format!("{on_disk} on disk, shared with nobody"),
        Some(own) => format!(
            "{on_disk} on disk: {} its own, {} shared",
            print::bytes(own),
            print::bytes(usage.allocated.saturating_sub(own))
        ),
        None => format!("{on_disk} on disk"),
    }
}
