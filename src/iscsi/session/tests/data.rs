//! Data: bursts, R2Ts, what is lost on the way, and what of it is bounded.

use super::*;

#[test]
fn a_small_write_comes_with_its_command() {
    check(
        &mut session(parameters()),
        vec![
            (write(1, 0, 512, &[1; 512]), &["begin 1"]),
            (In::Wants(1, 512), &["deliver 1: 512 in 1"]),
            (
                In::Finished(1, Response::good()),
                &["response 1 status 0 sn 10 after 0"],
            ),
        ],
    );
}

#[test]
fn data_are_asked_for_burst_by_burst() {
    check(
        &mut session(parameters()),
        vec![
            (write(1, 0, 5000, &[1; 1000]), &["begin 1"]),
            (In::Wants(1, 5000), &["r2t 1 #0 ttt 0 1000+2048"]),
            (data(1, 0, 0, 1000, 1024, false), &[]),
            (
                data(1, 0, 1, 2024, 1024, true),
                &["r2t 1 #1 ttt 1 3048+1952"],
            ),
            (data(1, 1, 0, 3048, 1952, true), &["deliver 1: 5000 in 1"]),
            (
                In::Finished(1, Response::good()),
                &["response 1 status 0 sn 10 after 2"],
            ),
        ],
    );
}

#[test]
fn several_bursts_may_be_open() {
    let parameters = Parameters {
        max_outstanding_r2t: 2,
        ..parameters()
    };
    check(
        &mut session(parameters),
        vec![
            (write(1, 0, 5000, b""), &["begin 1"]),
            (
                In::Wants(1, 5000),
                &["r2t 1 #0 ttt 0 0+2048", "r2t 1 #1 ttt 1 2048+2048"],
            ),
            (data(1, 0, 0, 0, 2048, true), &["r2t 1 #2 ttt 2 4096+904"]),
            (data(1, 1, 0, 2048, 2048, true), &[]),
            (data(1, 2, 0, 4096, 904, true), &["deliver 1: 5000 in 1"]),
        ],
    );
}

#[test]
fn unsolicited_data_are_taken_before_more_is_asked_for() {
    let announced = || {
        let command = ScsiCommand {
            write: true,
            last: false,
            expected_len: 2000,
            ..command(1, 0)
        };
        pdu(command.emit(), &[1; 256])
    };
    check(
        &mut session(parameters()),
        vec![
            (announced(), &["begin 1"]),
            (data(1, UNASKED, 0, 256, 256, false), &[]),
            (In::Wants(1, 2000), &[]),
            (
                data(1, UNASKED, 1, 512, 512, true),
                &["r2t 1 #0 ttt 0 1024+976"],
            ),
            (data(1, 0, 0, 1024, 976, true), &["deliver 1: 2000 in 1"]),
        ],
    );
    // A command that is refused waits for what is on its way (RFC 7143 §11.4).
    check(
        &mut session(parameters()),
        vec![
            (announced(), &["begin 1"]),
            (In::Finished(1, Sense::WRITE_PROTECTED.into()), &[]),
            (data(1, UNASKED, 0, 256, 256, false), &[]),
            (
                data(1, UNASKED, 1, 512, 512, true),
                &["response 1 status 2 sn 10 after 0 Underflow(2000)"],
            ),
        ],
    );
}

#[test]
fn a_write_that_is_refused_asks_for_nothing() {
    check(
        &mut session(parameters()),
        vec![
            (write(1, 0, 512, b""), &["begin 1"]),
            (
                In::Finished(1, Sense::WRITE_PROTECTED.into()),
                &["response 1 status 2 sn 10 after 0 Underflow(512)"],
            ),
        ],
    );
}

#[test]
fn a_command_that_takes_more_than_is_sent_tells_so() {
    check(
        &mut session(parameters()),
        vec![
            (write(1, 0, 512, &[1; 512]), &["begin 1"]),
            (In::Wants(1, 1024), &["deliver 1: 512 in 1"]),
            (
                In::Finished(1, Response::good()),
                &["response 1 status 0 sn 10 after 0 Overflow(512)"],
            ),
        ],
    );
    // Also if its initiator sends nothing at all.
    let silent = pdu(command(1, 0).emit(), b"");
    check(
        &mut session(parameters()),
        vec![
            (silent, &["begin 1"]),
            (In::Wants(1, 1024), &["deliver 1: 0 in 0"]),
            (
                In::Finished(1, Response::good()),
                &["response 1 status 0 sn 10 after 0 Overflow(1024)"],
            ),
        ],
    );
}

