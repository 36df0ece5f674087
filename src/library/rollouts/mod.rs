//! Rollouts: an image for many clients, tried on a few of them first.
//!
//! The canaries get it at their next boot. Once each of them has logged in to its disk and stayed there
//! for a while, the others get it; where they have not by a given time, all are set back.
//!
//! - `course`: what a rollout does next, as a value: the clock and what is known of the clients go in
//! - `acts`: begin, stop, and do what is next; whoever serves asks for that every few seconds
//! - `view`: what a person is shown; `within`: how long canaries have

mod acts;
mod course;
mod view;
mod within;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use acts::{Keep, NewRollout, RolloutPlan, Watching};
pub use view::{MemberView, RolloutView};
pub use within::Within;

use super::clients::{Act, Armed, AssignTo, Assignment, Client, ClientSelector};
use super::document::{self, Document};
use super::error::{Error, Result};
use super::events::{Actor, Event};
use super::lock::WriteLock;
use super::names::{ClientName, VersionId, VersionSpec};
use super::{Library, MacAddr};

/// How long a canary has to stay logged in without a break: what kills a machine after its login
/// mostly does so within this time.
pub(crate) const STAY: SignedDuration = SignedDuration::from_mins(2);

/// How long something is tried again that the operating system refuses: a disk may be full, or away.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// So many rollouts that are over are kept.
const KEPT: usize = 50;

/// A rollout's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Counts the changes of the document.
    pub revision: u64,
    /// Its number, from 1.
    pub id: u64,
    /// Whom it was asked for.
    pub clients: ClientSelector,
    /// What they are to boot.
    pub image: VersionSpec,
    /// The version that this meant when it began, which is the one that the canaries prove.
    pub version: VersionId,
    /// How long the canaries have.
    pub within: Within,
    /// Who asked for it.
    pub by: Actor,
    /// When.
    pub began: Timestamp,
    /// How far it is.
    pub stage: Stage,
    /// The clients, canaries first.
    pub members: Vec<Member>,
}

/// A client of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its address.
    pub mac: MacAddr,
    /// Its name when the rollout began.
    pub name: ClientName,
    /// Whether it goes before the others.
    pub canary: bool,
    /// What it was assigned to before.
    pub before: Assignment,
    /// Since when a reset had waited for its next boot until it was given the image: it waits again when it
    /// is set back.
    #[serde(default)]
    pub waited: Option<Timestamp>,
    /// Whether it was given the image, or was about to be.
    pub given: bool,
    /// Whether that is under way: the server may have ended before it was done.
    #[serde(default)]
    pub giving: bool,
    /// Whether it was seen to stay as long as a canary has to.
    #[serde(default)]
    pub stayed: bool,
    /// Whether it was set back.
    pub back: bool,
    /// Since when it cannot be given the image, or not be set back, and why: it is tried again for a
    /// while.
    #[serde(default)]
    pub failing: Option<TriedAgain>,
    /// Why it could not be given the image, or not be set back.
    pub trouble: Option<String>,
}

/// What does not work with a member, and may work later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriedAgain {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub why: String,
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Stage {
    /// The canaries try it.
    Canaries,
    /// They stayed: the others are given it.
    Rest,
    /// All that were given it are set back.
    Back {
        /// Why.
        why: String,
    },
    /// Everybody was given it.
    Done {
        /// Since when.
        at: Timestamp,
    },
    /// Everybody is set back.
    SetBack {
        /// Since when.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// Somebody stopped it, and those who have the image keep it.
    Stopped {
        /// Since when.
        at: Timestamp,
        /// Who.
        by: String,
    },
}

impl Stage {
    /// Whether nothing will happen any more.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Stage::Done { .. } | Stage::SetBack { .. } | Stage::Stopped { .. }
        )
    }

    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Stage::Canaries => "canaries",
            Stage::Rest => "rest",
            Stage::Back { .. } => "setting back",
            Stage::Done { .. } => "done",
            Stage::SetBack { .. } => "set back",
            Stage::Stopped { .. } => "stopped",
        }
    }
}

impl Document for Rollout {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Rollout {
    /// What its clients are given.
    pub(super) fn act(&self) -> Act {
        assign(&self.image)
    }

