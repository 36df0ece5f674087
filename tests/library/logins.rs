//! Rules 2 to 4: boot ids, one writer, and aliases that do not move under a boot.

use netroot::library::*;

use crate::lab::{Lab, assign, everywhere, forbidden, refused};

const MAC: &str = "52:54:00:12:34:56";
const OTHER: &str = "52:54:00:12:34:57";
const STRANGER: &str = "iqn.1993-08.org.debian:01:abcdef";

fn name(rest: &str) -> String {
    format!("iqn.2026-01.edu.example.server-01:{rest}")
}

#[test]
fn a_killed_server_resets_nobody_and_the_next_boot_is_pristine() {
    everywhere(|mut lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
        let ticket = lab.script(&mac);
        assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::NewBoot);
        lab.write(&mac, "this boot's");
        lab.room.forget();
        lab.reopen();
        assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::Reconnect);
        assert_eq!(lab.read(&mac), "this boot's");
        lab.room.forget();
        assert_eq!(lab.boot(&mac).entry, Entry::NewBoot);
        assert_eq!(lab.read(&mac), "pristine");
        // Nobody expects to find an ephemeral disk again.
        assert!(lab.client(&mac).discarded.is_empty());
    });
}

#[test]
fn an_ephemeral_boot_gets_the_version_of_its_script() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    let ticket = lab.script(&mac);
    lab.seal("fc28", "second");
    lab.enter(&ticket).unwrap();
    assert_eq!(
        lab.read(&mac),
        "first",
        "the kernel that is running is the first's"
    );
    lab.room.forget();
    lab.boot(&mac);
    assert_eq!(lab.read(&mac), "second");
}

#[test]
fn a_boot_owes_what_it_proved_also_when_the_librarys_key_is_lost() {
    let mut lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let edit = Edit {
        settings: serde_json::from_str(r#"{"chap": "kernel-line"}"#).unwrap(),
        ..Edit::default()
    };
    lab.lib
        .edit_client(&mac, &edit, &lab.room, &Actor::command())
        .unwrap();
    let ticket = lab.script(&mac);
    let owed = |lab: &Lab| lab.lib.secrets_of_initiator(&ticket.initiator).unwrap();
    let before = owed(&lab);
    assert!(before.chap.is_some());
    lab.enter(&ticket).unwrap();
    assert_eq!(owed(&lab), before);
    let key = lab.home().join("secrets/boot.key");
    let lost = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, lost.chars().rev().collect::<String>()).unwrap();
    lab.reopen();
    let now = owed(&lab).chap.expect("nobody gets in without a secret");
    assert_ne!(Some(now), before.chap, "and nobody was given this one");
}

#[test]
fn all_that_a_client_is_told_has_to_fit_on_its_kernel_line() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let edit = |settings: &str, args: Option<usize>| {
        let word = |bytes: usize| "x".repeat(bytes - 1).parse().unwrap();
        let edit = Edit {
            settings: serde_json::from_str(settings).unwrap(),
            args: args.map(|bytes| {
                let whole = std::iter::repeat_n(500, bytes / 500);
                let rest = Some(bytes % 500).filter(|rest| *rest > 1);
                whole.chain(rest).map(word).collect()
            }),
            ..Edit::default()
        };
        lab.lib
            .edit_client(&mac, &edit, &lab.room, &Actor::command())
    };
    let room = room_for_args(&lab.lib.config());
    edit("{}", Some(room)).unwrap();
    let why = refused(edit(r#"{"data": "8M"}"#, None));
    assert!(why.contains("where its data disk is"), "{why}");
    edit("{}", Some(room - 100)).unwrap();
    edit(r#"{"data": "8M"}"#, None).unwrap();
    lab.script(&mac);
}

#[test]
fn fetching_scripts_resets_nobody() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    let ticket = lab.script(&mac);
    lab.enter(&ticket).unwrap();
    lab.write(&mac, "this boot's");
    let before = lab.snapshot();
    for _ in 0..20 {
        lab.script(&mac);
    }
    assert_eq!(lab.snapshot(), before);
    assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::Reconnect);
    assert_eq!(lab.read(&mac), "this boot's");
}

