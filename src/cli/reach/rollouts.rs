//! Rollouts and wake-up calls, by whoever sees the clients.

use anyhow::Result;
use jiff::Timestamp;

use super::Reach;
use crate::daemon::{Woken, wake};
use crate::library::{Actor, ClientSelector, Keep, NewRollout, RolloutPlan, RolloutView, Watching};
use crate::web::calls::{RolloutCall, StopRolloutCall, WakeCall};

const ROLLOUTS: &str = "/api/v1/rollouts";

/// Without a server nobody watches: the time of canaries begins with the next one.
fn watching() -> Watching {
    let now = Timestamp::now();
    Watching { now, since: now }
}

impl Reach {
    pub(in crate::cli) fn rollouts(&self) -> Result<Vec<RolloutView>> {
        match self {
            Reach::Server(control) => control.get(ROLLOUTS),
            Reach::Alone(library, live) => {
                let all = library.rollouts()?.into_iter();
                let views = all.map(|one| library.view_rollout(one, watching(), live));
                Ok(views.collect::<Result<_, _>>()?)
            }
        }
    }

    pub(in crate::cli) fn rollout(&self, id: u64) -> Result<RolloutView> {
        match self {
            Reach::Server(control) => control.get(&format!("{ROLLOUTS}/{id}")),
            Reach::Alone(library, live) => {
                Ok(library.view_rollout(library.rollout(id)?, watching(), live)?)
            }
        }
    }

    pub(in crate::cli) fn plan_rollout(&self, new: &NewRollout) -> Result<RolloutPlan> {
        match self {
            Reach::Server(control) => control.post(ROLLOUTS, &RolloutCall::of(new, true)),
            Reach::Alone(library, live) => Ok(library.plan_rollout(new, live)?),
        }
    }

    pub(in crate::cli) fn begin_rollout(&self, new: &NewRollout) -> Result<RolloutView> {
        match self {
            Reach::Server(control) => control.post(ROLLOUTS, &RolloutCall::of(new, false)),
            Reach::Alone(library, live) => {
                let by = Actor::command();
                let begun = library.begin_rollout(new, watching(), live, &by)?;
                Ok(library.view_rollout(begun, watching(), live)?)
            }
        }
    }

    pub(in crate::cli) fn stop_rollout(&self, id: u64, keep: Keep) -> Result<RolloutView> {
        match self {
            Reach::Server(control) => {
                let call = StopRolloutCall {
                    keep,
                    dry_run: false,
                };
                control.post(&format!("{ROLLOUTS}/{id}/stop"), &call)
            }
            Reach::Alone(library, live) => {
                let by = Actor::command();
                let stopped = library.stop_rollout(id, keep, watching(), live, &by)?;
                Ok(library.view_rollout(stopped, watching(), live)?)
            }
        }
    }

    /// Calls machines, or with `dry_run` tells how.
    pub(in crate::cli) fn wake(
        &self,
        clients: &ClientSelector,
        dry_run: bool,
    ) -> Result<Vec<Woken>> {
        match self {
            Reach::Server(control) => {
                let path = format!("/api/v1/clients/{clients}/wake");
                control.post(&path, &WakeCall { dry_run })
            }
            Reach::Alone(library, _) => Ok(wake(library, clients, dry_run, &Actor::command())?),
        }
    }
}
