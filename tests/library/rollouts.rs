//! An image for many clients, tried on a few of them first: by a clock that the tests turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use netroot::library::*;

use crate::lab::{Lab, assign, refused};

/// Four clients of the group `room`, called a to d, which boot fc28; there is an fc29.
struct Room {
    lab: Lab,
    macs: [MacAddr; 4],
    /// The time; the sessions of the laboratory begin now.
    clock: Watching,
}

impl Room {
    fn new(mode: Mode) -> Self {
        let lab = Lab::new();
        lab.seal("fc28", "old");
        lab.seal("fc29", "new");
        let macs = ["a", "b", "c", "d"].map(|name| {
            let last = name.as_bytes()[0];
            let mac = MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap();
            let new = NewClient {
                mac,
                name: Some(name.parse().unwrap()),
                image: "fc28".parse().unwrap(),
                mode,
                args: Vec::new(),
                groups: ["room".parse().unwrap()].into(),
                settings: Settings::default(),
            };
            let done = lab.lib.add_client(&new, &lab.room, &Actor::command());
            done.unwrap();
            mac
        });
        let now = Timestamp::now();
        let clock = Watching { now, since: now };
        Room { lab, macs, clock }
    }

    fn new_rollout(&self, canary: u32) -> NewRollout {
        NewRollout {
            clients: "@room".parse().unwrap(),
            image: "fc29".parse().unwrap(),
            canary: canary.try_into().unwrap(),
            within: "10m".parse().unwrap(),
        }
    }

    fn begin(&self) -> u64 {
        let (lab, new) = (&self.lab, self.new_rollout(2));
        let begun = lab
            .lib
            .begin_rollout(&new, self.clock, &lab.room, &Actor::command());
        begun.unwrap().id
    }

    /// So much later somebody looks.
    fn after(&mut self, minutes: i64) {
        self.clock.now += SignedDuration::from_mins(minutes);
        let lab = &self.lab;
        lab.lib.advance_rollouts(self.clock, &lab.room).unwrap();
    }

    fn stage(&self, id: u64) -> Stage {
        self.lab.lib.rollout(id).unwrap().stage
    }

    fn view(&self, id: u64) -> RolloutView {
        let lib = &self.lab.lib;
        let rollout = lib.rollout(id).unwrap();
        lib.view_rollout(rollout, self.clock, &self.lab.room)
            .unwrap()
    }

    /// What each client's next boot gets.
    fn next_boots(&self) -> [String; 4] {
        self.macs.map(|mac| {
            let view = self.lab.lib.view(self.lab.client(&mac), &self.lab.room);
            view.unwrap().boots.unwrap().to_string()
        })
    }

    fn events(&self) -> Vec<Event> {
        let events = self.lab.lib.events(&Filter::default()).unwrap().events;
        events.into_iter().map(|recorded| recorded.event).collect()
    }

    fn why(&self) -> String {
        let events = self.events();
        let mut back = events.iter().filter(|one| one.what == "rollout-set-back");
        let event = back.next().expect("there is an event");
        assert_eq!(event.to.as_deref(), Some("@room"));
        event.details["why"].as_str().unwrap().to_owned()
    }
}

#[test]
fn the_others_follow_when_the_canaries_have_stayed() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    assert_eq!(room.next_boots(), ["fc29@1", "fc29@1", "fc28@1", "fc28@1"]);
    let a = room.lab.boot(&room.macs[0]);
    room.lab.boot(&room.macs[1]);
    assert_eq!(a.version.to_string(), "fc29@1");
    room.after(1);
    assert_eq!(room.stage(id), Stage::Canaries, "they have not stayed yet");
    // A machine that comes back has to stay again.
    room.lab.leave(&a);
    room.after(2);
    assert_eq!(room.stage(id), Stage::Canaries);
    assert!(room.view(id).progress[0].says.contains("is off"));
    room.lab.boot(&room.macs[0]);
    room.after(0);
    assert!(matches!(room.stage(id), Stage::Done { .. }));
    assert_eq!(room.next_boots(), ["fc29@1"; 4]);
    assert_eq!(room.view(id).running(), 2);
    room.lab.boot(&room.macs[2]);
    assert_eq!(
        room.view(id).running(),
        3,
        "it is told of after its end, too"
    );
    let events = room.events();
    for what in ["rollout-begin", "rollout-proven", "rollout-done"] {
        assert!(events.iter().any(|event| event.what == what), "{what}");
    }
}

