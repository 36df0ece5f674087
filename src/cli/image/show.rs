//! `netroot image show`

use std::collections::BTreeSet;
use std::io::{IsTerminal, stdout};

use anyhow::Result;
use serde::Serialize;

use super::draw::{Node, drawn};
use super::set::told_way;
use super::told_usage;
use crate::cli::command::Cli;
use crate::cli::reach::Reach;
use crate::cli::{open, print};
use crate::library::manifest::BootFrom;
use crate::library::{ImageView, Manifest, Use, Version, VersionId, VersionSpec, VersionView};

/// How many names are told before the others are only counted.
const NAMES: usize = 6;

/// `image show NAME@V --json`: the manifest, and what is known beside it.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    now: &'a VersionView,
}

pub(in crate::cli) fn show(cli: &Cli, spec: &VersionSpec) -> Result<()> {
    if spec.number.is_some() {
        return show_version(cli, spec);
    }
    let view = Reach::image_view(cli, &spec.image)?;
    if cli.json {
        return print::json(&view);
    }
    // Piped into a program, a row a version is what can be worked with.
    if !stdout().is_terminal() {
        return table(&view);
    }
    let mut lines = vec![heading(&view), String::new()];
    lines.extend(drawn(&nodes(&view)));
    print::lines(lines)
}

/// What a person is told of a version that was just made, or asked about.
pub(in crate::cli) fn description(version: &Version) -> Vec<String> {
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
    let mut more = |name: &str, text: Option<String>| {
        lines.extend(text.map(|text| format!("  {name:<11} {}", print::printable(&text))));
    };
    more("parent", facts.parent.as_ref().map(VersionId::to_string));
    more(
        "system",
        facts.distribution.as_ref().map(ToString::to_string),
    );
    more(
        "recipe",
        facts.recipe.as_ref().map(|recipe| recipe.name.clone()),
    );
    more(
        "packages",
        facts.packages.as_ref().map(|all| all.len().to_string()),
    );
    let promoted = facts.promoted.as_ref();
    more(
        "promoted",
        promoted.map(|client| format!("from client {client}")),
    );
    let scrubbed = (!facts.scrubbed.is_empty()).then(|| facts.scrubbed.join(", "));
    more("scrubbed", scrubbed);
    lines
}

fn show_version(cli: &Cli, spec: &VersionSpec) -> Result<()> {
    let version = open(cli)?.resolve(spec)?;
    let image = Reach::image_view(cli, &spec.image)?;
    let mut views = image.versions.iter();
    let Some(now) = views.find(|view| view.version == *version.id()) else {
        anyhow::bail!("{spec} was removed in this moment");
    };
    if cli.json {
        let manifest = version.manifest();
        return print::json(&Whole { manifest, now });
    }
    let mut lines = description(&version);
    let mut more = |name: &str, text: String| lines.push(format!("  {name:<11} {text}"));
    more("now", told_usage(&now.usage));
    if now.current {
        more(
            "current",
            "shared and ephemeral clients boot it, persistent ones after a reset".into(),
        );
    }
    if let Some(way) = image.way {
        more("way", format!("{way}, as is said of {}", image.name));
    }
    more("tested", tested(now));
    if !now.children.is_empty() {
        more("made of it", names(now.children.iter()));
    }
    for (at, one) in now.uses.iter().flatten().enumerate() {
        more(if at == 0 { "used" } else { "" }, one.to_string());
    }
    print::lines(lines)
}

/// Whether a version boots, as far as somebody tried.
fn tested(one: &VersionView) -> String {
    let waits = match one.waits {
        true => format!(
            "; it becomes current by: netroot image test {}",
            one.version
        ),
        false => String::new(),
    };
    match &one.trial {
        None => format!("not yet{waits}"),
        Some(trial) => match &trial.failed {
            None => format!("it boots, {}", print::moment(trial.at)),
            Some(why) => {
                let why = print::printable(why);
                format!("failed {}: {why}{waits}", print::moment(trial.at))
            }
        },
    }
}

fn heading(view: &ImageView) -> String {
    let usage: crate::library::Usage = view.versions.iter().map(|one| one.usage).sum();
    let count = view.versions.len();
    let versions = if count == 1 { "version" } else { "versions" };
    // What versions share is counted with each, so only what they have alone can be added up.
    let own = usage
        .exclusive
        .map(|own| format!(", {} shared with nobody", print::bytes(own)));
    let way = view.way.map(|way| format!(", {}", told_way(Some(way))));
    format!(
        "{}: {count} {versions}{}{}",
        view.name,
        own.unwrap_or_default(),
        way.unwrap_or_default()
    )
}

