//! The keys of RFC 7143 §12 and §13 (and RFC 7144 §7): where each may stand, and how it is answered.

use crate::iscsi::sessions::Parameters;

/// Most data that we take in one PDU.
pub(in crate::iscsi) const MAX_RECV: u32 = 1024 * 1024;

/// Largest data segment or burst (24 bits).
const LENGTH: (u32, u32) = (512, 0xff_ffff);

/// A key that the standard has.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) scope: Scope,
    pub(super) rule: Rule,
}

/// Where an initiator may send a key (its "Use").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::iscsi) enum Place {
    /// Nowhere but in the first request of a login, whatever its stage.
    First,
    /// The security stage of the login.
    Security,
    /// The operational stage.
    Operational,
    /// The operational stage, and at any time afterwards.
    Later,
    /// Anywhere.
    Any,
    /// The full feature phase.
    FullFeature,
    /// Nowhere: only targets say it.
    Target,
}

/// The sessions that a key means something in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Any,
    /// "Irrelevant when SessionType=Discovery".
    Normal,
}

/// How the answer to an offer is found.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Text that wants no answer: the login looks at it, or nobody needs it.
    Declared,
    /// A part of the proof of who it is.
    Proof,
    /// Always the same answer.
    Fixed(&'static str),
    /// A list of digests.
    Digest(Set<bool>),
    /// A list of which this is the only one that we have.
    One(&'static str),
    /// Ours, and how it is combined with theirs.
    Bool(bool, Boolean, Set<bool>),
    /// Theirs, unless they cannot count.
    InitialR2t,
    /// A number within bounds, ours, and how it is combined with theirs.
    Number(Number),
    /// A number within bounds that counts for what we send. There is no answer.
    Told((u32, u32), Set<u32>),
}

pub(super) type Set<T> = fn(&mut Parameters, T);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boolean {
    Or,
    And,
}

#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) bounds: (u32, u32),
    pub(super) mine: u32,
    pub(super) result: Choice,
    pub(super) set: Set<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Min,
    Max,
}

const fn key(name: &'static str, place: Place, scope: Scope, rule: Rule) -> Key {
    Key {
        name,
        place,
        scope,
        rule,
    }
}

const fn number(bounds: (u32, u32), result: Choice, mine: u32, set: Set<u32>) -> Rule {
    Rule::Number(Number {
        bounds,
        mine,
        result,
        set,
    })
}

/// The key of this name. Names are compared with their case (§6.1).
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|known| known.name == name)
}

use Boolean::{And, Or};
use Choice::{Max, Min};
use Place::{First, FullFeature, Later, Operational, Security, Target};
use Rule::{Bool, Declared, Digest, Fixed, One, Proof, Told};
use Scope::{Any, Normal};

#[rustfmt::skip]
pub(super) static KEYS: &[Key] = &[
    // Who it is, and to whom (§13.4, §13.5, §13.7, §13.21).
    key("InitiatorName", First, Any, Declared),
    key("TargetName", First, Any, Declared),
    key("SessionType", First, Any, Declared),
    key("InitiatorAlias", Place::Any, Any, Declared),
    // What only a target says (§13.6, §13.8, §13.9), and what is asked of it later (§13.3).
    key("TargetAlias", Target, Any, Declared),
    key("TargetAddress", Target, Any, Declared),
    key("TargetPortalGroupTag", Target, Any, Declared),
    key("SendTargets", FullFeature, Any, Declared),
    // How it is proved (§12).
    key("AuthMethod", Security, Any, Proof),
    key("CHAP_A", Security, Any, Proof),
    key("CHAP_N", Security, Any, Proof),
    key("CHAP_R", Security, Any, Proof),
    key("CHAP_I", Security, Any, Proof),
    key("CHAP_C", Security, Any, Proof),
    // How to talk (§13.1, §13.2, §13.10 to §13.20, §13.23; RFC 7144 §7.1.1).
    key("HeaderDigest", Operational, Any, Digest(|p, on| p.header_digest = on)),
    key("DataDigest", Operational, Any, Digest(|p, on| p.data_digest = on)),
    key("MaxRecvDataSegmentLength", Later, Any, Told(LENGTH, |p, n| p.initiator_max_recv = n)),
    key("MaxConnections", Operational, Normal, number((1, 65535), Min, 1, |_, _| ())),
    key("InitialR2T", Operational, Normal, Rule::InitialR2t),
    key("ImmediateData", Operational, Normal, Bool(true, And, |p, on| p.immediate_data = on)),
    key("MaxBurstLength", Operational, Normal, number(LENGTH, Min, 1024 * 1024, |p, n| p.max_burst = n)),
    key("FirstBurstLength", Operational, Normal, number(LENGTH, Min, 256 * 1024, |p, n| p.first_burst = n)),
    key("DefaultTime2Wait", Operational, Any, number((0, 3600), Max, 0, |_, _| ())),
    key("DefaultTime2Retain", Operational, Any, number((0, 3600), Min, 0, |_, _| ())),
    key("MaxOutstandingR2T", Operational, Normal, number((1, 65535), Min, 8, |p, n| p.max_outstanding_r2t = n as u16)),
    key("DataPDUInOrder", Operational, Normal, Bool(true, Or, |_, _| ())),
    key("DataSequenceInOrder", Operational, Normal, Bool(true, Or, |_, _| ())),
    key("ErrorRecoveryLevel", Operational, Any, number((0, 2), Min, 0, |_, _| ())),
    key("TaskReporting", Operational, Normal, One("RFC3720")),
    key("iSCSIProtocolLevel", Operational, Normal, number((0, 31), Min, 1, |_, _| ())),
    // Obsolete (§13.25): markers are answered so, never with NotUnderstood.
    key("IFMarker", Operational, Any, Fixed("No")),
    key("OFMarker", Operational, Any, Fixed("No")),
    key("IFMarkInt", Operational, Any, Fixed("Reject")),
    key("OFMarkInt", Operational, Any, Fixed("Reject")),
];
