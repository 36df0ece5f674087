//! `netroot config …`

use anyhow::{Result, bail};

use super::command::{Cli, DryRun};
use super::control::Control;
use super::print;
use crate::boot::Text;
use crate::daemon::Reloaded;
use crate::library::Library;

pub(super) fn reload(cli: &Cli, run: DryRun) -> Result<()> {
    if run.dry_run {
        // What the server would refuse, it refuses for the same words.
        let library = Library::open(&cli.library, cli.config.as_deref())?;
        for text in Text::ALL {
            text.of_site(&library)?;
        }
        warn(&library.config().left_out());
        return print::lines(["netroot.toml has no mistake, and would be read anew"]);
    }
    let Some(server) = Control::running(&cli.library)? else {
        bail!(
            "reading netroot.toml anew: no server runs on the library {}; it is read when one starts",
            cli.library.display()
        );
    };
    let reloaded: Reloaded = server.post("/api/v1/server/reload", &())?;
    if cli.json {
        return print::json(&reloaded);
    }
    warn(&reloaded.warnings);
    let mut lines: Vec<String> = Vec::new();
    let mut told = |what: &str, which: String| {
        if !which.is_empty() {
            lines.push(format!("{what}: {which}"));
        }
    };
    let addresses = |list: &[std::net::SocketAddr]| {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        list.join(", ")
    };
    told("changed", reloaded.changed.join(", "));
    told("listening from now on", addresses(&reloaded.opened));
    told(
        "not listening any more (sessions stay until they end)",
        addresses(&reloaded.closed),
    );
    told(
        "waits for the next start of the server",
        reloaded.at_restart.join(", "),
    );
    if lines.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    print::lines(lines)
}

/// In JSON they stand with the rest.
fn warn(warnings: &[String]) {
    for warning in warnings {
        print::warning(warning);
    }
}
