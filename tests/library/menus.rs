//! What people choose at a machine: another image this once, or their own disk. No rule gets weaker.

use netroot::library::*;

use crate::lab::{Lab, assign, forbidden, refused};

pub(crate) const MAC: &str = "52:54:00:12:34:56";
pub(crate) const OTHER: &str = "52:54:00:12:34:57";

/// A lab with two images, and a client of the first whose menu offers the second.
fn lab(mode: Mode) -> (Lab, MacAddr) {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "another");
    lab.seal("fc30", "not offered");
    let mac = lab.add(MAC, "fc28", mode);
    offer(&lab, &mac, "always");
    (lab, mac)
}

pub(crate) fn offer(lab: &Lab, mac: &MacAddr, when: &str) {
    let settings = serde_json::json!({ "menu": when, "menu_items": ["fc29"] });
    let edit = Edit {
        settings: serde_json::from_value(settings).unwrap(),
        ..Edit::default()
    };
    lab.lib
        .edit_client(mac, &edit, &lab.room, &Actor::command())
        .unwrap();
}

pub(crate) fn choose(lab: &Lab, mac: &MacAddr, image: &str) -> Result<BootTicket> {
    lab.lib
        .issue_once(&lab.client(mac), &image.parse().unwrap())
}

#[test]
fn another_image_is_booted_once_and_the_clients_disk_stays_as_it_is() {
    for mode in [Mode::Persistent, Mode::Ephemeral, Mode::Shared] {
        let (lab, mac) = lab(mode);
        let own = lab.boot(&mac);
        if mode.has_clone() {
            lab.write(&mac, "this client's");
        }
        let before = lab.client(&mac);
        let ticket = choose(&lab, &mac, "fc29").unwrap();
        assert_eq!(
            (ticket.mode, ticket.target.ends_with(":fc29.1")),
            (Mode::Shared, true)
        );
        assert_eq!(
            lab.visible(&ticket.initiator),
            std::slice::from_ref(&ticket.target)
        );
        let grant = lab.enter(&ticket).unwrap();
        assert_eq!(grant.entry, Entry::NewBoot);
        assert_eq!(grant.disk, GrantedDisk::Version("fc29@1".parse().unwrap()));
        // It is a boot of this client like any other: the older one is fenced, and it comes back.
        assert_eq!(*lab.room.fenced.lock().unwrap(), [mac]);
        assert!(forbidden(lab.login(&own.initiator, &own.identity)).contains("older"));
        lab.room.forget();
        assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::Reconnect);
        let after = lab.client(&mac);
        assert_eq!(
            (&after.clone, after.assignment()),
            (&before.clone, before.assignment())
        );
        let uses = lab.lib.uses_of(&"fc29@1".parse().unwrap(), &[]).unwrap();
        assert!(uses.contains(&Use::Runs { client: after.name }), "{uses:?}");
        if mode.has_clone() {
            assert_eq!(lab.read(&mac), "this client's");
        }
        // The next boot is as it is assigned.
        let next = lab.boot(&mac);
        assert_eq!(
            (next.entry, next.version.to_string()),
            (Entry::NewBoot, "fc28@1".into())
        );
        forbidden(lab.enter(&ticket));
        if mode == Mode::Persistent {
            assert_eq!(lab.read(&mac), "this client's");
        }
    }
}

#[test]
fn what_waits_for_the_next_boot_waits_for_one_as_it_is_assigned() {
    let (lab, mac) = lab(Mode::Persistent);
    lab.boot(&mac);
    lab.write(&mac, "this client's");
    lab.act(&mac, Act::Reset, When::AtNextBoot).unwrap();
    lab.enter(&choose(&lab, &mac, "fc29").unwrap()).unwrap();
    assert_eq!(lab.client(&mac).armed.unwrap().act, Act::Reset);
    assert_eq!(lab.read(&mac), "this client's");
    lab.boot(&mac);
    assert_eq!(lab.read(&mac), "pristine");
}

