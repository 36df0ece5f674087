//! `netroot image rollback`, `remove` and `prune`: shown first, asked about, done.

use std::num::NonZeroU32;

use anyhow::Result;

use crate::cli::command::{Cli, Consent};
use crate::cli::reach::Reach;
use crate::cli::{ask, print, wrong_usage};
use crate::library::{
    Followed, ImageName, Mode, Pruned, Pruning, Removal, Rollback, Staying, VersionId, VersionSpec,
    When,
};

/// How many clients are told by name before the others are only counted.
const CLIENTS: usize = 20;

pub(in crate::cli) fn rollback(
    cli: &Cli,
    image: &VersionSpec,
    number: Option<u32>,
    consent: Consent,
) -> Result<()> {
    let spec = match (image.number, number) {
        (Some(_), Some(_)) => {
            let what = format!("name the version once: {image}, or its number behind it");
            return Err(wrong_usage(&["image", "rollback"], &what));
        }
        (_, None) => image.clone(),
        (None, Some(number)) => format!("{image}@{number}").parse()?,
    };
    let reach = Reach::new(cli)?;
    let plan = reach.plan_rollback(&spec)?;
    if plan.is_nothing() || consent.dry_run {
        return match cli.json {
            true => print::json(&plan),
            false => print::lines(told_rollback(&plan, "would become current")),
        };
    }
    ask::consent(consent, &told_rollback(&plan, "becomes current").join("\n"))?;
    // Exactly what was shown, whatever `previous` means by then.
    let plan = reach.roll_back(&plan.to.clone().into())?;
    match cli.json {
        true => print::json(&plan),
        false => print::lines(told_rollback(&plan, "is current")),
    }
}

pub(in crate::cli) fn remove(
    cli: &Cli,
    spec: &VersionSpec,
    force: bool,
    consent: Consent,
) -> Result<()> {
    let when = if force { When::Force } else { When::Now };
    let reach = Reach::new(cli)?;
    let plan = reach.plan_image_removal(spec, when)?;
    if consent.dry_run {
        return match cli.json {
            true => print::json(&plan),
            false => print::lines(told_removal(&plan, "would remove")),
        };
    }
    let mut question = plan.consequences();
    question.push(format!(
        "Remove {} for ever{}: this cannot be undone.",
        listed(&plan.versions),
        freeing(plan.frees)
    ));
    ask::consent(consent, &question.join("\n"))?;
    let removal = reach.remove_image(spec, when, plan.versions)?;
    match cli.json {
        true => print::json(&removal),
        false => print::lines(told_removal(&removal, "removed")),
    }
}

pub(in crate::cli) fn prune(
    cli: &Cli,
    image: Option<&ImageName>,
    keep: NonZeroU32,
    consent: Consent,
) -> Result<()> {
    let reach = Reach::new(cli)?;
    let plan = reach.plan_prune(image, keep)?;
    if consent.dry_run || plan.removes.is_empty() {
        return match cli.json {
            true => print::json(&plan),
            false => print::lines(told_pruning(&plan, "would remove")),
        };
    }
    let mut question = told_pruning(&plan, "to be removed for ever:");
    question.push("This cannot be undone.".to_owned());
    ask::consent(consent, &question.join("\n"))?;
    let shown = plan.removes.iter().filter_map(|pruned| match pruned {
        Pruned::Version { version, .. } => Some(version.clone()),
        Pruned::Failed { .. } => None,
    });
    let pruning = reach.prune(image, keep, shown.collect())?;
    match cli.json {
        true => print::json(&pruning),
        false => print::lines(told_pruning(&pruning, "removed")),
    }
}

fn told_rollback(plan: &Rollback, becomes: &str) -> Vec<String> {
    if plan.is_nothing() {
        return vec![format!("{} is current already: nothing to do", plan.to)];
    }
    let from = plan.from.as_ref();
    let instead = from.map(|from| format!(" instead of {from}"));
    let mut lines = vec![format!(
        "{} {becomes}{}",
        plan.to,
        instead.unwrap_or_default()
    )];
    let clients = plan.clients.iter().take(CLIENTS);
    lines.extend(clients.map(told_client));
    let more = plan.clients.len().saturating_sub(CLIENTS);
    if more > 0 {
        lines.push(format!("  and {more} more clients (--json tells them all)"));
    }
    if plan.clients.is_empty() {
        lines.push(format!("  no client follows {}", plan.image));
    }
    lines
}

fn told_client(client: &Followed) -> String {
    let Followed { boots, mode, .. } = client;
    let what = match (client.drifts, mode) {
        (true, _) => format!("keeps its clone of {boots}, whatever is current"),
        (false, Mode::Persistent) => format!("has a clone of {boots}, or gets one"),
        (false, Mode::Ephemeral) => format!("gets a clone of {boots} at its next boot"),
        (false, Mode::Shared) => format!("gets {boots} at its next boot"),
    };
    format!("  {} ({mode}) {what}", client.client)
}

fn told_removal(removal: &Removal, done: &str) -> Vec<String> {
    let versions = listed(&removal.versions);
    let mut lines = vec![format!("{done} {versions}{}", freeing(removal.frees))];
    let consequences = removal.consequences();
    lines.extend(consequences.iter().map(|line| format!("  {line}")));
    lines
}

fn told_pruning(pruning: &Pruning, done: &str) -> Vec<String> {
    let mut lines: Vec<String> = pruning
        .removes
        .iter()
        .map(|pruned| match pruned {
            Pruned::Version { version, frees } => {
                format!("{done} {version}{}", freeing(*frees))
            }
            Pruned::Failed { image, dir, frees } => format!(
                "{done} what a build of {image} that failed left in {}{}",
                dir.display(),
                freeing(*frees)
            ),
        })
        .collect();
    for Staying { version, why } in &pruning.stays {
        let more = match why.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let first = why.first().map_or("", String::as_str);
        lines.push(format!("{version} stays: {first}{more}"));
    }
    if pruning.removes.is_empty() {
        lines.push("nothing to remove".to_owned());
    }
    lines
}

fn listed(versions: &[VersionId]) -> String {
    let names: Vec<String> = versions.iter().map(VersionId::to_string).collect();
    names.join(", ")
}

/// Others may share some of it, and give that up only when they go, too.
fn freeing(bytes: Option<u64>) -> String {
    bytes
        .map(|bytes| format!(", which frees at least {}", print::bytes(bytes)))
        .unwrap_or_default()
}
