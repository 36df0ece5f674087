//! `netroot image diff`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::build::{
    self, Aspect, Changed, Diff, Differences, Entry, Kind, PackageChange, PackageChanges, Times,
    Trust,
};
use crate::cli::command::{Cli, ImageDiff};
use crate::cli::progress::Shown;
use crate::cli::{job, open, print};
use crate::exec::Cancel;
use crate::library::manifest::Package;
use crate::library::{DiffTask, Library, Task, Version};

/// How many lines of one directory, and of one list of packages, are printed without --all.
const LINES: usize = 12;
/// How much of a path is a group: `/usr/share`.
const GROUP: usize = 2;

pub(in crate::cli) fn diff(cli: &Cli, args: &ImageDiff) -> Result<()> {
    let library = open(cli)?;
    let [from, to] = meant(&library, args)?;
    if args.queue.queue {
        if args.times || args.read_all || args.all {
            bail!("a job takes no --times, --read-all or --all");
        }
        let (a, b) = (from.id().clone(), to.id().clone());
        return job::queue(cli, &Task::Diff(DiffTask { a, b }), false);
    }
    let times = if args.times {
        Times::Told
    } else {
        Times::Ignored
    };
    let trust = if args.read_all {
        Trust::Nothing
    } else {
        Trust::Inodes
    };
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let found = build::diff(&library, [&from, &to], times, trust, &cancel, &progress)?;
    drop(progress);
    match cli.json {
        true => print::json(&found),
        false => print::lines(told(&found, args.all)),
    }
}

fn meant(library: &Library, args: &ImageDiff) -> Result<[Version; 2]> {
    match &args.to {
        Some(to) => Ok([library.resolve(&args.from)?, library.resolve(to)?]),
        None if args.from.number.is_some() => bail!(
            "compare {} with what? Name another version, such as {}@1",
            args.from,
            args.from.image
        ),
        None => {
            let previous = library.previous(&args.from.image)?;
            Ok([library.version(&previous)?, library.resolve(&args.from)?])
        }
    }
}

fn told(diff: &Diff, all: bool) -> Vec<String> {
    let mut lines = vec![format!("{} -> {}", diff.from, diff.to)];
    lines.extend(told_changes(&diff.files, diff.packages.as_ref(), all));
    lines
}

/// What differs, grouped by directory, and bounded unless `all` is to be told.
pub(in crate::cli) fn told_changes(
    files: &Differences,
    packages: Option<&PackageChanges>,
    all: bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    match packages {
        Some(packages) => lines.extend(told_packages(packages, all)),
        None => lines.push("packages: at least one of them has no list of them".to_owned()),
    }
    lines.extend(told_files(files, all));
    lines
}

fn told_files(files: &Differences, all: bool) -> Vec<String> {
    if files.is_empty() {
        return vec!["files: no differences".to_owned()];
    }
    let mut lines = vec![format!(
        "files: {} added ({}), {} removed ({}), {} changed",
        files.added.len(),
        print::bytes(total(&files.added)),
        files.removed.len(),
        print::bytes(total(&files.removed)),
        files.changed.len()
    )];
    let mut groups: BTreeMap<PathBuf, Vec<(PathBuf, String)>> = BTreeMap::new();
    let each = whole_directories('+', &files.added)
        .into_iter()
        .chain(whole_directories('-', &files.removed))
        .chain(files.changed.iter().map(told_change));
    for (path, line) in each {
        let group = path.components().take(GROUP);
        let group: PathBuf = if path.components().count() > GROUP {
            group.collect()
        } else {
            path.parent().unwrap_or(Path::new("")).to_owned()
        };
        groups.entry(group).or_default().push((path, line));
    }
    for (group, mut members) in groups {
        members.sort();
        let told = if all { members.len() } else { LINES };
        let more = members.len().saturating_sub(told);
        lines.extend(members.into_iter().take(told).map(|(_, line)| line));
        if more > 0 {
            let group = print::printable(&group.display().to_string());
            lines.push(format!(
                "    and {more} more in /{group} (--all prints them)"
            ));
        }
    }
    lines
}

