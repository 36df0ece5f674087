//! The login: a PDU in, one action out (RFC 7143 §6, §11.12, §11.13).
//!
//! The state machine knows no socket and no directory. It asks what is to be proved
//! ([`Step::Authenticate`]; the answer is [`Login::authenticated`]), and at its end to
//! [`open`](Step::Open) the session; whoever drives it does so and comes back with [`Login::accept`],
//! [`Login::refuse`] or [`Login::redirect`].

use std::net::SocketAddr;

use self::security::{Proof, Security};
use super::chap::{Challenges, Credential};
use super::directory::Authentication;
use super::keys::{self, Answer, MAX_RECV, Negotiation};
use super::names::{IscsiName, Isid};
use super::pdu::{Incoming, Outgoing};
use super::sessions::Parameters;
use super::wire::{LoginRequest, LoginResponse, Numbers, Opcode, Pairs, Serial, Stage, Tag};

mod security;

/// Most text in one request, with all its parts (RFC 7143 §6.1 has no use for more here).
const MAX_TEXT: usize = 8192;
/// Most text in one PDU of ours, whatever the initiator takes later on (§13.12).
const MAX_PART: usize = 8192;
/// Most steps of one login: continuations of nothing would never end.
const MAX_STEPS: u32 = 64;

/// Statuses of the login response that the login itself finds (RFC 7143 §11.13.5).
pub(super) mod status {
    pub(in crate::iscsi) const INITIATOR_ERROR: u16 = 0x0200;
    pub(in crate::iscsi) const AUTHENTICATION_FAILED: u16 = 0x0201;
    pub(in crate::iscsi) const NOT_FOUND: u16 = 0x0203;
    pub(in crate::iscsi) const VERSION: u16 = 0x0205;
    pub(in crate::iscsi) const TOO_MANY_CONNECTIONS: u16 = 0x0206;
    pub(in crate::iscsi) const MISSING_PARAMETER: u16 = 0x0207;
    pub(in crate::iscsi) const SESSION_TYPE: u16 = 0x0209;
    pub(in crate::iscsi) const NO_SESSION: u16 = 0x020a;
    pub(in crate::iscsi) const INVALID_DURING_LOGIN: u16 = 0x020b;
    pub(in crate::iscsi) const TARGET_ERROR: u16 = 0x0300;
}

/// What is to be done after a PDU.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this, and wait for the next PDU.
    Reply(Outgoing),
    /// Find out what the initiator has to prove, then [`Login::authenticated`].
    Authenticate(Wish),
    /// Open the session, then [`Login::accept`], [`Login::refuse`] or [`Login::redirect`].
    Open(Wish),
    /// Send this and close the connection.
    Refuse { status: u16, response: Outgoing },
    /// Close the connection: the peer does not speak iSCSI.
    Close,
}

/// What the initiator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) initiator: IscsiName,
    pub(super) isid: Isid,
    /// 0 for a new session.
    pub(super) tsih: u16,
    /// Nothing for a discovery session.
    pub(super) target: Option<IscsiName>,
    /// What it has proved to know.
    pub(super) proved: Option<Credential>,
}

/// Where the full feature phase begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) parameters: Parameters,
    pub(super) cid: u16,
    pub(super) stat_sn: Serial,
    pub(super) exp_cmd_sn: Serial,
}

/// A login in progress.
#[derive(Debug)]
pub(super) struct Login {
    window: u16,
    negotiation: Negotiation,
    security: Security,
    steps: u32,
    /// The first request; ISID, CID and ITT stay the same during a login.
    first: Option<LoginRequest>,
    /// The request that is being answered.
    current: Option<LoginRequest>,
    stage: Stage,
    stat_sn: Serial,
    /// Text of requests with the C bit, or of the first while its authentication is looked up.
    text: Vec<u8>,
    /// Answers that are still to be told.
    answers: Vec<u8>,
    telling: bool,
    answered_first: bool,
    declared: bool,
    wish: Option<Wish>,
}

/// Why a login is refused: the status of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused(u16);

impl Login {
    /// A login that has not begun, with as many commands in the window afterwards.
    pub(super) fn new(window: u16, challenges: Challenges) -> Self {
        Login {
            window,
            negotiation: Negotiation::default(),
            security: Security::new(challenges),
            steps: 0,
            first: None,
            current: None,
            stage: Stage::Security,
            stat_sn: Serial(0),
            text: Vec::new(),
            answers: Vec::new(),
            telling: false,
            answered_first: false,
            declared: false,
            wish: None,
        }
    }

    /// Takes the next PDU.
    pub(super) fn receive(&mut self, pdu: &Incoming) -> Step {
        if pdu.head().opcode != Opcode::LoginRequest {
            return match self.current {
                // RFC 7143 §6.3: anything else before the login is done is refused.
                Some(_) => self.refuse(status::INVALID_DURING_LOGIN),
                None => Step::Close,
            };
        }
        let step = self.begin(pdu).and_then(|request| {
            self.current = Some(request);
            self.take(&request, &pdu.data)
        });
        self.settle(step)
    }

