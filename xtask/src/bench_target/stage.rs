//! Everybody on one stage: disks are made, servers started, and scenarios played.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Peer;
use super::contender::{Contender, NETROOT, Unit, start_null};
use super::judge::{Outcome, Shown};
use super::measure::{How, Sessions};
use super::ours::Library;
use super::place::{Kind, Place, warm};
use super::scenario::{ROOM, Scenario, Work};
use super::tools::Tool;
use super::{limits, tgt};

/// Everybody, ready.
pub(super) struct Stage {
    peer: Contender,
    ours: Contender,
    null: Contender,
    /// The file that everybody reads.
    pub(super) sealed: PathBuf,
    // Its directory goes with it, after everybody has ended.
    place: Place,
}

impl Stage {
    /// Makes disks, and starts all servers.
    ///
    /// # Errors
    /// When this is not root, or one of them does not start.
    pub(super) fn set(binary: Option<&Path>, peer: Peer, chosen: &[&Scenario]) -> Result<Self> {
        let mut place = Place::enter()?;
        let has = |unit| chosen.iter().any(|scenario| scenario.unit == unit);
        let room = if has(Unit::Room) { ROOM } else { 0 };
        let xfs = place.ground(Kind::Xfs)?;
        let ext4 = has(Unit::Overlay)
            .then(|| place.ground(Kind::Ext4))
            .transpose()?;
        let (ours, sealed) = match peer {
            Peer::Tgt => {
                let binary = binary.context("there is no netroot to measure")?;
                let mut ours = Contender::new(NETROOT);
                let mut library = Library::new(binary, &xfs)?;
                let sealed = library.sealed();
                library.add_clients(Unit::Sealed, 1)?;
                library.add_clients(Unit::Clone, 1)?;
                library.add_clients(Unit::Room, room)?;
                library.add_volume(&xfs.disk)?;
                library.serve(&mut ours)?;
                if let Some(ext4) = &ext4 {
                    let mut library = Library::new(binary, ext4)?;
                    library.add_clients(Unit::Overlay, 1)?;
                    warm(&library.sealed())?;
                    library.serve(&mut ours)?;
                }
                (ours, sealed)
            }
            Peer::TgtTgt => {
                let disk = xfs.disk.clone();
                (
                    tgt::start("tgt again", &disk, &xfs, ext4.as_ref(), room)?,
                    disk,
                )
            }
        };
        let peer = tgt::start("tgt", &sealed, &xfs, ext4.as_ref(), room)?;
        for contender in [&peer, &ours] {
            contender.warm()?;
        }
        Ok(Stage {
            peer,
            ours,
            null: start_null()?,
            sealed,
            place,
        })
    }

    /// A scenario in all its rounds.
    ///
    /// # Errors
    /// When a server fails, or an answer is not as it must be.
    pub(super) fn play(
        &self,
        scenario: &'static Scenario,
        how: &How,
        rounds: usize,
    ) -> Result<Outcome> {
        let rounds = match scenario.work {
            // Memory that was used once is not given back: it shows in the first round only.
            Work::Idle(_) => 1,
            Work::Storm(_) => rounds.min(how.storms),
            _ => rounds,
        };
        let mut all = self.contest(scenario, how)?;
        let mut sendfile = Vec::new();
        for _ in 0..rounds {
            for (sessions, shown) in &mut all {
                let slice = sessions.slice().with_context(|| shown.name)?;
                shown.slices.push(slice);
            }
            // Who was first is last next time: whatever the machine does meanwhile hits all alike.
            all.reverse();
            if scenario.is_like_sendfile() {
                let rate = limits::sendfile(&self.sealed, how.time)?;
                sendfile.push(rate);
            }
        }
        let ours = all
            .iter_mut()
            .find(|(_, shown)| shown.name == self.ours.name);
        let (sessions, _) = ours.context("netroot is missing")?;
        let profile = sessions.profile(self.place.dir())?;
        if how.verify {
            for (sessions, shown) in &all {
                sessions.read_back().with_context(|| shown.name)?;
            }
        }
        let mut shown = |name| {
            let place = all.iter().position(|(_, shown)| shown.name == name)?;
            Some(all.swap_remove(place).1)
        };
        Ok(Outcome {
            scenario,
            peer: shown(self.peer.name).context("the peer is missing")?,
            ours: shown(self.ours.name).context("netroot is missing")?,
            null: shown(self.null.name),
            sendfile,
            profile,
        })
    }

    /// Those who are measured in a scenario, with their sessions.
    fn contest<'a>(
        &'a self,
        scenario: &'a Scenario,
        how: &'a How,
    ) -> Result<Vec<(Sessions<'a>, Shown)>> {
        // The null target knows what our own generator says, and no more, and has one disk.
        let with_null = how.tool == Tool::Own
            && self.null.has(scenario.unit)
            && !matches!(scenario.work, Work::Idle(_));
        let contenders = [&self.peer, &self.ours, &self.null].into_iter();
        let open = |contender: &'a Contender| {
            let name = contender.name;
            let sessions = Sessions::open(scenario, how, contender).context(name)?;
            let slices = Vec::new();
            Ok((sessions, Shown { name, slices }))
        };
        contenders
            .take(if with_null { 3 } else { 2 })
            .map(open)
            .collect()
    }
}
