//! Many clients at a time: what groups say for their members, and tables of clients.

use netroot::library::*;

use crate::lab::{Lab, refused};

fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

fn edit(json: &str) -> GroupEdit {
    serde_json::from_str(json).unwrap()
}

fn set(lab: &Lab, name: &str, json: &str) -> Result<GroupView> {
    lab.lib
        .edit_group(&group(name), &edit(json), &Actor::command())
}

fn import(lab: &Lab, csv: &str, known: Known) -> Result<Vec<Done>> {
    let import = Import {
        csv: csv.to_owned(),
        known,
    };
    lab.lib
        .import_clients(&import, &lab.room, &Actor::command())
}

fn named(lab: &Lab, name: &str) -> Client {
    let selector = ClientSelector::Name(name.parse().unwrap());
    lab.lib.select(&selector).unwrap().remove(0)
}

#[test]
fn members_inherit_what_a_group_says_and_the_nearest_word_counts() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    set(
        &lab,
        "room5",
        r#"{"args": ["quiet"], "settings": {"way": "esp"}}"#,
    )
    .unwrap();
    set(
        &lab,
        "aisle",
        r#"{"args": ["nosplash"], "settings": {"way": "ibft"}}"#,
    )
    .unwrap();
    import(
        &lab,
        "name,mac,image,groups,args,way\n\
         a,52:54:00:00:00:01,fc28,room5 aisle,debug,\n\
         b,52:54:00:00:00:02,fc28,room5,,http\n",
        Known::Refuse,
    )
    .unwrap();
    let args = |name: &str| {
        let args = lab.lib.kernel_args(&named(&lab, name)).unwrap();
        args.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(args("a"), ["nosplash", "quiet", "debug"], "groups by name");
    assert_eq!(args("b"), ["quiet"]);
    let way = |name: &str| lab.lib.settings(&named(&lab, name)).unwrap().way;
    assert_eq!(way("a"), Some(Way::Ibft));
    assert_eq!(way("b"), Some(Way::Http));
    let members = lab.lib.group_view(&group("room5")).unwrap().members;
    assert_eq!(members, ["a".parse().unwrap(), "b".parse().unwrap()]);
}

