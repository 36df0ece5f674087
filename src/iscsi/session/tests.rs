//! Scripts of sessions: what comes in, and the actions that come out, as one line each.

use super::*;
use crate::block::{self, Segment};
use crate::iscsi::wire::{
    Attribute, DataIn, DataOut, NopIn, R2t, Residual, ScsiResponse, TaskResponse, TextResponse,
    set_lengths,
};
use crate::scsi::{Response, Sense};

mod anything;
mod data;
mod order;
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
        Opcode::NopIn => {
            let h = NopIn::parse(&pdu.bhs).unwrap();
            match h.itt {
                Tag::NONE => format!("ping sn {}", h.numbers.stat_sn.0),
                _ => format!("pong {}", text()),
            }
        }
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
fn only_who_pings_is_pinged_and_a_ping_takes_no_number() {
    let mut session = session(parameters());
    assert!(!session.ask_for_life());
    assert!(session.actions().is_empty());
    let ping = NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag(5),
        ttt: Tag::NONE,
        cmd_sn: Serial(FIRST),
        exp_stat_sn: Serial(0),
    };
    check(&mut session, vec![(pdu(ping.emit(), b""), &["pong "])]);
    let mut tags = Vec::new();
    for _ in 0..2 {
        assert!(session.ask_for_life());
        let actions = session.actions();
        let [Action::Send(sent_one)] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        assert_eq!(sent(sent_one), "ping sn 11");
        let tag = NopIn::parse(&sent_one.bhs).unwrap().ttt;
        tags.push(tag);
        let answer = NopOut {
            itt: Tag::NONE,
            ttt: tag,
            ..ping
        };
        check(&mut session, vec![(pdu(answer.emit(), b""), &[])]);
    }
    assert!(tags[0] != tags[1] && !tags.contains(&Tag::NONE));
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
