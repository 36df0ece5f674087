//! Rollouts go on: every few seconds the library is asked to do what is next for each.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::Server;
use super::targets::told;
use crate::library::Watching;

/// How often. Canaries have minutes, and an admin who watches them sees the next step soon.
const EVERY: Duration = Duration::from_secs(3);

impl Server {
    /// The time, and since when this server watches its clients.
    pub fn watching(&self) -> Watching {
        Watching {
            now: Timestamp::now(),
            since: Timestamp::try_from(self.began).unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    /// Moves rollouts on, for ever.
    pub(super) async fn roll_out(self: Arc<Self>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let advanced = self.call(|server| {
                let library = server.library();
                library.advance_rollouts(server.watching(), server.live())
            });
            let why = match advanced.await {
                Some(Ok(moved)) => {
                    if moved {
                        self.nudge();
                    }
                    None
                }
                Some(Err(error)) => Some(told(&error)),
                // The log has it already.
                None => None,
            };
            // What stays wrong is told once.
            if why.is_some() && why != last {
                tracing::error!(error = why, "cannot move a rollout on");
            }
            last = why;
        }
    }
}
