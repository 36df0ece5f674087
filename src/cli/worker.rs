//! `netroot worker`: does the jobs that wait.

use std::time::Duration;

use anyhow::{Result, bail};

use super::command::{Cli, Worker};
use super::reach::Reach;
use super::{image, open};
use crate::build;
use crate::exec::Cancel;
use crate::library::{
    ClientSelector, Job, JobOutcome, JobState, Library, LiveSession, MacAddr, VersionId,
    this_worker,
};

/// How often the queue is looked at. A job takes minutes.
const LOOK: Duration = Duration::from_secs(1);
/// How often somebody who waits looks whether they are to end.
const WAKE: Duration = Duration::from_millis(100);

pub(super) fn worker(cli: &Cli, args: &Worker) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a worker mounts file systems and runs programs in images, which needs root: start it \
             with sudo, or as a service; the server itself needs no root"
        );
    }
    let library = open(cli)?;
    let stop = Cancel::on_signals()?;
    let name = this_worker();
    tracing::info!("{name} waits for jobs of {}", library.root().display());
    while !stop.is_cancelled() {
        let worked = work(cli, &library, &name, &stop)?;
        if args.once && !worked {
            return Ok(());
        }
        if !worked {
            wait(&stop);
        }
    }
    tracing::info!("ending");
    Ok(())
}

/// Does one job, if one waits.
fn work(cli: &Cli, library: &Library, name: &str, stop: &Cancel) -> Result<bool> {
    for id in library.settle_jobs()? {
        tracing::warn!("job {id} failed: its worker was killed");
    }
    let Some(claim) = library.claim_job(name)? else {
        return Ok(false);
    };
    // What a killed worker left takes room, and is nobody's.
    for swept in library.sweep()? {
        tracing::warn!("{}", swept.told());
    }
    let job = claim.job();
    tracing::info!("job {}: {}, asked by {}", job.id, job.task, job.by);
    let connected = |mac: &MacAddr| sessions(cli, mac);
    let trials = |version: &VersionId, cancel: &Cancel, watch: &dyn build::Watch| {
        image::tried(library, version, build::TRIAL_LIMIT, cancel, watch)
    };
    told(&build::run_job(library, claim, &connected, &trials, stop)?);
    Ok(true)
}

/// The sessions that a client has. While no server runs, none can start until this has returned; and
/// one that starts then finds the disk held.
fn sessions(cli: &Cli, mac: &MacAddr) -> Result<Vec<LiveSession>> {
    let views = Reach::new(cli)?.select(&ClientSelector::Mac(*mac))?;
    Ok(views.into_iter().flat_map(|view| view.sessions).collect())
}

fn told(job: &Job) {
    let id = job.id;
    match &job.state {
        JobState::Done { result, .. } => match result {
            JobOutcome::Version { version, .. } => {
                tracing::info!("job {id} is done: sealed {version}")
            }
            JobOutcome::UpToDate => tracing::info!("job {id} is done: there is nothing new"),
            JobOutcome::Verdict { version, damage } => match damage {
                None => tracing::info!("job {id} is done: {version} is whole"),
                Some(damage) => tracing::warn!("job {id} is done: {damage}"),
            },
            JobOutcome::Tested {
                version, failed, ..
            } => match failed {
                None => tracing::info!("job {id} is done: {version} boots"),
                Some(why) => tracing::warn!("job {id} is done: {version} does not boot: {why}"),
            },
            JobOutcome::Report { bytes } => {
                tracing::info!("job {id} is done: a report of {bytes} bytes");
            }
        },
        JobState::Failed { why, .. } => tracing::warn!("job {id} failed: {why}"),
        state => tracing::info!("job {id} is {}", state.word()),
    }
}

fn wait(stop: &Cancel) {
    let mut waited = Duration::ZERO;
    while waited < LOOK && !stop.is_cancelled() {
        std::thread::sleep(WAKE);
        waited += WAKE;
    }
}
