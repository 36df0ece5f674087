//! `netroot rollout …`, and `netroot client assign --canary`

use anyhow::Result;

use super::command::{Cli, Consent};
use super::reach::Reach;
use super::{ask, print};
use crate::library::{ClientName, Keep, NewRollout, RolloutPlan, RolloutView};

pub(super) fn begin(cli: &Cli, new: &NewRollout, consent: Consent) -> Result<()> {
    let reach = Reach::new(cli)?;
    let plan = reach.plan_rollout(new)?;
    for warning in &plan.warnings {
        print::warning(warning);
    }
    if consent.dry_run {
        return match cli.json {
            true => print::json(&plan),
            false => print::lines(planned(&plan)),
        };
    }
    if !plan.loses.is_empty() {
        ask::consent(consent, &plan.loses.join("\n"))?;
    }
    let begun = reach.begin_rollout(new)?;
    if cli.json {
        return print::json(&begun);
    }
    let next = match reach {
        Reach::Alone(..) => "next: netroot serve".to_owned(),
        Reach::Server(_) => format!("next: netroot rollout show {}", begun.rollout.id),
    };
    print::lines(description(&begun).into_iter().chain([next]))
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let rollouts = Reach::new(cli)?.rollouts()?;
    if cli.json {
        return print::json(&rollouts);
    }
    let mut table = print::Table::new(&["ID", "IMAGE", "CLIENTS", "STAGE", "RUN IT", "BEGUN"]);
    for view in &rollouts {
        let rollout = &view.rollout;
        table.row([
            rollout.id.to_string(),
            rollout.version.to_string(),
            rollout.clients.to_string(),
            rollout.stage.word().to_owned(),
            format!("{} of {}", view.running(), rollout.members.len()),
            print::moment(rollout.began),
        ]);
    }
    table.print(
        "no rollouts; `netroot client assign @group IMAGE --canary 2 --within 10m` begins one",
    )
}

pub(super) fn show(cli: &Cli, id: u64) -> Result<()> {
    let view = Reach::new(cli)?.rollout(id)?;
    match cli.json {
        true => print::json(&view),
        false => print::lines(description(&view)),
    }
}

pub(super) fn stop(cli: &Cli, id: u64, keep: bool, consent: Consent) -> Result<()> {
    let reach = Reach::new(cli)?;
    let view = reach.rollout(id)?;
    view.rollout.ensure_open()?;
    let given = view.rollout.members.iter().filter(|member| member.given);
    let names: Vec<&ClientName> = given.map(|member| &member.name).collect();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let (keep, becomes) = match keep {
        true => (Keep::Image, "keep what they were given"),
        false => (
            Keep::Nothing,
            "are set back, at their next boot where they run",
        ),
    };
    let what = format!(
        "stop rollout {id} of {}: {} {becomes}",
        view.rollout.image,
        names.join(", ")
    );
    if consent.dry_run {
        return match cli.json {
            true => print::json(&view),
            false => print::lines([format!("would {what}")]),
        };
    }
    ask::consent(consent, &what)?;
    let stopped = reach.stop_rollout(id, keep)?;
    match cli.json {
        true => print::json(&stopped),
        false => print::lines(description(&stopped)),
    }
}

fn planned(plan: &RolloutPlan) -> Vec<String> {
    let names = |list: &[ClientName]| {
        let names: Vec<String> = list.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let mut lines = vec![
        format!("{}: would roll out {}", plan.clients, plan.version),
        format!(
            "  first     {}: at their next boot; within {} they have to log in and stay for 2 minutes",
            names(&plan.canaries),
            plan.within
        ),
        format!("  then      {}", names(&plan.rest)),
    ];
    if !plan.already.is_empty() {
        lines.push(format!("  already   {}", names(&plan.already)));
    }
    lines.extend(plan.loses.iter().map(|loses| format!("  lost: {loses}")));
    lines
}

fn description(view: &RolloutView) -> Vec<String> {
    let rollout = &view.rollout;
    let mut lines = vec![
        format!(
            "rollout {} of {} to {}",
            rollout.id, rollout.version, rollout.clients
        ),
        format!("  stage     {}: {}", rollout.stage.word(), view.says()),
        format!(
            "  begun     {} by {}, canaries have {}",
            print::moment(rollout.began),
            rollout.by,
            rollout.within
        ),
    ];
    for (member, progress) in rollout.members.iter().zip(&view.progress) {
        let role = if member.canary { "canary" } else { "client" };
        lines.push(format!("  {role:<9} {}: {}", member.name, progress.says));
    }
    lines.iter().map(|line| print::printable(line)).collect()
}
