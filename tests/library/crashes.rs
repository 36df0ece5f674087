//! What is killed is cleaned up by the next command, which says so (rule 7).

use std::fs;
use std::path::Path;

use netroot::library::*;

use crate::lab::{Lab, everywhere};

const MAC: &str = "52:54:00:12:34:56";

#[test]
fn a_killed_builders_draft_is_removed() {
    let lab = Lab::new();
    let before = lab.snapshot();
    // What is left of a draft when its maker, and with it the lock, is gone.
    let dir = lab.home().join("images/fc28/.draft-0123456789abcdef");
    fs::create_dir_all(&dir).unwrap();
    for name in ["held", "disk.img", "vmlinuz"] {
        fs::write(dir.join(name), "half").unwrap();
    }
    let swept = lab.lib.sweep().unwrap();
    assert_eq!(
        swept,
        [Swept::Draft {
            image: "fc28".parse().unwrap()
        }]
    );
    assert_eq!(swept[0].to_string(), "removed an unfinished draft of fc28");
    assert_eq!(lab.snapshot(), before);
    assert!(lab.lib.sweep().unwrap().is_empty());
}

#[test]
fn a_builder_killed_after_the_rename_has_published() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let current = fs::read(lab.home().join("images/fc28/current")).unwrap();
    lab.seal("fc28", "two");
    // As it was between the rename and the note of what is current.
    fs::write(lab.home().join("images/fc28/current"), current).unwrap();
    let mark = lab.home().join("images/fc28/2/publishing");
    fs::write(&mark, "").unwrap();
    let swept = lab.lib.sweep().unwrap();
    assert!(!mark.exists());
    assert_eq!(
        swept,
        [Swept::Current {
            version: "fc28@2".parse().unwrap()
        }]
    );
    assert_eq!(
        lab.lib
            .resolve(&"fc28".parse().unwrap())
            .unwrap()
            .id()
            .number,
        2
    );
}

#[test]
fn a_killed_removal_is_completed() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    lab.seal("fc28", "two");
    let home = lab.home().join("images/fc28");
    fs::rename(home.join("1"), home.join(".removed-0123456789abcdef")).unwrap();
    assert_eq!(
        lab.lib.sweep().unwrap(),
        [Swept::Removal {
            image: "fc28".parse().unwrap()
        }]
    );
    assert_eq!(
        lab.lib.image(&"fc28".parse().unwrap()).unwrap().versions,
        [2]
    );
    assert!(!home.join(".removed-0123456789abcdef").exists());
}

#[test]
fn a_killed_removal_of_an_image_is_completed() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    lab.seal("fc28", "two");
    let images = lab.home().join("images");
    fs::rename(
        images.join("fc28"),
        images.join(".removed-0123456789abcdef"),
    )
    .unwrap();
    assert_eq!(lab.lib.sweep().unwrap(), [Swept::Image]);
    assert_eq!(fs::read_dir(images).unwrap().count(), 0);
}

/// Brings the files of a client to what they were after `moved` of the moves of a reset, with the
/// note of what is to be done written and the document not yet.
fn cut_off(lab: &Lab, mac: &MacAddr, before: &Before, moved: usize) {
    let home = lab.home().join("clones").join(mac.bare());
    let after = lab.client(mac);
    let (out, into) = (
        before.client.clone.clone().unwrap(),
        after.clone.clone().unwrap(),
    );
    let mut pending = after;
    pending.revision = before.client.revision;
    let note = serde_json::json!({ "client": pending, "swap": { "out": out, "into": into } });
    let path = lab.home().join(format!("pending/{}.json", mac.bare()));
    fs::write(path, note.to_string()).unwrap();
    fs::write(
        lab.home().join(format!("clients/{}.json", mac.bare())),
        &before.document,
    )
    .unwrap();
    // Undo the moves from the end.
    let old = home.join("discarded").join(&out.id);
    let new = home.join(format!(".new-{}", into.id));
    let names: &[&str] = match out.kind {
        CloneKind::Reflink => &["disk.img"],
        CloneKind::Overlay => &["disk.img", "disk.bitmap"],
    };
    let moves: Vec<_> = names
        .iter()
        .map(|name| (home.join(name), old.join(name)))
        .chain(names.iter().map(|name| (new.join(name), home.join(name))))
        .collect();
    fs::create_dir_all(&new).unwrap();
    for (from, to) in moves.iter().skip(moved).rev() {
        fs::rename(to, from).unwrap();
    }
}

