//! Order and end: task attributes, task management, the logout.

use super::*;

#[test]
fn an_aborted_command_is_silent_and_its_abort_waits_for_it() {
    check(
        &mut session(parameters()),
        vec![
            (read(1, 0, 512), &["begin 1"]),
            (task(1, 50, 1), &["forget 1"]),
            (In::Finished(1, bytes(512)), &["task 50 response 0"]),
            // It has been there, and its end was told.
            (task(1, 51, 1), &["task 51 response 1"]),
            (task(1, 52, 77), &["task 52 response 1"]),
        ],
    );
}

#[test]
fn a_command_that_is_aborted_before_it_comes_never_begins() {
    let mut session = session(parameters());
    check(
        &mut session,
        vec![
            (task(1, 50, 1), &["task 50 response 0"]),
            (read(1, 0, 512), &[]),
            (read(2, 1, 512), &["begin 2"]),
        ],
    );
}

#[test]
fn what_waits_behind_a_command_that_was_aborted_before_it_came_has_its_turn() {
    check(
        &mut session(parameters()),
        vec![
            (read(2, 1, 512), &[]),
            (read(3, 2, 512), &[]),
            (
                task(1, 50, 1),
                &["task 50 response 0", "begin 2", "begin 3"],
            ),
            (read(4, 3, 512), &["begin 4"]),
        ],
    );
}

#[test]
fn so_many_functions_may_wait_and_no_more() {
    let mut session = session(parameters());
    let In::Pdu(first) = read(1, 0, 512) else {
        unreachable!();
    };
    session.receive(first);
    session.actions();
    for itt in 100..200 {
        let In::Pdu(abort) = task(2, itt, 0) else {
            unreachable!();
        };
        session.receive(abort);
    }
    assert_eq!(session.aborts.len(), abort::MOST_OPEN);
    let words: Vec<String> = session.actions().iter().map(words).collect();
    let refused = words.iter().filter(|word| word.ends_with("response 255"));
    assert_eq!(refused.count(), 100 - abort::MOST_OPEN);
}

#[test]
fn resets_abort_and_wait_for_the_device() {
    let reset = format!("reset 50 {:?}", Scope::Unit(LUN));
    let own = |tmf: u32| format!("reset {tmf} {:?}", Scope::Own(LUN));
    check(
        &mut session(parameters()),
        vec![
            (write(1, 0, 512, b""), &["begin 1"]),
            (In::Wants(1, 512), &["r2t 1 #0 ttt 0 0+512"]),
            (task(2, 49, 0), &["forget 1", &own(49)]),
            (In::ResetDone(49), &[]),
            // Its data are on their way for a while.
            (data(1, 0, 0, 0, 512, true), &[]),
            (In::Finished(1, Response::good()), &["task 49 response 0"]),
        ],
    );
    check(
        &mut session(parameters()),
        vec![
            (read(1, 0, 512), &["begin 1"]),
            (task(5, 50, 0), &["forget 1", &reset]),
            (In::ResetDone(50), &[]),
            (In::Finished(1, bytes(512)), &["task 50 response 0"]),
            (task(6, 51, 0), &["reset 51 Device"]),
            (In::ResetDone(51), &["task 51 response 0"]),
            (task(7, 54, 0), &["reset 54 Device"]),
            (In::ResetDone(54), &["task 54 response 0", "restart"]),
            (task(3, 52, 0), &["task 52 response 5"]),
            (task(8, 53, 0), &["task 53 response 4"]),
        ],
    );
}

#[test]
fn a_logout_waits_for_commands_at_work_and_drops_those_that_wait_for_data() {
    let logout = |reason, cid| LogoutRequest {
        immediate: true,
        reason,
        itt: Tag(90),
        cid,
        cmd_sn: Serial(FIRST + 2),
        exp_stat_sn: Serial(0),
    };
    check(
        &mut session(parameters()),
        vec![
            (read(1, 0, 512), &["begin 1"]),
            (write(2, 1, 512, b""), &["begin 2"]),
            (In::Wants(2, 512), &["r2t 2 #0 ttt 0 0+512"]),
            (pdu(logout(1, 8).emit(), b""), &["logout response 1"]),
            (pdu(logout(2, 7).emit(), b""), &["logout response 2"]),
            (pdu(logout(0, 0).emit(), b""), &["forget 2"]),
            (
                In::Finished(1, bytes(512)),
                &[
                    "data 1 #0 0+512 last status 0 sn 12",
                    "logout response 0",
                    "end Logout",
                ],
            ),
            (read(3, 2, 512), &[]),
        ],
    );
}

/// A read with an attribute.
fn attributed(attribute: Attribute, itt: u32, sn: u32) -> In {
    let command = ScsiCommand {
        read: true,
        expected_len: 512,
        attribute,
        ..command(itt, sn)
    };
    pdu(command.emit(), b"")
}

#[test]
fn an_ordered_command_waits_for_the_older_ones_and_is_waited_for() {
    use Attribute::{HeadOfQueue, Ordered, Simple};
    check(
        &mut session(parameters()),
        vec![
            (attributed(Simple, 1, 0), &["begin 1"]),
            (attributed(Ordered, 2, 1), &["enlist 2"]),
            (attributed(Simple, 3, 2), &["enlist 3"]),
            (attributed(HeadOfQueue, 4, 3), &["begin 4"]),
            (
                In::Finished(1, bytes(512)),
                &["data 1 #0 0+512 last status 0 sn 10"],
            ),
            (
                In::Finished(4, bytes(512)),
                &["data 4 #0 0+512 last status 0 sn 11", "begin 2"],
            ),
            (
                In::Finished(2, bytes(512)),
                &["data 2 #0 0+512 last status 0 sn 12", "begin 3"],
            ),
        ],
    );
}

#[test]
fn an_aborted_command_that_has_not_begun_never_does_and_blocks_nobody() {
    use Attribute::{Ordered, Simple};
    check(
        &mut session(parameters()),
        vec![
            (attributed(Simple, 1, 0), &["begin 1"]),
            (attributed(Ordered, 2, 1), &["enlist 2"]),
            (attributed(Simple, 3, 2), &["enlist 3"]),
            (task(1, 9, 2), &["forget 2", "begin 3", "task 9 response 0"]),
        ],
    );
}

#[test]
fn attributes_that_no_unit_has_are_refused() {
    for attribute in [Attribute::Aca, Attribute::Unknown(5)] {
        check(
            &mut session(parameters()),
            vec![(
                attributed(attribute, 1, 0),
                &["response 1 status 2 sn 10 after 0 Underflow(512)"],
            )],
        );
    }
}
