//! `netroot image verify`

use anyhow::{Result, bail};

use crate::build::{self, Verdict};
use crate::cli::command::{Cli, Queue};
use crate::cli::progress::Shown;
use crate::cli::{job, open, print, wrong_usage};
use crate::exec::Cancel;
use crate::library::{Library, Task, VerifyTask, Version, VersionSpec};

pub(in crate::cli) fn verify(
    cli: &Cli,
    specs: &[VersionSpec],
    all: bool,
    queue: Queue,
) -> Result<()> {
    let library = open(cli)?;
    let versions = meant(&library, specs, all)?;
    if queue.queue {
        let [version] = versions.as_slice() else {
            bail!("a job verifies one version: name one");
        };
        let version = version.id().clone();
        return job::queue(cli, &Task::Verify(VerifyTask { version }), false);
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let mut verdicts = Vec::new();
    for version in &versions {
        verdicts.push(build::verify(&library, version, &cancel, &progress)?);
    }
    drop(progress);
    match (cli.json, verdicts.as_slice()) {
        // One version is asked for by its name, and then it is one that is printed.
        (true, [verdict]) if !all && specs.len() == 1 => print::json(verdict)?,
        (true, verdicts) => print::json(&verdicts)?,
        (false, verdicts) => print::lines(verdicts.iter().map(told))?,
    }
    let damaged = verdicts.iter().filter(|verdict| !verdict.whole);
    let damaged: Vec<String> = damaged.map(|verdict| verdict.version.to_string()).collect();
    if damaged.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} versions are damaged: {}; do not boot from them: roll back, build them again, or \
         restore them from a backup",
        damaged.len(),
        verdicts.len(),
        damaged.join(", ")
    )
}

fn meant(library: &Library, specs: &[VersionSpec], all: bool) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    if !all {
        for spec in specs {
            versions.push(library.resolve(spec)?);
        }
        return Ok(versions);
    }
    let mut images = Vec::new();
    for spec in specs {
        if spec.number.is_some() {
            let what = format!("--all means all versions: name an image, not {spec}");
            return Err(wrong_usage(&["image", "verify"], &what));
        }
        images.push(library.image(&spec.image)?);
    }
    if specs.is_empty() {
        images = library.images()?;
    }
    for id in images.iter().flat_map(crate::library::Image::ids) {
        versions.push(library.version(&id)?);
    }
    Ok(versions)
}

fn told(verdict: &Verdict) -> String {
    let Verdict { version, root, .. } = verdict;
    match (&verdict.damage, verdict.filesystem) {
        (Some(damage), _) => print_lines(damage),
        (None, Some(kind)) => format!("{version} is whole: {root}, and so is its {kind}"),
        (None, None) => format!("{version} is whole: {root}; its disk has no file system to check"),
    }
}

/// What a checker said is as printable as what it read.
fn print_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(print::printable).collect();
    lines.join("\n")
}
