//! One boot of a client while it goes on: what is seen of it is put where it belongs, and after some
//! silence it has failed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::clients::AskedFrom;
use super::fetch::Moving;

use crate::iscsi::{End, Isid};
use crate::library::{
    BootEnd, BootFailure, BootId, BootLine, BootOutcome, BootStage, BootStep, BootTicket,
    ClientName, Firmware, KernelFrom, MacAddr, MenuSeconds, VersionId, mask_boot_ids,
};

/// Whoever has its script and does not log in for so long has failed: kernels of slow machines over
/// slow networks are there in less.
pub(in crate::daemon) const PATIENCE: SignedDuration = SignedDuration::from_mins(3);

/// Whoever is heard, and comes no farther for so long, goes in circles: firmware asks again for its loader
/// when it could not start it, and goes through all that it can boot from in less.
const CIRCLES: SignedDuration = SignedDuration::from_mins(5);

/// Firmware fetches its script again within so long when it tries another card, or is told another way.
const SAME_TRY: SignedDuration = SignedDuration::from_secs(15);

/// What is written down again and again is not, more often than this.
const WRITTEN: SignedDuration = SignedDuration::from_secs(10);

/// A boot fetches few files, and firmware may ask for one of them several times.
const FETCHES: usize = 32;

/// A boot that goes on, or did until a while ago.
#[derive(Debug)]
pub(in crate::daemon) struct Line {
    seen: BootLine,
    /// The boot ids of its scripts as they are told, the latest last.
    ids: Vec<String>,
    sessions: HashMap<u64, Initiates>,
    fetches: Vec<(BootStage, Arc<Moving>)>,
    /// When something was seen of it last.
    touched: Timestamp,
    /// When it reached a stage last that it had not reached before.
    advanced: Timestamp,
    /// Until when the menu that it shows waits for somebody.
    chosen_by: Option<Timestamp>,
    /// It has changed since it was written down.
    changed: bool,
    written: Option<Timestamp>,
    /// It has failed, and no event tells that.
    untold: bool,
    /// It has failed after it had its script, and is not counted.
    uncounted: bool,
    /// When the machine began to boot anew, while its system had its disk.
    anew: Option<Timestamp>,
    /// How the machine failed until then.
    tried: Option<Tried>,
    /// The client that its machine boots as in its place, and by which script.
    boots_as: Option<(MacAddr, BootId)>,
}

/// How a machine failed that began to boot anew soon after.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Tried {
    pub(in crate::daemon) told: String,
    /// The same without what differs each time.
    how: String,
    /// How far it came.
    last: Option<BootStage>,
    /// How often it failed so, one time after the other.
    times: u32,
    /// When the first of them began.
    pub(in crate::daemon) since: Timestamp,
}

/// What a machine boots in place of what it is assigned to.
#[derive(Debug, Clone, Copy)]
pub(in crate::daemon) enum Instead<'a> {
    /// Its local disk.
    LocalDisk,
    /// The disk of a person who logged in there: the script's ticket, and the name of that client.
    Person(&'a BootTicket, &'a ClientName),
}

/// What of a machine an initiator is.
///
/// iPXE's session identifier begins with the enterprise number of Fen Systems, 10019, in the format that
/// RFC 7143 §11.12.5 has for those (T = 01b), whatever else iPXE negotiates now or later. No system's
/// initiator has it: open-iscsi uses an OUI (00-02-3D), Microsoft's the number 311. What a session
/// negotiates is a matter of settings, and which one came second of chance: multipath has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Initiates {
    Firmware,
    System,
}

impl Initiates {
    pub(in crate::daemon) fn of(isid: Isid) -> Self {
        const FEN_SYSTEMS: [u8; 4] = [0x40, 0x00, 0x27, 0x23];
        match isid.0.starts_with(&FEN_SYSTEMS) {
            true => Initiates::Firmware,
            false => Initiates::System,
        }
    }
}

