//! The boots of one client that are in memory.

use jiff::{SignedDuration, Timestamp};

use super::line::Line;
use crate::library::{BootId, BootLine, BootOutcome, ClientState, MacAddr};

/// An initiator that is refused tries again every few seconds. Where that has stopped for so long, the
/// machine was switched off.
const INSISTS: SignedDuration = SignedDuration::from_mins(10);

/// How many boots before the latest one wait to be written down.
const BEFORE: usize = 3;

/// What was seen of a client.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The boot that goes on, or was the last one.
    latest: Option<Line>,
    /// Those before it that end, or are not written down yet; the latest last.
    before: Vec<Line>,
    /// The last refusal of a boot that is none of them, or is over.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    at: Timestamp,
    why: String,
}

/// What a refused login means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The boot that goes on has failed by it.
    Fails,
    /// It is told for the first time.
    News,
    /// It was told before.
    Again,
}

/// What is to be written down of a client.
#[derive(Debug)]
pub(in crate::daemon) struct ToKeep {
    pub(in crate::daemon) mac: MacAddr,
    pub(in crate::daemon) lines: Vec<BootLine>,
    /// Those of them that have failed, which no other event tells.
    pub(in crate::daemon) failed: Vec<BootLine>,
}

impl Seen {
    pub(super) fn latest(&mut self) -> Option<&mut Line> {
        self.latest.as_mut()
    }

    /// All of them, the latest last.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.before.iter().chain(&self.latest)
    }

    fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        self.before.iter_mut().chain(&mut self.latest)
    }

    /// The latest boot where `takes` says so, and else a new one.
    pub(super) fn line(&mut self, takes: impl FnOnce(&Line) -> bool, now: Timestamp) -> &mut Line {
        let line = match self.latest.take() {
            Some(line) if takes(&line) => line,
            Some(mut before) => {
                before.superseded(now);
                let next = Line::after(&before, now);
                self.put_before(before);
                next
            }
            None => Line::begun(now),
        };
        self.latest.insert(line)
    }

    /// Keeps a boot that is not the latest.
    fn put_before(&mut self, line: Line) {
        if self.before.len() >= BEFORE {
            self.before.remove(0);
        }
        self.before.push(line);
    }

    /// Goes on with a boot that an earlier run of the server saw.
    pub(super) fn resume(&mut self, line: Line) {
        match self.latest {
            None if line.outcome() == BootOutcome::Booting => self.latest = Some(line),
            _ => self.put_before(line),
        }
    }

    pub(super) fn with_session(&mut self, session: u64) -> Option<&mut Line> {
        self.lines_mut().find(|line| line.has_session(session))
    }

    /// The boot that a login belongs to which was let in.
    pub(super) fn entered(&mut self, boot: &BootId, now: Timestamp) -> Option<&mut Line> {
        self.refused = None;
        // One that comes back may not be the latest: somebody has asked for a script since.
        let line = match self.before.iter().position(|line| line.is_of(boot)) {
            Some(at) => self.before.get_mut(at)?,
            None => self.line(|line| line.is_of(boot) || line.takes_login(now), now),
        };
        line.adopt(boot);
        Some(line)
    }

    /// A login was refused that says to be of this boot.
    pub(super) fn refused(&mut self, boot: Option<&BootId>, why: &str, now: Timestamp) -> Refusal {
        // An older boot that was fenced tries again and again; that is no failure of the one after it.
        let is_it = |line: &&mut Line| {
            line.outcome() == BootOutcome::Booting
                && boot.is_none_or(|boot| !line.is_of_others(boot))
        };
        if let Some(line) = self.latest.as_mut().filter(is_it) {
            return match line.refused(why, now) {
                true => Refusal::Fails,
                false => Refusal::News,
            };
        }
        let known = self.refused.as_ref().is_some_and(|last| last.why == why);
        let why = why.to_owned();
        self.refused = Some(Refused { at: now, why });
        match known {
            true => Refusal::Again,
            false => Refusal::News,
        }
    }

    /// Judges all boots; tells how many that had their script have come to nothing since it was asked last.
    pub(super) fn settle(&mut self, now: Timestamp) -> u64 {
        let lines = self.lines_mut();
        lines.map(|line| u64::from(line.settle(now))).sum()
    }

    /// Whether only its firmware has its disk.
    pub(super) fn is_at_firmware(&self) -> bool {
        self.latest.as_ref().is_some_and(Line::is_at_firmware)
    }

    /// What to say of a client that does not run: its state, since when, and why.
    pub(super) fn judge(&self, now: Timestamp) -> Option<(ClientState, Timestamp, String)> {
        let line = self.latest.as_ref();
        let goes_on = line.is_some_and(|line| line.outcome() == BootOutcome::Booting);
        // A refusal is about the boot that it ended, so what began later is a new try.
        let refused = self.refused.as_ref().filter(|refused| {
            !goes_on
                && line.is_none_or(|line| line.began() <= refused.at)
                && now.duration_since(refused.at) < INSISTS
        });
        if let Some(refused) = refused {
            return Some((ClientState::Failed, refused.at, refused.why.clone()));
        }
        let line = line?;
        if goes_on && let Some(tried) = line.circles() {
            let why = format!("it tries again and again: {}", tried.told);
            return Some((ClientState::Failed, tried.since, why));
        }
        let state = match line.outcome() {
            BootOutcome::Booting => ClientState::Booting,
            BootOutcome::Failed => ClientState::Failed,
            BootOutcome::Up | BootOutcome::Ended => return None,
        };
        Some((state, line.began(), line.shown().told))
    }

    /// What of its boots is to be written down: those that `which` says, as if they were.
    pub(super) fn keep(
        &mut self,
        mac: MacAddr,
        which: impl Fn(&Line) -> bool,
        now: Timestamp,
    ) -> ToKeep {
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for line in self.lines_mut().filter(|line| which(line)) {
            let shown = line.shown();
            if line.written(now) {
                failed.push(shown.clone());
            }
            lines.push(shown);
        }
        ToKeep { mac, lines, failed }
    }

    /// What was to be written down is. Boots that are over are forgotten.
    pub(super) fn kept(&mut self) {
        self.before.retain(|line| !line.is_over());
    }

    /// What was to be written down is not.
    pub(super) fn not_kept(&mut self, boots: &ToKeep) {
        let has = |lines: &[BootLine], began| lines.iter().any(|line| line.began == began);
        for line in self.lines_mut() {
            let began = line.began();
            if has(&boots.lines, began) {
                line.not_written(has(&boots.failed, began));
            }
        }
    }
}
