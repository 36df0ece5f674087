//! `netroot client …`

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use super::command::{Cli, ClientAdd, ClientAssign, ClientSet, Consent, DryRun, OrNone, Running};
use super::reach::Reach;
use super::{ask, boots, import, print, rollout, wrong_usage};
use crate::library::{
    Act, AssignTo, ClientSelector, ClientView, Done, Edit, HeldTo, KeptDisk, NewRollout, NewSize,
    NewSnapshot, OwnEsp, Plan, Removing, Step, When,
};
use crate::library::{ByteSize, GroupName, KernelArg, MacAddr, SnapshotName};
use crate::web::calls::AddCall;

pub(super) fn add(cli: &Cli, args: &ClientAdd) -> Result<()> {
    let reach = Reach::new(cli)?;
    let new = AddCall {
        mac: args.mac,
        name: args.name.clone(),
        image: args.image.clone(),
        mode: args.mode,
        args: args.args.clone(),
        groups: args.groups.iter().cloned().collect(),
        settings: args.settings.settings(),
        dry_run: false,
    };
    if args.run.dry_run {
        return show_plans(cli, &[reach.plan_add(new)?]);
    }
    show_done(cli, &[reach.add(new)?])?;
    match reach {
        Reach::Alone(..) if !cli.json => print::lines(["next: netroot serve"]),
        _ => Ok(()),
    }
}

pub(super) fn set(cli: &Cli, args: &ClientSet) -> Result<()> {
    let edit = Edit {
        name: args.name.clone(),
        args: args.args.as_deref().map(OrNone::list),
        groups: args.groups.as_deref().map(OrNone::list),
        more_macs: args.macs.as_deref().map(OrNone::list),
        settings: args.settings.edit(),
        new_identity: args.new_identity,
    };
    if args.mode.is_none() && (args.running.at_next_boot || args.running.force) {
        let what = "--at-next-boot and --force are for --mode: everything else is told to the client \
                    when it boots, and can be changed while it runs";
        return Err(wrong_usage(&["client", "set"], what));
    }
    let reach = Reach::new(cli)?;
    let macs = chosen(&reach, &args.client)?;
    if macs.len() > 1 && (edit.name.is_some() || edit.more_macs.is_some()) {
        bail!(
            "setting {}: it is {} clients, and no two of them can have the same name or MAC; give \
             --name and --mac to one client at a time",
            args.client,
            macs.len()
        );
    }
    let what = |mac: &MacAddr| reach.plan_edit(mac, &edit);
    let Some(mode) = args.mode else {
        return on_each(cli, &macs, args.consent, &what, &|mac, done| {
            done.push(reach.edit(mac, &edit)?);
            Ok(())
        });
    };
    let act = Act::Assign(AssignTo {
        image: None,
        mode: Some(mode),
    });
    let when = when(args.running);
    let both = |mac: &MacAddr| Ok(both_in_one(reach.plan(mac, &act, when)?, what(mac)?));
    on_each(cli, &macs, args.consent, &both, &|mac, done| {
        // The act first: it is the one that may be refused.
        done.push(reach.perform(mac, &act, when)?);
        if edit != Edit::default() {
            let edited = reach.edit(mac, &edit)?;
            if let Some(last) = done.last_mut() {
                last.plan = both_in_one(last.plan.clone(), edited.plan);
                last.client = edited.client;
            }
        }
        Ok(())
    })
}

/// The plan of an act and of an edit beside it, called after the act where that changes something.
fn both_in_one(act: Plan, edit: Plan) -> Plan {
    let mut both = act;
    if both.steps.is_empty() {
        both.what = edit.what;
    }
    both.steps.extend(edit.steps);
    both
}

pub(super) fn assign(cli: &Cli, args: &ClientAssign) -> Result<()> {
    if let Some(canary) = args.canary {
        let new = NewRollout {
            clients: args.client.clone(),
            image: args.image.clone(),
            canary,
            within: args.within.unwrap_or_default(),
        };
        return rollout::begin(cli, &new, args.consent);
    }
    let act = Act::Assign(AssignTo {
        image: Some(args.image.clone()),
        mode: None,
    });
    perform(cli, &args.client, &act, args.running, args.consent)
}

pub(super) fn reset(
    cli: &Cli,
    client: &ClientSelector,
    running: Running,
    consent: Consent,
) -> Result<()> {
    perform(cli, client, &Act::Reset, running, consent)
}

pub(super) fn undo(
    cli: &Cli,
    client: &ClientSelector,
    running: Running,
    consent: Consent,
) -> Result<()> {
    perform(cli, client, &Act::Undo, running, consent)
}

pub(super) fn restore(
    cli: &Cli,
    client: &ClientSelector,
    disk: &str,
    running: Running,
    consent: Consent,
) -> Result<()> {
    let act = Act::Restore(KeptDisk {
        disk: disk.to_owned(),
    });
    perform(cli, client, &act, running, consent)
}

