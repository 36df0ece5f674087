//! `netroot init`

use anyhow::{Context, Result};
use serde::Serialize;

use super::command::{Cli, Init};
use super::print;
use crate::library::{HostName, InitOptions, Library};

/// What `--json` prints.
#[derive(Serialize)]
struct Made<'a> {
    library: &'a std::path::Path,
    config: std::path::PathBuf,
    host: String,
    dry_run: bool,
}

pub(super) fn init(cli: &Cli, args: &Init) -> Result<()> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => system_host()?,
    };
    let host: HostName = host
        .parse()
        .context("the host's name; --host gives another")?;
    let options = InitOptions {
        host: host.clone(),
        iqn_prefix: None,
        immutable: true,
    };
    if args.run.dry_run {
        Library::check_init(&cli.library)?;
    } else {
        Library::init(&cli.library, &options)?;
    }
    let config = cli.library.join("netroot.toml");
    if cli.json {
        let host = host.to_string();
        return print::json(&Made {
            library: &cli.library,
            config,
            host,
            dry_run: args.run.dry_run,
        });
    }
    let dir = cli.library.display();
    match args.run.dry_run {
        true => print::lines([format!("would make a library in {dir}, for host {host}")]),
        false => print::lines([
            format!("made a library in {dir}, for host {host}"),
            format!("its settings: {}", config.display()),
            String::from("next: netroot image build NAME --from CHROOT"),
        ]),
    }
}

fn system_host() -> Result<String> {
    let name = nix::unistd::gethostname().context("asking for this host's name")?;
    name.into_string()
        .ok()
        .context("this host's name is not text; --host gives another")
}
