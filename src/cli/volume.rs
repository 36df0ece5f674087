//! `netroot volume …`

use std::fs;
use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result, bail};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::command::{Cli, Consent, DryRun, OrNone, VolumeAdd, VolumeSet};
use super::reach::Reach;
use super::{ask, print, wrong_usage};
use crate::build::SizeSpec;
use crate::daemon::VolumeRow;
use crate::library::{
    Chap, Kept, NewVolume, Paths, Secrets, Volume, VolumeEdit, VolumeName, VolumePlan,
};

pub(super) fn add(cli: &Cli, args: &VolumeAdd) -> Result<()> {
    let reach = Reach::new(cli)?;
    let chap = secret(args.chap.as_deref(), args.chap_secret_file.as_deref())?;
    let mutual = secret(
        args.mutual_chap.as_deref(),
        args.mutual_chap_secret_file.as_deref(),
    )?;
    // The server was started elsewhere.
    let whole =
        |path: &PathBuf| absolute(path).with_context(|| format!("resolving {}", path.display()));
    let new = NewVolume {
        name: args.name.clone(),
        kept: match (&args.file, &args.device) {
            (Some(file), _) => Kept::File(whole(file)?),
            (_, Some(device)) => Kept::Device(whole(device)?),
            _ => Kept::Library,
        },
        // Without a server it is opened with the rights of who runs this; a server asks who that is.
        paths: Paths::Any,
        size: args.size.map(bytes).transpose()?,
        block_size: args.block_size,
        direct: args.direct,
        physical_block_size: args.physical_block_size,
        read_only: args.read_only,
        allow: args.allow.clone(),
        secrets: Secrets { chap, mutual },
        target: args.target.clone(),
        lun: args.lun,
        allow_sanitize: args.allow_sanitize,
        force: args.force,
    };
    if args.run.dry_run {
        return show_plan(cli, &reach.plan_add_volume(&new)?);
    }
    tell(cli, &reach.add_volume(&new)?, "added")
}

pub(super) fn set(cli: &Cli, args: &VolumeSet) -> Result<()> {
    let reach = Reach::new(cli)?;
    let changed = |user: &Option<String>, file: &Option<PathBuf>| match user.as_deref() {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        user => secret(user, file.as_deref()).map(Some),
    };
    let edit = VolumeEdit {
        allow: args.allow.as_deref().map(OrNone::list),
        chap: changed(&args.chap, &args.chap_secret_file)?,
        mutual: changed(&args.mutual_chap, &args.mutual_chap_secret_file)?,
        direct: args.direct,
        read_only: args.read_only,
        allow_sanitize: args.allow_sanitize,
    };
    if args.run.dry_run {
        return show_plan(cli, &reach.plan_edit_volume(&args.name, &edit)?);
    }
    tell(cli, &reach.edit_volume(&args.name, &edit)?, "set")
}

pub(super) fn resize(
    cli: &Cli,
    name: &VolumeName,
    size: Option<SizeSpec>,
    run: DryRun,
) -> Result<()> {
    let reach = Reach::new(cli)?;
    let size = size.map(bytes).transpose()?;
    if run.dry_run {
        return show_plan(cli, &reach.plan_resize_volume(name, size)?);
    }
    let row = reach.resize_volume(name, size)?;
    let now = row.size.map(print::bytes).unwrap_or_default();
    tell(cli, &row, &format!("resized to {now}"))
}

pub(super) fn snapshot(
    cli: &Cli,
    name: &VolumeName,
    copy: Option<&VolumeName>,
    run: DryRun,
) -> Result<()> {
    let reach = Reach::new(cli)?;
    if run.dry_run {
        return show_plan(cli, &reach.plan_snapshot_volume(name, copy)?);
    }
    let row = reach.snapshot_volume(name, copy)?;
    tell(cli, &row, &format!("copied from {name}, for nobody yet"))
}

pub(super) fn remove(cli: &Cli, name: &VolumeName, force: bool, consent: Consent) -> Result<()> {
    let reach = Reach::new(cli)?;
    let plan = reach.plan_remove_volume(name, force)?;
    if consent.dry_run {
        return show_plan(cli, &plan);
    }
    let loses = plan.loses.as_ref();
    let loses = loses.map_or(String::new(), |loses| format!(", which loses {loses}"));
    let steps = plan.steps.iter().map(|step| format!("\n  {step}"));
    let steps: String = steps.collect();
    ask::consent(consent, &format!("remove volume {name}{loses}{steps}"))?;
    let removed = reach.remove_volume(name, force)?;
    match cli.json {
        true => print::json(&removed),
        false => print::lines([format!("{name}: removed")]),
    }
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let rows = Reach::new(cli)?.volumes()?;
    if cli.json {
        return print::json(&rows);
    }
    let mut table = print::Table::new(&[
        "NAME", "TARGET", "LUN", "SIZE", "USED", "KEPT IN", "FOR", "SESSIONS", "STATE",
    ]);
    for row in &rows {
        table.row([
            row.volume.name.to_string(),
            row.volume.head().to_string(),
            row.volume.lun.to_string(),
            row.size.map(print::bytes).unwrap_or_default(),
            row.used.map(print::bytes).unwrap_or_default(),
            print::printable(&row.path),
            whom(&row.volume),
            row.sessions.len().to_string(),
            state(row),
        ]);
    }
    table.print("no volumes; add one with: netroot volume add NAME --size 20G --allow IQN")
}

