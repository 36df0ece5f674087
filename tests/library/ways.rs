//! The way to boot that an image says: who counts before it, and what it asks for at a login.

use netroot::library::manifest::InitramfsKind;
use netroot::library::*;

use crate::disks::table;
use crate::fleet::{gate, tried};
use crate::lab::{Lab, MIB, assign, forbidden, refused};
use crate::menus::{MAC, OTHER, choose, offer, says, sits_at, user};

fn way(word: Option<&str>) -> ImageEdit {
    serde_json::from_value(serde_json::json!({ "way": word })).unwrap()
}

fn set(lab: &Lab, image: &str, word: Option<&str>) -> Result<Image> {
    let image = image.parse().unwrap();
    lab.lib.edit_image(&image, &way(word), &Actor::command())
}

fn image(lab: &Lab, name: &str) -> Image {
    lab.lib.image(&name.parse().unwrap()).unwrap()
}

/// A version with an initramfs of this kind, and a way for its image if it begins that.
fn seal_of(lab: &Lab, name: &str, kind: InitramfsKind, way: Option<Way>) -> VersionId {
    let mut draft = lab.lib.draft(&name.parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
    if let Some(way) = way {
        draft.begin_with(way);
    }
    let mut facts = VersionFacts::default();
    facts.early.kind = kind;
    draft.seal(facts, &Quiet).unwrap().id().clone()
}

/// The way of a boot and what it proves, of which its initiator owes the same.
fn how(lab: &Lab, ticket: &BootTicket) -> (Way, Proof) {
    let owed = lab.lib.secrets_of_initiator(&ticket.initiator).unwrap();
    assert_eq!(owed.chap.is_some(), ticket.proof != Proof::None);
    (ticket.way, ticket.proof)
}

const BY_HTTP: (Way, Proof) = (Way::Http, Proof::None);
const BY_TABLE: (Way, Proof) = (Way::Ibft, Proof::Chap);

fn everybody_says(lab: &mut Lab, word: &str) {
    let path = lab.home().join("netroot.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("[clients]\n", &format!("[clients]\nway = \"{word}\"\n"));
    std::fs::write(&path, text).unwrap();
    lab.reopen();
}

#[test]
fn the_image_has_its_say_between_groups_and_everybody() {
    let mut lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Shared);
    assert_eq!(lab.script(&mac).way, Way::Http);
    everybody_says(&mut lab, "esp");
    assert_eq!(lab.script(&mac).way, Way::Esp);
    set(&lab, "fc28", Some("ibft")).unwrap();
    assert_eq!(lab.script(&mac).way, Way::Ibft);
    let room: GroupName = "room5".parse().unwrap();
    let edit = GroupEdit {
        settings: serde_json::from_value(serde_json::json!({ "way": "http" })).unwrap(),
        ..GroupEdit::default()
    };
    lab.lib.edit_group(&room, &edit, &Actor::command()).unwrap();
    let edit = Edit {
        groups: Some([room.clone()].into()),
        ..Edit::default()
    };
    lab.lib
        .edit_client(&mac, &edit, &lab.room, &Actor::command())
        .unwrap();
    assert_eq!(lab.script(&mac).way, Way::Http);
    says(&lab, &mac, serde_json::json!({ "way": "esp" }));
    assert_eq!(lab.script(&mac).way, Way::Esp);
    let said = lab.lib.sayings(&lab.client(&mac)).unwrap();
    let said: Vec<_> = said.into_iter().map(|(by, says)| (by, says.way)).collect();
    assert_eq!(
        said,
        [
            (SaidBy::Client, Some(Way::Esp)),
            (SaidBy::Group(room), Some(Way::Http)),
            (SaidBy::Image("fc28".parse().unwrap()), Some(Way::Ibft)),
            (SaidBy::Everybody, Some(Way::Esp)),
            (SaidBy::Nobody, Some(Way::Http)),
        ]
    );
    assert_eq!(lab.lib.next_way(&lab.client(&mac)).unwrap(), Way::Esp);
}