#[test]
fn only_what_is_offered_is_booted_and_only_as_its_script_says() {
    let (lab, mac) = lab(Mode::Persistent);
    assert!(refused(choose(&lab, &mac, "fc30")).contains("does not offer"));
    assert!(refused(choose(&lab, &mac, "fc99")).contains("does not offer"));
    let ticket = choose(&lab, &mac, "fc29").unwrap();
    let name = |rest: &str| format!("iqn.2026-01.edu.example.server-01:{rest}");
    for target in ["client-525400123456", "fc28.1", "fc30.1", "fc29"] {
        forbidden(lab.login(&ticket.initiator, &name(target)));
    }
    // Of another client's script nothing is worth anything here.
    let other = lab.add(OTHER, "fc28", Mode::Shared);
    offer(&lab, &other, "key");
    let theirs = choose(&lab, &other, "fc29").unwrap();
    let forged = theirs.initiator.replace("525400123457", "525400123456");
    forbidden(lab.login(&forged, &theirs.target));
    // An assignment makes scripts old that were made before.
    lab.act(&mac, assign(Some("fc30"), None), When::Now)
        .unwrap();
    forbidden(lab.enter(&ticket));
    offer(&lab, &mac, "off");
    assert!(refused(choose(&lab, &mac, "fc29")).contains("does not offer"));
}

pub(crate) fn user(lab: &Lab, name: &str) -> User {
    let new = NewUser {
        name: name.parse().unwrap(),
        role: Role::Viewer,
    };
    lab.lib
        .add_user_with_password(&new, false, "correct horse", &Actor::command())
        .unwrap();
    lab.lib.user(&new.name).unwrap()
}

pub(crate) fn sits_at(lab: &Lab, user: &User, machine: &MacAddr) -> BootTicket {
    let machine = lab.client(machine);
    let person = lab
        .lib
        .client_of_person(user, &machine, &lab.room, &Actor::command())
        .unwrap();
    lab.lib.issue_boot_at(&person, &machine).unwrap()
}

#[test]
fn a_person_has_one_disk_at_every_machine_and_leaves_the_last_one() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let (here, there) = (
        lab.add(MAC, "fc28", Mode::Ephemeral),
        lab.add(OTHER, "fc28", Mode::Shared),
    );
    let anna = user(&lab, "anna");
    let first = sits_at(&lab, &anna, &here);
    assert_eq!(first.mode, Mode::Persistent);
    let at_here = lab.enter(&first).unwrap();
    let disk = first.client;
    assert_eq!(lab.client(&disk).name.to_string(), "person-anna");
    lab.write(&disk, "anna's");
    let second = sits_at(&lab, &anna, &there);
    assert_eq!(second.client, disk);
    // Only her login fences the machine where she was; her script does not.
    assert_eq!(lab.room.sessions_of(&disk).len(), 1);
    lab.enter(&second).unwrap();
    assert_eq!(*lab.room.fenced.lock().unwrap(), [disk]);
    assert!(forbidden(lab.login(&at_here.initiator, &at_here.identity)).contains("older"));
    assert_eq!(lab.read(&disk), "anna's");
    // Nobody else's disk is hers, and machines keep their own.
    let bert = sits_at(&lab, &user(&lab, "bert"), &here);
    assert_ne!(bert.client, disk);
    assert_eq!(lab.client(&here).boot, None);
    // All that can be done to a client's disk can be done to hers.
    refused(lab.act(&disk, Act::Reset, When::Now));
    lab.act(&disk, Act::Reset, When::Force).unwrap();
    assert_eq!(lab.read(&disk), "pristine");
}

#[test]
fn who_has_the_name_of_a_former_user_does_not_get_that_ones_disk() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let here = lab.add(MAC, "fc28", Mode::Shared);
    let anna = user(&lab, "anna");
    let disk = sits_at(&lab, &anna, &here).client;
    lab.lib.remove_user(&anna.name, &Actor::command()).unwrap();
    let another = user(&lab, "anna");
    let theirs = sits_at(&lab, &another, &here).client;
    assert_ne!(theirs, disk);
    assert_eq!(lab.client(&disk).name.to_string(), "person-anna");
}

pub(crate) fn says(lab: &Lab, mac: &MacAddr, settings: serde_json::Value) {
    let edit = Edit {
        settings: serde_json::from_value(settings).unwrap(),
        ..Edit::default()
    };
    lab.lib
        .edit_client(mac, &edit, &lab.room, &Actor::command())
        .unwrap();
}

