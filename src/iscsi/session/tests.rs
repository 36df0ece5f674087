//! Scripts of sessions: what comes in, and the actions that come out, as one line each.

use super::*;
use crate::block::{self, Segment};
use crate::iscsi::wire::{
    Attribute, DataIn, DataOut, R2t, Residual, ScsiResponse, TaskResponse, TextResponse,
    set_lengths,
};
use crate::scsi::{Response, Sense};

mod anything;
mod texts;

/// The first command's number.
const FIRST: u32 = 100;
const LUN: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

/// A session that takes and sends everything in small pieces.
fn parameters() -> Parameters {
    Parameters {
        initial_r2t: false,
        initiator_max_recv: 1024,
        max_burst: 2048,
        first_burst: 1024,
        max_outstanding_r2t: 1,
        ..Parameters::default()
    }
}

fn session(parameters: Parameters) -> Session {
    let agreed = Agreed {
        parameters,
        cid: 7,
        stat_sn: Serial(10),
        exp_cmd_sn: Serial(FIRST),
    };
    let target = "iqn.a:t".parse().unwrap();
    let portals = vec![([192, 0, 2, 1], 3260).into()];
    Session::new(agreed, Some(target), portals, 4, Arc::default())
}

fn discovery() -> Session {
    Session {
        target: None,
        ..session(parameters())
    }
}

/// What a script does.
enum In {
    Pdu(Incoming),
    Wants(u32, u64),
    Finished(u32, Response),
    ResetDone(u32),
    Listed(&'static [&'static str]),
}

fn pdu(mut bhs: wire::Bhs, data: &[u8]) -> In {
    set_lengths(&mut bhs, data.len());
    In::Pdu(Incoming {
        bhs,
        data: Bytes::copy_from_slice(data),
    })
}

fn command(itt: u32, sn: u32) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        last: true,
        read: false,
        write: false,
        attribute: Attribute::Simple,
        lun: LUN,
        itt: Tag(itt),
        expected_len: 0,
        cmd_sn: Serial(FIRST.wrapping_add(sn)),
        exp_stat_sn: Serial(0),
        cdb: [0; 16],
    }
}

fn read(itt: u32, sn: u32, len: u32) -> In {
    let command = ScsiCommand {
        read: true,
        expected_len: len,
        ..command(itt, sn)
    };
    pdu(command.emit(), b"")
}

fn write(itt: u32, sn: u32, len: u32, data: &[u8]) -> In {
    let command = ScsiCommand {
        write: true,
        expected_len: len,
        ..command(itt, sn)
    };
    pdu(command.emit(), data)
}

fn data(itt: u32, ttt: u32, data_sn: u32, offset: u32, len: usize, last: bool) -> In {
    let header = DataOut {
        last,
        // Windows does not set it.
        lun: [0; 8],
        itt: Tag(itt),
        ttt: Tag(ttt),
        exp_stat_sn: Serial(0),
        data_sn,
        offset,
    };
    pdu(header.emit(), &vec![b'd'; len])
}

const UNASKED: u32 = 0xffff_ffff;

fn task(function: u8, itt: u32, referenced: u32) -> In {
    let request = TaskRequest {
        immediate: true,
        function,
        lun: LUN,
        itt: Tag(itt),
        referenced_itt: Tag(referenced),
        cmd_sn: Serial(FIRST + 1),
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(FIRST),
    };
    pdu(request.emit(), b"")
}

fn bytes(n: usize) -> Response {
    Response::with(vec![Segment::Bytes(Bytes::from(vec![b'r'; n]))])
}

/// An action in words.
fn words(action: &Action) -> String {
    match action {
        Action::Send(pdu) => sent(pdu),
        Action::Enlist { id, .. } => format!("enlist {}", id.itt.0),
        Action::Begin { id, .. } => format!("begin {}", id.itt.0),
        Action::Deliver { id, data, .. } => {
            let n: usize = data.iter().map(Bytes::len).sum();
            format!("deliver {}: {n} in {}", id.itt.0, data.len())
        }
        Action::Forget { id } => format!("forget {}", id.itt.0),
        Action::Reset { tmf, scope } => format!("reset {} {scope:?}", tmf.0),
        Action::List => "list".into(),
        Action::Restart => "restart".into(),
        Action::End(end) => format!("end {end:?}"),
    }
}

