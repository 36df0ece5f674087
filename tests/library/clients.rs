//! Rules 1 and 5: a disk never changes under a running client, and what is lost can be brought back.

use netroot::library::*;

use crate::lab::{Lab, MIB, assign, everywhere, on_xfs, refused};

const MAC: &str = "52:54:00:12:34:56";

#[test]
fn a_clone_begins_as_its_version_and_keeps_what_is_written() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        assert_eq!(lab.read(&mac), "pristine");
        let grant = lab.boot(&mac);
        lab.write(&mac, "mine");
        lab.leave(&grant);
        lab.boot(&mac);
        assert_eq!(lab.read(&mac), "mine");
        let version = lab.lib.open_version(&"fc28@1".parse().unwrap()).unwrap();
        assert_eq!(lab.text_of(version.as_ref()), "pristine");
        lab.lib.verify(&"fc28@1".parse().unwrap(), &Quiet).unwrap();
    });
}

#[test]
fn a_clone_is_a_reflink_where_the_file_system_can() {
    on_xfs(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        assert_eq!(lab.client(&mac).clone.unwrap().kind, CloneKind::Reflink);
    });
}

#[test]
fn reset_is_pristine_and_undo_brings_back() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        lab.write(&mac, "mine");
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        assert_eq!(lab.read(&mac), "pristine");
        lab.write(&mac, "after the reset");
        lab.act(&mac, Act::Undo, When::Now).unwrap();
        assert_eq!(lab.read(&mac), "mine");
        // An undo can be undone: nothing was thrown away by it either.
        lab.act(&mac, Act::Undo, When::Now).unwrap();
        assert_eq!(lab.read(&mac), "after the reset");
    });
}

#[test]
fn any_disk_that_is_kept_comes_back_with_what_was_assigned_then() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "newer");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.write(&mac, "first");
    let first = lab.client(&mac).clone.unwrap().id;
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    lab.write(&mac, "second");
    lab.act(&mac, assign(Some("fc29"), None), When::Now)
        .unwrap();
    let restore = |disk: &str| Act::Restore(KeptDisk { disk: disk.into() });
    let done = lab.act(&mac, restore(&first), When::Now).unwrap();
    assert!(done.plan.loses.is_some(), "the disk in place is set aside");
    assert_eq!(lab.read(&mac), "first");
    assert_eq!(lab.client(&mac).image.to_string(), "fc28");
    // It is a change like any other.
    lab.act(&mac, Act::Undo, When::Now).unwrap();
    assert_eq!(lab.read(&mac), "newer");
    assert_eq!(lab.client(&mac).image.to_string(), "fc29");
    // Armed, it happens once, at the next boot.
    lab.act(&mac, restore(&first), When::AtNextBoot).unwrap();
    assert_eq!(lab.read(&mac), "newer");
    lab.boot(&mac);
    assert_eq!(lab.read(&mac), "first");
    let before = lab.snapshot();
    let error = lab.act(&mac, restore("0000"), When::Force).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("not kept") && said.contains("client show"),
        "{said}"
    );
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn undo_without_anything_to_undo_is_refused() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let shared = lab.add("52:54:00:00:00:02", "fc28", Mode::Shared);
    for (mac, act) in [(&mac, Act::Undo), (&shared, Act::Reset)] {
        // Of a whole group it is no failure, so the plan is one, and says why it is empty.
        let plan = lab.lib.plan(mac, &act, When::Now, &lab.room).unwrap();
        assert_eq!(plan.steps, []);
        assert!(refused(lab.act(mac, act, When::Now)).contains(&plan.nothing.unwrap()));
    }
}

#[test]
fn a_running_client_is_not_reset() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        lab.seal("fc29", "other");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let _grant = lab.boot(&mac);
        lab.write(&mac, "mine");
        let before = lab.snapshot();
        for act in [
            Act::Reset,
            assign(Some("fc29"), None),
            assign(None, Some(Mode::Shared)),
        ] {
            let why = refused(lab.act(&mac, act, When::Now));
            assert!(
                why.contains("--at-next-boot") && why.contains("192.0.2.7"),
                "{why}"
            );
        }
        refused(
            lab.lib
                .remove_client(&mac, When::Now, &lab.room, &Actor::command()),
        );
        assert_eq!(lab.snapshot(), before);
    });
}