#[test]
fn breaking_the_rules_of_data_ends_the_session() {
    let asked = || {
        let mut session = session(parameters());
        check(
            &mut session,
            vec![
                (write(1, 0, 2000, b""), &["begin 1"]),
                (In::Wants(1, 2000), &["r2t 1 #0 ttt 0 0+2000"]),
            ],
        );
        session
    };
    let violation: &[&str] = &["reject 4", "end ProtocolError"];
    for wrong in [
        data(1, 0, 0, 512, 100, false),
        data(1, 0, 0, 0xffff_ff00, 512, false),
        data(1, 5, 0, 0, 100, false),
        data(1, UNASKED, 0, 0, 100, false),
        data(1, 0, 0, 0, 100, true),
        data(1, 0, 0, 0, 2000, false),
        data(1, 0, 0, 0, 2001, true),
    ] {
        check(&mut asked(), vec![(wrong, violation)]);
    }
    // More with the command than it says, than agreed on, or at all.
    for wrong in [
        write(1, 0, 100, &[1; 200]),
        write(1, 0, 5000, &[1; 1025]),
        pdu(command(1, 0).emit(), &[1; 4]),
    ] {
        check(&mut session(parameters()), vec![(wrong, violation)]);
    }
    let strict = Parameters {
        initial_r2t: true,
        immediate_data: false,
        ..parameters()
    };
    let announced = ScsiCommand {
        write: true,
        last: false,
        expected_len: 512,
        ..command(1, 0)
    };
    for wrong in [write(1, 0, 512, &[1; 8]), pdu(announced.emit(), b"")] {
        check(&mut session(strict), vec![(wrong, violation)]);
    }
}

#[test]
fn data_for_a_command_that_is_gone_are_dropped() {
    check(
        &mut session(parameters()),
        vec![(data(9, 9, 9, 9, 9, true), &[])],
    );
}

#[test]
fn a_command_whose_data_got_lost_ends_when_the_rest_has_come() {
    // Two R2Ts: of the first, the first PDU is missing.
    check(
        &mut session(Parameters {
            max_outstanding_r2t: 2,
            max_burst: 1024,
            ..parameters()
        }),
        vec![
            (write(1, 0, 2048, b""), &["begin 1"]),
            (
                In::Wants(1, 2048),
                &["r2t 1 #0 ttt 0 0+1024", "r2t 1 #1 ttt 1 1024+1024"],
            ),
            (data(1, 0, 1, 512, 512, true), &[]),
            (data(1, 1, 0, 1024, 512, false), &[]),
            (
                data(1, 1, 1, 1536, 512, true),
                &["forget 1", "response 1 status 2 sn 10 after 2"],
            ),
            (In::Finished(1, Response::good()), &[]),
            // The connection goes on, and the tag is free.
            (write(1, 1, 512, &[1; 512]), &["begin 1"]),
            (In::Wants(1, 512), &["deliver 1: 512 in 1"]),
        ],
    );
    let announced = |itt, sn| ScsiCommand {
        write: true,
        last: false,
        expected_len: 2000,
        ..command(itt, sn)
    };
    check(
        &mut session(parameters()),
        vec![
            (pdu(announced(1, 0).emit(), b""), &["begin 1"]),
            (data(1, UNASKED, 27, 0, 512, false), &[]),
            (In::Wants(1, 2000), &[]),
            (
                data(1, UNASKED, 0, 0, 512, true),
                &["forget 1", "response 1 status 2 sn 10 after 0"],
            ),
            (In::Finished(1, Response::good()), &[]),
            // What the device has refused stays refused for its reason.
            (pdu(announced(2, 1).emit(), b""), &["begin 2"]),
            (In::Finished(2, Sense::WRITE_PROTECTED.into()), &[]),
            (
                data(2, UNASKED, 1, 512, 512, true),
                &["response 2 status 2 sn 11 after 0 Underflow(2000)"],
            ),
        ],
    );
}

#[test]
fn data_that_nobody_asked_for_are_no_gap() {
    check(
        &mut session(parameters()),
        vec![
            (write(1, 0, 2048, b""), &["begin 1"]),
            (In::Wants(1, 2048), &["r2t 1 #0 ttt 0 0+2048"]),
            (data(1, 0, 7, 0, 512, false), &[]),
            (
                data(1, 1, 0, 0, 512, false),
                &["reject 4", "end ProtocolError"],
            ),
        ],
    );
}

