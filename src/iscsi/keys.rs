//! What is negotiated at login: one table of keys (RFC 7143 §13).

use super::sessions::Parameters;

/// Most data that we take in one PDU.
pub(super) const MAX_RECV: u32 = 1024 * 1024;

/// The answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// This value.
    Value(String),
    /// The key only declares something: it wants no answer.
    Nothing,
    /// The initiator has offered this key before.
    Again,
}

/// A negotiation in progress.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    parameters: Parameters,
    seen: Vec<&'static str>,
    /// The firmware counts unsolicited data wrongly: it shall send none.
    miscounts: bool,
}

impl Default for Parameters {
    /// What holds where nothing is said (RFC 7143 §13).
    fn default() -> Self {
        Parameters {
            header_digest: false,
            data_digest: false,
            initial_r2t: true,
            immediate_data: true,
            initiator_max_recv: 8192,
            target_max_recv: MAX_RECV,
            max_burst: 262_144,
            first_burst: 65_536,
            max_outstanding_r2t: 1,
        }
    }
}

impl Negotiation {
    /// What was agreed on so far.
    pub(super) fn parameters(&self) -> Parameters {
        let mut agreed = self.parameters;
        // §13.14: FirstBurstLength must not exceed MaxBurstLength.
        agreed.first_burst = agreed.first_burst.min(agreed.max_burst);
        agreed
    }

    /// Whether the initiator has offered this key.
    pub(super) fn has_seen(&self, key: &str) -> bool {
        self.seen.contains(&key)
    }

    /// Answers an offer. Keys that are not in the table are not understood.
    pub(super) fn answer(&mut self, key: &str, value: &str) -> Answer {
        let Some(known) = KEYS.iter().find(|known| known.name == key) else {
            return Answer::Value("NotUnderstood".into());
        };
        if self.has_seen(known.name) {
            return Answer::Again;
        }
        self.seen.push(known.name);
        match known.rule {
            Rule::Declared => Answer::Nothing,
            Rule::Fixed(answer) => Answer::Value(answer.into()),
            Rule::Digest(set) => Answer::Value(self.digest(value, set).into()),
            Rule::One(of, mine) => {
                let answer = if list(value).any(|v| v == of) {
                    of
                } else {
                    mine
                };
                Answer::Value(answer.into())
            }
            Rule::InitialR2t => {
                let mine = self.miscounts;
                self.boolean(value, mine, Boolean::Or, |p, on| p.initial_r2t = on)
            }
            Rule::Bool(mine, result, set) => self.boolean(value, mine, result, set),
            Rule::Number(number) => self.number(value, &number),
        }
    }

    /// The first of the initiator's digests that we have.
    fn digest(&mut self, value: &str, set: fn(&mut Parameters, bool)) -> &'static str {
        // OVMF spells its digest so. It also counts unsolicited data without the immediate part, and
        // would exceed FirstBurstLength; with InitialR2T=Yes it cannot.
        if list(value).any(|v| v == "CRC32") {
            self.miscounts = true;
        }
        match list(value).find(|v| matches!(*v, "CRC32C" | "None")) {
            Some("CRC32C") => {
                set(&mut self.parameters, true);
                "CRC32C"
            }
            Some(_) => "None",
            None if list(value).any(|v| v == "CRC32") => "None",
            None => "Reject",
        }
    }

    fn boolean(&mut self, value: &str, mine: bool, result: Boolean, set: Set<bool>) -> Answer {
        let theirs = match value {
            "Yes" => true,
            "No" => false,
            _ => return Answer::Value("Reject".into()),
        };
        let agreed = match result {
            Boolean::Or => theirs || mine,
            Boolean::And => theirs && mine,
        };
        set(&mut self.parameters, agreed);
        Answer::Value(if agreed { "Yes" } else { "No" }.into())
    }

    fn number(&mut self, value: &str, rule: &Number) -> Answer {
        let Some(theirs) = parse(value).filter(|n| (rule.min..=rule.max).contains(n)) else {
            return Answer::Value("Reject".into());
        };
        let agreed = match rule.result {
            Choice::Min => theirs.min(rule.mine),
            Choice::Max => theirs.max(rule.mine),
            Choice::Declared => theirs,
        };
        (rule.set)(&mut self.parameters, agreed);
        match rule.result {
            Choice::Declared => Answer::Nothing,
            _ => Answer::Value(agreed.to_string()),
        }
    }
}

type Set<T> = fn(&mut Parameters, T);

struct Key {
    name: &'static str,
    rule: Rule,
}