#[test]
fn a_newer_boot_fences_the_older_one() {
    for mode in [Mode::Shared, Mode::Persistent, Mode::Ephemeral] {
        let lab = Lab::new();
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", mode);
        let old = lab.script(&mac);
        lab.enter(&old).unwrap();
        let new = lab.script(&mac);
        lab.enter(&new).unwrap();
        assert_eq!(*lab.room.fenced.lock().unwrap(), [mac]);
        let sessions = lab.room.sessions_of(&mac);
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].boot, Some(new.id));
        assert!(forbidden(lab.enter(&old)).contains("older"), "{mode}");
        assert_eq!(lab.enter(&new).unwrap().entry, Entry::Reconnect);
    }
}

#[test]
fn a_script_that_was_never_used_is_good_until_a_later_one_is() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let first = lab.script(&mac);
    std::thread::sleep(std::time::Duration::from_millis(2));
    let second = lab.script(&mac);
    assert_ne!(first.id, second.id);
    lab.enter(&first).unwrap();
    lab.enter(&second).unwrap();
    forbidden(lab.enter(&first));
}

#[test]
fn a_boot_may_have_any_number_of_sessions() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    let ticket = lab.script(&mac);
    let firmware = lab.enter(&ticket).unwrap();
    lab.write(&mac, "this boot's");
    let kernel = lab.enter(&ticket).unwrap();
    assert_eq!(
        (firmware.entry, kernel.entry),
        (Entry::NewBoot, Entry::Reconnect)
    );
    lab.leave(&firmware);
    assert_eq!(lab.client(&mac).boot.unwrap().state, BootState::Up);
    lab.leave(&kernel);
    assert_eq!(lab.client(&mac).boot.unwrap().state, BootState::Gone);
    assert_eq!(lab.read(&mac), "this boot's");
}

#[test]
fn sessions_that_begin_a_boot_at_once_make_one_disk() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    lab.boot(&mac);
    let ticket = lab.script(&mac);
    let lab = &lab;
    let grants: Vec<Grant> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| lab.enter(&ticket).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let new = grants
        .iter()
        .filter(|grant| grant.entry == Entry::NewBoot)
        .count();
    assert_eq!(new, 1);
    assert!(grants.iter().all(|grant| grant.disk == grants[0].disk));
}

#[test]
fn a_late_reconnect_does_not_write_to_a_disk_that_was_reset() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let ticket = lab.script(&mac);
    let grant = lab.enter(&ticket).unwrap();
    lab.leave(&grant); // the network is gone, the machine is not
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    assert!(forbidden(lab.enter(&ticket)).contains("fenced"));
    // The same after an undo and an assignment.
    let ticket = lab.script(&mac);
    let grant = lab.enter(&ticket).unwrap();
    lab.leave(&grant);
    lab.act(&mac, Act::Undo, When::Now).unwrap();
    forbidden(lab.enter(&ticket));
}

#[test]
fn a_script_of_before_an_assignment_begins_no_boot() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc28", "second");
    lab.seal("fc29", "other");
    for to in [
        Act::Assign(AssignTo {
            image: Some("fc29".parse().unwrap()),
            mode: None,
        }),
        Act::Assign(AssignTo {
            image: None,
            mode: Some(Mode::Ephemeral),
        }),
        Act::Assign(AssignTo {
            image: Some("fc28@1".parse().unwrap()),
            mode: None,
        }),
    ] {
        for mode in [Mode::Shared, Mode::Persistent] {
            let mac = lab.add(MAC, "fc28", mode);
            let ticket = lab.script(&mac);
            std::thread::sleep(std::time::Duration::from_millis(2));
            lab.act(&mac, to.clone(), When::Now).unwrap();
            let why = forbidden(lab.enter(&ticket));
            assert!(why.contains("boot the client again"), "{why}");
            lab.boot(&mac);
            lab.lib
                .remove_client(&mac, When::Force, &lab.room, &Actor::command())
                .unwrap();
        }
    }
}

#[test]
fn a_script_of_before_a_reset_to_another_version_begins_no_boot() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.seal("fc28", "second");
    let ticket = lab.script(&mac);
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    let why = forbidden(lab.enter(&ticket));
    assert!(why.contains("version 1"), "{why}");
}

