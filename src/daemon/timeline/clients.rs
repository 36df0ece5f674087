//! The boots of all clients: whose something is that was seen, and what is to be written down.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::Fetch;
use super::line::{Initiates, Instead, Line, PATIENCE};
use super::seen::{Refusal, Seen, ToKeep};
use crate::iscsi::End;
use crate::library::{
    BootFailure, BootId, BootLine, BootOutcome, BootStage, BootTicket, ClientState, ClientView,
    Firmware, KernelFrom, MacAddr, VersionId,
};

/// Loaders that are remembered until it is known who fetched them.
const LOADED: usize = 256;

/// How boots came out since the server began. One begins when a client fetches its script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Boots {
    /// Scripts that were fetched; firmware may fetch several for one boot.
    pub scripts: u64,
    /// Boots that were let in to their disk.
    pub up: u64,
    /// Boots whose login was refused.
    pub refused: u64,
    /// Boots that never logged in.
    pub lost: u64,
}

/// What was seen of the boots of all clients.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Timelines {
    clients: HashMap<MacAddr, Seen>,
    loaded: VecDeque<Loaded>,
    boots: Boots,
}

/// Who did something while it boots: some protocols tell only an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A machine with this hardware address.
    Mac(MacAddr),
    /// Whoever is there.
    Peer(IpAddr),
}

/// Where somebody asks from who says that he is a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedFrom {
    /// It is the client, as far as the network can tell.
    Own(IpAddr),
    /// It may be anybody.
    Said(IpAddr),
    /// It is no boot of the client: another machine asks, or somebody on a system that runs.
    NoBoot,
}

/// A session that was let in.
#[derive(Debug, Clone, Copy)]
pub(in crate::daemon) struct Entered {
    pub(in crate::daemon) boot: BootId,
    pub(in crate::daemon) session: u64,
    pub(in crate::daemon) who: Initiates,
    pub(in crate::daemon) peer: IpAddr,
    /// It is the first one of its boot.
    pub(in crate::daemon) begins: bool,
}

/// A loader that somebody fetched whose hardware address is not known yet.
#[derive(Debug)]
struct Loaded {
    peer: IpAddr,
    file: String,
    at: Timestamp,
}

impl Timelines {
    /// A client's firmware has asked by DHCP what to boot.
    pub(in crate::daemon) fn dhcp(
        &mut self,
        mac: MacAddr,
        peer: Option<IpAddr>,
        firmware: Firmware,
        now: Timestamp,
    ) {
        let line = self.seen(mac, now).line(|line| line.takes_dhcp(now), now);
        line.dhcp(firmware, peer, now);
    }

    /// A loader was fetched by a client, or by somebody whose hardware address will be known later.
    pub(in crate::daemon) fn loader(&mut self, of: Whose, file: &str, now: Timestamp) {
        match of {
            Whose::Mac(mac) => {
                let line = self.seen(mac, now).line(|line| line.takes_dhcp(now), now);
                line.loader(file, now);
            }
            Whose::Peer(peer) => {
                if let Some(line) = self.booting_at(peer, |line| line.takes_dhcp(now)) {
                    return line.loader(file, now);
                }
                self.loaded
                    .retain(|one| one.peer != peer && now.duration_since(one.at) < PATIENCE);
                if self.loaded.len() >= LOADED {
                    self.loaded.pop_front();
                }
                self.loaded.push_back(Loaded {
                    peer,
                    file: file.to_owned(),
                    at: now,
                });
            }
        }
    }

    /// A client has fetched its script.
    pub(in crate::daemon) fn script(
        &mut self,
        (ticket, kernel): (&BootTicket, KernelFrom),
        from: AskedFrom,
        now: Timestamp,
    ) {
        self.boots.scripts += 1;
        let Some(peer) = self.place_of(&ticket.client, from, now) else {
            return;
        };
        let at = self.loaded.iter().position(|one| one.peer == peer);
        let loaded = at.and_then(|at| self.loaded.remove(at));
        let seen = self.seen(ticket.client, now);
        let line = seen.line(|line| line.takes_script(now), now);
        if let Some(one) = loaded.filter(|one| now.duration_since(one.at) < PATIENCE)
            && !line.reached(BootStage::Loader)
        {
            line.loader(&one.file, one.at);
        }
        line.script(ticket, kernel, peer, now);
    }

