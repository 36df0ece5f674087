//! Text in the full feature phase.

use super::*;

/// A text request.
fn request(itt: u32, ttt: u32, flags: (bool, bool)) -> TextRequest {
    let (last, more) = flags;
    TextRequest {
        immediate: true,
        last,
        more,
        itt: Tag(itt),
        ttt: Tag(ttt),
        cmd_sn: Serial(FIRST),
        exp_stat_sn: Serial(0),
    }
}

const LAST: (bool, bool) = (true, false);
const MORE: (bool, bool) = (false, true);
const OPEN: (bool, bool) = (false, false);

/// A request with text, pairs apart by spaces.
fn said(request: TextRequest, text: &str) -> In {
    let text: String = text
        .split_terminator(' ')
        .map(|p| format!("{p}\0"))
        .collect();
    pdu(request.emit(), text.as_bytes())
}

#[test]
fn send_targets() {
    let text = |more: bool, ttt| TextRequest {
        immediate: true,
        last: !more,
        more,
        itt: Tag(3),
        ttt: Tag(ttt),
        cmd_sn: Serial(FIRST),
        exp_stat_sn: Serial(0),
    };
    let ask = |value: &str| {
        pdu(
            text(false, UNASKED).emit(),
            format!("SendTargets={value}\0").as_bytes(),
        )
    };
    let both: &[&str] = &["iqn.a:t", "iqn.a:u"];
    let first = "TargetName=iqn.a:t TargetAddress=192.0.2.1:3260,1";
    let second = "TargetName=iqn.a:u TargetAddress=192.0.2.1:3260,1";
    check(
        &mut discovery(),
        vec![
            (ask("All"), &["list"]),
            (
                In::Listed(both),
                &[&format!("text last [{first} {second}]")],
            ),
            (ask("iqn.a:u"), &["list"]),
            (In::Listed(both), &[&format!("text last [{second}]")]),
            // In two parts.
            (pdu(text(true, UNASKED).emit(), b"SendTar"), &["text []"]),
            (pdu(text(false, 1).emit(), b"gets=All\0"), &["list"]),
            (In::Listed(&[]), &["text last []"]),
            // A tag that nobody gave.
            (pdu(text(false, 9).emit(), b""), &["reject 4"]),
        ],
    );
    // In a normal session only the session's own target is there.
    check(
        &mut session(parameters()),
        vec![
            (ask(""), &["list"]),
            (In::Listed(both), &[&format!("text last [{first}]")]),
            (ask("IQN.A:T"), &["list"]),
            (In::Listed(both), &[&format!("text last [{first}]")]),
            (ask("All"), &["list"]),
            (In::Listed(both), &[&format!("text last [{first}]")]),
            (ask("iqn.a:u"), &["text last [SendTargets=Reject]"]),
            (ask("Alle"), &["text last [SendTargets=Reject]"]),
        ],
    );
}

#[test]
fn long_lists_come_in_parts() {
    let request = |ttt| TextRequest {
        immediate: true,
        last: true,
        more: false,
        itt: Tag(3),
        ttt: Tag(ttt),
        cmd_sn: Serial(FIRST),
        exp_stat_sn: Serial(0),
    };
    let mut session = discovery();
    session.receive(match pdu(request(UNASKED).emit(), b"SendTargets=All\0") {
        In::Pdu(pdu) => pdu,
        _ => unreachable!(),
    });
    assert!(matches!(session.actions()[..], [Action::List]));
    let names: Vec<IscsiName> = (0..100)
        .map(|i| format!("iqn.a:target-{i}").parse().unwrap())
        .collect();
    session.listed(&names);
    let mut all = Vec::new();
    loop {
        let actions = session.actions();
        let [Action::Send(response)] = &actions[..] else {
            panic!("one response a request");
        };
        let header = TextResponse::parse(&response.bhs).unwrap();
        let Some(Segment::Bytes(part)) = response.data.first() else {
            panic!("a response without text");
        };
        assert!(part.len() <= 1024);
        all.extend_from_slice(part);
        assert_eq!(header.more, !header.last);
        if header.last {
            break;
        }
        let In::Pdu(next) = pdu(request(header.ttt.0).emit(), b"") else {
            unreachable!();
        };
        session.receive(next);
    }
    assert_eq!(wire::pairs(&all).unwrap().len(), 200);
}

