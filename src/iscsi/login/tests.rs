//! Scripts of logins: what the initiator sends, and what it hears.

use proptest::prelude::*;

use super::*;
use crate::block::Segment;
use crate::iscsi::Credential;
use crate::iscsi::chap::{self, Algorithm};

mod proofs;

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
    crate::iscsi::wire::set_lengths(&mut bhs, text.len());
    Incoming {
        bhs,
        data: text.clone().into(),
    }
}

/// Text of a PDU.
fn text(outgoing: &Outgoing) -> String {
    match outgoing.data.first() {
        Some(Segment::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// What a response says, as text.
fn said(outgoing: &Outgoing) -> String {
    let response = LoginResponse::parse(&outgoing.bhs).unwrap();
    let text = text(outgoing).replace('\0', " ");
    let to = match response.next {
        Some(next) => format!("{next:?}"),
        None if response.more => "more".into(),
        None => "stay".into(),
    };
    format!("{:04x} {to}: {}", response.status, text.trim_end())
}

/// What is heard of a step.
fn heard(step: &Step) -> String {
    match step {
        Step::Reply(outgoing) => said(outgoing),
        Step::Refuse { status, response } => {
            let said = said(response);
            assert!(said.starts_with(&format!("{status:04x}")));
            format!("refused {said}")
        }
        Step::Authenticate(_) => "authenticate".into(),
        Step::Open(wish) => format!(
            "open {} for {}{}",
            wish.target.as_ref().map_or("discovery", |t| t.as_str()),
            wish.initiator,
            wish.proved
                .as_ref()
                .map_or(String::new(), |proved| format!(" as {}", proved.name()))
        ),
        Step::Close => "closed".into(),
    }
}

/// Takes a request; where it asks what is to be proved, `demand` is the answer.
fn step(login: &mut Login, demand: &Authentication, request: &(LoginRequest, Vec<u8>)) -> Step {
    match login.receive(&pdu(request)) {
        Step::Authenticate(_) => login.authenticated(demand.clone()),
        step => step,
    }
}

fn new() -> Login {
    Login::new(32, Challenges::default())
}

/// Plays a script and compares what is heard after each step.
fn check(script: &[((LoginRequest, Vec<u8>), &str)]) -> Login {
    let mut login = new();
    for (request, expected) in script {
        let step = step(&mut login, &Authentication::None, request);
        assert_eq!(heard(&step), *expected);
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
    refused(Security, to, &format!("{NAMES} novalue"), "0200");
    refused(Security, to, &format!("{NAMES} CHAP_A=5"), "0200");
    refused(Security, to, &format!("{NAMES} HeaderDigest=None"), "0200");
    refused(Security, to, &format!("{NAMES} TargetAlias=x"), "0200");
    refused(Security, to, &format!("{NAMES} SendTargets=All"), "0200");
    refused(
        Operational,
        to_full(),
        &format!("{NAMES} AuthMethod=None"),
        "0200",
    );
    refused(
        Operational,
        to_full(),
        &format!("{NAMES} MaxRecvDataSegmentLength=1"),
        "0200",
    );
}

fn to_full() -> Option<Stage> {
    Some(FullFeature)
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
    let mut login = new();
    let refused = (0..100)
        .map(|_| login.receive(&pdu(&endless)))
        .position(|step| matches!(step, Step::Refuse { .. }));
    assert_eq!(
        refused,
        Some(MAX_STEPS as usize),
        "continuations of nothing"
    );

    let mut long = request(Security, None, &"x".repeat(5000));
    long.0.more = true;
    let mut login = new();
    assert!(matches!(login.receive(&pdu(&long)), Step::Reply(_)));
    assert_eq!(heard(&login.receive(&pdu(&long))), "refused 0200 stay: ");

    // Thousands of keys get no answer; 128 do.
    let flood = |n: usize| {
        let many: String = (3..n).map(|i| format!(" k{i}=")).collect();
        let flood = request(Security, None, &format!("{NAMES}{many}"));
        heard(&new().receive(&pdu(&flood)))
    };
    assert_eq!(flood(128), "authenticate");
    assert_eq!(flood(129), "refused 0200 stay: ");
    assert_eq!(flood(1000), "refused 0200 stay: ");

    // The steps are counted over the whole login.
    let mut login = new();
    step(
        &mut login,
        &Authentication::None,
        &request(Security, None, NAMES),
    );
    let idle = request(Security, None, "");
    let refused = (0..100).position(|_| matches!(login.receive(&pdu(&idle)), Step::Refuse { .. }));
    assert_eq!(refused, Some(MAX_STEPS as usize - 1));
}

#[test]
fn other_pdus_end_a_login() {
    let nop = crate::iscsi::wire::NopOut {
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
    let mut login = new();
    assert!(matches!(login.receive(&nop), Step::Close));
    login.receive(&pdu(&request(Security, None, NAMES)));
    assert_eq!(heard(&login.receive(&nop)), "refused 020b stay: ");
}

/// All that the two stages and the T and C bits can say, in the first request and in the second.
#[test]
fn each_transition_is_legal_or_refused() {
    let flags = |t: u8, c: u8, csg: u8, nsg: u8| t << 7 | c << 6 | csg << 2 | nsg;
    let with = |bits: u8, text: &str| {
        let mut pdu = pdu(&request(Security, None, text));
        pdu.bhs[1] = bits;
        pdu
    };
    let play = |login: &mut Login, pdu: &Incoming| match login.receive(pdu) {
        Step::Authenticate(_) => login.authenticated(Authentication::None),
        step => step,
    };
    for bits in (0..64).map(|i| flags(i >> 5, i >> 4 & 1, i >> 2 & 3, i & 3)) {
        let (t, c, csg, nsg) = (bits >> 7 == 1, bits >> 6 & 1 == 1, bits >> 2 & 3, bits & 3);
        let expected = match (t, c, csg, nsg) {
            // There is no stage 2, and the full feature phase has no logins.
            (_, _, 2 | 3, _) => "refused 0200 stay: ",
            (true, true, ..) => "refused 0200 stay: ",
            (false, true, ..) => "0000 stay: ",
            // Without T, NSG is reserved.
            (false, false, 0, _) => "0000 stay: TargetPortalGroupTag=1",
            (false, false, ..) => {
                "0000 stay: TargetPortalGroupTag=1 MaxRecvDataSegmentLength=1048576"
            }
            (true, false, 0, 1) => "0000 Operational: TargetPortalGroupTag=1",
            (true, false, 0 | 1, 3) => "open iqn.a:t for iqn.a:i",
            // To itself, to nowhere, or back.
            (true, ..) => "refused 0200 stay: ",
        };
        let first = with(bits, NAMES);
        assert_eq!(
            heard(&play(&mut new(), &first)),
            expected,
            "first {bits:#010b}"
        );

        // In the security stage of a login that has begun there, and in the operational.
        for (at, next) in [(0, None), (1, Some(Operational))] {
            let mut login = new();
            play(&mut login, &pdu(&request(Security, next, NAMES)));
            let step = play(&mut login, &with(bits, ""));
            let expected = match (t, c, csg, nsg) {
                _ if csg != at => "refused 0200 stay: ",
                (true, true, ..) => "refused 0200 stay: ",
                (false, true, ..) => "0000 stay: ",
                (false, false, 0, _) => "0000 stay: ",
                (false, false, ..) => "0000 stay: MaxRecvDataSegmentLength=1048576",
                (true, false, 0, 1) => "0000 Operational: ",
                (true, false, _, 3) => "open iqn.a:t for iqn.a:i",
                (true, ..) => "refused 0200 stay: ",
            };
            assert_eq!(heard(&step), expected, "second {bits:#010b} in stage {at}");
        }
    }
}

#[test]
fn a_long_answer_is_told_in_parts() {
    let keys: String = (0..40).map(|i| format!(" X-com.example.{i}=1")).collect();
    let first = request(
        Operational,
        Some(FullFeature),
        &format!("{NAMES} MaxRecvDataSegmentLength=512{keys}"),
    );
    let mut login = new();
    let mut whole = String::new();
    let Step::Reply(part) = step(&mut login, &Authentication::None, &first) else {
        panic!("the answer does not fit into 512 bytes");
    };
    assert_eq!(text(&part).len(), 512);
    assert!(said(&part).starts_with("0000 more: "), "{}", said(&part));
    whole += &text(&part);
    // The initiator may ask for the rest with the T bit or without.
    loop {
        match login.receive(&pdu(&request(Operational, Some(FullFeature), ""))) {
            Step::Reply(part) => whole += &text(&part),
            Step::Open(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let (last, agreed) = login.accept(1);
    whole += &text(&last);
    assert_eq!(whole.matches("=NotUnderstood\0").count(), 40);
    assert!(whole.ends_with("MaxRecvDataSegmentLength=1048576\0"));
    assert_eq!(agreed.parameters.initiator_max_recv, 512);

    // Whoever talks meanwhile has not understood.
    let mut login = new();
    step(&mut login, &Authentication::None, &first);
    let talk = request(Operational, None, "X-com.example.more=1");
    assert_eq!(heard(&login.receive(&pdu(&talk))), "refused 0200 stay: ");
}

#[test]
fn discovery_finds_most_keys_irrelevant() {
    let login = check(&[(
        request(
            Operational,
            Some(FullFeature),
            "InitiatorName=iqn.a:i SessionType=Discovery MaxConnections=1 DataDigest=CRC32C,None",
        ),
        "open discovery for iqn.a:i",
    )]);
    assert_eq!(
        said(&login.accept(1).0),
        "0000 FullFeature: MaxConnections=Irrelevant DataDigest=CRC32C \
         MaxRecvDataSegmentLength=1048576"
    );
}

#[test]
fn who_it_is_is_told_in_the_first_request_only() {
    for late in [
        "InitiatorName=iqn.a:j",
        "TargetName=iqn.a:u",
        "SessionType=Discovery",
    ] {
        check(&[
            (
                request(Security, None, "InitiatorName=iqn.a:i TargetName=iqn.a:t"),
                "0000 stay: TargetPortalGroupTag=1",
            ),
            (request(Security, None, late), "refused 0200 stay: "),
        ]);
    }
}

#[test]
fn a_target_that_has_moved_is_told_with_its_address() {
    for (address, told) in [
        ("192.0.2.7:3260", "192.0.2.7:3260"),
        ("[2001:db8::7]:3261", "[2001:db8::7]:3261"),
    ] {
        let mut login = check(&[(
            request(Operational, Some(FullFeature), NAMES),
            "open iqn.a:t for iqn.a:i",
        )]);
        let step = login.redirect(0x0101, address.parse().unwrap());
        assert_eq!(
            heard(&step),
            format!("refused 0101 stay: TargetAddress={told}")
        );
    }
}

prop_compose! {
    fn any_request()(
        flags: u8,
        more in prop::bool::weighted(0.2),
        first_text in prop::bool::weighted(0.5),
        text in prop_oneof![
            Just(String::new()),
            "\\PC{0,60}",
            "(AuthMethod=(CHAP|None)\0)?(CHAP_[ANRIC]=[0-9x]{0,40}\0){0,3}",
            "(HeaderDigest|MaxBurstLength|MaxRecvDataSegmentLength|InitialR2T)=[0-9A-Za-z,]{0,12}\0",
        ],
        other in prop::bool::weighted(0.05),
    ) -> Incoming {
        let text = if first_text { format!("{}\0{text}", NAMES.replace(' ', "\0")) } else { text };
        let mut pdu = pdu(&(request(Security, None, "").0, text.into_bytes()));
        pdu.bhs[1] = flags & 0x8f | if more { 0x40 } else { 0 };
        if other {
            pdu.bhs[0] = flags;
        }
        pdu
    }
}

proptest! {
    /// Whatever is sent, a login ends within its bounds, answers each PDU once, and lets nobody in who
    /// has proved nothing.
    #[test]
    fn any_login_ends(all in prop::collection::vec(any_request(), 0..80), secret: bool) {
        let demand = match secret {
            true => proofs::demand(),
            false => Authentication::None,
        };
        let mut login = new();
        for (at, pdu) in all.iter().enumerate() {
            let mut step = login.receive(pdu);
            if let Step::Authenticate(_) = step {
                step = login.authenticated(demand.clone());
            }
            prop_assert!(at <= MAX_STEPS as usize);
            match step {
                Step::Reply(response) => {
                    prop_assert!(response.data_len() <= MAX_PART as u64);
                    prop_assert!(LoginResponse::parse(&response.bhs).is_ok());
                }
                Step::Open(_) => {
                    prop_assert!(!secret, "nobody here knows the secret");
                    let agreed = login.accept(1).1.parameters;
                    prop_assert!(agreed.first_burst <= agreed.max_burst);
                    return Ok(());
                }
                Step::Refuse { .. } | Step::Close => return Ok(()),
                Step::Authenticate(_) => prop_assert!(false, "asked twice"),
            }
        }
    }
}