    /// A client has asked for its script, and there is nothing for it. Tells whether that is news.
    pub(in crate::daemon) fn nothing(
        &mut self,
        mac: MacAddr,
        from: AskedFrom,
        why: &str,
        now: Timestamp,
    ) -> bool {
        let Some(peer) = self.place_of(&mac, from, now) else {
            return false;
        };
        let is_own = matches!(from, AskedFrom::Own(_));
        let seen = self.seen(mac, now);
        let takes = |line: &Line| {
            let again = line.takes_nothing(now) || (!is_own && line.was_told(why));
            line.takes_script(now) || again
        };
        let line = seen.line(takes, now);
        line.asked_in_vain(why, peer, now)
    }

    /// A client's machine shows a menu, which goes on by itself after this time.
    pub(in crate::daemon) fn menu(
        &mut self,
        mac: MacAddr,
        waits: SignedDuration,
        from: AskedFrom,
        now: Timestamp,
    ) {
        if let Some(peer) = self.place_of(&mac, from, now) {
            let line = self.seen(mac, now).line(|line| line.takes_script(now), now);
            line.menu(waits, Some(peer), now);
        }
    }

    /// A client has reached a stage that belongs to the boot that goes on, if one does.
    pub(in crate::daemon) fn reached(
        &mut self,
        mac: MacAddr,
        stage: BootStage,
        from: AskedFrom,
        now: Timestamp,
    ) {
        let Some(peer) = self.place_of(&mac, from, now) else {
            return;
        };
        if let Some(line) = self.seen(mac, now).latest() {
            line.reach(stage, Some(peer), now);
        }
    }

    /// A machine boots something else than what it is assigned to.
    pub(in crate::daemon) fn gave_way(
        &mut self,
        mac: MacAddr,
        to: Instead<'_>,
        from: AskedFrom,
        now: Timestamp,
    ) {
        let peer = self.place_of(&mac, from, now);
        let Some(peer) = peer.filter(|_| self.is_booting(&mac, from)) else {
            return;
        };
        let line = self.seen(mac, now).line(|line| line.takes_script(now), now);
        line.gives_way(to, peer, now);
    }

    /// Somebody at `peer` begins to fetch what a script names. Tells the machine by its address and by
    /// what it fetches, so it is nobody's where several boot the same behind one.
    pub(in crate::daemon) fn fetched(
        &mut self,
        peer: IpAddr,
        version: &VersionId,
        (stage, size): (BootStage, u64),
        now: Timestamp,
    ) -> Fetch {
        let fits = |line: &Line| line.reached(BootStage::Script) && line.boots(version);
        let line = self.booting_at(peer, fits);
        Fetch::of(line.map(|line| line.fetch(stage, size, now)))
    }

    /// An initiator asks which targets there are. `mac` is the client that its name is made for.
    pub(in crate::daemon) fn discovery(
        &mut self,
        mac: Option<MacAddr>,
        name: &str,
        peer: IpAddr,
        now: Timestamp,
    ) {
        match mac {
            Some(mac) => {
                let line = self.clients.get_mut(&mac).and_then(Seen::latest);
                if let Some(line) = line.filter(|line| line.outcome() == BootOutcome::Booting) {
                    line.reach(BootStage::Discovery, None, now);
                }
            }
            None => {
                if let Some(line) = self.booting_at(peer, |_| true) {
                    line.reach(BootStage::Discovery, None, now);
                    line.other_name(name, now);
                }
            }
        }
    }

    /// An initiator whose name is no client's has logged in or been refused.
    pub(in crate::daemon) fn other_name(
        &mut self,
        name: &str,
        peer: IpAddr,
        now: Timestamp,
    ) -> bool {
        let line = self.booting_at(peer, |line| line.reached(BootStage::Script));
        line.map(|line| line.other_name(name, now)).is_some()
    }