#[test]
fn a_boot_goes_by_the_image_that_it_boots_and_proves_at_its_login_what_its_script_was_told() {
    let lab = Lab::new();
    for name in ["fc28", "fc29"] {
        lab.seal(name, name);
    }
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    offer(&lab, &mac, "always");
    set(&lab, "fc29", Some("ibft")).unwrap();
    let own = lab.script(&mac);
    assert_eq!(how(&lab, &own), BY_HTTP);
    assert_eq!(lab.enter(&own).unwrap().entry, Entry::NewBoot);
    // Chosen at its menu.
    let chosen = choose(&lab, &mac, "fc29").unwrap();
    assert_eq!(how(&lab, &chosen), BY_TABLE);
    assert_eq!(lab.enter(&chosen).unwrap().entry, Entry::NewBoot);
    // Assigned from its next boot on.
    lab.act(&mac, assign(Some("fc29"), None), When::AtNextBoot)
        .unwrap();
    let armed = lab.script(&mac);
    assert_eq!(
        (how(&lab, &armed), armed.version.to_string()),
        (BY_TABLE, "fc29@1".into())
    );
    assert_eq!(lab.lib.next_way(&lab.client(&mac)).unwrap(), Way::Ibft);
    assert_eq!(lab.enter(&armed).unwrap().entry, Entry::NewBoot);
    lab.room.forget();
    // It runs on when its image says something else, and a script of before is no good any more.
    let before = lab.script(&mac);
    set(&lab, "fc29", None).unwrap();
    assert_eq!(lab.enter(&armed).unwrap().entry, Entry::Reconnect);
    assert!(forbidden(lab.enter(&before)).contains("settings for CHAP"));
    assert_eq!(how(&lab, &lab.script(&mac)), BY_HTTP);
    let before = lab.script(&mac);
    // The other way round, and by a clone of one version that is not current any more.
    set(&lab, "fc29", Some("ibft")).unwrap();
    assert!(forbidden(lab.enter(&before)).contains("settings for CHAP"));
    lab.seal("fc29", "newer");
    let fixed = lab.script(&mac);
    assert_eq!((how(&lab, &fixed), fixed.version.number), (BY_TABLE, 1));
    lab.enter(&fixed).unwrap();
    let edit = serde_json::json!({ "menu": "always", "menu_items": ["fc28"] });
    says(&lab, &mac, edit);
    let chosen = choose(&lab, &mac, "fc28").unwrap();
    assert_eq!(how(&lab, &chosen), BY_HTTP);
    assert_eq!(lab.enter(&chosen).unwrap().entry, Entry::NewBoot);
}

#[test]
fn the_image_of_a_persons_disk_asks_for_more_and_never_for_less() {
    let mut lab = Lab::new();
    for name in ["fc28", "fc29"] {
        lab.seal(name, name);
    }
    let (here, there) = (
        lab.add(MAC, "fc28", Mode::Shared),
        lab.add(OTHER, "fc29", Mode::Shared),
    );
    let anna = user(&lab, "anna");
    let at = |lab: &Lab, machine| {
        let ticket = sits_at(lab, &anna, machine);
        let told = how(lab, &ticket);
        assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::NewBoot);
        told
    };
    // The disk is of fc28, wherever they sit.
    assert_eq!(at(&lab, &here), BY_HTTP);
    set(&lab, "fc29", Some("ibft")).unwrap();
    assert_eq!(at(&lab, &there), BY_HTTP);
    let before = sits_at(&lab, &anna, &there);
    set(&lab, "fc28", Some("ibft")).unwrap();
    assert_eq!(at(&lab, &here), BY_TABLE);
    assert_eq!(at(&lab, &there), BY_TABLE);
    forbidden(lab.enter(&before));
    says(&lab, &there, serde_json::json!({ "mutual": "on" }));
    assert_eq!(at(&lab, &there), (Way::Ibft, Proof::Mutual));
    // A machine, and everybody, are not freed of what they prove.
    set(&lab, "fc28", Some("http")).unwrap();
    assert_eq!(at(&lab, &here), BY_HTTP);
    says(&lab, &here, serde_json::json!({ "way": "ibft" }));
    assert_eq!(at(&lab, &here), BY_TABLE);
    says(&lab, &here, serde_json::json!({ "way": null }));
    everybody_says(&mut lab, "ibft");
    assert_eq!(lab.script(&here).way, Way::Http);
    assert_eq!(at(&lab, &here), BY_TABLE);
}