#[test]
fn each_key_has_an_answer_of_its_own() {
    for (text, expected) in [
        ("", ""),
        ("X-com.example.a=1", "X-com.example.a=NotUnderstood"),
        ("sENDtARGETS=aLL", "sENDtARGETS=NotUnderstood"),
        ("InitiatorAlias=me", ""),
        ("MaxRecvDataSegmentLength=4096", ""),
        (
            "MaxRecvDataSegmentLength=511",
            "MaxRecvDataSegmentLength=Reject",
        ),
        // What was agreed on at login stays.
        ("MaxBurstLength=512", "MaxBurstLength=Reject"),
        ("HeaderDigest=None", "HeaderDigest=Reject"),
        ("InitiatorName=iqn.a:j", "InitiatorName=Reject"),
        ("AuthMethod=None", "AuthMethod=Reject"),
        ("TargetAddress=192.0.2.1", "TargetAddress=Reject"),
        ("IFMarker=No X-y=1", "IFMarker=Reject X-y=NotUnderstood"),
    ] {
        check(
            &mut session(parameters()),
            vec![(
                said(request(3, UNASKED, LAST), text),
                &[&format!("text last [{expected}]")],
            )],
        );
    }
}

#[test]
fn a_length_that_is_declared_anew_counts_at_once() {
    let mut session = session(parameters());
    check(
        &mut session,
        vec![(
            said(request(3, UNASKED, LAST), "MaxRecvDataSegmentLength=0x800"),
            &["text last []"],
        )],
    );
    assert_eq!(session.parameters.initiator_max_recv, 2048);
}

#[test]
fn text_that_cannot_be_ends_the_session() {
    let ended: &[&str] = &["reject 4", "end ProtocolError"];
    let keys: String = (0..200).map(|i| format!("K{i}= ")).collect();
    for text in ["novalue", "=1", "A=1 A=2", "A=\u{7}", &keys] {
        check(
            &mut session(parameters()),
            vec![(said(request(3, UNASKED, LAST), text), ended)],
        );
    }
    // Complete, and not.
    check(
        &mut session(parameters()),
        vec![(said(request(3, UNASKED, (true, true)), "A=1"), ended)],
    );
    // Parts of nothing, for ever.
    let mut script: Vec<(In, &[&str])> = vec![(said(request(3, UNASKED, MORE), ""), &["text []"])];
    script.extend((1..64).map(|_| (said(request(3, 1, MORE), ""), &["text []"] as &[&str])));
    script.push((said(request(3, 1, MORE), ""), ended));
    check(&mut session(parameters()), script);
}

#[test]
fn an_exchange_has_one_tag_and_its_answers_are_asked_for_by_nothing() {
    let asked = || -> Vec<(In, &'static [&'static str])> {
        vec![(
            said(request(3, UNASKED, OPEN), "X-a=1"),
            &["text [X-a=NotUnderstood]"],
        )]
    };
    // It goes on until the initiator has said all.
    let mut script = asked();
    script.push((
        said(request(3, 1, LAST), "X-b=1"),
        &["text last [X-b=NotUnderstood]"],
    ));
    script.push((said(request(3, 1, LAST), "X-c=1"), &["reject 4"]));
    check(&mut session(parameters()), script);
    // Another tag is another exchange, which nobody has begun.
    let mut script = asked();
    script.push((said(request(4, 1, LAST), "X-b=1"), &["reject 4"]));
    check(&mut session(parameters()), script);
    // A new one takes its place.
    let mut script = asked();
    script.push((
        said(request(4, UNASKED, LAST), "X-b=1"),
        &["text last [X-b=NotUnderstood]"],
    ));
    check(&mut session(parameters()), script);
    // Nobody talks while a long answer is being told.
    let names: Vec<String> = (0..100).map(|i| format!("iqn.a:target-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut telling = discovery();
    let In::Pdu(ask) = said(request(3, UNASKED, LAST), "SendTargets=All") else {
        unreachable!();
    };
    telling.receive(ask);
    telling.actions();
    let names: Vec<IscsiName> = names.iter().map(|name| name.parse().unwrap()).collect();
    telling.listed(&names);
    telling.actions();
    check(
        &mut telling,
        vec![(
            said(request(3, 1, LAST), "X-a=1"),
            &["reject 4", "end ProtocolError"],
        )],
    );
}

#[test]
fn an_exchange_that_begins_while_targets_are_listed_goes_on() {
    check(
        &mut discovery(),
        vec![
            (
                said(request(3, UNASKED, LAST), "SendTargets=All"),
                &["list"],
            ),
            (
                said(request(4, UNASKED, OPEN), "X-a=1"),
                &["text [X-a=NotUnderstood]"],
            ),
            // Nobody waits for it any more.
            (In::Listed(&["iqn.a:t"]), &[]),
            (
                said(request(4, 1, LAST), "X-b=1"),
                &["text last [X-b=NotUnderstood]"],
            ),
        ],
    );
}
