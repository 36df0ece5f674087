//! Scripts of logins: what the initiator sends, and what it hears.

use super::*;
use crate::block::Segment;

/// A request of a script.
fn request(stage: Stage, next: Option<Stage>, text: &str) -> (LoginRequest, Vec<u8>) {
    let request = LoginRequest {
        next,
        more: false,
        stage,
        version_min: 0,
        isid: [0x80, 1, 2, 3, 4, 5],
        tsih: 0,
        itt: Tag(77),
        cid: 3,
        cmd_sn: Serial(500),
        exp_stat_sn: Serial(900),
    };
    (request, text.replace(' ', "\0").into_bytes())
}

fn pdu((request, text): &(LoginRequest, Vec<u8>)) -> Incoming {
    let mut bhs = request.emit();
    wire::set_lengths(&mut bhs, text.len());
    Incoming {
        bhs,
        data: text.clone().into(),
    }
}

/// What a response says, as text.
fn said(outgoing: &Outgoing) -> String {
    let response = LoginResponse::parse(&outgoing.bhs).unwrap();
    let text = match outgoing.data.first() {
        Some(Segment::Bytes(bytes)) => String::from_utf8_lossy(bytes).replace('\0', " "),
        _ => String::new(),
    };
    let to = response.next.map_or("stay".into(), |s| format!("{s:?}"));
    format!("{:04x} {to}: {}", response.status, text.trim_end())
}

/// Plays a script and compares what is heard after each step.
fn check(script: &[((LoginRequest, Vec<u8>), &str)]) -> Login {
    let mut login = Login::new(32);
    for (step, expected) in script {
        let heard = match login.receive(&pdu(step)) {
            Step::Reply(outgoing) => said(&outgoing),
            Step::Refuse(outgoing) => format!("refused {}", said(&outgoing)),
            Step::Open(wish) => format!(
                "open {} for {}",
                wish.target.map_or("discovery".into(), |t| t.to_string()),
                wish.initiator
            ),
            Step::Close => "closed".into(),
        };
        assert_eq!(heard, *expected);
    }
    login
}

use Stage::{FullFeature, Operational, Security};

const NAMES: &str = "InitiatorName=iqn.a:i TargetName=iqn.a:t SessionType=Normal";

#[test]
fn ipxe_goes_through_both_stages() {
    let login = check(&[
        (
            request(
                Security,
                Some(Operational),
                &format!("{NAMES} AuthMethod=None"),
            ),
            "0000 Operational: AuthMethod=None TargetPortalGroupTag=1",
        ),
        (
            request(
                Operational,
                Some(FullFeature),
                "HeaderDigest=None InitialR2T=Yes MaxRecvDataSegmentLength=8192",
            ),
            "open iqn.a:t for iqn.a:i",
        ),
    ]);
    let (response, agreed) = login.accept(9);
    assert_eq!(
        said(&response),
        "0000 FullFeature: HeaderDigest=None InitialR2T=Yes MaxRecvDataSegmentLength=1048576"
    );
    let response = LoginResponse::parse(&response.bhs).unwrap();
    assert_eq!(response.tsih, 9);
    assert_eq!(
        response.numbers,
        Numbers {
            stat_sn: Serial(901),
            exp_cmd_sn: Serial(500),
            max_cmd_sn: Serial(531)
        }
    );
    assert_eq!(agreed.stat_sn, Serial(902));
    assert_eq!(agreed.exp_cmd_sn, Serial(500));
    assert_eq!(agreed.cid, 3);
}

#[test]
fn the_security_stage_may_be_skipped() {
    let login = check(&[(
        request(
            Operational,
            Some(FullFeature),
            &format!("{NAMES} ImmediateData=Yes"),
        ),
        "open iqn.a:t for iqn.a:i",
    )]);
    assert_eq!(
        said(&login.accept(1).0),
        "0000 FullFeature: ImmediateData=Yes TargetPortalGroupTag=1 MaxRecvDataSegmentLength=1048576"
    );
}