pub(super) fn snapshot(
    cli: &Cli,
    client: &ClientSelector,
    name: Option<&SnapshotName>,
    run: DryRun,
) -> Result<()> {
    let name = name.cloned();
    at_once(cli, client, &Act::Snapshot(NewSnapshot { name }), run)
}

pub(super) fn forget(
    cli: &Cli,
    client: &ClientSelector,
    disk: &str,
    consent: Consent,
) -> Result<()> {
    let disk = disk.to_owned();
    let act = Act::Forget(KeptDisk { disk });
    perform(cli, client, &act, Running::default(), consent)
}

pub(super) fn resize(
    cli: &Cli,
    client: &ClientSelector,
    size: ByteSize,
    run: DryRun,
) -> Result<()> {
    at_once(cli, client, &Act::Resize(NewSize { size }), run)
}

/// An act that loses nothing and disturbs nobody.
fn at_once(cli: &Cli, client: &ClientSelector, act: &Act, run: DryRun) -> Result<()> {
    let consent = Consent {
        yes: true,
        dry_run: run.dry_run,
    };
    perform(cli, client, act, Running::default(), consent)
}

pub(super) fn remove(
    cli: &Cli,
    client: &ClientSelector,
    force: bool,
    purge: bool,
    consent: Consent,
) -> Result<()> {
    let reach = Reach::new(cli)?;
    let when = if force { When::Force } else { When::Now };
    let how = Removing { when, purge };
    let plan = |mac: &MacAddr| reach.plan_remove(mac, how);
    let macs = chosen(&reach, client)?;
    on_each(cli, &macs, consent, &plan, &|mac, done| {
        done.push(reach.remove(mac, how)?);
        Ok(())
    })
}

pub(super) fn list(cli: &Cli, group: Option<&GroupName>, csv: bool) -> Result<()> {
    let reach = Reach::new(cli)?;
    let clients = match group {
        Some(group) => reach.select(&ClientSelector::Group(group.clone()))?,
        None => reach.clients()?,
    };
    if cli.json {
        return print::json(&clients);
    }
    if csv {
        return import::export(&clients);
    }
    let headings = [
        "NAME", "MAC", "IMAGE", "MODE", "STATE", "BOOTS", "ADDRESS", "GROUPS",
    ];
    let mut table = print::Table::new(&headings);
    for view in &clients {
        let client = &view.client;
        let groups: Vec<&str> = client.groups.iter().map(GroupName::as_str).collect();
        let address = view
            .sessions
            .first()
            .map(|session| session.peer.ip().to_string());
        table.row([
            client.name.to_string(),
            client.mac.to_string(),
            client.image.to_string(),
            client.mode.to_string(),
            view.state.to_string(),
            boots(view),
            address.unwrap_or_default(),
            groups.join(","),
        ]);
    }
    table.print("no clients; add one with: netroot client add MAC --image IMAGE")
}

pub(super) fn strangers(cli: &Cli) -> Result<()> {
    let strangers = Reach::new(cli)?.strangers()?;
    if cli.json {
        return print::json(&strangers);
    }
    let headings = [
        "MAC", "ADDRESS", "FIRMWARE", "SERIAL", "ASSET", "TIMES", "LAST",
    ];
    let mut table = print::Table::new(&headings);
    for one in &strangers {
        let hardware = &one.hardware;
        let firmware = [&hardware.platform, &hardware.arch].into_iter().flatten();
        let firmware: Vec<&str> = firmware.map(String::as_str).collect();
        let told = |what: &Option<String>| what.clone().unwrap_or_default();
        table.row([
            one.mac.to_string(),
            one.peer.to_string(),
            firmware.join(" "),
            told(&hardware.serial),
            told(&hardware.asset),
            one.times.to_string(),
            print::moment(one.last),
        ]);
    }
    table.print("no unknown machine has asked what to boot")
}

pub(super) fn show(cli: &Cli, client: &ClientSelector) -> Result<()> {
    let reach = Reach::new(cli)?;
    let views = reach.select(client)?;
    match (cli.json, views.as_slice()) {
        // One client is asked for by its name or address, and then it is one that is printed.
        (true, [view]) if !matches!(client, ClientSelector::Group(_)) => print::json(view),
        (true, views) => print::json(&views),
        (false, views) => {
            let mut lines = Vec::new();
            for view in views {
                lines.extend(description(view));
                lines.extend(boots::last(&reach, &view.client.mac)?);
            }
            print::lines(lines)
        }
    }
}