#[test]
fn a_new_client_gets_what_its_group_says() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let assign = |image: Option<&str>, groups: &[&str]| {
        let groups = groups.iter().map(|name| group(name)).collect();
        let image = image.map(|image| image.parse().unwrap());
        lab.lib.assignment_for(image, None, &groups)
    };
    let nobody = assign(None, &["room5"]).unwrap_err().to_string();
    assert!(nobody.contains("group set NAME --image"), "{nobody}");
    set(&lab, "room5", r#"{"image": "fc28", "mode": "persistent"}"#).unwrap();
    assert_eq!(
        assign(None, &["room5"]).unwrap().to_string(),
        "fc28 in mode persistent"
    );
    assert_eq!(assign(Some("fc28@1"), &[]).unwrap().mode, Mode::Shared);
    assert!(
        set(&lab, "room5", r#"{"image": "fc99"}"#).is_err(),
        "there is no such image"
    );
}

#[test]
fn a_name_without_members_and_without_a_word_is_no_group() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    assert!(lab.lib.group_view(&group("room5")).is_err());
    set(&lab, "room5", r#"{"args": ["quiet"]}"#).unwrap();
    assert_eq!(lab.lib.groups().unwrap().len(), 1);
    set(&lab, "room5", r#"{"args": []}"#).unwrap();
    assert_eq!(lab.lib.groups().unwrap(), []);
    // It may come again.
    set(&lab, "room5", r#"{"args": ["quiet"]}"#).unwrap();
    import(
        &lab,
        "mac,image,groups\n52:54:00:00:00:01,fc28,room5 other\n",
        Known::Refuse,
    )
    .unwrap();
    let plan = lab.lib.plan_remove_group(&group("room5")).unwrap();
    assert_eq!(plan.steps.len(), 2, "{plan:?}");
    let actor = Actor::command();
    lab.lib
        .remove_group(&group("room5"), &lab.room, &actor)
        .unwrap();
    let left = lab.lib.groups().unwrap();
    let left: Vec<&str> = left.iter().map(|one| one.group.name.as_str()).collect();
    assert_eq!(left, ["other"]);
}

#[test]
fn a_table_is_taken_as_spreadsheets_write_it() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    // A mark at its beginning, semicolons, quotes, blanks and empty cells.
    let done = import(
        &lab,
        "\u{feff}Name; MAC ;image;macs;args\r\n\
         lab-1;52-54-00-00-00-01;fc28;\"52:54:00:00:00:11 52:54:00:00:00:12\";quiet console=tty0\r\n\
         ;525400000002;fc28@1;;\r\n",
        Known::Refuse,
    )
    .unwrap();
    assert_eq!(done.len(), 2);
    let one = named(&lab, "lab-1");
    assert_eq!(one.more_macs.len(), 2);
    assert_eq!(one.args.len(), 2);
    assert_eq!(
        named(&lab, "client-525400000002").image.to_string(),
        "fc28@1"
    );
}

#[test]
fn where_one_line_is_wrong_nothing_is_done_and_all_wrong_lines_are_told() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.add("52:54:00:00:00:09", "fc28", Mode::Shared);
    let before = lab.snapshot();
    let table = "name,mac,image,mode,args\n\
        good,52:54:00:00:00:01,fc28,shared,\n\
        Bad,52:54:00:00:00:02,fc28,,\n\
        b,01:00:5e:00:00:01,fc28,,\n\
        c,52:54:00:00:00:03,fc99,,\n\
        d,52:54:00:00:00:04,fc28,loud,\n\
        e,52:54:00:00:00:05,fc28,,root=/dev/sda\n\
        good,52:54:00:00:00:06,fc28,,\n\
        f,52:54:00:00:00:01,fc28,,\n\
        g,52:54:00:00:00:09,fc28,,\n\
        h,,fc28,,\n\
        i,52:54:00:00:00:07,fc28\n\
        \"j\nk\",52:54:00:00:00:08,,,\n";
    let said = import(&lab, table, Known::Refuse).unwrap_err().to_string();
    assert_eq!(lab.snapshot(), before);
    for told in [
        "wrong lines: 11",
        "line 3: name: ",
        "line 4: mac: ",
        "line 5: there is no image `fc99`",
        "line 6: mode: ",
        "line 7: args: ",
        "line 8: the name good stands on line 2, too",
        "line 9: 52:54:00:00:00:01 stands on line 2, too",
        "line 10: 52:54:00:00:00:09 is client",
        "line 11: it has no hardware address",
        "line 12: it is no line of this table",
        "line 13: name: ",
    ] {
        assert!(said.contains(told), "{told}\n{said}");
    }
    assert!(!said.contains("line 2:"), "{said}");
    for (head, told) in [
        ("name,image\na,fc28\n", "`mac` is none of them"),
        ("mac,color\n", "no column \"color\""),
        ("mac,mac\n", "twice"),
        ("", "`mac` is none of them"),
    ] {
        let said = import(&lab, head, Known::Refuse).unwrap_err().to_string();
        assert!(said.contains("line 1") && said.contains(told), "{said}");
    }
}

#[test]
fn further_addresses_are_looked_at_before_anything_is_done() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.add("52:54:00:00:00:09", "fc28", Mode::Shared);
    let dry = Import {
        csv: "mac,image,macs\n52:54:00:00:00:01,fc28,52:54:00:00:00:09\n".to_owned(),
        known: Known::Refuse,
    };
    let said = refused(lab.lib.plan_import_clients(&dry, &lab.room));
    assert!(said.contains("line 2: "), "{said}");
    assert!(said.contains("52:54:00:00:00:09"), "{said}");
}

/// Adds a client when it is asked who has sessions, which is after everything was planned.
struct Quicker<'a> {
    lab: &'a Lab,
    mac: &'a str,
    was: std::sync::Once,
}

impl Live for Quicker<'_> {
    fn sessions(&self) -> Vec<LiveSession> {
        self.was.call_once(|| {
            self.lab.add(self.mac, "fc28", Mode::Shared);
        });
        Vec::new()
    }

    fn fence(&self, _: &MacAddr, _: Option<&BootId>) {}

    fn evict(&self, _: &[VersionId]) {}
}

#[test]
fn an_import_that_fails_takes_back_what_it_added_and_nothing_else() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let quicker = Quicker {
        lab: &lab,
        mac: "52:54:00:00:00:02",
        was: std::sync::Once::new(),
    };
    let table = Import {
        csv: "mac,image\n52:54:00:00:00:01,fc28\n52:54:00:00:00:02,fc28\n".to_owned(),
        known: Known::Refuse,
    };
    let actor = Actor::command();
    let said = refused(lab.lib.import_clients(&table, &quicker, &actor));
    assert!(said.contains("line 3"), "{said}");
    let left = lab.lib.clients().unwrap();
    let left: Vec<String> = left.iter().map(|one| one.mac.to_string()).collect();
    assert_eq!(left, ["52:54:00:00:00:02"]);
}