#[test]
fn a_client_that_nobody_saw_leave_is_not_reset_even_without_a_server() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.boot(&mac);
    lab.write(&mac, "mine");
    lab.room.forget(); // the server is killed
    let nobody = NoServer::new(lab.lib.live_lock().unwrap());
    let why = refused(
        lab.lib
            .perform(&mac, &Act::Reset, When::Now, &nobody, &Actor::command()),
    );
    assert!(why.contains("may still be running"), "{why}");
    lab.lib
        .perform(&mac, &Act::Reset, When::Force, &nobody, &Actor::command())
        .unwrap();
    assert_eq!(lab.read(&mac), "pristine");
}

#[test]
fn at_next_boot_waits_for_a_new_boot_and_not_for_a_reconnect() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let ticket = lab.script(&mac);
        let grant = lab.enter(&ticket).unwrap();
        lab.write(&mac, "mine");
        lab.act(&mac, Act::Reset, When::AtNextBoot).unwrap();
        lab.leave(&grant);
        let again = lab.enter(&ticket).unwrap();
        assert_eq!(again.entry, Entry::Reconnect);
        assert_eq!(lab.read(&mac), "mine");
        lab.leave(&again);
        assert_eq!(lab.boot(&mac).entry, Entry::NewBoot);
        assert_eq!(lab.read(&mac), "pristine");
        assert_eq!(lab.client(&mac).armed, None);
        // It was a reset like any other: it can be undone, and happens once.
        assert_eq!(lab.client(&mac).discarded.len(), 1);
    });
}

#[test]
fn what_waits_can_be_called_off() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.write(&mac, "mine");
    lab.act(&mac, Act::Reset, When::AtNextBoot).unwrap();
    // Undo takes back what was armed and not the reset before it, now, whatever runs.
    let grant = lab.boot(&mac);
    lab.act(&mac, Act::Reset, When::Force).unwrap();
    lab.leave(&grant);
    let grant = lab.boot(&mac);
    lab.write(&mac, "after the reset");
    for when in [When::Now, When::AtNextBoot, When::Force] {
        lab.act(&mac, Act::Reset, When::AtNextBoot).unwrap();
        let done = lab.act(&mac, Act::Undo, when).unwrap();
        assert_eq!(done.plan.calls_off(), Some(&Act::Reset), "{when:?}");
        assert_eq!(done.plan.loses, None);
        assert_eq!(lab.client(&mac).armed, None);
    }
    assert_eq!(lab.room.sessions().len(), 1, "nobody is fenced for it");
    lab.leave(&grant);
    lab.boot(&mac);
    assert_eq!(lab.read(&mac), "after the reset");
}

#[test]
fn an_assignment_that_changes_nothing_leaves_what_waits_alone() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.boot(&mac);
    lab.act(&mac, Act::Reset, When::AtNextBoot).unwrap();
    let before = lab.snapshot();
    for when in [When::Now, When::AtNextBoot, When::Force] {
        let done = lab
            .act(&mac, assign(Some("fc28"), Some(Mode::Persistent)), when)
            .unwrap();
        assert_eq!(done.plan.steps, []);
    }
    assert_eq!(lab.snapshot(), before);
    assert_eq!(lab.room.sessions().len(), 1);
}

#[test]
fn undo_takes_an_assignment_back_that_moved_no_disk() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "newer");
    let shared = lab.add("52:54:00:00:00:01", "fc28", Mode::Shared);
    let assigned = |mac: &MacAddr| lab.client(mac).assignment().to_string();
    lab.act(&shared, assign(Some("fc29"), None), When::Now)
        .unwrap();
    lab.act(&shared, Act::Undo, When::Now).unwrap();
    assert_eq!(assigned(&shared), "fc28 in mode shared");
    // To a disk of its own and back: the mode that had none has none again, and the disk is kept.
    lab.act(&shared, assign(None, Some(Mode::Persistent)), When::Now)
        .unwrap();
    lab.write(&shared, "mine");
    lab.act(&shared, Act::Undo, When::Now).unwrap();
    assert_eq!(assigned(&shared), "fc28 in mode shared");
    lab.act(&shared, Act::Undo, When::Now).unwrap();
    assert_eq!(lab.read(&shared), "mine");
    // A pin that keeps the clone: it is the pin that is taken back, not the reset before it.
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    lab.write(&mac, "after the reset");
    lab.act(&mac, assign(Some("fc28@1"), None), When::Now)
        .unwrap();
    lab.act(&mac, Act::Undo, When::Now).unwrap();
    assert_eq!(assigned(&mac), "fc28 in mode persistent");
    assert_eq!(lab.read(&mac), "after the reset");
}