#[test]
fn canaries_that_do_not_come_up_are_set_back_and_the_event_says_why() {
    let mut room = Room::new(Mode::Persistent);
    room.lab.write(&room.macs[1], "mine");
    let id = room.begin();
    // One boots it and goes on running; the other never boots.
    room.lab.boot(&room.macs[1]);
    room.after(9);
    assert_eq!(room.stage(id), Stage::Canaries);
    room.after(1);
    let why = room.why();
    assert!(why.contains("within 10m a did not log in"), "{why}");
    assert!(!why.contains("b did"), "{why}");
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    // What waited is called off; what runs goes on, and is set back at its next boot (rule 1).
    assert_eq!(room.lab.client(&room.macs[0]).armed, None);
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    let says = &room.view(id).progress[1].says;
    assert_eq!(says, "set back; waits for its next boot: undo");
    assert_eq!(room.lab.read(&room.macs[1]), "new");
    let again = room.lab.boot(&room.macs[1]);
    assert_eq!(again.version.to_string(), "fc28@1");
    assert_eq!(room.lab.read(&room.macs[1]), "mine", "with its disk");
}

#[test]
fn a_canary_that_came_and_went_is_told_so() {
    let mut room = Room::new(Mode::Shared);
    let id = room.begin();
    room.lab.boot(&room.macs[0]);
    let b = room.lab.boot(&room.macs[1]);
    room.lab.leave(&b);
    room.after(10);
    let why = room.why();
    assert!(
        why.contains("b logged in") && why.contains("did not stay"),
        "{why}"
    );
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    // A shared boot has no disk to lose, so nothing needs to wait.
    assert_eq!(room.lab.client(&room.macs[0]).image.to_string(), "fc28");
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
}

#[test]
fn a_canary_whose_loader_alone_has_the_disk_is_set_back() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    let script = room.lab.script(&room.macs[0]);
    room.lab.enter_firmware(&script);
    let system = room.lab.enter(&script).unwrap();
    room.lab.boot(&room.macs[1]);
    room.lab.leave(&system);
    room.after(3);
    assert_eq!(room.stage(id), Stage::Canaries);
    room.after(7);
    let why = room.why();
    assert!(
        why.contains("a logged in") && why.contains("did not stay") && !why.contains("b logged in"),
        "{why}"
    );
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
}

#[test]
fn a_restart_in_the_middle_loses_nothing_and_begins_the_time_anew() {
    let mut room = Room::new(Mode::Ephemeral);
    let id = room.begin();
    let tickets = [0, 1].map(|at| room.lab.script(&room.macs[at]));
    let _ = tickets
        .each_ref()
        .map(|ticket| room.lab.enter(ticket).unwrap());
    // The server is killed, and comes back an hour later: nobody is blamed for that hour.
    room.lab.room.forget();
    room.lab.reopen();
    room.clock.now += SignedDuration::from_mins(60);
    room.clock.since = room.clock.now;
    room.after(0);
    assert_eq!(room.stage(id), Stage::Canaries);
    // They find their disks again, by the clock of the laboratory now.
    let _ = tickets
        .each_ref()
        .map(|ticket| room.lab.enter(ticket).unwrap());
    room.after(3);
    assert!(matches!(room.stage(id), Stage::Done { .. }));
    assert_eq!(room.next_boots(), ["fc29@1"; 4]);
}