#[test]
fn data_of_all_commands_together_are_bounded() {
    let parameters = Parameters {
        max_burst: 0xff_ffff,
        ..parameters()
    };
    let most = LARGEST as u32;
    check(
        &mut session(parameters),
        vec![
            (write(1, 0, most / 2 - 1, b""), &["begin 1"]),
            (write(2, 1, most / 2 - 1, b""), &["begin 2"]),
            (write(3, 2, 512, b""), &["begin 3"]),
            (
                In::Wants(1, u64::from(most / 2 - 1)),
                &["r2t 1 #0 ttt 0 0+4194303"],
            ),
            (
                In::Wants(2, u64::from(most / 2 - 1)),
                &["r2t 2 #0 ttt 1 0+4194303"],
            ),
            (In::Wants(3, 512), &[]),
            (
                In::Finished(1, Sense::NO_SPACE.into()),
                &["r2t 3 #0 ttt 2 0+512", "response 1 status 2 sn 10 after 1"],
            ),
        ],
    );
}

#[test]
fn data_that_come_unasked_are_bounded_in_all_commands_together() {
    let mut session = session(parameters());
    session.may_hold(1500);
    let announced = ScsiCommand {
        write: true,
        last: false,
        expected_len: 2000,
        ..command(3, 2)
    };
    check(
        &mut session,
        vec![
            (write(1, 0, 1024, &[1; 1024]), &["begin 1"]),
            // Without data there is room, and with few.
            (read(4, 1, 512), &["begin 4"]),
            // What was announced is on its way, and waited for.
            (pdu(announced.emit(), b""), &[]),
            (
                data(3, UNASKED, 0, 0, 1024, true),
                &["response 3 status 40 sn 10 after 0 Underflow(2000)"],
            ),
            (In::Wants(1, 1024), &["deliver 1: 1024 in 1"]),
            (
                In::Finished(1, Response::good()),
                &["response 1 status 0 sn 11 after 0"],
            ),
            (write(5, 3, 1024, &[1; 1024]), &["begin 5"]),
        ],
    );
    assert_eq!(session.held_unasked, 1024);
}

#[test]
fn a_command_larger_than_what_may_be_asked_for_waits_for_more() {
    let parameters = Parameters {
        max_burst: 8192,
        ..parameters()
    };
    let mut session = session(parameters);
    session.may_hold(2048);
    check(
        &mut session,
        vec![
            (write(1, 0, 4096, b""), &["begin 1"]),
            (In::Wants(1, 4096), &[]),
        ],
    );
    assert!(session.needs_more() && !session.awaits_data());
    session.may_hold(LARGEST);
    let done: Vec<String> = session.actions().iter().map(words).collect();
    assert_eq!(done, ["r2t 1 #0 ttt 0 0+4096"]);
    assert!(session.has_asked() && session.awaits_data() && !session.needs_more());
    check(
        &mut session,
        vec![
            (data(1, 0, 0, 0, 4096, true), &["deliver 1: 4096 in 1"]),
            (
                In::Finished(1, Response::good()),
                &["response 1 status 0 sn 10 after 1"],
            ),
        ],
    );
    assert!(!session.has_asked() && !session.awaits_data());
}

#[test]
fn what_is_awaited_is_known_until_it_has_come_or_its_command_is_gone() {
    let announced = ScsiCommand {
        write: true,
        last: false,
        expected_len: 2000,
        ..command(1, 0)
    };
    let mut session = session(parameters());
    check(
        &mut session,
        vec![(pdu(announced.emit(), b""), &["begin 1"])],
    );
    assert!(session.awaits_data());
    check(
        &mut session,
        vec![
            (data(1, UNASKED, 0, 0, 512, true), &[]),
            (In::Wants(1, 2000), &["r2t 1 #0 ttt 0 512+1488"]),
            (data(1, 0, 0, 512, 1000, false), &[]),
        ],
    );
    assert!(session.awaits_data());
    check(
        &mut session,
        vec![
            (task(1, 9, 1), &["forget 1"]),
            (In::Finished(1, Response::good()), &["task 9 response 0"]),
        ],
    );
    assert!(!session.awaits_data() && !session.has_asked());
    assert_eq!(session.held_unasked, 0);
}
