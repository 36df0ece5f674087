//! `netroot client promote`

use anyhow::{Result, bail};

use super::command::{Cli, ClientPromote};
use super::image::told_changes;
use super::make::{check, keep, scrub, show_built, show_plan};
use super::progress::Shown;
use super::reach::Reach;
use super::{ask, job, next, open, print};
use crate::build::{self, Asked, Changes, PromoteRequest};
use crate::exec::Cancel;
use crate::library::{Actor, ClientSelector, Library, LiveSession, MacAddr, PromoteTask, Task};

pub(super) fn promote(cli: &Cli, args: &ClientPromote) -> Result<()> {
    let library = open(cli)?;
    let clients = library.select(&args.client)?;
    let [client] = clients.as_slice() else {
        bail!("{} is more than one client: name one", args.client);
    };
    if args.queue.queue {
        if args.no_initramfs_check || args.no_scrub || args.keep_failed {
            bail!("a job takes no --no-initramfs-check, --no-scrub or --keep-failed");
        }
        let (client, image) = (client.mac, args.name.clone());
        let task = Task::Promote(PromoteTask { client, image });
        let dry_run = args.consent.dry_run;
        if !dry_run {
            let what = format!("promote {} to {}, unseen", args.client, args.name);
            ask::consent(args.consent, &what)?;
        }
        return job::queue(cli, &task, dry_run);
    }
    let request = PromoteRequest {
        client: client.mac,
        image: args.name.clone(),
        check: check(args.no_initramfs_check),
        scrub: scrub(args.no_scrub),
        keep: keep(args.keep_failed),
        by: Actor::command(),
    };
    let plan = build::plan_promote(&library, &request)?;
    if args.consent.dry_run {
        return show_plan(cli, &plan);
    }
    let cancel = Cancel::on_signals()?;
    let progress = Shown::new(&cancel);
    let asked = Person {
        cli,
        library: &library,
        args,
        mac: client.mac,
    };
    let built = build::promote(&library, &request, &asked, &cancel, &progress)?;
    drop(progress);
    show_built(cli, &library, &built)
}

/// Who sits at the terminal, and whoever knows who is connected.
struct Person<'a> {
    cli: &'a Cli,
    library: &'a Library,
    args: &'a ClientPromote,
    mac: MacAddr,
}

impl Asked for Person<'_> {
    fn sessions(&self) -> Result<Vec<LiveSession>> {
        // While no server runs, none can start until this has returned; and one that starts then
        // finds the disk held.
        let views = Reach::new(self.cli)?.select(&ClientSelector::Mac(self.mac))?;
        Ok(views.into_iter().flat_map(|view| view.sessions).collect())
    }

    fn agree(&self, changes: Option<&Changes>) -> Result<()> {
        let told = changes.map(|found| told_changes(&found.files, found.packages.as_ref(), false));
        for line in told.into_iter().flatten() {
            // Beside the progress: what is printed is the result, and may be JSON.
            print::aside(&line);
        }
        let name = &self.args.name;
        let mut what = vec![format!("promote {} to {name}", self.args.client)];
        let reached = next::reached(name, &self.library.followers(name, None)?);
        what.extend(reached.iter().map(|line| format!("  {line}")));
        ask::consent(self.args.consent, &what.join("\n"))
    }
}