struct Before {
    client: Client,
    document: Vec<u8>,
}

#[test]
fn a_killed_reset_is_completed_from_wherever_it_was() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let moves = match lab.client(&mac).clone.unwrap().kind {
            CloneKind::Reflink => 2,
            CloneKind::Overlay => 4,
        };
        for moved in 0..=moves {
            lab.write(&mac, &format!("mine {moved}"));
            let before = Before {
                client: lab.client(&mac),
                document: fs::read(lab.home().join(format!("clients/{}.json", mac.bare())))
                    .unwrap(),
            };
            lab.act(&mac, Act::Reset, When::Now).unwrap();
            cut_off(&lab, &mac, &before, moved);
            assert_eq!(
                lab.lib.sweep().unwrap(),
                [Swept::Client { mac }],
                "after {moved} moves"
            );
            assert_eq!(lab.read(&mac), "pristine");
            lab.act(&mac, Act::Undo, When::Now).unwrap();
            assert_eq!(lab.read(&mac), format!("mine {moved}"));
            assert!(no_leftovers(&lab.home().join("clones").join(mac.bare())));
        }
    });
}

#[test]
fn a_killed_removal_of_a_client_is_completed() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let before = lab.snapshot();
    for moved in [false, true] {
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let note = serde_json::json!({ "client": lab.client(&mac), "swap": {}, "removed": true });
        let path = lab.home().join(format!("pending/{}.json", mac.bare()));
        fs::write(path, note.to_string()).unwrap();
        let clones = lab.home().join("clones");
        if moved {
            fs::rename(
                clones.join(mac.bare()),
                clones.join(".removed-0123456789abcdef"),
            )
            .unwrap();
        }
        assert_eq!(lab.lib.sweep().unwrap(), [Swept::Client { mac }]);
        assert_eq!(lab.snapshot(), before);
    }
}

#[test]
fn a_clone_that_was_made_and_never_used_is_removed() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let before = lab.snapshot();
    let never: MacAddr = "52:54:00:00:00:09".parse().unwrap();
    for mac in [mac, never] {
        let dir = lab
            .home()
            .join("clones")
            .join(mac.bare())
            .join(".new-0123456789abcdef");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("disk.img"), "half").unwrap();
    }
    assert_eq!(lab.lib.sweep().unwrap().len(), 2);
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_reset_killed_after_its_document_is_only_crossed_out() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let before = lab.client(&mac);
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    lab.write(&mac, "after");
    let mut pending = lab.client(&mac);
    let (out, into) = (before.clone.clone(), pending.clone.clone());
    pending.revision = before.revision;
    let note = serde_json::json!({ "client": pending, "swap": { "out": out, "into": into } });
    fs::write(
        lab.home().join(format!("pending/{}.json", mac.bare())),
        note.to_string(),
    )
    .unwrap();
    lab.lib.sweep().unwrap();
    assert_eq!(lab.read(&mac), "after");
    assert!(lab.lib.sweep().unwrap().is_empty());
}

/// A shared client that runs is made persistent, and that is cut off before its document is written.
fn cut_off_assignment(lab: &Lab) -> (MacAddr, Grant) {
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Shared);
    let further = Edit {
        more_macs: Some([FURTHER.parse().unwrap()].into()),
        ..Edit::default()
    };
    lab.lib
        .edit_client(&mac, &further, &lab.room, &Actor::command())
        .unwrap();
    let grant = lab.boot(&mac);
    let place = lab.home().join(format!("clients/{}.json", mac.bare()));
    let (before, document) = (lab.client(&mac), fs::read(&place).unwrap());
    let act = crate::lab::assign(None, Some(Mode::Persistent));
    lab.act(&mac, act, When::Now).unwrap();
    let mut pending = lab.client(&mac);
    pending.revision = before.revision;
    let swap = serde_json::json!({ "out": null, "into": pending.clone });
    let note = serde_json::json!({ "client": pending, "swap": swap });
    let path = lab.home().join(format!("pending/{}.json", mac.bare()));
    fs::write(path, note.to_string()).unwrap();
    fs::write(place, document).unwrap();
    (mac, grant)
}

