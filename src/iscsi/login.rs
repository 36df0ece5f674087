//! The login: a PDU in, one action out (RFC 7143 §6, §11.12, §11.13).
//!
//! The state machine knows no socket and no directory. It ends by asking to [`open`](Step::Open) the
//! session; whoever drives it does so and comes back with [`Login::accept`] or [`Login::refuse`].

use super::keys::{Answer, MAX_RECV, Negotiation};
use super::names::{IscsiName, Isid};
use super::pdu::{Incoming, Outgoing};
use super::sessions::Parameters;
use super::wire::{self, LoginRequest, LoginResponse, Numbers, Opcode, Pairs, Serial, Stage, Tag};

/// Most text in one login (RFC 7143 §6.1 has no use for more), and in one answer of ours.
const MAX_TEXT: usize = 8192;
/// Most steps of one login: continuations of nothing would never end.
const MAX_STEPS: u32 = 64;

/// Statuses of the login response that the login itself finds (RFC 7143 §11.13.5).
pub(super) mod status {
    pub(in crate::iscsi) const INITIATOR_ERROR: u16 = 0x0200;
    pub(in crate::iscsi) const AUTHENTICATION_FAILED: u16 = 0x0201;
    pub(in crate::iscsi) const VERSION: u16 = 0x0205;
    pub(in crate::iscsi) const TOO_MANY_CONNECTIONS: u16 = 0x0206;
    pub(in crate::iscsi) const MISSING_PARAMETER: u16 = 0x0207;
    pub(in crate::iscsi) const SESSION_TYPE: u16 = 0x0209;
    pub(in crate::iscsi) const NO_SESSION: u16 = 0x020a;
    pub(in crate::iscsi) const INVALID_DURING_LOGIN: u16 = 0x020b;
}

/// What is to be done after a PDU.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this, and wait for the next PDU.
    Reply(Outgoing),
    /// Open the session, then [`Login::accept`] or [`Login::refuse`].
    Open(Wish),
    /// Send this and close the connection.
    Refuse(Outgoing),
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
    steps: u32,
    /// The first request; ISID, CID, ITT and CmdSN stay the same during a login.
    first: Option<LoginRequest>,
    /// The request that is being answered.
    current: Option<LoginRequest>,
    stage: Stage,
    stat_sn: Serial,
    /// Text of requests with the C bit.
    text: Vec<u8>,
    answers: Pairs,
    answered_first: bool,
    declared: bool,
    initiator: Option<IscsiName>,
    target: Option<IscsiName>,
    discovery: bool,
}

/// Why a login is refused.
struct Refused(u16);