fn perform(
    cli: &Cli,
    client: &ClientSelector,
    act: &Act,
    running: Running,
    consent: Consent,
) -> Result<()> {
    let reach = Reach::new(cli)?;
    let when = when(running);
    let plan = |mac: &MacAddr| reach.plan(mac, act, when);
    let macs = chosen(&reach, client)?;
    on_each(cli, &macs, consent, &plan, &|mac, done| {
        done.push(reach.perform(mac, act, when)?);
        Ok(())
    })
}

/// The clients that are meant.
fn chosen(reach: &Reach, selector: &ClientSelector) -> Result<Vec<MacAddr>> {
    Ok(match selector {
        ClientSelector::Mac(mac) => vec![*mac],
        selector => reach
            .select(selector)?
            .iter()
            .map(|view| view.client.mac)
            .collect(),
    })
}

/// Plans for every client, asks once about what they lose, then does them all. Nothing is done where
/// one of the plans is refused; where an act fails nevertheless, what was done before it is told.
fn on_each(
    cli: &Cli,
    macs: &[MacAddr],
    consent: Consent,
    plan: &dyn Fn(&MacAddr) -> Result<Plan>,
    act: &dyn Fn(&MacAddr, &mut Vec<Done>) -> Result<()>,
) -> Result<()> {
    let plans: Vec<Plan> = macs.iter().map(plan).collect::<Result<_>>()?;
    // Of several clients some may have nothing to do; of one it is not what was asked for.
    if let [plan] = plans.as_slice()
        && let Some(why) = &plan.nothing
    {
        bail!("{}: there is nothing to do: {why}", plan.title());
    }
    if consent.dry_run {
        return show_plans(cli, &plans);
    }
    let question = |plan: &Plan| {
        let loses = plan.loses.as_ref()?;
        Some(format!("{}: {loses}", plan.title()))
    };
    let losses: Vec<String> = plans.iter().filter_map(question).collect();
    if !losses.is_empty() {
        ask::consent(consent, &losses.join("\n"))?;
    }
    let mut done = Vec::new();
    for plan in &plans {
        if plan.nothing.is_some() {
            done.push(Done {
                plan: plan.clone(),
                client: None,
            });
        } else if let Err(error) = act(&plan.mac, &mut done) {
            if !done.is_empty() {
                show_done(cli, &done)?;
            }
            return match plans.len() {
                1 => Err(error),
                _ => Err(error).with_context(|| {
                    format!(
                        "stopped at {}; those after it are as they were",
                        plan.client
                    )
                }),
            };
        }
    }
    show_done(cli, &done)
}

fn when(running: Running) -> When {
    match running {
        Running {
            at_next_boot: true, ..
        } => When::AtNextBoot,
        Running { force: true, .. } => When::Force,
        _ => When::Now,
    }
}

pub(super) fn show_plans(cli: &Cli, plans: &[Plan]) -> Result<()> {
    warn(plans);
    match cli.json {
        true => print::json(&plans),
        false => print::lines(plans.iter().flat_map(|plan| told(plan, would))),
    }
}

/// Says each warning once, however many clients it is about. In JSON it stands in the plan, too.
fn warn<'a>(plans: impl IntoIterator<Item = &'a Plan>) {
    let warnings = plans.into_iter().flat_map(|plan| &plan.warnings);
    for warning in warnings.collect::<BTreeSet<_>>() {
        print::warning(warning);
    }
}

pub(super) fn show_done(cli: &Cli, done: &[Done]) -> Result<()> {
    warn(done.iter().map(|done| &done.plan));
    match cli.json {
        true => print::json(&done),
        false => print::lines(done.iter().flat_map(|done| told(&done.plan, was))),
    }
}

/// `lab-07: reset`, then a line for each step.
fn told(plan: &Plan, headline: fn(&Plan) -> String) -> Vec<String> {
    match &plan.nothing {
        Some(why) => return vec![format!("{}: nothing to do: {why}", plan.client)],
        None if plan.steps.is_empty() => {
            return vec![format!("{}: nothing to change", plan.client)];
        }
        None => {}
    }
    let head = format!("{}: {}", plan.client, headline(plan));
    std::iter::once(head)
        .chain(plan.steps.iter().map(|step| format!("  {step}")))
        .collect()
}

fn would(plan: &Plan) -> String {
    match plan.calls_off() {
        Some(act) => format!("would call off: {act} at its next boot"),
        None if waits(plan) => format!("would arm: {} at its next boot", plan.what),
        None => format!("would {}", plan.what),
    }
}

fn was(plan: &Plan) -> String {
    match plan.calls_off() {
        Some(act) => return format!("called off: {act} at its next boot"),
        None if waits(plan) => return format!("armed: {} at its next boot", plan.what),
        None => {}
    }
    let (verb, rest) = plan
        .what
        .split_at(plan.what.find(' ').unwrap_or(plan.what.len()));
    let verb = match verb {
        "add" => "added",
        "assign" => "assigned",
        "remove" => "removed",
        "restore" => "restored",
        "forget" => "forgot",
        "resize" => "resized",
        "snapshot" => "made snapshot",
        "undo" => "undone",
        // "reset" and "set" are their own past.
        verb => verb,
    };
    format!("{verb}{rest}")
}