#[test]
fn a_machine_is_told_what_is_said_of_it_and_its_room_whoever_sits_there() {
    let mut lab = Lab::new();
    lab.seal("fc28", "pristine");
    let config = lab.home().join("netroot.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("\nkernel_args = []", "\nkernel_args = [\"audit=0\"]");
    std::fs::write(&config, text).unwrap();
    lab.reopen();
    let here = lab.add(MAC, "fc28", Mode::Shared);
    let told = |group: &str, arg: &str| {
        let edit = GroupEdit {
            args: Some(vec![arg.parse().unwrap()]),
            ..GroupEdit::default()
        };
        let group = group.parse().unwrap();
        lab.lib
            .edit_group(&group, &edit, &Actor::command())
            .unwrap();
    };
    told("room5", "nomodeset");
    told("staff", "quiet");
    let is_in = |client: &MacAddr, groups: &[&str], arg: &str| {
        let edit = Edit {
            groups: Some(groups.iter().map(|name| name.parse().unwrap()).collect()),
            args: Some(vec![arg.parse().unwrap()]),
            ..Edit::default()
        };
        lab.lib
            .edit_client(client, &edit, &lab.room, &Actor::command())
            .unwrap();
    };
    is_in(&here, &["room5", "staff"], "console=ttyS0");
    let anna = user(&lab, "anna");
    let args = || {
        let args = sits_at(&lab, &anna, &here).args;
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        args.join(" ")
    };
    assert_eq!(args(), "audit=0 nomodeset quiet console=ttyS0");
    let disk = sits_at(&lab, &anna, &here).client;
    is_in(&disk, &["staff"], "locale.LANG=de");
    assert_eq!(
        args(),
        "audit=0 quiet locale.LANG=de nomodeset console=ttyS0"
    );
}

#[test]
fn a_machine_proves_what_it_has_to_whoever_sits_there() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let (here, there) = (
        lab.add(MAC, "fc28", Mode::Shared),
        lab.add(OTHER, "fc28", Mode::Shared),
    );
    let room = "room5".parse().unwrap();
    let edit = GroupEdit {
        settings: serde_json::from_value(serde_json::json!({ "way": "ibft" })).unwrap(),
        ..GroupEdit::default()
    };
    lab.lib.edit_group(&room, &edit, &Actor::command()).unwrap();
    let edit = Edit {
        groups: Some([room].into()),
        ..Edit::default()
    };
    lab.lib
        .edit_client(&here, &edit, &lab.room, &Actor::command())
        .unwrap();
    let anna = user(&lab, "anna");
    let at = |machine| {
        let ticket = sits_at(&lab, &anna, machine);
        let owed = lab.lib.secrets_of_initiator(&ticket.initiator).unwrap();
        assert_eq!(owed.chap.is_some(), ticket.proof != Proof::None);
        assert_eq!(owed.mutual.is_some(), ticket.proof == Proof::Mutual);
        ticket
    };
    let how = |machine| {
        let ticket = at(machine);
        (ticket.way, ticket.proof)
    };
    assert_eq!(how(&here), (Way::Ibft, Proof::Chap));
    assert_eq!(how(&there), (Way::Http, Proof::None));
    for machine in [&here, &there] {
        assert_eq!(lab.enter(&at(machine)).unwrap().entry, Entry::NewBoot);
    }

    // What is said of the person does not free the machine of it.
    let disk = at(&there).client;
    let less = serde_json::json!({ "way": "http", "chap": "off", "mutual": "off" });
    says(&lab, &disk, less);
    says(&lab, &here, serde_json::json!({ "mutual": "on" }));
    assert_eq!(how(&here), (Way::Ibft, Proof::Mutual));
    assert_eq!(how(&there), (Way::Http, Proof::None));

    // But it may ask for more, and that counts for scripts that were made before.
    let before = at(&there);
    says(&lab, &disk, serde_json::json!({ "chap": "kernel-line" }));
    assert!(forbidden(lab.enter(&before)).contains("settings for CHAP"));
    assert_eq!(how(&there), (Way::Http, Proof::Chap));
    assert_eq!(lab.enter(&at(&there)).unwrap().entry, Entry::NewBoot);
    let by_table = serde_json::json!({ "way": "ibft", "chap": "ibft" });
    says(&lab, &disk, by_table);
    assert_eq!(how(&there), (Way::Ibft, Proof::Chap));
}