#[test]
fn what_was_killed_half_way_is_finished() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    room.macs[..2]
        .iter()
        .for_each(|mac| drop(room.lab.boot(mac)));
    // It was decided and written down, and then the server was killed.
    let path = room.lab.home().join(format!("rollouts/{id}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["stage"] = serde_json::json!({"is": "back", "why": "it was no good"});
    std::fs::write(&path, document.to_string()).unwrap();
    room.lab.reopen();
    room.after(0);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    assert_eq!(room.why(), "it was no good");
}

#[test]
fn who_was_not_given_it_before_the_server_was_killed_is_given_it_afterwards() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    room.macs[..2]
        .iter()
        .for_each(|mac| drop(room.lab.boot(mac)));
    // It was killed between the third and the fourth.
    let third = assign(Some("fc29"), None);
    room.lab
        .act(&room.macs[2], third, When::AtNextBoot)
        .unwrap();
    let path = room.lab.home().join(format!("rollouts/{id}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["stage"] = serde_json::json!({"is": "rest"});
    for at in [2, 3] {
        document["members"][at]["given"] = true.into();
        document["members"][at]["giving"] = true.into();
    }
    std::fs::write(&path, document.to_string()).unwrap();
    room.lab.reopen();
    room.after(0);
    assert!(matches!(room.stage(id), Stage::Done { .. }));
    assert_eq!(room.next_boots(), ["fc29@1"; 4]);
    let given = room.events();
    let given = given.iter().filter(|one| one.what == "client-assign-armed");
    assert_eq!(given.count(), 4, "nobody twice");
}

#[test]
fn a_canary_that_has_stayed_may_be_shut_down_before_the_other_comes() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    let a = room.lab.boot(&room.macs[0]);
    room.after(3);
    room.lab.leave(&a);
    room.after(1);
    assert!(room.view(id).progress[0].says.contains("stayed with it"));
    room.lab.boot(&room.macs[1]);
    room.after(3);
    assert!(matches!(room.stage(id), Stage::Done { .. }));
}

#[test]
fn a_canary_that_waits_for_a_reset_is_set_back_with_the_others() {
    let mut room = Room::new(Mode::Persistent);
    room.lab.write(&room.macs[0], "mine");
    let id = room.begin();
    let a = room.lab.boot(&room.macs[0]);
    room.lab
        .act(&room.macs[0], Act::Reset, When::AtNextBoot)
        .unwrap();
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    room.lab.leave(&a);
    room.lab.boot(&room.macs[0]);
    assert_eq!(room.lab.read(&room.macs[0]), "mine", "with its disk");
}

#[test]
fn a_server_that_begins_anew_every_night_ends_it_all_the_same() {
    let mut room = Room::new(Mode::Persistent);
    let new = NewRollout {
        within: "3d".parse().unwrap(),
        ..room.new_rollout(2)
    };
    let (lab, actor) = (&room.lab, Actor::command());
    let begun = lab.lib.begin_rollout(&new, room.clock, &lab.room, &actor);
    let id = begun.unwrap().id;
    for night in 1..=3 {
        room.clock.since = room.clock.now + SignedDuration::from_hours(24);
        room.after(24 * 60);
        assert_eq!(room.stage(id), Stage::Canaries, "night {night}");
    }
    // The last one was not seen for long.
    room.after(30);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
}

#[test]
fn what_comes_back_when_it_fails_is_kept_until_then() {
    let mut room = Room::new(Mode::Persistent);
    room.lab.write(&room.macs[0], "mine");
    let id = room.begin();
    let a = room.lab.boot(&room.macs[0]);
    let disk = room.lab.client(&room.macs[0]).discarded[0].clone.id.clone();
    let late = room.clock.now + SignedDuration::from_hours(15 * 24);
    assert!(room.lab.lib.expire(late).unwrap().is_empty());
    let forget = Act::Forget(KeptDisk { disk });
    let why = refused(room.lab.act(&room.macs[0], forget, When::Now));
    assert!(why.contains(&format!("rollout {id}")), "{why}");
    room.lab.leave(&a);
    room.after(10);
    assert_eq!(room.lab.read(&room.macs[0]), "mine");
}

#[test]
fn clients_may_go_and_be_given_something_else_meanwhile() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    let (lab, actor) = (&room.lab, Actor::command());
    lab.boot(&room.macs[1]);
    lab.lib
        .remove_client(&room.macs[0], When::Now, &lab.room, &actor)
        .unwrap();
    lab.lib
        .remove_client(&room.macs[3], When::Now, &lab.room, &actor)
        .unwrap();
    room.after(3);
    assert!(
        matches!(room.stage(id), Stage::Done { .. }),
        "b has proven it alone"
    );
    assert_eq!(room.view(id).progress[0].says, "it was removed");
    let c = room
        .lab
        .lib
        .view(room.lab.client(&room.macs[2]), &room.lab.room);
    assert_eq!(c.unwrap().boots.unwrap().to_string(), "fc29@1");

    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    room.lab.seal("fc30", "other");
    room.macs[..2].iter().for_each(|mac| {
        let other = assign(Some("fc30"), None);
        room.lab.act(mac, other, When::Now).unwrap();
    });
    room.after(1);
    assert!(room.why().contains("no canary is left"));
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.next_boots(), ["fc30@1", "fc30@1", "fc28@1", "fc28@1"]);
}