#[test]
fn what_an_ephemeral_boot_dropped_is_not_missed_by_an_undo() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    lab.act(&mac, assign(Some("fc28@1"), None), When::Now)
        .unwrap();
    let grant = lab.boot(&mac);
    lab.leave(&grant);
    lab.act(&mac, Act::Undo, When::Now).unwrap();
    assert_eq!(
        lab.client(&mac).assignment().to_string(),
        "fc28 in mode ephemeral"
    );
}

#[test]
fn an_assignment_at_the_next_boot_is_what_the_script_says() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "newer");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let running = lab.boot(&mac);
    lab.act(&mac, assign(Some("fc29"), None), When::AtNextBoot)
        .unwrap();
    assert_eq!(lab.client(&mac).image.to_string(), "fc28");
    lab.leave(&running);
    let ticket = lab.script(&mac);
    assert_eq!(ticket.version.to_string(), "fc29@1");
    lab.enter(&ticket).unwrap();
    assert_eq!(lab.read(&mac), "newer");
    assert_eq!(lab.client(&mac).image.to_string(), "fc29");
}

#[test]
fn force_cuts_the_running_boot_off_and_lets_a_new_one_in() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let ticket = lab.script(&mac);
        lab.enter(&ticket).unwrap();
        lab.write(&mac, "mine");
        lab.act(&mac, Act::Reset, When::Force).unwrap();
        assert_eq!(*lab.room.fenced.lock().unwrap(), [mac]);
        assert_eq!(lab.read(&mac), "pristine");
        let why = crate::lab::forbidden(lab.enter(&ticket));
        assert!(why.contains("fenced"), "{why}");
        assert_eq!(lab.visible(&ticket.initiator), [""; 0]);
        assert_eq!(lab.boot(&mac).entry, Entry::NewBoot);
    });
}

#[test]
fn assigning_over_a_clone_keeps_it_and_undo_brings_back_both() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        lab.seal("fc29", "newer");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        lab.write(&mac, "mine");
        let act = assign(Some("fc29"), None);
        let plan = lab.lib.plan(&mac, &act, When::Now, &lab.room).unwrap();
        assert!(plan.loses.is_some(), "it has to be asked about");
        lab.act(&mac, act, When::Now).unwrap();
        assert_eq!(lab.read(&mac), "newer");
        lab.act(&mac, Act::Undo, When::Now).unwrap();
        assert_eq!(lab.read(&mac), "mine");
        assert_eq!(lab.client(&mac).image.to_string(), "fc28");
        // To `shared` and back: the disk goes and comes again with the mode.
        lab.act(&mac, assign(None, Some(Mode::Shared)), When::Now)
            .unwrap();
        assert_eq!(lab.client(&mac).clone, None);
        lab.act(&mac, Act::Undo, When::Now).unwrap();
        assert_eq!(
            (lab.client(&mac).mode, lab.read(&mac)),
            (Mode::Persistent, "mine".into())
        );
    });
}

#[test]
fn a_moved_current_leaves_clones_alone_and_shows() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.write(&mac, "mine");
    lab.seal("fc28", "second");
    let view = lab.lib.view(lab.client(&mac), &lab.room).unwrap();
    assert_eq!(view.boots.unwrap().to_string(), "fc28@1");
    assert_eq!(view.drift.unwrap().to_string(), "fc28@2");
    assert_eq!(lab.script(&mac).version.to_string(), "fc28@1");
    lab.boot(&mac);
    assert_eq!(lab.read(&mac), "mine");
    // Naming the version that it is made from anyway changes nothing on disk.
    lab.room.forget();
    lab.act(&mac, assign(Some("fc28@1"), None), When::Now)
        .unwrap();
    assert_eq!(lab.read(&mac), "mine");
    let view = lab.lib.view(lab.client(&mac), &lab.room).unwrap();
    assert_eq!(view.drift, None, "it is pinned to what it has");
}

#[test]
fn a_reset_takes_the_version_that_the_assignment_means_now() {
    let lab = Lab::new();
    lab.seal("fc28", "first");
    let follows = lab.add(MAC, "fc28", Mode::Persistent);
    let pinned = lab.add("52:54:00:12:34:57", "fc28@1", Mode::Persistent);
    lab.seal("fc28", "second");
    lab.act(&follows, Act::Reset, When::Now).unwrap();
    lab.act(&pinned, Act::Reset, When::Now).unwrap();
    assert_eq!(lab.read(&follows), "second");
    assert_eq!(lab.read(&pinned), "first");
}