impl Line {
    /// A boot of which something is seen for the first time.
    pub(in crate::daemon) fn begun(now: Timestamp) -> Self {
        Line {
            seen: BootLine::new(now),
            ids: Vec::new(),
            sessions: HashMap::new(),
            fetches: Vec::new(),
            touched: now,
            advanced: now,
            chosen_by: None,
            changed: true,
            written: None,
            untold: false,
            uncounted: false,
            anew: None,
            tried: None,
            boots_as: None,
        }
    }

    /// The boot of a machine after this one.
    pub(in crate::daemon) fn after(before: &Line, now: Timestamp) -> Self {
        Line {
            tried: before.tried(now),
            ..Line::begun(now)
        }
    }

    /// A boot that an earlier run of the server saw. Where it is on its way it has its time from now on:
    /// nobody could have seen it.
    pub(in crate::daemon) fn resumed(seen: BootLine, now: Timestamp) -> Self {
        let mut line = Line {
            ids: seen.boot.iter().cloned().collect(),
            changed: false,
            seen,
            ..Line::begun(now)
        };
        // Until when a menu waits is not kept.
        let longest = SignedDuration::from_secs(i64::from(MenuSeconds::LONGEST));
        let menu = line.shown_menu();
        line.chosen_by = menu.and_then(|menu| menu.at.checked_add(longest).ok());
        line
    }

    pub(in crate::daemon) fn is_of(&self, id: &BootId) -> bool {
        self.ids.contains(&told(id))
    }

    /// Whether its scripts were for other boots than this one.
    pub(in crate::daemon) fn is_of_others(&self, id: &BootId) -> bool {
        !self.ids.is_empty() && !self.is_of(id)
    }

    /// Whether the script that it fetched last was for this boot.
    pub(in crate::daemon) fn goes_by(&self, id: &BootId) -> bool {
        self.ids.last() == Some(&told(id))
    }

    /// The client that its machine boots as in its place, and by which script.
    pub(in crate::daemon) fn boots_as(&self) -> Option<(MacAddr, BootId)> {
        self.boots_as
    }

    pub(in crate::daemon) fn has_session(&self, id: u64) -> bool {
        self.sessions.contains_key(&id)
    }

    pub(in crate::daemon) fn outcome(&self) -> BootOutcome {
        self.seen.outcome
    }

    pub(in crate::daemon) fn reached(&self, stage: BootStage) -> bool {
        self.seen.reached(stage)
    }

    pub(in crate::daemon) fn began(&self) -> Timestamp {
        self.seen.began
    }

    /// Whether it is on its way to its disk, at this address.
    pub(in crate::daemon) fn is_booting_at(&self, peer: IpAddr) -> bool {
        self.seen.outcome == BootOutcome::Booting && self.seen.peer == Some(peer)
    }

    /// Whether it has its disk at another address than this one, or is on its way there with a script that
    /// was fetched from another. Before, its firmware may have had another lease than its loader gets.
    pub(in crate::daemon) fn is_elsewhere(&self, peer: IpAddr, now: Timestamp) -> bool {
        let is_on_its_way = self.is_waiting(now) && self.reached(BootStage::Script);
        let goes_on = is_on_its_way || !self.sessions.is_empty();
        goes_on && self.seen.peer.is_some_and(|own| own != peer)
    }

    /// Whether DHCP that is seen now belongs to it: firmware asks several times until it has its script.
    pub(in crate::daemon) fn takes_dhcp(&self, now: Timestamp) -> bool {
        self.is_waiting(now) && self.seen.last() <= Some(BootStage::Loader)
    }

    /// Whether a script that is fetched now belongs to it.
    pub(in crate::daemon) fn takes_script(&self, now: Timestamp) -> bool {
        let has_one = self.reached(BootStage::Script);
        self.is_waiting(now)
            && self.seen.last() <= Some(BootStage::Script)
            && (!has_one || self.left_for_menu() || now.duration_since(self.touched) < SAME_TRY)
    }

    /// Whether somebody has pressed the key that leads from its script to a menu: they choose as slowly as
    /// they like.
    fn left_for_menu(&self) -> bool {
        let [script, menu] = [BootStage::Script, BootStage::Menu].map(|one| self.seen.step(one));
        menu.is_some_and(|menu| script.is_some_and(|script| script.at < menu.at))
    }

