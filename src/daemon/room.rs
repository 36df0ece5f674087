//! What machines are doing beyond what the library writes down: how far a boot came, why a login was
//! refused, and who asks for a script that nobody knows. Kept in memory only: after a restart of the
//! server it is seen anew.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::{ClientState, ClientView, MacAddr};

/// Whoever has its script and does not log in for so long has failed: kernels of slow machines over
/// slow networks are there in less.
const PATIENCE: SignedDuration = SignedDuration::from_mins(3);

/// An initiator that is refused tries again every few seconds. Where that has stopped for so long, the
/// machine was switched off.
const INSISTS: SignedDuration = SignedDuration::from_mins(10);

/// Machines that are remembered which nobody knows.
const STRANGERS: usize = 64;

/// How many of them may come from one address: a few stand behind some routers, and nobody may push
/// the others out with addresses that he makes up.
const STRANGERS_OF_ONE: usize = 8;

/// How long they are remembered.
const STRANGE: SignedDuration = SignedDuration::from_hours(24);

/// A machine that asked for a script and is nobody's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stranger {
    /// The hardware address that it told.
    pub mac: MacAddr,
    /// Where it asked from last.
    #[schema(value_type = String)]
    pub peer: IpAddr,
    /// When it asked first.
    pub first: Timestamp,
    /// When it asked last.
    pub last: Timestamp,
    /// How often.
    pub times: u64,
}

/// How far a machine came that has its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Script,
    Kernel,
    Initramfs,
}

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

/// What was seen of all machines.
#[derive(Debug, Default)]
pub(super) struct Room {
    clients: HashMap<MacAddr, Seen>,
    strangers: HashMap<MacAddr, Stranger>,
    boots: Boots,
}

/// What was seen of a client since it was let in last.
#[derive(Debug, Default)]
struct Seen {
    attempt: Option<Attempt>,
    refused: Option<Refused>,
}

/// A boot that has not logged in yet.
#[derive(Debug)]
struct Attempt {
    peer: IpAddr,
    began: Timestamp,
    stage: Stage,
    reached: Timestamp,
    /// It is counted among those that failed.
    failed: bool,
}

#[derive(Debug)]
struct Refused {
    at: Timestamp,
    why: String,
}

impl Room {
    /// A client has fetched its script.
    pub(super) fn script(&mut self, mac: MacAddr, peer: IpAddr, now: Timestamp) {
        self.strangers.remove(&mac);
        let seen = self.clients.entry(mac).or_default();
        let before = seen.attempt.replace(Attempt {
            peer,
            began: now,
            stage: Stage::Script,
            reached: now,
            failed: false,
        });
        self.boots.scripts += 1;
        // Nobody asked in between how boots came out.
        if let Some(mut before) = before {
            self.boots.lost += u64::from(before.is_lost_now(now));
        }
    }

    /// Somebody at `peer` has fetched what a script names. Tells the machine by its address, so it is
    /// nobody's where several boot behind one.
    pub(super) fn fetched(&mut self, peer: IpAddr, stage: Stage, now: Timestamp) {
        let mut meant = self.clients.values_mut().filter_map(|seen| {
            let attempt = seen.attempt.as_mut()?;
            (attempt.peer == peer && now.duration_since(attempt.reached) < PATIENCE)
                .then_some(attempt)
        });
        if let (Some(attempt), None) = (meant.next(), meant.next()) {
            // Firmware may ask for pieces of one file in any number of requests.
            attempt.stage = attempt.stage.max(stage);
            attempt.reached = now;
        }
    }

    /// A client was let in, by a boot that begins or that came back.
    pub(super) fn entered(&mut self, mac: &MacAddr, begins: bool) {
        self.clients.remove(mac);
        self.boots.up += u64::from(begins);
    }

    /// A client was refused what it asked for: its script, or its login. Tells whether that is news.
    pub(super) fn refused(&mut self, mac: MacAddr, why: String, now: Timestamp) -> bool {
        let seen = self.clients.entry(mac).or_default();
        let news = seen.refused.as_ref().is_none_or(|last| last.why != why);
        // Its initiator tries again and again; without an attempt it is an old one that was fenced.
        let attempt = seen.attempt.as_mut().filter(|attempt| !attempt.failed);
        if let Some(attempt) = attempt {
            attempt.failed = true;
            self.boots.refused += 1;
        }
        seen.refused = Some(Refused { at: now, why });
        news
    }

