//! The line of an image's versions: who uses them, going back, pruning, removing by force.

use std::num::NonZeroU32;

use netroot::library::*;

use crate::lab::{Lab, MIB, assign, everywhere, forbidden, refused};

fn id(text: &str) -> VersionId {
    text.parse().unwrap()
}

fn spec(text: &str) -> VersionSpec {
    text.parse().unwrap()
}

fn keep(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

/// Seals a version that says what it was made from.
fn seal_from(lab: &Lab, image: &str, parent: &str) -> VersionId {
    let mut draft = lab.lib.draft(&image.parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.add_kernel(&mut &b"k"[..]).unwrap();
    draft.add_initramfs(&mut &b"i"[..]).unwrap();
    let facts = VersionFacts {
        parent: Some(id(parent)),
        kernel_version: "6.1.0".into(),
        ..VersionFacts::default()
    };
    draft.seal(facts, &Quiet).unwrap().id().clone()
}

fn events(lab: &Lab) -> String {
    let dir = std::fs::read_dir(lab.home().join("events")).unwrap();
    dir.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn an_image_tells_its_line_and_who_uses_it() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    seal_from(&lab, "fc28", "fc28@1");
    seal_from(&lab, "fc29", "fc28@2");
    let shared = lab.add("52:54:00:00:00:01", "fc28", Mode::Shared);
    let own = lab.add("52:54:00:00:00:02", "fc28@1", Mode::Persistent);
    lab.boot(&shared);
    lab.act(&own, assign(Some("fc28@2"), None), When::AtNextBoot)
        .unwrap();
    let view = lab
        .lib
        .image_view(&"fc28".parse().unwrap(), &lab.room.sessions())
        .unwrap();
    let [first, second] = view.versions.as_slice() else {
        panic!("{view:?}");
    };
    assert_eq!(view.current, Some(2));
    assert!(second.current && !first.current);
    assert_eq!(
        (&first.parent, &second.parent),
        (&None, &Some(id("fc28@1")))
    );
    assert_eq!(first.children, [id("fc28@2")]);
    assert_eq!(second.children, [id("fc29@1")]);
    let name = |mac: &MacAddr| lab.client(mac).name;
    assert_eq!(
        first.uses.as_deref().unwrap(),
        [
            Use::Assigned { client: name(&own) },
            Use::Clone { client: name(&own) },
        ]
    );
    let uses = second.uses.as_deref().unwrap();
    assert_eq!(
        uses[..3],
        [
            Use::Assigned {
                client: name(&shared)
            },
            Use::Runs {
                client: name(&shared)
            },
            Use::Armed { client: name(&own) },
        ]
    );
    assert!(
        matches!(&uses[3..], [Use::Open { client: Some(mac), .. }] if *mac == shared),
        "{uses:?}"
    );
}

#[test]
fn going_back_moves_current_and_nothing_else() {
    everywhere(|lab| {
        lab.seal("fc28", "one");
        lab.seal("fc28", "two");
        seal_from(&lab, "fc28", "fc28@1");
        let shared = lab.add("52:54:00:00:00:01", "fc28", Mode::Shared);
        let own = lab.add("52:54:00:00:00:02", "fc28", Mode::Persistent);
        let fresh = lab.add("52:54:00:00:00:03", "fc28", Mode::Ephemeral);
        lab.add("52:54:00:00:00:04", "fc28@2", Mode::Shared);
        let grant = lab.boot(&shared);
        lab.write(&own, "thesis");
        // The parent of fc28@3 is fc28@1, though fc28@2 was made between them.
        let before = lab.snapshot();
        let plan = lab.lib.plan_rollback(&spec("fc28")).unwrap();
        assert_eq!(lab.snapshot(), before, "a plan touches nothing");
        assert_eq!((&plan.from, &plan.to), (&Some(id("fc28@3")), &id("fc28@1")));
        let told: Vec<_> = plan
            .clients
            .iter()
            .map(|client| (client.mode, client.boots.number, client.drifts))
            .collect();
        assert_eq!(
            told,
            [
                (Mode::Shared, 1, false),
                (Mode::Persistent, 3, true),
                (Mode::Ephemeral, 1, false),
            ]
        );
        let done = lab.lib.roll_back(&spec("fc28"), &Actor::command()).unwrap();
        assert_eq!(done, plan);
        // Who runs goes on; the next boots get what the plan said.
        assert!(lab.room.fenced.lock().unwrap().is_empty());
        assert_eq!(lab.room.sessions()[0].version, id("fc28@3"));
        lab.leave(&grant);
        assert_eq!(lab.boot(&shared).version, id("fc28@1"));
        assert_eq!(lab.script(&own).version, id("fc28@3"));
        assert_eq!(lab.read(&own), "thesis");
        let view = lab.lib.view(lab.client(&own), &lab.room).unwrap();
        assert_eq!(view.drift, Some(id("fc28@1")));
        assert_eq!(lab.boot(&fresh).version, id("fc28@1"));
        assert_eq!(lab.read(&fresh), "one");
        assert!(events(&lab).contains("image-rollback"), "{}", events(&lab));
        // Forward again, by name; and once more, where there is nothing to do.
        for _ in 0..2 {
            let forward = lab.lib.roll_back(&spec("fc28@3"), &Actor::command());
            assert_eq!(forward.unwrap().to, id("fc28@3"));
        }
        assert_eq!(lab.lib.resolve(&spec("fc28")).unwrap().id(), &id("fc28@3"));
        assert_eq!(events(&lab).matches("image-rollback").count(), 2);
    });
}

#[test]
fn there_is_no_way_back_from_the_first_version() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let why = refused(lab.lib.roll_back(&spec("fc28"), &Actor::command()));
    assert!(why.contains("no version before it"), "{why}");
    // Nor to one that is gone; then it is the next lower number.
    lab.seal("fc28", "two");
    seal_from(&lab, "fc28", "fc28@2");
    lab.lib
        .remove_version(&id("fc28@2"), &lab.room, &Actor::command())
        .unwrap();
    let plan = lab.lib.plan_rollback(&spec("fc28")).unwrap();
    assert_eq!(plan.to, id("fc28@1"));
    let missing = lab.lib.plan_rollback(&spec("fc28@2")).unwrap_err();
    assert!(matches!(missing, Error::NoVersion { .. }), "{missing}");
}

#[test]
fn by_force_running_clients_are_cut_off_before_their_disks_go() {
    everywhere(|lab| {
        let actor = Actor::command();
        for text in ["one", "two", "three"] {
            lab.seal("fc28", text);
        }
        let pinned = lab.add("52:54:00:00:00:01", "fc28@1", Mode::Shared);
        let own = lab.add("52:54:00:00:00:02", "fc28@1", Mode::Persistent);
        let kept = lab.add("52:54:00:00:00:03", "fc28@1", Mode::Persistent);
        let other = lab.add("52:54:00:00:00:04", "fc28", Mode::Persistent);
        lab.act(&kept, assign(Some("fc28@2"), None), When::Now)
            .unwrap();
        let running = lab.script(&own);
        lab.boot(&pinned);
        lab.enter(&running).unwrap();
        lab.boot(&other);
        let target = format!("{}:fc28.1", lab.lib.config().iqn_prefix);
        lab.login("iqn.2000-01.org.example:x", &target).unwrap();

        let before = lab.snapshot();
        refused(lab.lib.plan_removal(&spec("fc28@1"), When::Now, &lab.room));
        let plan = lab
            .lib
            .plan_removal(&spec("fc28@1"), When::Force, &lab.room)
            .unwrap();
        assert_eq!(lab.snapshot(), before, "a plan touches nothing");
        let name = |mac: &MacAddr| lab.client(mac).name;
        assert_eq!(plan.cut_off, [name(&pinned), name(&own)]);
        assert_eq!(plan.discarded, [name(&own), name(&kept)]);
        assert_eq!(plan.dangling, [name(&pinned), name(&own)]);
        assert_eq!(plan.ended, ["iqn.2000-01.org.example:x"]);

        lab.lib
            .remove(&spec("fc28@1"), When::Force, &lab.room, &actor)
            .unwrap();
        assert_eq!(*lab.room.fenced.lock().unwrap(), [pinned, own]);
        let left: Vec<_> = lab.room.sessions();
        assert!(
            matches!(left.as_slice(), [session] if session.client == Some(other)),
            "{left:?}"
        );
        // Nothing of it comes back: no login, no clone, nothing to undo.
        forbidden(lab.enter(&running));
        assert_eq!(lab.client(&own).clone, None);
        assert!(!lab.home().join("clones/525400000002").exists());
        assert!(lab.client(&kept).discarded.is_empty());
        assert!(!lab.home().join("clones/525400000003/discarded").exists());
        assert!(lab.client(&kept).clone.is_some());
        // Its clients boot nothing, say why, and can be assigned anew.
        let why = lab.lib.issue_boot(&lab.client(&pinned)).unwrap_err();
        let why = why.to_string();
        assert!(
            why.contains("it is assigned to fc28@1, and fc28 has no version 1, only 2 and 3")
                && why.contains("client assign client-525400000001"),
            "{why}"
        );
        let view = lab.lib.view(lab.client(&pinned), &lab.room).unwrap();
        assert_eq!(view.boots, None);
        lab.act(&own, assign(Some("fc28@3"), None), When::Now)
            .unwrap();
        lab.boot(&own);
        assert_eq!(lab.read(&own), "three");
        assert!(events(&lab).contains("forced"), "{}", events(&lab));
        assert!(lab.lib.sweep().unwrap().is_empty());
    });
}

#[test]
fn not_even_force_removes_what_is_current_or_being_built() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    lab.seal("fc28", "two");
    let mac = lab.add("52:54:00:00:00:01", "fc28", Mode::Persistent);
    let force = |text: &str| {
        lab.lib
            .remove(&spec(text), When::Force, &lab.room, &Actor::command())
    };
    let why = refused(force("fc28@2"));
    assert!(why.contains("image rollback fc28"), "{why}");
    let draft = lab.lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    assert!(refused(force("fc28")).contains("build"));
    drop(draft);
    let removed = force("fc28").unwrap();
    assert_eq!(removed.versions, [id("fc28@1"), id("fc28@2")]);
    assert_eq!(removed.discarded, [lab.client(&mac).name]);
    assert!(lab.lib.images().unwrap().is_empty());
    assert_eq!(lab.client(&mac).clone, None);
    let why = lab.lib.issue_boot(&lab.client(&mac)).unwrap_err();
    assert!(why.to_string().contains("no image `fc28`"), "{why}");
}