    /// The menu where it came to nothing after that.
    fn shown_menu(&self) -> Option<&BootStep> {
        let is_last = match self.seen.last() {
            Some(BootStage::Script) => self.left_for_menu(),
            last => last == Some(BootStage::Menu),
        };
        self.seen.step(BootStage::Menu).filter(|_| is_last)
    }

    /// Whether the first login of a boot belongs to it, whose script nobody saw.
    pub(in crate::daemon) fn takes_login(&self, now: Timestamp) -> bool {
        self.is_waiting(now) && self.ids.is_empty()
    }

    /// Whether a client that is told again that there is nothing for it was told so in this boot.
    pub(in crate::daemon) fn takes_nothing(&self, now: Timestamp) -> bool {
        self.seen.outcome == BootOutcome::Failed
            && self.ids.is_empty()
            && now.duration_since(self.touched) < SAME_TRY
    }

    /// Whether all that it came to is to be told that there is nothing for it, for this reason.
    pub(in crate::daemon) fn was_told(&self, why: &str) -> bool {
        self.seen.outcome == BootOutcome::Failed
            && self.ids.is_empty()
            && self.seen.refused.as_deref() == Some(why)
    }

    /// Whether only its firmware has its disk.
    pub(in crate::daemon) fn is_at_firmware(&self) -> bool {
        let never_up = matches!(
            self.seen.outcome,
            BootOutcome::Booting | BootOutcome::Failed
        );
        never_up && !self.sessions.is_empty() && !self.has_system()
    }

    /// Whether its system has its disk. What its firmware has stays attached while a boot fails in iPXE.
    fn has_system(&self) -> bool {
        let mut sessions = self.sessions.values();
        sessions.any(|who| *who == Initiates::System)
    }

    fn is_waiting(&self, now: Timestamp) -> bool {
        self.seen.outcome == BootOutcome::Booting && !self.has_stopped(now)
    }

    /// Whether nothing was heard of it for long, or nothing new for longer.
    fn has_stopped(&self, now: Timestamp) -> bool {
        // A menu takes its time before anything is to be heard.
        let later = |seen: Timestamp| self.chosen_by.map_or(seen, |by| by.max(seen));
        let since = |seen| now.duration_since(self.moved_or(later(seen)));
        since(self.touched) >= PATIENCE || since(self.advanced) >= CIRCLES
    }

    /// When the last part of its files was sent, if that was later than this.
    fn moved_or(&self, seen: Timestamp) -> Timestamp {
        let moved = self.fetches.iter().filter_map(|(_, moving)| moving.moved());
        moved.fold(seen, Timestamp::max)
    }

    /// How it failed, for a boot of its machine that begins now, soon after.
    fn tried(&self, now: Timestamp) -> Option<Tried> {
        let soon = now.duration_since(self.moved_or(self.touched)) < PATIENCE;
        if self.seen.outcome != BootOutcome::Failed || !soon {
            return None;
        }
        let told = self.shown().told;
        let how = self.how();
        let alike = self.tried.as_ref().filter(|tried| tried.how == how);
        Some(Tried {
            how,
            last: self.seen.last(),
            times: alike.map_or(1, |tried| tried.times.saturating_add(1)),
            since: alike.map_or(self.seen.began, |tried| tried.since),
            told,
        })
    }

    /// How its machine fails again and again, as long as this boot came no farther.
    pub(in crate::daemon) fn circles(&self) -> Option<&Tried> {
        let tried = self.tried.as_ref();
        tried.filter(|tried| tried.times > 1 && self.seen.last() <= tried.last)
    }

    /// It reached a stage, of which there may be more to tell.
    fn step(&mut self, stage: BootStage, now: Timestamp, tell: impl FnOnce(&mut BootStep)) {
        self.touched = self.touched.max(now);
        self.changed = true;
        let steps = &mut self.seen.steps;
        let at = steps.partition_point(|step| step.stage < stage);
        if steps.get(at).is_none_or(|step| step.stage != stage) {
            steps.insert(at, BootStep::new(stage, now));
            self.advanced = self.advanced.max(now);
        }
        self.chosen_by = None;
        // Somebody is there who goes to and fro.
        if stage == BootStage::Menu {
            self.advanced = self.advanced.max(now);
        }
        if let Some(step) = steps.get_mut(at) {
            tell(step);
        }
    }