const FURTHER: &str = "52:54:00:12:34:99";

#[test]
fn a_session_that_ends_completes_what_was_cut_off_first() {
    let lab = Lab::new();
    let (mac, grant) = cut_off_assignment(&lab);
    lab.leave(&grant);
    lab.lib.sweep().unwrap();
    let client = lab.client(&mac);
    assert_eq!(client.mode, Mode::Persistent, "the assignment is not lost");
    assert_eq!(client.boot.unwrap().state, BootState::Gone);
    whole(&lab, &mac);
}

#[test]
fn a_client_named_by_a_further_address_is_completed_first() {
    let lab = Lab::new();
    let (mac, _grant) = cut_off_assignment(&lab);
    let edit = Edit {
        name: Some("desk-1".parse().unwrap()),
        ..Edit::default()
    };
    let further = FURTHER.parse().unwrap();
    lab.lib
        .edit_client(&further, &edit, &lab.room, &Actor::command())
        .unwrap();
    lab.lib.sweep().unwrap();
    let client = lab.client(&mac);
    assert_eq!(client.mode, Mode::Persistent, "the assignment is not lost");
    assert_eq!(client.name.as_str(), "desk-1");
    whole(&lab, &mac);
}

#[test]
fn a_client_that_was_half_added_is_not_added_over() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let mut pending = lab.client(&mac);
    pending.revision = 0;
    let swap = serde_json::json!({ "out": null, "into": pending.clone });
    let note = serde_json::json!({ "client": pending, "swap": swap });
    let path = lab.home().join(format!("pending/{}.json", mac.bare()));
    fs::write(path, note.to_string()).unwrap();
    fs::remove_file(lab.home().join(format!("clients/{}.json", mac.bare()))).unwrap();
    let again = lab.try_add(MAC, "fc28", Mode::Persistent);
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    whole(&lab, &mac);
}

#[test]
fn a_boot_that_was_cut_off_while_it_entered_begins_again() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    lab.boot(&mac);
    lab.write(&mac, "the boot before");
    let ticket = lab.script(&mac);
    // The server is killed while it fences the older boot.
    struct Killed<'a>(&'a Lab);
    impl Live for Killed<'_> {
        fn sessions(&self) -> Vec<LiveSession> {
            self.0.room.sessions()
        }
        fn fence(&self, _: &MacAddr, _: Option<&BootId>) {
            panic!("killed");
        }
        fn evict(&self, _: &[VersionId]) {}
    }
    let caller = Caller {
        initiator: &ticket.initiator,
        peer: "192.0.2.7:1".parse().unwrap(),
    };
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        lab.lib.login(caller, &ticket.target, &Killed(&lab), |_| ())
    }));
    assert!(killed.is_err());
    lab.room.forget();
    assert_eq!(lab.read(&mac), "the boot before");
    assert_eq!(lab.enter(&ticket).unwrap().entry, Entry::NewBoot);
    assert_eq!(lab.read(&mac), "pristine");
}

/// Names the library that [`acts_until_killed`] is to act on; without it that test has nothing to do.
const VICTIM: &str = "NETROOT_TEST_VICTIM";

/// Not a test of its own: the process that [`kill_at_any_moment`] kills.
#[test]
fn acts_until_killed() {
    let Some(home) = std::env::var_os(VICTIM) else {
        return;
    };
    let lab = Lab::of(Path::new(&home));
    let mac: MacAddr = MAC.parse().unwrap();
    for n in 0.. {
        lab.write(&mac, &format!("write {n}"));
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        lab.act(&mac, Act::Undo, When::Now).unwrap();
        lab.seal("other", "pristine");
        fs::write(Path::new(&home).join("../going"), "").unwrap();
    }
}

#[test]
fn kill_at_any_moment() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        lab.seal("other", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let going = lab.home().join("../going");
        for round in 0..12 {
            let _ = fs::remove_file(&going);
            let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crashes::acts_until_killed"])
                .env(VICTIM, lab.home())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            while !going.exists() {
                assert_eq!(
                    victim.try_wait().unwrap(),
                    None,
                    "it ends when it is killed"
                );
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            std::thread::sleep(std::time::Duration::from_micros(1700 * round));
            victim.kill().unwrap();
            victim.wait().unwrap();
            lab.lib.sweep().unwrap();
            whole(&lab, &mac);
        }
    });
}