#[test]
fn ids_that_this_library_did_not_make_are_refused() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let other = lab.add(OTHER, "fc28", Mode::Persistent);
    let ticket = lab.script(&mac);
    let target = &ticket.target;
    let good = ticket.id.to_string();
    let last = if good.ends_with('0') { '1' } else { '0' };
    let forged = [
        format!("{}{last}", &good[..good.len() - 1]),
        format!("f{}", &good[1..]), // a boot of the far future would fence all others
        good.replacen("-1-", "-2-", 1),
    ];
    for id in forged {
        let initiator = name(&format!("client-{}.{id}", mac.bare()));
        forbidden(lab.login(&initiator, target));
        assert!(lab.visible(&initiator).is_empty(), "{id}");
    }
    for rest in [
        format!("client-{}.{}", mac.bare(), lab.script(&other).id),
        format!("client-{}.garbage", mac.bare()),
        format!("client-{}", mac.bare()),
        format!("client-525400ffffff.{good}"),
    ] {
        forbidden(lab.login(&name(&rest), target));
        assert!(lab.visible(&name(&rest)).is_empty(), "{rest}");
    }
    assert_eq!(lab.client(&mac).boot, None, "nobody was fenced for it");
    lab.enter(&ticket).unwrap();
}

#[test]
fn a_clone_is_for_its_clients_boots_alone() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let other = lab.add(OTHER, "fc28", Mode::Persistent);
    let mine = lab.script(&mac);
    forbidden(lab.login(STRANGER, &mine.target));
    forbidden(lab.login(&lab.script(&other).initiator, &mine.target));
    forbidden(lab.login(&mine.initiator, &name("fc28.1")));
    assert_eq!(
        lab.visible(&mine.initiator),
        std::slice::from_ref(&mine.target)
    );
    assert_eq!(lab.visible(STRANGER), [name("fc28"), name("fc28.1")]);
    assert_eq!(
        lab.client(&other).boot,
        None,
        "a login that fails begins no boot"
    );
}

#[test]
fn a_shared_boot_keeps_its_version_although_current_moves() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let mac = lab.add(MAC, "fc28", Mode::Shared);
    let ticket = lab.script(&mac);
    assert_eq!(ticket.target, name("fc28.1"));
    lab.enter(&ticket).unwrap();
    lab.seal("fc28", "second");
    lab.room.forget();
    assert_eq!(lab.enter(&ticket).unwrap().version.to_string(), "fc28@1");
    // Even an assignment leaves it alone: its disk is the version, which nobody changes.
    lab.seal("fc29", "other");
    lab.act(&mac, assign(Some("fc29"), None), When::Now)
        .unwrap();
    assert_eq!(lab.enter(&ticket).unwrap().version.to_string(), "fc28@1");
    assert_eq!(lab.script(&mac).target, name("fc29.1"));
}

#[test]
fn an_alias_does_not_move_under_a_boot() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let alias = name("fc28");
    let first = lab.login(STRANGER, &alias).unwrap();
    assert_eq!((first.entry, first.version.number), (Entry::Reader, 1));
    lab.seal("fc28", "second");
    // The kernel's session beside the firmware's, with a discovery between them.
    lab.visible(STRANGER);
    let kernel = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(kernel.version.number, 1);
    lab.leave(&first);
    lab.leave(&kernel);
    let again = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(again.version.number, 1, "a reconnect");
    assert_eq!(
        again.identity,
        name("fc28.1"),
        "the same disk by either name"
    );
    lab.leave(&again);
    // Somebody else boots and gets what is current.
    assert_eq!(
        lab.login("iqn.1993-08.org.debian:01:ffffff", &alias)
            .unwrap()
            .version
            .number,
        2
    );
    // A discovery without a session is a new boot.
    lab.visible(STRANGER);
    assert_eq!(lab.login(STRANGER, &alias).unwrap().version.number, 2);
}

#[test]
fn targets_that_are_not_there() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    for rest in ["fc29", "fc28.2", "fc28.01", "fc28.", "Fc28", ""] {
        let login = lab.login(STRANGER, &name(rest));
        assert!(
            matches!(login, Err(LoginError::NotFound(_))),
            "{rest}: {login:?}"
        );
    }
    let login = lab.login(STRANGER, "iqn.2026-01.edu.example.server-02:fc28");
    assert!(matches!(login, Err(LoginError::NotFound(_))));
}