fn sent(pdu: &Outgoing) -> String {
    let text = || {
        let Some(Segment::Bytes(bytes)) = pdu.data.first() else {
            return String::new();
        };
        String::from_utf8_lossy(bytes).replace('\0', " ")
    };
    match Head::parse(&pdu.bhs).opcode {
        Opcode::DataIn => {
            let h = DataIn::parse(&pdu.bhs).unwrap();
            let status = match h.status {
                Some((status, _)) => format!(" status {status} sn {}", h.numbers.stat_sn.0),
                None => String::new(),
            };
            let last = if h.last { " last" } else { "" };
            format!(
                "data {} #{} {}+{}{last}{status}",
                h.itt.0,
                h.data_sn,
                h.offset,
                block::total(&pdu.data)
            )
        }
        Opcode::ScsiResponse => {
            let h = ScsiResponse::parse(&pdu.bhs).unwrap();
            let residual = match h.residual {
                Residual::None => String::new(),
                residual => format!(" {residual:?}"),
            };
            format!(
                "response {} status {} sn {} after {}{residual}",
                h.itt.0, h.status, h.numbers.stat_sn.0, h.exp_data_sn
            )
        }
        Opcode::R2t => {
            let h = R2t::parse(&pdu.bhs).unwrap();
            format!(
                "r2t {} #{} ttt {} {}+{}",
                h.itt.0, h.r2t_sn, h.ttt.0, h.offset, h.len
            )
        }
        Opcode::TaskResponse => {
            let h = TaskResponse::parse(&pdu.bhs).unwrap();
            format!("task {} response {}", h.itt.0, h.response)
        }
        Opcode::NopIn => format!("pong {}", text()),
        Opcode::TextResponse => {
            let h = TextResponse::parse(&pdu.bhs).unwrap();
            let last = if h.last { " last" } else { "" };
            let more = if h.more { " more" } else { "" };
            format!("text{last}{more} [{}]", text().trim_end())
        }
        Opcode::LogoutResponse => format!("logout response {}", pdu.bhs[2]),
        Opcode::Reject => format!("reject {}", pdu.bhs[2]),
        Opcode::AsyncMessage => format!("async {}", pdu.bhs[36]),
        other => format!("{other:?}"),
    }
}

/// Plays a script and compares what is done after each step.
fn check(session: &mut Session, script: Vec<(In, &[&str])>) {
    for (i, (step, expected)) in script.into_iter().enumerate() {
        let id = |itt| session.tasks.get(&Tag(itt)).map(|task| task.id);
        match step {
            In::Pdu(pdu) => session.receive(pdu),
            In::Wants(itt, n) => {
                let id = id(itt).unwrap();
                session.wants(id, n);
            }
            In::Finished(itt, response) => {
                let forgotten = TaskId {
                    itt: Tag(itt),
                    serial: 0,
                };
                let id = id(itt).unwrap_or(forgotten);
                session.finished(id, response);
            }
            In::ResetDone(tmf) => session.reset_done(Tag(tmf), true),
            In::Listed(names) => {
                let names: Vec<_> = names.iter().map(|n| n.parse().unwrap()).collect();
                session.listed(&names);
            }
        }
        let done: Vec<String> = session.actions().iter().map(words).collect();
        assert_eq!(done, expected, "step {i}");
    }
}

#[test]
fn a_read_goes_out_in_pieces_and_ends_with_its_status() {
    check(
        &mut session(parameters()),
        vec![
            (read(1, 0, 3000), &["begin 1"]),
            (
                In::Finished(1, bytes(3000)),
                &[
                    "data 1 #0 0+1024",
                    "data 1 #1 1024+1024 last",
                    "data 1 #2 2048+952 last status 0 sn 10",
                ],
            ),
        ],
    );
}