fn nodes(view: &ImageView) -> Vec<Node> {
    let there: BTreeSet<&VersionId> = view.versions.iter().map(|one| &one.version).collect();
    let newest_first = view.versions.iter().rev();
    newest_first
        .map(|one| Node {
            number: one.version.number,
            parent: one
                .parent
                .as_ref()
                .filter(|parent| there.contains(parent))
                .map(|parent| parent.number),
            current: one.current,
            lines: lines(one, &there),
        })
        .collect()
}

fn lines(one: &VersionView, there: &BTreeSet<&VersionId>) -> Vec<String> {
    let mut first = one.version.to_string();
    if one.current {
        first.push_str("  current");
    }
    first.push_str(&format!("  sealed {}", print::moment(one.sealed)));
    if let Some(parent) = &one.parent {
        first.push_str(&format!(", made of {parent}"));
        if parent.image == one.version.image && !there.contains(parent) {
            first.push_str(" (removed)");
        }
    }
    if let Some(recipe) = &one.recipe {
        first.push_str(&format!(", by recipe {recipe}"));
    }
    let mut lines = vec![print::printable(&first)];
    let mut more = |text: String| lines.push(format!("  {}", print::printable(&text)));
    if one.kernel.is_empty() {
        more(String::from("boots from its own disk"));
    } else if let Some(system) = &one.distribution {
        more(format!("{system}, kernel {}", one.kernel));
    } else {
        more(format!("kernel {}", one.kernel));
    }
    more(format!(
        "{} {}, {}",
        print::bytes(one.size),
        one.filesystem,
        told_usage(&one.usage)
    ));
    if one.trial.is_some() || one.waits {
        more(format!("tested: {}", tested(one)));
    }
    let elsewhere = |child: &&VersionId| child.image != one.version.image;
    let elsewhere: Vec<&VersionId> = one.children.iter().filter(elsewhere).collect();
    if !elsewhere.is_empty() {
        more(format!("became {}", names(elsewhere.into_iter())));
    }
    if let Some(uses) = used(one) {
        more(uses);
    }
    lines
}

/// Who uses a version, in a line: `assigned: lab-07, lab-08; runs: lab-07`.
fn used(one: &VersionView) -> Option<String> {
    let uses = one.uses.as_ref()?;
    let mut parts: Vec<(&str, Vec<String>)> = Vec::new();
    for one in uses {
        let (how, who) = match one {
            Use::Assigned { client } => ("assigned", client.to_string()),
            Use::Armed { client } => ("assigned at its next boot", client.to_string()),
            Use::Runs { client } => ("running", client.to_string()),
            Use::Clone { client } => ("with a clone", client.to_string()),
            Use::Kept { client } => ("with a clone kept for undo", client.to_string()),
            Use::Snapshot { client, name } => ("with a snapshot", format!("{client} ({name})")),
            // Told as a client that runs it.
            Use::Open {
                client: Some(_), ..
            } => continue,
            Use::Open {
                initiator, peer, ..
            } => ("open", format!("{initiator} at {}", peer.ip())),
            Use::Bound {
                initiator, peer, ..
            } => ("not seen to leave", format!("{initiator} at {peer}")),
            Use::Tested => ("being tested", "in a machine of its own".to_owned()),
        };
        match parts.iter_mut().find(|(known, _)| *known == how) {
            Some((_, all)) => all.push(who),
            None => parts.push((how, vec![who])),
        }
    }
    let parts: Vec<String> = parts
        .iter()
        .map(|(how, who)| format!("{how}: {}", names(who.iter())))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Some names, and how many there are beside them.
pub(in crate::cli) fn names<T: ToString>(all: impl ExactSizeIterator<Item = T>) -> String {
    let more = all.len().saturating_sub(NAMES);
    let told: Vec<String> = all.take(NAMES).map(|name| name.to_string()).collect();
    match more {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

fn table(view: &ImageView) -> Result<()> {
    let headings = [
        "VERSION", "CURRENT", "SEALED", "FROM", "SIZE", "ON DISK", "OWN", "KERNEL", "SYSTEM",
        "RECIPE", "USED",
    ];
    let mut table = print::Table::new(&headings);
    for one in &view.versions {
        table.row([
            one.version.to_string(),
            if one.current {
                "current".to_owned()
            } else {
                String::new()
            },
            print::moment(one.sealed),
            one.parent
                .as_ref()
                .map(VersionId::to_string)
                .unwrap_or_default(),
            print::bytes(one.size),
            print::bytes(one.usage.allocated),
            one.usage.exclusive.map(print::bytes).unwrap_or_default(),
            one.kernel.clone(),
            one.distribution.clone().unwrap_or_default(),
            one.recipe.clone().unwrap_or_default(),
            used(one).unwrap_or_default(),
        ]);
    }
    table.print("no versions")
}