#[test]
fn what_is_armed_while_a_boot_enters_waits_for_one_that_fits() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "other");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    lab.boot(&mac);
    let ticket = lab.script(&mac);
    // The fence of the older boot is the moment between a boot's two halves.
    struct Arms<'a>(&'a Lab, MacAddr);
    impl Live for Arms<'_> {
        fn sessions(&self) -> Vec<LiveSession> {
            self.0.room.sessions()
        }
        fn fence(&self, client: &MacAddr, but: Option<&BootId>) {
            self.0.room.fence(client, but);
            let act = assign(Some("fc29"), None);
            self.0.act(&self.1, act, When::AtNextBoot).unwrap();
        }
        fn evict(&self, _: &[VersionId]) {}
    }
    let caller = Caller {
        initiator: &ticket.initiator,
        peer: "192.0.2.7:1".parse().unwrap(),
    };
    let grant = lab
        .lib
        .login(caller, &ticket.target, &Arms(&lab, mac), |_| ())
        .unwrap();
    assert_eq!(grant.version.to_string(), "fc28@1");
    assert!(lab.client(&mac).armed.is_some());
    assert_eq!(lab.script(&mac).version.to_string(), "fc29@1");
}

#[test]
fn an_alias_moves_after_a_day_without_a_session() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let alias = name("fc28");
    let grant = lab.login(STRANGER, &alias).unwrap();
    lab.seal("fc28", "second");
    let age = |hours| age(&lab, hours);
    age(48);
    let second = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(second.version.number, 1, "it has a session all the time");
    age(48);
    lab.leave(&second);
    lab.leave(&grant);
    age(23);
    let third = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(third.version.number, 1);
    lab.leave(&third);
    age(25);
    assert_eq!(lab.login(STRANGER, &alias).unwrap().version.number, 2);
}

/// Makes the time that is noted in the only binding so many hours older.
fn age(lab: &Lab, hours: i64) {
    let dir = std::fs::read_dir(lab.home().join("bindings")).unwrap();
    let path = dir.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut binding: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
    binding["last"] = serde_json::to_value(then).unwrap();
    std::fs::write(path, binding.to_string()).unwrap();
}

#[test]
fn an_alias_does_not_move_under_a_boot_that_outlives_the_server() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let alias = name("fc28");
    lab.login(STRANGER, &alias).unwrap();
    lab.seal("fc28", "second");
    // Three days later the server is killed, or stopped: nobody sees the session end.
    age(&lab, 72);
    lab.room.forget();
    // Not even somebody who looks what is there, on the machine that is up, tells of a new boot.
    lab.visible(STRANGER);
    let again = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(again.version.number, 1, "its root is mounted");
    // Its end was seen, so that the day begins to run.
    lab.leave(&again);
    age(&lab, 25);
    assert_eq!(lab.login(STRANGER, &alias).unwrap().version.number, 2);
}

#[test]
fn an_alias_does_not_move_while_a_session_takes_the_place_of_another() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let alias = name("fc28");
    let old = lab.login(STRANGER, &alias).unwrap();
    lab.seal("fc28", "second");
    age(&lab, 72);
    // The old session is gone at once; that the library is told may come after the new login.
    lab.room.leave(&old);
    let new = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(new.version.number, 1);
    lab.lib.left(&old, &lab.room).unwrap();
    age(&lab, 72);
    lab.room.forget();
    let again = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(
        again.version.number, 1,
        "the new session's end was not seen"
    );
}

#[test]
fn a_version_that_somebody_may_run_by_an_alias_is_not_removed() {
    let lab = Lab::new();
    let first = lab.seal("fc28", "first");
    let grant = lab.login(STRANGER, &name("fc28")).unwrap();
    lab.seal("fc28", "second");
    let remove = || lab.lib.remove_version(&first, &lab.room, &Actor::command());
    age(&lab, 72);
    lab.room.forget();
    let why = refused(remove());
    assert!(why.contains(STRANGER) && why.contains("bindings/"), "{why}");
    lab.lib.left(&grant, &lab.room).unwrap();
    remove().unwrap(); // it was seen to leave
}

