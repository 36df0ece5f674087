//! `netroot image …`

use anyhow::Result;
use serde::Serialize;

use super::command::{Cli, Consent};
use super::progress::Shown;
use super::reach::Reach;
use super::{ask, open, print};
use crate::exec::Cancel;
use crate::library::manifest::BootFrom;
use crate::library::{ImageName, Library, Version, VersionId, VersionSpec};

/// One line of `image list`.
#[derive(Debug, Serialize)]
struct Row {
    version: VersionId,
    current: bool,
    sealed: jiff::Timestamp,
    size: u64,
    allocated: u64,
    kernel: String,
    distribution: Option<String>,
    parent: Option<VersionId>,
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let library = open(cli)?;
    let mut rows = Vec::new();
    for image in library.images()? {
        rows.extend(rows_of(&library, &image.name)?);
    }
    show_rows(cli, &rows)
}

pub(super) fn show(cli: &Cli, spec: &VersionSpec) -> Result<()> {
    let library = open(cli)?;
    if spec.number.is_none() {
        return show_rows(cli, &rows_of(&library, &spec.image)?);
    }
    let version = library.resolve(spec)?;
    match cli.json {
        true => print::json(version.manifest()),
        false => print::lines(description(&version)),
    }
}

pub(super) fn verify(cli: &Cli, spec: &VersionSpec) -> Result<()> {
    let library = open(cli)?;
    let version = library.resolve(spec)?;
    let progress = Shown::new(&Cancel::on_signals()?);
    library.verify(version.id(), &progress)?;
    drop(progress);
    let root = version.manifest().disk.root;
    match cli.json {
        true => print::json(
            &serde_json::json!({ "version": version.id(), "root": root, "whole": true }),
        ),
        false => print::lines([format!("{} is whole: {root}", version.id())]),
    }
}

pub(super) fn remove(cli: &Cli, spec: &VersionSpec, consent: Consent) -> Result<()> {
    let reach = Reach::new(cli)?;
    let removed = reach.plan_image_removal(spec)?;
    let names: Vec<String> = removed.iter().map(VersionId::to_string).collect();
    let names = names.join(", ");
    if consent.dry_run {
        return match cli.json {
            true => print::json(&removed),
            false => print::lines([format!("would remove {names}")]),
        };
    }
    ask::consent(
        consent,
        &format!("Remove {names} for ever: this cannot be undone."),
    )?;
    let removed = reach.remove_image(spec)?;
    match cli.json {
        true => print::json(&removed),
        false => print::lines([format!("removed {names}")]),
    }
}

fn rows_of(library: &Library, name: &ImageName) -> Result<Vec<Row>> {
    let image = library.image(name)?;
    let mut rows = Vec::new();
    for &number in &image.versions {
        let version = library.version(&VersionId {
            image: name.clone(),
            number,
        })?;
        let manifest = version.manifest();
        rows.push(Row {
            version: version.id().clone(),
            current: image.current == Some(number),
            sealed: manifest.sealed,
            size: manifest.disk.size,
            allocated: manifest.disk.allocated,
            kernel: manifest.facts.kernel_version.clone(),
            distribution: distribution(&version),
            parent: manifest.facts.parent.clone(),
        });
    }
    Ok(rows)
}

fn show_rows(cli: &Cli, rows: &[Row]) -> Result<()> {
    if cli.json {
        return print::json(&rows);
    }
    let headings = [
        "VERSION", "CURRENT", "SEALED", "SIZE", "ON DISK", "KERNEL", "SYSTEM", "FROM",
    ];
    let mut table = print::Table::new(&headings);
    for row in rows {
        table.row([
            row.version.to_string(),
            if row.current {
                "current".to_owned()
            } else {
                String::new()
            },
            print::moment(row.sealed),
            print::bytes(row.size),
            print::bytes(row.allocated),
            row.kernel.clone(),
            row.distribution.clone().unwrap_or_default(),
            row.parent
                .as_ref()
                .map(VersionId::to_string)
                .unwrap_or_default(),
        ]);
    }
    table.print("no images; make one with: netroot image build NAME --from CHROOT")
}

fn distribution(version: &Version) -> Option<String> {
    let distribution = version.manifest().facts.distribution.as_ref()?;
    let release = distribution.release.as_deref().unwrap_or_default();
    Some(
        distribution
            .name
            .clone()
            .unwrap_or_else(|| format!("{} {release}", distribution.id)),
    )
}

pub(super) fn description(version: &Version) -> Vec<String> {
    let manifest = version.manifest();
    let facts = &manifest.facts;
    let mut lines = vec![
        version.id().to_string(),
        format!(
            "  sealed      {} by netroot {}",
            print::moment(manifest.sealed),
            manifest.netroot
        ),
        format!(
            "  disk        {}, {} on disk, {}",
            print::bytes(manifest.disk.size),
            print::bytes(manifest.disk.allocated),
            match &manifest.boot {
                BootFrom::Kernel { .. } => facts.filesystem.kind.clone(),
                BootFrom::Disk(table) => table.to_string(),
            }
        ),
        format!("  hash        {}", manifest.disk.root),
        match &manifest.boot {
            BootFrom::Kernel { .. } => format!("  kernel      {}", facts.kernel_version),
            BootFrom::Disk(_) => String::from("  boots       from its own disk"),
        },
        format!("  source      {}", print::printable(&facts.source)),
    ];
    lines.extend(
        facts
            .parent
            .iter()
            .map(|parent| format!("  parent      {parent}")),
    );
    lines.extend(
        distribution(version).map(|name| format!("  system      {}", print::printable(&name))),
    );
    let packages = facts.packages.as_ref().map(Vec::len);
    lines.extend(packages.map(|count| format!("  packages    {count}")));
    lines
}