/// The library is one that could have come about without any kill.
fn whole(lab: &Lab, mac: &MacAddr) {
    assert!(lab.lib.sweep().unwrap().is_empty(), "one sweep is enough");
    let clone = lab.home().join("clones").join(mac.bare());
    assert!(no_leftovers(&clone));
    for _ in 0..4 {
        let text = lab.read(mac);
        assert!(text == "pristine" || text.starts_with("write "), "{text:?}");
        if !lab.client(mac).discarded.is_empty() {
            lab.act(mac, Act::Undo, When::Now).unwrap();
        }
    }
    for image in lab.lib.images().unwrap() {
        assert!(no_leftovers(
            &lab.home().join("images").join(image.name.as_str())
        ));
        assert_eq!(image.current.as_ref(), image.versions.last());
        for number in image.versions {
            let version = format!("{}@{number}", image.name);
            lab.lib.verify(&version.parse().unwrap(), &Quiet).unwrap();
        }
    }
}

fn no_leftovers(clone: &Path) -> bool {
    fs::read_dir(clone).unwrap().all(|entry| {
        !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    })
}

#[test]
fn a_directory_that_no_builder_marked_is_no_version_that_clients_get() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let home = lab.home().join("images/fc28");
    // An empty one, and one as rsync has it half-way: a manifest, and less of the disk than it says.
    fs::create_dir(home.join("7")).unwrap();
    fs::create_dir(home.join("9")).unwrap();
    fs::copy(home.join("1/manifest.json"), home.join("9/manifest.json")).unwrap();
    fs::write(home.join("9/disk.img"), "half").unwrap();
    assert!(lab.lib.sweep().unwrap().is_empty());
    let image = || lab.lib.image(&"fc28".parse().unwrap()).unwrap();
    assert_eq!(image().current, Some(1));
    // A mark alone makes it no better.
    fs::write(home.join("9/publishing"), "").unwrap();
    assert!(lab.lib.sweep().unwrap().is_empty());
    assert_eq!(image().current, Some(1));
}

#[test]
fn the_highest_number_is_told_of_and_not_counted_beyond() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    fs::create_dir(lab.home().join("images/fc28/4294967295")).unwrap();
    let refused = lab.try_seal("fc28", "two", 8 << 20, "xfs").unwrap_err();
    assert!(refused.to_string().contains("highest number"), "{refused}");
}

#[test]
fn a_seal_that_fails_at_its_last_step_leaves_nothing_to_be_finished() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let home = lab.home().join("images/fc28");
    // What would become the new document cannot be written.
    fs::create_dir(home.join(".tmp-current")).unwrap();
    assert!(lab.try_seal("fc28", "two", 8 << 20, "xfs").is_err());
    fs::remove_dir(home.join(".tmp-current")).unwrap();
    assert!(!home.join("2").exists());
    assert!(lab.lib.sweep().unwrap().is_empty());
    let image = lab.lib.image(&"fc28".parse().unwrap()).unwrap();
    assert_eq!((image.current, image.versions), (Some(1), vec![1]));
}

#[test]
fn what_cannot_be_removed_keeps_nobody_from_working() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let stuck = lab.home().join("images/fc28/.removed-0123456789abcdef");
    // As if something were mounted there: it does not go.
    fs::create_dir_all(stuck.join("tree/full")).unwrap();
    let swept = lab.lib.sweep().unwrap();
    assert!(
        matches!(&swept[..], [Swept::Left { path, .. }] if *path == stuck),
        "{swept:?}"
    );
    fs::remove_dir(stuck.join("tree/full")).unwrap();
    assert!(matches!(
        lab.lib.sweep().unwrap()[..],
        [Swept::Removal { .. }]
    ));
}

#[test]
fn nobody_else_can_open_what_everybody_waits_for() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let lab = Lab::new();
    let lock = lab.home().join("lock");
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
    let draft = lab.lib.draft(&"fc28".parse().unwrap()).unwrap();
    let held = draft.disk_path().with_file_name("held");
    assert_eq!(fs::metadata(&held).unwrap().mode() & 0o777, 0o600);
    // A library of an older netroot is mended when it is opened.
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    Library::open(lab.home(), None).unwrap();
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
}