    /// Whether nobody has given a client something else since the rollout began.
    fn is_as_before(&self, client: &Client) -> bool {
        let before = self.member(&client.mac);
        let since = |armed: &Armed| {
            let gives = matches!(armed.act, Act::Assign(_) | Act::Undo | Act::Restore(_));
            gives && armed.since > self.began
        };
        before.is_some_and(|member| member.before == client.assignment())
            && !client.armed.as_ref().is_some_and(since)
    }

    /// What waits for a client's next boot, where that is what sets it back.
    fn sets_back<'a>(&self, client: &'a Client) -> Option<&'a Armed> {
        let is_last = client.rollout == Some(self.id);
        let member = self.member(&client.mac).filter(|one| one.back && is_last)?;
        let has_it = client.image == self.image;
        client.armed.as_ref().filter(|waits| match &waits.act {
            Act::Reset => member.waited == Some(waits.since),
            Act::Undo => has_it,
            act => has_it && *act == Act::Assign(member.before.clone().into()),
        })
    }

    fn member(&self, mac: &MacAddr) -> Option<&Member> {
        self.members.iter().find(|member| member.mac == *mac)
    }

    fn event(&self, what: &str, by: &Actor) -> Event {
        Event::new(by, what)
            .of(&self.clients)
            .with("rollout", self.id)
            .with("image", self.image.to_string())
    }

    /// Notes something about these members.
    fn mark(&mut self, macs: &[MacAddr], note: impl Fn(&mut Member)) {
        let members = self.members.iter_mut();
        members
            .filter(|member| macs.contains(&member.mac))
            .for_each(note);
    }
}

/// Whether an act gives a client this image.
fn gives(act: &Act, image: &VersionSpec) -> bool {
    matches!(act, Act::Assign(AssignTo { image: Some(given), .. }) if given == image)
}

fn assign(image: &VersionSpec) -> Act {
    Act::Assign(AssignTo {
        image: Some(image.clone()),
        mode: None,
    })
}

impl Library {
    /// All rollouts, the newest first. One whose document cannot be understood is left out, and the log
    /// says so.
    pub fn rollouts(&self) -> Result<Vec<Rollout>> {
        let mut rollouts = Vec::new();
        for id in self.rollout_ids()?.into_iter().rev() {
            match document::read(&self.rollout_place(id)) {
                Ok(rollout) => rollouts.extend(rollout),
                Err(error @ Error::Document { .. }) => {
                    tracing::warn!("{}", super::error::chain(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(rollouts)
    }

    /// One rollout.
    pub fn rollout(&self, id: u64) -> Result<Rollout> {
        document::read(&self.rollout_place(id))?.ok_or_else(|| Error::unknown("rollout", id))
    }

    /// The rollout that a client is in the middle of.
    pub fn rollout_of(&self, client: &Client) -> Result<Option<Rollout>> {
        let mut open = self.rollouts()?.into_iter().filter(Rollout::is_open);
        Ok(open.find(|rollout| rollout.members.iter().any(|one| one.mac == client.mac)))
    }

    /// Numbers of all rollouts, ascending.
    fn rollout_ids(&self) -> Result<Vec<u64>> {
        let names = document::names(&self.places().rollouts())?;
        let mut ids: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn rollout_place(&self, id: u64) -> PathBuf {
        self.places().rollouts().join(format!("{id}.json"))
    }

    fn write_rollout(&self, rollout: &mut Rollout) -> Result<()> {
        let lock = self.write_lock()?;
        document::write(&lock, &self.rollout_place(rollout.id), rollout)
    }

    /// Removes the oldest of those that are over.
    fn prune_rollouts(&self, lock: &WriteLock) -> Result<()> {
        let over = self.rollouts()?.into_iter().filter(|one| !one.is_open());
        for rollout in over.skip(KEPT) {
            document::remove(lock, &self.rollout_place(rollout.id))?;
        }
        Ok(())
    }
}

impl Rollout {
    /// Whether something is still to happen.
    pub fn is_open(&self) -> bool {
        !self.stage.is_final()
    }
}