impl Login {
    /// A login that has not begun, with as many commands in the window afterwards.
    pub(super) fn new(window: u16) -> Self {
        Login {
            window,
            negotiation: Negotiation::default(),
            steps: 0,
            first: None,
            current: None,
            stage: Stage::Security,
            stat_sn: Serial(0),
            text: Vec::new(),
            answers: Pairs::default(),
            answered_first: false,
            declared: false,
            initiator: None,
            target: None,
            discovery: false,
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
        let Ok(request) = LoginRequest::parse(&pdu.bhs) else {
            return match self.current {
                Some(_) => self.refuse(status::INITIATOR_ERROR),
                None => Step::Close,
            };
        };
        let known = self.follows(&request);
        self.current = Some(request);
        match known.and_then(|()| self.take(&request, &pdu.data)) {
            Ok(step) => step,
            Err(Refused(status)) => self.refuse(status),
        }
    }

    /// The last response: the session is open.
    pub(super) fn accept(mut self, tsih: u16) -> (Outgoing, Agreed) {
        let text = std::mem::take(&mut self.answers).into_bytes();
        let response = self.respond(Some(Stage::FullFeature), tsih, 0, text);
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
        Step::Refuse(self.respond(None, 0, status, Vec::new()))
    }

    /// Whether a request belongs to this login and comes in time.
    fn follows(&mut self, request: &LoginRequest) -> Result<(), Refused> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Refused(status::INITIATOR_ERROR));
        }
        let Some(first) = self.first else {
            self.first = Some(*request);
            self.stage = request.stage;
            // Any number will do; theirs is what an initiator that remembers one expects.
            self.stat_sn = request.exp_stat_sn;
            if request.version_min > 0 {
                return Err(Refused(status::VERSION));
            }
            return Ok(());
        };
        let same = first.isid == request.isid
            && first.cid == request.cid
            && first.itt == request.itt
            && first.tsih == request.tsih;
        if !same || request.stage != self.stage {
            return Err(Refused(status::INITIATOR_ERROR));
        }
        Ok(())
    }

    fn take(&mut self, request: &LoginRequest, data: &[u8]) -> Result<Step, Refused> {
        if self.text.len() + data.len() > MAX_TEXT {
            return Err(Refused(status::INITIATOR_ERROR));
        }
        self.text.extend_from_slice(data);
        if request.more {
            // The answer to a part is empty (RFC 7143 §6.2).
            return Ok(Step::Reply(self.respond(None, 0, 0, Vec::new())));
        }
        let text = std::mem::take(&mut self.text);
        for (key, value) in wire::pairs(&text).map_err(|_| Refused(status::INITIATOR_ERROR))? {
            self.offer(key, value)?;
        }
        self.complete_first()?;
        self.declare();
        // A short key makes a long answer.
        if self.answers.len() > MAX_TEXT {
            return Err(Refused(status::INITIATOR_ERROR));
        }
        if request.next == Some(Stage::FullFeature) {
            return self.wish().map(Step::Open);
        }
        let answers = std::mem::take(&mut self.answers).into_bytes();
        let reply = self.respond(request.next, 0, 0, answers);
        if let Some(next) = request.next {
            self.stage = next;
        }
        Ok(Step::Reply(reply))
    }

    fn offer(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        let bad = |_| Refused(status::INITIATOR_ERROR);
        match key {
            "InitiatorName" => self.initiator = Some(value.parse().map_err(bad)?),
            // A name that cannot be is a target that is not there.
            "TargetName" => {
                let name = value.parse().map_err(|_| Refused(0x0203))?;
                self.target = Some(name);
            }
            "SessionType" => {
                self.discovery = match value {
                    "Discovery" => true,
                    "Normal" => false,
                    _ => return Err(Refused(status::SESSION_TYPE)),
                }
            }
            _ => {}
        }
        match self.negotiation.answer(key, value) {
            Answer::Value(answer) if key == "AuthMethod" && answer == "Reject" => {
                // The initiator insists on a proof that nobody here can take.
                Err(Refused(status::AUTHENTICATION_FAILED))
            }
            Answer::Value(answer) => {
                self.answers.add(key, answer);
                Ok(())
            }
            Answer::Nothing => Ok(()),
            Answer::Again => Err(Refused(status::INITIATOR_ERROR)),
        }
    }

    /// What the first request must tell, and the first response must (RFC 7143 §6.3.1, §13.9).
    fn complete_first(&mut self) -> Result<(), Refused> {
        if self.answered_first {
            return Ok(());
        }
        self.answered_first = true;
        if self.initiator.is_none() || (self.target.is_none() && !self.discovery) {
            return Err(Refused(status::MISSING_PARAMETER));
        }
        if !self.discovery {
            self.answers.add("TargetPortalGroupTag", 1);
        }
        Ok(())
    }

    /// Declares what we take in one PDU, once, where operational keys belong.
    fn declare(&mut self) {
        if self.stage == Stage::Operational && !self.declared {
            self.declared = true;
            self.answers.add("MaxRecvDataSegmentLength", MAX_RECV);
        }
    }

    fn wish(&self) -> Result<Wish, Refused> {
        match (&self.initiator, &self.first) {
            (Some(initiator), Some(first)) => Ok(Wish {
                initiator: initiator.clone(),
                isid: Isid(first.isid),
                tsih: first.tsih,
                target: if self.discovery {
                    None
                } else {
                    self.target.clone()
                },
            }),
            _ => Err(Refused(status::MISSING_PARAMETER)),
        }
    }

    fn respond(&mut self, next: Option<Stage>, tsih: u16, status: u16, text: Vec<u8>) -> Outgoing {
        let (isid, itt, exp_cmd_sn) = match &self.first {
            Some(first) => (first.isid, first.itt, first.cmd_sn),
            None => ([0; 6], Tag::NONE, Serial(0)),
        };
        let response = LoginResponse {
            next,
            more: false,
            stage: self.stage,
            isid,
            tsih,
            itt,
            numbers: Numbers {
                stat_sn: self.stat_sn,
                exp_cmd_sn,
                max_cmd_sn: exp_cmd_sn.plus(u32::from(self.window).saturating_sub(1)),
            },
            status,
        };
        self.stat_sn = self.stat_sn.plus(1);
        Outgoing::with(response.emit(), text)
    }
}

#[cfg(test)]
mod tests;