#[test]
fn it_stays_with_new_versions_and_goes_with_the_image() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    set(&lab, "fc28", Some("ibft")).unwrap();
    lab.seal("fc28", "two");
    assert_eq!(
        (image(&lab, "fc28").way, image(&lab, "fc28").versions),
        (Some(Way::Ibft), vec![1, 2])
    );
    let fc28 = "fc28".parse().unwrap();
    let view = lab.lib.image_view(&fc28, &[]).unwrap();
    assert_eq!(
        (view.way, view.edition()),
        (Some(Way::Ibft), image(&lab, "fc28").edition())
    );
    // What is made of it begins with its way, and only what begins an image does.
    seal_of(&lab, "fc29", InitramfsKind::Dracut, Some(Way::Ibft));
    assert_eq!(image(&lab, "fc29").way, Some(Way::Ibft));
    set(&lab, "fc29", Some("http")).unwrap();
    seal_of(&lab, "fc29", InitramfsKind::Dracut, Some(Way::Ibft));
    assert_eq!(image(&lab, "fc29").way, Some(Way::Http));

    lab.lib
        .remove_image(&fc28, &lab.room, &Actor::command())
        .unwrap();
    lab.seal("fc28", "another of that name");
    assert_eq!(image(&lab, "fc28").way, None);
    // By its last version, too.
    set(&lab, "fc28", Some("esp")).unwrap();
    let version = "fc28@3".parse().unwrap();
    lab.lib
        .remove_version(&version, &lab.room, &Actor::command())
        .unwrap();
    assert!(!lab.home().join("images/fc28/settings").exists());
    lab.seal("fc28", "a third");
    assert_eq!(image(&lab, "fc28").way, None);
}

#[test]
fn a_first_version_that_comes_to_nothing_leaves_nothing_of_its_way() {
    let lab = Lab::new();
    let settings = lab.home().join("images/fc28/settings");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, r#"{"revision": 1, "way": "ibft"}"#).unwrap();
    lab.seal("fc28", "one");
    assert_eq!(image(&lab, "fc28").way, None);
    let settings = lab.home().join("images/fc29/settings");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, r#"{"revision": 1, "way": "ibft"}"#).unwrap();
    lab.lib.sweep().unwrap();
    assert!(!lab.home().join("images/fc29").exists());
}

#[test]
fn a_way_that_nobody_could_boot_by_is_refused() {
    let mut lab = Lab::new();
    let mut draft = lab.lib.draft(&"win".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.boots_itself(table());
    draft.seal(VersionFacts::default(), &Quiet).unwrap();
    for word in ["http", "esp", "ibft"] {
        assert!(refused(set(&lab, "win", Some(word))).contains("boots from its own disk"));
    }
    set(&lab, "win", None).unwrap();
    seal_of(&lab, "deb", InitramfsKind::InitramfsTools, None);
    let before = lab.snapshot();
    assert!(refused(set(&lab, "deb", Some("ibft"))).contains("made by initramfs-tools"));
    assert_eq!(lab.snapshot(), before);
    set(&lab, "deb", Some("esp")).unwrap();

    // A client of an older version would not boot, and neither would one that goes by everybody again.
    lab.add(MAC, "deb@1", Mode::Shared);
    seal_of(&lab, "deb", InitramfsKind::Dracut, None);
    let why = refused(set(&lab, "deb", Some("ibft")));
    assert!(
        why.contains("which client client-525400123456 boots") && why.contains("deb@1"),
        "{why}"
    );
    everybody_says(&mut lab, "ibft");
    assert!(refused(set(&lab, "deb", None)).contains("deb@1"));
    let mac = MAC.parse().unwrap();
    says(&lab, &mac, serde_json::json!({ "way": "http" }));
    set(&lab, "deb", Some("ibft")).unwrap();
    let unknown = set(&lab, "fc99", Some("ibft"));
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");

    // Whoever comes to boot by it is asked, too.
    let client = lab.try_add(OTHER, "deb@1", Mode::Shared);
    assert!(refused(client).contains("made by initramfs-tools"));
    let edit = Edit {
        settings: serde_json::from_value(serde_json::json!({ "way": null })).unwrap(),
        ..Edit::default()
    };
    assert!(refused(lab.lib.plan_edit(&mac, &edit)).contains("made by initramfs-tools"));
    let other = lab.add(OTHER, "deb", Mode::Shared);
    let plan = |spec| {
        lab.lib
            .plan(&other, &assign(Some(spec), None), When::Now, &lab.room)
    };
    assert_eq!(plan("deb@2").unwrap().warnings, Vec::<String>::new());
    let warnings = plan("deb@1").unwrap().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("it is given no script"),
        "{warnings:?}"
    );
    // Whose own word counts is no hindrance: nothing becomes of it.
    says(&lab, &other, serde_json::json!({ "way": "ibft" }));
    lab.act(&other, assign(Some("deb@1"), None), When::Now)
        .unwrap();
    set(&lab, "deb", Some("http")).unwrap();
}

