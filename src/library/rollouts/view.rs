//! What a person is shown of a rollout.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::acts::{Watching, seen};
use super::course::Standing;
use super::{Member, Rollout, STAY, Stage};
use crate::library::clients::Client;
use crate::library::error::{Error, Result};
use crate::library::live::Live;
use crate::library::{Library, minute};

/// A rollout, and how far each of its clients is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// The document.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// When canaries that have not stayed by then have failed; nothing where none is tried.
    pub deadline: Option<Timestamp>,
    /// How far each client is, in the order of `members`.
    pub progress: Vec<MemberView>,
}

/// How far a client of a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// Whether it runs the version that is rolled out.
    pub runs_it: bool,
    /// In words.
    pub says: String,
}

impl RolloutView {
    /// How many of its clients run it.
    pub fn running(&self) -> usize {
        self.progress.iter().filter(|one| one.runs_it).count()
    }

    /// How far it is, in words.
    pub fn says(&self) -> String {
        let canaries = self.rollout.members.iter().filter(|one| one.canary).count();
        match &self.rollout.stage {
            Stage::Canaries => {
                let until = self.deadline.map(minute).unwrap_or_default();
                format!("is tried on {canaries} first, until {until}")
            }
            Stage::Rest => "the canaries stayed, the others are given it".to_owned(),
            Stage::Back { why } => format!("is set back: {why}"),
            Stage::Done { at } => format!("everybody was given it, {}", minute(*at)),
            Stage::SetBack { at, why } => format!("set back {}: {why}", minute(*at)),
            Stage::Stopped { at, by } => format!("{by} stopped it {}", minute(*at)),
        }
    }
}

impl Library {
    /// What a person is shown of a rollout.
    pub fn view_rollout(
        &self,
        rollout: Rollout,
        watching: Watching,
        live: &dyn Live,
    ) -> Result<RolloutView> {
        let mut progress = Vec::new();
        for member in &rollout.members {
            progress.push(self.view_member(&rollout, member, watching, live)?);
        }
        let deadline = (rollout.stage == Stage::Canaries).then(|| rollout.deadline(watching.since));
        Ok(RolloutView {
            rollout,
            deadline,
            progress,
        })
    }

    fn view_member(
        &self,
        rollout: &Rollout,
        member: &Member,
        watching: Watching,
        live: &dyn Live,
    ) -> Result<MemberView> {
        let told = |runs_it, says: String| Ok(MemberView { runs_it, says });
        if let Some(trouble) = &member.trouble {
            return told(false, trouble.clone());
        }
        let client = match self.client(&member.mac) {
            Ok(client) => client,
            Err(Error::Unknown { .. }) => return told(false, "it was removed".to_owned()),
            Err(error) => return Err(error),
        };
        if let Some(failing) = &member.failing {
            return told(false, format!("is tried again: {}", failing.why));
        }
        if member.back {
            let waits = rollout.sets_back(&client);
            let waits = waits.map(|waits| format!("; waits for its next boot: {}", waits.act));
            return told(false, format!("set back{}", waits.unwrap_or_default()));
        }
        let seen = seen(rollout, &client, live);
        // Nobody knows how far giving it came that was interrupted, but by what the client has.
        if !member.given || (member.giving && seen.standing == Standing::Otherwise) {
            let says = match rollout.stage {
                Stage::Canaries if !member.canary => "waits for the canaries",
                Stage::Canaries | Stage::Rest => "is given it next",
                _ => "was not given it",
            };
            return told(false, says.to_owned());
        }
        if let Stage::Back { .. } = rollout.stage {
            return told(false, "is set back next".to_owned());
        }
        let booted = seen.boot.filter(|(ran, _)| *ran == rollout.version);
        match (seen.standing, booted, seen.here) {
            (Standing::Otherwise, ..) => {
                let next = client.next_boot().map(|next| next.assignment.image);
                let image = next.unwrap_or_else(|_| client.image.clone());
                told(false, format!("was given {image} since"))
            }
            (Standing::Armed, ..) => told(false, self.waits_for(rollout, &client)),
            (Standing::Applied, Some(_), Some(here)) => {
                let here_for = watching.now.duration_since(here);
                told(
                    true,
                    match here_for >= STAY || !member.canary {
                        true => format!("runs it since {}", minute(here)),
                        false => format!("runs it, for {} s so far", here_for.as_secs().max(0)),
                    },
                )
            }
            (Standing::Applied, Some(_), None) if member.stayed => {
                told(false, "stayed with it, and is off".to_owned())
            }
            (Standing::Applied, Some((_, since)), None) => {
                told(false, format!("booted it {}, and is off", minute(since)))
            }
            (Standing::Applied, None, _) => told(false, self.waits_for(rollout, &client)),
        }
    }

    /// What a client that has the image gets by that at its next boot: the image may mean another version
    /// by now.
    fn waits_for(&self, rollout: &Rollout, client: &Client) -> String {
        let next = client.next_boot();
        let version = next.and_then(|next| match next.fixed {
            Some(version) => Ok(version),
            None => Ok(self.resolve(&next.assignment.image)?.id().clone()),
        });
        match version {
            Ok(version) if version == rollout.version => "gets it at its next boot".to_owned(),
            Ok(version) => format!("gets {version} at its next boot"),
            Err(_) => "has not booted it".to_owned(),
        }
    }
}