#[test]
fn no_group_gives_a_disk_that_cannot_be() {
    let lab = Lab::new();
    for what in ["data", "size"] {
        let said = refused(set(
            &lab,
            "room5",
            &format!(r#"{{"settings": {{"{what}": "9999P"}}}}"#),
        ));
        assert!(said.contains("larger than any disk"), "{said}");
    }
    assert_eq!(lab.lib.groups().unwrap(), []);
}

#[test]
fn a_group_that_keeps_its_members_booting_is_not_removed() {
    let mut lab = Lab::new();
    let path = lab.home().join("netroot.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("[clients]\n", "[clients]\nway = \"ibft\"\n");
    std::fs::write(&path, text).unwrap();
    lab.reopen();
    let mut draft = lab.lib.draft(&"deb".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
    let mut facts = VersionFacts::default();
    facts.early.kind = manifest::InitramfsKind::InitramfsTools;
    draft.seal(facts, &Quiet).unwrap();
    set(&lab, "room5", r#"{"settings": {"way": "http"}}"#).unwrap();
    import(
        &lab,
        "mac,image,groups\n52:54:00:00:00:01,deb,room5\n",
        Known::Refuse,
    )
    .unwrap();
    let before = lab.snapshot();
    let actor = Actor::command();
    let said = refused(lab.lib.remove_group(&group("room5"), &lab.room, &actor));
    assert!(said.contains("removing group room5"), "{said}");
    assert!(said.contains("initramfs-tools"), "{said}");
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn known_clients_become_what_the_table_says_only_where_that_is_asked_for() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "newer");
    let running = lab.add("52:54:00:00:00:01", "fc28", Mode::Persistent);
    lab.boot(&running);
    let table = "mac,name,image,groups\n\
        52:54:00:00:00:01,lab-1,fc29,room5\n\
        52:54:00:00:00:02,lab-2,fc29,room5\n";
    assert!(import(&lab, table, Known::Refuse).is_err());
    let before = lab.snapshot();
    let dry = Import {
        csv: table.to_owned(),
        known: Known::Update,
    };
    let plans = lab.lib.plan_import_clients(&dry, &lab.room).unwrap();
    assert_eq!(plans.len(), 2);
    assert!(plans[0].loses.is_some(), "its disk is set aside");
    assert_eq!(lab.snapshot(), before);
    import(&lab, table, Known::Update).unwrap();
    let one = lab.client(&running);
    assert_eq!(one.name.as_str(), "lab-1");
    assert_eq!(one.groups, [group("room5")].into());
    assert_eq!(one.image.to_string(), "fc28", "it runs");
    assert!(one.armed.is_some(), "and gets it at its next boot");
    assert_eq!(named(&lab, "lab-2").image.to_string(), "fc29");
    let again = import(&lab, "mac\n52:54:00:00:00:02\n", Known::Update).unwrap();
    assert_eq!(again[0].plan.steps, [], "nothing is said of it");
}

pub(crate) fn gate(lab: &mut Lab) {
    let path = lab.home().join("netroot.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("publish_gate = false", "publish_gate = true");
    std::fs::write(&path, text).unwrap();
    lab.reopen();
}

pub(crate) fn tried(
    lab: &Lab,
    version: &VersionId,
    failed: Option<&str>,
    publish: Publish,
) -> bool {
    let root = lab.lib.version(version).unwrap().manifest().disk.root;
    let trial = Trial {
        revision: 0,
        version: version.clone(),
        root: root.to_string(),
        at: jiff::Timestamp::now(),
        took: 60,
        by: Actor::command(),
        failed: failed.map(str::to_owned),
        console: Vec::new(),
    };
    lab.lib.record_trial(trial, publish).unwrap()
}

#[test]
fn behind_the_gate_only_what_was_tested_becomes_current() {
    let mut lab = Lab::new();
    let first = lab.seal("fc28", "pristine");
    gate(&mut lab);
    let second = lab.seal("fc28", "second");
    let current = |lab: &Lab| lab.lib.image(&second.image).unwrap().current;
    assert_eq!(current(&lab), Some(1), "it is sealed, and nobody gets it");
    assert!(lab.lib.waits_for_trial(&second).unwrap());
    let actor = Actor::command();
    let why = refused(lab.lib.roll_back(&second.clone().into(), &actor));
    assert!(why.contains("netroot image test fc28@2"), "{why}");
    assert!(lab.lib.set_current(&second, &actor).is_err());

    assert!(!tried(
        &lab,
        &second,
        Some("it never logged in"),
        Publish::IfItWaits
    ));
    let why = refused(lab.lib.roll_back(&second.clone().into(), &actor));
    assert!(why.contains("it never logged in"), "{why}");
    assert!(!tried(&lab, &second, None, Publish::Never));
    assert_eq!(current(&lab), Some(1));
    lab.lib.roll_back(&second.clone().into(), &actor).unwrap();
    assert_eq!(current(&lab), Some(2));

    let third = lab.seal("fc28", "third");
    assert_eq!(lab.lib.newest(&"fc28".parse().unwrap()).unwrap(), third);
    assert!(tried(&lab, &third, None, Publish::IfItWaits));
    assert_eq!(current(&lab), Some(3));
    // Who went back on purpose stays there, whatever is tested.
    lab.lib.roll_back(&second.clone().into(), &actor).unwrap();
    assert!(!tried(&lab, &third, None, Publish::IfItWaits));
    assert_eq!(current(&lab), Some(2));
    let view = lab.lib.image_view(&first.image, &[]).unwrap();
    let boots: Vec<_> = view
        .versions
        .iter()
        .map(|one| one.trial.is_some())
        .collect();
    assert_eq!(boots, [false, true, true]);
}

#[test]
fn a_version_stays_while_it_is_tested() {
    let lab = Lab::new();
    let first = lab.seal("fc28", "pristine");
    lab.seal("fc28", "second");
    let under_test = lab.lib.hold_for_trial(&first).unwrap();
    assert!(refused(lab.lib.hold_for_trial(&first)).contains("somebody else tests it"));
    let image = VersionSpec::from(first.image.clone());
    for spec in [first.clone().into(), image] {
        for when in [When::Now, When::Force] {
            let why = refused(lab.lib.plan_removal(&spec, when, &lab.room));
            assert!(why.contains("fc28@1 is being tested"), "{why}");
            assert!(why.contains("wait for that"), "{why}");
        }
    }
    let keep = 1.try_into().unwrap();
    let pruning = lab.lib.plan_prune(None, keep, &lab.room).unwrap();
    assert_eq!(pruning.removes, []);
    assert_eq!(pruning.stays[0].why, ["it is being tested"]);
    lab.lib.sweep().unwrap();
    assert!(refused(lab.lib.hold_for_trial(&first)).contains("somebody else"));
    drop(under_test);
    // Nor does one stay of which the test was killed.
    let left = lab.home().join(format!("trials/{first}.held"));
    assert!(!left.exists());
    std::fs::write(&left, "").unwrap();
    lab.lib.sweep().unwrap();
    assert!(!left.exists());
    lab.lib
        .remove_version(&first, &lab.room, &Actor::command())
        .unwrap();
    assert!(lab.lib.hold_for_trial(&first).is_err(), "it is gone");
}

#[test]
fn the_gate_is_open_for_what_cannot_be_tested_and_for_the_way_back() {
    let mut lab = Lab::new();
    lab.seal("fc28", "pristine");
    let second = lab.seal("fc28", "second");
    gate(&mut lab);
    let actor = Actor::command();
    // Nobody has tested the first; people had it.
    let first: VersionSpec = "fc28@1".parse().unwrap();
    lab.lib.roll_back(&first, &actor).unwrap();
    assert_eq!(lab.lib.image(&second.image).unwrap().current, Some(1));
    lab.lib.roll_back(&second.into(), &actor).unwrap();

    let mut draft = lab.lib.draft(&"windows".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.boots_itself(crate::disks::table());
    let disk = draft.seal(VersionFacts::default(), &Quiet).unwrap();
    assert!(!lab.lib.waits_for_trial(disk.id()).unwrap());
    assert_eq!(lab.lib.image(&disk.id().image).unwrap().current, Some(1));
}

#[test]
fn a_test_that_went_well_does_not_bring_back_what_is_older() {
    let mut lab = Lab::new();
    lab.seal("fc28", "pristine");
    gate(&mut lab);
    let (second, third) = (lab.seal("fc28", "second"), lab.seal("fc28", "third"));
    assert!(tried(&lab, &third, None, Publish::IfItWaits));
    assert!(!tried(&lab, &second, None, Publish::IfItWaits));
    assert_eq!(lab.lib.image(&third.image).unwrap().current, Some(3));
}

#[test]
fn a_test_says_nothing_about_what_is_gone() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let second = lab.seal("fc28", "second");
    lab.seal("fc28", "third");
    tried(&lab, &second, None, Publish::IfItWaits);
    assert!(lab.home().join("trials/fc28@2.json").exists());
    let spec = second.clone().into();
    let actor = Actor::command();
    lab.lib.remove(&spec, When::Now, &lab.room, &actor).unwrap();
    assert!(!lab.home().join("trials/fc28@2.json").exists());
}

/// Somebody who does something as soon as the server looks at a client.
struct Meanwhile<'a, F> {
    lab: &'a Lab,
    does: F,
    once: std::sync::Once,
}

impl<F: Fn() + Send + Sync> Live for Meanwhile<'_, F> {
    fn sessions(&self) -> Vec<LiveSession> {
        self.once.call_once(|| (self.does)());
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
fn who_joins_a_group_while_it_goes_is_taken_out_too() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let actor = Actor::command();
    let member = lab.add("52:54:00:12:34:56", "fc28", Mode::Shared);
    let late = lab.add("52:54:00:12:34:57", "fc28", Mode::Shared);
    let room = Edit {
        groups: Some([group("room5")].into()),
        ..Edit::default()
    };
    lab.lib
        .edit_client(&member, &room, &lab.room, &actor)
        .unwrap();
    let joins = Meanwhile {
        lab: &lab,
        does: || {
            drop(
                lab.lib
                    .edit_client(&late, &room, &lab.room, &actor)
                    .unwrap(),
            )
        },
        once: std::sync::Once::new(),
    };
    let removed = lab.lib.remove_group(&group("room5"), &joins, &actor);
    assert!(joins.once.is_completed());
    let takes = |mac: &MacAddr| format!("take {} out of it", lab.client(mac).name);
    assert_eq!(removed.unwrap().steps, [takes(&member), takes(&late)]);
    assert_eq!(lab.client(&late).groups, [].into());
    assert_eq!(lab.lib.groups().unwrap(), []);
}

/// Two clients of room5, of which something is said.
fn room5(lab: &Lab) -> [MacAddr; 2] {
    lab.seal("fc28", "pristine");
    import(
        lab,
        "name,mac,image,groups\n\
         a,52:54:00:00:00:01,fc28,room5\n\
         b,52:54:00:00:00:02,fc28,room5\n",
        Known::Refuse,
    )
    .unwrap();
    set(lab, "room5", r#"{"args": ["quiet"]}"#).unwrap();
    ["a", "b"].map(|name| named(lab, name).mac)
}

#[test]
fn a_client_that_is_changed_while_its_group_goes_is_taken_out_all_the_same() {
    let lab = Lab::new();
    let [_, second] = room5(&lab);
    let actor = Actor::command();
    let renamed = Edit {
        name: Some("c".parse().unwrap()),
        ..Edit::default()
    };
    let renames = Meanwhile {
        lab: &lab,
        does: || {
            drop(
                lab.lib
                    .edit_client(&second, &renamed, &lab.room, &actor)
                    .unwrap(),
            )
        },
        once: std::sync::Once::new(),
    };
    lab.lib
        .remove_group(&group("room5"), &renames, &actor)
        .unwrap();
    assert!(renames.once.is_completed());
    assert_eq!(named(&lab, "c").groups, [].into());
    assert_eq!(lab.lib.groups().unwrap(), []);
}

#[test]
fn nobody_more_is_taken_out_of_a_group_of_which_something_else_is_said_meanwhile() {
    let lab = Lab::new();
    let [first, second] = room5(&lab);
    let actor = Actor::command();
    let seen = lab.lib.group(&group("room5")).unwrap().edition();
    let says = Meanwhile {
        lab: &lab,
        does: || drop(set(&lab, "room5", r#"{"args": ["debug"]}"#).unwrap()),
        once: std::sync::Once::new(),
    };
    let removed = lab
        .lib
        .remove_group_on(&group("room5"), Some(&seen), &says, &actor);
    let why = refused(removed);
    assert!(why.contains("when a had been taken out of it"), "{why}");
    assert_eq!(lab.client(&first).groups, [].into());
    assert_eq!(lab.client(&second).groups, [group("room5")].into());
    let args = lab.lib.kernel_args(&lab.client(&second)).unwrap();
    assert_eq!(args, ["debug".parse().unwrap()]);
    let events = lab.lib.events(&Filter::default()).unwrap().events;
    let mut told = events.iter().map(|one| &one.event);
    let told = told.find(|one| one.what == "group-remove-failed").unwrap();
    assert_eq!(told.to.as_deref(), Some("@room5"));
    assert_eq!(told.details["out"], serde_json::json!(["a"]));
    assert!(told.details["why"].as_str().unwrap().contains("somebody"));
}