#[test]
fn the_last_three_discarded_clones_are_kept() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    for n in 0..5 {
        lab.write(&mac, &format!("number {n}"));
        lab.act(&mac, Act::Reset, When::Now).unwrap();
    }
    let client = lab.client(&mac);
    let kept: Vec<String> = client
        .discarded
        .iter()
        .map(|old| old.clone.id.clone())
        .collect();
    assert_eq!(kept.len(), 3);
    let mut there: Vec<String> =
        std::fs::read_dir(lab.home().join("clones").join(mac.bare()).join("discarded"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
    let mut kept_sorted = kept.clone();
    kept_sorted.sort();
    there.sort();
    assert_eq!(there, kept_sorted);
    lab.act(&mac, Act::Undo, When::Now).unwrap();
    assert_eq!(lab.read(&mac), "number 4");
}

#[test]
fn what_cannot_be_added_changes_nothing() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.add(MAC, "fc28", Mode::Persistent);
    let before = lab.snapshot();
    assert!(matches!(
        lab.try_add("52:54:00:00:00:01", "fc99", Mode::Persistent),
        Err(Error::Unknown { kind: "image", .. })
    ));
    assert!(matches!(
        lab.try_add("52:54:00:00:00:01", "fc28@7", Mode::Shared),
        Err(Error::NoVersion { .. })
    ));
    assert!(matches!(
        lab.try_add("52:54:00", "fc28", Mode::Shared),
        Err(Error::Name(_))
    ));
    assert!(matches!(
        lab.try_add("52-54-00-12-34-56", "fc28", Mode::Shared),
        Err(Error::Exists { kind: "client", .. })
    ));
    let same_name = NewClient {
        mac: "52:54:00:00:00:02".parse().unwrap(),
        name: Some("client-525400123456".parse().unwrap()),
        image: "fc28".parse().unwrap(),
        mode: Mode::Persistent,
        args: Vec::new(),
        groups: Default::default(),
        settings: Default::default(),
    };
    let added = lab.lib.add_client(&same_name, &lab.room, &Actor::command());
    assert!(matches!(added, Err(Error::Exists { kind: "client", .. })));
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_client_goes_by_its_own_word_then_its_groups_then_everybodys() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Shared);
    let groups = lab.lib.root().join("groups");
    for (name, text) in [
        (
            "beamer",
            r#"{"args": ["splash"], "settings": {"way": "esp"}}"#,
        ),
        ("lab", r#"{"args": ["quiet"], "settings": {"way": "ibft"}}"#),
    ] {
        let text = text.replacen('{', &format!(r#"{{"revision": 1, "name": "{name}", "#), 1);
        std::fs::write(groups.join(format!("{name}.json")), text).unwrap();
    }
    let set = |edit: &str| {
        let edit: Edit = serde_json::from_str(edit).unwrap();
        lab.lib
            .edit_client(&mac, &edit, &lab.room, &Actor::command())
            .unwrap();
        let client = lab.client(&mac);
        let args = lab.lib.kernel_args(&client).unwrap();
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        (lab.lib.settings(&client).unwrap().way, args.join(" "))
    };
    assert_eq!(
        set(r#"{"args": ["nomodeset"]}"#),
        (None, "nomodeset".into())
    );
    assert_eq!(
        set(r#"{"groups": ["lab"]}"#),
        (Some(Way::Ibft), "quiet nomodeset".into())
    );
    assert_eq!(
        set(r#"{"groups": ["beamer", "lab"]}"#),
        (Some(Way::Esp), "splash quiet nomodeset".into())
    );
    assert_eq!(set(r#"{"settings": {"way": "http"}}"#).0, Some(Way::Http));
    assert_eq!(set(r#"{"settings": {"way": null}}"#).0, Some(Way::Esp));
}

#[test]
fn plans_touch_nothing_and_say_what_would_be_done() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "newer");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let _grant = lab.boot(&mac);
    let before = lab.snapshot();
    let plan = lab
        .lib
        .plan(&mac, &assign(Some("fc29"), None), When::Force, &lab.room)
        .unwrap();
    let steps: Vec<String> = plan.steps.iter().map(Step::to_string).collect();
    assert_eq!(
        steps,
        [
            "shut the running boot out and end its 1 session(s); unsaved work on the client is lost",
            "assign fc29 in mode persistent instead of fc28 in mode persistent",
            "take the clone of fc28@1 away and keep it for undo",
            "make a copy-on-write clone of fc29@1",
        ]
    );
    lab.lib.plan_remove(&mac, When::Force, &lab.room).unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_client_is_described_anew_while_it_runs() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.add("52:54:00:00:00:02", "fc28", Mode::Shared);
    let ticket = lab.script(&mac);
    lab.enter(&ticket).unwrap();
    let edit = Edit {
        name: Some("desk-1".parse().unwrap()),
        args: Some(vec!["quiet".parse().unwrap()]),
        groups: Some(["lab".parse().unwrap()].into()),
        more_macs: Some(["52:54:00:12:34:99".parse().unwrap()].into()),
        settings: Default::default(),
        new_identity: false,
    };
    lab.lib
        .edit_client(&mac, &edit, &lab.room, &Actor::command())
        .unwrap();
    for selector in ["desk-1", "@lab", "52:54:00:12:34:99"] {
        let found = lab.lib.select(&selector.parse().unwrap()).unwrap();
        assert_eq!(found.len(), 1, "{selector}");
        assert_eq!(found[0].mac, mac);
    }
    assert_eq!(lab.script(&mac).args[0].as_str(), "quiet");
    assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::Reconnect);
    let taken = Edit {
        more_macs: Some(["52:54:00:00:00:02".parse().unwrap()].into()),
        ..Edit::default()
    };
    let edited = lab
        .lib
        .edit_client(&mac, &taken, &lab.room, &Actor::command());
    assert!(matches!(edited, Err(Error::Exists { .. })));
}

#[test]
fn a_removed_client_is_gone_with_its_disks() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    let ticket = lab.script(&mac);
    lab.enter(&ticket).unwrap();
    let purged = Removing {
        when: When::Force,
        purge: true,
    };
    lab.lib
        .remove_client(&mac, purged, &lab.room, &Actor::command())
        .unwrap();
    assert!(lab.room.sessions().is_empty());
    assert!(lab.lib.clients().unwrap().is_empty());
    assert_eq!(
        std::fs::read_dir(lab.home().join("clones"))
            .unwrap()
            .count(),
        0
    );
    crate::lab::forbidden(lab.enter(&ticket));
}

#[test]
fn a_client_that_is_added_again_is_another_one() {
    for mode in [Mode::Shared, Mode::Persistent, Mode::Ephemeral] {
        let lab = Lab::new();
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", mode);
        let old = lab.script(&mac);
        lab.enter(&old).unwrap();
        lab.lib
            .remove_client(&mac, When::Force, &lab.room, &Actor::command())
            .unwrap();
        lab.add(MAC, "fc28", mode);
        // The machine was never switched off, and would write its cache into the new disk.
        let why = crate::lab::forbidden(lab.enter(&old));
        assert!(why.contains("older"), "{why}");
        assert_eq!(lab.boot(&mac).entry, Entry::NewBoot);
    }
}

#[test]
fn every_act_is_recorded() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.boot(&mac);
    lab.act(&mac, Act::Reset, When::Force).unwrap();
    lab.act(&mac, Act::Undo, When::AtNextBoot).unwrap();
    lab.boot(&mac);
    let mut text = String::new();
    for entry in std::fs::read_dir(lab.home().join("events")).unwrap() {
        text += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    let events: Vec<Event> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let what: Vec<&str> = events.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "client-add",
            "boot",
            "client-reset",
            "client-undo-armed",
            "client-undo",
            "boot"
        ]
    );
    assert!(events.iter().all(|event| event.to.as_deref() == Some(MAC)));
}

#[test]
fn a_large_sparse_image_is_cloned_and_reset_at_once() {
    on_xfs(|lab| {
        lab.seal_sized("big", "pristine", 100 * 1024 * MIB);
        let clock = std::time::Instant::now();
        let mac = lab.add(MAC, "big", Mode::Persistent);
        let add = clock.elapsed();
        lab.write(&mac, "mine");
        let clock = std::time::Instant::now();
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        let reset = clock.elapsed();
        assert_eq!(lab.read(&mac), "pristine");
        println!("100 GiB, sparse, on XFS: client add {add:.1?}, reset {reset:.1?}");
    });
}

#[test]
fn a_list_is_what_each_one_tells_and_sees_what_others_have_changed() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let other = lab.add("52:54:00:12:34:57", "fc28", Mode::Shared);
    lab.seal("fc28", "two");
    lab.boot(&mac);
    let look = || lab.lib.views(&lab.room).unwrap();
    let one_by_one = |mac| lab.lib.view(lab.client(mac), &lab.room).unwrap();
    // Long enough for all of them to be remembered.
    std::thread::sleep(std::time::Duration::from_millis(250));
    for _ in 0..2 {
        assert_eq!(look(), [one_by_one(&mac), one_by_one(&other)]);
    }
    let [first, second] = &look()[..] else {
        panic!("two clients");
    };
    assert_eq!(first.drift, Some("fc28@2".parse().unwrap()));
    assert_eq!((first.state, first.sessions.len()), (ClientState::Up, 1));
    assert_eq!((second.state, second.clone_bytes), (ClientState::Off, 0));

    let elsewhere = Library::open(lab.home(), None).unwrap();
    let edit = Edit {
        name: Some("anna".parse().unwrap()),
        ..Edit::default()
    };
    let actor = Actor::command();
    elsewhere
        .edit_client(&other, &edit, &lab.room, &actor)
        .unwrap();
    assert_eq!(look()[1].client.name.as_str(), "anna");
    elsewhere
        .remove_client(&other, When::Now, &lab.room, &actor)
        .unwrap();
    assert_eq!(look().len(), 1);
}

#[test]
fn a_word_of_the_kernel_line_that_is_refused_by_now_holds_nobody_up() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Shared);
    let refused = serde_json::from_str::<Edit>(r#"{"args": ["quiet", "ip=dhcp"]}"#);
    assert!(refused.unwrap_err().to_string().contains("stops dracut"));

    // It was set before that was refused.
    let document = lab.home().join("clients/525400123456.json");
    let text = std::fs::read_to_string(&document).unwrap();
    let text = text.replace(r#""args": []"#, r#""args": ["quiet", "ip=dhcp"]"#);
    std::fs::write(&document, text).unwrap();
    assert_eq!(lab.lib.clients().unwrap().len(), 1);
    assert_eq!(KernelArg::all_left_out(&lab.client(&mac).args).len(), 1);
    assert_eq!(lab.boot(&mac).client, Some(mac));
    let rename = Edit {
        name: Some("seat".parse().unwrap()),
        ..Edit::default()
    };
    let edited = lab
        .lib
        .edit_client(&mac, &rename, &lab.room, &Actor::command());
    edited.unwrap();
    assert_eq!(lab.client(&mac).args.len(), 2, "nobody has taken it out");
}

#[test]
fn a_client_whose_document_is_broken_is_missed_in_lists_alone() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Persistent);
    let broken = lab.add("52:54:00:12:34:57", "fc28", Mode::Persistent);
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    let document = lab.home().join(format!("clients/{}.json", broken.bare()));
    std::fs::write(document, "{").unwrap();
    let views = lab.lib.views(&lab.room).unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].client.mac, mac);
    assert_eq!(lab.lib.groups().unwrap(), []);
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 365);
    assert_eq!(lab.lib.expire(later).unwrap().len(), 1);
    // Which versions it needs, nobody knows.
    assert!(lab.lib.clients().is_err());
}

