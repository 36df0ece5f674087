//! Whatever happens in whatever order, a running client keeps its disk.

use std::collections::HashMap;

use netroot::library::*;
use proptest::prelude::*;

use crate::lab::{Lab, assign};

/// What can happen to one client. Scripts are numbered in the order in which they were fetched.
#[derive(Debug, Clone)]
enum Happening {
    Script,
    Login(usize),
    Leave,
    ServerKilled,
    Seal,
    Act(Act, When),
    /// `current` moves back, or to the first version.
    RollBack(Option<u32>),
    /// The first version is removed, whoever uses it.
    Remove(When),
}

fn happening() -> impl Strategy<Value = Happening> {
    let mode = prop_oneof![
        Just(Mode::Shared),
        Just(Mode::Persistent),
        Just(Mode::Ephemeral)
    ];
    let act = prop_oneof![
        3 => Just(Act::Reset),
        2 => Just(Act::Undo),
        1 => mode.prop_map(|mode| assign(None, Some(mode))),
        1 => prop_oneof![Just("fc28"), Just("fc29"), Just("fc28@1")]
            .prop_map(|image| assign(Some(image), None)),
    ];
    let when = prop_oneof![
        2 => Just(When::Now),
        1 => Just(When::AtNextBoot),
        1 => Just(When::Force)
    ];
    prop_oneof![
        3 => Just(Happening::Script),
        6 => (0_usize..8).prop_map(Happening::Login),
        2 => Just(Happening::Leave),
        1 => Just(Happening::ServerKilled),
        1 => Just(Happening::Seal),
        1 => prop_oneof![Just(None), Just(Some(1))].prop_map(Happening::RollBack),
        1 => prop_oneof![Just(When::Now), Just(When::Force)].prop_map(Happening::Remove),
        4 => (act, when).prop_map(|(act, when)| Happening::Act(act, when)),
    ]
}

/// One client, and what its boots believe.
struct World {
    lab: Lab,
    mac: MacAddr,
    scripts: Vec<BootTicket>,
    live: Vec<Grant>,
    /// What each boot wrote last.
    wrote: HashMap<BootId, String>,
    writes: usize,
}