#[test]
fn what_was_not_proven_is_not_rolled_out() {
    let mut room = Room::new(Mode::Shared);
    room.begin();
    room.macs[..2]
        .iter()
        .for_each(|mac| drop(room.lab.boot(mac)));
    room.lab.seal("fc29", "newer");
    room.after(3);
    let why = room.why();
    assert!(why.contains("fc29 means fc29@2 now"), "{why}");
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
}

#[test]
fn it_can_be_stopped_with_and_without_the_image() {
    for (keep, expected) in [(Keep::Nothing, "fc28@1"), (Keep::Image, "fc29@1")] {
        let room = Room::new(Mode::Persistent);
        let id = room.begin();
        let (lab, actor) = (&room.lab, Actor::command());
        let stop = || {
            lab.lib
                .stop_rollout(id, keep, room.clock, &lab.room, &actor)
        };
        let stopped = stop().unwrap();
        assert!(!stopped.is_open());
        assert_eq!(room.next_boots(), [expected, expected, "fc28@1", "fc28@1"]);
        assert!(refused(stop()).contains("it is over"));
    }
}

#[test]
fn one_rollout_for_a_client_at_a_time_and_somebody_is_left_to_follow() {
    let room = Room::new(Mode::Shared);
    let lab = &room.lab;
    let plan = |canary| lab.lib.plan_rollout(&room.new_rollout(canary), &lab.room);
    let before = lab.snapshot();
    let planned = plan(1).unwrap();
    assert_eq!(planned.canaries.len(), 1);
    assert_eq!(planned.rest.len(), 3);
    assert!(refused(plan(4)).contains("fewer canaries"));
    assert_eq!(lab.snapshot(), before, "a plan touches nothing");
    let id = room.begin();
    let why = refused(plan(1));
    assert!(why.contains(&format!("rollout stop {id}")), "{why}");
}

/// A server that is killed as soon as this client is so.
struct KilledWhen<'a> {
    lab: &'a Lab,
    client: MacAddr,
    is: fn(&Client) -> bool,
}

impl Live for KilledWhen<'_> {
    fn sessions(&self) -> Vec<LiveSession> {
        assert!(!(self.is)(&self.lab.client(&self.client)), "killed");
        self.lab.room.sessions()
    }

    fn fence(&self, client: &MacAddr, but: Option<&BootId>) {
        self.lab.room.fence(client, but);
    }

    fn evict(&self, versions: &[VersionId]) {
        self.lab.room.evict(versions);
    }
}