fn waits(plan: &Plan) -> bool {
    plan.steps.contains(&Step::Arm)
}

fn boots(view: &ClientView) -> String {
    match (&view.boots, &view.drift) {
        (Some(boots), Some(current)) => format!("{boots} (current is @{})", current.number),
        (Some(boots), None) => boots.to_string(),
        (None, _) => "nothing: its image has no such version".to_owned(),
    }
}

fn description(view: &ClientView) -> Vec<String> {
    let client = &view.client;
    let joined = |words: Vec<String>| words.join(" ");
    let mut lines = vec![
        format!("{}  {}", client.name, client.mac),
        match &view.why {
            Some(why) => format!("  state     {}: {why}", view.state),
            None => format!("  state     {}", view.state),
        },
        format!("  image     {} in mode {}", client.image, client.mode),
        format!("  boots     {}", boots(view)),
    ];
    let mut more = |name: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("  {name:<9} {text}"));
        }
    };
    more(
        "macs",
        joined(client.more_macs.iter().map(|mac| mac.to_string()).collect()),
    );
    more(
        "groups",
        joined(
            client
                .groups
                .iter()
                .map(|group| group.to_string())
                .collect(),
        ),
    );
    more(
        "args",
        joined(client.args.iter().map(|arg| arg.to_string()).collect()),
    );
    for why in KernelArg::all_left_out(&client.args) {
        more("not told", why);
    }
    if let Some(person) = &client.person {
        more(
            "person",
            format!("{}'s own disk, at any machine", person.user),
        );
    }
    for (what, value) in client.settings.words() {
        more(what, value);
    }
    for key in view.identity.iter().flat_map(|known| &known.fingerprints) {
        more("host key", key.clone());
    }
    if view.esp == Some(OwnEsp::Stale) {
        let told = format!(
            "stale: it has not the kernel of the version that it boots next (netroot esp export DIR \
             --client {})",
            client.name
        );
        more("its own ESP", told);
    }
    if let Some(clone) = &client.clone {
        more(
            "disk",
            match view.clone_own {
                Some(own) => format!(
                    "{} of {}, {} on disk, {} of it its own",
                    clone.kind,
                    clone.from,
                    print::bytes(view.clone_bytes),
                    print::bytes(own)
                ),
                None => format!(
                    "{} of {}, {} on disk",
                    clone.kind,
                    clone.from,
                    print::bytes(view.clone_bytes)
                ),
            },
        );
    }
    let comes_back = client
        .before
        .as_ref()
        .and_then(|before| before.disk.as_ref());
    for old in &client.discarded {
        let (from, at) = (&old.clone.from, print::moment(old.at));
        let undo = match Some(&old.clone.id) == comes_back && client.armed.is_none() {
            true => ": undo brings it back",
            false => "",
        };
        let id = &old.clone.id;
        more("kept", format!("disk {id} of {from}, set aside {at}{undo}"));
    }
    for one in &client.snapshots {
        let (from, at) = (&one.clone.from, print::moment(one.at));
        let state = match one.running {
            true => ", while it ran",
            false => "",
        };
        more(
            "snapshot",
            format!("{} of {from}, made {at}{state}", one.name),
        );
    }
    if let Some(HeldTo { quota, held }) = &view.held_to {
        let held = held.map_or("how much is taken is not known".to_owned(), |held| {
            let taken = u128::from(held) * 100 / u128::from(quota.bytes().max(1));
            format!("{} of it taken, {taken} %", print::bytes(held))
        });
        more("limit", format!("{quota}, {held}"));
    }
    if let Some(data) = &view.data {
        let published = match data.published {
            true => format!("LUN {} of {}", data.lun, data.target),
            false => "not published: its settings ask for none any more".to_owned(),
        };
        let (size, used) = (print::bytes(data.size), print::bytes(data.used));
        more("data", format!("{size}, {used} on disk, {published}"));
        if let Some(why) = &data.trouble {
            more("", format!("could not be given at its last login: {why}"));
        }
    }
    if let Some(armed) = &client.armed {
        more(
            "armed",
            format!(
                "{} at its next boot, since {}: undo calls it off",
                armed.act,
                print::moment(armed.since)
            ),
        );
    }
    if let Some(boot) = &client.boot {
        let since = print::moment(boot.since);
        more(
            "boot",
            format!(
                "{} of {} from {}, since {since}",
                boot.id, boot.version, boot.peer
            ),
        );
    }
    for session in &view.sessions {
        more(
            "session",
            format!(
                "from {} since {}",
                session.peer,
                print::moment(session.since)
            ),
        );
    }
    lines
}