#[test]
fn data_that_do_not_fit_exactly_have_a_response_of_their_own() {
    check(
        &mut session(parameters()),
        vec![
            (read(1, 0, 512), &["begin 1"]),
            (
                In::Finished(1, bytes(96)),
                &[
                    "data 1 #0 0+96 last",
                    "response 1 status 0 sn 10 after 1 Underflow(416)",
                ],
            ),
            (read(2, 1, 512), &["begin 2"]),
            (
                In::Finished(2, bytes(600)),
                &[
                    "data 2 #0 0+512 last",
                    "response 2 status 0 sn 11 after 1 Overflow(88)",
                ],
            ),
            (read(3, 2, 512), &["begin 3"]),
            (
                In::Finished(3, Sense::READ_ERROR.into()),
                &["response 3 status 2 sn 12 after 0 Underflow(512)"],
            ),
        ],
    );
}

#[test]
fn answers_go_out_in_the_order_in_which_commands_end() {
    check(
        &mut session(parameters()),
        vec![
            (read(1, 0, 512), &["begin 1"]),
            (read(2, 1, 512), &["begin 2"]),
            (
                In::Finished(2, bytes(512)),
                &["data 2 #0 0+512 last status 0 sn 10"],
            ),
            (
                In::Finished(1, bytes(512)),
                &["data 1 #0 0+512 last status 0 sn 11"],
            ),
        ],
    );
}

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
fn commands_wait_for_their_turn_and_the_window_is_enforced() {
    check(
        &mut session(parameters()),
        vec![
            (read(2, 1, 1), &[]),
            (read(3, 2, 1), &[]),
            (read(1, 0, 1), &["begin 1", "begin 2", "begin 3"]),
            // Old, repeated, and beyond the window of four.
            (read(4, 0, 1), &[]),
            (read(5, 7, 1), &[]),
            (read(6, u32::MAX, 1), &[]),
            (read(7, 3, 1), &["begin 7"]),
            // Full: four commands are open.
            (read(8, 4, 1), &[]),
            (
                In::Finished(1, bytes(1)),
                &["data 1 #0 0+1 last status 0 sn 10"],
            ),
            (read(8, 4, 1), &["begin 8"]),
            // The same tag twice.
            (
                In::Finished(2, bytes(1)),
                &["data 2 #0 0+1 last status 0 sn 11"],
            ),
            (read(8, 5, 1), &["reject 7"]),
        ],
    );
}

#[test]
fn both_directions_at_once_are_refused() {
    let both = ScsiCommand {
        read: true,
        write: true,
        expected_len: 512,
        ..command(1, 0)
    };
    check(
        &mut session(parameters()),
        vec![(
            pdu(both.emit(), b""),
            &["response 1 status 2 sn 10 after 0 Underflow(512)"],
        )],
    );
}

#[test]
fn pings_are_answered_as_far_as_wanted() {
    let ping = |itt| NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag(itt),
        ttt: Tag::NONE,
        cmd_sn: Serial(FIRST),
        exp_stat_sn: Serial(0),
    };
    check(
        &mut session(parameters()),
        vec![
            (pdu(ping(5).emit(), b"hello"), &["pong hello"]),
            (pdu(ping(u32::MAX).emit(), b"hello"), &[]),
            // A ping while a command is at work does not wait for it.
            (read(1, 0, 1), &["begin 1"]),
            (pdu(ping(6).emit(), b""), &["pong "]),
        ],
    );
    let long = vec![b'x'; 3000];
    let cut = format!("pong {}", "x".repeat(1024));
    check(
        &mut session(parameters()),
        vec![(pdu(ping(5).emit(), &long), &[cut.as_str()])],
    );
}

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

#[test]
fn what_does_not_belong_here_is_rejected_or_ends_the_session() {
    let bare = |opcode: u8| {
        let mut bhs = command(1, 0).emit();
        bhs[0] = opcode;
        pdu(bhs, b"")
    };
    check(
        &mut session(parameters()),
        vec![
            (bare(0x50), &["reject 3"]),
            (bare(0x5d), &["reject 5"]),
            (bare(0x61), &["reject 5"]),
            (bare(0x43), &["reject 4", "end ProtocolError"]),
        ],
    );
    check(
        &mut discovery(),
        vec![(read(1, 0, 512), &["reject 4", "end ProtocolError"])],
    );
}

#[test]
fn the_end_is_announced() {
    let mut session = session(parameters());
    session.ask_logout(3);
    session.tell_dropped();
    let done: Vec<String> = session.actions().iter().map(words).collect();
    assert_eq!(done, ["async 1", "async 3"]);
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
