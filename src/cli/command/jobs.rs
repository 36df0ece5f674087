//! `netroot worker`, `netroot job …` and what queues jobs.

use clap::{Args, Subcommand};

use super::DryRun;
use crate::library::JobId;

/// `netroot worker`
#[derive(Debug, Args)]
#[command(
    after_help = "Builds need root, and a server does not: it writes jobs down, and a worker does them. \
    What a job may be is a short list (build from a distribution, update, upgrade, promote, compare, \
    verify) with checked values; command lines, scripts and paths of this host are none of them. \
    Recipes in the library are run only where nobody but root may write them.\n\n\
    SIGTERM and SIGINT stop the job that runs, which waits for the next worker then, and begins again. \
    A job whose worker is killed has failed. Several workers may run, also on several hosts that share \
    a library."
)]
pub(in crate::cli) struct Worker {
    /// Do the jobs that wait, then end
    #[arg(long)]
    pub once: bool,
}

/// `netroot job …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Job {
    /// List jobs, the newest first
    List,
    /// Show one job: how far it is, or what came of it
    Show {
        /// The number that `job list` shows
        id: JobId,
    },
    /// Print what a job said
    Log {
        /// The number that `job list` shows
        id: JobId,
        /// Go on until the job ends
        #[arg(long, short)]
        follow: bool,
    },
    /// Print what a diff or a preview found out, as JSON
    Report {
        /// The number that `job list` shows
        id: JobId,
    },
    /// Stop a job; nothing half is left of it
    Cancel {
        /// The number that `job list` shows
        id: JobId,
        #[command(flatten)]
        run: DryRun,
    },
}

/// For commands that a worker can do instead.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Queue {
    /// Leave it to `netroot worker`, and return at once; `netroot job list` shows how far it is
    #[arg(long, display_order = 89)]
    pub queue: bool,
}