    /// Goes on with the first request, now that it is known what the initiator has to prove.
    pub(super) fn authenticated(&mut self, authentication: Authentication) -> Step {
        let Some(request) = self.current else {
            return Step::Close;
        };
        self.security.demand(authentication);
        let text = std::mem::take(&mut self.text);
        let step = self.negotiate(&request, &text);
        self.settle(step)
    }

    /// Whether the next PDU is to bring the response to a challenge.
    pub(super) fn is_proving(&self) -> bool {
        self.security.is_proving()
    }

    /// Whether the peer has shown that it speaks iSCSI.
    pub(super) fn has_begun(&self) -> bool {
        self.current.is_some()
    }

    /// The last response: the session is open.
    pub(super) fn accept(mut self, tsih: u16) -> (Outgoing, Agreed) {
        let text = std::mem::take(&mut self.answers);
        let response = self.respond(Says::next(Some(Stage::FullFeature)), tsih, text);
        let agreed = Agreed {
            parameters: self.negotiation.parameters(),
            cid: self.first.map_or(0, |first| first.cid),
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.first.map_or(Serial(0), |first| first.cmd_sn),
        };
        (response, agreed)
    }

    /// The last response: there will be no session.
    pub(super) fn refuse(&mut self, status: u16) -> Step {
        let response = self.respond(Says::status(status), 0, Vec::new());
        Step::Refuse { status, response }
    }

    /// The last response: the target is to be found there.
    pub(super) fn redirect(&mut self, status: u16, address: SocketAddr) -> Step {
        let mut pairs = Pairs::default();
        // §13.8: without the portal group, which the new place will tell itself.
        pairs.add("TargetAddress", address);
        let response = self.respond(Says::status(status), 0, pairs.into_bytes());
        Step::Refuse { status, response }
    }

    fn settle(&mut self, step: Result<Step, Refused>) -> Step {
        step.unwrap_or_else(|Refused(status)| self.refuse(status))
    }

    /// Reads a request, and sees whether it belongs to this login and comes in time.
    fn begin(&mut self, pdu: &Incoming) -> Result<LoginRequest, Refused> {
        let error = Refused(status::INITIATOR_ERROR);
        self.steps += 1;
        let envelope = LoginRequest::envelope(&pdu.bhs).map_err(|_| error)?;
        let known = self.first;
        let first = *self.first.get_or_insert(envelope);
        self.current.get_or_insert(envelope);
        if known.is_none() {
            // Any number will do; theirs is what an initiator that remembers one expects.
            self.stat_sn = envelope.exp_stat_sn;
        }
        // Of another version we know nothing but where it says so (§11.12.4).
        if envelope.version_min > 0 {
            return Err(Refused(status::VERSION));
        }
        let request = LoginRequest::parse(&pdu.bhs).map_err(|_| error)?;
        if known.is_none() {
            self.stage = request.stage;
        }
        // §11.12.5 to §11.12.7, §11.12.9; §6.3: there is no way back to an earlier stage, nor on to
        // another without both sides' consent.
        let same = first.isid == request.isid
            && first.cid == request.cid
            && first.itt == request.itt
            && first.tsih == request.tsih;
        if self.steps > MAX_STEPS || !same || request.stage != self.stage {
            return Err(error);
        }
        Ok(request)
    }

    fn take(&mut self, request: &LoginRequest, data: &[u8]) -> Result<Step, Refused> {
        let error = Refused(status::INITIATOR_ERROR);
        if self.telling {
            // §6.2: the answer to a part is empty.
            if !data.is_empty() || request.more {
                return Err(error);
            }
            return self.tell(request);
        }
        if self.text.len() + data.len() > MAX_TEXT {
            return Err(error);
        }
        self.text.extend_from_slice(data);
        if request.more {
            return Ok(Step::Reply(self.respond(Says::next(None), 0, Vec::new())));
        }
        let text = std::mem::take(&mut self.text);
        if self.wish.is_some() {
            return self.negotiate(request, &text);
        }
        let wish = introduce(request, &text)?;
        if wish.target.is_none() {
            self.negotiation.discovery();
        }
        self.wish = Some(wish.clone());
        self.text = text;
        Ok(Step::Authenticate(wish))
    }