#[test]
fn what_somebody_gave_a_client_while_the_server_was_down_stays() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    room.macs[..2]
        .iter()
        .for_each(|mac| drop(room.lab.boot(mac)));
    room.clock.now += SignedDuration::from_mins(3);
    let [_, _, third, fourth] = room.macs;
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let killed = KilledWhen {
            lab: &room.lab,
            client: fourth,
            is: |client| client.armed.is_some(),
        };
        room.lab.lib.advance_rollouts(room.clock, &killed)
    }));
    assert!(killed.is_err());
    room.lab.reopen();
    assert_eq!(room.stage(id), Stage::Rest);
    room.lab.seal("fc30", "other");
    let other = assign(Some("fc30"), None);
    room.lab.act(&third, other, When::AtNextBoot).unwrap();
    // Of this one the rollout itself did not come to write down that it has got it.
    room.lab.act(&fourth, Act::Undo, When::Now).unwrap();
    room.after(0);
    assert!(matches!(room.stage(id), Stage::Done { .. }));
    assert_eq!(room.next_boots(), ["fc29@1", "fc29@1", "fc30@1", "fc28@1"]);
}

#[test]
fn what_somebody_gave_a_client_that_was_set_back_stays_though_the_server_was_killed() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    let [first, second, ..] = room.macs;
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let killed = KilledWhen {
            lab: &room.lab,
            client: second,
            is: |client| client.armed.is_none(),
        };
        let (lib, actor) = (&room.lab.lib, Actor::command());
        lib.stop_rollout(id, Keep::Nothing, room.clock, &killed, &actor)
    }));
    assert!(killed.is_err());
    room.lab.reopen();
    assert!(matches!(room.stage(id), Stage::Back { .. }));
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    let by_hand = assign(Some("fc29"), None);
    room.lab.act(&first, by_hand, When::AtNextBoot).unwrap();
    room.after(0);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.next_boots(), ["fc29@1", "fc28@1", "fc28@1", "fc28@1"]);
}

/// Somebody who does something while the server looks who is there for the so-many-th time.
struct Meanwhile<'a> {
    lab: &'a Lab,
    looks: AtomicUsize,
    at: usize,
    does: &'a (dyn Fn() + Sync),
}

impl Live for Meanwhile<'_> {
    fn sessions(&self) -> Vec<LiveSession> {
        if self.looks.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            (self.does)();
        }
        self.lab.room.sessions()
    }

    fn fence(&self, client: &MacAddr, but: Option<&BootId>) {
        self.lab.room.fence(client, but);
    }

    fn evict(&self, versions: &[VersionId]) {
        self.lab.room.evict(versions);
    }
}

#[test]
fn what_somebody_gives_a_client_while_the_canaries_try_stays() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    room.lab.seal("fc30", "other");
    let [first, second, third, _] = room.macs;
    let other = assign(Some("fc30"), None);
    room.lab.act(&third, other, When::Now).unwrap();
    for canary in [&first, &second] {
        room.lab.boot(canary);
    }
    for _ in 0..5 {
        room.after(1);
    }
    assert!(matches!(room.stage(id), Stage::Rest | Stage::Done { .. }));
    assert_eq!(
        room.next_boots(),
        ["fc29@1", "fc29@1", "fc30@1", "fc29@1"],
        "somebody gave it something else"
    );
}

#[test]
fn what_somebody_gives_a_client_while_it_is_being_set_back_stays() {
    let room = Room::new(Mode::Persistent);
    let id = room.begin();
    let [first, second, ..] = room.macs;
    let (a, b) = (room.lab.boot(&first), room.lab.boot(&second));
    room.lab.leave(&a);
    room.lab.leave(&b);
    room.lab.seal("fc30", "other");
    let meanwhile = Meanwhile {
        lab: &room.lab,
        looks: AtomicUsize::new(0),
        // Once for each of the four, and then for the first, which is about to be set back.
        at: 5,
        does: &|| {
            assert!(matches!(room.stage(id), Stage::Back { .. }));
            let other = assign(Some("fc30"), None);
            room.lab.act(&first, other, When::Now).unwrap();
        },
    };
    let (lib, actor) = (&room.lab.lib, Actor::command());
    let stopped = lib.stop_rollout(id, Keep::Nothing, room.clock, &meanwhile, &actor);
    let stopped = stopped.unwrap();
    assert!(matches!(stopped.stage, Stage::SetBack { .. }));
    assert!(stopped.members.iter().all(|one| one.trouble.is_none()));
    assert_eq!(room.next_boots(), ["fc30@1", "fc28@1", "fc28@1", "fc28@1"]);
}

