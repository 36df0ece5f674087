//! Commands that make versions: `netroot image build`, `upgrade`, `update`, `exec`, `shell` and
//! `import`.

use std::str::FromStr;

use anyhow::{Result, bail};

use super::command::{
    ChangeOptions, Cli, ImageBuild, ImageExec, ImageImport, ImageShell, ImageUpdate, ImageUpgrade,
};
use super::progress::Shown;
use super::{image, job, next, open, print, wrong_usage};
use crate::build::{
    self, BuildRequest, Built, Change, ChangeRequest, Custom, Excludes, ImportRequest,
    InitramfsCheck, Keep, Plan, Script, Scrub, Source,
};
use crate::exec::Cancel;
use crate::library::{
    BuildTask, ImageName, Library, NameError, ReleaseSpec, Task, UpdateTask, UpgradeTask,
    VersionId, VersionSpec,
};

pub(super) fn build(cli: &Cli, args: &ImageBuild) -> Result<()> {
    if args.queue.queue {
        return job::queue(cli, &build_task(args)?, args.run.dry_run);
    }
    let library = open(cli)?;
    let scripts = args.scripts.iter();
    let request = BuildRequest {
        image: args.name.clone(),
        source: args.from.clone(),
        recipe: args.recipe.clone(),
        mirror: args.mirror.clone(),
        packages: args.packages.clone(),
        custom: Custom {
            hostname: args.hostname.clone(),
            root_password_hash: args.root_password_hash.clone(),
            authorized_keys: args.authorized_keys.clone(),
            copies: args.copies.clone(),
            scripts: scripts
                .map(|script| Script::from_words(std::slice::from_ref(script)))
                .collect(),
        },
        filesystem: args.fs,
        size: args.size,
        kernel: args.kernel.clone(),
        check: check(args.no_initramfs_check),
        excludes: Excludes::new(&args.exclude),
        date: args.source_date,
        scrub: scrub(args.no_scrub),
        keep: keep(args.keep_failed),
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

/// What of it a job can be.
fn build_task(args: &ImageBuild) -> Result<Task> {
    let Source::Distribution { name, release } = args.from.clone() else {
        bail!(
            "a job builds from a distribution only (debian:bookworm), since a worker takes no paths of \
             its host: leave --queue out"
        );
    };
    let others = args.recipe.is_some()
        || args.mirror.is_some()
        || args.root_password_hash.is_some()
        || !args.copies.is_empty()
        || !args.scripts.is_empty()
        || args.kernel.is_some()
        || args.source_date.is_some()
        || !args.exclude.is_empty()
        || args.no_initramfs_check
        || args.no_scrub
        || args.keep_failed;
    if others {
        bail!(
            "a job takes --package, --hostname, --authorized-key, --fs and --size, and none of the \
             other options: leave them out, or --queue"
        );
    }
    Ok(Task::Build(BuildTask {
        image: args.name.clone(),
        from: ReleaseSpec { name, release },
        packages: parsed(&args.packages)?,
        hostname: args.hostname.as_deref().map(str::parse).transpose()?,
        authorized_keys: parsed(&args.authorized_keys)?,
        filesystem: args.fs,
        size: args.size,
    }))
}

fn parsed<T: FromStr<Err = NameError>>(texts: &[String]) -> Result<Vec<T>> {
    let parsed = texts.iter().map(|text| text.parse());
    Ok(parsed.collect::<Result<_, _>>()?)
}

/// Options that a job does not have.
fn ensure_plain(options: &ChangeOptions) -> Result<()> {
    let others = options.kernel.is_some()
        || options.recipe.is_some()
        || options.no_initramfs_check
        || options.no_scrub
        || options.keep_failed;
    if others {
        bail!("a job takes --size, and none of the other options: leave them out, or --queue");
    }
    Ok(())
}

pub(super) fn upgrade(cli: &Cli, args: &ImageUpgrade) -> Result<()> {
    if args.queue.queue {
        ensure_plain(&args.change)?;
        let (Some(release), []) = (&args.release, args.script.as_slice()) else {
            bail!("a job upgrades by --release, and runs no script: leave --queue out");
        };
        let task = UpgradeTask {
            from: args.from.clone(),
            to: args.to.clone(),
            release: release.parse()?,
            size: args.change.size,
        };
        return job::queue(cli, &Task::Upgrade(task), args.change.run.dry_run);
    }
    let release = args.release.clone();
    let mut changes: Vec<Change> = release
        .map(|release| Change::Upgrade { release })
        .into_iter()
        .collect();
    if !args.script.is_empty() {
        changes.push(Change::Script(Script::from_words(&args.script)));
    }
    if changes.is_empty() {
        let what = "say what is to be done in the copy: --release RELEASE upgrades its distribution \
                    by its recipe, -- SCRIPT runs a script or command in it, and with both the \
                    script comes after the upgrade";
        return Err(wrong_usage(&["image", "upgrade"], what));
    }
    change(cli, &args.from, &args.to, changes, &args.change)
}

pub(super) fn update(cli: &Cli, args: &ImageUpdate) -> Result<()> {
    if args.queue.queue {
        ensure_plain(&args.change)?;
        let (image, size) = (args.image.clone(), args.change.size);
        let task = Task::Update(UpdateTask { image, size });
        return job::queue(cli, &task, args.change.run.dry_run);
    }
    let (from, to) = (&args.image, &args.image.image);
    change(cli, from, to, vec![Change::Update], &args.change)
}

pub(super) fn exec(cli: &Cli, args: &ImageExec) -> Result<()> {
    let changes = vec![Change::Script(Script::from_words(&args.command))];
    change(cli, &args.image, &args.image.image, changes, &args.change)
}

pub(super) fn shell(cli: &Cli, args: &ImageShell) -> Result<()> {
    let (from, to) = (&args.image, &args.image.image);
    if !args.discard {
        return change(cli, from, to, vec![Change::Shell], &args.change);
    }
    let library = open(cli)?;
    let from = library.resolve(from)?.id().clone();
    let request = ChangeRequest {
        // Nobody will boot what is thrown away.
        scrub: Scrub::Nothing,
        ..request(&from, to, vec![Change::Shell], &args.change)
    };
    if args.change.run.dry_run {
        return show_plan(cli, &build::plan_try(&library, &request)?);
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    build::try_change(&library, &request, &cancel, &progress)?;
    drop(progress);
    let told = format!("nothing of it was kept; {from} is as it was");
    show_nothing_made(cli, &from, told)
}

fn change(
    cli: &Cli,
    from: &VersionSpec,
    to: &ImageName,
    changes: Vec<Change>,
    options: &ChangeOptions,
) -> Result<()> {
    let library = open(cli)?;
    let from = library.resolve(from)?.id().clone();
    let request = request(&from, to, changes, options);
    if options.run.dry_run {
        return show_plan(cli, &build::plan_change(&library, &request)?);
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let built = build::change(&library, &request, &cancel, &progress)?;
    drop(progress);
    match built {
        Some(built) => show_built(cli, &library, &built),
        None => {
            let told = format!("{from} is up to date: nothing changed, no new version");
            show_nothing_made(cli, &from, told)
        }
    }
}

fn request(
    from: &VersionId,
    to: &ImageName,
    changes: Vec<Change>,
    options: &ChangeOptions,
) -> ChangeRequest {
    ChangeRequest {
        from: from.clone().into(),
        to: to.clone(),
        changes,
        recipe: options.recipe.clone(),
        size: options.size,
        kernel: options.kernel.clone(),
        check: check(options.no_initramfs_check),
        scrub: scrub(options.no_scrub),
        keep: keep(options.keep_failed),
    }
}

pub(super) fn import(cli: &Cli, args: &ImageImport) -> Result<()> {
    let library = open(cli)?;
    let request = ImportRequest {
        image: args.name.clone(),
        file: args.from.clone(),
        format: args.format,
        kernel: args.kernel.clone(),
        recipe: args.recipe.clone(),
        check: check(args.no_initramfs_check),
        scrub: scrub(args.no_scrub),
        keep: keep(args.keep_failed),
    };
    let cancel = Cancel::on_signals()?;
    if args.run.dry_run {
        return show_plan(cli, &build::plan_import(&library, &request, &cancel)?);
    }
    let progress = Shown::new(&cancel);
    let built = build::import(&library, &request, &cancel, &progress)?;
    drop(progress);
    show_built(cli, &library, &built)
}

pub(super) fn scrub(skip: bool) -> Scrub {
    if skip {
        Scrub::Nothing
    } else {
        Scrub::ByRecipe
    }
}

pub(super) fn keep(failed: bool) -> Keep {
    if failed { Keep::Failed } else { Keep::Nothing }
}

pub(super) fn check(skip: bool) -> InitramfsCheck {
    if skip {
        InitramfsCheck::Skip
    } else {
        InitramfsCheck::Refuse
    }
}

pub(super) fn show_plan(cli: &Cli, plan: &Plan) -> Result<()> {
    match cli.json {
        true => print::json(plan),
        false => print::lines([plan.to_string()]),
    }
}

/// For what ends well without a new version.
fn show_nothing_made(cli: &Cli, from: &VersionId, told: String) -> Result<()> {
    match cli.json {
        true => print::json(&serde_json::json!({ "version": null, "from": from })),
        false => print::lines([told]),
    }
}

pub(super) fn show_built(cli: &Cli, library: &Library, built: &Built) -> Result<()> {
    if cli.json {
        return print::json(built);
    }
    let version = library.version(&built.version)?;
    let mut lines = vec![format!("sealed {}", version.id())];
    lines.extend(image::description(&version).into_iter().skip(1));
    lines.push(format!("  takes       {}", image::told_usage(&built.usage)));
    match next::after(library, &version) {
        Ok(more) => lines.extend(more),
        // It is sealed, whatever is wrong with what is known about clients.
        Err(error) => print::warning(&format!("who gets it is not known: {error:#}")),
    }
    print::lines(lines)
}
