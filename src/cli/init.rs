//! `netroot init`

use anyhow::{Context, Result};
use serde::Serialize;

use super::command::{Cli, Init};
use super::print;
use crate::library::{HostName, InitOptions, IqnPrefix, Library};

/// What `--json` prints.
#[derive(Serialize)]
struct Made<'a> {
    library: &'a std::path::Path,
    config: std::path::PathBuf,
    host: HostName,
    iqn_prefix: IqnPrefix,
    dry_run: bool,
}

pub(super) fn init(cli: &Cli, args: &Init) -> Result<()> {
    let host = args.host.clone().or_else(HostName::here);
    let host = host.context("this host has no usable name: give one with --host")?;
    let prefix = IqnPrefix::here(&host);
    let options = InitOptions {
        host: host.clone(),
        iqn_prefix: Some(prefix.clone()),
        immutable: true,
    };
    if !host.as_str().contains('.') {
        print::warning(&format!(
            "`{host}` has no domain, and the names of all targets are made from it once and for \
             ever; --host server-01.example.edu gives another"
        ));
    }
    if args.run.dry_run {
        Library::check_init(&cli.library)?;
    } else {
        Library::init(&cli.library, &options)?;
    }
    let config = cli.library.join("netroot.toml");
    if cli.json {
        return print::json(&Made {
            library: &cli.library,
            config,
            host,
            iqn_prefix: prefix,
            dry_run: args.run.dry_run,
        });
    }
    let dir = cli.library.display();
    let targets = format!("its targets are called {prefix}:IMAGE");
    match args.run.dry_run {
        true => print::lines([
            format!("would make a library in {dir}, for host {host}"),
            targets,
        ]),
        false => print::lines([
            format!("made a library in {dir}, for host {host}"),
            targets,
            format!("its settings: {}", config.display()),
            String::from("next: netroot image build deb12 --from debian:bookworm"),
        ]),
    }
}