/// How the answer to an offer is found.
#[derive(Clone, Copy)]
enum Rule {
    /// Not negotiated here: the login looks at it, or nobody needs it.
    Declared,
    /// Always the same answer.
    Fixed(&'static str),
    /// A list of digests.
    Digest(Set<bool>),
    /// This value if it is offered, else that.
    One(&'static str, &'static str),
    /// Ours, and how it is combined with theirs.
    Bool(bool, Boolean, Set<bool>),
    /// Theirs, unless they cannot count.
    InitialR2t,
    Number(Number),
}

#[derive(Clone, Copy)]
enum Boolean {
    Or,
    And,
}

#[derive(Clone, Copy)]
struct Number {
    min: u32,
    max: u32,
    mine: u32,
    result: Choice,
    set: Set<u32>,
}

#[derive(Clone, Copy)]
enum Choice {
    Min,
    Max,
    /// Theirs counts for what we send; there is no answer.
    Declared,
}

const fn number(
    name: &'static str,
    (min, max): (u32, u32),
    (result, mine): (Choice, u32),
    set: Set<u32>,
) -> Key {
    Key {
        name,
        rule: Rule::Number(Number {
            min,
            max,
            mine,
            result,
            set,
        }),
    }
}

const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule }
}

/// Largest data segment or burst (24 bits).
const LENGTH: (u32, u32) = (512, 0xff_ffff);

use Boolean::{And, Or};
use Choice::{Declared, Max, Min};

#[rustfmt::skip]
static KEYS: &[Key] = &[
    // Who it is, and to whom (§13.3 to §13.9, §13.21): the login looks at these.
    key("InitiatorName", Rule::Declared),
    key("InitiatorAlias", Rule::Declared),
    key("TargetName", Rule::Declared),
    key("SessionType", Rule::Declared),
    // How it is proved (§12).
    key("AuthMethod", Rule::One("None", "Reject")),
    // How to talk (§13.1 to §13.23).
    key("HeaderDigest", Rule::Digest(|p, on| p.header_digest = on)),
    key("DataDigest", Rule::Digest(|p, on| p.data_digest = on)),
    key("InitialR2T", Rule::InitialR2t),
    key("ImmediateData", Rule::Bool(true, And, |p, on| p.immediate_data = on)),
    key("DataPDUInOrder", Rule::Bool(true, Or, |_, _| ())),
    key("DataSequenceInOrder", Rule::Bool(true, Or, |_, _| ())),
    number("MaxRecvDataSegmentLength", LENGTH, (Declared, 0), |p, n| p.initiator_max_recv = n),
    number("MaxBurstLength", LENGTH, (Min, 1024 * 1024), |p, n| p.max_burst = n),
    number("FirstBurstLength", LENGTH, (Min, 256 * 1024), |p, n| p.first_burst = n),
    number("MaxOutstandingR2T", (1, 65535), (Min, 8), |p, n| p.max_outstanding_r2t = n as u16),
    number("MaxConnections", (1, 65535), (Min, 1), |_, _| ()),
    number("ErrorRecoveryLevel", (0, 2), (Min, 0), |_, _| ()),
    number("DefaultTime2Wait", (0, 3600), (Max, 0), |_, _| ()),
    number("DefaultTime2Retain", (0, 3600), (Min, 0), |_, _| ()),
    key("TaskReporting", Rule::One("RFC3720", "Reject")),
    number("iSCSIProtocolLevel", (0, 31), (Min, 1), |_, _| ()), // RFC 7144 §7.1.1
    // Obsolete (§13.25): markers are answered so, never with NotUnderstood.
    key("IFMarker", Rule::Fixed("No")),
    key("OFMarker", Rule::Fixed("No")),
    key("IFMarkInt", Rule::Fixed("Reject")),
    key("OFMarkInt", Rule::Fixed("Reject")),
];

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',')
}

/// A number, decimal or hexadecimal (§6.1).
fn parse(value: &str) -> Option<u32> {
    match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers, in order, and the answers.
    fn check(script: &[(&str, &str, &str)]) -> Parameters {
        let mut negotiation = Negotiation::default();
        for (key, offer, expected) in script {
            let answer = match negotiation.answer(key, offer) {
                Answer::Value(value) => value,
                Answer::Nothing => "-".into(),
                Answer::Again => "again".into(),
            };
            assert_eq!(answer, *expected, "{key}={offer}");
        }
        negotiation.parameters()
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
    fn what_cannot_be_is_rejected_and_what_is_unknown_not_understood() {
        check(&[
            ("MaxBurstLength", "511", "Reject"),
            ("FirstBurstLength", "0x1000000", "Reject"),
            ("MaxConnections", "many", "Reject"),
            ("InitialR2T", "yes", "Reject"),
            ("HeaderDigest", "MD5", "Reject"),
            ("IFMarkInt", "8192~4096", "Reject"),
            ("X-com.example.speed", "9", "NotUnderstood"),
            ("MaxOutstandingR2T", "0x10", "8"),
            ("MaxOutstandingR2T", "4", "again"),
        ]);
    }

    #[test]
    fn the_first_burst_is_no_longer_than_a_burst() {
        let agreed = check(&[("MaxBurstLength", "4096", "4096")]);
        assert_eq!((agreed.first_burst, agreed.max_burst), (4096, 4096));
    }
}
