//! `netroot image build` and `netroot image upgrade`: commands that make versions.

use anyhow::Result;

use super::command::{Cli, ImageBuild, ImageUpgrade};
use super::progress::Shown;
use super::{image, open, print};
use crate::build::{
    self, BuildRequest, Built, Excludes, InitramfsCheck, Plan, Script, UpgradeRequest,
};
use crate::exec::Cancel;
use crate::library::Library;

pub(super) fn build(cli: &Cli, args: &ImageBuild) -> Result<()> {
    let library = open(cli)?;
    let request = BuildRequest {
        image: args.name.clone(),
        source: args.from.clone(),
        filesystem: args.fs,
        size: args.size,
        kernel: args.kernel.clone(),
        check: check(args.no_initramfs_check),
        excludes: Excludes::new(&args.exclude),
        date: args.source_date,
    };
    let cancel = Cancel::on_signals()?;
    if args.run.dry_run {
        return show_plan(cli, &build::plan_image(&library, &request, &cancel)?);
    }
    let progress = Shown::new(&cancel);
    let built = build::image(&library, &request, &cancel, &progress)?;
    drop(progress);
    show_built(cli, &library, &built)
}

pub(super) fn upgrade(cli: &Cli, args: &ImageUpgrade) -> Result<()> {
    let library = open(cli)?;
    let request = UpgradeRequest {
        from: args.from.clone(),
        to: args.to.clone(),
        script: Script::from_words(&args.script),
        size: args.size,
        kernel: args.kernel.clone(),
        check: check(args.no_initramfs_check),
    };
    if args.run.dry_run {
        return show_plan(cli, &build::plan_upgrade(&library, &request)?);
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let built = build::upgrade(&library, &request, &cancel, &progress)?;
    drop(progress);
    show_built(cli, &library, &built)
}

fn check(skip: bool) -> InitramfsCheck {
    if skip {
        InitramfsCheck::Skip
    } else {
        InitramfsCheck::Refuse
    }
}

fn show_plan(cli: &Cli, plan: &Plan) -> Result<()> {
    match cli.json {
        true => print::json(plan),
        false => print::lines([plan.to_string()]),
    }
}

fn show_built(cli: &Cli, library: &Library, built: &Built) -> Result<()> {
    if cli.json {
        return print::json(built);
    }
    let version = library.version(&built.version)?;
    let mut lines = vec![format!("sealed {}", version.id())];
    lines.extend(image::description(&version).into_iter().skip(1));
    lines.push(format!(
        "next: netroot client add MAC --image {}",
        version.id().image
    ));
    print::lines(lines)
}
