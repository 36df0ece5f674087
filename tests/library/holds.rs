//! A clone is copied while nobody writes it, and nobody is let in to it meanwhile.

use netroot::library::*;

use crate::lab::{Lab, MIB, everywhere, refused};

const MAC: &str = "52:54:00:12:34:56";

/// A client that wrote to its disk and was shut down.
fn written_and_off(lab: &Lab) -> MacAddr {
    // More than the first grain, so that there is something to be unmapped.
    lab.seal("fc28", &"pristine ".repeat(10_000));
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    let grant = lab.boot(&mac);
    // A block within a grain, then holes where the version has data.
    lab.change(&mac, 3, vec![b'x'; 512], 60);
    lab.change(&mac, 8 * MIB / 512 - 3, vec![b'y'; 1024], 1);
    lab.leave(&grant);
    mac
}

fn draft(lab: &Lab) -> Draft<'_> {
    lab.lib.draft(&"new".parse().unwrap()).unwrap()
}

fn busy(login: std::result::Result<Grant, LoginError>) -> String {
    match login {
        Err(LoginError::Failed(error)) => error.to_string(),
        other => panic!("not turned away: {other:?}"),
    }
}

#[test]
fn a_copy_is_what_the_client_wrote_over_its_version() {
    everywhere(|lab| {
        let mac = written_and_off(&lab);
        let expected = lab.whole(&mac);
        assert!(expected.starts_with(b"pristine"));
        let hold = lab.lib.hold_clone(&mac).unwrap();
        let held = hold.unless_connected(&lab.room.sessions()).unwrap();
        let draft = draft(&lab);
        let kind = draft.copy_clone(&held, &Quiet).unwrap();
        let reflinks = held.clone_info().kind == CloneKind::Reflink;
        assert_eq!(kind == CopyKind::Reflink, reflinks);
        drop(held);
        assert!(std::fs::read(draft.disk_path()).unwrap() == expected);
        // It is a copy: what the client writes now is not in it.
        lab.boot(&mac);
        lab.write(&mac, "later");
        assert!(std::fs::read(draft.disk_path()).unwrap() == expected);
        lab.lib.verify(&"fc28@1".parse().unwrap(), &Quiet).unwrap();
    });
}

#[test]
fn nobody_is_let_in_while_a_clone_is_held() {
    everywhere(|lab| {
        let mac = written_and_off(&lab);
        let ticket = lab.script(&mac);
        let hold = lab.lib.hold_clone(&mac).unwrap();
        let why = busy(lab.enter(&ticket));
        assert!(why.contains("its disk is being copied"), "{why}");
        assert_eq!(lab.client(&mac).boot.unwrap().state, BootState::Gone);
        // A second one has to wait, the sweep of another command leaves it alone, and other clients boot.
        let why = refused(lab.lib.hold_clone(&mac));
        assert!(why.contains("somebody else copies it"), "{why}");
        assert!(lab.lib.sweep().unwrap().is_empty());
        busy(lab.enter(&ticket));
        let other = lab.add("52:54:00:00:00:02", "fc28", Mode::Persistent);
        lab.boot(&other);
        drop(hold);
        lab.enter(&ticket).unwrap();
    });
}

#[test]
fn a_client_that_runs_is_not_held() {
    let lab = Lab::new();
    let mac = written_and_off(&lab);
    let grant = lab.boot(&mac);
    let why = refused(lab.lib.hold_clone(&mac));
    assert!(why.contains("it may be running"), "{why}");
    // The server was killed, and nobody saw the client leave.
    lab.room.forget();
    refused(lab.lib.hold_clone(&mac));
    drop(grant);
    // It was fenced, and its last commands have not settled.
    let grant = lab.boot(&mac);
    let sessions = lab.room.sessions();
    lab.leave(&grant);
    let hold = lab.lib.hold_clone(&mac).unwrap();
    let why = refused(hold.unless_connected(&sessions));
    assert!(why.contains("192.0.2.7"), "{why}");
    // Who was refused holds nothing.
    lab.boot(&mac);
}

#[test]
fn a_shared_client_has_nothing_to_copy() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Shared);
    let why = refused(lab.lib.hold_clone(&mac));
    assert!(why.contains("it has none in mode shared"), "{why}");
}

#[test]
fn what_was_reset_since_it_was_held_is_not_copied() {
    everywhere(|lab| {
        let mac = written_and_off(&lab);
        let hold = lab.lib.hold_clone(&mac).unwrap();
        let held = hold.unless_connected(&[]).unwrap();
        let reset = lab.act(&mac, Act::Reset, When::Now).unwrap();
        assert!(!reset.plan.steps.is_empty());
        let draft = draft(&lab);
        let why = refused(draft.copy_clone(&held, &Quiet));
        assert!(why.contains("it was reset"), "{why}");
        // Nor is the hold of a client that was added anew taken off.
        lab.lib
            .remove_client(&mac, When::Now, &lab.room, &Actor::command())
            .unwrap();
        lab.add(MAC, "fc28", Mode::Persistent);
        let again = lab.lib.hold_clone(&mac).unwrap();
        drop(held);
        busy(lab.enter(&lab.script(&mac)));
        drop(again);
        lab.boot(&mac);
    });
}

#[test]
fn the_hold_of_a_killed_command_holds_nobody() {
    let lab = Lab::new();
    let mac = written_and_off(&lab);
    let left = lab.home().join(format!("clones/{}/held", mac.bare()));
    std::fs::write(&left, "").unwrap();
    let grant = lab.boot(&mac);
    lab.leave(&grant);
    assert!(lab.lib.sweep().unwrap().is_empty());
    assert!(!left.exists());
    std::fs::write(&left, "").unwrap();
    lab.lib.hold_clone(&mac).unwrap();
    assert!(!left.exists());
}

#[test]
fn an_interrupted_copy_leaves_nothing() {
    struct Impatient;
    impl Progress for Impatient {
        fn step(&self, _: &str, _: Option<u64>) {}
        fn advance(&self, _: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    // Without reflinks: a reflink is made at once.
    let lab = Lab::new();
    let mac = written_and_off(&lab);
    let hold = lab.lib.hold_clone(&mac).unwrap();
    let held = hold.unless_connected(&[]).unwrap();
    if held.clone_info().kind == CloneKind::Overlay {
        let copied = draft(&lab).copy_clone(&held, &Impatient);
        assert!(matches!(copied, Err(Error::Cancelled)), "{copied:?}");
    }
    drop(held);
    lab.boot(&mac);
    assert!(!lab.home().join("images/new").exists());
}