fn told_packages(packages: &PackageChanges, all: bool) -> Vec<String> {
    if packages.is_empty() {
        return vec!["packages: no differences".to_owned()];
    }
    let one =
        |sign: char, package: &Package| format!("  {sign} {} {}", package.name, package.version);
    let moved = |sign: char, change: &PackageChange| {
        format!("  {sign} {} {} -> {}", change.name, change.from, change.to)
    };
    let lists = [
        packages.added.iter().map(|one_| one('+', one_)).collect(),
        packages.removed.iter().map(|one_| one('-', one_)).collect(),
        packages
            .upgraded
            .iter()
            .map(|change| moved('^', change))
            .collect(),
        packages
            .downgraded
            .iter()
            .map(|change| moved('v', change))
            .collect::<Vec<_>>(),
    ];
    let mut lines = vec![format!(
        "packages: {} added, {} removed, {} upgraded, {} downgraded",
        packages.added.len(),
        packages.removed.len(),
        packages.upgraded.len(),
        packages.downgraded.len()
    )];
    for list in lists {
        let told = if all { list.len() } else { LINES };
        let more = list.len().saturating_sub(told);
        lines.extend(
            list.into_iter()
                .take(told)
                .map(|line| print::printable(&line)),
        );
        if more > 0 {
            lines.push(format!("    and {more} more (--all prints them)"));
        }
    }
    lines
}

/// A line for each entry, and one for a directory that came or went with all that is in it.
fn whole_directories(sign: char, entries: &[Entry]) -> Vec<(PathBuf, String)> {
    let mut lines: Vec<(PathBuf, String)> = Vec::new();
    // By path, a directory stands right before what is in it.
    let mut entries = entries.iter().peekable();
    while let Some(entry) = entries.next() {
        let path = entry.path.as_path();
        let name = print::printable(&path.display().to_string());
        let (mut count, mut bytes) = (0, entry.size);
        while entry.kind == Kind::Directory
            && let Some(below) = entries.next_if(|below| below.path.as_path().starts_with(path))
        {
            count += 1;
            bytes += below.size;
        }
        let what = match entry.kind {
            Kind::Directory if count > 0 => {
                format!("/  with {count} entries, {}", print::bytes(bytes))
            }
            Kind::Directory => "/".to_owned(),
            Kind::File => format!("  {}", print::bytes(bytes)),
            kind => format!("  {kind}"),
        };
        lines.push((path.to_owned(), format!("  {sign} /{name}{what}")));
    }
    lines
}

fn told_change(changed: &Changed) -> (PathBuf, String) {
    let path = match changed.path.as_path() {
        top if top == Path::new(".") => Path::new(""),
        path => path,
    };
    let aspects: Vec<String> = changed.aspects.iter().map(told_aspect).collect();
    let line = format!("  ~ /{}  {}", path.display(), aspects.join(", "));
    (path.to_owned(), print::printable(&line))
}

fn told_aspect(aspect: &Aspect) -> String {
    match aspect {
        Aspect::Kind { from, to } => format!("{from} -> {to}"),
        Aspect::Mode { from, to } => format!("mode {from:04o} -> {to:04o}"),
        Aspect::Owner { from, to } => {
            format!("owner {}:{} -> {}:{}", from.0, from.1, to.0, to.1)
        }
        Aspect::Content { from, to } if from == to => format!("content, {}", print::bytes(*to)),
        Aspect::Content { from, to } => {
            format!("content, {} -> {}", print::bytes(*from), print::bytes(*to))
        }
        Aspect::Target { from, to } => format!("leads to {from} -> {to}"),
        Aspect::Device { from, to } => {
            format!("device {}:{} -> {}:{}", from.0, from.1, to.0, to.1)
        }
        Aspect::Attributes { names } => format!("attributes {}", names.join(" ")),
        Aspect::Modified { from, to } => format!("modified {from} -> {to}"),
    }
}

fn total(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.size).sum()
}
