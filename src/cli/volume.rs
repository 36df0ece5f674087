//! `netroot volume …`
//!
//! These write the library's documents themselves, since whoever names a file of this host has to be
//! able to read it; a running server is told to look at them, and acts at once.

use std::fs;
use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::command::{Cli, Consent, DryRun, OrNone, VolumeAdd, VolumeSet};
use super::control::Control;
use super::{ask, open, print, wrong_usage};
use crate::build::SizeSpec;
use crate::daemon::VolumeRow;
use crate::library::{
    Actor, Chap, Kept, Library, LiveLock, NewVolume, Secrets, Volume, VolumeEdit, VolumeName,
};

/// The library, and who has to be told of changes.
struct Site {
    library: Library,
    server: Option<Control>,
    /// While it is held no server starts with what is half-changed.
    _alone: Option<LiveLock>,
}

impl Site {
    fn open(cli: &Cli) -> Result<Self> {
        let server = Control::running(&cli.library)?;
        let library = open(cli)?;
        let alone = match server {
            Some(_) => None,
            None => Some(library.live_lock()?),
        };
        Ok(Site {
            library,
            server,
            _alone: alone,
        })
    }

    /// Has the server do what the documents say, and tells how the volumes are.
    fn refreshed(&self) -> Result<Vec<VolumeRow>> {
        match &self.server {
            Some(server) => server
                .post("/api/v1/volumes/refresh", &serde_json::json!({}))
                .context("the change is written down, but the running server could not be told"),
            None => self.rows(),
        }
    }

    fn rows(&self) -> Result<Vec<VolumeRow>> {
        let Some(server) = &self.server else {
            let volumes = self.library.volumes()?.into_iter();
            return Ok(volumes
                .map(|one| VolumeRow::resting(&self.library, one))
                .collect());
        };
        server.get("/api/v1/volumes")
    }

    fn row(&self, rows: Vec<VolumeRow>, name: &VolumeName) -> Result<VolumeRow> {
        let found = rows.into_iter().find(|row| row.volume.name == *name);
        Ok(match found {
            Some(row) => row,
            None => VolumeRow::resting(&self.library, self.library.volume(name)?),
        })
    }

    /// Prints what became of a change.
    fn tell(&self, cli: &Cli, name: &VolumeName, done: &str) -> Result<()> {
        let row = self.row(self.refreshed()?, name)?;
        if let Some(why) = &row.failed {
            print::warning(&format!("volume {name} cannot be used: {why}"));
        }
        match cli.json {
            true => print::json(&row),
            false => print::lines([format!(
                "{name}: {done}, {} LUN {}",
                row.iqn, row.volume.lun
            )]),
        }
    }
}

pub(super) fn add(cli: &Cli, args: &VolumeAdd) -> Result<()> {
    let site = Site::open(cli)?;
    let chap = secret(args.chap.as_deref(), args.chap_secret_file.as_deref())?;
    let mutual = secret(
        args.mutual_chap.as_deref(),
        args.mutual_chap_secret_file.as_deref(),
    )?;
    let new = NewVolume {
        name: args.name.clone(),
        kept: match (&args.file, &args.device) {
            (Some(file), _) => Kept::File(file.clone()),
            (_, Some(device)) => Kept::Device(device.clone()),
            _ => Kept::Library,
        },
        size: args.size.map(bytes).transpose()?,
        block_size: args.block_size,
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
        site.library.check_add_volume(&new)?;
        return would(cli, &new.name, "add");
    }
    site.library.add_volume(&new, &Actor::command())?;
    site.tell(cli, &new.name, "added")
}

pub(super) fn set(cli: &Cli, args: &VolumeSet) -> Result<()> {
    let site = Site::open(cli)?;
    let changed = |user: &Option<String>, file: &Option<std::path::PathBuf>| match user.as_deref() {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        user => secret(user, file.as_deref()).map(Some),
    };
    let edit = VolumeEdit {
        allow: args.allow.as_deref().map(OrNone::list),
        chap: changed(&args.chap, &args.chap_secret_file)?,
        mutual: changed(&args.mutual_chap, &args.mutual_chap_secret_file)?,
        read_only: args.read_only,
        allow_sanitize: args.allow_sanitize,
    };
    if args.run.dry_run {
        site.library.volume(&args.name)?;
        return would(cli, &args.name, "set");
    }
    site.library
        .edit_volume(&args.name, &edit, &Actor::command())?;
    site.tell(cli, &args.name, "set")
}