    /// Where a client asks from, if it is the client, as far as the network and its boots can tell: nothing
    /// that somebody else does is a part of a boot, or ends it.
    fn place_of(&mut self, mac: &MacAddr, from: AskedFrom, now: Timestamp) -> Option<IpAddr> {
        let line = self.clients.get_mut(mac).and_then(Seen::latest);
        match from {
            AskedFrom::Own(peer) => Some(peer),
            AskedFrom::Said(peer) => match line {
                Some(line) if line.is_elsewhere(peer, now) => None,
                _ => Some(peer),
            },
            AskedFrom::NoBoot => None,
        }
    }

    /// Whether who asks from there is a client, or is on its way to the client's disk.
    pub(in crate::daemon) fn is_booting(&mut self, mac: &MacAddr, from: AskedFrom) -> bool {
        let line = self.clients.get_mut(mac).and_then(Seen::latest);
        match from {
            AskedFrom::Own(_) => true,
            AskedFrom::Said(peer) => line.is_some_and(|line| line.is_booting_at(peer)),
            AskedFrom::NoBoot => false,
        }
    }

    /// Whether a boot of a client was seen by this run of the server.
    pub(in crate::daemon) fn knows(&self, mac: &MacAddr, id: &BootId) -> bool {
        let seen = self.clients.get(mac);
        seen.is_some_and(|seen| seen.lines().any(|line| line.is_of(id)))
    }

    /// Takes over a boot that an earlier run of the server saw: it goes on.
    pub(in crate::daemon) fn resume(&mut self, mac: MacAddr, line: BootLine, now: Timestamp) {
        let seen = self.clients.entry(mac).or_default();
        seen.resume(Line::resumed(line, now));
    }

    /// A session of a client was let in, by a boot that begins or that came back.
    pub(in crate::daemon) fn entered(&mut self, mac: MacAddr, entered: Entered, now: Timestamp) {
        let Entered {
            boot,
            session,
            who,
            peer,
            begins,
        } = entered;
        self.boots.up += u64::from(begins);
        let seen = self.clients.entry(mac).or_default();
        if let Some(line) = seen.entered(&boot, now) {
            line.login(session, who, peer, now);
        }
    }

    /// When a session of a client read and wrote first, as far as it has.
    pub(in crate::daemon) fn io(
        &mut self,
        mac: &MacAddr,
        session: u64,
        (read, written): (Option<Timestamp>, Option<Timestamp>),
    ) {
        let seen = self.clients.get_mut(mac);
        if let Some(line) = seen.and_then(|seen| seen.with_session(session)) {
            line.io(session, read, written);
        }
    }

    /// A session of a client is over.
    pub(in crate::daemon) fn left(
        &mut self,
        mac: &MacAddr,
        session: u64,
        end: End,
        now: Timestamp,
    ) {
        let seen = self.clients.get_mut(mac);
        if let Some(line) = seen.and_then(|seen| seen.with_session(session)) {
            line.left(session, end, now);
        }
    }

    /// A client's login was refused; `boot` is which one it says that it is. Tells whether that is news.
    pub(in crate::daemon) fn refused(
        &mut self,
        mac: MacAddr,
        boot: Option<&BootId>,
        why: &str,
        now: Timestamp,
    ) -> bool {
        let seen = self.clients.entry(mac).or_default();
        let refused = seen.refused(boot, why, now);
        self.boots.refused += u64::from(refused == Refusal::Fails);
        refused != Refusal::Again
    }