    /// It reached a stage of which nothing more is told.
    pub(in crate::daemon) fn reach(
        &mut self,
        stage: BootStage,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) {
        self.step(stage, now, |_| {});
        self.seen.peer = peer.or(self.seen.peer);
    }

    /// It shows a menu, which goes on by itself after this time.
    pub(in crate::daemon) fn menu(
        &mut self,
        waits: SignedDuration,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) {
        self.reach(BootStage::Menu, peer, now);
        self.chosen_by = now.checked_add(waits).ok();
    }

    /// Its firmware has asked by DHCP what to boot.
    pub(in crate::daemon) fn dhcp(
        &mut self,
        firmware: Firmware,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) {
        self.reach(BootStage::Dhcp, peer, now);
        // iPXE's own requests come second, and say what it was built for.
        self.seen.firmware.get_or_insert(firmware);
    }

    /// It has fetched its loader.
    pub(in crate::daemon) fn loader(&mut self, file: &str, at: Timestamp) {
        self.seen.began = self.seen.began.min(at);
        self.step(BootStage::Loader, at, |step| {
            step.file = Some(file.to_owned());
        });
    }

    /// It has fetched its script.
    pub(in crate::daemon) fn script(
        &mut self,
        ticket: &BootTicket,
        kernel: KernelFrom,
        peer: IpAddr,
        now: Timestamp,
    ) {
        const OF_ONE_TRY: usize = 4;
        self.reach(BootStage::Script, Some(peer), now);
        self.seen.version = Some(ticket.version.clone());
        self.seen.kernel = Some(kernel);
        self.seen.boot = Some(told(&ticket.id));
        self.seen.own_name = Some(mask_boot_ids(&ticket.initiator));
        if self.ids.len() >= OF_ONE_TRY {
            self.ids.remove(0);
        }
        self.ids.push(told(&ticket.id));
    }

    /// A login tells which boot it is, whose script nobody saw.
    pub(in crate::daemon) fn adopt(&mut self, id: &BootId) {
        self.seen.boot = Some(told(id));
        if !self.is_of(id) {
            self.ids.push(told(id));
        }
    }

    /// It asked what to boot, and there is nothing for it. Tells whether that is news.
    pub(in crate::daemon) fn asked_in_vain(
        &mut self,
        why: &str,
        peer: IpAddr,
        now: Timestamp,
    ) -> bool {
        self.seen.peer = Some(peer);
        let news = self.seen.refused.as_deref() != Some(why);
        self.refused(why, now);
        news
    }

    /// Whether he may say that it failed: the machine itself, or somebody at the address that it boots at.
    pub(in crate::daemon) fn may_fail(&self, from: AskedFrom) -> bool {
        let boots = match from {
            // A boot that never got its script has no address yet.
            AskedFrom::Own(_) => self.seen.outcome == BootOutcome::Booting,
            AskedFrom::Said(peer) => self.is_booting_at(peer),
            AskedFrom::NoBoot => false,
        };
        boots && !self.has_system()
    }

    /// Whether nothing more is to be seen of it.
    pub(in crate::daemon) fn is_over(&self) -> bool {
        self.sessions.is_empty() && self.seen.outcome != BootOutcome::Booting && !self.changed
    }

    /// Whether a file of this version is one that its script names, as far as is known.
    pub(in crate::daemon) fn boots(&self, version: &VersionId) -> bool {
        self.seen.version.as_ref().is_none_or(|own| own == version)
    }

    /// A file begins to be sent.
    pub(in crate::daemon) fn fetch(
        &mut self,
        stage: BootStage,
        size: u64,
        now: Timestamp,
    ) -> Arc<Moving> {
        self.step(stage, now, |step| step.of = Some(size));
        let moving = Arc::new(Moving::new(size));
        if self.fetches.len() >= FETCHES {
            self.fetches.remove(0);
        }
        self.fetches.push((stage, moving.clone()));
        moving
    }