pub(super) fn resize(
    cli: &Cli,
    name: &VolumeName,
    size: Option<SizeSpec>,
    run: DryRun,
) -> Result<()> {
    let site = Site::open(cli)?;
    let size = match size {
        Some(size) => bytes(size)?,
        None => site.library.volume_size(&site.library.volume(name)?)?,
    };
    let done = format!("resized to {}", print::bytes(size));
    if run.dry_run {
        site.library.check_resize_volume(name, size)?;
        return would(cli, name, &format!("be {done}"));
    }
    site.library.resize_volume(name, size, &Actor::command())?;
    site.tell(cli, name, &done)
}

pub(super) fn snapshot(cli: &Cli, name: &VolumeName, copy: &VolumeName, run: DryRun) -> Result<()> {
    let site = Site::open(cli)?;
    if run.dry_run {
        site.library.volume(name)?;
        return would(cli, name, &format!("be copied to {copy}"));
    }
    site.library
        .snapshot_volume(name, copy, &Actor::command())?;
    site.tell(cli, copy, &format!("copied from {name}, for nobody yet"))
}

pub(super) fn remove(cli: &Cli, name: &VolumeName, force: bool, consent: Consent) -> Result<()> {
    let site = Site::open(cli)?;
    let volume = site.library.check_remove_volume(name)?;
    let row = site.row(site.rows()?, name)?;
    if !row.sessions.is_empty() && !force {
        bail!(
            "removing volume {name}: refused, because {} use its target; log them out, or say --force",
            sessions(row.sessions.len())
        );
    }
    if consent.dry_run {
        return would(cli, name, "remove");
    }
    let loses = match volume.kept {
        Kept::Library => format!("remove volume {name} with all that is on it"),
        _ => format!("remove volume {name}; {} stays", row.path),
    };
    ask::consent(consent, &loses)?;
    // Its sessions have ended before its file goes.
    let mut told = Ok(Vec::new());
    let removed = site.library.remove_volume(name, &Actor::command(), || {
        told = site.refreshed();
        Ok(())
    });
    told?;
    let removed = removed?;
    match cli.json {
        true => print::json(&removed),
        false => print::lines([format!("{name}: removed")]),
    }
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let rows = Site::open(cli)?.rows()?;
    if cli.json {
        return print::json(&rows);
    }
    let mut table = print::Table::new(&[
        "NAME", "TARGET", "LUN", "SIZE", "KEPT IN", "FOR", "SESSIONS", "STATE",
    ]);
    for row in &rows {
        table.row([
            row.volume.name.to_string(),
            row.volume.head().to_string(),
            row.volume.lun.to_string(),
            row.size.map(print::bytes).unwrap_or_default(),
            print::printable(&row.path),
            whom(&row.volume),
            row.sessions.len().to_string(),
            state(row),
        ]);
    }
    table.print("no volumes; add one with: netroot volume add NAME --size 20G --allow IQN")
}

pub(super) fn show(cli: &Cli, name: &VolumeName) -> Result<()> {
    let site = Site::open(cli)?;
    site.library.volume(name)?;
    let row = site.row(site.rows()?, name)?;
    if cli.json {
        return print::json(&row);
    }
    let volume = &row.volume;
    let access = if volume.read_only {
        "read-only"
    } else {
        "writable"
    };
    let size = row.size.map_or("unknown".to_owned(), |size| {
        format!("{} ({size} bytes)", print::bytes(size))
    });
    print::lines([
        format!("{name}  {}", row.iqn),
        format!("  state     {}", state(&row)),
        format!(
            "  LUN {:<5} {size}, {access}, blocks of {} bytes",
            volume.lun, volume.block_size
        ),
        format!("  kept in   {}", print::printable(&row.path)),
        format!("  for       {}", whom(volume)),
        format!("  sessions  {}", row.sessions.len()),
    ])
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

fn sessions(count: usize) -> String {
    match count {
        1 => "1 session".to_owned(),
        many => format!("{many} sessions"),
    }
}

fn would(cli: &Cli, name: &VolumeName, what: &str) -> Result<()> {
    match cli.json {
        true => print::json(&serde_json::json!({ "volume": name, "would": what })),
        false => print::lines([format!("{name}: would {what}")]),
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
