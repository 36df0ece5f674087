//! What is negotiated: offers in, answers out (RFC 7143 §6.2, §13).

use std::borrow::Cow;

use self::table::{Boolean, Choice, Number, Rule, Scope, Set};
pub(super) use self::table::{MAX_RECV, Place};
use super::sessions::Parameters;
use super::wire::{self, Stage};

mod table;

/// Longest simple value (§6.1); lists, names and binary values have bounds of their own.
const MAX_SIMPLE: usize = 255;
/// Most pairs in one request, and different keys in one login. The standard has some forty.
const MAX_PAIRS: usize = 128;

/// The answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// This value.
    Value(Cow<'static, str>),
    /// The key only declares something: it wants no answer.
    Nothing,
    /// The key belongs to the proof of who it is.
    Proof,
    /// The initiator must not say this, not here, or not again. The login fails (§6.3).
    Breach(&'static str),
}

/// A negotiation in progress.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    parameters: Parameters,
    discovery: bool,
    /// The first request has been answered.
    introduced: bool,
    /// What it told of itself.
    identity: Vec<(&'static str, String)>,
    seen: Vec<String>,
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

/// Takes the text of a request apart.
pub(super) fn offers(text: &[u8]) -> Result<Vec<(&str, &str)>, wire::Error> {
    let pairs = wire::pairs(text)?;
    if pairs.len() > MAX_PAIRS {
        return Err(wire::Error::Illegal("number of pairs"));
    }
    Ok(pairs)
}

/// Where an initiator may send a key, if the standard has it.
pub(super) fn place(key: &str) -> Option<Place> {
    table::find(key).map(|known| known.place)
}

/// A number, decimal or hexadecimal (§6.1).
pub(super) fn parse(value: &str) -> Option<u32> {
    let (digits, radix) = match value.split_at_checked(2) {
        Some(("0x" | "0X", hex)) => (hex, 16),
        _ => (value, 10),
    };
    // Digits and nothing else: the standard library takes a sign.
    let number = digits.chars().all(|c| c.is_digit(radix));
    number
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

/// A MaxRecvDataSegmentLength that can be (§13.12).
pub(super) fn max_recv(value: &str) -> Option<u32> {
    parse(value).filter(|n| (512..=0xff_ffff).contains(n))
}

impl Negotiation {
    /// What was agreed on so far.
    pub(super) fn parameters(&self) -> Parameters {
        let mut agreed = self.parameters;
        // §13.14: FirstBurstLength must not exceed MaxBurstLength.
        agreed.first_burst = agreed.first_burst.min(agreed.max_burst);
        agreed
    }

    /// The session will only ask for targets: most keys mean nothing in it.
    pub(super) fn discovery(&mut self) {
        self.discovery = true;
    }

    /// Looks at all pairs of a request, before they are answered one by one.
    pub(super) fn look(&mut self, pairs: &[(&str, &str)]) {
        // OVMF spells its digest so. It also counts unsolicited data without the immediate part, and
        // would exceed FirstBurstLength; with InitialR2T=Yes it cannot.
        self.miscounts |= pairs
            .iter()
            .any(|(key, value)| key.ends_with("Digest") && list(value).any(|v| v == "CRC32"));
    }

    /// The first request has been answered: who it is and what it wants are told once.
    pub(super) fn introduced(&mut self) {
        self.introduced = true;
    }

    /// Answers an offer. Keys that are not in the table are not understood, private ones (X-) among
    /// them.
    pub(super) fn answer(&mut self, stage: Stage, key: &str, value: &str) -> Answer {
        let known = table::find(key);
        // §6.2: these are answers, and offering one is an error of the protocol.
        if matches!(value, "Reject" | "Irrelevant" | "NotUnderstood") {
            return match known.map(|known| known.place) {
                // An opinion about what we have declared changes nothing.
                Some(Place::Target | Place::Later) => Answer::Nothing,
                _ => Answer::Breach("an answer is offered"),
            };
        }
        // libiscsi says in each stage who it is. That is as good as nothing while it stays the same.
        if self.introduced && self.identity.iter().any(|(k, v)| *k == key && v == value) {
            return Answer::Nothing;
        }
        if self.seen.iter().any(|seen| seen == key) {
            return Answer::Breach("a key is offered again");
        }
        if self.seen.len() >= MAX_PAIRS {
            return Answer::Breach("more keys than there are");
        }
        self.seen.push(key.to_owned());
        let Some(known) = known else {
            return Answer::Value("NotUnderstood".into());
        };
        let allowed = match known.place {
            Place::First => !self.introduced,
            Place::Security => stage == Stage::Security,
            Place::Operational | Place::Later => stage == Stage::Operational,
            Place::Any => true,
            Place::FullFeature | Place::Target => false,
        };
        if !allowed {
            return Answer::Breach("a key in a place that is not its own");
        }
        if self.discovery && known.scope == Scope::Normal {
            return Answer::Value("Irrelevant".into());
        }
        let simple = !matches!(known.rule, Rule::Proof | Rule::Digest(_) | Rule::One(_));
        if simple && value.len() > MAX_SIMPLE {
            return Answer::Breach("a value that is too long");
        }
        if matches!(known.place, Place::First | Place::Any) {
            self.identity.push((known.name, value.to_owned()));
        }
        self.apply(known.rule, value)
    }

    fn apply(&mut self, rule: Rule, value: &str) -> Answer {
        match rule {
            Rule::Declared => Answer::Nothing,
            Rule::Proof => Answer::Proof,
            Rule::Fixed(answer) => Answer::Value(answer.into()),
            Rule::Digest(set) => Answer::Value(self.digest(value, set).into()),
            Rule::One(of) => {
                let found = list(value).any(|v| v == of);
                Answer::Value(if found { of } else { "Reject" }.into())
            }
            Rule::InitialR2t => {
                let mine = self.miscounts;
                self.boolean(value, mine, Boolean::Or, |p, on| p.initial_r2t = on)
            }
            Rule::Bool(mine, result, set) => self.boolean(value, mine, result, set),
            Rule::Number(number) => self.number(value, &number),
            Rule::Told((min, max), set) => match parse(value) {
                Some(theirs) if (min..=max).contains(&theirs) => {
                    set(&mut self.parameters, theirs);
                    Answer::Nothing
                }
                // There is no answer that it could be told with.
                _ => Answer::Breach("a length that cannot be"),
            },
        }
    }

    /// The first of the initiator's digests that we have. "None" is chosen only where it is offered
    /// (§6.2.1), or where the offer is a known misspelling.
    fn digest(&mut self, value: &str, set: Set<bool>) -> &'static str {
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

    /// What is out of bounds, or no number (no key of the standard still offers a range), is rejected,
    /// and the default holds (§6.2.2).
    fn number(&mut self, value: &str, rule: &Number) -> Answer {
        let (min, max) = rule.bounds;
        let Some(theirs) = parse(value).filter(|n| (min..=max).contains(n)) else {
            return Answer::Value("Reject".into());
        };
        let agreed = match rule.result {
            Choice::Min => theirs.min(rule.mine),
            Choice::Max => theirs.max(rule.mine),
        };
        (rule.set)(&mut self.parameters, agreed);
        Answer::Value(agreed.to_string().into())
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',')
}

#[cfg(test)]
mod tests;