    /// A session of it was let in.
    pub(in crate::daemon) fn login(
        &mut self,
        session: u64,
        who: Initiates,
        peer: IpAddr,
        now: Timestamp,
    ) {
        let comes_back = self.sessions.is_empty() && self.reached(BootStage::System);
        self.sessions.insert(session, who);
        self.reach(
            match who {
                Initiates::Firmware => BootStage::Firmware,
                Initiates::System => BootStage::System,
            },
            Some(peer),
            now,
        );
        self.seen.end = None;
        self.anew = None;
        self.seen.steps.retain(|step| step.stage != BootStage::End);
        if who == Initiates::System || comes_back {
            self.seen.outcome = BootOutcome::Up;
        } else if self.seen.outcome == BootOutcome::Failed {
            self.seen.outcome = BootOutcome::Booting;
        }
        self.seen.reconnects += u32::from(comes_back);
    }

    /// When a session of its system read and wrote first, as far as it has.
    pub(in crate::daemon) fn io(
        &mut self,
        session: u64,
        read: Option<Timestamp>,
        written: Option<Timestamp>,
    ) {
        if self.sessions.get(&session) != Some(&Initiates::System) {
            return;
        }
        for (stage, at) in [
            (BootStage::FirstRead, read),
            (BootStage::FirstWrite, written),
        ] {
            if let Some(at) = at.filter(|_| !self.reached(stage)) {
                self.step(stage, at, |_| {});
            }
        }
    }

    /// A session of it is over.
    pub(in crate::daemon) fn left(&mut self, session: u64, end: End, now: Timestamp) {
        if self.sessions.remove(&session).is_none() || !self.sessions.is_empty() {
            return;
        }
        self.touched = now;
        self.advanced = now;
        self.changed = true;
        // A system that answers for longer was not the one that began.
        let just_now = |at| now.duration_since(at) < PATIENCE;
        let end = match end {
            // The one in its place is on its way in.
            End::Reinstated => return,
            End::Logout => BootEnd::LoggedOut,
            // It is missed later, or cut off by the login of the boot after it.
            _ if self.anew.is_some_and(just_now) => BootEnd::Anew,
            End::ConnectionLost | End::TimedOut | End::ProtocolError => BootEnd::Lost,
            End::Kicked | End::Reset | End::ShutDown => BootEnd::CutOff,
        };
        if self.seen.end != Some(BootEnd::Anew) {
            self.seen.end = Some(end);
        }
        if self.seen.outcome == BootOutcome::Up {
            self.step(BootStage::End, now, |_| {});
            self.seen.outcome = BootOutcome::Ended;
        }
    }

    /// Its machine boots something else.
    pub(in crate::daemon) fn gives_way(&mut self, to: Instead<'_>, peer: IpAddr, now: Timestamp) {
        self.reach(BootStage::End, Some(peer), now);
        self.seen.outcome = BootOutcome::Ended;
        self.seen.end = Some(match to {
            Instead::LocalDisk => BootEnd::LocalDisk,
            Instead::Person(ticket, name) => {
                self.seen.person = Some(name.clone());
                self.boots_as = Some((ticket.client, ticket.id));
                BootEnd::Person
            }
        });
    }

    /// The machine has begun to boot anew.
    pub(in crate::daemon) fn superseded(&mut self, now: Timestamp) {
        match self.seen.outcome {
            BootOutcome::Booting => {
                self.seen.end = Some(BootEnd::Anew);
                self.lost();
                // Who only looked at a menu, or asked what to boot, has broken nothing off.
                self.untold &= self.reached(BootStage::Script);
            }
            BootOutcome::Up => self.anew = Some(now),
            BootOutcome::Ended | BootOutcome::Failed => {}
        }
    }

    /// It has failed, and nothing has told so.
    fn lost(&mut self) {
        self.seen.outcome = BootOutcome::Failed;
        self.changed = true;
        self.uncounted = self.reached(BootStage::Script);
        self.untold = self.fails_otherwise();
    }

