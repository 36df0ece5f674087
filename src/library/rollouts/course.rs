//! What a rollout does next, from its document, the clock and what is known of its clients. Nothing here
//! reads or writes a file, so every rule about when canaries have failed is in one place.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Member, Rollout, STAY, Stage, gives};
use crate::library::clients::{Act, AssignTo, Client};
use crate::library::names::VersionId;
use crate::library::{MacAddr, minute};

/// How long canaries have at least that somebody watches again.
const SEEN_ANEW: SignedDuration = SignedDuration::from_mins(30);

/// What is known when a rollout is looked at.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The time.
    pub(super) now: Timestamp,
    /// Since when somebody watches: a canary is not blamed for what nobody could see.
    pub(super) watching: Timestamp,
    /// The version that the image means now, if it means any.
    pub(super) means: Option<VersionId>,
    /// The clients that there are.
    pub(super) clients: BTreeMap<MacAddr, Seen>,
}

/// What is known of a client.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Whether it has what the rollout gave it.
    pub(super) standing: Standing,
    /// The version that its last boot runs, and when that began.
    pub(super) boot: Option<(VersionId, Timestamp)>,
    /// Since when this boot's system has its disk without a break; nothing while it has not.
    pub(super) here: Option<Timestamp>,
}

/// Whether a client has what a rollout gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits for the client's next boot.
    Armed,
    /// The client is assigned to it.
    Applied,
    /// It was never given, or somebody gave the client something else since.
    Otherwise,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing yet, or nothing ever.
    Wait,
    /// These get the image at their next boot.
    Give(Vec<MacAddr>),
    /// The canaries have stayed: everybody may have it.
    Proven,
    /// It is no good: whoever has it is set back.
    Fail(String),
    /// These are set back.
    TakeBack(Vec<MacAddr>),
    /// It is over.
    End(Stage),
}

impl Standing {
    pub(super) fn of(client: &Client, rollout: &Rollout) -> Self {
        let wanted = &rollout.image;
        let armed = client.armed.as_ref().map(|armed| &armed.act);
        match armed {
            Some(act) if gives(act, wanted) => Standing::Armed,
            Some(Act::Assign(AssignTo { image: Some(_), .. }) | Act::Undo | Act::Restore(_)) => {
                Standing::Otherwise
            }
            // Another disk of the same image.
            _ if client.image == *wanted => Standing::Applied,
            _ => Standing::Otherwise,
        }
    }
}

impl Rollout {
    /// What is next, by what is known now.
    pub(super) fn next(&self, facts: &Facts) -> Next {
        match &self.stage {
            Stage::Canaries => self.try_canaries(facts),
            Stage::Rest => match self.not_given(facts, |_| true) {
                some if !some.is_empty() => Next::Give(some),
                _ => Next::End(Stage::Done { at: facts.now }),
            },
            Stage::Back { why } => {
                let to_do = |one: &&Member| one.given && !one.back && one.trouble.is_none();
                let to_do: Vec<MacAddr> =
                    self.members.iter().filter(to_do).map(|m| m.mac).collect();
                match to_do.is_empty() {
                    false => Next::TakeBack(to_do),
                    true => Next::End(Stage::SetBack {
                        at: facts.now,
                        why: why.clone(),
                    }),
                }
            }
            Stage::Done { .. } | Stage::SetBack { .. } | Stage::Stopped { .. } => Next::Wait,
        }
    }

    /// When canaries that have not stayed by then have failed. Whoever watches only now gives them a
    /// while to be seen; not all the time again, which a server that restarts every night would never
    /// let end.
    pub(super) fn deadline(&self, watching: Timestamp) -> Timestamp {
        let within = self.within.duration();
        let after = |from: Timestamp, time| from.checked_add(time).unwrap_or(Timestamp::MAX);
        after(self.began, within).max(after(watching, within.min(SEEN_ANEW)))
    }

    /// Notes which canaries have stayed: who is shut down afterwards has proven it all the same. Tells
    /// whether that is news.
    pub(super) fn note_stays(&mut self, facts: &Facts) -> bool {
        if self.stage != Stage::Canaries {
            return false;
        }
        let stays = |member: &Member| {
            let seen = facts.clients.get(&member.mac);
            seen.is_some_and(|seen| self.lacks(member, seen, facts).is_none())
        };
        let anew = self
            .members
            .iter()
            .filter(|one| one.canary && !one.stayed && stays(one));
        let anew: Vec<MacAddr> = anew.map(|one| one.mac).collect();
        self.mark(&anew, |one| one.stayed = true);
        !anew.is_empty()
    }

    fn try_canaries(&self, facts: &Facts) -> Next {
        let (wanted, image) = (&self.version, &self.image);
        match &facts.means {
            Some(means) if means == wanted => {}
            Some(means) => {
                let why =
                    format!("{image} means {means} now, and the canaries were given {wanted}");
                return Next::Fail(why);
            }
            None => return Next::Fail(format!("there is no {wanted} any more")),
        }
        let canaries = || self.members.iter().filter(|member| member.canary);
        let not_given = self.not_given(facts, |member| member.canary);
        if !not_given.is_empty() {
            return Next::Give(not_given);
        }
        if let Some((name, why)) =
            canaries().find_map(|one| Some((&one.name, one.trouble.as_ref()?)))
        {
            return Next::Fail(format!("{name} could not be given {image}: {why}"));
        }
        // Who was removed, or got something else from somebody, proves nothing any more.
        let left: Vec<(&Member, &Seen)> = canaries()
            .filter_map(|member| Some((member, facts.clients.get(&member.mac)?)))
            .filter(|(_, seen)| seen.standing != Standing::Otherwise)
            .collect();
        if left.is_empty() {
            let why = "no canary is left: each was removed, or given something else by somebody";
            return Next::Fail(why.to_owned());
        }
        let missing: Vec<String> = left
            .iter()
            .filter_map(|(member, seen)| self.lacks(member, seen, facts))
            .collect();
        match missing.is_empty() {
            true => Next::Proven,
            false if facts.now >= self.deadline(facts.watching) => {
                Next::Fail(format!("within {} {}", self.within, missing.join("; ")))
            }
            false => Next::Wait,
        }
    }

    /// What a canary has not done yet, in words.
    fn lacks(&self, member: &Member, seen: &Seen, facts: &Facts) -> Option<String> {
        if member.stayed {
            return None;
        }
        let name = &member.name;
        let version = &self.version;
        let booted = seen.boot.as_ref().filter(|(ran, _)| ran == version);
        let (Standing::Applied, Some((_, since))) = (seen.standing, booted) else {
            return Some(format!("{name} did not log in to the disk of {version}"));
        };
        match seen.here {
            Some(here) if facts.now.duration_since(here) >= STAY => None,
            Some(here) => Some(format!(
                "{name} did not stay for 2 minutes: it is there only since {}",
                minute(here)
            )),
            None => Some(format!(
                "{name} logged in to the disk of {version} at {} and did not stay",
                minute(*since)
            )),
        }
    }

    /// Members that are there and were not given the image, nor failed to be.
    fn not_given(&self, facts: &Facts, which: impl Fn(&Member) -> bool) -> Vec<MacAddr> {
        let members = self.members.iter().filter(|member| which(member));
        members
            .filter(|member| (!member.given || member.giving) && member.trouble.is_none())
            .filter(|member| facts.clients.contains_key(&member.mac))
            .map(|member| member.mac)
            .collect()
    }
}
