//! A version that nobody can write to is for clients without a disk of their own.

use netroot::library::*;

use crate::lab::{Lab, MIB, assign, refused};

const MAC: &str = "52:54:00:00:00:01";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.seal("fc28", "a");
    lab.try_seal("kiosk", "b", 8 * MIB, "erofs").unwrap();
    lab
}

#[test]
fn a_client_is_added_to_it_in_mode_shared_only() {
    let lab = lab();
    for mode in [Mode::Persistent, Mode::Ephemeral] {
        let why = refused(lab.try_add(MAC, "kiosk", mode));
        assert!(
            why.contains("kiosk@1 is erofs, which is read-only"),
            "{why}"
        );
        assert!(why.contains("use mode shared"), "{why}");
        assert!(lab.lib.clients().unwrap().is_empty());
    }
    let mac = lab.add(MAC, "kiosk", Mode::Shared);
    assert_eq!(lab.boot(&mac).version.to_string(), "kiosk@1");
}

#[test]
fn a_client_is_not_assigned_a_disk_of_it() {
    let lab = lab();
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let before = lab.snapshot();
    for when in [When::Now, When::AtNextBoot] {
        let to = assign(Some("kiosk"), None);
        let why = refused(lab.act(&mac, to, when));
        assert!(why.contains("in mode persistent"), "{why}");
        let to = assign(Some("kiosk"), Some(Mode::Ephemeral));
        refused(lab.act(&mac, to, when));
    }
    assert_eq!(lab.snapshot(), before);
    let to = assign(Some("kiosk"), Some(Mode::Shared));
    lab.act(&mac, to, When::Now).unwrap();
    let mode = assign(None, Some(Mode::Persistent));
    refused(lab.act(&mac, mode, When::Now));
    // Undo brings back the disk that it had, of the other image.
    lab.act(&mac, Act::Undo, When::Now).unwrap();
    assert_eq!(lab.boot(&mac).version.to_string(), "fc28@1");
}

#[test]
fn an_image_whose_clients_have_disks_gets_no_such_version() {
    let lab = lab();
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    let why = refused(lab.try_seal("fc28", "c", 8 * MIB, "erofs"));
    assert!(
        why.contains("giving fc28 a read-only version") && why.contains("client-525400000001"),
        "{why}"
    );
    assert_eq!(lab.lib.images().unwrap()[0].versions, [1]);
    // A client that is pinned to a version that can be written to does not mind.
    let pinned = assign(Some("fc28@1"), None);
    lab.act(&mac, pinned, When::Now).unwrap();
    lab.try_seal("fc28", "c", 8 * MIB, "erofs").unwrap();
    let back = assign(Some("fc28"), None);
    let why = refused(lab.act(&mac, back, When::Now));
    assert!(why.contains("fc28@2 is erofs"), "{why}");
    // Nor may that version become the current one again under somebody.
    let (first, second) = ("fc28@1".parse().unwrap(), "fc28@2".parse().unwrap());
    lab.lib.set_current(&first, &Actor::command()).unwrap();
    let back = assign(Some("fc28"), None);
    lab.act(&mac, back, When::Now).unwrap();
    refused(lab.lib.set_current(&second, &Actor::command()));
    assert_eq!(lab.boot(&mac).version.to_string(), "fc28@1");
}
