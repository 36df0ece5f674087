//! `netroot doctor` and `netroot config check`

use anyhow::{Result, bail};

use super::command::Cli;
use super::control::Control;
use super::print;
use crate::daemon::doctor::{Finding, Verdict, examine, examine_host};
use crate::library::{ClientView, Library};

pub(super) fn doctor(cli: &Cli) -> Result<()> {
    let mut found = examine_host();
    match Library::open(&cli.library, cli.config.as_deref()) {
        Ok(library) => {
            found.push(Finding::good(
                "configuration",
                "netroot.toml has no mistake",
            ));
            let seen: Option<Vec<ClientView>> = match Control::running(&cli.library)? {
                Some(server) => Some(server.get("/api/v1/clients")?),
                None => None,
            };
            found.extend(examine(&library, seen.as_deref()));
        }
        Err(_) if !cli.library.join("netroot.toml").exists() => found.push(Finding::hint(
            "library",
            format!("there is none in {}", cli.library.display()),
            "netroot init, or --library DIR",
        )),
        Err(error) => found.push(Finding::bad(
            "configuration",
            print::chain(&error.into()),
            "see to it: nothing works before",
        )),
    }
    // The worst first; each kind in the order in which it was looked at.
    found.sort_by_key(|one| one.verdict);
    let bad = found
        .iter()
        .filter(|one| one.verdict == Verdict::Bad)
        .count();
    match cli.json {
        true => print::json(&found)?,
        false => table(&found).print("nothing")?,
    }
    match bad {
        0 => Ok(()),
        1 => {
            bail!("examining this host: one thing that is configured cannot work; it is told above")
        }
        bad => bail!(
            "examining this host: {bad} things that are configured cannot work; they are told above"
        ),
    }
}

pub(super) fn check(cli: &Cli) -> Result<()> {
    let library = Library::open(&cli.library, cli.config.as_deref())?;
    let file = library.root().join("netroot.toml");
    for warning in library.config().left_out() {
        print::warning(&warning);
    }
    if cli.json {
        return print::json(&serde_json::json!({ "file": file, "mistakes": 0 }));
    }
    print::lines([format!("{} has no mistake", file.display())])
}

fn table(found: &[Finding]) -> print::Table {
    let mut table = print::Table::new(&["", "ABOUT", "FOUND", "WHAT TO DO"]);
    for one in found {
        let verdict = match one.verdict {
            Verdict::Bad => "BAD",
            Verdict::Hint => "hint",
            Verdict::Good => "good",
        };
        table.row([
            verdict.to_owned(),
            one.about.to_owned(),
            one.found.clone(),
            one.remedy.clone().unwrap_or_default(),
        ]);
    }
    table
}