    /// iPXE says that it could not go on. Only who boots at this address may say so; it is the boot of a
    /// person's client where one logged in there.
    pub(in crate::daemon) fn failure(
        &mut self,
        mac: MacAddr,
        from: AskedFrom,
        failure: BootFailure,
        now: Timestamp,
    ) -> bool {
        let mut line = self.clients.get_mut(&mac).and_then(Seen::latest);
        if let Some((person, boot)) = line.as_ref().and_then(|line| line.boots_as()) {
            line = self.clients.get_mut(&person).and_then(Seen::latest);
            // They may boot at another machine since.
            line = line.filter(|line| line.goes_by(&boot));
        }
        let line = line.filter(|line| line.may_fail(from));
        let failed = line.is_some_and(|line| line.failure(failure, now));
        self.boots.lost += u64::from(failed);
        failed
    }

    /// What was seen of a client, after it was judged.
    pub(super) fn seen(&mut self, mac: MacAddr, now: Timestamp) -> &mut Seen {
        let seen = self.clients.entry(mac).or_default();
        self.boots.lost += seen.settle(now);
        seen
    }

    /// The boot that goes on at an address, if it is only one.
    fn booting_at(&mut self, peer: IpAddr, fits: impl Fn(&Line) -> bool) -> Option<&mut Line> {
        let lines = self.clients.values_mut().filter_map(Seen::latest);
        let mut lines = lines.filter(|line| line.is_booting_at(peer) && fits(line));
        match (lines.next(), lines.next()) {
            (Some(line), None) => Some(line),
            _ => None,
        }
    }

    /// Judges all boots, and tells what of some of them is to be written down now.
    pub(in crate::daemon) fn due(&mut self, now: Timestamp) -> Vec<ToKeep> {
        const AT_A_TIME: usize = 16;
        self.boots(now);
        let due = self.clients.iter_mut();
        let due = due.filter(|(_, seen)| seen.lines().any(|line| line.is_due(now)));
        due.take(AT_A_TIME)
            .map(|(mac, seen)| seen.keep(*mac, Line::is_news, now))
            .collect()
    }

    /// What is to be written down before the end: what is on its way goes on with the next server.
    pub(in crate::daemon) fn rest(&mut self, now: Timestamp) -> Vec<ToKeep> {
        let rest = self.clients.iter_mut();
        let rest = rest.filter(|(_, seen)| seen.lines().any(Line::is_changed));
        rest.map(|(mac, seen)| seen.keep(*mac, Line::is_changed, now))
            .collect()
    }

    /// What was to be written down of a client is.
    pub(in crate::daemon) fn kept(&mut self, mac: &MacAddr) {
        if let Some(seen) = self.clients.get_mut(mac) {
            seen.kept();
        }
    }

    /// What was to be written down of a client is not: that is tried again.
    pub(in crate::daemon) fn not_kept(&mut self, boots: &ToKeep) {
        if let Some(seen) = self.clients.get_mut(&boots.mac) {
            seen.not_kept(boots);
        }
    }

    /// The boots of a client that are in memory.
    pub(in crate::daemon) fn lines(&self, mac: &MacAddr) -> Vec<BootLine> {
        let seen = self.clients.get(mac);
        seen.map_or_else(Vec::new, |seen| seen.lines().map(Line::shown).collect())
    }

    /// How boots came out until now.
    pub(in crate::daemon) fn boots(&mut self, now: Timestamp) -> Boots {
        let lost = self.clients.values_mut().map(|seen| seen.settle(now));
        self.boots.lost += lost.sum::<u64>();
        self.boots
    }

    /// Tells of a client what its document does not.
    pub(in crate::daemon) fn refine(&mut self, view: &mut ClientView, now: Timestamp) {
        let seen = self.seen(view.client.mac, now);
        if view.state == ClientState::Up && !seen.is_at_firmware() {
            return;
        }
        if let Some((state, since, why)) = seen.judge(now) {
            (view.state, view.since, view.why) = (state, Some(since), Some(why));
        } else if view.state == ClientState::Booting {
            view.why = Some("its first login is being prepared".to_owned());
        }
    }

    /// Forgets clients that are none any more.
    pub(in crate::daemon) fn retain(&mut self, is_client: impl Fn(&MacAddr) -> bool) {
        self.clients.retain(|mac, _| is_client(mac));
    }
}