#[test]
fn discovery_needs_no_target() {
    check(&[(
        request(
            Operational,
            Some(FullFeature),
            "InitiatorName=iqn.a:i SessionType=Discovery",
        ),
        "open discovery for iqn.a:i",
    )]);
}

#[test]
fn pairs_may_be_cut_anywhere() {
    let mut part = request(Operational, None, "InitiatorName=iqn.a:i Target");
    part.0.more = true;
    check(&[
        (part, "0000 stay: "),
        (
            request(Operational, Some(FullFeature), "Name=iqn.a:t"),
            "open iqn.a:t for iqn.a:i",
        ),
    ]);
}

#[test]
fn what_is_missing_or_wrong_is_refused() {
    let refused = |stage, next, text: &str, expected: &str| {
        check(&[(
            request(stage, next, text),
            &format!("refused {expected} stay: "),
        )]);
    };
    let to = Some(Operational);
    refused(Security, to, "TargetName=iqn.a:t", "0207");
    refused(Security, to, "InitiatorName=iqn.a:i", "0207");
    refused(Security, to, "InitiatorName=hello", "0200");
    refused(
        Security,
        to,
        "InitiatorName=iqn.a:i TargetName=nothing",
        "0203",
    );
    refused(
        Security,
        to,
        "InitiatorName=iqn.a:i SessionType=Odd",
        "0209",
    );
    refused(Security, to, &format!("{NAMES} AuthMethod=CHAP"), "0201");
    refused(Security, to, &format!("{NAMES} {NAMES}"), "0200");
    refused(Security, to, "novalue", "0200");
}

#[test]
fn a_version_that_we_do_not_speak_is_refused() {
    let mut future = request(Security, None, NAMES);
    future.0.version_min = 1;
    check(&[(future, "refused 0205 stay: ")]);
}

#[test]
fn a_login_does_not_change_its_mind() {
    for change in [
        |r: &mut LoginRequest| r.itt = Tag(78),
        |r: &mut LoginRequest| r.cid = 4,
        |r: &mut LoginRequest| r.isid = [0; 6],
        |r: &mut LoginRequest| r.tsih = 1,
        |r: &mut LoginRequest| r.stage = Security,
    ] {
        let mut second = request(Operational, None, "");
        change(&mut second.0);
        check(&[
            (
                request(Security, Some(Operational), NAMES),
                "0000 Operational: TargetPortalGroupTag=1",
            ),
            (second, "refused 0200 stay: "),
        ]);
    }
}

#[test]
fn text_without_end_is_refused() {
    let mut endless = request(Security, None, "");
    endless.0.more = true;
    let mut login = Login::new(32);
    let refused = (0..100)
        .map(|_| login.receive(&pdu(&endless)))
        .any(|step| matches!(step, Step::Refuse(_)));
    assert!(refused, "continuations of nothing");

    let mut long = request(Security, None, &"x".repeat(5000));
    long.0.more = true;
    let mut login = Login::new(32);
    assert!(matches!(login.receive(&pdu(&long)), Step::Reply(_)));
    assert!(matches!(login.receive(&pdu(&long)), Step::Refuse(_)));

    // A short key makes a long answer; thousands of them get none.
    let many: String = (0..1500).map(|i| format!("k{i}= ")).collect();
    let flood = request(Security, None, &format!("{NAMES} {}", &many[..8000]));
    assert!(matches!(
        Login::new(32).receive(&pdu(&flood)),
        Step::Refuse(_)
    ));
}

#[test]
fn other_pdus_end_a_login() {
    let nop = wire::NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag(1),
        ttt: Tag::NONE,
        cmd_sn: Serial(1),
        exp_stat_sn: Serial(1),
    };
    let nop = Incoming {
        bhs: nop.emit(),
        data: Default::default(),
    };
    let mut login = Login::new(32);
    assert!(matches!(login.receive(&nop), Step::Close));
    login.receive(&pdu(&request(Security, None, NAMES)));
    let Step::Refuse(response) = login.receive(&nop) else {
        panic!("a ping does not belong to a login");
    };
    assert_eq!(said(&response), "020b stay: ");
}