    /// Whether it failed in another way than its machine did before: what goes on as it was is no news.
    fn fails_otherwise(&self) -> bool {
        let how = self.how();
        let tried = self.tried.as_ref();
        tried.is_none_or(|tried| tried.how != how)
    }

    /// How it failed, without what differs from boot to boot: its own name, the one that its initiator made
    /// up, and how much of a file it has.
    fn how(&self) -> String {
        let mut line = self.shown();
        for name in [&mut line.own_name, &mut line.other_name] {
            *name = name.take().map(|_| String::new());
        }
        for step in &mut line.steps {
            step.bytes = step.bytes.map(|_| 0);
        }
        line.tell()
    }

    /// Its login was refused. Tells whether it has failed by that.
    pub(in crate::daemon) fn refused(&mut self, why: &str, now: Timestamp) -> bool {
        self.seen.refused = Some(why.to_owned());
        self.fail(now)
    }

    /// An initiator at its address has another name than its own.
    pub(in crate::daemon) fn other_name(&mut self, name: &str, now: Timestamp) {
        self.touched = now;
        self.changed = true;
        self.seen.other_name = Some(name.to_owned());
    }

    /// iPXE says that it could not go on. Tells whether the boot has failed by that.
    pub(in crate::daemon) fn failure(&mut self, failure: BootFailure, now: Timestamp) -> bool {
        self.seen.failure = Some(failure);
        let fails = self.fail(now);
        self.untold |= fails && self.fails_otherwise();
        fails
    }

    fn fail(&mut self, now: Timestamp) -> bool {
        self.touched = now;
        self.changed = true;
        let fails = self.seen.outcome == BootOutcome::Booting && !self.has_system();
        if fails {
            self.seen.outcome = BootOutcome::Failed;
        }
        fails
    }

    /// Fails a boot that has stopped. Tells whether one is to be counted that had its script.
    pub(in crate::daemon) fn settle(&mut self, now: Timestamp) -> bool {
        let is_on_its_way = self.seen.outcome == BootOutcome::Booting && self.sessions.is_empty();
        if is_on_its_way && self.has_stopped(now) {
            self.lost();
        }
        std::mem::take(&mut self.uncounted)
    }

    /// Whether it should be written down now.
    pub(in crate::daemon) fn is_due(&self, now: Timestamp) -> bool {
        let rests = |written| now.duration_since(written) >= WRITTEN;
        self.is_news() && self.written.is_none_or(rests)
    }

    /// Whether it came to something that was not written down yet.
    pub(in crate::daemon) fn is_news(&self) -> bool {
        self.changed && self.seen.outcome != BootOutcome::Booting
    }

    /// Whether what is known of it is not written down.
    pub(in crate::daemon) fn is_changed(&self) -> bool {
        self.changed
    }

    /// It could not be written down, nor `untold` that it has failed.
    pub(in crate::daemon) fn not_written(&mut self, untold: bool) {
        self.changed = true;
        self.untold |= untold;
    }

    /// It is about to be written down. Tells whether an event has to tell that it has failed.
    pub(in crate::daemon) fn written(&mut self, now: Timestamp) -> bool {
        self.changed = false;
        self.written = Some(now);
        std::mem::take(&mut self.untold)
    }

    /// What is told of it now.
    pub(in crate::daemon) fn shown(&self) -> BootLine {
        let mut shown = self.seen.clone();
        for step in &mut shown.steps {
            let moving = || {
                let fetches = self.fetches.iter();
                fetches
                    .filter(|(stage, _)| *stage == step.stage)
                    .map(|(_, m)| m)
            };
            let Some(of) = step.of.filter(|_| moving().next().is_some()) else {
                continue;
            };
            // Firmware may fetch a file in pieces, or once more.
            step.bytes = Some(moving().map(|one| one.sent()).sum::<u64>().min(of));
            step.until = match step.bytes == Some(of) {
                true => moving().filter_map(|one| one.moved()).max(),
                false => None,
            };
        }
        shown.told = shown.tell();
        shown
    }
}

/// A boot id as it is told: it tells boots apart, and lets nobody in.
fn told(id: &BootId) -> String {
    mask_boot_ids(&id.to_string())
}