    /// How boots came out until now.
    pub(super) fn boots(&mut self, now: Timestamp) -> Boots {
        let attempts = self
            .clients
            .values_mut()
            .filter_map(|seen| seen.attempt.as_mut());
        let lost = attempts.map(|attempt| u64::from(attempt.is_lost_now(now)));
        self.boots.lost += lost.sum::<u64>();
        self.boots
    }

    /// Somebody asked for the script of a machine that nobody knows. Tells whether that is news.
    pub(super) fn stranger(&mut self, mac: MacAddr, peer: IpAddr, now: Timestamp) -> bool {
        if let Some(known) = self.strangers.get_mut(&mac) {
            let news = now.duration_since(known.last) >= PATIENCE;
            (known.peer, known.last, known.times) = (peer, now, known.times + 1);
            return news;
        }
        self.strangers
            .retain(|_, one| now.duration_since(one.last) < STRANGE);
        let of_one = self.strangers.values().filter(|one| one.peer == peer);
        if of_one.count() >= STRANGERS_OF_ONE {
            return false;
        }
        if self.strangers.len() >= STRANGERS
            && let Some(oldest) = self.strangers.values().min_by_key(|one| one.last)
        {
            let oldest = oldest.mac;
            self.strangers.remove(&oldest);
        }
        let stranger = Stranger {
            mac,
            peer,
            first: now,
            last: now,
            times: 1,
        };
        self.strangers.insert(mac, stranger);
        true
    }

    /// Those who asked last first.
    pub(super) fn strangers(&self, now: Timestamp) -> Vec<Stranger> {
        let recent = self.strangers.values();
        let mut recent: Vec<Stranger> = recent
            .filter(|one| now.duration_since(one.last) < STRANGE)
            .cloned()
            .collect();
        recent.sort_by_key(|one| (std::cmp::Reverse(one.last), one.mac));
        recent
    }

    /// Tells of a client what its document does not.
    pub(super) fn refine(&self, view: &mut ClientView, now: Timestamp) {
        if view.state == ClientState::Up {
            return;
        }
        if let Some(found) = self
            .clients
            .get(&view.client.mac)
            .and_then(|s| s.judge(now))
        {
            (view.state, view.since, view.why) = (found.state, Some(found.since), Some(found.why));
        } else if view.state == ClientState::Booting {
            view.why = Some("its first login is being prepared".to_owned());
        }
    }

    /// Forgets clients that are none any more, and strangers that became clients.
    pub(super) fn retain(&mut self, is_client: impl Fn(&MacAddr) -> bool) {
        self.clients.retain(|mac, _| is_client(mac));
        self.strangers.retain(|mac, _| !is_client(mac));
    }
}

impl Attempt {
    /// Whether it has failed for want of a login, told once.
    fn is_lost_now(&mut self, now: Timestamp) -> bool {
        let lost = !self.failed && now.duration_since(self.reached) >= PATIENCE;
        self.failed |= lost;
        lost
    }
}

struct Found {
    state: ClientState,
    since: Timestamp,
    why: String,
}

