//! `netroot image build` and `netroot image upgrade`: commands that make versions.

use anyhow::{Result, bail};

use super::command::{Cli, FsKind, ImageBuild, ImageUpgrade};
use super::progress::Shown;
use super::{image, open, print};
use crate::build;
use crate::exec::Cancel;
use crate::library::Library;

pub(super) fn build(cli: &Cli, args: &ImageBuild) -> Result<()> {
    let library = open(cli)?;
    let request = build::BuildRequest {
        image: args.name.clone(),
        source: build::Source::from_argument(&args.from)?,
        filesystem: match args.fs {
            FsKind::Xfs => build::FileSystem::Xfs,
            FsKind::Ext4 => build::FileSystem::Ext4,
        },
        size: args.size.unwrap_or_default(),
        kernel: args.kernel.clone(),
        excludes: args.exclude.clone(),
        check_initramfs: !args.no_initramfs_check,
    };
    let plan = build::plan_build(&library, &request)?;
    make(cli, &library, plan, args.run.dry_run)
}

pub(super) fn upgrade(cli: &Cli, args: &ImageUpgrade) -> Result<()> {
    let library = open(cli)?;
    let Some((script, script_args)) = args.script.split_first() else {
        bail!("upgrading {}: no script was given; put it behind --", args.from);
    };
    let request = build::UpgradeRequest {
        from: args.from.clone(),
        to: args.to.clone(),
        size: args.size,
        kernel: args.kernel.clone(),
        check_initramfs: !args.no_initramfs_check,
        script: script.into(),
        args: script_args.to_vec(),
    };
    let plan = build::plan_upgrade(&library, &request)?;
    make(cli, &library, plan, args.run.dry_run)
}

/// Prints a plan, or carries it out.
fn make(cli: &Cli, library: &Library, plan: build::Plan, dry_run: bool) -> Result<()> {
    if dry_run {
        return match cli.json {
            true => print::json(&plan),
            false => print::lines([plan.to_string()]),
        };
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let built = build::run(library, plan, &cancel, &progress)?;
    drop(progress);
    if cli.json {
        return print::json(&built);
    }
    let version = library.version(&built.version)?;
    let mut lines = vec![format!("sealed {}", version.id())];
    lines.extend(description(&version).into_iter().skip(1));
    lines.push(format!("next: netroot client add MAC --image {}", version.id().image));
    print::lines(lines)
}
