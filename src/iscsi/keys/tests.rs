//! Offers and answers, key by key.

use proptest::prelude::*;

use super::table::KEYS;
use super::*;

/// What is heard of an answer.
fn heard(answer: Answer) -> String {
    match answer {
        Answer::Value(value) => value.into(),
        Answer::Nothing => "-".into(),
        Answer::Proof => "proof".into(),
        Answer::Breach(_) => "breach".into(),
    }
}

/// Offers of the operational stage, in order, and the answers.
fn check(script: &[(&str, &str, &str)]) -> Parameters {
    let mut negotiation = Negotiation::default();
    let pairs: Vec<_> = script
        .iter()
        .map(|(key, offer, _)| (*key, *offer))
        .collect();
    negotiation.look(&pairs);
    for (key, offer, expected) in script {
        let answer = negotiation.answer(Stage::Operational, key, offer);
        assert_eq!(heard(answer), *expected, "{key}={offer}");
    }
    negotiation.parameters()
}

/// The answer to one offer.
fn one(stage: Stage, key: &str, offer: &str) -> String {
    heard(Negotiation::default().answer(stage, key, offer))
}

#[test]
fn ipxe() {
    let agreed = check(&[
        ("HeaderDigest", "None", "None"),
        ("DataDigest", "None", "None"),
        ("MaxConnections", "1", "1"),
        ("InitialR2T", "Yes", "Yes"),
        ("ImmediateData", "No", "No"),
        ("MaxRecvDataSegmentLength", "8192", "-"),
        ("MaxBurstLength", "262144", "262144"),
        ("FirstBurstLength", "65536", "65536"),
        ("DefaultTime2Wait", "0", "0"),
        ("DefaultTime2Retain", "0", "0"),
        ("MaxOutstandingR2T", "1", "1"),
        ("DataPDUInOrder", "Yes", "Yes"),
        ("DataSequenceInOrder", "Yes", "Yes"),
        ("ErrorRecoveryLevel", "0", "0"),
    ]);
    assert!(agreed.initial_r2t && !agreed.immediate_data);
    assert_eq!(agreed.initiator_max_recv, 8192);
}

#[test]
fn open_iscsi() {
    let agreed = check(&[
        ("HeaderDigest", "None,CRC32C", "None"),
        ("DataDigest", "CRC32C,None", "CRC32C"),
        ("DefaultTime2Wait", "2", "2"),
        ("DefaultTime2Retain", "20", "0"),
        ("IFMarker", "No", "No"),
        ("OFMarker", "No", "No"),
        ("ErrorRecoveryLevel", "0", "0"),
        ("InitialR2T", "No", "No"),
        ("ImmediateData", "Yes", "Yes"),
        ("MaxBurstLength", "16776192", "1048576"),
        ("FirstBurstLength", "262144", "262144"),
        ("MaxOutstandingR2T", "1", "1"),
        ("MaxConnections", "1", "1"),
        ("DataPDUInOrder", "Yes", "Yes"),
        ("DataSequenceInOrder", "Yes", "Yes"),
        ("MaxRecvDataSegmentLength", "262144", "-"),
    ]);
    assert!(!agreed.header_digest && agreed.data_digest);
    assert!(!agreed.initial_r2t && agreed.immediate_data);
    assert_eq!(agreed.initiator_max_recv, 262_144);
}

#[test]
fn ovmf_gets_no_digest_for_its_misspelling_and_sends_nothing_unasked() {
    let agreed = check(&[
        ("HeaderDigest", "None,CRC32", "None"),
        ("InitialR2T", "No", "Yes"),
        ("DataDigest", "CRC32", "None"),
    ]);
    assert!(agreed.initial_r2t && !agreed.header_digest && !agreed.data_digest);
}