pub(super) fn show(cli: &Cli, name: &VolumeName) -> Result<()> {
    let row = Reach::new(cli)?.volume(name)?;
    if cli.json {
        return print::json(&row);
    }
    let volume = &row.volume;
    let access = match volume.read_only {
        true => "read-only",
        false => "writable",
    };
    let cache = match volume.direct {
        true => ", past the cache",
        false => "",
    };
    let size = row.size.map_or("unknown".to_owned(), |size| {
        format!("{} ({size} bytes)", print::bytes(size))
    });
    let used = row
        .used
        .map(|used| format!(", {} of it used", print::bytes(used)));
    print::lines([
        format!("{name}  {}", row.iqn),
        format!("  state     {}", state(&row)),
        format!(
            "  LUN {:<5} {size}{}, {access}, blocks of {} bytes{cache}",
            volume.lun,
            used.unwrap_or_default(),
            volume.block_size
        ),
        format!("  kept in   {}", print::printable(&row.path)),
        format!("  for       {}", whom(volume)),
        format!("  sessions  {}", row.sessions.len()),
    ])
}

/// Prints what became of a change.
fn tell(cli: &Cli, row: &VolumeRow, done: &str) -> Result<()> {
    let name = &row.volume.name;
    if let Some(why) = &row.failed {
        print::warning(&format!("volume {name} cannot be used: {why}"));
    }
    match cli.json {
        true => print::json(row),
        false => print::lines([format!(
            "{name}: {done}, {} LUN {}",
            row.iqn, row.volume.lun
        )]),
    }
}

fn show_plan(cli: &Cli, plan: &VolumePlan) -> Result<()> {
    if cli.json {
        return print::json(plan);
    }
    let name = &plan.volume;
    let head = match plan.steps.is_empty() {
        true => format!("{name}: nothing to change"),
        false => format!("{name}: would {}", plan.would),
    };
    let loses = plan.loses.iter().map(|loses| format!("  lost: {loses}"));
    let steps = plan.steps.iter();
    let steps = steps.map(|step| format!("  {}", print::printable(step)));
    print::lines(std::iter::once(head).chain(steps).chain(loses))
}

fn whom(volume: &Volume) -> String {
    if let Some(head) = &volume.target {
        return format!("as {head}");
    }
    let mut words: Vec<String> = volume.allow.iter().map(ToString::to_string).collect();
    words.extend(
        volume
            .chap
            .iter()
            .map(|user| format!("CHAP {}", print::printable(user))),
    );
    words.extend(
        volume
            .mutual_chap
            .iter()
            .map(|user| format!("mutual {}", print::printable(user))),
    );
    match words.is_empty() {
        true => "nobody".to_owned(),
        false => words.join(" "),
    }
}

fn state(row: &VolumeRow) -> String {
    match &row.failed {
        Some(why) => format!("failed: {}", print::printable(why)),
        None => "ready".to_owned(),
    }
}

fn bytes(size: SizeSpec) -> Result<u64> {
    match size {
        SizeSpec::Bytes(bytes) => Ok(bytes),
        SizeSpec::Hundredths(_) => Err(wrong_usage(
            &["volume"],
            "give the size in bytes, such as 20G",
        )),
    }
}

/// The secret of a CHAP name, from a file or typed: never from the command line, which all users of the
/// host can read.
fn secret(user: Option<&str>, file: Option<&Path>) -> Result<Option<Chap>> {
    let Some(user) = user else {
        return Ok(None);
    };
    let text = match file {
        Some(file) => fs::read_to_string(file)
            .with_context(|| format!("reading the secret of {user} from {}", file.display()))?,
        None => typed(user)?,
    };
    Ok(Some(Chap::new(user, &text)?))
}

fn typed(user: &str) -> Result<String> {
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        bail!(
            "the secret of CHAP user {user} has to be in a file where there is no terminal to ask on"
        );
    }
    let mut terminal = stderr().lock();
    write!(terminal, "Secret of CHAP user {}: ", print::printable(user))
        .and_then(|()| terminal.flush())
        .context("asking")?;
    let seen = tcgetattr(stdin()).context("asking for a secret")?;
    let mut unseen = seen.clone();
    unseen.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(stdin(), SetArg::TCSAFLUSH, &unseen).context("hiding a secret")?;
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line);
    let shown = tcsetattr(stdin(), SetArg::TCSAFLUSH, &seen);
    // The line's end was not shown, either.
    let _ = writeln!(terminal);
    read.context("reading the secret")?;
    shown.context("showing what is typed again")?;
    Ok(line)
}
