//! `netroot rollout …`

use clap::Subcommand;

use super::Consent;

/// Its commands.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A rollout is begun by: netroot client assign @room5 fc29 --canary 2 --within 10m"
)]
pub(in crate::cli) enum Rollout {
    /// List rollouts, those that are over too
    List,
    /// Show how far a rollout is, client by client
    Show {
        /// The number of the rollout
        id: u64,
    },
    /// End a rollout, and set back those who were given the image
    Stop {
        /// The number of the rollout
        id: u64,
        /// Let those keep the image who were given it
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        consent: Consent,
    },
}
