//! Where what the lower floors log goes: to standard error, in every command.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// Shows what is logged from `level` on, unless `NETROOT_LOG` says otherwise.
pub(super) fn begin(level: Level) {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("NETROOT_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        // A line that nobody reads any more is lost; telling of that on the same closed pipe would
        // end the thread that it happens on.
        .log_internal_errors(false)
        .init();
}