impl World {
    fn new() -> World {
        let lab = Lab::new();
        lab.seal("fc28", "pristine");
        lab.seal("fc29", "pristine");
        let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Persistent);
        World {
            lab,
            mac,
            scripts: Vec::new(),
            live: Vec::new(),
            wrote: HashMap::new(),
            writes: 0,
        }
    }

    fn happen(&mut self, what: &Happening) {
        match what {
            // There is none while what the client is assigned to is gone.
            Happening::Script => {
                let client = self.lab.client(&self.mac);
                self.scripts.extend(self.lab.lib.issue_boot(&client).ok());
            }
            // Counted from the latest, which is what clients mostly use.
            Happening::Login(back) => {
                if let Some(at) = self.scripts.len().checked_sub(1 + back) {
                    self.login(at);
                }
            }
            Happening::Leave => {
                if let Some(grant) = self.live.pop() {
                    self.lab.leave(&grant);
                }
            }
            Happening::ServerKilled => {
                self.live.clear();
                self.lab.room.forget();
                self.lab.reopen();
            }
            Happening::Seal => {
                self.lab.seal("fc28", "pristine");
            }
            Happening::RollBack(number) => {
                let spec = VersionSpec {
                    image: "fc28".parse().unwrap(),
                    number: *number,
                };
                let before = self.lab.client(&self.mac);
                let _ = self.lab.lib.roll_back(&spec, &Actor::command());
                assert_eq!(self.lab.client(&self.mac), before, "no client is touched");
            }
            Happening::Remove(when) => self.remove_first(*when),
            Happening::Act(act, when) => {
                let before = self.lab.client(&self.mac);
                let running = !self.live.is_empty();
                let done = self.lab.act(&self.mac, act.clone(), *when);
                let after = self.lab.client(&self.mac);
                if done.is_err() {
                    assert_eq!(after, before, "a refused act changes nothing");
                }
                if running && *when == When::Now && before.boot.unwrap().mode.has_clone() {
                    assert_eq!(after.clone, before.clone, "rule 1");
                }
            }
        }
        let sessions = self.lab.room.sessions();
        self.live
            .retain(|grant| sessions.iter().any(|session| session.peer == grant.peer));
        self.check();
    }

    fn remove_first(&mut self, when: When) {
        let first: VersionId = "fc28@1".parse().unwrap();
        let before = self.lab.client(&self.mac);
        let spec = first.clone().into();
        let room = &self.lab.room;
        let removed = self.lab.lib.remove(&spec, when, room, &Actor::command());
        let after = self.lab.client(&self.mac);
        if removed.is_err() || when == When::Now {
            assert_eq!(after, before, "who uses it keeps it");
        }
        if removed.is_ok() {
            assert!(self.lab.lib.version(&first).is_err());
            let sessions = self.lab.room.sessions();
            assert!(sessions.iter().all(|session| session.version != first));
        }
    }

    fn login(&mut self, at: usize) {
        let ticket = self.scripts[at].clone();
        let known = self.lab.client(&self.mac).boot;
        let Ok(grant) = self.lab.enter(&ticket) else {
            return;
        };
        let is_known =
            known.is_some_and(|boot| boot.id == ticket.id && boot.state != BootState::Entering);
        assert_eq!(grant.entry == Entry::Reconnect, is_known);
        assert_eq!(
            grant.version, ticket.version,
            "the kernel is that version's"
        );
        self.live.push(grant.clone());
        if !ticket.mode.has_clone() {
            return;
        }
        let found = self.lab.read(&self.mac);
        match grant.entry {
            Entry::Reconnect => assert_eq!(found, self.wrote[&ticket.id], "rule 2"),
            _ if ticket.mode == Mode::Ephemeral => assert_eq!(found, "pristine"),
            _ => {}
        }
        self.writes += 1;
        let text = format!("write {}", self.writes);
        self.lab.write(&self.mac, &text);
        self.wrote.insert(ticket.id, text);
    }

    /// What holds at any moment.
    fn check(&self) {
        let client = self.lab.client(&self.mac);
        for grant in &self.live {
            let boot = client.boot.as_ref().unwrap();
            assert_eq!(grant.boot, Some(boot.id), "rule 3: one boot at a time");
            assert_eq!(boot.state, BootState::Up);
            if boot.mode.has_clone() {
                assert_eq!(self.lab.read(&self.mac), self.wrote[&boot.id], "rule 1");
            }
        }
        assert!(client.mode.has_clone() || client.clone.is_none());
        let kept = client.discarded.iter().map(|old| &old.clone);
        for clone in client.clone.iter().chain(kept) {
            let from = self.lab.lib.version(&clone.from);
            assert!(from.is_ok(), "no clone is without its version");
        }
        let places = self.lab.home().join("clones").join(self.mac.bare());
        let mut there: Vec<String> = std::fs::read_dir(places.join("discarded"))
            .map(|dir| {
                dir.map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        let mut kept: Vec<String> = client
            .discarded
            .iter()
            .map(|old| old.clone.id.clone())
            .collect();
        there.sort();
        kept.sort();
        assert_eq!(
            there, kept,
            "what is kept for undo is there, and nothing else"
        );
        assert_eq!(places.join("disk.img").exists(), client.clone.is_some());
        assert!(
            self.lab.lib.sweep().unwrap().is_empty(),
            "nothing was left half-done"
        );
    }
}

/// Each makes a library on a real file system; `cargo xtask test --long` has the time for many.
fn cases() -> u32 {
    if std::env::var_os("NETROOT_LONG_TESTS").is_some() {
        500
    } else {
        24
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_running_client_keeps_its_disk(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut world = World::new();
        for what in &happenings {
            world.happen(what);
        }
    }
}