    /// Answers a request that is all there.
    fn negotiate(&mut self, request: &LoginRequest, text: &[u8]) -> Result<Step, Refused> {
        // An initiator that begins with the operational stage does not want to prove anything.
        if self.stage == Stage::Operational && !self.security.is_done() {
            return Err(Refused(status::AUTHENTICATION_FAILED));
        }
        let pairs = keys::offers(text).map_err(|_| Refused(status::INITIATOR_ERROR))?;
        let mut answers = Pairs::default();
        let mut proof = Proof::default();
        self.negotiation.look(&pairs);
        for (key, value) in pairs {
            match self.negotiation.answer(self.stage, key, value) {
                Answer::Value(answer) => answers.add(key, answer),
                Answer::Nothing => {}
                Answer::Proof => proof.take(key, value),
                Answer::Breach(reason) => {
                    tracing::debug!(key, reason, "a login breaks the rules");
                    return Err(Refused(status::INITIATOR_ERROR));
                }
            }
        }
        self.negotiation.introduced();
        if self.stage == Stage::Security {
            let goes_on = request.next.is_some();
            self.security.turn(&proof, goes_on, &mut answers)?;
        }
        self.declare(&mut answers);
        self.answers = answers.into_bytes();
        self.tell(request)
    }

    /// What we declare ourselves, each once.
    fn declare(&mut self, answers: &mut Pairs) {
        let normal = self.wish.as_ref().is_some_and(|w| w.target.is_some());
        // §13.9: in the first response of a normal session.
        if normal && !self.answered_first {
            answers.add("TargetPortalGroupTag", 1);
        }
        self.answered_first = true;
        // §13.12, where operational keys belong.
        if self.stage == Stage::Operational && !self.declared {
            self.declared = true;
            answers.add("MaxRecvDataSegmentLength", MAX_RECV);
        }
    }

    /// Tells as much of the answers as the initiator takes in one PDU, and goes where it wants to go
    /// when all is told.
    fn tell(&mut self, request: &LoginRequest) -> Result<Step, Refused> {
        let most = self.negotiation.parameters().initiator_max_recv as usize;
        let most = most.min(MAX_PART);
        self.telling = self.answers.len() > most;
        if self.telling {
            let rest = self.answers.split_off(most);
            let part = std::mem::replace(&mut self.answers, rest);
            return Ok(Step::Reply(self.respond(Says::PART, 0, part)));
        }
        let next = request.next.filter(|_| self.security.is_done());
        if next == Some(Stage::FullFeature) {
            let mut wish = self
                .wish
                .clone()
                .ok_or(Refused(status::MISSING_PARAMETER))?;
            wish.proved = self.security.proved();
            return Ok(Step::Open(wish));
        }
        let answers = std::mem::take(&mut self.answers);
        let reply = self.respond(Says::next(next), 0, answers);
        if let Some(next) = next {
            self.stage = next;
        }
        Ok(Step::Reply(reply))
    }

    fn respond(&mut self, says: Says, tsih: u16, text: Vec<u8>) -> Outgoing {
        let (isid, itt, exp_cmd_sn) = match &self.first {
            Some(first) => (first.isid, first.itt, first.cmd_sn),
            None => ([0; 6], Tag::NONE, Serial(0)),
        };
        let response = LoginResponse {
            next: says.next,
            more: says.more,
            stage: self.stage,
            isid,
            tsih,
            itt,
            numbers: Numbers {
                stat_sn: self.stat_sn,
                exp_cmd_sn,
                max_cmd_sn: exp_cmd_sn.plus(u32::from(self.window).saturating_sub(1)),
            },
            status: says.status,
        };
        self.stat_sn = self.stat_sn.plus(1);
        Outgoing::with(response.emit(), text)
    }
}

/// What the flags and the status of a response say.
struct Says {
    next: Option<Stage>,
    more: bool,
    status: u16,
}

impl Says {
    /// The text goes on.
    const PART: Says = Says {
        next: None,
        more: true,
        status: 0,
    };

    fn next(next: Option<Stage>) -> Self {
        Says {
            next,
            more: false,
            status: 0,
        }
    }

    fn status(status: u16) -> Self {
        Says {
            next: None,
            more: false,
            status,
        }
    }
}

/// What the first request must tell (RFC 7143 §6.3.1, §13.4, §13.5, §13.21).
fn introduce(request: &LoginRequest, text: &[u8]) -> Result<Wish, Refused> {
    let error = Refused(status::INITIATOR_ERROR);
    let pairs = keys::offers(text).map_err(|_| error)?;
    let find = |key| {
        pairs
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, value)| *value)
    };
    let missing = Refused(status::MISSING_PARAMETER);
    let initiator = find("InitiatorName").ok_or(missing)?;
    let initiator = initiator.parse().map_err(|_| error)?;
    let discovery = match find("SessionType") {
        Some("Discovery") => true,
        Some("Normal") | None => false,
        Some(_) => return Err(Refused(status::SESSION_TYPE)),
    };
    let target = match find("TargetName") {
        _ if discovery => None,
        // A name that cannot be is a target that is not there.
        Some(name) => Some(name.parse().map_err(|_| Refused(status::NOT_FOUND))?),
        None => return Err(missing),
    };
    Ok(Wish {
        initiator,
        isid: Isid(request.isid),
        tsih: request.tsih,
        target,
        proved: None,
    })
}

#[cfg(test)]
mod tests;
