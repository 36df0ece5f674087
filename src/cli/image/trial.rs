//! `netroot image test`: a version boots in QEMU, against a target of its own, before people get it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use serde::Serialize;

use crate::boot::{BootCfg, Files, Handover, Portal, Root, Writes};
use crate::build::{self, SPEAKS, TRIAL_HOST, TrialMachine, Tried, Watch};
use crate::cli::command::{Cli, ImageTest};
use crate::cli::progress::Shown;
use crate::cli::{job, open, print};
use crate::daemon::TrialTarget;
use crate::exec::Cancel;
use crate::library::{
    Actor, KernelArg, Library, Publish, Secrets, Task, TestTask, Trial, Version, VersionId,
};

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    trial: &'a Trial,
    passed: bool,
    published: bool,
}

pub(in crate::cli) fn test(cli: &Cli, args: &ImageTest) -> Result<()> {
    let library = open(cli)?;
    let version = library.version(&library.newest(&args.image)?)?;
    let publish = match args.no_publish {
        true => Publish::Never,
        false => Publish::IfItWaits,
    };
    let task = TestTask {
        version: version.id().clone(),
        publish,
    };
    if args.queue.queue {
        return job::queue(cli, &Task::Test(task), args.run.dry_run);
    }
    build::ensure_can_be_tried(&version)?;
    if args.run.dry_run {
        return plan(cli, &library, &task);
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let limit = Duration::from_secs(60 * u64::from(args.within.get()));
    let tried = tried(&library, version.id(), limit, &cancel, &progress)?;
    drop(progress);
    let trial = build::trial_of(&version, &tried, &Actor::command(), Timestamp::now());
    let published = library.record_trial(trial.clone(), publish)?;
    show(cli, &library, &trial, published)
}

/// Boots a version against a target of this process. Whether it came up is not written down yet.
pub(in crate::cli) fn tried(
    library: &Library,
    id: &VersionId,
    limit: Duration,
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Tried> {
    let version = library.version(id)?;
    build::ensure_can_be_tried(&version)?;
    let _stays = library.hold_for_trial(id)?;
    watch.step(&format!("serving {id} to a machine of its own"), None);
    let target = TrialTarget::serve(library, id, TRIAL_HOST)?;
    let machine = TrialMachine {
        kernel: version.kernel_path(),
        initramfs: version.initramfs_path(),
        append: kernel_line(library, &version, &target)?,
        port: target.address.port(),
        relay: relay(target.address.port())?,
    };
    let is_there = || target.was_entered();
    build::boot_once(&machine, limit, &is_there, cancel, watch)
}

/// This program once more, as what passes a connection on to the target.
fn relay(port: u16) -> Result<Vec<String>> {
    let own = std::env::current_exe().context("looking for this program's own file")?;
    let own = own.into_os_string().into_string();
    let own = own.map_err(|path| anyhow!("the path of this program is no text: {path:?}"))?;
    Ok(vec![own, "trial-relay".to_owned(), port.to_string()])
}

/// What a shared client of this version is told, and that its console speaks.
fn kernel_line(library: &Library, version: &Version, target: &TrialTarget) -> Result<String> {
    let facts = &version.manifest().facts;
    let mut args = library.config().boot.kernel_args.clone();
    for word in SPEAKS {
        let word: KernelArg = word.parse().context("writing the kernel line")?;
        args.push(word);
    }
    let cfg = BootCfg {
        files: Files::Beside,
        handover: Handover::KernelLine,
        kernel: &facts.kernel_version,
        initramfs: &facts.early,
        root: Root {
            portal: Portal {
                ip: TRIAL_HOST.into(),
                port: target.address.port(),
            },
            target: target.target.clone(),
            lun: target.lun,
            initiator: Some(target.initiator.clone()),
            secrets: Secrets::default(),
        },
        identity: None,
        writes: Writes::Ram,
        mac: None,
        nameservers: &[],
        args: &args,
    };
    Ok(cfg.kernel_args().join(" "))
}

fn plan(cli: &Cli, library: &Library, task: &TestTask) -> Result<()> {
    if cli.json {
        return print::json(task);
    }
    let version = &task.version;
    let mut lines = vec![
        format!("would boot {version} in QEMU, as a client in mode shared"),
        String::from("  pass      its system reaches multi-user and has its disk over iSCSI"),
    ];
    if task.publish == Publish::IfItWaits && library.waits_for_trial(version)? {
        lines.push(format!("  then      {version} becomes current"));
    }
    print::lines(lines)
}

fn show(cli: &Cli, library: &Library, trial: &Trial, published: bool) -> Result<()> {
    let version = &trial.version;
    if cli.json {
        let passed = trial.passed();
        print::json(&Told {
            trial,
            passed,
            published,
        })?;
    }
    let Some(why) = &trial.failed else {
        if cli.json {
            return Ok(());
        }
        let mut lines = vec![format!(
            "{version} boots: its system was up after {} s",
            trial.took
        )];
        if published {
            lines.push(format!("{version} is current now"));
        } else if library.waits_for_trial(version)? {
            lines.push(format!("next: netroot image rollback {version}"));
        }
        return print::lines(lines);
    };
    for line in &trial.console {
        print::aside(&format!("  {}", print::printable(line)));
    }
    bail!(
        "testing {version}: {why}; the lines above are the last ones of its console. Clients do not get \
         it while `publish_gate` is set and another version is current; look into it by `netroot image \
         shell {version} --discard`"
    )
}