#[test]
fn a_reset_that_waited_before_a_rollout_waits_again_when_it_is_set_back() {
    let mut room = Room::new(Mode::Persistent);
    let [a, b, ..] = room.macs;
    room.lab.act(&a, Act::Reset, When::AtNextBoot).unwrap();
    let before = room.lab.client(&a).armed;
    room.clock.now = Timestamp::now();
    let (lab, new) = (&room.lab, room.new_rollout(2));
    let told = lab.lib.plan_rollout(&new, &lab.room).unwrap().loses;
    let what = "a: what waits for its next boot (reset)";
    assert!(told.iter().any(|line| line.contains(what)), "{told:?}");
    let id = room.begin();
    assert_eq!(room.next_boots(), ["fc29@1", "fc29@1", "fc28@1", "fc28@1"]);
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.lab.client(&a).armed, before, "since the same moment");
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    let says = &room.view(id).progress[0].says;
    assert_eq!(says, "set back; waits for its next boot: reset");
    // The other one had none.
    assert_eq!(room.lab.client(&b).armed, None);
    assert_eq!(room.view(id).progress[1].says, "set back");
    // What somebody lets wait afterwards is none of its doing.
    let by_hand = [(a, Act::Reset), (b, assign(Some("fc29"), None))];
    room.lab.act(&a, Act::Undo, When::Now).unwrap();
    for (mac, act) in by_hand {
        room.lab.act(&mac, act, When::AtNextBoot).unwrap();
    }
    let progress = room.view(id).progress;
    assert!(progress[..2].iter().all(|one| one.says == "set back"));
}

#[test]
fn a_reset_that_somebody_has_replaced_does_not_wait_again() {
    let mut room = Room::new(Mode::Persistent);
    let id = room.begin();
    let [.., third, _] = room.macs;
    // It was to be given the image while a reset waited, and the server was killed before it was; somebody
    // gives it the same instead of the reset.
    let same = assign(Some("fc29"), None);
    room.lab.act(&third, same, When::AtNextBoot).unwrap();
    let path = room.lab.home().join(format!("rollouts/{id}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for what in ["canary", "given", "giving"] {
        document["members"][2][what] = true.into();
    }
    document["members"][2]["waited"] = room.clock.now.to_string().into();
    std::fs::write(&path, document.to_string()).unwrap();
    room.lab.reopen();
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.lab.client(&third).armed, None);
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
}

#[test]
fn what_else_waits_for_a_next_boot_keeps_a_rollout_from_beginning() {
    let room = Room::new(Mode::Persistent);
    let [a, ..] = room.macs;
    room.lab.seal("fc30", "other");
    let (lab, new) = (&room.lab, room.new_rollout(2));
    let plan = || lab.lib.plan_rollout(&new, &lab.room);
    // The image in another mode is something else, too.
    for other in [
        assign(Some("fc30"), None),
        assign(Some("fc29"), Some(Mode::Ephemeral)),
    ] {
        let waits = format!("`{other}` waits for the next boot of a");
        lab.act(&a, other, When::AtNextBoot).unwrap();
        let why = refused(plan());
        assert!(why.contains(&waits) && why.contains("undo a"), "{why}");
        lab.act(&a, Act::Undo, When::Now).unwrap();
    }
    // What it is to give anyway does not.
    let same = assign(Some("fc29"), None);
    lab.act(&a, same, When::AtNextBoot).unwrap();
    plan().unwrap();
}

