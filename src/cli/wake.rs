//! `netroot client wake`

use anyhow::Result;

use super::command::{Cli, DryRun};
use super::print;
use super::reach::Reach;
use crate::daemon::Woken;
use crate::library::ClientSelector;

pub(super) fn wake(cli: &Cli, clients: &ClientSelector, run: DryRun) -> Result<()> {
    let woken = Reach::new(cli)?.wake(clients, run.dry_run)?;
    for one in &woken {
        for way in &one.by {
            if let Some(why) = &way.failed {
                print::warning(&format!(
                    "{}: not called on {}: {why}",
                    one.client, way.interface
                ));
            }
        }
    }
    if cli.json {
        return print::json(&woken);
    }
    let verb = match run.dry_run {
        true => "would call",
        false => "called",
    };
    print::lines(woken.iter().map(|one| told(one, verb)))
}

/// `lab-07: called 52:54:00:12:34:56 on eth0 (192.0.2.255)`.
fn told(one: &Woken, verb: &str) -> String {
    let macs: Vec<String> = one.called.iter().map(ToString::to_string).collect();
    let sent = one.by.iter().filter(|way| way.failed.is_none());
    let by: Vec<String> = sent
        .map(|way| format!("{} ({})", print::printable(&way.interface), way.to.ip()))
        .collect();
    format!(
        "{}: {verb} {} on {}",
        one.client,
        macs.join(" "),
        by.join(", ")
    )
}