#[test]
fn pruning_takes_what_is_old_and_unused() {
    let lab = Lab::new();
    let actor = Actor::command();
    for text in ["one", "two", "three", "four", "five", "six"] {
        lab.seal("fc28", text);
    }
    lab.seal("fc29", "other");
    lab.lib.set_current(&id("fc28@2"), &actor).unwrap();
    lab.add("52:54:00:00:00:01", "fc28@3", Mode::Shared);
    // What a failed build was told to leave, of an image that has nothing else, too.
    for image in ["fc28", "fc30"] {
        let failed = lab.home().join(format!("images/{image}/.failed-0123"));
        std::fs::create_dir_all(&failed).unwrap();
        std::fs::write(failed.join("disk.img"), vec![7; 65536]).unwrap();
    }
    assert!(lab.lib.sweep().unwrap().is_empty(), "it is kept until then");
    let before = lab.snapshot();
    let plan = lab.lib.plan_prune(None, keep(2), &lab.room).unwrap();
    assert_eq!(lab.snapshot(), before, "a plan touches nothing");
    let removes: Vec<String> = plan
        .removes
        .iter()
        .map(|pruned| match pruned {
            Pruned::Version { version, .. } => version.to_string(),
            Pruned::Failed { image, .. } => format!("failed {image}"),
        })
        .collect();
    assert_eq!(removes, ["fc28@1", "fc28@4", "failed fc28", "failed fc30"]);
    let stays: Vec<_> = plan
        .stays
        .iter()
        .map(|staying| format!("{}: {}", staying.version, staying.why.join(", ")))
        .collect();
    assert_eq!(
        stays,
        [
            "fc28@2: it is the current version",
            "fc28@3: client client-525400000001 is assigned to it"
        ]
    );

    let fc28 = "fc28".parse().unwrap();
    lab.lib
        .prune(Some(&fc28), keep(2), &lab.room, &actor)
        .unwrap();
    assert_eq!(lab.lib.image(&fc28).unwrap().versions, [2, 3, 5, 6]);
    assert!(!lab.home().join("images/fc28/.failed-0123").exists());
    assert!(lab.home().join("images/fc30/.failed-0123").exists());
    lab.lib.prune(None, keep(2), &lab.room, &actor).unwrap();
    assert!(!lab.home().join("images/fc30").exists());
    let again = lab.lib.plan_prune(None, keep(2), &lab.room).unwrap();
    assert!(again.removes.is_empty(), "{again:?}");
    let unknown = lab
        .lib
        .plan_prune(Some(&"fc31".parse().unwrap()), keep(1), &lab.room)
        .unwrap_err();
    assert!(unknown.to_string().contains("no image `fc31`"), "{unknown}");
}

#[test]
fn nothing_is_removed_that_was_not_shown() {
    let lab = Lab::new();
    let (fc28, actor) = ("fc28".parse::<ImageName>().unwrap(), Actor::command());
    for text in ["one", "two", "three"] {
        lab.seal("fc28", text);
    }
    let keep = std::num::NonZeroU32::new(2).unwrap();
    let shown: Vec<VersionId> = vec!["fc28@1".parse().unwrap()];
    // Somebody seals another one before the person says yes.
    lab.seal("fc28", "four");
    let pruned = lab
        .lib
        .prune_shown(Some(&fc28), keep, Some(&shown), &lab.room, &actor);
    let refused = pruned.unwrap_err().to_string();
    assert!(refused.contains("fc28@2, too"), "{refused}");
    let all = VersionSpec::from(fc28.clone());
    let removed = lab
        .lib
        .remove_shown(&all, When::Now, Some(&shown), &lab.room, &actor);
    assert!(removed.is_err());
    assert_eq!(lab.lib.image(&fc28).unwrap().versions, [1, 2, 3, 4]);
}