#[test]
fn who_waits_to_be_set_back_is_in_no_rollout_until_it_was() {
    // Whether the rollout gave it to the canary, or somebody had.
    for by_hand in [false, true] {
        let mut room = Room::new(Mode::Persistent);
        let [a, ..] = room.macs;
        if by_hand {
            let same = assign(Some("fc29"), None);
            room.lab.act(&a, same, When::AtNextBoot).unwrap();
        }
        let id = room.begin();
        let running = room.lab.boot(&a);
        room.after(10);
        assert!(matches!(room.stage(id), Stage::SetBack { .. }));
        // It has the image until then, and a disk of the next version is one of that image.
        room.lab.seal("fc29", "mended");
        let new = room.new_rollout(2);
        let plan = || room.lab.lib.plan_rollout(&new, &room.lab.room);
        let why = refused(plan());
        assert!(
            why.contains("`undo` waits for the next boot of a")
                && why.contains(&format!("by which rollout {id} sets it back"))
                && !why.contains("client undo"),
            "{why}"
        );
        room.lab.leave(&running);
        room.lab.boot(&a);
        let plan = plan().unwrap();
        assert_eq!(
            plan.canaries.len() + plan.rest.len(),
            4,
            "it is tried on it again"
        );
    }
}

#[test]
fn a_reset_that_waited_comes_to_the_same_for_who_has_booted_the_image() {
    let mut room = Room::new(Mode::Persistent);
    let [a, ..] = room.macs;
    room.lab.write(&a, "mine");
    room.lab.act(&a, Act::Reset, When::AtNextBoot).unwrap();
    room.clock.now = Timestamp::now();
    let id = room.begin();
    let running = room.lab.boot(&a);
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.lab.read(&a), "new", "it runs on that");
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    room.lab.leave(&running);
    room.lab.boot(&a);
    assert_eq!(room.lab.read(&a), "old", "pristine");
}

#[test]
fn what_cannot_wait_again_is_told() {
    let mut room = Room::new(Mode::Persistent);
    let [a, b, ..] = room.macs;
    room.lab.write(&a, "mine");
    room.lab.seal("fc28", "newer");
    room.lab.act(&a, Act::Reset, When::AtNextBoot).unwrap();
    let new = NewRollout {
        image: "fc28@2".parse().unwrap(),
        ..room.new_rollout(2)
    };
    let (lab, actor) = (&room.lab, Actor::command());
    let begun = lab.lib.begin_rollout(&new, room.clock, &lab.room, &actor);
    let id = begun.unwrap().id;
    let running = lab.boot(&a);
    lab.boot(&b);
    lab.leave(&running);
    room.after(10);
    // A disk of fc28@2 is one of fc28, too: assigning that would leave it.
    let says = room.view(id).progress[0].says.clone();
    assert!(
        says.contains("a reset wait again") && says.contains("it is set back"),
        "{says}"
    );
    room.lab.boot(&a);
    assert_eq!(room.lab.read(&a), "mine", "set back all the same");
    let events = room.events();
    let back = events.iter().find(|one| one.what == "rollout-set-back");
    assert!(back.unwrap().details["not"].to_string().contains("reset"));
}

/// Nobody can read what fc28 is, as on a disk that is away.
fn away(room: &Room, is_away: bool) {
    let current = room.lab.home().join("images/fc28/current");
    let aside = current.with_extension("aside");
    if is_away {
        std::fs::rename(&current, &aside).unwrap();
        std::fs::create_dir(&current).unwrap();
    } else {
        std::fs::remove_dir(&current).unwrap();
        std::fs::rename(&aside, &current).unwrap();
    }
}

#[test]
fn setting_back_is_tried_again_while_the_disk_is_away() {
    let mut room = Room::new(Mode::Shared);
    let id = room.begin();
    away(&room, true);
    room.after(10);
    room.after(9);
    assert!(matches!(room.stage(id), Stage::Back { .. }));
    let says = &room.view(id).progress[0].says;
    assert!(
        says.contains("is tried again") && says.contains("current"),
        "{says}"
    );
    away(&room, false);
    room.after(0);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(room.next_boots(), ["fc28@1"; 4]);
    assert_eq!(room.view(id).progress[0].says, "set back");
    let events = room.events();
    let back = events.iter().find(|one| one.what == "rollout-set-back");
    assert_eq!(back.unwrap().details.get("not"), None);
}