#[test]
fn a_test_is_not_what_a_version_waits_for_that_the_way_does_not_boot() {
    let mut lab = Lab::new();
    seal_of(&lab, "deb", InitramfsKind::Dracut, None);
    set(&lab, "deb", Some("ibft")).unwrap();
    gate(&mut lab);
    let version = seal_of(&lab, "deb", InitramfsKind::InitramfsTools, None);
    assert!(!lab.lib.waits_for_trial(&version).unwrap());
    assert!(!tried(&lab, &version, None, Publish::IfItWaits));
    assert_eq!(image(&lab, "deb").current, Some(1));
    set(&lab, "deb", None).unwrap();
    let fits = seal_of(&lab, "deb", InitramfsKind::InitramfsTools, None);
    assert!(lab.lib.waits_for_trial(&fits).unwrap());
    assert!(tried(&lab, &fits, None, Publish::IfItWaits));
    assert_eq!(image(&lab, "deb").current, Some(3));
}

#[test]
fn a_version_that_the_way_does_not_boot_is_sealed_and_does_not_become_current() {
    let lab = Lab::new();
    seal_of(&lab, "deb", InitramfsKind::Dracut, None);
    set(&lab, "deb", Some("ibft")).unwrap();
    let mac = lab.add(MAC, "deb", Mode::Shared);
    let version = seal_of(&lab, "deb", InitramfsKind::InitramfsTools, None);
    assert_eq!(image(&lab, "deb").current, Some(1));
    assert_eq!(how(&lab, &lab.script(&mac)), BY_TABLE);
    for refusal in [
        refused(lab.lib.plan_rollback(&version.clone().into())),
        refused(lab.lib.set_current(&version, &Actor::command())),
    ] {
        assert!(
            refusal.contains("netroot image set deb --way none")
                && refusal.contains("netroot image rollback deb@2"),
            "{refusal}"
        );
    }
    set(&lab, "deb", None).unwrap();
    lab.lib
        .roll_back(&version.into(), &Actor::command())
        .unwrap();
    assert_eq!(how(&lab, &lab.script(&mac)), BY_HTTP);
    // An image that begins with a way which its first version does not boot has none that is current.
    seal_of(&lab, "two", InitramfsKind::InitramfsTools, Some(Way::Ibft));
    assert_eq!(image(&lab, "two").current, None);
    set(&lab, "two", None).unwrap();
    let two: VersionSpec = "two@1".parse().unwrap();
    lab.lib.roll_back(&two, &Actor::command()).unwrap();
    assert_eq!(image(&lab, "two").current, Some(1));
}

#[test]
fn a_change_tells_what_it_does_and_refuses_who_has_read_another_edition() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let fc28 = "fc28".parse().unwrap();
    let plan = |word| lab.lib.plan_edit_image(&fc28, &way(word)).unwrap().steps;
    assert_eq!(plan(Some("ibft")), ["set way to `ibft` instead of nothing"]);
    assert!(plan(None).is_empty());
    let seen = image(&lab, "fc28").edition();
    let change = |seen: &Edition, word| {
        let by = Actor::command();
        lab.lib.edit_image_on(&fc28, Some(seen), &way(word), &by)
    };
    let after = change(&seen, Some("ibft")).unwrap();
    assert!(matches!(change(&seen, None), Err(Error::Moved { .. })));
    lab.seal("fc28", "two");
    let late = change(&after.edition(), None);
    assert!(matches!(late, Err(Error::Moved { .. })), "{late:?}");
    // What is left out stays, and is no news.
    let none = ImageEdit::default();
    lab.lib.edit_image(&fc28, &none, &Actor::command()).unwrap();
    set(&lab, "fc28", None).unwrap();
    let filter = Filter {
        limit: 100,
        ..Filter::default()
    };
    let events = lab.lib.events(&filter).unwrap().events;
    let said: Vec<_> = events
        .iter()
        .filter(|one| one.event.what == "image-set")
        .collect();
    let told = |at: usize| {
        let details = &said[at].event.details;
        (details["from"].clone(), details["to"].clone())
    };
    let ibft = serde_json::json!("ibft");
    assert_eq!(said.len(), 2);
    assert_eq!(told(0), (ibft.clone(), serde_json::Value::Null));
    assert_eq!(told(1), (serde_json::Value::Null, ibft));
}
