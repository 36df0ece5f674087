//! `netroot event …`

use clap::{Args, Subcommand};

use crate::library::{Format, Moment};

/// `netroot event …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Event {
    /// List events, the newest first
    List {
        #[command(flatten)]
        which: Which,
        /// So many at most
        #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Print all events for another program, the newest first
    Export {
        #[command(flatten)]
        which: Which,
        /// One JSON object a line, or comma-separated values
        #[arg(long, value_name = "jsonl|csv", default_value = "jsonl")]
        format: Format,
    },
}

/// Which events are meant; all conditions hold.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Which {
    /// Not before this: 2026-11-20, 2026-11-20T09:12:00Z, or 2h or 7d ago
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Moment>,
    /// Before this
    #[arg(long, value_name = "WHEN")]
    pub until: Option<Moment>,
    /// Part of the name or the address of who did it
    #[arg(long, value_name = "TEXT")]
    pub who: Option<String>,
    /// The kind of event, or what it begins with: client-reset, job-
    #[arg(long, value_name = "KIND")]
    pub what: Option<String>,
    /// Part of what it was done to: an image, a client's MAC
    #[arg(long, value_name = "TEXT")]
    pub to: Option<String>,
    /// Part of anything that is told of it
    #[arg(long, short = 'q', value_name = "TEXT")]
    pub search: Option<String>,
}