#[test]
fn time_in_which_no_server_ran_is_none_in_which_setting_back_was_tried() {
    let mut room = Room::new(Mode::Shared);
    let id = room.begin();
    away(&room, true);
    room.after(10);
    // It is stopped for an hour.
    room.clock.since = room.clock.now + SignedDuration::from_hours(1);
    room.after(60);
    assert!(matches!(room.stage(id), Stage::Back { .. }));
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
}

#[test]
fn setting_back_ends_though_the_disk_stays_away_and_the_event_says_for_whom() {
    let mut room = Room::new(Mode::Shared);
    let id = room.begin();
    away(&room, true);
    room.after(10);
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    let events = room.events();
    let back = events.iter().find(|one| one.what == "rollout-set-back");
    let not = back.unwrap().details["not"].to_string();
    assert!(not.contains("a: ") && not.contains("b: "), "{not}");
}

/// What is told of each client.
fn told(room: &Room, id: u64) -> [String; 4] {
    let progress = room.view(id).progress;
    [0, 1, 2, 3].map(|at| progress[at].says.clone())
}

fn stop(room: &Room, id: u64, keep: Keep) {
    let (lib, actor) = (&room.lab.lib, Actor::command());
    lib.stop_rollout(id, keep, room.clock, &room.lab.room, &actor)
        .unwrap();
}

#[test]
fn who_was_never_given_it_is_told_so_when_it_is_over() {
    const NEXT: &str = "gets it at its next boot";
    const NOT: &str = "was not given it";
    const WAITS: &str = "waits for the canaries";
    let room = Room::new(Mode::Shared);
    let id = room.begin();
    assert_eq!(told(&room, id), [NEXT, NEXT, WAITS, WAITS]);
    stop(&room, id, Keep::Image);
    assert_eq!(told(&room, id), [NEXT, NEXT, NOT, NOT]);
    // Others have it by a later version of the image, which what was given them means, too.
    room.lab.seal("fc29", "newer");
    let newer = "gets fc29@2 at its next boot";
    assert_eq!(told(&room, id), [newer, newer, NOT, NOT]);
    room.lab.boot(&room.macs[0]);
    assert_eq!(told(&room, id)[0], newer);
    room.lab
        .act(&room.macs[1], assign(Some("fc30"), None), When::AtNextBoot)
        .unwrap_err();
    room.lab.seal("fc30", "another");
    room.lab
        .act(&room.macs[1], assign(Some("fc30"), None), When::AtNextBoot)
        .unwrap();
    assert_eq!(told(&room, id)[1], "was given fc30 since");

    let mut room = Room::new(Mode::Shared);
    let id = room.begin();
    room.after(10);
    assert!(matches!(room.stage(id), Stage::SetBack { .. }));
    assert_eq!(told(&room, id), ["set back", "set back", NOT, NOT]);
}

#[test]
fn who_is_tried_again_is_told_so_while_somebody_tries() {
    let mut room = Room::new(Mode::Shared);
    let id = room.begin();
    away(&room, true);
    room.after(10);
    assert!(told(&room, id)[0].starts_with("is tried again: "));
    // Nothing is tried with those any more who are gone, nor with anybody when it is over.
    let gone = room.lab.client(&room.macs[0]);
    std::fs::remove_file(
        room.lab
            .home()
            .join(format!("clients/{}.json", gone.mac.bare())),
    )
    .unwrap();
    assert_eq!(told(&room, id)[0], "it was removed");
    stop(&room, id, Keep::Image);
    let says = &told(&room, id)[1];
    assert_eq!(says, "gets it at its next boot");
}