#[test]
fn each_key_is_answered_by_its_rule() {
    let long = "x".repeat(256);
    let digits = format!("{}4096", "0".repeat(300));
    for (key, offer, expected) in [
        ("HeaderDigest", "CRC32C,None", "CRC32C"),
        ("HeaderDigest", "None", "None"),
        ("HeaderDigest", "MD5,CRC32C", "CRC32C"),
        ("HeaderDigest", "Y-com.example.crc64,None", "None"),
        ("HeaderDigest", "MD5", "Reject"),
        ("HeaderDigest", "", "Reject"),
        ("HeaderDigest", "?", "Reject"),
        ("HeaderDigest", "crc32c", "Reject"),
        ("DataDigest", "CRC32C", "CRC32C"),
        ("DataDigest", "None,CRC32C", "None"),
        ("DataDigest", "CRC32", "None"),
        ("MaxConnections", "1", "1"),
        ("MaxConnections", "65535", "1"),
        ("MaxConnections", "0", "Reject"),
        ("MaxConnections", "65536", "Reject"),
        ("MaxConnections", "many", "Reject"),
        ("MaxConnections", "?", "Reject"),
        ("InitialR2T", "Yes", "Yes"),
        ("InitialR2T", "No", "No"),
        ("InitialR2T", "yes", "Reject"),
        ("InitialR2T", "", "Reject"),
        ("InitialR2T", "?", "Reject"),
        ("ImmediateData", "Yes", "Yes"),
        ("ImmediateData", "No", "No"),
        ("ImmediateData", "0", "Reject"),
        ("MaxRecvDataSegmentLength", "512", "-"),
        ("MaxRecvDataSegmentLength", "16777215", "-"),
        ("MaxRecvDataSegmentLength", "0x2000", "-"),
        ("MaxRecvDataSegmentLength", "511", "breach"),
        ("MaxRecvDataSegmentLength", "16777216", "breach"),
        ("MaxRecvDataSegmentLength", "0", "breach"),
        ("MaxRecvDataSegmentLength", "-1", "breach"),
        ("MaxRecvDataSegmentLength", "", "breach"),
        ("MaxRecvDataSegmentLength", "Reject", "-"),
        ("MaxBurstLength", "512", "512"),
        ("MaxBurstLength", "511", "Reject"),
        ("MaxBurstLength", "16776192", "1048576"),
        ("MaxBurstLength", "16777216", "Reject"),
        ("MaxBurstLength", "99999999999999999999", "Reject"),
        ("MaxBurstLength", "0X1000", "4096"),
        ("MaxBurstLength", "0x", "Reject"),
        ("MaxBurstLength", "+4096", "Reject"),
        ("MaxBurstLength", "0x+1000", "Reject"),
        ("MaxBurstLength", " 4096", "Reject"),
        ("MaxBurstLength", "4096~8192", "Reject"),
        ("MaxBurstLength", "4096,8192", "Reject"),
        ("MaxBurstLength", &digits, "breach"),
        ("FirstBurstLength", "65536", "65536"),
        ("FirstBurstLength", "16777215", "262144"),
        ("FirstBurstLength", "0x1000000", "Reject"),
        ("DefaultTime2Wait", "0", "0"),
        ("DefaultTime2Wait", "3600", "3600"),
        ("DefaultTime2Wait", "3601", "Reject"),
        ("DefaultTime2Retain", "20", "0"),
        ("DefaultTime2Retain", "3601", "Reject"),
        ("MaxOutstandingR2T", "1", "1"),
        ("MaxOutstandingR2T", "0x10", "8"),
        ("MaxOutstandingR2T", "0", "Reject"),
        ("MaxOutstandingR2T", "65536", "Reject"),
        ("DataPDUInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "Maybe", "Reject"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("ErrorRecoveryLevel", "3", "Reject"),
        (
            "TaskReporting",
            "FastAbort,ResponseFence,RFC3720",
            "RFC3720",
        ),
        ("TaskReporting", "FastAbort", "Reject"),
        ("iSCSIProtocolLevel", "2", "1"),
        ("iSCSIProtocolLevel", "0", "0"),
        ("iSCSIProtocolLevel", "32", "Reject"),
        ("IFMarker", "Yes", "No"),
        ("OFMarker", "No", "No"),
        ("IFMarkInt", "8192~4096", "Reject"),
        ("OFMarkInt", "1~65535", "Reject"),
        ("InitiatorAlias", "a machine", "-"),
        ("InitiatorAlias", &long, "breach"),
        // What is not in the table.
        ("X-com.example.speed", "9", "NotUnderstood"),
        ("X-com.example.long", &long, "NotUnderstood"),
        ("maxburstlength", "4096", "NotUnderstood"),
        ("KRB_AP_REQ", "0x00", "NotUnderstood"),
        // What stands in another place, or what only a target says.
        ("AuthMethod", "None", "breach"),
        ("CHAP_A", "5", "breach"),
        ("SendTargets", "All", "breach"),
        ("TargetAlias", "x", "breach"),
        ("TargetAddress", "192.0.2.1", "breach"),
        ("TargetPortalGroupTag", "1", "breach"),
        ("TargetPortalGroupTag", "NotUnderstood", "-"),
        // Answers are no offers.
        ("InitialR2T", "Irrelevant", "breach"),
        ("MaxBurstLength", "Reject", "breach"),
        ("X-com.example.speed", "NotUnderstood", "breach"),
    ] {
        assert_eq!(
            one(Stage::Operational, key, offer),
            expected,
            "{key}={offer}"
        );
    }
}

#[test]
fn the_security_stage_has_keys_of_its_own() {
    for (key, offer, expected) in [
        ("AuthMethod", "CHAP,None", "proof"),
        ("CHAP_A", "5", "proof"),
        ("InitiatorName", "iqn.a:i", "-"),
        ("SessionType", "Normal", "-"),
        ("InitiatorAlias", "a machine", "-"),
        ("X-com.example.speed", "9", "NotUnderstood"),
        ("HeaderDigest", "None", "breach"),
        ("MaxRecvDataSegmentLength", "8192", "breach"),
        ("IFMarker", "No", "breach"),
    ] {
        assert_eq!(one(Stage::Security, key, offer), expected, "{key}={offer}");
    }
}

#[test]
fn a_key_is_offered_once() {
    check(&[
        ("MaxOutstandingR2T", "0x10", "8"),
        ("MaxOutstandingR2T", "4", "breach"),
        ("MaxRecvDataSegmentLength", "8192", "-"),
        ("MaxRecvDataSegmentLength", "8192", "breach"),
        ("X-com.example.speed", "9", "NotUnderstood"),
        ("X-com.example.speed", "9", "breach"),
    ]);
}

#[test]
fn who_it_is_does_not_change() {
    let mut negotiation = Negotiation::default();
    let first = negotiation.answer(Stage::Security, "InitiatorName", "iqn.a:i");
    assert_eq!(first, Answer::Nothing);
    negotiation.answer(Stage::Security, "InitiatorAlias", "me");
    negotiation.introduced();
    for (key, value, expected) in [
        ("InitiatorName", "iqn.a:i", "-"),
        ("InitiatorName", "iqn.a:i", "-"),
        ("InitiatorName", "iqn.a:j", "breach"),
        ("InitiatorAlias", "me", "-"),
        ("InitiatorAlias", "you", "breach"),
        ("TargetName", "iqn.a:t", "breach"),
        ("SessionType", "Normal", "breach"),
    ] {
        let answer = negotiation.answer(Stage::Operational, key, value);
        assert_eq!(heard(answer), expected, "{key}={value}");
    }
}

#[test]
fn what_a_discovery_session_has_no_use_for_is_irrelevant() {
    for known in KEYS
        .iter()
        .filter(|known| known.place == Place::Operational)
    {
        let mut negotiation = Negotiation::default();
        negotiation.discovery();
        let answer = negotiation.answer(Stage::Operational, known.name, "1");
        let irrelevant = answer == Answer::Value("Irrelevant".into());
        // §13.2, §13.10, §13.11, §13.13, §13.14, §13.17 to §13.19, §13.23.
        let expected = [
            "MaxConnections",
            "InitialR2T",
            "ImmediateData",
            "MaxBurstLength",
            "FirstBurstLength",
            "MaxOutstandingR2T",
            "DataPDUInOrder",
            "DataSequenceInOrder",
            "TaskReporting",
            "iSCSIProtocolLevel",
        ];
        assert_eq!(irrelevant, expected.contains(&known.name), "{}", known.name);
    }
}

#[test]
fn the_first_burst_is_no_longer_than_a_burst() {
    let agreed = check(&[("MaxBurstLength", "4096", "4096")]);
    assert_eq!((agreed.first_burst, agreed.max_burst), (4096, 4096));
}

proptest! {
    /// Whatever is offered: what is agreed on lies within both offers, and the answer says it.
    #[test]
    fn what_is_agreed_on_lies_within_both_offers(
        burst in 0..0x200_0000_u32,
        first in 0..0x200_0000_u32,
        r2ts in 0..70_000_u32,
        r2t: bool,
        immediate: bool,
    ) {
        let mut negotiation = Negotiation::default();
        let yes = |on: bool| if on { "Yes" } else { "No" };
        let mut offer = |key: &str, value: &str| heard(negotiation.answer(Stage::Operational, key, value));
        let answers = [
            offer("MaxBurstLength", &burst.to_string()),
            offer("FirstBurstLength", &first.to_string()),
            offer("MaxOutstandingR2T", &r2ts.to_string()),
            offer("InitialR2T", yes(r2t)),
            offer("ImmediateData", yes(immediate)),
        ];
        let agreed = negotiation.parameters();
        let told = |answer: &str, default: u32| answer.parse().unwrap_or(default);
        prop_assert_eq!(agreed.max_burst, told(&answers[0], 262_144));
        prop_assert!(agreed.max_burst <= burst || answers[0] == "Reject");
        prop_assert_eq!(agreed.first_burst, told(&answers[1], 65_536).min(agreed.max_burst));
        prop_assert!(agreed.first_burst <= first || answers[1] == "Reject");
        prop_assert_eq!(u32::from(agreed.max_outstanding_r2t), told(&answers[2], 1));
        prop_assert!((1..=8).contains(&agreed.max_outstanding_r2t));
        prop_assert_eq!(agreed.initial_r2t, r2t);
        prop_assert_eq!(agreed.immediate_data, immediate);
        prop_assert_eq!((512..=0xff_ffff).contains(&burst), answers[0] != "Reject");
    }

    #[test]
    fn no_offer_does_harm(key in 0..KEYS.len(), value in "\\PC{0,300}") {
        for stage in [Stage::Security, Stage::Operational] {
            let mut negotiation = Negotiation::default();
            negotiation.look(&[(KEYS[key].name, &value)]);
            negotiation.answer(stage, KEYS[key].name, &value);
            let agreed = negotiation.parameters();
            prop_assert!((512..=0xff_ffff).contains(&agreed.initiator_max_recv));
            prop_assert!(agreed.first_burst <= agreed.max_burst);
        }
    }
}

#[test]
fn one_login_has_so_many_keys_and_no_more() {
    let mut negotiation = Negotiation::default();
    let mut offer = |i: usize| {
        let key = format!("X-org.example.{i}");
        heard(negotiation.answer(Stage::Operational, &key, "1"))
    };
    for i in 0..MAX_PAIRS {
        assert_eq!(offer(i), "NotUnderstood");
    }
    assert_eq!(offer(MAX_PAIRS), "breach");
}
