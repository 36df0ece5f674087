//! `netroot man`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use super::command::{Cli, DryRun};
use super::print;

pub(super) fn man(cli: &Cli, dir: &Path, run: DryRun) -> Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    gather(&command, &mut pages);
    let paths: Vec<PathBuf> = pages
        .iter()
        .map(|page| dir.join(page.get_filename()))
        .collect();
    if !run.dry_run {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        for page in &pages {
            page.generate_to(dir)
                .with_context(|| format!("writing man pages into {}", dir.display()))?;
        }
    }
    match (cli.json, run.dry_run) {
        (true, _) => print::json(&paths),
        (false, true) => print::lines(
            paths
                .iter()
                .map(|path| format!("would write {}", path.display())),
        ),
        (false, false) => {
            let count = paths.len();
            print::lines([format!("wrote {count} man pages into {}", dir.display())])
        }
    }
}

/// The page of a command, and those of all below it.
fn gather(command: &clap::Command, pages: &mut Vec<Man>) {
    pages.push(Man::new(command.clone()));
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        gather(below, pages);
    }
}