#[test]
fn a_change_that_fails_costs_no_identity() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Shared);
    let before = lab.lib.identity(&mac).unwrap();
    let edit = Edit {
        new_identity: true,
        ..Edit::default()
    };
    let change = || {
        let actor = Actor::command();
        lab.lib.edit_client(&mac, &edit, &lab.room, &actor)
    };
    // The document cannot be written there.
    let in_the_way = lab.home().join(format!("clients/.tmp-{}.json", mac.bare()));
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(change(), Err(Error::Io { .. })));
    assert_eq!(lab.lib.identity(&mac).unwrap(), before);
    std::fs::remove_dir(&in_the_way).unwrap();
    change().unwrap();
    let second = lab.lib.identity(&mac).unwrap();
    assert_ne!(second, before);

    // What was changed before the identity could not be is told.
    let name = format!("secrets/.tmp-identity-{}.json", mac.bare());
    let in_the_way = lab.home().join(name);
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = change().unwrap_err().to_string();
    // Nobody knows: it may have been put into its place before that failed.
    let told = "all but the identity, which may be the old one";
    assert!(refused.contains(told), "{refused}");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(lab.lib.identity(&mac).unwrap(), second);
    let events = lab.lib.events(&Filter::default()).unwrap();
    let events = format!("{events:?}");
    assert!(events.contains(told), "{events}");
}