impl Seen {
    fn judge(&self, now: Timestamp) -> Option<Found> {
        let attempt = self.attempt.as_ref();
        // A refusal is about the boot that it ended, so a script that was fetched later is a new try.
        let refused = self.refused.as_ref().filter(|refused| {
            attempt.is_none_or(|attempt| attempt.began <= refused.at)
                && now.duration_since(refused.at) < INSISTS
        });
        if let Some(refused) = refused {
            return Some(Found {
                state: ClientState::Failed,
                since: refused.at,
                why: refused.why.clone(),
            });
        }
        let attempt = attempt?;
        let has = match attempt.stage {
            Stage::Script => "script",
            Stage::Kernel => "kernel",
            Stage::Initramfs => "initramfs",
        };
        let failed = now.duration_since(attempt.reached) >= PATIENCE;
        Some(Found {
            state: match failed {
                true => ClientState::Failed,
                false => ClientState::Booting,
            },
            since: attempt.began,
            why: match failed {
                true => format!("it fetched its {has}, and never logged in"),
                false => format!("{has} fetched"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, last]).unwrap()
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn told(room: &Room, client: u8, now: i64) -> Option<(ClientState, String)> {
        let found = room.clients.get(&mac(client))?.judge(at(now))?;
        Some((found.state, found.why))
    }

    #[test]
    fn a_boot_is_told_stage_by_stage_and_fails_when_nothing_follows() {
        let mut room = Room::default();
        room.script(mac(1), peer(1), at(0));
        room.fetched(peer(1), Stage::Kernel, at(2));
        let booting = |what: &str| Some((ClientState::Booting, what.to_owned()));
        assert_eq!(told(&room, 1, 3), booting("kernel fetched"));
        room.fetched(peer(1), Stage::Initramfs, at(4));
        room.fetched(peer(1), Stage::Kernel, at(5));
        assert_eq!(told(&room, 1, 184), booting("initramfs fetched"));
        let failed = "it fetched its initramfs, and never logged in".to_owned();
        assert_eq!(told(&room, 1, 185), Some((ClientState::Failed, failed)));
        room.script(mac(1), peer(1), at(300));
        assert_eq!(told(&room, 1, 301), booting("script fetched"));
        room.entered(&mac(1), true);
        assert_eq!(told(&room, 1, 302), None);
    }

    #[test]
    fn two_machines_behind_one_address_are_not_mixed_up() {
        let mut room = Room::default();
        room.script(mac(1), peer(1), at(0));
        room.script(mac(2), peer(1), at(1));
        room.fetched(peer(1), Stage::Kernel, at(2));
        for client in [1, 2] {
            let said = told(&room, client, 3).unwrap().1;
            assert_eq!(said, "script fetched");
        }
    }

    #[test]
    fn a_refused_login_has_failed_until_a_new_script_or_silence() {
        let mut room = Room::default();
        room.script(mac(1), peer(1), at(0));
        assert!(room.refused(mac(1), "fenced".into(), at(5)));
        assert!(!room.refused(mac(1), "fenced".into(), at(8)));
        let (state, why) = told(&room, 1, 9).unwrap();
        assert_eq!(state, ClientState::Failed);
        assert_eq!(why, "fenced");
        room.script(mac(1), peer(1), at(20));
        assert_eq!(told(&room, 1, 21).unwrap().0, ClientState::Booting);
        room.entered(&mac(1), true);
        room.refused(mac(1), "fenced".into(), at(100));
        assert_eq!(told(&room, 1, 101).unwrap().0, ClientState::Failed);
        assert_eq!(told(&room, 1, 100 + 600), None, "it was switched off");
    }

    #[test]
    fn each_boot_is_counted_once() {
        let mut room = Room::default();
        let boots = |scripts, up, refused, lost| Boots {
            scripts,
            up,
            refused,
            lost,
        };
        room.script(mac(1), peer(1), at(0));
        room.entered(&mac(1), true);
        room.entered(&mac(1), false);
        assert_eq!(room.boots(at(1)), boots(1, 1, 0, 0));
        room.script(mac(2), peer(2), at(2));
        for second in 3..9 {
            room.refused(mac(2), "no".into(), at(second));
        }
        // One that nobody saw begin was fenced before.
        room.refused(mac(3), "fenced".into(), at(9));
        assert_eq!(room.boots(at(9)), boots(2, 1, 1, 0));
        room.script(mac(4), peer(4), at(10));
        assert_eq!(room.boots(at(189)), boots(3, 1, 1, 0));
        for second in [190, 191, 999] {
            assert_eq!(room.boots(at(second)), boots(3, 1, 1, 1));
        }
        // It was switched off and on again.
        room.script(mac(4), peer(4), at(1000));
        room.script(mac(4), peer(4), at(1001));
        room.entered(&mac(4), true);
        assert_eq!(room.boots(at(9999)), boots(5, 2, 1, 1));
        // Whether anybody asks or not.
        room.script(mac(4), peer(4), at(10_000));
        room.script(mac(4), peer(4), at(20_000));
        assert_eq!(room.boots(at(20_001)), boots(7, 2, 1, 2));
    }

    #[test]
    fn strangers_are_bounded_and_go_when_they_are_known() {
        let mut room = Room::default();
        assert!(room.stranger(mac(1), peer(1), at(0)));
        assert!(!room.stranger(mac(1), peer(2), at(1)), "no news");
        let first = &room.strangers(at(2))[0];
        assert_eq!((first.times, first.peer), (2, peer(2)));
        let many = (10..60).filter(|&n| room.stranger(mac(n), peer(9), at(3)));
        assert_eq!(many.count(), STRANGERS_OF_ONE);
        for n in 60..250 {
            assert!(room.stranger(mac(n), peer(n), at(i64::from(n))));
        }
        let known = room.strangers(at(250));
        assert_eq!(known.len(), STRANGERS);
        assert_eq!(known[0].mac, mac(249), "the latest first");
        room.retain(|known| *known == mac(249));
        assert_eq!(room.strangers(at(250)).len(), STRANGERS - 1);
        assert!(room.strangers(at(250 + 86_400)).is_empty());
    }
}