#[test]
fn a_version_that_was_deleted_by_hand_is_not_replaced_under_a_boot() {
    let lab = Lab::new();
    let first = lab.seal("fc28", "first");
    let alias = name("fc28");
    lab.login(STRANGER, &alias).unwrap();
    lab.seal("fc28", "second");
    lab.room.forget();
    let images = lab.home().join("images/fc28");
    std::fs::remove_dir_all(images.join(first.number.to_string())).unwrap();
    let Err(LoginError::Failed(error)) = lab.login(STRANGER, &alias) else {
        panic!("another disk under its root");
    };
    let why = error.to_string();
    assert!(why.contains("fc28@1") && why.contains("bindings/"), "{why}");
    // As it says.
    let dir = std::fs::read_dir(lab.home().join("bindings")).unwrap();
    for entry in dir {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(lab.login(STRANGER, &alias).unwrap().version.number, 2);
}

#[test]
fn a_further_address_is_no_second_identity() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    let edit = Edit {
        more_macs: Some([OTHER.parse().unwrap()].into()),
        ..Edit::default()
    };
    lab.lib
        .edit_client(&mac, &edit, &lab.room, &Actor::command())
        .unwrap();
    lab.boot(&mac);
    let ticket = lab.script(&OTHER.parse().unwrap());
    assert_eq!(ticket.client, mac, "a script names the first address");
    let other = ticket.initiator.replace("525400123456", "525400123457");
    assert_ne!(other, ticket.initiator);
    let before = lab.client(&mac);
    forbidden(lab.login(&other, &ticket.target));
    assert!(lab.visible(&other).is_empty());
    assert_eq!(lab.client(&mac), before);
}

#[test]
fn strangers_with_made_up_names_do_not_fill_the_library() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let alias = name("fc28");
    let kept = lab.login(STRANGER, &alias).unwrap();
    lab.seal("fc28", "second");
    let dir = lab.home().join("bindings");
    for n in 0..4200 {
        let binding = serde_json::json!({
            "revision": 1, "initiator": format!("iqn.made-up:{n}"), "peer": "192.0.2.9",
            "version": "fc28@1", "last": jiff::Timestamp::now(), "open": false,
        });
        std::fs::write(dir.join(format!("{n:064x}.json")), binding.to_string()).unwrap();
    }
    lab.login("iqn.made-up:one-more", &alias).unwrap();
    assert!(std::fs::read_dir(&dir).unwrap().count() < 4096);
    let again = lab.login(STRANGER, &alias).unwrap();
    assert_eq!(
        again.version, kept.version,
        "who has a session is not forgotten"
    );
}

#[test]
fn a_refused_initiator_that_tries_for_ever_is_recorded_once() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    for _ in 0..50 {
        assert!(lab.login(STRANGER, &name("fc29")).is_err());
    }
    assert_eq!(refusals(&lab), 1);
}

#[test]
fn refused_initiators_with_made_up_names_do_not_fill_the_events() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    for n in 0..200 {
        let login = lab.login(&format!("iqn.made-up:{n}"), &name("fc29"));
        assert!(login.is_err());
    }
    assert!((1..10).contains(&refusals(&lab)), "{}", refusals(&lab));
}

/// How many refused logins were recorded.
fn refusals(lab: &Lab) -> usize {
    let dir = std::fs::read_dir(lab.home().join("events")).unwrap();
    let text: String = dir
        .map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap())
        .collect();
    text.matches("login-refused").count()
}

#[test]
fn who_was_let_in_to_a_disk_never_opens_the_next_one() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let grant = lab.boot(&mac);
    lab.write(&mac, "mine");
    let disks = lab.lib.open_granted(&grant).unwrap();
    assert_eq!(disks.len(), 1);
    assert_eq!(lab.text_of(disks[0].disk.as_ref()), "mine");
    lab.act(&mac, Act::Reset, When::Force).unwrap();
    assert!(matches!(
        lab.lib.open_granted(&grant),
        Err(Error::Refused { .. })
    ));
}
