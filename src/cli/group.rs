//! `netroot group …`

use anyhow::Result;

use super::command::{Cli, Consent, GroupSet, OrNone};
use super::reach::Reach;
use super::{ask, print};
use crate::library::{GroupEdit, GroupName, GroupPlan, GroupView, KernelArg};

pub(super) fn list(cli: &Cli) -> Result<()> {
    let groups = Reach::new(cli)?.groups()?;
    if cli.json {
        return print::json(&groups);
    }
    let mut table = print::Table::new(&["NAME", "CLIENTS", "SAID FOR THEM"]);
    for view in &groups {
        table.row([
            view.group.name.to_string(),
            view.members.len().to_string(),
            said(view).join(", "),
        ]);
    }
    table.print("no groups; make one with: netroot client set CLIENT --group NAME")
}

pub(super) fn show(cli: &Cli, name: &GroupName) -> Result<()> {
    let view = Reach::new(cli)?.group(name)?;
    match cli.json {
        true => print::json(&view),
        false => print::lines(description(&view)),
    }
}

pub(super) fn set(cli: &Cli, args: &GroupSet) -> Result<()> {
    let reach = Reach::new(cli)?;
    let edit = GroupEdit {
        args: args.args.as_deref().map(OrNone::list),
        image: args.image.clone().map(OrNone::value),
        mode: args.mode.clone().map(OrNone::value),
        settings: args.settings.edit(),
    };
    let plan = reach.plan_edit_group(&args.name, &edit)?;
    if args.run.dry_run {
        return show_plan(cli, &plan);
    }
    warn(&plan);
    let view = reach.edit_group(&args.name, &edit)?;
    match cli.json {
        true => print::json(&view),
        false => print::lines(description(&view)),
    }
}

pub(super) fn remove(cli: &Cli, name: &GroupName, consent: Consent) -> Result<()> {
    let reach = Reach::new(cli)?;
    let plan = reach.plan_remove_group(name)?;
    if consent.dry_run {
        return show_plan(cli, &plan);
    }
    let steps: String = plan
        .steps
        .iter()
        .map(|step| format!("\n  {step}"))
        .collect();
    ask::consent(consent, &format!("remove group {name}{steps}"))?;
    warn(&plan);
    let removed = reach.remove_group(name)?;
    match cli.json {
        true => print::json(&removed),
        false => {
            // Somebody may have joined it since it was asked about.
            let more = removed.steps.iter();
            let more = more.filter(|step| !plan.steps.contains(step));
            let more = more.map(|step| format!("  {step}, too"));
            print::lines(std::iter::once(format!("{name}: removed")).chain(more))
        }
    }
}

/// In JSON a plan has its warnings, too.
fn warn(plan: &GroupPlan) {
    for warning in &plan.warnings {
        print::warning(warning);
    }
}

fn show_plan(cli: &Cli, plan: &GroupPlan) -> Result<()> {
    warn(plan);
    if cli.json {
        return print::json(plan);
    }
    let head = match plan.steps.is_empty() {
        true => format!("{}: nothing to change", plan.group),
        false => format!("{}: would", plan.group),
    };
    let steps = plan.steps.iter().map(|step| format!("  {step}"));
    print::lines(std::iter::once(head).chain(steps))
}

/// `mode shared`, for each thing that is said.
fn said(view: &GroupView) -> Vec<String> {
    let words = view.group.words().into_iter();
    let said = words.filter(|(_, value)| !value.is_empty());
    said.map(|(what, value)| format!("{what} {value}"))
        .collect()
}

fn description(view: &GroupView) -> Vec<String> {
    let members: Vec<String> = view.members.iter().map(ToString::to_string).collect();
    let mut lines = vec![format!("@{}", view.group.name)];
    lines.extend(said(view).iter().map(|said| format!("  {said}")));
    let left_out = KernelArg::all_left_out(&view.group.args).into_iter();
    lines.extend(left_out.map(|why| format!("  not told  {why}")));
    lines.push(match members.is_empty() {
        true => "  nobody is in it yet".to_owned(),
        false => format!("  clients   {}", members.join(" ")),
    });
    lines
}
